"""Speaker similarity: the cosine between the generated part alone and the original prompt recording (SIM-o).

The prompt's own frames never stand in the scored audio. The backend is part of the signature, since the same pair of
recordings gets .33 from one embedder and .77 from another: figures of different backends are never compared.

- ``resemblyzer`` (default; its weights come in a pinned package): GE2E, three LSTM layers of 256 over 40 mel bands.
- ``wespeaker-onnx``: a WeSpeaker export run by ONNX Runtime on an 80-band Kaldi filterbank; give its path.
- ``wespeaker``: the toolkit itself, for its own checkpoints (extra ``imfbench[wespeaker]``).
- ``wavlm-large-ecapa``: the scorer of the published tables (extra ``imfbench[transformers]``; its weights are in no package).
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn

from imfbench import published, weights
from imfbench.features.audio import RESAMPLER
from imfbench.metrics.base import Metric, MetricConfig, ScoreError, ScoreItem, at_rate, clip, content_hash
from imfbench.metrics.resamplers import ResamplerName
from imfbench.metrics.signature import Signature
from imfbench.registry import nearest

SAMPLE_RATE = 16000
MOST_PROMPTS = 2048
"""Prompts whose embeddings are kept while their utterances are scored."""
SHORTEST = 0.4
"""Seconds below which an embedding says nothing about a voice; such audio is a failed row."""


class GE2E(nn.Module):
    """The network of Resemblyzer: the last hidden state of an LSTM over mel frames, projected, rectified, unit length.

    Source: Wan et al. 2018, arXiv 1710.10467, with the ReLU of resemble-ai/Resemblyzer.
    """

    def __init__(self, bands: int = 40, size: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, size, layers, batch_first=True)
        self.linear = nn.Linear(size, size)

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings (batch, 256) of mels (batch, frames, 40)."""
        _, (hidden, _) = self.lstm(mel)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=-1)


class Embedder(ABC):
    """Audio at 16 kHz → a speaker embedding of unit length."""

    def __init__(self, config: Any, device: str, threads: int | None) -> None:
        self.config, self.device, self.threads = config, device, threads

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """The embedder's parts of the signature."""

    @abstractmethod
    def load(self) -> None:
        """Load the model."""

    @abstractmethod
    def embed(self, audio: np.ndarray) -> np.ndarray:
        """The embedding, (size,), of 16 kHz audio, (samples,)."""


