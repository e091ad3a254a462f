"""The page in Chromium: sorting, filters, sound, blind listening, votes, the browser of utterances, contrast, labels, keyboard.

Needs Playwright (``make install`` brings it) and a Chromium (on Debian ``apt install chromium``); skipped without them.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imfbench.reports.page import Page

pytestmark = pytest.mark.slow
SAMPLE = Path(__file__).parent.parent.parent / "docs" / "sample_report" / "index.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

CONTRAST = """() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number);
    return { r: n[0], g: n[1], b: n[2], a: n.length > 3 ? n[3] : 1 };
  };
  const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = (c) => 0.2126 * part(c.r) + 0.7152 * part(c.g) + 0.0722 * part(c.b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.a > 0.99) return colour;
    }
    return { r: 255, g: 255, b: 255 };
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .unseen, script, [disabled], audio")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const [a, b] = [light(parse(style.color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const told = `${element.tagName}.${element.className} "${element.textContent.slice(0, 30)}"`;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${told} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""

UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, textarea, audio, [role=region], svg[role=img]")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.getAttribute("aria-label") || e.labels?.[0]?.textContent.trim()))
  .filter((e) => e.tagName === "INPUT" || e.tagName === "SELECT" || !e.textContent.trim())
  .map((e) => e.outerHTML.slice(0, 120))"""

UNREACHABLE = """() => [...document.querySelectorAll("*")].filter((e) => e.checkVisibility() && e !== document.scrollingElement)
  .filter((e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1)
  .filter((e) => e.tabIndex < 0 && !e.querySelector("a, button, input, select")).map((e) => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: `make install` brings it"
    )
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages that tests share."""
    return {"sample": SAMPLE, "folder": tmp_path_factory.mktemp("page")}


@pytest.fixture(params=["fresh", "sample"])
def opened(request: pytest.FixtureRequest, run: Any, made: dict[str, Path], chromium: Any) -> Iterator[Any]:
    """A page of a made-up run as the code makes it now, and the committed one of a real run; no fault may come up in either."""
    if request.param not in made:
        made["fresh"] = fresh(type(run)(made["folder"] / "run"))
    yield from watched(chromium, made[request.param])


def fresh(run: Any, **config: Any) -> Path:
    draw = np.random.default_rng(0)
    for system, nfe in (("ground-truth", None), ("teacher", 32), ("one", 1), ("two", 1), ("two", 2)):
        scores = {"wer": np.rint(draw.random(6) * 3) / 10, "sim": 0.7 + 0.1 * draw.random(6)}
        timed = {} if nfe is None else {"rtf_total": 0.1 * nfe, "rtf_network": 0.09 * nfe}
        run.speech(
            run.cell(system, nfe, scores, **timed), [f"sentence number {i}" for i in range(6)], ["sentence number"] * 6
        )
    run.training("one", [1.0, 0.9, 0.8], [1.0, 1.0, 0.9])
    return Page(Page.Config(**config)).write(run.path)[0]


def watched(chromium: Any, file: Path, **context: Any) -> Iterator[Any]:
    faults: list[str] = []
    made = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, **context)
    page = made.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda asked: faults.append(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None,
    )
    page.goto(file.as_uri())
    yield page
    made.close()
    assert not faults


def until(page: Any, expression: str) -> None:
    """Wait for an expression to hold; Playwright's own waiting needs the ``eval`` that the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it never came to {expression}")


def part(page: Any, name: str) -> None:
    page.click(f"nav a[data-part={name}]")
    page.wait_for_selector(f"#{name}:not([hidden])")


def test_tables_sort_and_filters_work(opened: Any) -> None:
    table = opened.locator("table.figures").first
    block = table.locator("tbody:not(.pinned)").first
    pinned = table.locator("tbody.pinned tr.row th").all_inner_texts()
    header = table.locator("thead th", has_text="SIM-o")
    column = header.evaluate("th => th.cellIndex")

    def values() -> list[float]:
        return [
            float(row.locator("td, th").nth(column).get_attribute("data-sort")) for row in block.locator("tr.row").all()
        ]

    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())
    assert table.locator("tbody.pinned tr.row th").all_inner_texts() == pinned
    rows = table.locator("tr.row:visible").count()
    only = block.locator("tr.row").first.get_attribute("data-nfe")
    box = opened.locator(f"[data-filter=nfe] input[value='{only}']").first
    box.uncheck()
    assert table.locator(f"tr.row[data-nfe='{only}']:visible").count() == 0
    assert 0 < table.locator("tr.row:visible").count() < rows
    assert "hidden" in opened.locator(".hidden-rows").first.inner_text()
    box.check()
    assert table.locator("tr.row:visible").count() == rows
    more = block.locator(".more").first
    more.press("Enter")
    assert more.get_attribute("aria-expanded") == "true"
    assert block.locator("tr.details").first.is_visible()


