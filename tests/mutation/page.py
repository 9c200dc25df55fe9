"""Write the tables of docs/what-does-the-suite-catch.md from the results of `random_mutants` and the catalogue.

``python tests/mutation/page.py RESULTS...`` exits with 1 if a mutant survived for which survivors.json has no reason.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "what-does-the-suite-catch.md"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
RESULTS = ("killed", "survived", "unreached")
Line = Mapping[str, Any]


def reasons() -> dict[tuple[str, ...], str]:
    """Return why a mutant that survives changes no number that the suite sees, by file, function and change."""
    known = json.loads((HERE / "survivors.json").read_text())
    return {(x["file"], x["function"], x["before"], x["after"]): x["why"] for x in known}


def key(line: Line) -> tuple[str, ...]:
    """Return by what a survivor's reason is found: not by its line, which moves."""
    return tuple(line[name] for name in ("file", "function", "before", "after"))


def merged(lines: Iterable[Line]) -> list[Line]:
    """Return one line a mutant: what one backend kills is killed, what one reaches is reached."""
    found: dict[Any, Line] = {}
    for line in sorted(lines, key=lambda line: RESULTS.index(line["result"])):
        found.setdefault((*key(line), line["line"]), line)
    return list(found.values())


def tables(lines: Sequence[Line], why: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """Yield the tables line by line."""
    yield "| file | made | killed | survived | unreached |"
    yield "|---|---|---|---|---|"
    files = sorted({line["file"] for line in lines})
    for file in [*files, ""]:
        counts = Counter(line["result"] for line in lines if not file or line["file"] == file)
        name = f"`{file}`" if file else "all"
        yield f"| {name} | {counts.total()} | " + " | ".join(str(counts[result]) for result in RESULTS) + " |"
    for result, title in (("survived", "survived, and why"), ("unreached", "not reached by the suite")):
        yield ""
        yield f"| {title} | change | |"
        yield "|---|---|---|"
        shown = {(key(line), line["line"]) for line in lines if line["result"] == result}
        for (file, function, before, after), _ in sorted(shown):
            reason = why.get((file, function, before, after), "" if result == "unreached" else "unexplained")
            yield f"| `{file}`: `{function}` | {_code(before)} → {_code(after)} | {reason} |"


def _code(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def main(arguments: Sequence[str]) -> int:
    """Write the page and return the exit status."""
    lines = merged(json.loads(line) for path in arguments for line in Path(path).read_text().splitlines())
    text, why = PAGE.read_text(), reasons()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, "", *tables(lines, why), "", END + after]))
    unexplained = [line for line in lines if line["result"] == "survived" and key(line) not in why]
    for line in unexplained:
        print(f"unexplained: {line['file']}:{line['line']} {line['before']!r} -> {line['after']!r}")
    print(dict(Counter(line["result"] for line in lines)))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
