"""Small copies of the published layouts, with speech of the embedded corpus: to test what reads them without having them.

Names are of the form that the originals have, texts are the corpus' own, and recordings are real speech.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from imfbench.data import Utterance

SPEAKERS = ("1089", "1188", "2830", "4507")
"""Names of LibriSpeech's kind for the voices of the test set, in their order."""


def write_layout(name: str, folder: Path, count: int = 4) -> Path:
    """Write a copy in the layout of a dataset.

    Args:
        name: A registered dataset of :data:`LAYOUTS`.
        folder: Where to; made if it is not there.
        count: Utterances of each set, the voices in turn.

    Returns:
        The folder.
    """
    from imfbench.datasets.demo.corpus import DemoCorpus
    from imfbench.pipeline.context import select

    folder.mkdir(parents=True, exist_ok=True)
    long_enough = [u for u in DemoCorpus().utterances("test") if (u.seconds or 0) > 4.1]
    LAYOUTS[name](folder, select(long_enough, count, prefer_short=False))
    return folder


def _seed_tts_eval(folder: Path, utterances: list[Utterance]) -> None:
    for language in ("en", "zh"):
        rows = []
        for i, u in enumerate(utterances):
            prompt, name = f"1000{i:04}-00000001", f"1000{i:04}-0000000{2 + i}"
            _recording(u.prompt_audio, folder / language / "prompt-wavs" / f"{prompt}.wav")
            _recording(u.target_audio, folder / language / "wavs" / f"{name}.wav")
            rows.append("|".join([name, u.prompt_text, f"prompt-wavs/{prompt}.wav", u.text]))
        _write(folder / language / "meta.lst", rows)
        if language == "zh":
            _write(folder / "zh" / "hardcase.lst", [row.replace("|", "-hard|", 1) for row in rows])


def _librispeech_pc(folder: Path, utterances: list[Utterance]) -> None:
    names = _librispeech(folder, utterances)
    rows = []
    for u in utterances:
        prompt, target = names[u.prompt_id], names[u.id]
        rows.append("\t".join([prompt, _seconds(u.prompt_audio), u.prompt_text, target, f"{u.seconds:g}", u.text]))
    _write(folder / "librispeech_pc_test_clean_cross_sentence.lst", rows, end="\r\n")


def _librispeech(folder: Path, utterances: list[Utterance]) -> dict[str, str]:
    """The tree; gives the names that prompts and targets have in it."""
    speakers = list(dict.fromkeys(u.speaker for u in utterances))
    names: dict[str, str] = {}
    transcripts: dict[str, list[str]] = {}
    for u in utterances:
        speaker = SPEAKERS[speakers.index(u.speaker)]
        spoken = ((100, u.prompt_id, u.prompt_text, u.prompt_audio), (200, u.id, u.text, u.target_audio))
        for chapter, known_as, text, audio in spoken:
            place = f"{speaker}-{chapter}"
            if known_as not in names:
                names[known_as] = f"{place}-{len(transcripts.setdefault(place, [])):04}"
                path = folder / "LibriSpeech" / "test-clean" / speaker / str(chapter)
                _recording(audio, path / f"{names[known_as]}.flac", 16_000)
                words = "".join(sign for sign in text if sign.isalpha() or sign in " '").upper()
                transcripts[place].append(f"{names[known_as]} {words}")
                _write(path / f"{place}.trans.txt", transcripts[place])
    return names


def _zipvoice(folder: Path, utterances: list[Utterance]) -> None:
    rows = []
    for i, u in enumerate(utterances):
        prompt, name = f"{SPEAKERS[i % 4]}-100-000{i}", f"{SPEAKERS[i % 4]}-200-000{i}"
        _recording(u.prompt_audio, folder / "prompt_wavs" / f"{prompt}.wav")
        _recording(u.target_audio, folder / "wavs" / f"{name}.wav")
        # As seen from where ZipVoice is run: the folder that this one was unpacked in.
        rows.append("\t".join([name, u.prompt_text, f"download/{folder.name}/prompt_wavs/{prompt}.wav", u.text]))
    _write(folder / "test.tsv", rows)
    _write(folder / "transcript.tsv", [f"{row.split(chr(9))[0]}\t{row.split(chr(9))[3].upper()}" for row in rows])


def _folder(folder: Path, utterances: list[Utterance]) -> None:
    rows = ["id,text,prompt_text,prompt_audio,target_audio,speaker"]
    for u in utterances:
        _recording(u.prompt_audio, folder / "prompts" / f"{u.prompt_id}.wav")
        _recording(u.target_audio, folder / "recordings" / f"{u.id}.wav")
        audio = [f"prompts/{u.prompt_id}.wav", f"recordings/{u.id}.wav"]
        rows.append(",".join([u.id, *(f'"{text}"' for text in (u.text, u.prompt_text)), *audio, u.speaker]))
    _write(folder / "test.csv", rows)


LAYOUTS: dict[str, Callable[[Path, list[Utterance]], object]] = {
    "seed-tts-eval": _seed_tts_eval,
    "librispeech-pc": _librispeech_pc,
    "librispeech": _librispeech,
    "zipvoice": _zipvoice,
    "folder": _folder,
}


def _recording(source: Path | None, target: Path, rate: int | None = None) -> None:
    from imfbench.features.audio import load_audio, save_audio

    assert source is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == target.suffix and rate is None:
        shutil.copy(source, target)
    else:
        audio, found = load_audio(source, rate)
        save_audio(target, audio, found)


def _seconds(path: Path) -> str:
    from imfbench.data import seconds_of

    return f"{seconds_of(path):g}"


def _write(path: Path, rows: list[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(row + end for row in rows).encode())