class Resemblyzer(Embedder):
    """GE2E over overlapping windows of 1.6 s, averaged.

    Its input as its authors made it: power mel (not its logarithm) of 40 Slaney bands, frames of 25 ms every 10 ms;
    windows start every .77 s, and a last one that is filled by less than three quarters is dropped. Two things differ.
    All audio is brought to −23 dBFS, where theirs raises what is below −30 and leaves the rest: a gain of −26 dB cost .05
    of SIM there, and level is no part of a voice. Their voice activity detection, a compiled package, is left out: with
    it, voices were told apart no better.
    """

    window, step, fill, level = 160, 77, 0.75, -23.0

    def parts(self) -> dict[str, Any]:
        """Embedder, sha256 and front end."""
        return {"embedder": f"resemblyzer@{weights.sha8(self._file())}", "level": f"{self.level:g}dBFS", "vad": "none"}

    def _file(self) -> Path:
        return weights.find("resemblyzer", self.config.path)

    def load(self) -> None:
        """Load the weights into ``GE2E``; nothing is unpickled but tensors."""
        import torchaudio

        state = weights.load_tensors(self._file(), "model_state")
        self.network = GE2E()
        # The file also holds the two scalars of the training loss.
        state = {key: state[key] for key in self.network.state_dict() if key in state}
        weights.fill(self.network, state, self._file())
        self.network.eval().to(self.device)
        self.mel = torchaudio.transforms.MelSpectrogram(
            SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=40, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )

    def windows(self, samples: int) -> list[int]:
        """First frames of the windows over audio of ``samples`` samples."""
        hop = 160
        frames = -(-(samples + 1) // hop)
        starts = list(range(0, max(1, frames - self.window + self.step + 1), self.step))
        if len(starts) > 1 and (samples - starts[-1] * hop) / (self.window * hop) < self.fill:
            starts.pop()
        return starts

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> np.ndarray:
        """The mean of the windows' embeddings, of unit length."""
        level = 20 * np.log10(np.sqrt(np.mean(audio.astype(np.float64) ** 2)))
        wave = torch.from_numpy(audio * np.float32(10 ** ((self.level - level) / 20)))
        starts = self.windows(len(audio))
        missing = max(0, (starts[-1] + self.window) * 160 - len(audio))
        mel = self.mel(nn.functional.pad(wave, (0, missing))).T
        batch = torch.stack([mel[start : start + self.window] for start in starts])
        mean = self.network(batch.to(self.device)).mean(0)
        return nn.functional.normalize(mean, dim=-1).cpu().numpy()


class WeSpeakerONNX(Embedder):
    """A WeSpeaker model exported to ONNX: input (1, frames, 80), output (1, size).

    Source of the front end: wenet-e2e/wespeaker, ``infer_onnx.py``: 16-bit scale, Hamming window, no dither, no energy,
    mean over time subtracted. Its CAM++ and ERes2Net models were trained on a Povey window and unit scale instead.
    """

    def _file(self) -> Path:
        if self.config.path is not None:
            return weights.find("wespeaker-onnx", self.config.path)
        try:
            return published.obtain(published.PUBLISHED["wespeaker-resnet34"])
        except weights.MissingModelError as error:
            raise weights.MissingModelError(
                f"backend 'wespeaker-onnx' of metric sim needs the path of a WeSpeaker ONNX model: set metrics.sim.path, or "
                f"use backend: resemblyzer; {error}"
            ) from error

    def parts(self) -> dict[str, Any]:
        """Embedder, sha256 and front end."""
        name = "_".join(self._file().stem.split())
        return {
            "embedder": f"wespeaker-onnx-{name}@{weights.sha8(self._file())}",
            "fbank": f"kaldi80-{self.config.frontend}",
            "vad": "none",
        }

    def load(self) -> None:
        """Open an ONNX Runtime session on the CPU, or on the accelerator that ONNX Runtime was built for."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        cpu = "CPUExecutionProvider"
        # TensorRT would compile an engine for every length of audio.
        others = [name for name in onnxruntime.get_available_providers() if not name.startswith("Tensorrt")]
        wanted = [cpu] if self.device == "cpu" else [*others, cpu]
        self.session = onnxruntime.InferenceSession(str(self._file()), options, list(dict.fromkeys(wanted)))

    def embed(self, audio: np.ndarray) -> np.ndarray:
        """The model's embedding, brought to unit length."""
        features = kaldi_fbank(audio, self.config.frontend).unsqueeze(0).numpy()
        (embedding,) = self.session.run(None, {self.session.get_inputs()[0].name: features})[:1]
        return _unit(np.asarray(embedding).reshape(-1))


class WeSpeaker(Embedder):
    """A checkpoint of the WeSpeaker toolkit by its own code: a folder (``path``), or a name that it downloads."""

    def _require(self) -> None:
        if importlib.util.find_spec("wespeaker") is None:
            raise weights.MissingModelError(
                "backend 'wespeaker' of metric sim needs the toolkit: `pip install imfbench[wespeaker]`; "
                "or use backend: wespeaker-onnx with a path, or backend: resemblyzer"
            )

    def _folder(self) -> Path:
        if self.config.path is not None:
            folder = weights.find("wespeaker", self.config.path)
        else:
            self._require()
            from wespeaker.cli.hub import Hub

            if self.config.model not in Hub.Assets:
                raise weights.MissingModelError(
                    f"WeSpeaker knows no model {self.config.model!r}: {nearest(self.config.model, list(Hub.Assets))}"
                )
            try:
                folder = Path(Hub.get_model(self.config.model))
            except Exception as error:  # its download raises many kinds
                raise weights.MissingModelError(
                    f"WeSpeaker's model {self.config.model!r} could not be fetched ({type(error).__name__}). Without "
                    "internet, set metrics.sim.path to a folder with config.yaml and avg_model.pt"
                ) from error
        for file in ("config.yaml", "avg_model.pt"):
            if not (folder / file).is_file():
                raise weights.MissingModelError(f"{folder} is no WeSpeaker checkpoint: it holds no {file}")
        return folder

    def parts(self) -> dict[str, Any]:
        """Embedder, sha256 and front end."""
        folder = self._folder()
        name = "_".join(folder.name.split())
        return {
            "embedder": f"wespeaker-{name}@{weights.sha8(folder / 'avg_model.pt')}",
            "fbank": f"kaldi80-{self.config.frontend}",
            "vad": "none",
        }

    def load(self) -> None:
        """Let the toolkit load the model, with the front end that the config names."""
        self._require()
        import wespeaker

        self.speaker = wespeaker.load_model(str(self._folder()))
        self.speaker.set_window_type(self.config.frontend)
        self.speaker.set_device(self.device)

    def embed(self, audio: np.ndarray) -> np.ndarray:
        """The toolkit's embedding, brought to unit length (its own score maps the cosine to 0…1; ours does not)."""
        scale = 1.0 if self.config.frontend == "povey" else 32768.0
        embedding = self.speaker.extract_embedding_from_pcm(
            torch.from_numpy(audio * np.float32(scale))[None], SAMPLE_RATE
        )
        return _unit(embedding.numpy().reshape(-1))


class WavLM(Embedder):
    """WavLM-large with ECAPA-TDNN, fine-tuned for speaker verification: what published SIM figures are made with."""

    def _file(self) -> Path:
        return published.obtain(published.PUBLISHED["wavlm-large-ecapa"], self.config.path)

    def parts(self) -> dict[str, Any]:
        """Embedder and sha256; all of the recording is heard, at its own level."""
        return {"embedder": f"wavlm-large-ecapa@{weights.sha8(self._file())}", "vad": "none"}

    def load(self) -> None:
        """Build the network without weights and read the checkpoint into it."""
        from imfbench.metrics.wavlm_ecapa import WavLMECAPA, fill

        self.network = WavLMECAPA()
        fill(self.network, self._file())
        self.network.eval().to(self.device)

    @torch.inference_mode()
    def embed(self, audio: np.ndarray) -> np.ndarray:
        """The embedding, brought to unit length."""
        return _unit(self.network(torch.from_numpy(audio)[None].to(self.device))[0].float().cpu().numpy())


EMBEDDERS: dict[str, type[Embedder]] = {
    "resemblyzer": Resemblyzer,
    "wespeaker-onnx": WeSpeakerONNX,
    "wespeaker": WeSpeaker,
    "wavlm-large-ecapa": WavLM,
}


def kaldi_fbank(audio: np.ndarray, frontend: Literal["hamming", "povey"] = "hamming") -> Tensor:
    """WeSpeaker's features of 16 kHz audio: (frames, 80), log filterbank less its mean over time."""
    import torchaudio

    scale = 1.0 if frontend == "povey" else 32768.0
    features = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(audio * np.float32(scale))[None],
        num_mel_bins=80,
        frame_length=25,
        frame_shift=10,
        dither=0.0,
        sample_frequency=SAMPLE_RATE,
        window_type=frontend,
        use_energy=False,
    )
    return features - features.mean(0)


