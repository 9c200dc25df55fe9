"""One call on an array library without an autograd: the loss and, if asked, its gradient, block by block.

The rows of a block stay in cache from the logits to the rounded gradient. Beside the gradient nothing of the logits'
size is made, a distribution's coefficients included; binary coefficients are the exception: they are lowered whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from . import kernels
from ._arrays import Array, ArrayFunctions
from .call import Call
from .errors import refuse
from .lowering import SoftmaxCoefficients, divide, lower, reduce
from .spec import SoftmaxCrossEntropy

BLOCK_BYTES = 1 << 20
Rows = Callable[[ArrayFunctions, Call, Any, Any], tuple[Array, Any]]


def block_by_block(xp: ArrayFunctions, call: Call, c: Any, scale: Array | None) -> tuple[Array, Any]:
    """Return the weighted row losses and, with a scale, the gradient times it."""
    z, inside = call.logits, computed_in(xp, call)
    eps = xp.eps(z)
    rows = xp.xp.empty(call.row_shape(xp), dtype=inside)
    slopes = None if scale is None else xp.xp.empty(z.shape, dtype=z.dtype)
    not_finite = scale is not None and not (xp.on_host and bool(xp.xp.all(xp.xp.isfinite(scale))))
    for block in _blocks(xp, call):

        def part(x: Array | None, block: Any = block) -> Any:
            """Return the block's share; what is shared by all rows has length 1 there."""
            if x is None or block is ... or x.ndim < z.ndim or x.shape[0] == 1:
                return x
            return x[block]

        loss, slope = _kernel(xp, call, c, xp.astype(z[block], inside), part, inside, eps, scale is not None)
        rows[block] = loss
        if slopes is not None:
            factor = xp.astype(part(scale), inside)
            # 0 wins over an infinite or NaN factor, on either side: nothing reaches an ignored row.
            nothing = (factor == 0) | ((slope == 0) & ~xp.xp.isfinite(factor)) if not_finite else factor == 0
            slope = xp.zero_where(nothing, slope * factor)
            slopes[block] = round_once(xp, slope, z.dtype)
    return rows, slopes


def loss_parts(xp: ArrayFunctions, call: Call, rows_of: Rows = block_by_block) -> tuple[Array, Array]:
    """Return the sum over positions and what a mean divides it by (1 for a sum), in float64."""
    coefficients = lower(xp, call, computed_in(xp, call))
    rows, _ = rows_of(xp, call, coefficients, None)
    denominator = 1.0 if coefficients.denominator is None else coefficients.denominator
    return xp.sum(xp.astype(rows, xp.wide)), xp.xp.asarray(denominator, dtype=xp.wide)


def loss_and_grad(
    xp: ArrayFunctions, call: Call, upstream: Any = None, *, gradient: bool = True, rows_of: Rows = block_by_block
) -> tuple[Array, Any]:
    """Return the loss and its gradient times ``upstream`` in the logits' type, each rounded once.

    ``rows_of`` makes rows and gradient of coefficients: a library may have kernels of its own.

    Raises
    ------
    ValueError
        An upstream gradient of another shape than the loss's.
    """
    coefficients = lower(xp, call, computed_in(xp, call))
    dtype = call.logits.dtype
    scale = _scale(xp, call, coefficients.denominator, upstream) if gradient else None
    rows, slopes = rows_of(xp, call, coefficients, scale)
    return round_once(xp, reduce(xp, call, rows, coefficients.denominator), dtype), slopes


def computed_in(xp: ArrayFunctions, call: Call) -> Any:
    """Return the type that is computed in."""
    exact = call.spec.precision == "exact" or call.logits.dtype == xp.wide
    return xp.wide if exact else xp.float32


def _scale(xp: ArrayFunctions, call: Call, denominator: Any, upstream: Any) -> Array:
    """Return upstream / denominator, broadcastable against the logits; 0 where the denominator is 0."""
    each = call.spec.reduction == "none"
    shape = call.loss_shape(xp) if each else ()
    scale = xp.xp.asarray(1.0 if upstream is None else upstream, dtype=xp.wide)
    if upstream is None:
        scale = scale * xp.ones(shape, call.logits)
    if tuple(scale.shape) != shape:
        refuse("upstream", f"have the loss's shape {shape}", tuple(scale.shape))
    if not each and denominator is not None:
        return divide(xp, "zero", scale, denominator)
    return xp.expand_dims(scale, call.position_axis) if each and call.position_axis is not None else scale


def _kernel(
    xp: ArrayFunctions, call: Call, c: Any, z: Array, part: Any, inside: Any, eps: float, gradient: bool
) -> kernels.Result:
    """Return one block's weighted row losses and slopes."""
    spec = call.spec

    def share(x: Array | None) -> Any:
        return None if x is None else xp.astype(part(x), inside)

    if not isinstance(c, SoftmaxCoefficients):
        pos, neg = share(c.pos), share(c.neg)
        if spec.inputs == "logits":
            loss, slope = kernels.binary(xp, z, pos, neg, gradient)
        else:
            loss, slope = kernels.binary_probs(xp, z, pos, neg, spec, eps, gradient)
        return (xp.sum(loss, z.ndim - 1) if spec.average_outputs else loss), slope
    alpha, index = share(c.alpha), part(c.index)
    if index is not None and c.beta is None and spec.inputs == "logits":
        return kernels.hard(xp, z, c.axis, index, alpha, gradient)
    a = _dense_coefficients(xp, z, c, alpha, index, share)
    if spec.inputs == "logits":
        return kernels.dense(xp, z, c.axis, a, gradient)
    if spec.inputs == "log_probs":
        return kernels.log_probs(xp, z, c.axis, a, gradient)
    return kernels.probs(xp, z, c.axis, a, spec, eps, gradient)


def _dense_coefficients(xp: ArrayFunctions, z: Array, c: Any, alpha: Array, index: Any, share: Any) -> Array:
    if index is None:
        targets, column = share(c.targets), share(c.column)
        a = alpha * (targets if column is None else targets * column)
    else:
        a = xp.put(xp.xp.zeros_like(z), index, alpha, c.axis)
    if c.beta is None:
        return a
    row = share(c.row)
    return a + (share(c.beta) if row is None else share(c.beta) * row)


def _blocks(xp: ArrayFunctions, call: Call) -> Iterator[Any]:
    """Yield indices of parts of the first axis; `...` on a device, or where a row runs along it or there is none."""
    z = call.logits
    if not xp.on_host or z.ndim < 2 or (isinstance(call.spec, SoftmaxCrossEntropy) and call.axis == 0):
        yield ...
        return
    step = max(1, BLOCK_BYTES // max(1, 8 * math.prod(z.shape[1:])))
    for start in range(0, z.shape[0], step):
        yield slice(start, min(start + step, z.shape[0])), ...


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
