"""The way back: from a number that some framework printed to the convention, and the arguments, that make it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from ..errors import refuse
from ..spec import _choice
from .batch import Batch, make_batch
from .compare import describe
from .evaluation import Point
from .native_calls import HABITS, formula
from .search import MAX_COST, SAME, Candidate, Search, is_same

__all__ = ["Identification", "Match", "identify"]

# What arithmetic in a type may be off by, relatively: a few of its roundings.
ROUNDING = {"float64": 2.0**-48, "float32": 2.0**-22, "float16": 2.0**-9, "bfloat16": 2.0**-6}
HALF = ("float16", "bfloat16")
# A float32 printed in full has up to nine digits.
FLOAT32_DIGITS = 9
# From this many matches by chance on, the simplest explanation is no evidence.
TOO_MANY = 0.5
SHOWN, FURTHER = 6, 3
HEADINGS = ("by a native call as it is", "by a native call with one change", "by a native call with two changes")

# What would tell two explanations apart, by the field in which they differ.
TELLING = {
    "weighting": "soft targets or label smoothing",
    "smoothing": "a batch of other logits",
    "targets": "a batch of other targets",
    "class_weight": "other class weights",
    "sample_weight": "other sample weights",
    "ignoring": "other labels to ignore",
    "pieces": "a batch of another size",
    "base": "a batch of other logits",
    "clip": "a row whose loss is above 16.2, where clipped probabilities end",
    "mean_over_weights": "unequal weights",
    "mean_over_valid": "an ignored row",
    "mean_over_positions": "an ignored row",
    "mean_over_batch": "targets with a further axis, of time or pixels",
    "mean_over_nonzero": "a row of weight 0",
    "sum": "a batch of more rows",
}


@dataclass(frozen=True)
class Loss:
    """The number as it was printed: what it stands for, from ``low`` to ``high``."""

    text: str
    value: float
    low: float
    high: float
    digits: int = 1
    dtype: str = "float32"

    def holds(self, value: float) -> bool:
        """Whether a value rounds to the digits given."""
        if math.isfinite(self.value):
            return self.low <= value <= self.high
        return is_same(self.value, value)

    def distance(self, value: float) -> float:
        """Return by what part a value is off."""
        if not (math.isfinite(value) and math.isfinite(self.value)):
            return 0.0 if is_same(value, self.value) else math.inf
        return abs(value - self.value) / max(abs(self.value), 1e-300)


@dataclass(frozen=True)
class Match:
    """One explanation: the native calls that give ``value`` after the same changes, of which there may be none."""

    value: float
    calls: tuple[str, ...]
    formulas: tuple[str, ...]
    changes: tuple[str, ...]
    cost: int
    off: float
    points: frozenset[Point]


@dataclass(frozen=True)
class Identification:
    """What was found; printed, it is an answer in words.

    ``matches`` round to the digits given, those of the fewest changes first; ``nearest`` do not. ``others`` are native
    calls that give another number, and what makes it this one. ``by_chance`` is how many matches as simple as the first
    one to expect for a number that has nothing to do with the batch.
    """

    batch: str
    loss: Loss
    matches: tuple[Match, ...]
    others: tuple[Match, ...]
    nearest: tuple[Match, ...]
    tried: int
    by_chance: float | None

    @property
    def best(self) -> tuple[Match, ...]:
        """The matches with the fewest changes."""
        return tuple(match for match in self.matches if match.cost == self.matches[0].cost)

    @property
    def told_apart_by(self) -> tuple[str, ...]:
        """What would tell the best matches apart, where there are several."""
        points = [point for match in self.best for point in match.points]
        values: list[float] = []
        for match in self.best:
            values += [] if any(is_same(match.value, x) for x in values) else [match.value]
        found = []
        if len(values) > 1:
            found.append(f"more digits ({', '.join(f'{x:.9g}' for x in sorted(values)[:4])})")
        for name in Point._fields:
            differing = {getattr(point, name) for point in points}
            if len(differing) > 1:
                found += [TELLING.get(x, "unequal weights") for x in sorted(differing)] if name == "reduction" else []
                found += [TELLING[name]] if name in TELLING else []
        return tuple(dict.fromkeys(found))[:SHOWN]

    def to_text(self) -> str:
        """Return the answer for a terminal."""
        given = self.loss.text
        if math.isfinite(self.loss.value):
            digits = min(self.loss.digits + 1, 17)
            given += f", that is from {self.loss.low:.{digits}g} to {self.loss.high:.{digits}g}"
            given += f" as {self.loss.dtype} rounds" if self.loss.dtype in HALF else ""
        lines = [self.batch, f"loss {given}; {self.tried} different numbers tried", ""]
        if not self.matches:
            lines += ["No convention gives this number for this batch, nor does any with two changes. The nearest:"]
            return "\n".join([*lines, *self._listed(self.nearest)])
        best, rest = self.best, self.matches[len(self.best) :]
        lines += [f"Exactly, {HEADINGS[best[0].cost]}:", *self._listed(best[:SHOWN])]
        if len(best) > SHOWN:
            lines.append(f"  and {len(best) - SHOWN} more, all of them in the JSON")
        if telling := self.told_apart_by:
            lines += ["", *_wrapped(f"This batch cannot tell these apart; what would: {'; '.join(telling)}.")]
        lines += self._chance()
        for title, matches in (("The same number from other calls", self.others), ("Less simple, but exact too", rest)):
            if matches:
                lines += ["", f"{title}:", *self._listed(matches[:FURTHER])]
            if len(matches) > FURTHER:
                lines.append(f"  and {len(matches) - FURTHER} more, all of them in the JSON")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything, safe for JSON."""

        def plain(match: Match) -> dict[str, Any]:
            value = match.value if math.isfinite(match.value) else str(match.value)
            off = match.off if math.isfinite(match.off) else str(match.off)
            return {
                "value": value,
                "calls": list(match.calls),
                "formulas": list(match.formulas),
                "changes": list(match.changes),
                "relative_difference": off,
            }

        return {
            "batch": self.batch,
            "loss": self.loss.text,
            "tried": self.tried,
            "expected_by_chance": self.by_chance,
            "matches": [plain(match) for match in self.matches],
            "told_apart_by": list(self.told_apart_by),
            "others": [plain(match) for match in self.others],
            "nearest": [plain(match) for match in self.nearest],
        }

    __str__ = to_text

    def _chance(self) -> list[str]:
        if self.by_chance is None:
            return []
        if self.by_chance >= TOO_MANY:
            return ["", f"Too few digits: any such number has about {self.by_chance:.1f} explanations as simple."]
        return ["", f"A number of another origin would fit one as simple with a chance of {_percent(self.by_chance)}."]

    def _listed(self, matches: Iterable[Match]) -> list[str]:
        lines = []
        for match in matches:
            off = "" if self.loss.holds(match.value) else f", off by {_percent(match.off)}"
            lines.append(f"  {match.value:.9g}{off}")
            if match.changes:
                lines += [f"    {change}" for change in match.changes]
                names = dict.fromkeys(call.removeprefix("mean of ").partition("(")[0] for call in match.calls)
                lines += _wrapped(", ".join(names), "      ")
            else:
                lines += [f"    {text}" for text in match.formulas]
                lines += [f"      {call}" for call in match.calls]
        return lines


