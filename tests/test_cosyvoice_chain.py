"""CosyVoice 2's chain on real speech, from files of the published ones' form: tokens, voice, encoder, sampling, HiFT.

The files' weights are random: what is shown is that the parts fit, not that they speak.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_cosyvoice_files import write_files

from imfbench import published
from imfbench.artefact import load_artefact, save_artefact
from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.backbones.cosyvoice2_sampling import lay_out
from imfbench.backbones.cosyvoice2_streaming import MelStream
from imfbench.contracts.layouts import write_layout
from imfbench.features.audio import load_audio
from imfbench.features.hift import HiFT
from imfbench.features.mel import COSYVOICE2
from imfbench.features.s3_tokens import SAMPLE_RATE, CamPlus, S3Tokenizer, cosyvoice_mel
from imfbench.flow.grids import make_grid
from imfbench.method import Condition
from imfbench.registry import METHODS
from imfbench.sampling import synthesize_mel
from imfbench.sets import open_set
from imfbench.store import read_json

for module in ("cosyvoice", "s3tokenizer", "onnxruntime"):
    if importlib.util.find_spec(module) is None:
        pytest.skip("needs imfbench[cosyvoice]", allow_module_level=True)

SHAPE = {
    "input_size": 32, "encoder_heads": 2, "encoder_units": 32, "encoder_blocks": 1, "channels": 32, "attention_head_dim": 16,
    "heads": 2, "n_blocks": 1, "num_mid_blocks": 1,
}  # fmt: skip
"""All else is the published flow's: 6561 tokens, 192 numbers of a voice, 80 bands, chunks of 25 tokens."""


def flow(**changes: Any) -> CosyVoice2Flow:
    torch.manual_seed(0)
    return CosyVoice2Flow(CosyVoice2Config(**SHAPE, **changes)).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models."""
    folder = tmp_path_factory.mktemp("models")
    write_files(folder)
    return folder


@pytest.fixture
def models(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of models as the user's own, in which nothing is the published file; an empty cache."""
    for name in ("TOKENIZER", "CAMPPLUS", "HIFT"):
        monkeypatch.delenv(f"IMFBENCH_COSYVOICE2_{name}", raising=False)
    monkeypatch.setenv("IMFBENCH_MODEL_DIR", str(made))
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "verify", lambda model, place: None)
    return made / "CosyVoice2-0.5B"


def by_hand(models: Path, prompt: Path, target: Path) -> Condition:
    """What a flow is given of two recordings."""
    heard = [load_audio(path, SAMPLE_RATE)[0] for path in (prompt, target)]
    before, after = (S3Tokenizer(models)(audio) for audio in heard)
    mel = cosyvoice_mel(torch.from_numpy(load_audio(prompt, COSYVOICE2.sample_rate)[0]))
    return lay_out(before, mel, after, CamPlus(models)(heard[0]))


