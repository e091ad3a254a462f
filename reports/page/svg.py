"""Figures as SVG that may stand in a page: under its Content-Security-Policy, in its font, in its dark or light colours.

matplotlib writes ``style`` attributes and a ``style`` element, which a strict policy forbids; here they become attributes,
which the page's own style sheet may overrule: so ink, grid and background follow the reader's choice of dark or light.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"(?:(italic|oblique)\s+)?(?:(bold|\d{3})\s+)?([\d.]+)px\s+(.+)")


def svg(figure: Figure, name: str, told: str) -> str:
    """A figure as an ``svg`` element.

    Args:
        figure: What to draw.
        name: Unique in the page: the element's ids begin with it.
        told: What it shows, for readers who do not see it.

    Returns:
        Markup; the same figure gives the same text.
    """
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in (f"{_SVG}style", f"{_SVG}title") or child.tag.endswith("metadata"):
                parent.remove(child)
    for element in root.iter():
        _plain(element, name)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    for attribute in ("height", "version"):
        root.attrib.pop(attribute, None)
    size = "wide" if width > 72 * 7 else "narrow"
    root.attrib |= {"class": f"plot {size}", "role": "img", "aria-label": told, "stroke-linejoin": "round"}
    return ElementTree.tostring(root, encoding="unicode")


def _plain(element: ElementTree.Element, name: str) -> None:
    """Attributes of the element itself, without name spaces, ids of its own."""
    element.tag = element.tag.removeprefix(_SVG)
    element.text = (element.text or "").strip() or None if element.tag != "text" else element.text
    element.tail = None if element.tag not in ("tspan",) else element.tail
    found: dict[str, str] = {}
    for key, value in element.attrib.items():
        key = key.removeprefix(_LINK)
        if key == "style":
            found |= _declarations(value)
        elif key == "id":
            found["id"] = f"{name}-{value}"
        elif key == "href":
            found["href"] = f"#{name}-{value.removeprefix('#')}"
        else:
            found[key] = value
    found = {key: _REFERENCE.sub(rf"url(#{name}-\1)", value) for key, value in found.items()}
    element.attrib.clear()
    element.attrib.update(found)


def _declarations(style: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            if match := _FONT.fullmatch(value):
                found["font-size"] = f"{match[3]}px"
                found |= {"font-weight": match[2]} if match[2] else {}
                found |= {"font-style": match[1]} if match[1] else {}
        elif key and key != "stroke-linejoin":
            found[key] = value
    return found
