"""The fused loss on the CPU: losses and gradient in one pass over the logits, while a block of rows is in cache.

Beside the gradient nothing of the logits' size is made: coefficients of that size are lowered block by block, too. They
are divided by the denominator first, in float64, so that neither weights nor their sum need fit the type inside.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...call import Call
from ...compute.arrays import ArrayFunctions
from ...compute.blocks import part, part_of_call
from ...errors import refuse
from ...lowering import SoftmaxCoefficients, denominator_of, divide, divided, inside_of, lower, unless_empty
from ...spec import SigmoidCrossEntropy
from . import rows as kernels
from .arrays import HALF, NOT_INPLACE, composite_gradient, is_once, round_once, xp
from .rows import Numbers

host = ArrayFunctions(np)
# NumPy asks the system for large pages for arrays of this size, PyTorch does not.
LARGE_BYTES = 1 << 22
# Index targets of a block: what each row has beside its logits is to be as little of them.
MOST_ROWS = 1 << 14


class Fused(torch.autograd.Function):
    """The loss of one call.

    A reduced loss makes its gradient in the forward, for an upstream gradient of 1, and keeps it. Another upstream
    gradient scales it, where that rounds no more than the native loss does; else it is made again. A backward that is
    itself differentiated goes through the composite.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, call: Call, dtype: torch.dtype, inplace: bool) -> Tensor:
        kept = None
        if ctx.needs_input_grad[0]:
            if call.spec.reduction != "none":
                kept = z.detach() if inplace else memory_like(z)
            weights = call.class_weight if isinstance(call.class_weight, tuple) else (call.class_weight,)
            denominator = call.denominator
            # What autograd saves it also lets go; nothing else may hold the batch.
            ctx.save_for_backward(
                None if inplace else z,
                call.targets,
                call.sample_weight,
                call.mask,
                denominator if isinstance(denominator, Tensor) else None,
                *weights,
            )
            ctx.kept, ctx.inplace, ctx.inside = kept, inplace, inside_of(xp, call.spec, call.logits.dtype)
            number = None if isinstance(denominator, Tensor) else denominator
            ctx.rest = (call.spec, number, call.checked, call.shape, call.axis)
        return evaluate(call, dtype, kept)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        kept, ctx.kept = ctx.kept, None
        once = is_once(upstream)
        if ctx.inplace and not (once and kept is not None):
            refuse("inplace", NOT_INPLACE, True, error=RuntimeError)
        if kept is not None and once:
            factor = upstream.item()
            if factor == 1:
                return kept, None, None, None
            if ctx.inplace or (kept.dtype is ctx.inside and math.isfinite(factor)):
                return kept.mul_(upstream), None, None, None
        z, *arguments = ctx.saved_tensors  # raises if one of them was changed in place since
        call = _call_of(ctx.rest, z, *arguments)
        if not once:
            return composite_gradient(call, upstream), None, None, None
        upstream = upstream.to(torch.float64)
        if call.spec.reduction == "none" and call.position_axis is not None:
            upstream = upstream.unsqueeze(call.position_axis)
        gradient = memory_like(z) if kept is None else kept
        evaluate(call, upstream.dtype, gradient, upstream)
        return gradient, None, None, None


def _call_of(rest: tuple[Any, ...], z: Tensor, *arguments: Any) -> Call:
    """Return the call again of what was saved."""
    targets, sample_weight, mask, tensor, *weights = arguments
    spec, number, checked, shape, axis = rest
    if weights == [None] and spec.class_weight is not None:
        weights = [xp.weights(spec, shape[axis], z)]
    return Call(
        spec=spec,
        logits=z,
        targets=targets,
        sample_weight=sample_weight,
        class_weight=tuple(weights) if len(weights) == 2 else weights[0],
        mask=mask,
        denominator=number if tensor is None else tensor,
        checked=checked,
        shape=shape,
        axis=axis,
    )


def memory_like(z: Tensor) -> Tensor:
    """Return memory for a gradient, in large pages if they are to be had: faults of small ones outlast a loss."""
    if z.nbytes < LARGE_BYTES or not z.is_contiguous():
        return torch.empty_like(z)
    return torch.from_numpy(np.empty(z.nbytes, np.uint8)).view(z.dtype).view(z.shape)


