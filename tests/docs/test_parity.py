"""The page of parity has the form that the command writes, and names the backends and the clauses that there are."""

from __future__ import annotations

import re

from classweight.conformance.cases import VECTORS, load
from classweight.conformance.page import to_markdown
from classweight.conformance.runner import run

from .pages import ROOT

PAGE = (ROOT / "docs" / "parity.md").read_text()
BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def columns(page: str) -> list[str]:
    """Return the names of the backends in the table's two rows of heads."""
    first, second = BLOCK.search(page)[1].splitlines()[1:3]  # type: ignore[index]
    ends = [match.end() for match in re.finditer(r"\S+", first)]
    names = first.split()
    variants = {match.end(): match[0] for match in re.finditer(r"\S+", second)}
    return [f"{name}:{variants[end]}" if end in variants else name for name, end in zip(names, ends, strict=True)][3:]


def test_the_page_is_of_the_form_that_the_command_writes() -> None:
    cases = [case for case in load() if case.clause == "axis"]
    written = to_markdown(run(["numpy", "torch:composite"], lambda _: cases, elements=2000))
    for page in (written, PAGE):
        heading, blank, origin = page.splitlines()[:3]
        assert (heading, blank) == ("# Parity", "")
        assert re.fullmatch(r"Written by `classweight conformance`, version [\d.]+, on \d{4}-\d\d-\d\d\.", origin)
        caption = "the cases of each clause, and the worst ULP of loss and gradient where all passed"
        assert page.splitlines()[3:6] == ["", "```text", caption]
    assert columns(written) == ["numpy", "torch:composite"]
    assert re.search(r"^axis +12 +12 +2 +\S+ \S+ +\S+ \S+$", written, re.MULTILINE)
    assert "\nexact numpy" in written and "\nnumpy: numpy " in written


def test_the_page_has_the_backends_of_the_session_and_clauses_that_exist() -> None:
    session = (ROOT / "noxfile.py").read_text()
    assert len(columns(PAGE)) == 12
    assert all(f'"{name}"' in session for name in columns(PAGE))
    table = BLOCK.search(PAGE)[1]  # type: ignore[index]
    clauses = [line.split()[0] for line in table.partition("loss passed")[0].splitlines()[3:]]
    assert clauses and {*clauses} <= {path.stem for path in VECTORS.glob("*.json")}
