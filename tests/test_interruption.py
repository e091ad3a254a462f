"""Ctrl-C where Python swallows it: at the next step of a piece of work it is remembered."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imfbench import interruption, training
from imfbench.features import audio
from imfbench.progress import Reporting
from imfbench.store import read_json


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    interruption.listen()  # forgets what was asked
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("terminal", [False, True])
def test_an_interruption_that_was_swallowed_comes_at_the_next_step(
    handlers: None, number: signal.Signals, terminal: bool
) -> None:
    interruption.listen()
    with Reporting(terminal).bar("work", 3) as bar:
        bar.advance()
        with contextlib.suppress(KeyboardInterrupt):  # as a callback from C does
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            bar.advance()


def test_an_interruption_while_audio_is_encoded_comes_when_it_is_and_prints_no_traceback(
    handlers: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """libsndfile calls ``tell`` back from C, where an exception would be printed and lost."""

    class Interrupted(io.BytesIO):
        def tell(self) -> int:
            signal.raise_signal(signal.SIGINT)
            return super().tell()

    interruption.listen()
    monkeypatch.setattr(audio.io, "BytesIO", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        audio.save_audio(tmp_path / "speech.flac", np.zeros(100), 24000)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):  # at once again
        signal.raise_signal(signal.SIGINT)


def test_what_is_deferred_elsewhere_does_not_hold_the_main_thread(handlers: None) -> None:
    interruption.listen()
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with interruption.deferred():
            begun.set()
            may_end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        may_end.set()
        thread.join()


def test_nothing_was_asked_for(handlers: None) -> None:
    interruption.listen()
    interruption.check()


def test_an_interruption_after_the_last_step_stops_the_run_when_the_training_is_saved(  # type: ignore[no-untyped-def]
    tiny, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = [{**tiny.trained[0], "name": name} for name in ("own", "other")]
    path = tiny.config(systems=systems, training={"steps": 2, "frames_per_batch": 400})
    save = training.save_artefact

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_artefact", interrupted)
        result = tiny.invoke(path, command="train")
    assert result.exit_code == 130, result.output
    assert "stopping after this step" in result.output
    own, other = (tiny.out / "artefacts" / name for name in ("own", "other"))
    assert read_json(own / "status.json")["status"] == "ok"
    assert not other.exists(), "no other job is begun"
    made = (own / "model.safetensors").stat().st_mtime_ns
    assert tiny.invoke(path, command="train").exit_code == 0
    assert (own / "model.safetensors").stat().st_mtime_ns == made, "the same command finds it done"
    assert read_json(other / "status.json")["status"] == "ok"


def test_an_interruption_while_torch_is_imported_imports_nothing_more() -> None:
    """What is half imported could not be imported again, and its error would stand in front of the interruption."""
    program = """
import sys
from imfbench.cli_base import user_errors
try:
    with user_errors():
        sys.modules["torch"] = None  # as good as half imported
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print("interrupted")
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout.strip()) == (0, "interrupted"), found.stderr
