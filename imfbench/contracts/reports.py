"""The contract of reports: what is made of a finished run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imfbench.contracts.clauses import Clause, about, expect
from imfbench.contracts.trial import finished_run
from imfbench.registry import REPORTS
from imfbench.store import file_sha256


@dataclass(frozen=True)
class Report:
    """A registered report."""

    name: str

    def write(self, run: Path) -> Any:
        """What it writes into a run folder."""
        return REPORTS.get(self.name)().write(run)


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a report."""
    return about(Report(name), name, CLAUSES)


def writes_files_into_the_run_folder_and_says_which(part: Report) -> None:
    """write(run) writes files below the run folder and gives the list of their paths."""
    with _run() as run:
        found = part.write(run)
        good = isinstance(found, list) and bool(found) and all(isinstance(file, Path) for file in found)
        expect(good, "a list of paths", repr(found)[:120])
        absent = [file for file in found if not file.is_file()]
        expect(not absent, "paths of files that were written", f"no file {absent[0] if absent else ''}")
        outside = [file for file in found if run.resolve() not in file.resolve().parents]
        expect(not outside, "files below the run folder", outside)
        empty = [file for file in found if file.stat().st_size == 0]
        expect(not empty, "files with something in them", f"{empty[0].name if empty else ''} is empty")


def leaves_the_results_as_they_are(part: Report) -> None:
    """Nothing that the run left is changed or removed: a report reads."""
    with _run() as run:
        before = _content(run)
        part.write(run)
        after = _content(run)
        changed = [file for file, digest in before.items() if after.get(file) != digest]
        expect(not changed, "the run's files as they were", f"changes in {', '.join(changed[:3])}")


def the_same_results_give_the_same_files(part: Report) -> None:
    """Written twice, it is the same, byte for byte: no dates, no order by chance."""
    with _run() as run:
        files = part.write(run)
        before = {file: file_sha256(file) for file in files}
        again = part.write(run)
        expect(again == files, "the same paths", again)
        other = [file.name for file in files if file_sha256(file) != before[file]]
        expect(not other, "the same bytes", f"others in {', '.join(other[:3])}")


CLAUSES = (
    writes_files_into_the_run_folder_and_says_which,
    leaves_the_results_as_they_are,
    the_same_results_give_the_same_files,
)


@contextmanager
def _run() -> Iterator[Path]:
    """A copy of a finished run without a report."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(finished_run(), run)
        yield run


def _content(run: Path) -> dict[str, str]:
    return {str(file.relative_to(run)): file_sha256(file) for file in sorted(run.rglob("*")) if file.is_file()}
