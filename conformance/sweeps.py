"""Large random batches, each a seed instead of numbers, judged against double-double arithmetic.

A sweep is one batch of one kind of logits, targets and type, run in both precisions. Whatever the seed draws beside:
class weights and sample weights with zeros among them, ignored and masked rows, a reduction, an upstream gradient. The
kind "signed" has weights of either sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .budgets import budgets
from .cases import Case, Exact, TypedArray
from .doubledouble import DoubleDouble, exp, log1p
from .floats import Float

KINDS = ("normal", "wide", "confident", "offset", "signed")
TARGETS = ("hard", "smoothed", "soft", "unnormalised", "binary", "binary-soft")
DTYPES = ("float32", "float16", "bfloat16")
CLASSES = (2, 3, 10, 100, 1000, 20011)
# A batch whose double-double arrays stay in the cache.
LARGEST_BATCH = 1 << 17
# Of what is computed piece by piece, batches of several pieces: rows of so many classes, and a binary batch of so many
# logits. Beside a plan of fewer logits they would be most of it.
MANY_CLASSES, MANY_LOGITS, ENOUGH = 5003, (1 << 18) + 1000, 20_000
SMOOTHING = 0.1
# Where exp is below what any of the types can hold.
NOTHING = -300.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What makes one batch."""

    seed: int
    kind: str
    targets: str
    dtype: str
    elements: int
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as float64 arrays of exact values; ``w`` is a class's weight, or the pair of a binary loss."""

    z: Float
    t: Any
    w: Float
    s: Float
    mask: Any
    reduction: str
    upstream: Float


@dataclass(frozen=True, slots=True)
class Truth:
    """Loss and gradient, and what their errors are measured against.

    ``of_loss`` is the sum of absolute terms, as for the gradient are ``whole``, of a row's coefficients, and ``parts``,
    of an entry's terms; ``of_number`` is for an entry that is one term, and knows what cancels in a denominator.
    """

    loss: DoubleDouble
    gradient: DoubleDouble
    of_loss: Float
    whole: Float
    parts: Float
    of_number: Float


