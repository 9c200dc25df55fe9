"""NumPy: the loss and, there being no autograd, its gradient in closed form.

Logits of float16, float32, float64, or of ml_dtypes' bfloat16. Arguments may be anything that NumPy makes arrays of.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..call import Call
from ..compute import cpu
from ..errors import refuse
from ..spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = ["loss", "loss_and_grad", "loss_parts"]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy


def _prepare(spec: Spec, logits: npt.ArrayLike, validate: bool | None, *arguments: Any) -> Call:
    try:
        logits = np.asarray(logits)
    except (TypeError, ValueError):
        refuse("logits", "be numbers in a regular shape", type(logits).__name__, error=TypeError)
    return cpu.prepare(spec, logits, *arguments, check_values=validate is not False)


def loss(
    spec: Spec,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: npt.ArrayLike | None = None,
    denominator: float | None = None,
    validate: bool | None = None,
) -> Any:
    """Return the weighted cross-entropy that ``spec`` describes.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
    logits : array of shape (N, C), (N, C, d1, ...), (C,), or any with the classes on ``spec.axis``
        The input that ``spec.inputs`` names, of a floating type.
    targets : array
        Integers in the logits' shape without the class axis, or a distribution (real or bool, entries >= 0) in the
        logits' shape. For a binary loss: numbers >= 0, 0 or 1 or between, in the logits' shape.
    sample_weight : array, optional
        Finite, of either sign; a scalar or of a shape that is a prefix of the position shape, spread over the rest.
        It multiplies the class weight.
    class_weight : array of shape (C,), optional
        Used instead of the spec's: finite, of either sign. For a binary loss a pair (negative, positive).
    mask : array of bool, optional
        False where a position is ignored; a prefix of the position shape.
    denominator : float, optional
        What a mean divides by instead of its own denominator: the whole batch's, when this is a part of it. Finite, and
        of either sign, as a sum of weights is.
    validate : bool, optional
        False skips looking at the values: a bad row then is NaN, never a wrong number.

    Returns
    -------
    ndarray or scalar of the logits' dtype
        In nats; of the position shape for ``reduction="none"``, else 0-d.

    Raises
    ------
    ValueError
        Shapes that do not fit, a class index out of range (an IndexError too), weights that are not finite.
    TypeError
        Logits that are not floating point, targets or weights that are no numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import classweight as cw
    >>> import classweight.adapters.numpy as cwn
    >>> logits, targets = np.array([[1.0, 2], [1, 3], [1, 3]]), np.array([0, 1, 1])
    >>> print(cwn.loss(cw.SoftmaxCrossEntropy(class_weight=[1, 2]), logits, targets).round(4))
    0.3642
    """
    call = _prepare(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    with np.errstate(all="ignore"):
        return cpu.loss_and_grad(call, gradient=False)[0][()]


def loss_parts(
    spec: Spec,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: npt.ArrayLike | None = None,
    validate: bool | None = None,
) -> tuple[np.float64, np.float64]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    The parts of the micro-batches of one step add up to the whole batch's. Parameters are those of `loss`.
    """
    call = _prepare(spec, logits, validate, targets, sample_weight, class_weight, mask)
    with np.errstate(all="ignore"):
        numerator, denominator = cpu.loss_parts(call)
    return numerator[()], denominator[()]


def loss_and_grad(
    spec: Spec,
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    class_weight: Any = None,
    mask: npt.ArrayLike | None = None,
    denominator: float | None = None,
    validate: bool | None = None,
    upstream: npt.ArrayLike | None = None,
) -> tuple[Any, npt.NDArray[Any]]:
    """Return the loss and its gradient with respect to the logits, both in the logits' dtype.

    ``upstream``, of the loss's shape, multiplies the gradient: what an autograd would hand in. Other parameters are
    those of `loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import classweight as cw
    >>> import classweight.adapters.numpy as cwn
    >>> value, gradient = cwn.loss_and_grad(cw.SoftmaxCrossEntropy(), np.array([[1.0, 0.0]]), np.array([1]))
    >>> print(gradient.round(7))
    [[ 0.7310586 -0.7310586]]
    """
    call = _prepare(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    with np.errstate(all="ignore"):
        value, gradient = cpu.loss_and_grad(call, upstream)
    return value[()], gradient
