"""The verdict on one result: whether each number is what the definition says, within what its precision allows.

The absolute tolerance is 0. For exact precision the bounds are (a) and (b) of the definition: correctly rounded, unless
the true value is a near-tie; or within 0.5 ULP and 2**-48 of what cancels. Native precision and float64 have a budget
of ULPs. A number below the type's smallest normal may be flushed to 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .cases import Case, Exact, TypedArray
from .floats import FORMATS, Float, round_once, ulp

NEAR_TIE = 2.0**-44
CANCELLED = 2.0**-48
# The clause of the cases that are made for a user's own loss.
OWN = "own"
# A failure of a large array names its first entries.
NAMED = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """Entry by entry: whether it is wrong, whether a near-tie, how many ULPs off, and the correctly rounded value.

    ``distance`` leaves out what rule (b) allows for cancellation; under a budget it is in ULPs of what cancels.
    """

    wrong: npt.NDArray[np.bool_]
    near_tie: npt.NDArray[np.bool_]
    distance: Float
    rounded: Float

    @property
    def worst(self) -> float:
        """The largest distance, in ULPs."""
        return float(self.distance.max(initial=0.0))


def compare(result: Float, truth: Exact, dtype: str, rule: str, budget: float = 0.5) -> Comparison:
    """Compare values of type ``dtype`` with the truth under "rounded", "exact" or "budget"."""
    with np.errstate(all="ignore"):
        rounded = round_once(truth.hi, truth.lo, dtype)
        same = equal(result, rounded)
        flushed = (result == 0) & (np.abs(truth.hi) < FORMATS[dtype].smallest_normal)
        error = np.abs((result - truth.hi) - truth.lo)
        off = np.abs((truth.hi - rounded) + truth.lo)
        step = ulp(truth.hi, dtype)
        near_tie = np.abs(off - step / 2) <= NEAR_TIE * np.abs(truth.hi)
        size = np.abs(truth.hi) if truth.magnitude is None else np.maximum(np.abs(truth.hi), truth.magnitude)
        if rule == "rounded":
            allowed = same | (near_tie & (error <= step / 2 + NEAR_TIE * np.abs(truth.hi)))
        elif rule == "exact":
            error = np.maximum(0.0, error - CANCELLED * size)
            allowed = same | (error <= step / 2)
        else:
            step = ulp(size, dtype)
            allowed = same | (error <= budget * step)
        distance = np.where(same & ~np.isfinite(error) | flushed, 0.0, error / step)
    return Comparison(~(allowed | flushed), near_tie, np.where(np.isnan(distance), np.inf, distance), rounded)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one column says of one case: why it failed, if it did, and figures for the table.

    ``zeros`` are wrong entries that are 0, ``unrounded`` entries that are not the correctly rounded value.
    """

    column: str
    failures: tuple[str, ...] = ()
    worst: float = 0.0
    elements: int = 0
    wrong: int = 0
    zeros: int = 0
    near_ties: int = 0
    unrounded: int = 0

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


def judge(case: Case, reply: Mapping[str, Any]) -> list[Verdict]:
    """Return the verdicts on a worker's reply; a reply that gives up says so in each column that the case has."""
    columns = ("errors",) if case.error else ("loss", "gradient")
    if "crash" in reply:
        return [Verdict(column, (f"{column}: {reply['crash']} {context(case)}",)) for column in columns]
    if case.error:
        return [_judge_error(case, reply)]
    if "error" in reply:
        error = reply["error"]
        text = f"is {error['type'][0]}: {error['message']}, but should be numbers"
        return [Verdict(column, (f"{column} {text} {context(case)}",)) for column in columns]
    verdicts = []
    for column, budget in zip(columns, case.budget, strict=True):
        truth = case.loss if column == "loss" else case.gradient
        if truth is not None and reply.get(column) is not None:
            result = TypedArray.from_json(reply[column])
            verdicts.append(_judge_numbers(case, column, result, truth, budget))
        elif column == "loss" or case.clause != OWN:  # a NumPy loss of one's own may have no gradient
            verdicts.append(Verdict(column, (f"{column} is None, but should be numbers {context(case)}",)))
    return verdicts


def _judge_error(case: Case, reply: Mapping[str, Any]) -> Verdict:
    expected = case.error
    assert expected is not None
    if "error" not in reply:
        loss = reply["loss"] and TypedArray.from_json(reply["loss"]).values.tolist()
        return Verdict("errors", (f"loss is {loss}, but should be {_named(expected)} {context(case)}",))
    types, message = reply["error"]["type"], reply["error"]["message"]
    missing = [part for part in expected.contains if part not in message]
    if expected.type in types and not missing:
        return Verdict("errors")
    return Verdict("errors", (f"error is {types[0]}: {message!r}, but should be {_named(expected)} {context(case)}",))


def _named(expected: Any) -> str:
    parts = " and ".join(map(repr, expected.contains))
    kind = {"Exception": "an error", "IndexError": "an IndexError"}.get(expected.type, f"a {expected.type}")
    return kind + (f" that says {parts}" if parts else "")


def _judge_numbers(case: Case, column: str, result: TypedArray, truth: Exact, budget: float) -> Verdict:
    dtype, shape = case.logits.dtype, truth.hi.shape
    if result.dtype != dtype:
        return Verdict(column, (f"{column}'s dtype is {result.dtype}, but should be {dtype} {context(case)}",))
    if result.shape != shape:
        return Verdict(column, (f"{column}'s shape is {result.shape}, but should be {shape} {context(case)}",))
    found = compare(result.values, truth, dtype, case.rule, budget)
    return Verdict(
        column,
        describe(column, result.values, found, budget, context(case)),
        found.worst,
        result.values.size,
        int(found.wrong.sum()),
        int((found.wrong & (result.values == 0)).sum()),
        int(found.near_tie.sum()),
        int((~equal(result.values, found.rounded)).sum()),
    )


def equal(a: Float, b: Float) -> npt.NDArray[np.bool_]:
    """Return where two arrays hold the same number, or both none; -0 is 0."""
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def describe(column: str, result: Float, found: Comparison, budget: float, call: str) -> tuple[str, ...]:
    """Return a sentence for each of the first wrong entries."""
    wrong = np.argwhere(found.wrong)
    failures = []
    for index in map(tuple, wrong[:NAMED].tolist()):
        where = f"{column}[{', '.join(map(str, index))}]" if index else column
        distance = found.distance[index]
        away = f" ({distance:.3g} ULP away; {budget:g} allowed)" if np.isfinite(distance) else ""
        failures.append(f"{where} is {result[index]!s}, but should be {found.rounded[index]!s}{away} {call}")
    if len(wrong) > NAMED:
        failures.append(f"{column}: {len(wrong) - NAMED} more of {result.size} {call}")
    return tuple(failures)


def context(case: Case) -> str:
    """Return the call that a sentence is about, in brackets."""
    spec = {name: value for name, value in case.spec.items() if name not in ("loss", "version")}
    fields = ", ".join(f"{name}={_short(value)}" for name, value in spec.items())
    flags = f" {'+'.join(case.flags)}" if case.flags else ""
    return f"[{case.spec.get('loss')}({fields}) on {case.logits.dtype}{list(case.logits.shape)}; case {case.id}{flags}]"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