def identify(
    loss: Any,
    logits: Any,
    targets: Any,
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    axis: int | None = None,
    kind: str | None = None,
    inputs: str = "logits",
    dtype: str | None = None,
) -> Identification:
    """Name the convention, and the arguments, that produce a number from a batch.

    Each native call in `classweight.conventions` is tried as it is, and with one or two things gone otherwise: another
    reduction; class weights inside the sum over classes, outside it or by the label, dropped or applied twice; sample
    weights or smoothing dropped, or another smoothing; labels ignored or not, padding counted; an argmax of soft
    targets; probabilities taken for logits and the reverse, and clipped; means of micro-batches and of replicas; a
    logarithm to another base.

    Parameters
    ----------
    loss : str, float, or scalar array or tensor
        The number, best as the text that was printed: "0.5098" is any number that rounds to these digits. A float32 or
        half value is held to the rounding of its type.
    logits, targets, class_weight, sample_weight, mask, label_smoothing, ignore_index, axis, kind, inputs
        The batch and what the framework was given with it, as in `classweight.compare`.
    dtype : "float16", "bfloat16", "float32" or "float64", optional
        What the framework computed in. Without it: the type of ``loss`` or of half logits; for a text, float32 unless
        it has more digits than a float32.

    Returns
    -------
    Identification
        ``print`` shows the answer; ``matches``, ``nearest``, ``to_json()``.

    Raises
    ------
    ValueError, TypeError
        A loss that is no number, or arrays that fit no loss at all.

    Examples
    --------
    >>> import classweight
    >>> answer = classweight.identify("0.2849", [[2.0, -1.0], [0.0, 1.0]], [0, 1], class_weight=[1, 3])
    >>> answer.matches
    ()
    >>> answer = classweight.identify("0.4942", [[2.0, -1.0], [0.0, 1.0]], [0, 1], class_weight=[1, 3])
    >>> answer.best[0].calls[0]
    'torch.cross_entropy(soft_targets=True, weight=w)'
    """
    batch = make_batch(
        logits,
        targets,
        inputs=inputs,
        class_weight=class_weight,
        sample_weight=sample_weight,
        mask=mask,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        axis=axis,
        kind=kind,
    )
    return identify_batch(loss, batch, dtype)


