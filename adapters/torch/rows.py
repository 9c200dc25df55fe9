"""The three kernels on the CPU, for a block of rows that is in cache: exponentials, sums and slopes in place.

Nothing but ratios of a row's exponentials is used, so they may come from whatever makes them fastest, up to a factor.
What is rare - a target whose exponential is lost, a row without a softmax - is looked for in the largest loss of a
block, and costs passes of its own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...compute.kernels import LIMIT

Numbers = np.ndarray[Any, Any]

# Below this many classes a row is too short for a softmax of its own.
FEW_CLASSES = 16
# From here on softplus(x) is x, whose exp float32 still holds.
LINEAR = 40.0
LOG2_E = math.log2(math.e)


def hard(z: Tensor, axis: int, index: Numbers, out: Tensor, slopes: Numbers | None) -> tuple[Numbers, bool]:
    """Return ``L_y``, and whether it may be infinite or NaN; with slopes, ``out`` becomes ``slopes (q - [c = y])``.

    ``q_y - 1`` is ``-R_y / S``.

    Parameters
    ----------
    z : Tensor
        Logits, in their own type.
    index : ndarray of int64
        The target, one a row.
    slopes : ndarray, optional
        The coefficient times the upstream gradient, one a row, in float64.
    out : Tensor
        Of the type that is computed in, written over.
    """
    e = exponentials(z, axis, out)
    entries = _Entries(e, axis, index)
    own = entries.get()
    entries.put(0.0)
    others = e.sum(axis, keepdim=True).numpy()
    ratio = torch.from_numpy(others / own)
    loss = ratio.log1p_().numpy()
    rare = _may_be_rare(loss)
    if rare:
        far = torch.from_numpy(own + others).div_(e.amax(axis, keepdim=True)).log_()
        target = z.gather(axis, torch.from_numpy(index))
        far += z.amax(axis, keepdim=True).to(e.dtype) - target
        loss = np.where(own < np.finfo(own.dtype).tiny, far.numpy(), loss)
    if slopes is not None:
        own += others
        scale = np.divide(slopes, own).astype(own.dtype)
        entries.put(np.negative(others, others))
        e.mul_(torch.from_numpy(scale))
        if rare:
            e.masked_fill_(torch.from_numpy(slopes == 0), 0.0)
    return loss, rare


class _Entries:
    """One class's entry a row, read and written by NumPy where it can, for it takes less time."""

    def __init__(self, x: Tensor, axis: int, index: Numbers) -> None:
        self.x, self.axis, self.index, self.flat = x, axis, index, None
        if x.ndim == 2 and axis == 1 and x.is_contiguous():
            self.flat = x.numpy().reshape(-1)
            self.index = index + _offsets(*x.shape)

    def get(self) -> Numbers:
        """Return the entries."""
        if self.flat is not None:
            return self.flat.take(self.index)
        return self.x.gather(self.axis, torch.from_numpy(self.index)).numpy()

    def put(self, values: Numbers | float) -> None:
        """Write others over them."""
        if self.flat is not None:
            self.flat[self.index] = values
        else:
            new = values if isinstance(values, float) else torch.from_numpy(values)
            self.x.scatter_(self.axis, torch.from_numpy(self.index), new)


@lru_cache(maxsize=64)
def _offsets(rows: int, num_classes: int) -> Numbers:
    return np.arange(0, rows * num_classes, num_classes)[:, None]


def dense(z: Tensor, axis: int, a: Tensor, out: Tensor, slopes: Tensor | float | None) -> Tensor:
    """Return ``sum_c a_c L_c``; with ``slopes``, one a row or for all, ``out`` becomes them times ``A q_c - a_c``.

    ``a`` has the type of ``out``. Both are written over.
    """
    source = z if z.dtype is out.dtype else out.copy_(z)
    dominant = torch.from_numpy(source.numpy().argmax(axis, keepdims=True))
    top, a_top = source.gather(axis, dominant), a.gather(axis, dominant)
    rest = a.scatter_(axis, dominant, 0.0).sum(axis, keepdim=True)
    near = torch.sub(top, source, out=out).mul_(a).sum(axis, keepdim=True)
    e = exponentials(z, axis, out)
    at_top = e.gather(axis, dominant)
    others = e.scatter_(axis, dominant, 0.0).sum(axis, keepdim=True) / at_top
    weight = rest + a_top
    loss = weight * others.log1p() + near
    rare = _may_be_rare(loss.numpy(), slopes)
    if rare:
        excess = (top - z).masked_fill_(a == 0, 0.0)
        loss = weight * (others + (top - top)).log1p() + excess.mul_(a).sum(axis, keepdim=True)
        dead = (a == 0).all(axis, keepdim=True) & (a_top == 0)
        loss.masked_fill_(dead, 0.0)
    if slopes is not None:
        scale = weight / (1 + others)
        # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
        at_dominant = torch.where(others < 1, rest - others * scale, scale - a_top)
        e.mul_(scale / at_top).sub_(a).scatter_(axis, dominant, at_dominant)
        _multiply(e, slopes, dead if rare else None)
    return loss


