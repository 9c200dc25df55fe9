"""One call on an array library without an autograd: the loss and, if asked, its gradient, block by block.

The rows of a block stay in cache from the logits to the rounded gradient. Beside the gradient nothing of the logits'
size is made: coefficients of that size are lowered block by block, too. They are divided by the denominator first, in
float64, so that neither the weights nor their sum need fit the type that is computed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..call import Call
from ..errors import refuse
from ..lowering import SoftmaxCoefficients, denominator_of, divided, inside_of, lower, summed, undivided, unless_empty
from . import few, kernels
from .arrays import Array, ArrayFunctions, Entries
from .blocks import FEW_CLASSES, Layout, blocks, fits_a_block, part, part_of_call

Rows = Callable[[ArrayFunctions, Call, Any, Any], tuple[Array, Any]]


def block_by_block(xp: ArrayFunctions, call: Call, c: Any, scale: Array | None) -> tuple[Array, Any]:
    """Return the weighted row losses, or sums of them where they are added up; with a scale, the gradient times it.

    Coefficients that are not given are lowered for each block in its turn.
    """
    inside, layout, z = inside_of(xp, call.spec, call.logits.dtype), Layout(xp, call), call.logits
    rows, sums = None, []
    if call.spec.reduction == "none":
        rows = xp.xp.empty(call.row_shape(xp), dtype=z.dtype)
    gradient = None if scale is None else xp.xp.empty(z.shape, dtype=z.dtype)
    for block in blocks(xp, call, inside):
        of_block, within = c, block
        if c is None:
            of_block, within = divided(xp, lower(xp, part_of_call(call, block), inside)), ...

        def share(x: Array | None, within: Any = within) -> Any:
            return part(x, within)

        slopes = None if gradient is None else gradient[block]
        loss = _block(xp, call, layout, of_block, z[block], share, part(scale, block), slopes)
        if rows is None:
            sums.append(xp.sum(xp.astype(loss, xp.wide)))
        else:
            of_rows = part(rows, block)
            of_rows[...] = round_once(xp, xp.reshape(loss, of_rows.shape), z.dtype)
    return (sum(sums[1:], sums[0]) if rows is None else rows), gradient


def loss_parts(xp: ArrayFunctions, call: Call, rows_of: Rows = block_by_block) -> tuple[Array, Array]:
    """Return the sum over positions and what a mean divides it by (1 for a sum), in float64."""
    c, denominator = _coefficients(xp, call)
    call = dataclasses.replace(call, spec=summed(call.spec), denominator=None)
    rows, _ = rows_of(xp, call, undivided(c) if c else None, None)
    return xp.sum(xp.astype(rows, xp.wide)), xp.xp.asarray(1.0 if denominator is None else denominator, dtype=xp.wide)


def loss_and_grad(
    xp: ArrayFunctions, call: Call, upstream: Any = None, *, gradient: bool = True, rows_of: Rows = block_by_block
) -> tuple[Array, Any]:
    """Return the loss and its gradient times ``upstream`` in the logits' type, each rounded once.

    ``rows_of`` makes rows and gradient of coefficients, which are divided already: a library may have kernels of its
    own.

    Raises
    ------
    ValueError
        An upstream gradient of another shape than the loss's.
    """
    if upstream is None and xp.xp is np and (found := few.of_call(call, gradient=gradient)):
        return found
    c, denominator = _coefficients(xp, call)
    scale = _scale(xp, call, upstream) if gradient else None
    if c is None:
        call = dataclasses.replace(call, denominator=denominator)
    rows, slopes = rows_of(xp, call, divided(xp, c) if c else None, scale)
    if call.spec.reduction == "none":
        rows = xp.reshape(rows, call.loss_shape(xp))
    else:
        rows = xp.sum(xp.astype(rows, xp.wide))
        if denominator is not None:
            rows = unless_empty(xp, call.spec.zero_denominator, rows, denominator)
    return round_once(xp, rows, call.logits.dtype), slopes


def _coefficients(xp: ArrayFunctions, call: Call) -> tuple[Any, Any]:
    """Return coefficients and denominator; no coefficients where they are to be lowered block by block."""
    inside = inside_of(xp, call.spec, call.logits.dtype)
    if fits_a_block(xp, call, inside) or (call.hard and call.num_classes > FEW_CLASSES):
        c = lower(xp, call, inside)
        return c, c.denominator
    return None, denominator_of(xp, call, inside, (part_of_call(call, block) for block in blocks(xp, call, inside)))


def _scale(xp: ArrayFunctions, call: Call, upstream: Any) -> Any:
    """Return the upstream gradient as a wide array that broadcasts against the logits; on the host 1 for none."""
    if upstream is None:
        return 1 if xp.on_host else xp.ones((1,) * len(call.shape), call.logits)
    each = call.spec.reduction == "none"
    shape = call.loss_shape(xp) if each else ()
    scale = xp.asarray(upstream, call.logits, "upstream")
    if xp.kind(scale) == "other" or tuple(scale.shape) != shape:
        refuse("upstream", f"be real numbers of the loss's shape {shape}", f"{scale.dtype} of shape {scale.shape}")
    scale = xp.astype(scale, xp.wide)
    return xp.expand_dims(scale, call.position_axis) if each and call.position_axis is not None else scale


def _block(
    xp: ArrayFunctions, call: Call, layout: Layout, c: Any, z: Array, share: Any, scale: Any, slopes: Any
) -> Array:
    """Return one block's weighted row losses; write its gradient to ``slopes``, if there is one."""
    gradient = slopes is not None
    flat = layout.array(z, inside_of(xp, call.spec, call.logits.dtype))
    out = layout.work(flat, z, slopes)
    if isinstance(c, SoftmaxCoefficients) and c.index is not None and c.beta is None and call.spec.inputs == "logits":
        alpha, index = layout.rows(share(c.alpha)), layout.rows(share(c.index))
        coefficient = _times(xp, alpha, layout.rows(scale)) if gradient else None
        loss, slope = kernels.hard(xp, flat, layout.axis, index, coefficient, out)
        loss = alpha * loss
        if kernels.may_be_infinite(xp, loss):
            loss = xp.where(alpha == 0, 0.0, loss)
    else:
        loss, slope = _by_element(xp, call, layout, c, flat, share, out, gradient)
        if gradient:
            slope = _times(xp, slope, layout.rows(scale))
    if gradient:
        layout.write(round_once(xp, slope, slopes.dtype), slopes)
    return loss


