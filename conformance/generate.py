"""Write the vectors, or with ``--check`` hold them against what would be written.

``python -m classweight.conformance.generate [--check]`` in a checkout; needs mpmath.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from . import (
    clauses_call,
    clauses_inputs,
    clauses_memory,
    clauses_published,
    clauses_softmax,
    clauses_unchecked,
    clauses_weights,
)
from .cases import VECTORS, dump
from .drafts import Draft, complete

CLAUSES: dict[str, Callable[[], Iterator[Draft]]] = {
    clause.__name__: clause
    for clause in (
        clauses_softmax.targets,
        clauses_softmax.class_weight,
        clauses_softmax.weighting,
        clauses_softmax.label_smoothing,
        clauses_softmax.ignore_index,
        clauses_softmax.reduction,
        clauses_softmax.zero_denominator,
        clauses_softmax.axis,
        clauses_inputs.inputs,
        clauses_inputs.zero_coefficients,
        clauses_inputs.infinite,
        clauses_inputs.numbers,
        clauses_call.sigmoid,
        clauses_call.average_outputs,
        clauses_call.sample_weight,
        clauses_call.mask,
        clauses_call.call_class_weight,
        clauses_call.denominator,
        clauses_weights.weights_of_either_sign,
        clauses_unchecked.unchecked,
        clauses_memory.memory,
        clauses_published.published,
    )
}


def files() -> dict[str, str]:
    """Return the text of each vector file."""
    return {f"{name}.json": dump(name, [complete(name, each) for each in drafts()]) for name, drafts in CLAUSES.items()}


def outdated(folder: Path, expected: dict[str, str]) -> list[str]:
    """Return the names of files that are missing, differ, or should not be there."""
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in {*there, *expected} if there.get(name) != expected.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 1 where ``--check`` finds a file that is not up to date."""
    parser = argparse.ArgumentParser(prog="classweight.conformance.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    parser.add_argument("--folder", type=Path, default=VECTORS)
    options = parser.parse_args(arguments)
    expected = files()
    changed = outdated(options.folder, expected)
    if options.check:
        for name in changed:
            print(f"{name} is not up to date: run python -m classweight.conformance.generate", file=sys.stderr)
        return 1 if changed else 0
    for name in changed:
        path = options.folder / name
        if name in expected:
            path.write_text(expected[name], encoding="utf-8")
        else:
            path.unlink()
        print(f"{name}: {'written' if name in expected else 'removed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
