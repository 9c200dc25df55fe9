"""A way to make a number of a batch, and the number: the definition of the reference, and what goes wrong around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..reference import sigmoid_terms, softmax_terms
from ..spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from .batch import Array, Batch, log_softmax

HALF_MAX = 65504.0
BASES = {"e": 1.0, "2": np.log(2), "10": np.log(10)}


class Point(NamedTuple):
    """One way to make a number of a batch; each field is what one thing was done with."""

    given: str
    """What the scores were turned into."""
    taken_for: str
    """What the loss took that for; with `clip` and `renormalize` as in a spec."""
    weighting: str
    reduction: str
    """A spec's, or a name of `Evaluator`'s own."""
    clip: float | None = None
    renormalize: str | None = None
    smoothing: float = 0.0
    spread: int = 0
    """What the smoothing is divided by, where not the number of classes."""
    targets: str = "given"
    class_weight: str = "given"
    sample_weight: str = "given"
    ignoring: tuple[str, int | None] = ("ignore", None)
    average_outputs: bool = False
    arithmetic: str = ""
    zero: str = "zero"
    pieces: tuple[str, int] = ("", 1)
    """"strided" over so many replicas; "contiguous", or "added", over micro-batches of a size."""
    base: str = "e"

    @property
    def rows(self) -> Point:
        """The same point as far as it decides the losses and weights of rows."""
        return self._replace(reduction="sum", zero="zero", pieces=("", 1), base="e")


@dataclass(frozen=True)
class Rows:
    """Sums over all but the batch axis: of the weighted losses, and by name of what they may be divided by."""

    losses: Array
    divisors: dict[str, Array]


class Evaluator:
    """The numbers of one batch."""

    def __init__(self, batch: Batch) -> None:
        b = batch
        if b.scores.ndim == 1:
            b = replace(b, scores=b.scores[None], targets=b.targets[None])
        self.batch, positions = b, b.position_shape
        last = b.scores.ndim - 1
        self.targets = b.targets if b.hard else np.moveaxis(b.targets, b.class_axis, last).astype(np.float64)
        self.size = positions[0] if positions else 1
        w = b.class_weight
        if b.kind == "softmax" and w is not None:
            spec = SoftmaxCrossEntropy(class_weight=w, missing_class_weight=1.0)
            w = np.array(spec.class_weight_values(b.num_classes))
        elif w is not None:
            w = tuple(np.asarray(each, np.float64) for each in SigmoidCrossEntropy(class_weight=w).class_weight)
        self.class_weight = w
        self._rows: dict[Point, Rows | None] = {}
        self._values: dict[Point, float | None] = {}
        self._losses: dict[Any, Any] = {}

    def value(self, point: Point) -> float | None:
        """Return the number, or None where the point has none: a label that is no class, weights that are not there."""
        if point not in self._values:
            rows_of = point.rows
            with np.errstate(all="ignore"):
                if rows_of not in self._rows:
                    self._rows[rows_of] = self._make_rows(point)
                rows = self._rows[rows_of]
                self._values[point] = None if rows is None else self._reduced(rows, point)
        return self._values[point]

    def _reduced(self, rows: Rows, point: Point) -> float | None:
        divisor = None if point.reduction == "sum" else rows.divisors.get(point.reduction)
        if divisor is None and point.reduction != "sum":
            return None
        how, n = point.pieces
        if how:
            steps = np.arange(self.size)
            owner = steps % n if how == "strided" else steps // n
            total = np.bincount(owner, rows.losses)
            below = None if divisor is None else np.bincount(owner, divisor)
        else:
            total = rows.losses.sum(keepdims=True)
            below = None if divisor is None else divisor.sum(keepdims=True)
        if point.arithmetic == "half" and abs(total).max(initial=0) > HALF_MAX:
            return float(np.copysign(np.inf, total[abs(total).argmax()]))
        empty = np.nan if point.zero == "nan" else 0.0
        each = total if below is None else np.where(below == 0, empty, total / below)
        return float(each.sum() / (1 if how == "added" else len(each)) / BASES[point.base])

    def _make_rows(self, point: Point) -> Rows | None:
        b = self.batch
        mode, ignored = point.ignoring
        targets, valid, s = self.targets, np.ones(b.position_shape, bool), None
        if b.mask is not None and mode != "unmasked":
            valid = valid & _spread(b.mask, b.position_shape)
        if b.sample_weight is not None and point.sample_weight == "given":
            s = _spread(b.sample_weight, b.position_shape)
        elif b.sample_weight is not None and point.sample_weight == "steps":
            s = np.broadcast_to(b.sample_weight, b.position_shape)
        if b.hard or b.kind == "sigmoid":
            taken_out = targets == ignored if ignored is not None else np.zeros(targets.shape, bool)
            if mode == "count":
                s = np.where(taken_out, 0.0, 1.0 if s is None else s)
            else:
                valid = valid & ~taken_out
            targets = np.where(taken_out | ~valid, 0, targets)
        if b.hard:
            if mode == "clip":
                targets = targets.clip(0, b.num_classes - 1)
            elif mode == "wrap":
                targets = np.where(targets < 0, targets + b.num_classes, targets)
            elif mode == "nan":
                outside = (targets < 0) | (targets >= b.num_classes)
                targets, s = np.where(outside, 0, targets), np.where(outside, np.nan, 1.0 if s is None else s)
            if targets.size and not (targets.min() >= 0 and targets.max() < b.num_classes):
                return None
        elif point.targets == "argmax":
            targets = targets.argmax(-1)
        w = None if point.class_weight == "none" else self.class_weight
        if w is not None and point.class_weight != "given":
            change = np.square if point.class_weight == "squared" else np.trunc
            w = change(w) if b.kind == "softmax" else tuple(map(change, w))
        return (
            self._sigmoid_rows(point, targets, s, w, valid)
            if b.kind == "sigmoid"
            else self._softmax_rows(point, targets, s, w, valid)
        )

    def _softmax_rows(self, point: Point, t: Array, s: Any, w: Any, valid: Array) -> Rows:
        b = self.batch
        losses, smoothing = self._negative_log(point), point.smoothing
        if point.spread:
            hot = t if t.ndim == losses.ndim else np.eye(b.num_classes)[t]
            t, smoothing = (1 - smoothing) * hot + smoothing / point.spread, 0.0
        spec = SoftmaxCrossEntropy(weighting=point.weighting, label_smoothing=smoothing)  # type: ignore[arg-type]
        hard = t.ndim < losses.ndim
        a, weights, valid = softmax_terms(spec, losses, t, hard, s, w, valid)
        rows = (a * losses if point.arithmetic == "naive" else a * np.where(a == 0, 0.0, losses)).sum(-1)
        extra = {"elements": np.full(rows.shape, b.num_classes)}
        if smoothing and w is not None:
            extra["smoothed weights"] = (1 - smoothing) * weights + smoothing * w.mean() * valid * (
                1 if s is None else s
            )
        return self._summed(rows, weights, valid, s, extra)

    def _sigmoid_rows(self, point: Point, t: Array, s: Any, w: Any, valid: Array) -> Rows:
        pos_loss, neg_loss = self._negative_log(point)
        spec = SigmoidCrossEntropy(weighting=point.weighting, label_smoothing=point.smoothing)  # type: ignore[arg-type]
        pos, neg, weights, valid = sigmoid_terms(spec, pos_loss, t, s, w, valid)
        if point.arithmetic != "naive":
            pos_loss, neg_loss = np.where(pos == 0, 0.0, pos_loss), np.where(neg == 0, 0.0, neg_loss)
        rows, extra = pos * pos_loss + neg * neg_loss, {"elements": np.ones(t.shape)}
        if point.average_outputs:
            rows, weights, valid = rows.mean(-1), weights.mean(-1), np.asarray(valid.any(-1))
            s = None if s is None else s.mean(-1)
        return self._summed(rows, weights, valid, s, extra)

    def _summed(self, rows: Array, weights: Array, valid: Array, s: Any, extra: dict[str, Array]) -> Rows:
        divisors: dict[str, Array] = {
            "mean_over_weights": weights,
            "mean_over_valid": valid,
            "mean_over_positions": np.ones(rows.shape),
            "mean_over_batch": np.full(rows.shape, self.size / max(rows.size, 1)),
            "mean_over_nonzero": weights != 0,
            **extra,
        }
        if s is not None and self.batch.sample_weight is not None:
            given = np.asarray(self.batch.sample_weight, np.float64).sum()
            divisors["sample weights"] = valid * s
            divisors["given sample weights"] = np.full(rows.shape, given / max(rows.size, 1))

        def per_sample(x: Array) -> Array:
            return np.asarray(x.astype(np.float64).sum(tuple(range(1, x.ndim))))

        return Rows(per_sample(rows), {name: per_sample(x) for name, x in divisors.items()})

    def _negative_log(self, point: Point) -> Any:
        """Return -log q of every class, or of a positive and a negative label, the class axis last."""
        key = (point.given, point.taken_for, point.clip, point.renormalize)
        if key not in self._losses:
            b = self.batch
            x = np.moveaxis(b.as_inputs(point.given), b.class_axis, -1)  # type: ignore[arg-type]
            make = self._softmax_losses if b.kind == "softmax" else self._sigmoid_losses
            self._losses[key] = make(point, x)
        return self._losses[key]

    @staticmethod
    def _softmax_losses(point: Point, x: Array) -> Array:
        if point.taken_for == "logits":
            return -log_softmax(x, -1)
        if point.taken_for == "log_probs":
            return -x
        if point.renormalize == "before":
            x = x / x.sum(-1, keepdims=True)
        if point.clip is not None:
            x = x.clip(point.clip, 1 - point.clip)
        if point.renormalize == "after":
            x = x / x.sum(-1, keepdims=True)
        return _minus_log(point, x)

    @staticmethod
    def _sigmoid_losses(point: Point, x: Array) -> tuple[Array, Array]:
        if point.taken_for == "logits":
            return np.logaddexp(0.0, -x), np.logaddexp(0.0, x)
        if point.taken_for == "log_probs":
            return -x, -np.log(-np.expm1(x))
        if point.clip is not None:
            x = x.clip(point.clip, 1 - point.clip)
        return _minus_log(point, x), _minus_log(point, 1 - x)


def _minus_log(point: Point, p: Array) -> Array:
    if point.taken_for == "float32 probs":
        p = p.astype(np.float32)
    losses = -np.log(p)
    _, _, limit = point.taken_for.partition(" to ")
    return np.minimum(losses, float(limit)) if limit else losses


def _spread(x: Any, shape: tuple[int, ...]) -> Array:
    x = np.asarray(x)
    return np.broadcast_to(x.reshape(x.shape + (1,) * (len(shape) - x.ndim)), shape)
