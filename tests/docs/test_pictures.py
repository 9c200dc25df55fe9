"""The pictures of README are what the numbers draw, and say in words what they show."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from .pages import README, ROOT

SVG = "{http://www.w3.org/2000/svg}"
PICTURES = sorted((ROOT / "docs").glob("*.svg"))


def test_the_pictures_are_what_the_numbers_draw() -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "pictures.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_has_words_and_paper_of_its_own_and_nothing_from_elsewhere(picture: Path) -> None:
    text = picture.read_text()
    root = ET.fromstring(text)
    title, description = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")
    assert title and description
    assert root.get("role") == "img"
    paper = root.find(f"{SVG}rect")
    assert paper is not None and (paper.get("width"), paper.get("height")) == (root.get("width"), root.get("height"))
    assert "prefers-color-scheme: dark" in text
    assert not {"script", "image", "use"} & {element.tag.removeprefix(SVG) for element in root.iter()}
    assert f"(docs/{picture.name})" in README.read_text()


def test_five_frameworks_have_five_numbers() -> None:
    root = ET.parse(ROOT / "docs" / "five-losses.svg").getroot()
    numbers = [t.text for t in root.iter(f"{SVG}text") if t.text and t.text.replace(".", "").isdigit()]
    assert len(numbers) == len({*numbers}) == 10
