"""What an HTML page of ours must be: valid, whole, readable, and reachable by the keyboard."""

from __future__ import annotations

import itertools
import re
from typing import Any

import html5lib

from classweight.page import DARK, LIGHT

SVG = "{http://www.w3.org/2000/svg}svg"


def check(text: str) -> Any:
    """Return the page's tree, or fail."""
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)
    assert root.get("lang") == "en"
    assert root.findtext("head/title") == root.findtext(".//h1")
    assert len(root.findall(".//main")) == 1
    levels = [int(element.tag[1]) for element in root.iter() if re.fullmatch(r"h\d", str(element.tag))]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for head in root.iter("th"):
        assert head.get("scope") in ("col", "row")
    for each in root.iter("table"):
        assert each.findtext("caption")
    for each in root.iter("details"):
        assert each[0].tag == "summary" and "".join(each[0].itertext()).strip()
    for each in root.iter(SVG):
        assert each.get("role") == "img" and each.get("aria-label")
    for element in root.iter():
        # What scrolls is reached by the keyboard, and has a name there.
        if element.tag == "pre" or "wide" in (element.get("class") or ""):
            assert element.get("tabindex") == "0" and element.get("role") == "region" and element.get("aria-label")
    assert not {"script", "link", "img", "iframe", "object"} & {element.tag for element in root.iter()}
    assert not re.search(r"""(?:src|href)=|url\(|@import""", text)
    for colours in (LIGHT, DARK):
        for name in ("text", "quiet", "bad", "good"):
            assert contrast(colours[name], colours["paper"]) >= 4.5
    return root


def contrast(one: str, other: str) -> float:
    """Return the ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