def binary(z: Tensor, pos: Tensor, neg: Tensor, out: Tensor, slopes: Tensor | float | None) -> Tensor:
    """Return ``pos softplus(-z) + neg softplus(z)``; with ``slopes``, ``out`` is ``neg sigmoid(z) - pos sigmoid(-z)``.

    ``z`` and the coefficients have the type of ``out``. ``neg`` and ``out`` are written over; ``pos`` may be the
    caller's targets.
    """
    less = torch.minimum(pos, neg, out=out)
    if z.numel() and less.amax() == 0 == less.amin():
        return _of_labels(z, neg.sub_(pos), out, slopes)
    # No `where` in here: it takes longer than an exp.
    up, down = torch.sigmoid(z), torch.sigmoid(-z)
    torch.minimum(up, down, out=out).div_(torch.maximum(up, down)).log1p_()
    loss = (pos + neg).mul_(out).addcmul_(pos, (-z).clamp_(min=0)).addcmul_(neg, z.clamp(min=0))
    rare = _may_be_rare(loss.numpy(), slopes)
    dead = (pos == 0) & (neg == 0) if rare else None
    if rare:
        each = (pos * (out - z.clamp(max=0)), neg * (out + z.clamp(min=0)))
        loss = each[0].masked_fill_(pos == 0, 0.0).add_(each[1].masked_fill_(neg == 0, 0.0))
    if slopes is not None:
        torch.mul(neg, up, out=out).addcmul_(pos, down, value=-1)
        _multiply(out, slopes, dead)
    return loss


def _of_labels(z: Tensor, a: Tensor, out: Tensor, slopes: Tensor | float | None) -> Tensor:
    """Return what `binary` does where each element has one side only, a coefficient that is negative for positives."""
    sign = a.sign()
    # The other side's logit, of which the loss of a label is the softplus.
    other = torch.mul(z, sign, out=out)
    loss = softplus(other, threshold=LINEAR).mul_(sign.mul_(a))
    dead = a == 0 if _may_be_rare(loss.numpy(), slopes) else None
    if dead is not None:
        loss.masked_fill_(dead, 0.0)
    if slopes is not None:
        _multiply(other.sigmoid_().mul_(a), slopes, dead)
    return loss


def exponentials(z: Tensor, axis: int, out: Tensor) -> Tensor:
    """Return exp(z), each row times a factor, written to ``out``."""
    if z.dtype is not torch.float64 and out.dtype is torch.float64:
        # exp2 takes half the time of exp. Of what float32 holds, the exponent's rounding costs 2^-46 at the most.
        return out.copy_(z).sub_(z.amax(axis, keepdim=True)).mul_(LOG2_E).exp2_()
    z = z if z.dtype is out.dtype else out.copy_(z)
    if axis == z.ndim - 1 and z.shape[axis] < FEW_CLASSES:
        return torch.sub(z, z.amax(axis, keepdim=True), out=out).exp_()
    return torch.softmax(z, axis, out=out)


def _multiply(gradient: Tensor, slopes: Tensor | float, dead: Tensor | None) -> None:
    """Multiply by what each row or all are to be multiplied by; what has no coefficient stays 0."""
    if isinstance(slopes, Tensor):
        gradient.mul_(slopes.to(gradient.dtype))
    if dead is not None:
        gradient.masked_fill_(dead, 0.0)


def _may_be_rare(loss: Numbers, slopes: Tensor | float | None = None) -> bool:
    """Whether a loss may be that of a lost exponential, infinite or NaN, or an upstream gradient is not finite."""
    if isinstance(slopes, Tensor) and not math.isfinite(slopes.sum().item()):
        return True
    return loss.size > 0 and not np.maximum.reduce(loss, None) < LIMIT[loss.dtype.itemsize]
