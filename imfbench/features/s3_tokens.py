"""What CosyVoice 2 hears of a recording: S3 tokens (Du et al. 2024, arXiv 2407.05407), CAM++'s speaker vector, and the mel.

Tokens come at 25 a second, mel frames at 50: each token stands on two frames. Both networks read files of CosyVoice2-0.5B,
which no package carries: give their path, or see ``imfbench.features.cosyvoice_files`` for where they are looked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from imfbench import weights
from imfbench.backbones.originals import MissingPackageError, original
from imfbench.features.cosyvoice_files import CAMPPLUS, TOKENIZER, find
from imfbench.features.mel import COSYVOICE2

EXTRA = "cosyvoice"
SAMPLE_RATE = 16_000
"""Of what tokenizer and CAM++ hear; the mel is of 24 kHz."""
TOKENS_PER_SECOND = 25
FRAMES_PER_TOKEN = 2
VOCABULARY = 3**8
SPEAKER_DIMS = 192
LONGEST = 30.0
"""Seconds that the tokenizer was trained on; CosyVoice's front end refuses more."""
HEAD = 64
"""Channels of a head of the tokenizer's attention."""


class TokenRateError(ValueError):
    """Tokens and mel are not of one recording, or not of these rates."""


def cosyvoice_mel(audio: Tensor) -> Tensor:
    """CosyVoice 2's log-mel of ``audio``, (samples,), at 24 kHz: (frames, 80), 50 frames a second.

    A window and a transform of 1920 samples, a hop of 480, Slaney filters up to 8 kHz, ``ln(max(mel, 1e-5))``; source:
    ``feat_extractor`` of ``cosyvoice2.yaml``, which is Matcha-TTS's ``mel_spectrogram``.
    """
    return COSYVOICE2.log_mel(audio)


def check_token_rate(frames: int, tokens: int, what: str = "the recording") -> None:
    """Raise unless ``frames`` are two a token, give or take two frames: the ends of a recording are rounded differently.

    Raises:
        TokenRateError: They are not.
    """
    if abs(frames - FRAMES_PER_TOKEN * tokens) > FRAMES_PER_TOKEN:
        raise TokenRateError(
            f"{what} has {frames} mel frames and {tokens} tokens, but so many tokens stand on {FRAMES_PER_TOKEN * tokens} frames "
            "(25 tokens and 50 frames a second): make both from the same audio, the tokens by a 25 Hz S3 tokenizer (v2), the "
            "mel of 24 kHz with a hop of 480 samples"
        )


def foreign_token(tokens: Tensor, vocabulary: int | None) -> str:
    """A token that a network of ``vocabulary`` tokens (None: any) does not know, and what to do; empty if it knows them all."""
    if vocabulary is None or (top := int(tokens.max())) < vocabulary:
        return ""
    return (
        f"token {top}, and the network knows {vocabulary}: the tokens are of another tokenizer; make them with the one that "
        "belongs to the checkpoint"
    )


