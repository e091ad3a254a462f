"""``imfbench protocols``, and the page about it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.metrics.protocols import PROTOCOLS, facts
from imfbench.protocol_comparison import compare_protocols, read_transcripts, side_by_side
from imfbench.store import write_json

CLONE = Path(__file__).parent.parent
PAGE = CLONE / "docs" / "protocols.md"
SAID, HEARD = "It’s a well-known book.", "it's a well known book"
WER = {"imfbench": 1 / 6, "seed-tts-eval": 3 / 4, "f5-tts": 2 / 4, "zipvoice": 3 / 4, "zipvoice-librispeech": 0}


def imfbench(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["protocols", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = imfbench(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


def figures(*arguments: object) -> pd.DataFrame:
    result = imfbench("compare", *arguments, "--format", "csv")
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout))


def table(folder: Path, name: str = "transcripts.csv", **columns: list) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(columns or {"text": [SAID], "hypothesis": [HEARD]})
    if name.endswith("parquet"):
        frame.to_parquet(folder / name)
    elif name.endswith("jsonl"):
        frame.to_json(folder / name, orient="records", lines=True)
    else:
        frame.to_csv(folder / name, index=False, sep="\t" if name.endswith("tsv") else ",")
    return folder


# ---- list and show ----


def test_list_has_a_line_for_each() -> None:
    result = imfbench("list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(PROTOCOLS)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_show_has_all_that_one_fixes(name: str) -> None:
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in imfbench("show", name).stdout.splitlines())
    assert lines == facts(PROTOCOLS[name])
    assert {"en: apostrophes", "en: numbers", "en: beam", "aggregate", "denominator", "speaker similarity"} <= set(
        lines
    )


def test_an_unknown_protocol_is_the_users_mistake() -> None:
    assert "did you mean 'seed-tts-eval'?" in refused("show", "seedtts")


@pytest.mark.parametrize("command", ["list", "show", "compare"])
def test_help_has_an_example_and_takes_plugins(command: str) -> None:
    output = imfbench(command, "--help").output
    assert f"Example:\n    imfbench protocols {command}" in output
    assert output.count("--plugin") == 1


# ---- compare ----


@pytest.mark.parametrize(
    "name", ["utterances.parquet", "transcripts.parquet", "transcripts.csv", "transcripts.tsv", "transcripts.jsonl"]
)
def test_every_kind_of_table_gets_every_protocols_figure(name: str, tmp_path: Path) -> None:
    found = figures(table(tmp_path / "mine", name)).set_index("protocol")
    assert found["wer"].to_dict() == pytest.approx(WER)
    assert set(found["system"]) == {"mine"}
    assert set(found["signature"].str.contains(r"^wer-v1\|asr:given\|language:en\|norm:")) == {True}
    assert figures(tmp_path / "mine" / name)["wer"].tolist() == found["wer"].tolist(), "the file itself"


def test_a_run_has_a_row_for_each_cell_under_its_name(tmp_path: Path) -> None:
    for key, row in (("a1", "teacher 32 NFE"), ("b2", "teacher 3 NFE"), ("c3", None)):
        table(tmp_path / "cells" / key, "utterances.parquet")
        if row:
            write_json(tmp_path / "cells" / key / "cell.json", {"row": row})
    table(tmp_path / "cells" / ".apart" / "d4", "utterances.parquet")
    wide = side_by_side(compare_protocols(read_transcripts(tmp_path)))
    assert wide["system"].tolist() == ["c3", "teacher 3 NFE", "teacher 32 NFE"]
    assert wide["gap"].tolist() == pytest.approx([75, 75, 75])
    assert figures(tmp_path / "cells" / "a1")["system"].unique().tolist() == ["teacher 32 NFE"]


def test_folders_of_tables_are_systems_too(tmp_path: Path) -> None:
    table(tmp_path / "ours"), table(tmp_path / "theirs", hypothesis=[HEARD], reference=[HEARD])
    assert figures(tmp_path).groupby("system")["wer"].max().to_dict() == {"ours": 0.75, "theirs": 0}


def test_languages_are_scored_apart_and_the_option_wins(tmp_path: Path) -> None:
    folder = table(tmp_path / "x", text=["好的", "OK"], hypothesis=["好", "ok"], language=["zh", "en"])
    both = figures(folder).set_index(["language", "protocol"])["wer"]
    assert both["zh"].to_dict() == {name: 0.5 for name in PROTOCOLS if name != "zipvoice-librispeech"}
    assert both["en"].to_dict() == dict.fromkeys(PROTOCOLS, 0)
    shown = imfbench("compare", folder).stdout
    assert re.search(r"^x +zh +1 +50\.00 +50\.000 +50\.000 +50\.00 +– +0\.00$", shown, re.MULTILINE)
    chinese = figures(folder, "--language", "zh", "--protocol", "f5-tts")
    assert chinese["wer"].tolist() == [0.75], "(1/2 + 2/2)/2: the letters of OK are characters of another case"


def test_rows_without_a_figure_are_counted_and_told(tmp_path: Path) -> None:
    folder = table(tmp_path / "x", "utterances.parquet", text=["a b", "...", "c"], hypothesis=["a", "a", None])
    found = figures(folder)
    assert set(found["n_expected"]) == {3}
    assert set(found["n_scored"]) == {1}
    assert "x, f5-tts: 2 of 3 rows have no figure." in imfbench("compare", folder).stdout


def test_words_that_look_like_missing_values_are_words(tmp_path: Path) -> None:
    (tmp_path / "transcripts.csv").write_text("\ufefftext,hypothesis\nNA,null\n12,\n", encoding="utf-8")
    found = figures(tmp_path).set_index("protocol").loc["f5-tts"]
    assert (found["n_scored"], found["substitutions"], found["deletions"]) == (2, 1, 1)


def test_quotation_marks_between_tabs_are_of_the_texts(tmp_path: Path) -> None:
    rows = ['"Come in\tcome in', "sit down\tsit down", '"Go\tgo']
    (tmp_path / "transcripts.tsv").write_text("text\thypothesis\n" + "\n".join(rows) + "\n")
    found = figures(tmp_path)
    assert set(found["n_expected"]) == {3}
    assert found["wer"].tolist() == [0.0] * len(found)


@pytest.mark.parametrize(
    ("name", "rows", "told"),
    [
        ("transcripts.csv", "Hello, world,hello world\nYes, sir,yes sir", "line 2 has 3 fields instead of 2"),
        ("transcripts.csv", "Yes sir,yes sir\nHello world,hello, world", "line 3 has 3 fields instead of 2"),
        ("transcripts.csv", "Hello world", "line 2 has 1 fields instead of 2"),
        ("transcripts.csv", '"Hello world,hello world', "line 2: unexpected end of data; close the quotation marks"),
        ("transcripts.tsv", "Hello\tworld\thello world", "no text may hold a tab"),
    ],
)
def test_a_row_of_other_fields_is_no_other_text(name: str, rows: str, told: str, tmp_path: Path) -> None:
    first = "text,hypothesis\n" if name.endswith("csv") else "text\thypothesis\n"
    (tmp_path / name).write_text(first + rows + "\n")
    assert told in " ".join(refused("compare", tmp_path).split())


def test_chinese_rows_are_chinese_where_nothing_says_the_language(tmp_path: Path) -> None:
    folder = table(tmp_path / "x", text=["今天天气很好", "fine"], hypothesis=["今天天气真好", "fine"])
    found = figures(folder, "--protocol", "seed-tts-eval").set_index("language")["wer"]
    assert found.to_dict() == {"zh": pytest.approx(1 / 6), "en": 0}


def test_json_and_markdown_hold_the_same(tmp_path: Path) -> None:
    folder = table(tmp_path / "x")
    rows = json.loads(imfbench("compare", folder, "--format", "json").stdout)
    assert {row["protocol"]: row["wer"] for row in rows} == pytest.approx(WER)
    lines = imfbench("compare", folder, "--format", "md").stdout.splitlines()
    assert lines[0].split(" | ")[3:-1] == list(PROTOCOLS)
    assert lines[2] == "| x | en | 1 | 16.67 | 75.000 | 50.000 | 75.00 | 0.00 | 75.00 |"


def test_what_holds_no_transcripts_is_refused(tmp_path: Path) -> None:
    assert f"no transcripts in {tmp_path}" in refused("compare", tmp_path)
    assert "there are text, mos. A run gets" in refused("compare", table(tmp_path / "a", text=["x"], mos=["3"]))
    assert "language 'de'" in refused("compare", table(tmp_path / "b", text=["x"], hypothesis=["x"], language=["de"]))
    assert "the tables have no rows" in refused("compare", table(tmp_path / "c", text=[], hypothesis=[]))
    alone = ("--language", "zh", "--protocol", "zipvoice-librispeech")
    assert "none of zipvoice-librispeech has a rule" in refused("compare", table(tmp_path / "d"), *alone)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "transcripts.parquet").write_bytes(b"no parquet")
    assert "cannot be read as a table" in refused("compare", tmp_path / "e")
    assert "did you mean 'f5-tts'" in refused("compare", table(tmp_path / "f"), "--protocol", "f5-tss")


# ---- the page ----


def test_the_page_says_what_the_presets_hold() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][1:] == list(PROTOCOLS)
    told = {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}
    for name, protocol in PROTOCOLS.items():
        held = {what: value for what, value in facts(protocol).items() if what not in ("protocol", "about", "source")}
        assert held == {what: told[what][name] for what in held}
        assert {told[what][name] for what in told.keys() - held.keys()} <= {"–"}
        revision = protocol.source.rpartition("(")[2].rstrip(")")
        assert revision in PAGE.read_text(encoding="utf-8")


def test_the_pages_example_is_what_the_command_prints() -> None:
    page = PAGE.read_text(encoding="utf-8")
    example = page.partition("    $ imfbench protocols compare docs/results/quickstart\n")[2]
    shown = [line.removeprefix("    ") for line in example.partition("\n\n")[0].splitlines()]
    printed = imfbench("compare", CLONE / "docs" / "results" / "quickstart").stdout.splitlines()
    assert len(shown) == 22
    assert printed[:22] == shown


def test_the_committed_transcripts_are_those_of_the_leaderboard() -> None:
    folder = CLONE / "docs" / "results" / "quickstart"
    rows = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))["rows"]
    found = figures(folder, "--protocol", "imfbench")
    assert sorted(found["wer"]) == pytest.approx(sorted(row["wer"] for row in rows), abs=1e-12)
    assert sorted(found["mean"]) == pytest.approx(sorted(row["wer_mean"] for row in rows), abs=1e-12)
