"""The page of a run: what is in it, that nothing in it can run or reach out, and that it says no more than is known."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from imfbench.contracts.reports import contract
from imfbench.publishing import publish
from imfbench.registry import REPORTS
from imfbench.reports.across import gather
from imfbench.reports.leaderboard import Leaderboard
from imfbench.reports.page import Page, render
from imfbench.reports.results import RunFolderError
from imfbench.schema import SchemaError

NASTY = [
    "<script>alert(1)</script>",
    "\"quotes\" & 'apostrophes' </script><img src=x onerror=alert(2)>",
    "مرحبا بالعالم",
    "今天天气很好，我们去散步吧。\u2028{{ 7 * 7 }}",
]


class Parsed(HTMLParser):
    """A page's elements with their attributes, and the text of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.shown: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.raw:
            self.inside = tag
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside][-1] += data
        else:
            self.shown.append(data)

    def data(self, name: str) -> Any:
        ids = [attributes.get("id") for tag, attributes in self.elements if tag == "script"]
        return json.loads(self.raw["script"][ids.index(f"{name}-data")])

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


def small(run: Any, texts: list[str] = NASTY, wer: float = 0.0) -> str:
    """Three rows of four utterances; the key of the student's cell."""
    for system, nfe, score in (("ground-truth", None, 0.0), ("teacher", 32, 0.0), ("student", 1, wer)):
        scores = {"wer": [score, 0, 0, 0], "sim": [0.8, 0.81, 0.83, 0.82]}
        timed = {} if nfe is None else {"rtf_total": 0.1 * nfe, "rtf_network": 0.09 * nfe}
        key = run.cell(system, nfe, scores, **timed)
        run.speech(key, texts)
    return "student-1"


