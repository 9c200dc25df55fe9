"""Rows of a call whose arguments are tensors, some at a time: of a share of the classes, on any device."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ...call import Call
from ...lowering import magnitudes
from . import route
from .arrays import HALF, xp
from .cpu import Arguments

# Coefficients that are looked at at a time.
LOOK = 1 << 20


def rows_of(given: Arguments) -> Call:
    """Return the checked call, positions being one axis and the denominator known."""
    call, shape = given.call(), given.logits.shape
    denominator = None
    if call.spec.reduction.startswith("mean"):
        denominator = route.denominator(given._replace(validate=False))
    n, classes = math.prod(shape[:-1]), shape[-1]

    def flat(x: Tensor | None) -> Tensor | None:
        """Return what is given for a prefix of the shape, a number a row if not one an element."""
        if x is None or not x.ndim:
            return x
        if x.ndim == len(shape):
            return x.reshape(n, classes)
        return x.reshape(*x.shape, *(1,) * (len(shape) - 1 - x.ndim)).expand(shape[:-1]).reshape(n)

    weights = call.class_weight
    if isinstance(weights, tuple):
        weights = tuple(w if w.ndim < 2 else w.expand(shape).reshape(n, classes) for w in weights)
    return dataclasses.replace(
        call,
        logits=given.logits.reshape(-1)[:0],
        shape=(n, classes),
        axis=1,
        targets=call.targets.reshape((n,) if call.hard else (n, classes)),
        sample_weight=flat(call.sample_weight),
        mask=flat(call.mask),
        class_weight=weights,
        denominator=denominator,
    )


def part_of(call: Call, rows: Tensor | slice) -> Call:
    """Return the call of some rows, which has no logits."""
    targets = call.targets[rows]

    def part(x: Tensor | None) -> Tensor | None:
        return x if x is None or not x.ndim else x[rows]

    weights = call.class_weight
    if isinstance(weights, tuple):
        weights = tuple(w if w.ndim < 2 else w[rows] for w in weights)
    shape = (len(targets), call.num_classes)
    return dataclasses.replace(
        call,
        logits=call.logits.new_empty(()).expand(shape),
        shape=shape,
        targets=targets,
        sample_weight=part(call.sample_weight),
        mask=part(call.mask),
        class_weight=weights,
    )


def used_of(call: Call) -> tuple[Tensor, float]:
    """Return the rows that have a coefficient other than 0, and the largest sum of a row's, for half types alone.

    Which rows they are must be known on the host: one synchronisation.
    """
    n, classes = call.shape
    step = n if call.hard and not call.spec.label_smoothing else max(1, LOOK // classes)
    parts = (part_of(call, slice(i, i + step)) for i in range(0, n, step or 1))
    sums = torch.cat([call.logits.new_zeros(0, dtype=xp.wide), *(magnitudes(xp, part)[:, 0] for part in parts)])
    below: Any = 1.0 if call.denominator is None else call.denominator
    used = ((sums != 0) & (below != 0)).nonzero()[:, 0]
    if call.logits.dtype not in HALF or not len(used):
        return used, 0.0
    return used, float(sums[used].nan_to_num(0.0).max() / abs(below))
