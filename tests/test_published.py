"""Where scorers' models are looked for, and what is said where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from imfbench import doctor, published, weights
from imfbench.cli import main
from imfbench.metrics.protocols import PROTOCOLS
from imfbench.published import MODEL_DIR, PUBLISHED, locate, look_in, obtain, state


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """No model on this machine, and no hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (MODEL_DIR, *(model.variable for model in PUBLISHED.values())):
        monkeypatch.delenv(name, raising=False)
    yield
    look_in(None)


WAVLM, WHISPER = PUBLISHED["wavlm-large-ecapa"], PUBLISHED["whisper-large-v3"]


def whisper_at(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (*WHISPER.needed, "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_every_model_of_every_protocol_has_a_place() -> None:
    """Whatever a protocol names is in a package or among the published models, with all that is to be told of it."""
    for protocol in PROTOCOLS.values():
        named = [listener.model for listener in protocol.recognition.values()]
        named += [judge.model for judge in (protocol.similarity, protocol.opinion) if judge]
        for name in named:
            assert name in weights.KNOWN or published.published(name) is not None, name
    for model in PUBLISHED.values():
        assert model.licence
        assert model.size > 10_000_000
        assert model.repository.count("/") == 1
        assert model.variable.isupper()
    assert WAVLM.variable == "IMFBENCH_WAVLM_LARGE_ECAPA"


def test_places_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(WHISPER) is None
    environment = whisper_at(tmp_path / "environment" / "wer" / "whisper-large-v3")  # ZipVoice's names
    monkeypatch.setenv(MODEL_DIR, str(tmp_path / "environment"))
    assert locate(WHISPER) == environment
    given = whisper_at(tmp_path / "given" / "openai" / "whisper-large-v3")
    look_in(tmp_path / "given")
    assert locate(WHISPER) == given
    own = whisper_at(tmp_path / "own")
    monkeypatch.setenv(WHISPER.variable, str(own))
    assert locate(WHISPER) == own
    assert locate(WHISPER, given) == given


def test_a_place_that_does_not_hold_the_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whisper_at(tmp_path / "whisper")
    (folder / "preprocessor_config.json").unlink()
    monkeypatch.setenv(WHISPER.variable, str(folder))
    with pytest.raises(
        weights.MissingModelError, match=rf"{WHISPER.variable} names: it lacks preprocessor_config.json"
    ):
        locate(WHISPER)
    monkeypatch.setenv(MODEL_DIR, str(tmp_path))  # a folder that merely lies there is no error
    monkeypatch.delenv(WHISPER.variable)
    assert locate(WHISPER) is None
    with pytest.raises(weights.MissingModelError, match="the metric's setting names: it does not exist"):
        locate(WAVLM, tmp_path / "none.pth")


def test_what_is_missing_is_told_with_size_place_and_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "installed", lambda module: False)
    with pytest.raises(weights.MissingModelError) as told:
        obtain(WAVLM)
    message = str(told.value)
    for words in (
        "1.3 GB, CC-BY-SA-3.0",
        "`pip install 'imfbench[transformers]'`",
        "put the file wavlm_large_finetune.pth",
        "--model-dir or IMFBENCH_MODEL_DIR",
        "IMFBENCH_WAVLM_LARGE_ECAPA",
        "the hub could not be reached",
    ):
        assert words in message


def test_without_a_way_to_the_hub_its_client_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise OSError("Name or service not known")

    asked: list[bool] = []
    monkeypatch.setattr("imfbench.model_hub.getproxies", dict)
    monkeypatch.setattr("imfbench.model_hub.socket.getaddrinfo", lost)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *a, local_files_only, **k: asked.append(local_files_only)
    )
    with pytest.raises(ConnectionError):
        published._hub(WAVLM, local=False)
    assert asked == []
    with pytest.raises(weights.MissingModelError, match="the hub could not be reached: ConnectionError"):
        obtain(replace(WHISPER, module=""))
    with pytest.raises(weights.MissingModelError, match="'me/mine' could not be fetched from the hub"):
        published.from_hub("me/mine")