def written(run: Any, going: bool = False, **config: Any) -> Parsed:
    files = Page(Page.Config(**config), going).write(run.path)
    assert files[0] == run.path / "report" / "index.html"
    return Parsed(files[0].read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time; the tests that are about them ask for them."""
    if "pictures" not in request.keywords:
        monkeypatch.setattr(render, "sections", lambda _: [])


def test_texts_of_all_kinds_are_shown_as_they_are_and_run_nothing(run: Any) -> None:
    small(run)
    run.cell("broken", 2, {}, status='failed: <b>no</b> & "never"', n_expected=4)
    page = written(run)
    assert [tag for tag, _ in page.elements].count("script") == 4  # three of data, one that runs
    assert not any(tag in ("img", "iframe", "object") for tag, _ in page.elements)
    assert all(attributes.get("class") for tag, attributes in page.elements if tag == "b")  # none is the status's
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.elements for name in attributes)
    shown = {one["id"]: one["text"] for table in page.data("listen") for one in table["utterances"]}
    assert list(shown.values()) == NASTY
    assert [page.data("browser")["texts"][i] for i in page.data("browser")["rows"][0]["text"]] == NASTY
    assert 'failed: <b>no</b> & "never"' in page.text


def test_the_policy_allows_this_script_and_style_and_nothing_from_elsewhere(run: Any) -> None:
    small(run)
    page = written(run)
    policy = next(a["content"] or "" for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    for kind, text in (("script", page.raw["script"][-1]), ("style", page.raw["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "connect-src" not in policy
    tags = [tag for tag, _ in page.elements]
    assert tags.index("meta") < tags.index("style") < tags.index("script")
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page.raw["style"][0])
    assert "http" not in page.raw["script"][-1]


def test_sound_keeps_within_its_budget_and_what_is_left_out_says_so(run: Any) -> None:
    small(run)
    whole = written(run).data("media")
    size = sum(len(place.partition(",")[2]) for place in whole)
    assert all(place.startswith(("data:audio/ogg;base64,", "data:image/png;base64,")) for place in whole)
    half = written(run, megabytes=size / 2e6)
    kept = sum(len(place.partition(",")[2]) for place in half.data("media"))
    assert 0 < kept <= size / 2
    reasons = {s.get("missing") for u in half.data("listen")[0]["utterances"] for s in u["samples"]}
    assert reasons == {None, f"left out: sound and spectrograms may take {size / 2e6:g} MB in all"}


def test_sound_beside_the_page_is_in_files_that_the_page_names(run: Any) -> None:
    small(run)
    (run.path / "report" / "media").mkdir(parents=True)
    (run.path / "report" / "media" / "9999.opus").write_bytes(b"of an earlier page")
    page = written(run, embed=False, utterances=1)
    places = page.data("media")
    assert {f"media/{file.name}" for file in (run.path / "report" / "media").iterdir()} == set(places)
    policy = next(a["content"] or "" for _, a in page.elements if a.get("http-equiv"))
    assert "media-src 'self' file:" in policy
    assert written(run, megabytes=0).data("media") == []
    assert not (run.path / "report" / "media").exists()


def test_missing_audio_and_failed_utterances_are_shown_with_their_reason(run: Any) -> None:
    key = small(run)
    folder = run.speech(
        key, NASTY, status=["ok", "failed", "ok", "ok"], reason=[None, "RuntimeError: too long", None, None]
    )
    (folder / "audio" / "u000.flac").unlink()
    (folder / "audio" / "u002.flac").write_bytes(b"no sound")
    page = written(run)
    samples = {u["id"]: u["samples"][2] for u in page.data("listen")[0]["utterances"]}
    assert samples["u000"]["missing"] == "the audio file u000.flac is not here"
    assert samples["u001"]["missing"] == "failed: RuntimeError: too long"
    assert "u002.flac cannot be decoded" in samples["u002"]["missing"]
    assert str(run.path) not in json.dumps(page.data("listen"))
    assert samples["u003"]["seconds"] == 0.5
    assert "u001: RuntimeError: too long" in page.text  # beneath the leaderboard, where it is counted


def test_a_run_that_is_not_complete_says_so(run: Any) -> None:
    small(run)
    assert "Partial results" not in written(run, utterances=0).text
    assert "The run is still going." in written(run, going=True, utterances=0).text
    begun = run.path / "cells" / "begun"
    begun.mkdir()
    (begun / "cell.json").write_text('{"row": "student at 4"}')
    (begun / "utterances.jsonl").write_text('{"id": "u000"}\n{"id": "u001"}\n{"id": "u0')
    assert "student at 4 is not scored yet: 2 utterances are made." in written(run, utterances=0).text
    run.training("later", [1.0, 0.9], [1.0, 1.0], status="unfinished")
    assert "The training of later is not finished: it stands at step 2." in written(run, utterances=0).text
    run.cell("waiting", 1, {}, n_expected=4, not_measured={"wer": "not scored yet: `imfbench score` does it"})
    assert "waiting at 1 NFE: not scored yet" in written(run, utterances=0).text


def test_a_run_of_which_nothing_is_scored_yet_has_a_page_that_says_so(run: Any, tmp_path: Path) -> None:
    begun = run.path / "cells" / "begun"
    begun.mkdir(parents=True)
    (begun / "cell.json").write_text('{"row": "student at 4"}')
    (begun / "utterances.jsonl").write_text('{"id": "u000"}\n{"id": "u001"}\n')
    page = written(run, going=True)
    assert "Partial results" in page.text
    assert "student at 4 is not scored yet: 2 utterances are made." in page.text
    assert "No row has been scored yet." in page.text
    Leaderboard(pictures=False).write(run.path)
    text = (run.path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "No cell has been scored yet." in text
    with pytest.raises(RunFolderError, match="1 cells are begun, none is scored: there are no rows yet"):
        gather([run.path])
    with pytest.raises(RunFolderError, match="1 rows are not scored yet"):
        publish(run.path, tmp_path / "results")


def test_a_run_of_a_newer_schema_is_refused(run: Any) -> None:
    key = small(run)
    summary = run.path / "cells" / key / "summary.json"
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "schema_version": 99}))
    with pytest.raises(SchemaError, match=r"summary\.json was written by a newer imfbench: its schema_version is 99"):
        Page().write(run.path)
    assert not (run.path / "report").exists()


@pytest.mark.slow
@pytest.mark.pictures
@pytest.mark.parametrize("clause", contract("page", {}), ids=str)
def test_the_page_keeps_the_contract_of_reports(clause: Any) -> None:
    clause()


@pytest.mark.slow
@pytest.mark.pictures
def test_the_same_results_give_the_same_page_with_pictures_that_may_stand_in_it(run: Any) -> None:
    small(run)
    run.training("student", [1.0, 0.9, 0.8], [1.0, 1.0, 0.9])
    first = written(run)
    before = (run.path / "report" / "index.html").read_bytes()
    assert written(run).elements == first.elements
    assert (run.path / "report" / "index.html").read_bytes() == before
    assert not any("style" in attributes for _, attributes in first.elements)
    assert len(first.raw["style"]) == 1
    drawings = [attributes for tag, attributes in first.elements if tag == "svg"]
    assert len(drawings) >= 6
    assert all(one["role"] == "img" and one["aria-label"] for one in drawings)
    ids = [attributes["id"] for _, attributes in first.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in first.elements:
        for reference in re.findall(r"url\(#([^)]+)\)", " ".join(filter(None, attributes.values()))):
            assert reference in ids


def test_the_page_comes_with_every_run_and_takes_its_options_from_the_experiment(tmp_path: Path) -> None:
    from imfbench.config import load
    from imfbench.config_file import ConfigError

    assert REPORTS.get("page") is Page
    assert load("quickstart").reports == {"leaderboard": {}, "page": {}}
    assert load("quickstart", ("reports={page: {embed: false}}",)).reports == {"page": {"embed": False}}
    with pytest.raises(ConfigError, match=r"unknown key 'embd'.*'embed'"):
        load("quickstart", ("reports={page: {embd: false}}",))
    with pytest.raises(ConfigError, match="'leaderboard' has no options"):
        load("quickstart", ("reports={leaderboard: {big: true}}",))


def test_the_sample_report_is_of_this_form_and_small() -> None:
    clone = Path(__file__).parent.parent.parent
    folder = clone / "docs" / "sample_report"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    page = Parsed((folder / "index.html").read_text(encoding="utf-8"))
    style, script = page.raw["style"][0], page.raw["script"][-1]
    assert (style, script) == tuple(map(render._joined, (render.STYLES, render.SCRIPTS))), "make the sample report anew"
    assert "http" not in script
    assert "docs/sample_report/index.html" in (clone / "README.md").read_text(encoding="utf-8")
