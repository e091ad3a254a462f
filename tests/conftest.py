"""Fixtures for all tests: utterances of the embedded test set as the scorers see them, and runs that take a second."""

from __future__ import annotations

import gc
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result

from imfbench import interruption, plugins
from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.cli import main
from imfbench.datasets.demo import corpus
from imfbench.features.audio import load_audio
from imfbench.features.griffin_lim import GriffinLim
from imfbench.metrics import ScoreItem
from imfbench.pipeline import work
from imfbench.progress import log
from imfbench.reports.leaderboard import Leaderboard
from imfbench.store import read_json

sys.path.append(str(Path(__file__).parent))
"""For what several test modules share (``speaking``), which pytest does not put there in its import mode ``importlib``."""

SHAPE = {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}
TIMED = ("seconds", "rtf", "start", "end")  # what no two runs share


@pytest.fixture(scope="session")
def demo_test_items() -> Callable[[int], list[ScoreItem]]:
    """``demo_test_items(n)``: n ground-truth recordings with text and prompt, spread over all of the list's voices.

    Each takes its prompt by the same voice; ids read test-<voice>-<number>.
    """
    folder = corpus.DATA / "test"
    rows = [line.split("|") for line in (folder / "meta.lst").read_text(encoding="utf-8").splitlines()]

    def items(n: int) -> list[ScoreItem]:
        assert n <= len(rows), f"the test set has {len(rows)} utterances, not {n}"
        found = []
        for utt, _, prompt, text, target in (rows[k * len(rows) // n] for k in range(n)):
            audio, rate = load_audio(folder / target)
            prompt_audio, prompt_rate = load_audio(folder / prompt)
            found.append(ScoreItem(utt, audio, rate, text, "en", prompt_audio, prompt_rate))
        return found

    return items


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, so that two processes end together."""
    long = (
        "test_quickstart.py", "test_survival_kill.py", "test_experiment.py", "test_planning.py", "test_survival_memory.py",
        "test_merged_and_published.py", "test_processes.py", "test_several_experiments.py", "test_training_runs.py",
        "test_sweep_runs.py", "test_workers.py", "test_contracts.py",
    )  # fmt: skip
    items.sort(key=lambda item: long.index(item.path.name) if item.path.name in long else len(long))


def pytest_collection_finish() -> None:
    """Measuring memory and leaving a scorer collect garbage: what is imported by now is none."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of Ctrl-C leaves no trace in the next one."""
    monkeypatch.setattr(interruption, "_asked", False)


@pytest.fixture(scope="session", autouse=True)
def runs_without_pages() -> Iterator[None]:
    """A run's page takes seconds, and tests make hundreds of runs: those that are about pages write them themselves."""
    report = work.report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "report", lambda context, name: None if name == "page" else report(context, name))
        yield


@pytest.fixture
def fresh_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in is known when the test begins, and those that it loads are gone when it ends."""
    monkeypatch.setattr(plugins, "_plugins", [])
    plugins._unread.cache_clear()
    yield
    plugins._unread.cache_clear()
    for plugin in plugins._plugins:
        for registry, name in plugin.gives:
            registry.remove(name)


class TinyRun:
    """Whole runs of a network of dim 32 with Griffin-Lim and one scorer, by the command line.

    Attributes:
        folder: Where configuration, corpus and runs lie.
        out: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"

    def config(self, file: str = "tiny.yaml", **changes: Any) -> Path:
        """An experiment whose network is ready; ``systems`` and others can be changed."""
        values = {
            "name": "tiny",
            "dataset": {"limit": 2, "prefer_short": True},
            "dev": {"limit": 1},
            "training": {"steps": 4, "frames_per_batch": 400, "save_every": 1, "log_every": 1},
            "systems": [{"method": "teacher", "name": "own", "artefact": str(self.artefact()), "nfe": [1]}],
            "metrics": ["sim"],
            "vocoder": "griffin-lim",
            "threads": 1,
            "device": "cpu",
            "score_cache": str(self.folder / "scores"),
            "reports": ["leaderboard"],
            **changes,
        }
        path = self.folder / file
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    @property
    def trained(self) -> list[dict[str, Any]]:
        """``systems`` with a network that is trained in the run."""
        return [{"method": "teacher", "name": "own", "network": {"name": "dit", "config": SHAPE}, "nfe": [1]}]

    def artefact(self) -> Path:
        """A ready network."""
        path = self.folder / "ready"
        if not path.is_dir():
            method = build_method("teacher", backbone_config=SHAPE)
            save_artefact(path, "teacher", method, {"name": "ready", "task": "token2mel", "training": {"steps": 1}})
        return path

    def corpus(self, rows: int = 3) -> Path:
        """A copy of the embedded corpus with a test list of a few rows, all of it to be damaged."""
        root = self.folder / "corpus"
        for name in ("train", "dev"):
            (root / name).mkdir(parents=True)
            for path in (corpus.DATA / name).iterdir():
                (root / name / path.name).symlink_to(path)
        for name in ("SHA256SUMS", "phones.txt", "test/alignments.jsonl"):
            (root / name).parent.mkdir(exist_ok=True)
            shutil.copy(corpus.DATA / name, root / name)
        lines = (corpus.DATA / "test" / "meta.lst").read_text().splitlines()[:rows]
        (root / "test" / "meta.lst").write_text("\n".join(lines) + "\n")
        for name in {field for line in lines for field in line.split("|")[2::2]}:
            (root / "test" / name).parent.mkdir(exist_ok=True)
            shutil.copy(corpus.DATA / "test" / name, root / "test" / name)
        return root

    def invoke(self, path: Path, *settings: str, command: str = "run", out: Path | None = None) -> Result:
        """``imfbench run`` in this process."""
        changed = [word for setting in settings for word in ("--set", setting)]
        return CliRunner().invoke(main, [command, str(path), "--out", str(out or self.out), *changed])

    def refused(self, path: Path, *settings: str, out: Path | None = None) -> str:
        """What a run says that must end with exit code 2 and one message, not with a trace."""
        result = self.invoke(path, *settings, out=out)
        assert result.exit_code == 2, result.output
        message = result.output[result.output.rindex("imfbench: ") :]
        assert "Traceback" not in result.output
        return message.strip()

    def tables(self, out: Path | None = None) -> dict[str, pd.DataFrame]:
        """Label of each row of the leaderboard → its utterances, by id."""
        return {
            str(read_json(path.parent / "cell.json")["row"]): pd.read_parquet(path).set_index("id")
            for path in sorted((out or self.out).glob("cells/*/utterances.parquet"))
        }

    def leaderboard(self, out: Path | None = None) -> list[dict[str, Any]]:
        """The rows of leaderboard.json without what is timed."""
        rows = json.loads(((out or self.out) / "leaderboard" / "leaderboard.json").read_text())["rows"]
        return [{key: row[key] for key in row if not any(word in key for word in TIMED)} for row in rows]


@pytest.fixture(scope="module")
def plain_runs() -> Iterator[None]:
    """Most of a tiny run's time, and tested elsewhere: pictures, and phases that sound better."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Leaderboard, "_draw", lambda *_: ([], {}))
        patch.setattr(GriffinLim.__init__, "__defaults__", (2,))
        yield


@pytest.fixture(scope="module")
def tiny_in(plain_runs: None) -> Iterator[Callable[[Path], TinyRun]]:
    """``tiny_in(folder)``: tiny runs in a folder that tests share. What runs change in this process is put back."""
    handlers, propagate, level = log.handlers[:], log.propagate, log.level
    before = signal.getsignal(signal.SIGTERM)
    yield TinyRun
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def tiny(tmp_path: Path, tiny_in: Callable[[Path], TinyRun]) -> TinyRun:
    """Tiny runs in a folder of the test's own."""
    return tiny_in(tmp_path)
