"""Write the tables of docs/what-does-the-suite-catch.md from the results of `random_mutants` and the catalogue.

``python tests/mutation/page.py RESULTS...`` exits with 1 if a mutant was not killed and survivors.json has no reason.
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
NAMES = ("file", "function", "before", "after")
# Changes of one function and reason that a row names.
SHOWN = 3
Line = Mapping[str, Any]


def reasons() -> dict[tuple[str, ...], str]:
    """Return why a mutant is not killed, by file, function and change; what is not reached needs no change, or none."""
    known = json.loads((HERE / "survivors.json").read_text())
    return {tuple(x[name] for name in NAMES if name in x): x["why"] for x in known}


def reason(line: Line, why: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the reason of a mutant that was not killed."""
    fewest = 1 if line["result"] == "unreached" else len(NAMES)
    return next((why[key(line)[:n]] for n in range(len(NAMES), fewest - 1, -1) if key(line)[:n] in why), None)


def key(line: Line) -> tuple[str, ...]:
    """Return by what a survivor's reason is found: not by its line, which moves."""
    return tuple(line[name] for name in NAMES)


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
    for result, title in (("survived", "survived, and why"), ("unreached", "not reached by the suite, and why")):
        yield ""
        yield f"| {title} | changes | |"
        yield "|---|---|---|"
        groups: dict[tuple[str, ...], list[str]] = {}
        for line in sorted(
            (line for line in lines if line["result"] == result), key=lambda line: (*key(line), line["line"])
        ):
            group = line["file"], line["function"], reason(line, why) or "unexplained"
            groups.setdefault(group, []).append(f"{_code(line['before'])} → {_code(line['after'])}")
        for (file, function, text), changes in groups.items():
            each = list(dict.fromkeys(changes))
            more = f"; {len(each) - SHOWN} more" if len(each) > SHOWN else ""
            yield f"| `{file}`: `{function}` | {'; '.join(each[:SHOWN])}{more} | {text} |"


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
    unexplained = [line for line in lines if line["result"] != "killed" and reason(line, why) is None]
    for line in unexplained:
        print(f"unexplained, {line['result']}: {line['file']}:{line['line']} {line['before']!r} -> {line['after']!r}")
    print(dict(Counter(line["result"] for line in lines)))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