class SpeakerSimilarity(Metric):
    """Cosine of the speaker embeddings of generated part and prompt recording; 1 is the same, 0 unrelated."""

    class Config(MetricConfig):
        """Settings of ``sim``."""

        backend: str = "resemblyzer"
        """A key of ``EMBEDDERS``."""
        path: Path | None = None
        """The user's own weights: a .pt of Resemblyzer, a WeSpeaker .onnx, a folder of a WeSpeaker checkpoint, or
        wavlm_large_finetune.pth."""
        model: str = "english"
        """For backend wespeaker without a path: the name of the model that the toolkit is to download."""
        frontend: Literal["hamming", "povey"] = "hamming"
        """For WeSpeaker: hamming with 16-bit scale (ResNet, ECAPA), or povey with unit scale (CAM++, ERes2Net)."""
        resampler: ResamplerName = RESAMPLER
        """A key of ``RESAMPLERS``: how audio gets to 16 kHz."""

        @field_validator("backend")
        @classmethod
        def _known(cls, name: str) -> str:
            if name not in EMBEDDERS:
                raise ValueError(f"unknown SIM backend {name!r}: {nearest(name, list(EMBEDDERS))}")
            return name

    name: ClassVar[str] = "sim"
    columns: ClassVar[tuple[str, ...]] = ("sim",)
    reads: ClassVar[tuple[str, ...] | None] = ("audio", "prompt")
    summary_columns: ClassVar[tuple[str, ...]] = ("sim",)

    def __init__(self, config: Any = None, device: str = "cpu", threads: int | None = None) -> None:
        super().__init__(config, device, threads)
        self._prompts: dict[str, list[float]] = {}

    def _embedder(self) -> Embedder:
        return EMBEDDERS[self.config.backend](self.config, self.device, self.threads)

    @property
    def model_signature(self) -> Signature:
        """What the embeddings depend on."""
        return Signature("sim", 1, **self._embedder().parts(), reference="prompt", resample=self.config.resampler)

    def open_model(self) -> Embedder:
        """Load the embedder."""
        embedder = self._embedder()
        embedder.load()
        return embedder

    def unload(self) -> None:
        """Free the embedder and the prompts' embeddings."""
        self._prompts.clear()
        super().unload()

    def cache_inputs(self, item: ScoreItem) -> list[Any]:
        """Generated part and prompt recording."""
        prompt, rate = _prompt(item)
        return [item.audio, item.sample_rate, prompt, rate]

    def prepare(self, item: ScoreItem) -> ScoreItem:
        """At the model's rate; the prompt, which many utterances share, stays as it is until it is embedded."""
        return at_rate(item, SAMPLE_RATE, self.config.resampler)

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """Both embeddings; a prompt that many utterances share is embedded once."""
        prompt, rate = _prompt(item)
        key = content_hash(prompt, rate)
        if key not in self._prompts:
            if len(self._prompts) >= MOST_PROMPTS:  # memory must not grow with the number of utterances
                self._prompts.clear()
            self._prompts[key] = self._embed(prompt, rate, "prompt audio")
        return {"embedding": self._embed(item.audio, item.sample_rate, "audio"), "prompt": self._prompts[key]}

    def _embed(self, audio: np.ndarray, rate: int, what: str) -> list[float]:
        wave = clip(audio, rate, SAMPLE_RATE, what, self.config.resampler)
        if len(wave) < SHORTEST * SAMPLE_RATE:
            raise ScoreError(
                f"the {what} lasts {len(wave) / SAMPLE_RATE:.2f} s; a voice needs {SHORTEST} s to be compared"
            )
        if np.abs(wave).max() < 1e-4:
            raise ScoreError(f"the {what} is silent, so it has no voice to compare")
        embedding = self.model.embed(wave)
        if not np.isfinite(embedding).all():
            raise ScoreError(f"the embedding of the {what} is not finite")
        return [float(value) for value in embedding]

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The cosine of the two embeddings."""
        return {"sim": float(np.dot(_unit(np.array(observation["embedding"])), _unit(np.array(observation["prompt"]))))}


def _prompt(item: ScoreItem) -> tuple[np.ndarray, int]:
    if item.prompt_audio is None or item.prompt_rate is None:
        raise ScoreError(f"utterance {item.id!r} has no prompt recording, which speaker similarity is measured against")
    return item.prompt_audio, item.prompt_rate


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