def evaluate(call: Call, dtype: torch.dtype, gradient: Tensor | None, upstream: Tensor | None = None) -> Tensor:
    """Return the loss; ``gradient``, if there is one, becomes its gradient times ``upstream`` (1 where None).

    Parameters
    ----------
    dtype : torch.dtype
        Of the loss.
    gradient : Tensor, optional
        Of the logits' shape and type; may be their memory.
    upstream : Tensor, optional
        float64, 0-d or broadcastable against the logits.
    """
    z, spec, inside = call.logits, call.spec, inside_of(xp, call.spec, call.logits.dtype)
    direct = gradient is not None and gradient.dtype is inside and gradient.data_ptr() != z.data_ptr()
    sparse = call.hard and not spec.label_smoothing
    rows_of: Any = _Hard(call, direct, inside) if sparse else _ByElement(call, inside)
    each: Any = None
    work: Any = None
    total = 0.0
    with np.errstate(all="ignore"):
        for block in rows_of.blocks:
            logits, slopes = z, gradient
            if block is not ...:
                logits, slopes = z[block], None if gradient is None else gradient[block]
            out: Any = slopes
            if not direct:
                out = work = torch.empty_like(logits, dtype=inside) if work is None else work[: len(logits)]
            rows = rows_of(block, logits, out, slopes is not None, part(upstream, block))
            if slopes is not None and slopes is not out:
                slopes.copy_(round_once(out, slopes.dtype) if slopes.dtype in HALF else out)
            if spec.reduction != "none":
                total += float(rows.sum())
                continue
            rows = torch.as_tensor(rows)
            if block is not ...:
                each = rows.new_empty(call.row_shape(xp)) if each is None else each
                each[block].copy_(rows)
            else:
                each = rows
    if spec.reduction == "none":
        return round_once(each if call.position_axis is None else each.reshape(call.loss_shape(xp)), dtype)
    wide = torch.float64 if dtype in HALF else dtype
    value = torch.tensor(total, dtype=wide, device=z.device)
    if rows_of.coefficients.denominator is not None:
        value = unless_empty(xp, spec.zero_denominator, value, rows_of.coefficients.denominator)
    return round_once(value, dtype)


def block_of(direct: bool, inside: torch.dtype) -> int:
    """Return how many logits of index targets a block has; ``direct`` where it is computed in the gradient's memory."""
    # Two passes follow the softmax; larger blocks are fewer, but scratch memory is not to be noticed.
    return (1 << 23 if direct else 1 << 21) // inside.itemsize