def test_from_recordings_to_a_mel_whole_and_chunk_by_chunk(models: Path, tmp_path: Path) -> None:
    u = open_set("librispeech-pc", write_layout("librispeech-pc", tmp_path / "pc")).utterances()[0]
    assert u.target_audio is not None
    prompt_audio, target_audio = tmp_path / "prompt.wav", tmp_path / "said.wav"
    for source, file in ((u.prompt_audio, prompt_audio), (u.target_audio, target_audio)):
        audio, rate = load_audio(source)
        soundfile.write(file, audio[: 2 * rate], rate)
    c = by_hand(models, prompt_audio, target_audio)
    spoken = c.tokens[0][~c.prompt[0]][::2] - 1
    assert len(spoken) == 50
    assert len(set(c.tokens[0].tolist())) > 5
    cls = METHODS.get("teacher")
    method, grid = cls(cls.Config(guidance=0.7), flow(streaming=True)), make_grid("sway", 2)
    mel, counts = synthesize_mel(method, c, u.id, grid)
    assert mel.shape == (2 * len(spoken), 80)
    assert counts.network_calls == 4
    assert c.speaker is not None
    prompt = c.tokens[0][c.prompt[0]][::2] - 1
    stream = MelStream(method, prompt, c.prompt_mel[0][c.prompt[0]], c.speaker[0], grid, utterance_id=u.id)
    pieces = list(stream.mels(spoken.tolist()))
    torch.testing.assert_close(torch.cat(pieces), mel, atol=1e-4, rtol=1e-4)
    assert len(pieces) > 1
    other, _ = synthesize_mel(method, by_hand(models, target_audio, target_audio), u.id, grid)
    assert (other - mel).abs().max() > 0.01, "another prompt must be heard, or nothing was shown"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_flows_file_is_imported_distilled_and_heard_by_the_command_line(
    models: Path, tmp_path: Path, tiny_in: Callable[[Path], Any]
) -> None:
    """``paper_token2mel`` with other sizes and data, tokens and voices made of the recordings; what it saves is made again."""
    from click.testing import CliRunner

    from imfbench.cli import main
    from imfbench.contracts.manifests import write_manifests

    torch.save(flow().state_dict(), tmp_path / "flow.pt")
    words = [str(tmp_path / "flow.pt"), "--format", "cosyvoice2", "--out", str(tmp_path / "teacher")]
    asked = ["--set", "attention_head_dim=16", "--set", "streaming=true"]
    result = CliRunner().invoke(main, ["import", *words, *asked])
    assert result.exit_code == 0, result.output
    write_manifests(tmp_path / "speech", 4)
    root = write_layout("librispeech-pc", tmp_path / "pc")
    tiny = tiny_in(tmp_path)
    result = tiny.invoke(
        Path("paper_token2mel"),
        f"teacher.artefact={tmp_path / 'teacher'}", "teacher.nfe=[2]",
        f"train_data.options.manifest={tmp_path / 'speech' / 'plain.jsonl'}", "train_data.options.supervisions=[]",
        "train_data.options.workers=1", f"dataset=[{{name: librispeech-pc, limit: 1, options: {{root: {root}}}}}]",
        "systems=[{method: intmeanflow, config: {teacher_nfe: 2, guidance: 0.7}, nfe: [1]}]",
        "training.steps=2", "training.warmup=0", "training.frames_per_batch=1200", "training.precision=fp32", "precision=fp32",
        "protocol=null", "metrics=[sim]", "reports=[leaderboard]", "device=cpu", "threads=1",
        f"score_cache={tmp_path / 'scores'}",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = tiny.leaderboard()
    assert {row["system"] for row in rows} == {"ground-truth", "vocoded-ground-truth", "teacher", "intmeanflow"}
    assert all(row["status"] == "ok" and row["n_scored"] == 1 for row in rows), rows
    u = open_set("librispeech-pc", root).utterances()[0]
    assert u.target_audio is not None
    cells = {str(read_json(file)["row"]): file.parent for file in tiny.out.glob("cells/*/cell.json")}
    c = by_hand(models, u.prompt_audio, u.target_audio)
    for row, folder, grid in (
        ("teacher", tmp_path / "teacher", make_grid("sway", 2)),
        ("intmeanflow", tiny.out / "artefacts" / "intmeanflow", make_grid("uniform", 1)),
    ):
        method, _ = load_artefact(folder)
        assert method.network.config.streaming, "teacher and student have the same mask"  # type: ignore[union-attr]
        expected = HiFT(models)(synthesize_mel(method, c, u.id, grid)[0])
        (path,) = (cell / "audio" / f"{u.id}.flac" for label, cell in cells.items() if label.split()[0] == row)
        audio, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000
        assert audio.shape == expected.shape
        assert np.abs(audio - expected).max() < 1e-3 + 1e-2 * np.abs(expected).max()


def save_teacher(folder: Path, network: CosyVoice2Flow) -> None:
    cls = METHODS.get("teacher")
    card = {"name": folder.name, "task": "token2mel", "training": {"steps": 1}}
    save_artefact(folder, "teacher", cls(cls.Config(guidance=0.7), network), card)


@pytest.fixture
def experiment(models: Path, tmp_path: Path, tiny_in: Callable[[Path], Any]) -> Any:
    """``experiment(**changes)``: a run of a teacher over two utterances, and the folder of the set."""
    root = write_layout("librispeech-pc", tmp_path / "pc")
    save_teacher(tmp_path / "teacher", flow())
    tiny = tiny_in(tmp_path)
    values = {
        "task": "token2mel", "systems": [{"method": "teacher", "name": "own", "artefact": str(tmp_path / "teacher"), "nfe": [1]}],
        "dataset": {"name": "librispeech-pc", "limit": 2, "options": {"root": str(root)}}, "references": [],
    }  # fmt: skip
    return tiny, values, open_set("librispeech-pc", root).utterances()[:2]


def make_long(path: Path, seconds: float) -> None:
    audio, rate = soundfile.read(path)
    soundfile.write(path, np.resize(audio, int(seconds * rate)), rate)


def failed_alone(tiny: Any, values: dict[str, Any], utterance: Any) -> str:
    """Why the utterance's row failed, the other's being whole; nothing is left of its audio."""
    result = tiny.invoke(tiny.config(**values))
    assert result.exit_code == 0, result.output
    (table,) = tiny.tables().values()
    assert table.loc[utterance.id, "status"] == "failed"
    assert sorted(table["status"]) == ["failed", "ok"]
    assert not list(tiny.out.glob(f"cells/*/audio/{utterance.id}*"))
    assert not list(tiny.out.rglob("*.tmp"))
    return str(table.loc[utterance.id, "reason"])


@pytest.mark.slow
def test_a_prompt_longer_than_the_tokenizer_hears_fails_its_own_row(experiment: Any) -> None:
    tiny, values, (u, other) = experiment
    assert u.prompt_audio != other.prompt_audio
    make_long(u.prompt_audio, 31)
    told = failed_alone(tiny, values, u)
    assert "a recording of 31.0 s, but the S3 tokenizer hears 30 s at most: cut it" in told
    assert str(u.prompt_audio) in told


@pytest.mark.slow
def test_a_prompt_longer_than_the_flow_takes_fails_its_own_row(
    experiment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, values, (u, other) = experiment
    make_long(u.prompt_audio, 25)
    assert soundfile.info(other.prompt_audio).duration < 10
    monkeypatch.setattr(CosyVoice2Flow, "longest", 1250)
    told = failed_alone(tiny, values, u)
    assert "LengthError: the prompt of 25.0 s and the " in told
    assert "but the network takes 1250 (25.0 s): cut the prompt to " in told


@pytest.mark.slow
def test_tokens_of_another_rate_fail_their_rows_and_leave_no_audio(experiment: Any, tmp_path: Path) -> None:
    from imfbench.contracts.manifests import write_features

    tiny, values, utterances = experiment
    heard = {}
    for u in utterances:
        for id, file in ((u.prompt_id, u.prompt_audio), (u.id, u.target_audio)):
            info = soundfile.info(file)
            rate = 50 if u is utterances[0] and id == u.prompt_id else 25
            heard[id] = torch.arange(round(info.duration * rate)), torch.ones(192)
    values["dataset"]["options"]["features"] = str(write_features(tmp_path / "features", heard))
    told = failed_alone(tiny, values, utterances[0])
    assert "25 tokens and 50 frames a second" in told
    assert str(utterances[0].prompt_audio) in told


def test_tokens_that_are_all_of_another_rate_are_told_before_anything_runs(experiment: Any, tmp_path: Path) -> None:
    from imfbench.contracts.manifests import write_features

    tiny, values, utterances = experiment
    heard = {}
    for u in utterances:
        for id, file in ((u.prompt_id, u.prompt_audio), (u.id, u.target_audio)):
            heard[id] = torch.arange(round(soundfile.info(file).duration * 50)), torch.ones(192)
    values["dataset"]["options"]["features"] = str(write_features(tmp_path / "features", heard))
    told = tiny.refused(tiny.config(**values))
    assert "25 tokens and 50 frames a second" in told
    assert f"option `features` ({tmp_path / 'features'})" in told
    assert [path.name for path in tiny.out.rglob("*")] in ([], [".lock"])


def test_a_mel_that_differs_is_told_before_anything_runs(experiment: Any, tmp_path: Path) -> None:
    """A vocoder of another mel, a network of other bands, an artefact of other bands; nothing of a run is written."""
    tiny, values, _ = experiment
    message = tiny.refused(tiny.config(**values, vocoder="hifigan"))
    assert "makes mels of cosyvoice2-24k" in message
    assert "'hifigan' takes hifigan-22k" in message
    bands = {"name": "cosyvoice2", "config": {"mel_dim": 100}}
    system = {"method": "teacher", "name": "own", "network": bands, "nfe": [1]}
    message = tiny.refused(tiny.config(**values | {"systems": [system]}))
    assert "the network 'cosyvoice2' has 100 bands, and its mels, of cosyvoice2-24k" in message
    save_teacher(tmp_path / "other", flow(mel_dim=100))
    values["systems"][0]["artefact"] = str(tmp_path / "other")
    message = tiny.refused(tiny.config(**values))
    assert "the network 'cosyvoice2' has 100 bands" in message
    assert [path.name for path in tiny.out.rglob("*")] in ([], [".lock"])
