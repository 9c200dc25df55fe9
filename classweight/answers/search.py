"""The ways in which a batch can become a number: each native call, and each with one or two things gone otherwise.

A change that leaves the value as it was is none, and of several that give the same the first stands for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..spec import SoftmaxCrossEntropy
from .batch import Batch
from .evaluation import Evaluator, Point
from .native_calls import HABITS, Habit

SMOOTHINGS = (0.1, 0.05, 0.2, 0.01, 0.15, 0.3)
# Micro-batches by number, which is that of replicas too, and by size.
PIECES = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 64)
SIZES = (1, 2, 4, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500, 512, 1024, 2048, 4096)
CLIPS = (1e-7, 2.0**-23, 1e-8, 1e-12, 1e-15)
MAX_COST = 2
# Values that differ by less are one number.
SAME = 1e-11
Change = tuple[str, int, dict[str, Any]]
"""A text, what it costs, and the fields that it sets."""

REDUCTIONS = {
    "sum": "not divided: a sum",
    "mean_over_weights": "divided by the sum of the weights",
    "mean_over_valid": "divided by the number of rows that count",
    "mean_over_positions": "divided by the number of all rows",
    "mean_over_batch": "divided by the length of the batch alone",
    "mean_over_nonzero": "divided by the number of rows of weight other than 0",
    "sample weights": "divided by the sum of the sample weights",
    "given sample weights": "divided by the sum of the sample weights before they are broadcast",
    "smoothed weights": "divided by the weights of the smoothed targets",
    "elements": "divided by the number of rows times classes",
}
# What a native call cannot be given, and what it then does.
LACKING = {
    "targets": "the targets' argmax taken for labels",
    "class_weight": "class weights not applied: it takes none",
    "label_smoothing": "label smoothing not applied: it has none",
    "sample_weight": "sample weights not applied: it takes none",
}


@dataclass(frozen=True)
class Candidate:
    """A number, where it comes from, and what went otherwise than in the native call."""

    value: float
    point: Point
    habits: tuple[Habit, ...]
    changes: tuple[str, ...] = ()
    cost: int = 0


class Search:
    """All candidates of one batch; ``half`` says that the sum was made in float16."""

    def __init__(self, batch: Batch, half: bool = False) -> None:
        self.evaluator, self.half = Evaluator(batch), half
        self.batch = self.evaluator.batch
        p = self.batch.as_inputs("probs")
        self.underflows = bool((p.astype(np.float32) == 0).any())

    def candidates(self) -> Iterator[Candidate]:
        """Yield the native calls, then what comes of one change to them, then of two."""
        starts: dict[tuple[Point, tuple[str, ...]], list[Habit]] = {}
        for point, changes, habit in self._natives():
            starts.setdefault((point, changes), []).append(habit)
        for (point, changes), habits in starts.items():
            if len(changes) > MAX_COST:
                continue
            value = self.evaluator.value(point)
            yield from self._from(point, value, tuple(habits), changes, len(changes), [value])

    def _from(
        self,
        point: Point,
        value: float | None,
        habits: tuple[Habit, ...],
        changes: tuple[str, ...],
        cost: int,
        seen: list[float | None],
        after: int = -1,
    ) -> Iterator[Candidate]:
        """Yield the point and what comes of changing things that follow ``after``, so that no two orders are tried."""
        if value is not None:
            yield Candidate(value, point, habits, changes, cost)
        if cost == MAX_COST:
            return
        for place, alternatives in enumerate(self._alternatives(point)):
            if place <= after:
                continue
            known = list(seen)
            for text, price, fields in alternatives:
                other = point._replace(**fields)
                number = self.evaluator.value(other)
                if cost + price > MAX_COST or any(is_same(number, x) for x in known):
                    continue
                known.append(number)
                yield from self._from(other, number, habits, (*changes, text), cost + price, [*seen, number], place)

    def _natives(self) -> Iterator[tuple[Point, tuple[str, ...], Habit]]:
        """Yield the point of each native call, and what it lacks for this batch."""
        b = self.batch
        for habit in HABITS:
            lacks = habit.lacks(b)
            if habit.kind != b.kind or "mask" in lacks:
                continue
            spec = habit.spec(b)
            if isinstance(spec, SoftmaxCrossEntropy):
                try:
                    spec.class_weight_values(b.num_classes)
                except ValueError:  # a mapping that lacks a class, which not every call fills in
                    continue
                own, renormalize, average = spec.ignore_index, spec.renormalize, False
            else:
                own, renormalize, average = spec.ignore_label, None, spec.average_outputs
            weighted, indexed = b.class_weight is not None, b.hard or b.kind == "sigmoid"
            label = own if b.ignore_index is None else b.ignore_index
            point = Point(
                given=spec.inputs,
                taken_for=spec.inputs,
                weighting=spec.weighting if weighted else "term",
                reduction=spec.reduction,
                clip=spec.clip,  # type: ignore[arg-type]
                renormalize=renormalize,
                smoothing=spec.label_smoothing,
                targets="argmax" if "targets" in lacks else "given",
                class_weight="none" if weighted and {"class_weight"} & {*lacks, *habit.drops} else "given",
                sample_weight="none" if "sample_weight" in lacks else "given",
                ignoring=("ignore", label if indexed and (b.targets == label).any() else None),
                average_outputs=average,
                zero=spec.zero_denominator,
            )
            yield point, tuple(LACKING[name] for name in lacks), habit

    def _alternatives(self, point: Point) -> list[list[Change]]:
        """Return what could have been done otherwise, one list a thing; each thing comes before those it decides."""
        reductions = [(text, 1, {"reduction": name}) for name, text in REDUCTIONS.items() if name != point.reduction]
        return [
            list(self._arithmetic()),
            [(f"the logarithm to base {base}", 2, {"base": base}) for base in ("2", "10")],
            list(self._class_weights(point)),
            list(self._sample_weights(point)),
            list(self._targets(point)),
            list(self._smoothings(point)),
            list(self._weightings(point)),
            list(self._readings(point)),
            list(self._ignorings(point)),
            reductions,
            self._pieces,
        ]

    def _arithmetic(self) -> Iterator[Change]:
        scores = self.batch.scores
        if not np.isfinite(scores).all() or (self.batch.inputs == "probs" and (scores == 0).any()):
            yield "0 times infinity or NaN computed as it stands", 1, {"arithmetic": "naive"}
        if self.half:
            yield "the sum overflows float16, whose largest number is 65504", 1, {"arithmetic": "half"}

    def _smoothings(self, point: Point) -> Iterator[Change]:
        given, b = self.batch.label_smoothing, self.batch
        if point.smoothing:
            yield "label smoothing not applied", 1, {"smoothing": 0.0}
        for e in dict.fromkeys((given, *SMOOTHINGS)):
            if e and e != point.smoothing:
                yield f"label_smoothing={e:g}", 1, {"smoothing": e}
        # The axis that was last when the batch was handed in.
        last = b.num_classes if b.axis in (-1, b.scores.ndim - 1) else int(b.scores.shape[-1])
        if b.kind == "softmax" and point.smoothing and last != b.num_classes:
            text = f"smoothing spread by 1/{last}, the length of the last axis, not 1/{b.num_classes}"
            yield text, 1, {"spread": last}

    def _targets(self, point: Point) -> Iterator[Change]:
        if self.batch.kind == "softmax" and not self.batch.hard and point.targets == "given":
            yield LACKING["targets"], 1, {"targets": "argmax"}

    def _weightings(self, point: Point) -> Iterator[Change]:
        entered = {"label": "by the label", "term": "inside the sum over classes", "expected": "outside that sum"}
        if self.batch.class_weight is None:
            return
        for name, text in entered.items():
            if name != point.weighting and (name != "expected" or self.batch.kind == "softmax"):
                yield f"class weights enter {text}", 1, {"weighting": name}

    def _class_weights(self, point: Point) -> Iterator[Change]:
        texts = {"none": "not applied", "given": "applied", "squared": "applied twice"}
        if self.batch.sample_weight is not None and self.batch.sample_weight.dtype.kind in "iu":
            texts["truncated"] = "truncated to integers, the type of the sample weights"
        for name, text in texts.items():
            if self.batch.class_weight is not None and name != point.class_weight:
                yield f"class weights {text}", 1, {"class_weight": name}

    def _sample_weights(self, point: Point) -> Iterator[Change]:
        weight, positions = self.batch.sample_weight, self.batch.position_shape
        texts = {"none": "not applied", "given": "applied"}
        if weight is not None and len(positions) == 2 and weight.shape == positions[1:]:
            texts["steps"] = "applied to time steps, not to samples"
        for name, text in texts.items():
            if weight is not None and name != point.sample_weight:
                yield f"sample weights {text}", 1, {"sample_weight": name}

    def _readings(self, point: Point) -> Iterator[Change]:
        squash, inputs = "softmax" if self.batch.kind == "softmax" else "sigmoid", self.batch.inputs
        if point.given != point.taken_for:
            return

        def reading(given: str, taken_for: str, clip: float | None = None, renormalize: str | None = None) -> Any:
            return {"given": given, "taken_for": taken_for, "clip": clip, "renormalize": renormalize}

        yield f"{squash} applied twice: probabilities taken for logits", 1, reading("probs", "logits")
        if self.batch.kind == "softmax":
            yield "probabilities taken for log-probabilities: no logarithm", 1, reading("probs", "log_probs")
            if inputs == "logits":
                yield "logits taken for log-probabilities: no log_softmax", 1, reading("logits", "log_probs")
        if inputs == "logits":
            for renormalize in ("after", "before") if self.batch.kind == "softmax" else (None,):
                text = "logits taken for probabilities: from_logits=True is missing"
                yield text, 1, reading("logits", "probs", 1e-7, renormalize)
        for clip in CLIPS:
            yield f"probabilities clipped to [{clip:.3g}, 1 - {clip:.3g}]", 1, reading("probs", "probs", clip)
        yield "probabilities not clipped", 1, reading("probs", "probs")
        for limit in (64, 100):
            yield f"-log of a probability not above {limit}", 1, reading("probs", f"probs to {limit}")
        if self.underflows:
            yield "a softmax that underflows to 0 in float32", 1, reading("probs", "float32 probs")

    def _ignorings(self, point: Point) -> Iterator[Change]:
        b, (_, ignored) = self.batch, point.ignoring
        if b.mask is not None:
            yield "the mask not applied: padding counts", 1, {"ignoring": ("unmasked", ignored)}
        if not b.hard or not b.targets.size:
            return
        if ignored is not None and 0 <= ignored < b.num_classes:
            yield f"label {ignored} not ignored", 1, {"ignoring": ("ignore", None)}
        outside = self._labels_outside
        for label in dict.fromkeys((*outside, 0, b.num_classes - 1)):
            if label != ignored:
                yield f"label {label} ignored", 1, {"ignoring": ("ignore", label)}
            if label in outside:
                yield f"label {label} adds 0 and is counted", 1, {"ignoring": ("count", label)}
        if any(label != ignored for label in outside):
            yield "labels that are no class clipped into range", 1, {"ignoring": ("clip", ignored)}
            yield "negative labels counted from the last class", 1, {"ignoring": ("wrap", ignored)}
            yield "the row of a label that is no class is NaN", 1, {"ignoring": ("nan", ignored)}

    @cached_property
    def _labels_outside(self) -> list[int]:
        labels = np.unique(self.batch.targets)
        return [int(x) for x in labels[(labels < 0) | (labels >= self.batch.num_classes)][:4]]

    @cached_property
    def _pieces(self) -> list[Change]:
        """Return means of means: over micro-batches, of the usual sizes or so many, and over replicas."""
        n, found = self.evaluator.size, []
        for each in sorted({*SIZES, *(-(-n // k) for k in PIECES)} if n > 1 else ()):
            if each < n:
                count = -(-n // each)
                what = (
                    f"{count} micro-batches of {each}"
                    if n % each == 0
                    else f"micro-batches of {each}, the last of {n % each}"
                )
                text = f"the mean of the means of {what}" if each > 1 else "the mean of each sample's own mean"
                found.append((text, 1, {"pieces": ("contiguous", each)}))
                if each > 1:
                    text = f"the sum of the means of {what}, not divided by their number"
                    found.append((text, 1, {"pieces": ("added", each)}))
        for k in PIECES:
            if k < n:
                text = f"the mean of the means of {k} replicas that take samples in turn"
                found.append((text, 1, {"pieces": ("strided", k)}))
        return found


def is_same(x: float | None, y: float | None) -> bool:
    """Whether two values are one number; NaN is, and so is no number."""
    if x is None or y is None:
        return x is y
    return x == y or (x != x and y != y) or abs(x - y) <= SAME * min(abs(x), abs(y))
