"""Copies of the published layouts, one for each test, with a few utterances of the embedded corpus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imfbench.contracts.layouts import write_layout
from imfbench.data import DatasetError, Utterance
from imfbench.sets import open_set

LISTS = {
    "seed-tts-eval": "en/meta.lst",
    "librispeech-pc": "librispeech_pc_test_clean_cross_sentence.lst",
    "librispeech": "LibriSpeech/test-clean/1089/200/1089-200.trans.txt",
    "zipvoice": "test.tsv",
    "folder": "test.csv",
}


@dataclass
class Layout:
    """A copy of a layout, all of it to be damaged."""

    name: str
    root: Path

    @property
    def list(self) -> Path:
        return self.root / LISTS[self.name]

    @property
    def rows(self) -> list[str]:  # type: ignore[valid-type]
        return self.list.read_text(encoding="utf-8").splitlines()

    def write(self, content: str | bytes) -> None:
        """Put another list in the place of the list; recordings are shared with the other tests, lists are not."""
        self.list.unlink(missing_ok=True)
        self.list.write_bytes(content.encode() if isinstance(content, str) else content)

    def change(self, old: str, new: str, times: int = -1) -> None:
        text = self.list.read_bytes().decode()
        assert old in text
        self.write(text.replace(old, new, times))

    def utterances(self, **options: Any) -> list[Utterance]:  # type: ignore[valid-type]
        return open_set(self.name, self.root, options).utterances()

    def refused(self, **options: Any) -> str:
        with pytest.raises(DatasetError) as error:
            self.utterances(**options)
        return str(error.value)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, made = tmp_path_factory.mktemp("layouts"), set()

    def write(name: str) -> Path:
        if name not in made:
            write_layout(name, folder / name)
            made.add(name)
        return folder / name

    return write


@pytest.fixture
def layout(tmp_path: Path, written: Callable[[str], Path]) -> Callable[[str], Layout]:
    """``layout(name)``: a copy of four utterances; recordings are links to the same files."""

    def copy(name: str) -> Layout:
        root = tmp_path / name
        shutil.copytree(written(name), root, copy_function=os.link)
        return Layout(name, root)

    return copy
