"""The recognisers of the published scorers: Whisper's real weights by way of transformers, HuBERT against transformers' own."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from imfbench import published, weights
from imfbench.features.audio import resample
from imfbench.metrics.base import ScoreItem
from imfbench.metrics.hub_recognisers import HubertCTC, Paraformer, TransformersWhisper
from imfbench.metrics.recognisers import Decoding, FasterWhisper
from imfbench.metrics.wer import WordErrorRate

transformers = pytest.importorskip("transformers", reason="needs `pip install 'imfbench[transformers]'`")

GREEDY = Decoding(beam=1)
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)


def read_ctranslate2(file: Path) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model: a count, then name, shape, type and values of each."""
    data = memoryview(file.read_bytes())
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal at
        length = number("<H")
        found = bytes(data[at : at + length - 1]).decode()
        at += length
        return found

    assert number("<I") >= 6, "the binary version that has types and aliases"
    assert text() == "WhisperSpec"
    number("<I")
    found = {}
    for _ in range(number("<I")):
        name = text()
        shape = [number("<I") for _ in range(number("<B"))]
        kind, size = _TYPES[number("<B")], number("<I")
        found[name] = np.frombuffer(data[at : at + size], kind).reshape(shape)
        at += size
    return found


def as_transformers(variables: dict[str, np.ndarray], layers: int) -> dict[str, torch.Tensor]:
    """The same weights under transformers' names; what CTranslate2 joined is parted again."""
    found: dict[str, torch.Tensor] = {}

    def take(new: str, old: str, part: slice = slice(None), bias: bool = True) -> None:
        found[f"model.{new}.weight"] = torch.tensor(variables[f"{old}/weight"][part].astype(np.float32))
        if bias:
            found[f"model.{new}.bias"] = torch.tensor(variables[f"{old}/bias"][part].astype(np.float32))

    def norm(new: str, old: str) -> None:
        for ours, theirs in (("weight", "gamma"), ("bias", "beta")):
            found[f"model.{new}.{ours}"] = torch.tensor(variables[f"{old}/{theirs}"].astype(np.float32))

    width = variables["encoder/layer_norm/gamma"].shape[0]
    first, second, third = (slice(i * width, (i + 1) * width) for i in range(3))
    for name in ("conv1", "conv2"):
        take(f"encoder.{name}", f"encoder/{name}")
    for side in ("encoder", "decoder"):
        found[f"model.{side}.embed_positions.weight"] = torch.tensor(
            variables[f"{side}/position_encodings/encodings"].astype(np.float32)
        )
        norm(f"{side}.layer_norm", f"{side}/layer_norm")
        for i in range(layers):
            new, old = f"{side}.layers.{i}", f"{side}/layer_{i}"
            norm(f"{new}.self_attn_layer_norm", f"{old}/self_attention/layer_norm")
            joined = f"{old}/self_attention/linear_0"
            take(f"{new}.self_attn.q_proj", joined, first)
            take(f"{new}.self_attn.k_proj", joined, second, bias=False)
            take(f"{new}.self_attn.v_proj", joined, third)
            take(f"{new}.self_attn.out_proj", f"{old}/self_attention/linear_1")
            norm(f"{new}.final_layer_norm", f"{old}/ffn/layer_norm")
            take(f"{new}.fc1", f"{old}/ffn/linear_0")
            take(f"{new}.fc2", f"{old}/ffn/linear_1")
            if side == "decoder":
                norm(f"{new}.encoder_attn_layer_norm", f"{old}/attention/layer_norm")
                take(f"{new}.encoder_attn.q_proj", f"{old}/attention/linear_0")
                take(f"{new}.encoder_attn.k_proj", f"{old}/attention/linear_1", first, bias=False)
                take(f"{new}.encoder_attn.v_proj", f"{old}/attention/linear_1", second)
                take(f"{new}.encoder_attn.out_proj", f"{old}/attention/linear_2")
    found["model.decoder.embed_tokens.weight"] = torch.tensor(variables["decoder/embeddings/weight"].astype(np.float32))
    found["proj_out.weight"] = found["model.decoder.embed_tokens.weight"]
    return found