def identify_batch(loss: Any, batch: Batch, dtype: str | None = None) -> Identification:
    """Do what `identify` does, for a batch."""
    read = read_loss(loss, batch, dtype)
    candidates = list(Search(batch, half=read.dtype == "float16").candidates())
    fitting = _merged([c for c in candidates if read.holds(c.value)], read, batch)
    exact = [m for m in fitting if not any(is_same(m.value, x.value) and x.cost < m.cost for x in fitting)]
    others = _of_others([m for m in fitting if exact[0].cost == 0 and m.cost == 1 and m not in exact], exact)
    nearest: list[Match] = []
    for cost in range(MAX_COST + 1) if not exact else ():
        near = sorted((c for c in candidates if c.cost == cost), key=lambda c: read.distance(c.value))[:40]
        near = [c for c in near if math.isfinite(c.value) and not any(is_same(c.value, m.value) for m in nearest)]
        nearest += _merged(near, read, batch, by_distance=True)[:2]
    simple = [c.value for c in candidates if not exact or c.cost <= exact[0].cost]
    chance, tried = _by_chance(read, _distinct(simple)), len(_distinct([c.value for c in candidates]))
    return Identification(describe(batch), read, tuple(exact), tuple(others), tuple(nearest), tried, chance)


def read_loss(loss: Any, batch: Batch, dtype: str | None = None) -> Loss:
    """Return what a printed number stands for."""
    _choice("dtype", dtype, (None, *ROUNDING))
    if dtype is None and np.dtype(batch.dtype).itemsize == 2:
        dtype = np.dtype(batch.dtype).name
    own = str(getattr(loss, "dtype", "")).rpartition(".")[2]
    if hasattr(loss, "item"):
        try:
            loss, dtype = loss.item(), dtype or (own if own in ROUNDING else None)
        except (RuntimeError, ValueError):
            refuse("loss", "be one number", f"shape {tuple(loss.shape)}")
    text = loss.strip() if isinstance(loss, str) else repr(loss)
    try:
        if isinstance(loss, bool):
            raise InvalidOperation
        number = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        refuse("loss", "be a number, best as the text that was printed", repr(loss))
    value, (_, digits, exponent) = float(number), number.as_tuple()
    if not isinstance(exponent, int) or not math.isfinite(value):
        return Loss(text, value, value, value, dtype=dtype or "float32")
    is_float32 = len(digits) <= FLOAT32_DIGITS or float(np.float32(value)) == value
    dtype = dtype or ("float32" if is_float32 else "float64")
    # A scalar of an array library, or a number with all its digits, was not rounded for printing.
    is_whole = own in ROUNDING or (is_float32 and len(digits) > FLOAT32_DIGITS)
    off = 0.0 if is_whole else 0.5 * 10.0**exponent
    off += ROUNDING[dtype] * abs(value)
    if dtype in HALF and np.isfinite(batch.scores).any():
        # log-sum-exp minus a logit keeps the rounding of the larger.
        off += ROUNDING[dtype] / 2 * float(np.abs(batch.scores[np.isfinite(batch.scores)]).max())
    return Loss(text, value, value - off, value + off, len(digits), dtype)