def test_sound_loads_plays_and_changes_over_at_the_same_position(opened: Any) -> None:
    part(opened, "listen")
    until(opened, "document.querySelectorAll('#samples audio').length > 2")
    until(opened, "[...document.querySelectorAll('#samples audio')].every(a => a.readyState >= 1 && a.duration > 0.2)")
    opened.evaluate("document.activeElement.blur()")
    opened.evaluate("page.listening.cards.find(Boolean).audio.playbackRate = 0.25")
    opened.keyboard.press("1")
    until(opened, "page.listening.playing && page.listening.playing.audio.currentTime > 0.05")
    before = opened.evaluate("page.listening.position")
    opened.keyboard.press("2")
    until(opened, "page.listening.playing === page.listening.cards[1] && !page.listening.cards[1].audio.paused")
    assert opened.evaluate("page.listening.cards[0].audio.paused")
    assert opened.evaluate("page.listening.cards[1].audio.currentTime") >= before
    opened.keyboard.press(" ")
    until(opened, "page.listening.cards[1].audio.paused")
    opened.locator(".sample button.slot", has_text="A").nth(1).click()
    assert opened.evaluate("page.listening.slots.A === page.listening.cards[1]")
    images = opened.evaluate(
        "[...document.querySelectorAll('#samples img')].map(i => [i.complete, i.naturalHeight, i.naturalWidth])"
    )
    assert images
    assert all(complete and height == 80 and width > 10 for complete, height, width in images)


def test_blind_listening_hides_names_and_exports_votes(opened: Any, tmp_path: Path) -> None:
    part(opened, "listen")
    names = opened.evaluate("page.listening.tables[page.listening.table].rows.map(r => r.name)")
    assert all(name in opened.locator("#samples").inner_text() for name in names[:2])
    opened.locator("#blind").check()
    shown = opened.locator("#samples").inner_html()
    assert not any(name in shown for name in names)
    prompt = (
        "page.listening.tables[page.listening.table].utterances[page.listening.utterance].prompt.sound !== undefined"
    )
    assert opened.locator("#samples img:visible").count() == int(opened.evaluate(prompt))
    assert "WER" not in opened.locator("#samples").inner_text()
    orders = set()
    for _ in range(12):
        orders.add(tuple(opened.evaluate("page.listening.cards.map(c => c.sample.row.key)")))
        opened.keyboard.press("ArrowRight")
        opened.locator("#listen-previous").click()
    assert len(orders) > 1
    given = opened.evaluate("page.listening.cards.slice(0, 2).map(c => c.sample.row)")
    for place, vote in ((0, "4"), (1, "2")):
        opened.locator(f"input[name=vote-{place}][value='{vote}']").check()
    with opened.expect_download() as download:
        opened.locator("#export").click()
    download.value.save_as(tmp_path / "votes.csv")
    votes = list(csv.DictReader((tmp_path / "votes.csv").open(newline="", encoding="utf-8")))
    assert [(vote["key"], vote["system"], vote["vote"]) for vote in votes] == [
        (row["key"], row["system"], vote) for row, vote in zip(given, ("4", "2"), strict=True)
    ]
    assert votes[0]["utterance"] == opened.evaluate(
        "page.listening.tables[page.listening.table].utterances[page.listening.utterance].id"
    )