def _blocks(call: Call, room: int) -> list[Any]:
    """Return blocks of the first axis, of about ``room`` logits: an index of them each."""
    z = call.logits
    n = z.shape[0] if z.ndim > 1 and call.axis != 0 else 1
    positions = max(1, z.numel() // call.num_classes) if call.hard else 1
    step = max(1, min(room * n // max(1, z.numel()), MOST_ROWS * n // positions))
    if step >= n:
        return [...]
    rest = (slice(None),) * (z.ndim - 1)
    return [(slice(start, min(start + step, n)), *rest) for start in range(0, n, step)]


class _Coefficients:
    """The coefficients of a call, divided by the denominator: lowered at once in a single block, else in each."""

    def __init__(self, xp: Any, call: Call, inside: Any, blocks: list[Any]) -> None:
        self.xp, self.inside = xp, inside
        self.whole = lower(xp, call, inside) if blocks == [...] else None
        if self.whole is not None:
            denominator = self.whole.denominator
        else:
            denominator = denominator_of(xp, call, inside, (part_of_call(call, block) for block in blocks))
        self.denominator = None if denominator is None else float(denominator)
        self.call, self.narrow = call, False
        if self.whole is not None:
            self.whole = divided(xp, dataclasses.replace(self.whole, denominator=self.denominator))
            return
        self.call = _divided(xp, call, self.denominator)
        weights = self.call.class_weight
        self.narrow = isinstance(weights, tuple) and all(_is_moderate(xp.to_numpy(w)) for w in weights)

    def part(self, block: Any) -> Any:
        """Return those of a block."""
        if self.whole is not None:
            return self.whole
        c: Any = lower(self.xp, part_of_call(self.call, block), self.inside, self.narrow)
        return c if c.denominator == 1 else divided(self.xp, c)


class _Hard:
    """Index targets: one coefficient a row, lowered by NumPy, which is faster on few numbers."""

    def __init__(self, call: Call, direct: bool, inside: torch.dtype) -> None:
        self.blocks = _blocks(call, block_of(direct, inside))
        self.coefficients = _Coefficients(host, _on_host(call), host.wide, self.blocks)

    def __call__(self, block: Any, z: Tensor, out: Tensor, wanted: bool, upstream: Tensor | None) -> Any:
        """Return the weighted losses of a block; ``out`` is written over, with the gradient if it is wanted."""
        c, slopes = self.coefficients.part(block), None
        if wanted:
            slopes = c.alpha if upstream is None else _times(c.alpha, upstream.numpy())
        loss, rare = kernels.hard(z, c.axis, c.index, out, slopes)
        rows = c.alpha * loss
        return np.where(c.alpha == 0, 0.0, rows) if rare else rows


class _ByElement:
    """Distributions, smoothing and binary losses: coefficients of the logits' size."""

    def __init__(self, call: Call, inside: torch.dtype) -> None:
        binary = isinstance(call.spec, SigmoidCrossEntropy)
        # The more arrays a kernel holds, the smaller is the block of which they all are in cache.
        self.blocks = _blocks(call, (1 << 19 if binary else 1 << 21) // inside.itemsize)
        self.coefficients, self.inside = _Coefficients(xp, call, inside, self.blocks), inside
        self.reduced = call.spec.reduction != "none"

    def __call__(self, block: Any, z: Tensor, out: Tensor, wanted: bool, upstream: Tensor | None) -> Tensor:
        c = self.coefficients.part(block)
        slopes = None if not wanted else 1.0 if upstream is None else upstream
        if isinstance(c, SoftmaxCoefficients):
            rows = kernels.dense(z, c.axis, _dense_coefficients(c, z, self.inside), out, slopes)
        else:
            rows = kernels.binary(z.to(self.inside), c.pos.to(self.inside), c.neg.to(self.inside), out, slopes)
            if rows.ndim and (self.reduced or self.coefficients.call.spec.average_outputs):
                rows = rows.sum(-1, keepdim=True, dtype=torch.float64 if self.reduced else None)
        return rows.double() if self.reduced else rows


def _on_host(call: Call) -> Call:
    """Return the call with NumPy's arrays, but for the logits."""

    def array(x: Tensor | None) -> Any:
        return None if x is None else x.numpy(force=True)

    weights, denominator = call.class_weight, call.denominator
    return Call(
        spec=call.spec,
        logits=call.logits,
        targets=array(call.targets),
        sample_weight=array(call.sample_weight),
        class_weight=array(None if weights is None else weights.double()),
        mask=array(call.mask),
        denominator=float(denominator) if isinstance(denominator, Tensor) else denominator,
        checked=call.checked,
        shape=call.shape,
        axis=call.axis,
        none_ignored=call.none_ignored,
    )


def _divided(xp: Any, call: Call, denominator: float | None) -> Call:
    """Return the call with weights divided by the denominator, if it has any: they are fewer than coefficients."""
    weights, s = call.class_weight, call.sample_weight
    if denominator is not None and (weights is not None or s is not None):
        if weights is None:
            s = divide(xp, "zero", s, denominator)
        elif isinstance(weights, tuple):
            weights = tuple(divide(xp, "zero", xp.astype(weight, xp.wide), denominator) for weight in weights)
        else:
            weights = divide(xp, "zero", xp.astype(weights, xp.wide), denominator)
        denominator = 1.0
    return dataclasses.replace(call, class_weight=weights, sample_weight=s, denominator=denominator)


def _is_moderate(w: Numbers) -> bool:
    """Whether float32 holds the weights, and their products with targets."""
    w = w.astype(np.float64, copy=False)
    return bool(((w == 0) | ((w > 1e-20) & (w < 1e20))).all())


def _dense_coefficients(c: SoftmaxCoefficients, z: Tensor, inside: torch.dtype) -> Tensor:
    """Return a_ic, to be written over."""
    if c.index is None:
        a: Tensor = c.targets.to(inside) * c.alpha.to(inside)  # type: ignore[union-attr]
        a = a if c.column is None else a.mul_(c.column.to(inside))
    else:
        a = torch.zeros_like(z, dtype=inside).scatter_(c.axis, c.index, c.alpha.to(inside))
    if c.beta is not None:
        a += (c.beta if c.row is None else c.beta * c.row).to(inside)
    return a


def _times(alpha: Numbers, upstream: Numbers) -> Numbers:
    """Return the product, and 0 where the coefficient is 0 whatever is upstream."""
    slopes = alpha * upstream
    return slopes if math.isfinite(slopes.sum()) else np.where(alpha == 0, 0.0, slopes)