def plan(elements: int) -> Iterator[Sweep]:
    """Yield sweeps of about this many logits: every kind, targets and type in turn; then those that are in pieces."""
    kinds = [(kind, targets, dtype) for targets in TARGETS for kind in KINDS for dtype in DTYPES]
    size = min(LARGEST_BATCH, max(1, elements // len(kinds)))
    for seed in range(-(-elements // size)):
        yield Sweep(seed, *kinds[seed % len(kinds)], size)
    if elements >= ENOUGH:
        yield from in_pieces()


def in_pieces() -> Iterator[Sweep]:
    """Yield a sweep of many classes of each targets and type, and one of a large binary batch."""
    several = [(targets, dtype) for targets in TARGETS if not targets.startswith("binary") for dtype in DTYPES]
    for i, (targets, dtype) in enumerate(several):
        yield Sweep(10**9 + i, KINDS[i % len(KINDS)], targets, dtype, 3 * MANY_CLASSES, MANY_CLASSES)
    yield Sweep(2 * 10**9 + 5, "normal", "binary", "float32", MANY_LOGITS)  # a mean over weights


def cases(sweep: Sweep) -> tuple[Case, Case]:
    """Return the sweep's batch as two cases, in exact and in native precision."""
    batch = _draw(sweep)
    binary = sweep.targets.startswith("binary")
    found = (_binary if binary else _softmax)(sweep, batch)
    signed, cancels = sweep.kind == "signed", sweep.targets not in ("hard", "binary")
    budget = budgets(batch.z, sweep.dtype, softmax=not binary)
    made = []
    for precision in ("exact", "native"):
        magnitude = found.of_number if signed else None
        if cancels:
            magnitude = found.whole if precision == "exact" else found.parts
        rule = "budget" if precision == "native" else "exact" if cancels or signed else "rounded"
        spec: dict[str, Any] = {
            "loss": "SigmoidCrossEntropy" if binary else "SoftmaxCrossEntropy",
            "version": 1,
            "precision": precision,
            "reduction": batch.reduction,
        }
        weights: Any = TypedArray("float64", batch.w)
        if binary:
            weights = (TypedArray("float64", batch.w[0]), TypedArray("float64", batch.w[1]))
            spec["ignore_label"] = -1
        elif sweep.targets in ("hard", "smoothed"):
            spec["ignore_index"] = -100
        if sweep.targets == "smoothed":
            spec["label_smoothing"] = SMOOTHING
        made.append(
            Case(
                f"sweep-{sweep.seed}-{sweep.kind}-{sweep.targets}-{sweep.dtype}-{precision}",
                "sweeps",
                spec,
                TypedArray(sweep.dtype, batch.z),
                TypedArray("int64" if batch.t.dtype == np.int64 else "float32", batch.t),
                {
                    "class_weight": weights,
                    "sample_weight": TypedArray("float32", batch.s),
                    "mask": TypedArray("bool", batch.mask),
                },
                TypedArray(sweep.dtype, batch.upstream),
                rule=rule,
                budget=(0.5, 0.5) if precision == "exact" else budget,
                loss=Exact(found.loss.hi, found.loss.lo, found.of_loss if signed else None),
                gradient=Exact(found.gradient.hi, found.gradient.lo, magnitude),
            )
        )
    return made[0], made[1]


def _draw(sweep: Sweep) -> Batch:
    rng = np.random.default_rng(sweep.seed)
    binary = sweep.targets.startswith("binary")
    fitting = [c for c in CLASSES if c <= max(2, sweep.elements)]
    num_classes = 8 if binary else sweep.classes or fitting[rng.integers(len(fitting))]
    n = max(1, sweep.elements // num_classes)
    shape = (n, num_classes)

    y = rng.integers(0, num_classes, n)
    y[0] = 0  # with s, mask and w below: never a denominator of 0
    chosen = y[:, None] == np.arange(num_classes)
    z = rng.normal(size=shape) * {"wide": 12, "confident": 1, "offset": 3}.get(sweep.kind, 2)
    if sweep.kind == "confident":
        # One row in eight is confident of another class than its target's.
        favourite = np.where(rng.random(n) < 1 / 8, rng.integers(0, num_classes, n), y)
        z += np.where(favourite[:, None] == np.arange(num_classes), rng.uniform(8, 60, (n, 1)), 0)
    elif sweep.kind == "offset":
        offsets = [-1e4, 1e4, 3e5] if sweep.dtype != "float16" else [-1e4, 1e4]
        z += rng.choice(offsets, (n, 1))
    z = TypedArray.of(z, sweep.dtype).values

    t: Any
    if binary:
        t = np.where(chosen, 1.0, 0.0) if sweep.targets == "binary" else rng.random(shape)
        t = np.where(rng.random(shape) < 0.1, -1.0, t)
        w = rng.choice([0.1, 0.5, 1, 3], size=(2, num_classes))
    else:
        t = np.where(rng.random(n) < 0.1, -100, y).astype(np.int64)
        w = rng.choice([0, 0.1, 0.3, 1, 2.5], size=num_classes, p=[0.1, 0.2, 0.2, 0.3, 0.2])
        w[0] = 1
    if sweep.targets in ("soft", "unnormalised"):
        t = np.where(chosen, 0.9, rng.random(shape) * 0.2 / num_classes)
        t = t / t.sum(-1, keepdims=True)
        t = np.where(rng.random((n, 1)) < 0.2, chosen, t)
        if sweep.targets == "unnormalised":
            t = np.where(rng.random(shape) < 0.3, 0, t) * rng.uniform(0, 3, (n, 1))
    if t.dtype != np.int64:
        t = TypedArray.of(t, "float32").values
    s = TypedArray.of(np.where(rng.random(n) < 0.1, 0, rng.uniform(0.1, 2, n)), "float32").values
    mask = rng.random(n) < 0.95
    if sweep.kind == "signed":
        s, w = s * rng.choice([-1, 1, 1, 1], n), w * rng.choice([-1, 1, 1], w.shape)
    s[0], mask[0], t[0] = 1, True, t[0] if binary or t.ndim > 1 else y[0]
    reduction = str(rng.choice(["none", "none", "sum", "mean_over_weights", "mean_over_positions"]))
    positions: tuple[int, ...] = (shape if binary else (n,)) if reduction == "none" else ()
    upstream = TypedArray.of(rng.uniform(-2, 2, positions), sweep.dtype).values
    return Batch(z, t, w, s, mask, reduction, upstream)


def _exp(x: DoubleDouble) -> DoubleDouble:
    """Return exp of numbers <= 0, 0 where that is nothing."""
    dead = x.hi < NOTHING
    return exp(x.where(~dead, 0.0)).where(~dead, 0.0)


def _softmax(sweep: Sweep, b: Batch) -> Truth:
    """Return the truth, with B_i = sum |a_ic| as the whole and B_i q_ic + |a_ic| as the parts."""
    num_classes = b.z.shape[1]
    classes = np.arange(num_classes)
    valid = b.mask.copy()
    hard = b.t.dtype == np.int64
    s = DoubleDouble(b.s[:, None])
    if hard:
        valid &= b.t != -100
        y = np.where(valid, b.t, 0)[:, None]
        on_target = y == classes
        e = SMOOTHING if sweep.targets == "smoothed" else 0.0
        alpha = s * b.w[y]
        weight = alpha
        a = (alpha * (DoubleDouble(1.0) - e)).where(on_target, 0.0)
        if e:
            a = a + s * b.w * (DoubleDouble(e) / num_classes)
    else:
        a = s * b.w * b.t
        weight = a.sum()
    a, weight = a.where(valid[:, None], 0.0), weight.where(valid[:, None], 0.0)
    sizes = np.abs(a.hi)
    weight_size = np.abs(weight.hi) if hard else sizes.sum(-1, keepdims=True)

    top = b.z.argmax(-1)[:, None]
    dominant = top == classes
    excess = DoubleDouble(np.take_along_axis(b.z, top, -1)) - b.z
    exps = _exp(-excess)
    others = exps.where(~dominant, 0.0).sum()
    partition, total = others + 1.0, a.sum()
    rest = a.where(~dominant, 0.0).sum()
    loss = total * log1p(others) + (a * excess).sum()
    share = total / partition
    gradient = (exps * share - a).where(~dominant, rest - others * share)
    size = sizes.sum(-1, keepdims=True)
    shares = size / partition.hi
    parts = exps.hi * shares + sizes
    of_others = np.where(dominant, 0.0, sizes).sum(-1, keepdims=True)
    parts = np.where(dominant, np.minimum(parts, of_others + others.hi * shares), parts)
    losses = (sizes * (log1p(others).hi + excess.hi)).sum(-1)
    if hard and sweep.targets == "hard":
        # S - e_y has the exp of the dominant class in it, so nothing cancels.
        missed = (partition - exps).where(~dominant, others)
        gradient = gradient.where(~on_target, -(missed * share))
    return _reduced(b, loss[:, 0], losses, weight[:, 0], weight_size[:, 0], gradient, size, parts)


def _binary(sweep: Sweep, b: Batch) -> Truth:
    valid = b.mask[:, None] & (b.t != -1)
    t = np.where(valid, b.t, 0.0)
    s = DoubleDouble(np.broadcast_to(b.s[:, None], b.z.shape)).where(valid, 0.0)
    neg, pos = s * b.w[0] * (DoubleDouble(1.0) - t), s * b.w[1] * t
    positive = b.z > 0
    e = _exp(DoubleDouble(-np.abs(b.z)))
    tail, large = log1p(e), DoubleDouble(1.0) / (e + 1.0)
    small = e * large
    of_pos, of_neg = pos * (tail + np.where(positive, 0.0, -b.z)), neg * (tail + np.where(positive, b.z, 0.0))
    down, up = pos * small.where(positive, large), neg * large.where(positive, small)
    losses, parts, total = (np.abs(x.hi) + np.abs(y.hi) for x, y in ((of_pos, of_neg), (up, down), (pos, neg)))
    return _reduced(b, of_pos + of_neg, losses, neg + pos, total, up - down, total, parts)


def _reduced(
    b: Batch,
    rows: DoubleDouble,
    losses: Float,
    weight: DoubleDouble,
    weight_size: Float,
    gradient: DoubleDouble,
    whole: Float,
    parts: Float,
) -> Truth:
    """Return all as the reduction and the upstream gradient scale it."""
    scale, condition = DoubleDouble(b.upstream), np.ones(())
    if b.reduction == "none":
        scale = scale if rows.hi.ndim == gradient.hi.ndim else scale[:, None]
        loss = rows
    else:
        loss, losses = _total(rows), losses.sum()
        if b.reduction != "sum":
            d = DoubleDouble(float(rows.hi.size))
            if b.reduction == "mean_over_weights":
                d = _total(weight)
                condition = weight_size.sum() / np.abs(d.hi)
            loss, losses, scale = loss / d, condition * losses / np.abs(d.hi), scale / d
    size, gradient = np.abs(scale.hi) * condition, gradient * scale
    of_number = np.abs(gradient.hi) * condition
    return Truth(loss, gradient, losses, np.broadcast_to(whole * size, b.z.shape), parts * size, of_number)


def _total(x: DoubleDouble) -> DoubleDouble:
    return DoubleDouble(x.hi.ravel(), x.lo.ravel()).sum()[0]
