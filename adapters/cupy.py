"""CuPy: the loss and, there being no autograd, its gradient, on a GPU; index targets by two fused kernels.

Nothing forces a synchronisation: values are not looked at, a bad row is NaN, and ``validate=True`` buys the error.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import missing_framework, refuse

try:
    import cupy
except ImportError as cause:
    missing_framework("cupy", "cupy", cause)

from ..call import Call, prepare
from ..compute import closed_form
from ..compute.arrays import Array, ArrayFunctions
from ..compute.cuda import SOURCE, THREADS, TYPES, lanes, options
from ..lowering import SoftmaxCoefficients, inside_of
from ..spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = ["loss", "loss_and_grad", "loss_parts"]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
_xp = ArrayFunctions(cupy)


def loss(
    spec: Spec,
    logits: cupy.ndarray,
    targets: Any,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    mask: Any = None,
    denominator: Any = None,
    validate: bool | None = None,
) -> cupy.ndarray:
    """Return the weighted cross-entropy that ``spec`` describes, on the logits' device.

    Parameters are those of `classweight.adapters.numpy.loss`; ``validate`` defaults to False.
    """
    arguments = (targets, sample_weight, class_weight, mask, denominator)
    with _device(logits):
        call = _prepare(spec, logits, validate, *arguments)
        return closed_form.loss_and_grad(_xp, call, gradient=False, rows_of=_rows)[0]


def loss_parts(
    spec: Spec,
    logits: cupy.ndarray,
    targets: Any,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    mask: Any = None,
    validate: bool | None = None,
) -> tuple[cupy.ndarray, cupy.ndarray]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64."""
    with _device(logits):
        call = _prepare(spec, logits, validate, targets, sample_weight, class_weight, mask)
        return closed_form.loss_parts(_xp, call, rows_of=_rows)


def loss_and_grad(
    spec: Spec,
    logits: cupy.ndarray,
    targets: Any,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    mask: Any = None,
    denominator: Any = None,
    validate: bool | None = None,
    upstream: Any = None,
) -> tuple[cupy.ndarray, cupy.ndarray]:
    """Return the loss and its gradient with respect to the logits, times ``upstream``; both in the logits' dtype."""
    arguments = (targets, sample_weight, class_weight, mask, denominator)
    with _device(logits):
        call = _prepare(spec, logits, validate, *arguments)
        return closed_form.loss_and_grad(_xp, call, upstream, rows_of=_rows)


def _device(logits: Any) -> Any:
    if not isinstance(logits, cupy.ndarray):
        refuse("logits", "be an array of CuPy", type(logits).__name__, error=TypeError)
    return logits.device


def _prepare(spec: Spec, logits: cupy.ndarray, validate: bool | None, *arguments: Any) -> Call:
    return prepare(_xp, spec, logits, *arguments, check_values=bool(validate))


def _rows(xp: ArrayFunctions, call: Call, c: Any, scale: Array | None) -> tuple[Array, Any]:
    """Return the weighted row losses and, with a scale, the gradient: fused, or by the array functions."""
    index_targets = isinstance(c, SoftmaxCoefficients) and c.index is not None and call.spec.inputs == "logits"
    known = call.logits.dtype.name in TYPES and call.logits.size
    return (_fused if index_targets and known else closed_form.of_arrays)(xp, call, c, scale)


@lru_cache
def _module(dtype: str, computed_in: str, lanes: int) -> cupy.RawModule:
    return cupy.RawModule(code=SOURCE, options=options(dtype, computed_in, lanes))


def _fused(xp: ArrayFunctions, call: Call, c: SoftmaxCoefficients, scale: Array | None) -> tuple[Array, Any]:
    z, shape, inside = (
        cupy.ascontiguousarray(call.logits),
        call.row_shape(xp),
        inside_of(xp, call.spec, call.logits.dtype),
    )
    classes, inner = z.shape[c.axis], math.prod(z.shape[c.axis + 1 :])
    rows, each = z.size // classes, lanes(classes, inner)
    module = _module(z.dtype.name, np.dtype(inside).name, each)

    def flat(x: Array | None, shape: Any = shape) -> Any:
        return np.uintp(0) if x is None else cupy.ascontiguousarray(cupy.broadcast_to(x, shape))

    row = None if c.row is None else cupy.ravel(c.row)
    arguments = (z, flat(c.index), flat(c.alpha), flat(c.beta), flat(row, (classes,)))
    sizes = (np.int64(rows), np.int32(classes), np.int64(inner))
    losses, others, rests = (cupy.empty(shape, inside) for _ in range(3))
    dominant = cupy.empty(shape, np.int32)
    grid = ((rows * each + THREADS - 1) // THREADS,)
    module.get_function("statistics")(grid, (THREADS,), (*arguments, *sizes, losses, others, rests, dominant))
    if scale is None:
        return losses, None
    gradient = cupy.empty_like(z)
    found = (others, rests, dominant, flat(scale, scale.shape), np.int32(scale.size > 1), gradient)
    module.get_function("gradient")(grid, (THREADS,), (*arguments, *sizes, *found))
    return losses, gradient