class S3Tokenizer:
    """The S3 tokenizer of CosyVoice 2 (``speech_tokenizer_v2.onnx``, 25 Hz, 6561 tokens), by the package ``s3tokenizer``.

    Args:
        path: ``speech_tokenizer_v2.onnx``, the folder that holds it, or its weights by the package's names (``.pt``,
            ``.safetensors``); None: see ``cosyvoice_files``.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._device = torch.device("cpu")
        self._network: Any = None

    def load(self, device: torch.device | str = "cpu") -> S3Tokenizer:
        """Read the weights onto ``device``.

        Raises:
            MissingModelError: The file is not there.
            MissingPackageError: The package is not installed.
            DamagedModelError: The file holds another network, such as CosyVoice 1's or 3's tokenizer.
        """
        path = find(TOKENIZER, self._path)
        package = original("s3tokenizer.model_v2", extra=EXTRA)
        state = _tokenizer_state(path)
        stem = state.get("encoder.conv1.weight")
        if stem is None or stem.ndim != 3 or stem.shape[0] % HEAD:
            raise weights.DamagedModelError(
                f"{path} holds no S3 tokenizer of version 2: give the speech_tokenizer_v2.onnx of CosyVoice2-0.5B"
            )
        layers = {name.split(".")[2] for name in state if name.startswith("encoder.blocks.")}
        shape = package.ModelConfig(
            n_mels=stem.shape[1],
            n_audio_state=stem.shape[0],
            n_audio_head=stem.shape[0] // HEAD,
            n_audio_layer=len(layers),
        )
        network = package.S3TokenizerV2("speech_tokenizer_v2_25hz", shape)
        weights.fill(network, state, path)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        return self

    def __call__(self, audio: np.ndarray) -> Tensor:
        """Tokens of ``audio``, (samples,) float32 at 16 kHz: (tokens,) int64 from 0, on the CPU, one for every 40 ms begun.

        Raises:
            ValueError: Longer than 30 s.
        """
        if self._network is None:
            self.load()
        seconds = len(audio) / SAMPLE_RATE
        if seconds > LONGEST:
            raise ValueError(
                f"a recording of {seconds:.1f} s, but the S3 tokenizer hears {LONGEST:g} s at most: cut it, or give a shorter one"
            )
        log_mel = original("s3tokenizer.utils", extra=EXTRA).log_mel_spectrogram
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(audio, np.float32)), n_mels=self._network.config.n_mels)
        with torch.autocast(self._device.type, enabled=False):
            frames = torch.tensor([mel.shape[1]], device=self._device)
            tokens, lengths = self._network.quantize(mel[None].to(self._device), frames)
        found: Tensor = tokens[0, : int(lengths[0])].long().cpu().clone()
        return found


def _tokenizer_state(path: Path) -> dict[str, Tensor]:
    """Weights by the package's names, out of the official ONNX file or one that was converted."""
    if path.suffix == ".safetensors":
        state = load_file(path)
    elif path.suffix == ".onnx":
        read = original("s3tokenizer.utils", extra=EXTRA).onnx2torch
        try:
            state = read(str(path), None, False)
        except MissingPackageError:
            raise
        except Exception as error:  # the parser of ONNX raises many kinds, the search for known nodes others
            raise weights.DamagedModelError(
                f"{path} is not the speech_tokenizer_v2.onnx of CosyVoice2-0.5B ({type(error).__name__}): fetch that file again"
            ) from None
    else:
        state = weights.load_tensors(path)
    return dict(state)


class CamPlus:
    """CAM++'s vector of a speaker (Wang et al. 2023, arXiv 2303.00332): CosyVoice2-0.5B's ``campplus.onnx`` by ONNX Runtime.

    Args:
        path: The file, or the folder that holds it; None: see ``cosyvoice_files``.
        threads: Of ONNX Runtime.
    """

    def __init__(self, path: Path | None = None, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self._session: Any = None

    def load(self) -> CamPlus:
        """Open the file.

        Raises:
            MissingModelError: It is not there.
            DamagedModelError: It is no ONNX, or not of a network from 80 bands to 192 numbers.
        """
        import onnxruntime

        path = find(CAMPPLUS, self._path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises kinds of its own
            told = str(error).partition("\n")[0]
            raise weights.DamagedModelError(
                f"{path} is no ONNX model that can be read ({told}): give the campplus.onnx of CosyVoice2-0.5B"
            ) from None
        shapes = [list(value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
        takes, gives = shapes[0], shapes[-1]
        if (
            len(session.get_inputs()) != 1
            or len(takes) != 3
            or takes[-1] != 80
            or gives[-1] not in (SPEAKER_DIMS, None)
        ):
            raise weights.DamagedModelError(
                f"{path} takes {takes} and gives {gives}, where CAM++ takes 80 bands a frame and gives {SPEAKER_DIMS} numbers: "
                "give the campplus.onnx of CosyVoice2-0.5B"
            )
        self._session = session
        return self

    def __call__(self, audio: np.ndarray) -> Tensor:
        """The vector of ``audio``, (samples,) float32 in [-1, 1] at 16 kHz: (192,), float32, as long as it comes.

        Raises:
            ValueError: Shorter than one window of 25 ms.
        """
        if self._session is None:
            self.load()
        (found,) = self._session.run(None, {self._session.get_inputs()[0].name: fbank(audio)[None].numpy()})[:1]
        return torch.from_numpy(np.array(found, np.float32).reshape(-1))


def fbank(audio: np.ndarray) -> Tensor:
    """CAM++'s features of 16 kHz audio in [-1, 1]: (frames, 80), Kaldi's log filterbank less its mean over time.

    Kaldi's own settings (Povey window, 25 ms every 10 ms) but without dither; source: ``_extract_spk_embedding`` of CosyVoice.
    """
    from torchaudio.compliance import kaldi

    if len(audio) < SAMPLE_RATE // 40:
        raise ValueError(
            f"audio of {1000 * len(audio) / SAMPLE_RATE:.1f} ms has no voice to hear: give a longer recording"
        )
    wave = torch.from_numpy(np.ascontiguousarray(audio, np.float32))[None]
    features: Tensor = kaldi.fbank(wave, num_mel_bins=80, dither=0.0, sample_frequency=SAMPLE_RATE)
    return features - features.mean(0, keepdim=True)