def test_a_repository_without_safetensors_gives_its_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As facebook/hubert-large-ls960-ft: what is asked for first is not there."""
    wanted = []

    def snapshot(repository: str, allow_patterns: list[str], local_files_only: bool) -> str:
        wanted.append(allow_patterns[0])
        for name in (*WHISPER.needed, *(["pytorch_model.bin"] if allow_patterns[0] == "pytorch_model.bin" else [])):
            (tmp_path / name).write_text(name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert obtain(replace(WHISPER, module="")) == tmp_path
    assert wanted == ["model.safetensors", "pytorch_model.bin"]


def test_weights_in_parts_are_named_by_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    for i in (1, 2):
        (tmp_path / f"model-0000{i}-of-00002.safetensors").write_bytes(bytes(i))
    before = published.label("mine", tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"changed")
    after = published.label("mine", tmp_path)
    assert before.startswith("mine@")
    assert before != after


def test_the_published_sum_is_compared(tmp_path: Path) -> None:
    file = tmp_path / "wavlm_large_finetune.pth"
    file.write_bytes(b"weights")
    look_in(tmp_path)
    with pytest.raises(weights.DamagedModelError, match=r"is not the published wavlm_large_finetune\.pth"):
        obtain(replace(WAVLM, module=""))
    right = replace(WAVLM, module="", sha256=weights.sha256(file))
    assert obtain(right) == file
    assert state(right)["sha256"] == weights.sha256(file)
    assert isinstance(state(WAVLM)["problem"], weights.DamagedModelError)


def test_doctor_lists_each_with_source_licence_size_and_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = whisper_at(tmp_path / "whisper-large-v3")
    look_in(tmp_path)
    monkeypatch.setattr(published, "installed", lambda module: module != "funasr")
    found = {finding.subject.removeprefix("model "): finding for finding in doctor._published()}
    assert set(found) == set(PUBLISHED)
    here = found["whisper-large-v3"]
    assert here.level == "ok"
    digest = weights.sha256(folder / "model.safetensors")
    assert f"openai/whisper-large-v3, Apache-2.0, 0 MB, sha256 {digest[:12]}…" in here.message
    absent = found["paraformer-zh"]
    assert absent.level == "note"
    assert "not here (0.9 GB): put the folder paraformer-zh" in absent.message
    assert "pip install 'imfbench[funasr]'" in absent.message
    (tmp_path / "wavlm_large_finetune.pth").write_bytes(b"another")
    found = {finding.subject.removeprefix("model "): finding for finding in doctor._published()}
    assert found["wavlm-large-ecapa"].level == "bad"


def test_a_protocol_without_its_models_stops_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    out = tmp_path / "out"
    arguments = ["score", str(tmp_path / "mine"), "--dataset", "demo", "--limit", "1", "--out", str(out)]
    result = CliRunner().invoke(main, [*arguments, "--protocol", "f5-tts"])
    assert result.exit_code == 2, result.output
    told = " ".join(result.output.split())
    assert "protocol 'f5-tts' needs models that are not here; nothing was scored" in told
    for metric, words in (
        ("wer", "the model 'faster-whisper-large-v3'"),
        ("sim", "put the file wavlm_large_finetune.pth"),
        ("utmos", "put the file utmos_state_dict.pt"),
    ):
        assert f"- {metric}: " in told
        assert words in told
    assert "--model-dir" in told
    assert not (out / "cells").exists()
    wrong = CliRunner().invoke(main, [*arguments, "--protocol", "f5"])
    assert wrong.exit_code == 2
    assert "unknown protocol 'f5': did you mean 'f5-tts'" in " ".join(wrong.output.split())


def test_the_folder_of_models_is_an_option(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "wavlm_large_finetune.pth").write_bytes(b"another")
    arguments = ["score", str(tmp_path / "mine"), "--dataset", "demo", "--metrics", "sim", "--protocol", "zipvoice"]
    result = CliRunner().invoke(
        main, [*arguments, "--model-dir", str(tmp_path / "models"), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2
    assert "is not the published wavlm_large_finetune.pth" in " ".join(result.output.split())


def test_the_page_lists_what_the_code_knows() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    for model in PUBLISHED.values():
        names = ", ".join(f"`{name}`" for name in model.names)
        row = (
            f"| `{model.name}` | {model.used_by} | {model.repository} | {names} | {model.licence} | {model.gigabytes} "
        )
        assert f"{row}| {model.extra or '–'} |" in page
    assert f"{WAVLM.sha256[:16]}… ({WAVLM.size:,} bytes)".replace(",", " ") in page