def test_all_utterances_can_be_searched_and_sorted_and_few_are_drawn(opened: Any) -> None:
    part(opened, "utterances")
    box = opened.locator("#browse")
    opened.wait_for_selector("#browse .body .line")
    total = int(opened.locator("#browse-count").inner_text().split()[0])
    assert total == opened.evaluate("page.data('browser').rows.reduce((n, r) => n + r.id.length, 0)")
    assert box.locator(".body .line").count() < 60
    wer = box.locator("[role=columnheader]", has_text="WER")
    place = wer.evaluate("c => [...c.parentElement.children].indexOf(c)")
    wer.locator("button").click()
    first = [float(line.locator(".cell").nth(place).inner_text()) for line in box.locator(".body .line").all()[:5]]
    assert first == sorted(first, reverse=True)
    assert first[0] > 0
    word = box.locator(".body .line").first.locator(".cell").nth(1).inner_text().replace("♪", "").strip()
    opened.fill("#search", word)
    until(opened, f"parseInt(document.getElementById('browse-count').textContent) < {total}")
    assert all(word in line.inner_text() for line in box.locator(".body .line").all())
    opened.fill("#search", "no such text at all")
    until(opened, "document.getElementById('browse-count').textContent.startsWith('0 ')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_contrast_labels_and_keyboard(opened: Any, scheme: str, width: int) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 844})
    for name in opened.locator("nav a").evaluate_all("links => links.map(l => l.dataset.part)"):
        part(opened, name)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width, name
        assert opened.evaluate(CONTRAST) == [], name
        assert opened.evaluate(UNNAMED) == [], name
        assert opened.evaluate(UNREACHABLE) == [], name
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert opened.locator("html").get_attribute("lang") == "en"
    assert opened.locator("h1").count() == 1
    assert opened.locator("[tabindex]:not([tabindex='0']):not([tabindex='-1'])").count() == 0


def test_ids_with_slashes_open_as_they_are_and_a_broken_address_opens_the_page(run: Any, chromium: Any) -> None:
    names = ["spk/1", "spk", "=1+1", "100%"]
    for system, nfe in (("teacher", 2), ("one", 1)):
        key = run.cell(system, nfe, {"wer": [0.1, 0, 0, 0.2], "sim": [0.8] * 4})
        table = run.speech(key, names) / "utterances.parquet"
        pd.read_parquet(table).assign(id=names).to_parquet(table)
    for page in watched(chromium, Page().write(run.path)[0]):
        part(page, "utterances")
        page.wait_for_selector("#browse .body .line a")
        links = page.locator("#browse .body .line a").evaluate_all("links => links.map(l => [l.textContent, l.hash])")
        for name in names:
            page.evaluate("hash => { location.hash = hash }", next(hash for text, hash in links if text == f"♪ {name}"))
            until(page, f"document.getElementById('listen-text').textContent === {name!r}")
        page.evaluate("location.hash = '#utterances/%E0%A4%A'")
        page.wait_for_selector("#utterances:not([hidden])")


def test_votes_hold_no_formulas(run: Any, chromium: Any, tmp_path: Path) -> None:
    for system in ("=cmd|' /C calc'!A0", "one"):
        table = (
            run.speech(run.cell(system, 1, {"wer": [0.1], "sim": [0.8]}, key=system[1:3]), ["a"]) / "utterances.parquet"
        )
        pd.read_parquet(table).assign(id="@SUM(1)").to_parquet(table)
    for page in watched(chromium, Page().write(run.path)[0]):
        part(page, "listen")
        page.locator("#blind").check()
        for place in (0, 1):
            page.locator(f"input[name=vote-{place}][value='3']").check()
        with page.expect_download() as download:
            page.locator("#export").click()
        download.value.save_as(tmp_path / "votes.csv")
        votes = list(csv.DictReader((tmp_path / "votes.csv").open(newline="", encoding="utf-8")))
        assert {vote["system"] for vote in votes} == {"'=cmd|' /C calc'!A0", "one"}
        assert {vote["utterance"] for vote in votes} == {"'@SUM(1)"}


def test_the_title_of_a_block_is_hidden_with_its_rows(run: Any, chromium: Any) -> None:
    for system, threads in (("one", 1), ("two", 1), ("three", 8)):
        run.cell(system, 1, {"sim": [0.8, 0.7]}, rtf_total=0.1, threads=threads)
    for page in watched(chromium, Page().write(run.path)[0]):
        title = page.locator("tr.title")
        assert title.is_visible()
        page.locator("[data-filter=system] input[value=three]").uncheck()
        assert not title.is_visible()
        page.locator("[data-filter=system] input[value=three]").check()
        assert title.is_visible()


def test_sound_beside_the_page_plays_from_its_folder(run: Any, chromium: Any) -> None:
    for page in watched(chromium, fresh(run, embed=False)):
        part(page, "listen")
        until(page, "[...document.querySelectorAll('#samples audio')].every(a => a.readyState >= 1)")
        page.keyboard.press("1")
        until(page, "page.listening.playing?.audio.currentTime > 0")
        until(page, "[...document.querySelectorAll('#samples img')].every(i => i.naturalHeight === 80)")


def test_texts_with_markup_run_nothing_in_a_browser(run: Any, chromium: Any) -> None:
    nasty = [
        "<script>window.broken = 1</script>",
        "</script><img src=x onerror='window.broken = 2'>",
        "مرحبا بالعالم",
        "今天天气很好",
    ]
    for system, nfe in (("teacher", 2), ("one", 1)):
        run.speech(
            run.cell(system, nfe, {"wer": [0.1, 0, 0, 0.2], "sim": [0.8] * 4}), nasty, ["<b>heard</b>", *nasty[1:]]
        )
    for page in watched(chromium, Page().write(run.path)[0]):
        for name in ("listen", "utterances"):
            part(page, name)
        page.wait_for_selector("#browse .body .line")
        assert page.evaluate("window.broken") is None
        assert nasty[0] in page.locator("#browse").inner_text()
        assert page.locator("#browse b, #samples b, #browse img").count() == 0
        part(page, "listen")
        page.select_option("#listen-utterance", "2")
        assert page.locator("#listen-text").inner_text() == nasty[2]
        assert page.locator("#listen-text").evaluate("e => getComputedStyle(e).direction") == "rtl"