def _by_element(
    xp: ArrayFunctions, call: Call, layout: Layout, c: Any, z: Array, share: Any, out: Array | None, gradient: bool
) -> kernels.Result:
    """Return losses and slopes of coefficients of which each element has its own."""
    spec, inside, axis = call.spec, z.dtype, layout.axis
    if not isinstance(c, SoftmaxCoefficients):
        pos, neg = xp.astype(share(c.pos), inside), xp.astype(share(c.neg), inside)
        if spec.inputs == "logits":
            loss, slope = kernels.binary(xp, z, pos, neg, gradient)
        else:
            loss, slope = kernels.binary_probs(xp, z, pos, neg, spec, xp.eps(call.logits), gradient)
        return (xp.sum(loss, z.ndim - 1) if spec.average_outputs else loss), slope
    a = _dense_coefficients(xp, layout, c, z, share)
    if spec.inputs == "logits":
        return kernels.dense(xp, z, axis, a, gradient, out)
    if spec.inputs == "log_probs":
        return kernels.log_probs(xp, z, axis, a, gradient)
    return kernels.probs(xp, z, axis, a, spec, xp.eps(call.logits), gradient)


def _dense_coefficients(xp: ArrayFunctions, layout: Layout, c: Any, z: Array, share: Any) -> Array:
    """Return a_ic in the layout of a block, to be written over."""

    def spread(rows: Array, classes: Array | None) -> Array:
        rows = layout.rows(share(rows))
        return xp.astype(rows if classes is None else rows * layout.classes(classes), z.dtype)

    if c.index is None:
        a = xp.multiply(layout.array(share(c.targets), z.dtype), spread(c.alpha, c.column))
    else:
        a, index = xp.xp.zeros(z.shape, dtype=z.dtype), layout.rows(share(c.index))
        a = Entries(xp, a, index, layout.axis).put(a, spread(c.alpha, None))
    if c.beta is not None:
        a += spread(c.beta, c.row)
    return a


def _times(xp: ArrayFunctions, x: Array, factor: Any) -> Array:
    """Return the product: 0 where one is 0, even if the other is infinite or NaN: nothing reaches an ignored row."""
    if isinstance(factor, int):
        return x
    product = x * xp.astype(factor, x.dtype)
    return xp.where((x == 0) | (factor == 0), 0.0, product) if kernels.may_be_infinite(xp, product) else product


def round_once(xp: ArrayFunctions, x: Array, dtype: Any) -> Array:
    """Return float64 as ``dtype``, rounded once; libraries go to a half type through float32, and round twice.

    A rounding to odd keeps in its last bit that something was cut off, so that the rounding that follows is the only
    one.
    """
    if x.dtype != xp.wide or dtype in (xp.wide, xp.float32):
        return xp.astype(x, dtype)
    near = xp.astype(x, xp.float32)
    bits = near.view(xp.xp.int32) if near.ndim else near.reshape((1,)).view(xp.xp.int32).reshape(())
    back = xp.astype(near, xp.wide)
    inexact_even = (back != x) & (bits & 1 == 0) & (x == x)
    step = xp.where(abs(back) < abs(x), 1, -1)
    odd = xp.astype(xp.where(inexact_even, bits + step, bits), xp.xp.int32)
    return xp.astype(odd.view(xp.float32), dtype)
