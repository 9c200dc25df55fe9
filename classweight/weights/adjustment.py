"""Logit adjustment: per-class offsets of the logits, in place of class weights."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import refuse
from ..spec import _integer, _number
from . import labels as _labels
from .schemes import class_weights

__all__ = ["adjust_logits", "logit_offsets"]

Logits = TypeVar("Logits")


def logit_offsets(labels: Any = None, tau: float = 1.0, *, counts: Any = None, **reading: Any) -> npt.NDArray[Any]:
    """Return ``tau log(prior)`` of each class, from labels or from counts.

    Parameters
    ----------
    labels, counts
        As in `class_weights`; the prior is a class's share of the samples.
    tau : float
        Finite. 1 is the Bayes-optimal choice for the balanced error.
    **reading
        ``num_classes``, ``class_names``, ``sample_weight``, ``mask``, ``ignore_index``, ``one_hot``, ``axis``: as in
        `class_weights`.

    Returns
    -------
    array of float64 of shape (C,)
        In nats, each at most 0 where tau > 0. In training they are added to the logits that go into the loss, by
        `adjust_logits`, and left out at prediction; or, with a model that was trained without them, ``-offsets`` are
        added at prediction.

    Raises
    ------
    ValueError, TypeError
        A class without a sample, for its prior has no logarithm; what `class_weights` refuses.

    Notes
    -----
    Source: Menon, Jayasumana, Rawat, Jain, Veit and Kumar, "Long-tail learning via logit adjustment", ICLR 2021,
    equations 9 (prediction) and 10 (loss).

    Examples
    --------
    >>> logit_offsets(counts=[90, 10]).round(4).tolist()
    [-0.1054, -2.3026]
    """
    tau = _number("tau", tau, "be a finite number", np.isfinite)
    if not {*reading} <= {"num_classes", "class_names", "sample_weight", "mask", "ignore_index", "one_hot", "axis"}:
        raise TypeError(f"logit_offsets() got an unexpected keyword argument {next(iter(reading))!r}")
    weights = class_weights(labels, "inverse", counts=counts, **reading)
    if isinstance(weights, list | dict):
        refuse("labels", "be those of one output", f"{len(weights)} outputs")
    return np.asarray(tau * np.log(weights.share))


def adjust_logits(logits: Logits, offsets: npt.ArrayLike, *, axis: int = -1) -> Logits:
    """Return the logits with each class's offset added.

    Parameters
    ----------
    logits : array or tensor of any framework
        Of a floating type. Gradients flow through; the type and the device stay.
    offsets : array-like of shape (C,)
        Of `logit_offsets`: constants that the host can read.
    axis : int
        The class axis: the last, and 1 for PyTorch's maps of shape ``(N, C, d1, ...)``.

    Raises
    ------
    ValueError, TypeError
        Another number of offsets than the axis is long; logits that are no array, or of another type.

    Examples
    --------
    >>> import numpy as np
    >>> adjust_logits(np.zeros((1, 2), np.float32), [-0.5, -1])
    array([[-0.5, -1. ]], dtype=float32)
    """
    x: Any = logits
    if not hasattr(x, "ndim") or "float" not in str(getattr(x, "dtype", "")):
        got = getattr(x, "dtype", type(x).__name__)
        refuse("logits", "be an array or a tensor of a floating type", got, error=TypeError)
    if not -x.ndim <= _integer("axis", axis, "be an int") < x.ndim:
        refuse("axis", f"be an axis of the logits, whose shape is {tuple(x.shape)}", axis)
    given = _labels.to_host(offsets, "offsets")
    if given.shape != (x.shape[axis],):
        refuse("offsets", f"have shape ({x.shape[axis]},), one per class", given.shape)
    shape = [1] * x.ndim
    shape[axis] = -1
    given = given.astype(np.float64).reshape(shape)
    if hasattr(x, "new_tensor"):  # PyTorch
        return x + x.new_tensor(given)  # type: ignore[no-any-return]
    # TensorFlow's types are its own; a Variable of Chainer, and an array of CuPy or JAX, know where they live.
    given = given.astype(getattr(x.dtype, "as_numpy_dtype", x.dtype))
    home = getattr(x, "xp", None) or (x.__array_namespace__() if hasattr(x, "__array_namespace__") else np)
    return x + home.asarray(given)  # type: ignore[no-any-return]
