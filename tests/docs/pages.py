"""Pages run as a reader would: their code in order, their commands in a shell, and what they say is printed is.

- ``python`` blocks of a page share one namespace. What they print stands in ``# comments`` behind the prints, or in the
  ``text`` block that follows; ``...`` stands for anything.
- ``console`` blocks hold commands behind a ``$``, and below each what it prints.
- A block with a ``title`` is a file of that name. Others (``sh``, ``yaml``) are not run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
README = ROOT / "README.md"
# Whose session a page runs in; the others run where PyTorch and scikit-learn are.
SESSIONS = {"tensorflow": "tensorflow", "keras": "tensorflow", "jax": "tensorflow", "chainer": "chainer"}
SESSIONS |= {"transformers": "trainers", "accelerate": "trainers", "lightning": "trainers"}
NEEDS = re.compile(r"^\*Needs (.+)\.\*$", re.MULTILINE)
FENCE = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^(?:print\(.*|\))  # (.+)$", re.MULTILINE)
PROGRAMS = {"python": [], "pytest": ["-m", "pytest"], "classweight": ["-m", "classweight"]}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the name of the file that it is, its text, and the line it begins in."""

    language: str
    title: str | None
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(m[1], m[2], m[3], text.count("\n", 0, m.start(3))) for m in FENCE.finditer(text)]


def session(page: Path) -> str:
    """Return the session of a page by what it says it needs."""
    needs = NEEDS.search(page.read_text())
    words = re.findall(r"\w+", needs[1].lower()) if needs else []
    return next((SESSIONS[word] for word in words if word in SESSIONS), "tests")


def pages(name: str) -> list[Path]:
    """Return the pages of a session."""
    return [page for page in DOCS if session(page) == name]


def run(page: Path) -> None:
    """Run a page in the current folder.

    Raises
    ------
    AssertionError
        Something else is printed than the page says.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = blocks(page)
    for block, following in itertools.zip_longest(found, found[1:]):
        if block.title:
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            said = PRINTED.findall(block.text)
            if following and following.language == "text" and not following.title:
                said += following.text.splitlines()
            check(page, block.line, said, execute(page, block, namespace))
        elif block.language == "console":
            for line, command, output in commands(block):
                check(page, line, output, shell(command))


def execute(page: Path, block: Block, namespace: dict[str, object]) -> str:
    output = io.StringIO()
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(output):
        exec(code, namespace)
    return output.getvalue()


def commands(block: Block) -> Iterator[tuple[int, str, list[str]]]:
    """Yield each command with its line, and the lines that it is said to print."""
    lines = block.text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield block.line + start, lines[start][2:], lines[start + 1 : end]


def shell(command: str) -> str:
    """Return what a command prints: a program of this environment, warnings being errors."""
    program, *arguments = shlex.split(command)
    environment = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "80"}
    if not any(point.name == "classweight" for point in entry_points(group="pytest11")):
        environment["PYTEST_PLUGINS"] = "classweight.conformance.plugin"  # a tree that is not installed
    run = subprocess.run(
        [sys.executable, *PROGRAMS[program], *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    return run.stdout


def check(page: Path, line: int, said: list[str], printed: str) -> None:
    want, got = ("".join(f"{row.rstrip()}\n" for row in rows) for rows in (said, printed.splitlines()))
    same = doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)
    assert same, f"{page.name}, line {line + 1}, says\n{want}but prints\n{got}"
