"""The page's file: templates, style and scripts of this folder in one HTML file under a strict Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from imfbench.reports.page.board import board
from imfbench.reports.page.browse import browser
from imfbench.reports.page.curves import sections
from imfbench.reports.page.listen import Media, listening
from imfbench.reports.page.sources import Source
from imfbench.store import plain, write_bytes, write_text

if TYPE_CHECKING:
    from imfbench.reports.page import Page

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "tables.js", "listen.js", "votes.js", "browse.js")
STYLES = ("page.css", "listen.css")
_BREAKS = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_page(folder: Path, source: Source, config: Page.Config) -> list[Path]:
    """Write ``index.html`` and, unless they are embedded, the media files beside it.

    Args:
        folder: Where to; what an earlier page left in ``media/`` is removed.
        source: What to show.
        config: How much of it.
    """
    media = Media(config.embed, 1e6 * config.megabytes, config.kilobits)
    listen = listening(source, media, config.utterances, config.seed)
    script, style = (_joined(names) for names in (SCRIPTS, STYLES))
    text = _environment().get_template("page.html.j2").render(
        source=source,
        boards=[board(table) for table in source.tables],
        curves=sections(source),
        listen=as_json(listen),
        media=as_json(media.places),
        browser=as_json(browser(source.tables)),
        listenable=sum(len(table["utterances"]) for table in listen),
        utterances=sum(len(cell.utterances) for cell in source.cells if cell.utterances is not None),
        facts=_facts(source),
        script=Markup(script),
        style=Markup(style),
        policy=policy(script, style, config.embed),
    )  # fmt: skip
    shutil.rmtree(folder / "media", ignore_errors=True)
    files = [folder / "index.html"]
    write_text(files[0], text)
    for name, data in media.files.items():
        files.append(folder / "media" / name)
        write_bytes(files[-1], data)
    return files


def policy(script: str, style: str, embed: bool) -> str:
    """The Content-Security-Policy: this script and this style alone, no connection, media from the page or its folder."""
    # A page that is opened from a disk has no origin that 'self' could mean in every browser: file: names it.
    where = "data:" if embed else "'self' file:"
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src {where}; "
        f"media-src {where}; base-uri 'none'; form-action 'none'"
    )


def as_json(value: Any) -> Markup:
    """JSON that may stand in a ``script`` element: nothing in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup("".join(_BREAKS.get(c, c) for c in text) if any(c in text for c in _BREAKS) else text)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((HERE / "static" / name).read_text(encoding="utf-8") for name in names)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _facts(source: Source) -> list[tuple[str, str]]:
    """What is on record of the run, for the foot of the page."""
    manifest = source.manifest
    hardware = manifest.get("hardware") or {}
    packages = manifest.get("packages") or {}
    found = [
        ("Started", str(manifest.get("start") or "")),
        ("Hardware", ", ".join(str(hardware[key]) for key in ("device", "cpu", "name") if hardware.get(key))),
        ("Cores", str(hardware.get("cores") or "")),
        ("Threads", str(manifest.get("threads") or "")),
        ("imfbench", " ".join(filter(None, [packages.get("imfbench"), str(manifest.get("git_revision") or "")[:12]]))),
        ("torch", str(packages.get("torch") or "")),
        ("Experiment", str(manifest.get("config_hash") or "")[:16]),
    ]
    return [(title, value) for title, value in found if value]