def _merged(candidates: Iterable[Candidate], loss: Loss, batch: Batch, by_distance: bool = False) -> list[Match]:
    """Return one match for all candidates of the same value and changes, the simplest first."""
    found: dict[tuple[str, ...], list[list[Candidate]]] = {}
    for candidate in candidates:
        groups = found.setdefault(candidate.changes, [])
        group = next((g for g in groups if is_same(g[0].value, candidate.value)), None)
        groups.append([candidate]) if group is None else group.append(candidate)
    everything = [_match(group, loss, batch) for groups in found.values() for group in groups]
    return sorted(everything, key=lambda m: (m.cost, m.off if by_distance else -len(m.calls), m.changes))


def _of_others(matches: list[Match], exact: list[Match]) -> list[Match]:
    """Return the matches of functions that do not give the number as they are, by an option of theirs."""

    def function(call: str) -> tuple[str, bool]:
        return call.partition("(")[0], "soft_targets" in call

    known = {function(call) for match in exact if not match.cost for call in match.calls}
    left = [replace(m, calls=tuple(call for call in m.calls if function(call) not in known)) for m in matches]
    return [match for match in left if match.calls]


def _match(group: list[Candidate], loss: Loss, batch: Batch) -> Match:
    first, habits = group[0], sorted((h for c in group for h in c.habits), key=HABITS.index)
    formulas = dict.fromkeys(formula(habit.spec(batch), batch) for habit in habits) if not first.changes else ()
    calls = dict.fromkeys(habit.text(batch) for habit in habits)
    points = frozenset(candidate.point for candidate in group)
    off = loss.distance(first.value)
    return Match(first.value, tuple(calls), tuple(formulas), first.changes, first.cost, off, points)


def _distinct(values: list[float]) -> Any:
    """Return the different finite numbers among the values."""
    found = np.sort([x for x in values if math.isfinite(x)])
    return found[np.append(True, np.diff(found) > SAME * np.abs(found[1:]))] if found.size else found


def _by_chance(loss: Loss, values: Any) -> float | None:
    """Return how many values to expect in the interval, from how densely they lie around it; None for no interval."""
    low, high = sorted((abs(loss.low), abs(loss.high)))
    if not low < high:
        return None
    if loss.low * loss.high <= 0:
        return float(np.count_nonzero((np.abs(values) < 4 * high) & (np.abs(values) > high)) / 3)
    values = values * math.copysign(1, loss.value)
    around = (values > low / 2) & (values < high * 2) & ((values < low) | (values > high))
    return float((1 + np.count_nonzero(around)) * math.log(high / low) / math.log(4))


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, 116, initial_indent=indent, subsequent_indent=indent)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share >= 1e-5 else "less than 0.001%"