@pytest.fixture(scope="module")
def whisper_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper base in Hugging Face's layout, from the weights that the embedded recogniser has."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizerFast,
    )

    source, folder = weights.find("whisper-base"), tmp_path_factory.mktemp("hub") / "whisper-base"
    config = WhisperConfig(
        d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8, decoder_attention_heads=8,
        encoder_ffn_dim=2048, decoder_ffn_dim=2048, vocab_size=51865, num_mel_bins=80,
        bos_token_id=50257, eos_token_id=50257, pad_token_id=50257, decoder_start_token_id=50258,
    )  # fmt: skip
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    state = as_transformers(read_ctranslate2(source / "model.bin"), 6)
    assert weights.misfits(model.state_dict(), state) == "", "every tensor has its place"
    model.load_state_dict(state, assign=True)
    about = json.loads((source / "config.json").read_text())
    tokens = json.loads((source / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokens["added_tokens"]}
    languages = {name: i for name, i in ids.items() if i in about["lang_ids"]}
    model.generation_config = GenerationConfig(
        bos_token_id=50257, eos_token_id=50257, pad_token_id=50257, decoder_start_token_id=50258, max_length=448,
        suppress_tokens=about["suppress_ids"], begin_suppress_tokens=about["suppress_ids_begin"], is_multilingual=True,
        lang_to_id=languages, task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"], return_timestamps=False,
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    WhisperTokenizerFast(tokenizer_file=str(source / "tokenizer.json")).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_whisper_by_transformers_hears_what_faster_whisper_hears(whisper_base: Path, demo_test_items: Any) -> None:
    """The same weights, greedy, in float32, on two roads that share no code."""
    ours = TransformersWhisper(GREEDY, "whisper-base", whisper_base, "float32", "cpu")
    theirs = FasterWhisper(GREEDY, "whisper-base", None, "float32", "cpu")
    assert ours.parts() == {
        "asr": f"transformers-whisper-base@{weights.sha256(whisper_base / 'model.safetensors')[:8]}",
        "compute": "float32",
        "beam": 1,
        "temperature": "0",
        "context": False,
        "timestamps": False,
    }
    ours.load(1)
    theirs.load(1)
    for item in demo_test_items(2):
        audio = resample(item.audio, item.sample_rate, 16000)
        heard = ours.transcribe(audio, "en")
        assert heard == theirs.transcribe(audio, "en")
        assert len(heard.split()) > 5
    features = ours.processor(audio, sampling_rate=16000, return_tensors="np").input_features[0]
    known = theirs.model.feature_extractor(audio)
    np.testing.assert_allclose(features[:, : known.shape[1] - 1], known[:, :-1][:, : features.shape[1]], atol=2e-3)


def test_the_metric_scores_by_the_published_protocol_with_another_whisper(
    whisper_base: Path, demo_test_items: Any
) -> None:
    item: ScoreItem = demo_test_items(1)[0]
    metric = WordErrorRate(WordErrorRate.Config(protocol="seed-tts-eval", asr_path=whisper_base))
    assert "|asr:transformers-whisper-base@" in metric.signature
    assert metric.signature.endswith("|agg:mean")
    assert metric.signature.parts["resample"] == "scipy-fft"
    with metric.loaded():
        found = metric.score(item)
    assert found["wer"] < 0.3
    assert found["hypothesis_normalised"] == found["hypothesis_normalised"].lower()


# ---- HuBERT ----


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small HuBERT of the layout of hubert-large-ls960-ft, its weights drawn at random: it hears nonsense, always the same."""
    folder = tmp_path_factory.mktemp("hub") / "hubert-large-ls960-ft"
    torch.manual_seed(0)
    signs = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
    config = transformers.HubertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7,
        feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4, vocab_size=len(signs), pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.HubertForCTC(config)
    torch.nn.init.normal_(model.lm_head.weight, std=2)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({sign: i for i, sign in enumerate(signs)}))
    transformers.Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    return folder


def test_hubert_says_what_transformers_own_pipeline_says(
    hubert: Path, monkeypatch: pytest.MonkeyPatch, demo_test_items: Any
) -> None:
    """ZipVoice calls that pipeline. The model is found below the folder of models by its name."""
    monkeypatch.setenv(published.MODEL_DIR, str(hubert.parent))
    recogniser = HubertCTC(None, "facebook/hubert-large-ls960-ft", None, "auto", "cpu")
    digest = weights.sha256(hubert / "model.safetensors")[:8]
    assert recogniser.parts() == {"asr": f"transformers-hubert-large-ls960-ft@{digest}", "compute": "float32"}
    recogniser.load(1)
    theirs = transformers.pipeline("automatic-speech-recognition", model=str(hubert), tokenizer=str(hubert))
    said = set()
    for item in demo_test_items(2):
        audio = resample(item.audio, item.sample_rate, 16000)
        heard = recogniser.transcribe(audio, "en")
        assert heard == theirs(audio)["text"].strip()
        said.add(heard)
    assert len(said) == 2, "different recordings"
    assert min(map(len, said)) > 3


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def test_a_pickle_is_read_if_it_holds_tensors_alone(
    hubert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(hubert, tmp_path / "hubert")
    state = transformers.HubertForCTC.from_pretrained(hubert).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    recogniser = HubertCTC(None, "x/y", folder, "auto", "cpu")
    recogniser.load(1)
    assert torch.equal(recogniser.model.lm_head.weight, state["lm_head.weight"])
    torch.save({"lm_head.weight": Runs()}, folder / "pytorch_model.bin")
    with pytest.raises(weights.DamagedModelError, match="would run code"):
        HubertCTC(None, "x/y", folder, "auto", "cpu").load(1)
    (folder / "pytorch_model.bin").rename(folder / "model.pt")
    monkeypatch.setattr(published, "installed", lambda module: True)
    with pytest.raises(weights.DamagedModelError, match="would run code"):
        Paraformer(None, "x/y", folder, "auto", "cpu").load(1)
    assert "this ran" not in capsys.readouterr().out


# ---- Paraformer ----


@pytest.fixture
def paraformer(tmp_path: Path) -> Path:
    """A small Paraformer of the layout of paraformer-zh, its weights drawn at random."""
    pytest.importorskip("funasr", reason="needs `pip install 'imfbench[funasr]'`")
    from funasr.models.paraformer.model import Paraformer as Network  # noqa: F401  (registers the network)

    folder = tmp_path / "paraformer-zh"
    folder.mkdir()
    dropout = dict.fromkeys(("dropout_rate", "positional_dropout_rate"), 0.1)
    config = {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.0, "lsm_weight": 0.1, "length_normalized_loss": True, "predictor_bias": 1},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": 32, "attention_heads": 4, "linear_units": 48, "num_blocks": 2, "input_layer": "pe", **dropout,
            "pos_enc_class": "SinusoidalPositionEncoder", "normalize_before": True, "kernel_size": 11, "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": 4, "linear_units": 48, "num_blocks": 2, "att_layer_num": 2, "kernel_size": 11, "sanm_shfit": 0,
            **dropout,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {"idim": 32, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
        "frontend": "WavFrontend",
        "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "lfr_m": 7, "lfr_n": 6},
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    signs = [
        "<blank>",
        "<s>",
        "</s>",
        *"的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生",
        "<unk>",
    ]
    (folder / "tokens.json").write_text(json.dumps(signs))
    shift, scale = (" ".join([value] * 560) for value in ("-8.0", "0.2"))
    (folder / "am.mvn").write_text(
        f"<Nnet>\n<Splice> 560 560\n[ 0 ]\n<AddShift> 560 560\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> 560 560\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
    torch.save({}, folder / "model.pt")
    return folder


def test_paraformer_says_what_funasr_says_of_a_file(paraformer: Path, tmp_path: Path, demo_test_items: Any) -> None:
    """As the scripts call it, on a file; the noise that its front end draws is the same on both roads here."""
    import soundfile
    from funasr import AutoModel

    with pytest.raises(weights.DamagedModelError, match="lacks 80 tensors, such as decoder"):
        Paraformer(None, "me/mine", paraformer, "auto", "cpu").load(1)  # FunASR alone would go on with random ones
    torch.manual_seed(0)
    theirs = AutoModel(model=str(paraformer), device="cpu", disable_update=True, disable_pbar=True)
    torch.save(theirs.model.state_dict(), paraformer / "model.pt")
    recogniser = Paraformer(None, "funasr/paraformer-zh", paraformer, "auto", "cpu")
    digest = weights.sha256(paraformer / "model.pt")[:8]
    assert recogniser.parts() == {"asr": f"funasr-paraformer-zh@{digest}", "compute": "float32", "dither": "seed0"}
    recogniser.load(1)
    said = set()
    for item in demo_test_items(2):
        audio = resample(item.audio, item.sample_rate, 16000)
        soundfile.write(tmp_path / "speech.wav", audio, 16000, subtype="FLOAT")
        heard = recogniser.transcribe(audio, "zh")
        assert heard == recogniser.transcribe(audio, "zh")
        torch.manual_seed(0)
        (expected,) = theirs.generate(input=str(tmp_path / "speech.wav"), batch_size_s=300, disable_pbar=True)
        assert heard == expected["text"].strip()
        said.add(heard)
    assert len(said) == 2, "different recordings"


# ---- what is not there, and what is not spoken ----


def test_a_language_that_a_recogniser_does_not_hear_is_a_wrong_setting() -> None:
    with pytest.raises(ValueError, match="'paraformer' hears zh, not 'en'"):
        WordErrorRate.Config(recogniser="paraformer")
    with pytest.raises(ValueError, match="'hubert-ctc' hears en, not 'zh'"):
        WordErrorRate.Config(recogniser="hubert-ctc", language="zh")


def test_a_package_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(published, "installed", lambda module: False)
    with pytest.raises(
        weights.MissingModelError, match=r"needs the package funasr: `pip install 'imfbench\[funasr\]'`"
    ):
        Paraformer(None, "me/mine", tmp_path, "auto", "cpu").parts()
    with pytest.raises(weights.MissingModelError, match="computes in float32, float16, bfloat16, not in 'int8'"):
        TransformersWhisper(GREEDY, "me/mine", tmp_path, "int8", "cpu")
