"""Errors speak of arguments that the user gave: calls with a bad value for each in turn. NumPy only."""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

from ..refusals import Z

Y = np.array([0, 1, 2, 1])
BITS = np.eye(3)[Y]
SOFTMAX, SIGMOID = SoftmaxCrossEntropy(), SigmoidCrossEntropy()
BAD: dict[str, Any] = {
    "none": None,
    "text": "nonsense",
    "object": object(),
    "mapping": {7: -1.0},
    "empty": [],
    "ragged": [[1, 2], [3]],
    "negative": -1,
    "huge": 10**30,
    "fraction": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "true": True,
    "labels-out-of-range": np.array([0, 9, -7, 1]),
    "numbers-out-of-range": np.array([0.5, np.nan, -2, np.inf]),
    "rows-out-of-range": np.where(BITS == 1, [-1.0, np.nan, np.inf], 0.5),
    "another-shape": np.ones((5, 2)),
    "another-length": np.ones(5),
    "whole-rows": np.ones((4, 3), np.int64),
    "bools": np.ones(4, np.bool_),
    "complex": np.ones((4, 3), np.complex128),
    "words": np.array(["a", "b", "c", "a"]),
    "nothing": np.ones((0, 3)),
    "scalar": np.array(2.0),
}


@dataclasses.dataclass
class Valid:
    """A valid call.

    ``also`` are names that errors may say beside the function's parameters, ``native`` parameters that the framework
    itself refuses, in its words.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    also: frozenset[str] = frozenset()
    native: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if "spec" in self.arguments:  # its fields are what the user wrote
            self.also |= {field.name for field in dataclasses.fields(self.arguments["spec"])}

    def parameters(self) -> list[str]:
        """Return the names of what can be given."""
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [name for name, p in inspect.signature(self.function).parameters.items() if p.kind not in kinds]

    def assert_errors_name_arguments(self, convert: Callable[[Any], Any] = lambda x: x) -> set[str]:
        """Make the calls, arrays also as ``convert`` makes them native; return the names that errors said."""
        given = {name: convert(x) if isinstance(x, np.ndarray) else x for name, x in self.arguments.items()}
        self.function(**given)
        names, problems, said = {*self.parameters(), *self.also}, [], set()
        for parameter in self.parameters():
            if parameter in self.native:
                continue
            is_flag = inspect.signature(self.function).parameters[parameter].annotation in ("bool", "bool | None")
            for label, bad in BAD.items():
                if is_flag and isinstance(bad, np.ndarray):  # a flag is taken for its truth, which an array has not
                    continue
                for value in _native(bad, convert):
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")  # of numbers that are cast
                            self.function(**{**given, parameter: value})
                    except Exception as error:
                        found = re.match(r"`(\w+)` must [^\n]*; got [^\n]*\Z", str(error))
                        if found and found[1] in names and isinstance(error, ValueError | TypeError):
                            said.add(found[1])
                        else:
                            problems.append(f"{parameter}={label}: {type(error).__name__}: {str(error)[:300]}")
        assert not problems, "\n" + "\n".join(problems)
        return said


def _native(bad: Any, convert: Callable[[Any], Any]) -> Iterator[Any]:
    yield bad
    if isinstance(bad, np.ndarray):
        try:
            native = convert(bad)
        except (TypeError, ValueError):  # the framework has no such array
            return
        if native is not bad:
            yield native


def losses(module: Any, names: Iterable[str]) -> dict[str, Valid]:
    """Return calls of an adapter's functions that take a spec, for both kinds of spec."""
    calls = {}
    for name in names:
        for spec, targets in ((SOFTMAX, Y), (SIGMOID, BITS)):
            arguments = {"spec": spec, "logits": Z, "targets": targets}
            calls[f"{name}-{type(spec).__name__}"] = Valid(getattr(module, name), arguments)
    return calls


def each_call(module: Any, calls: dict[str, Valid]) -> pytest.MarkDecorator:
    """Parametrize a test with the calls, which must leave out no public function of the module."""
    assert {name.split("-")[0] for name in calls} == set(module.__all__)
    return pytest.mark.parametrize("call", list(calls.values()), ids=list(calls))
