"""Chainer: the loss as a differentiable function on Variables, on NumPy and CuPy arrays; drop-ins.

Any order of gradient may be asked for. On a GPU values are not looked at, for that would force a synchronisation: a bad
row is NaN there, and ``validate=True`` buys the error.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Any

from . import route  # isort: skip  (first: it words the error of a missing chainer)

import chainer
import numpy as np
from chainer import Variable

from ...conventions import chainer as conventions
from ...conventions.differences import differing
from ...errors import calling, refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = ["loss", "loss_parts", "sigmoid_cross_entropy", "softmax_cross_entropy"]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
_ARRAYS = (Variable, *chainer.get_array_types())


def loss(
    spec: Spec,
    logits: Any,
    targets: Any,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    mask: Any = None,
    denominator: Any = None,
    validate: bool | None = None,
) -> Variable:
    """Return the weighted cross-entropy that ``spec`` describes, differentiable in whatever requires a gradient.

    Parameters are those of `classweight.adapters.numpy.loss`, as Variables or arrays; logits are of NumPy or CuPy. In
    addition:

    Parameters
    ----------
    class_weight : Variable, optional
        Gets a gradient if it requires one, as do ``sample_weight`` and targets that are distributions.
    validate : bool, optional
        Look at the values. Default: where they are NumPy's.

    Returns
    -------
    Variable of the logits' dtype
        In nats; of the position shape for ``reduction="none"``, else 0-d.

    Examples
    --------
    As the loss of a classifier:

    >>> import functools
    >>> import chainer.links as L
    >>> import classweight as cw
    >>> import classweight.adapters.chainer as cwch
    >>> spec = cw.SoftmaxCrossEntropy(class_weight=[1, 2])
    >>> model = L.Classifier(L.Linear(3, 2), lossfun=functools.partial(cwch.loss, spec))

    For several labels an element, with weights for each: what ``F.average(F.sigmoid_cross_entropy(x, t, reduce="no"),
    weights=w)`` computes, elements labelled -1 left out of both sums.

    >>> import numpy as np
    >>> x, t = np.array([[0.5, -1, 2], [0, 1, -2]], np.float32), np.array([[1, 0, 1], [1, -1, 0]])
    >>> w = np.array([[1, 2, 5], [1, 2, 5]], np.float32)
    >>> average = cw.SigmoidCrossEntropy(ignore_label=-1)
    >>> print(cwch.loss(average, x, t, w).array.round(4))
    0.2188
    """
    xp, call = route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    return route.loss(xp, call, logits)


def loss_parts(
    spec: Spec,
    logits: Any,
    targets: Any,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    mask: Any = None,
    validate: bool | None = None,
) -> tuple[Variable, Variable]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    Both are differentiable, and the parts of several batches add up to the whole's. Parameters are those of `loss`.
    """
    xp, call = route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask)
    return route.loss_parts(xp, call, logits)


@differing("chainer", "softmax_cross_entropy")
@calling(logits="x", targets="t")
def softmax_cross_entropy(
    x: Any,
    t: Any,
    normalize: bool = True,
    cache_score: bool = True,
    class_weight: Any = None,
    ignore_label: int = -1,
    reduce: str = "mean",
    enable_double_backprop: bool = False,
    soft_target_loss: str = "cross-entropy",
) -> Variable:
    """Drop in for ``chainer.functions.softmax_cross_entropy``: its arguments, value, gradient, dtype and refusals.

    What Chainer leaves to ``chainer.config.type_check`` is refused only while that is on. Double backprop works without
    being enabled. The differences, each for the better, are those of ``classweight.conventions.DIFFERENCES``.
    """
    _check_arrays(x=x, t=t)
    t = chainer.as_array(t)  # as in Chainer, which differentiates by x alone
    checked = chainer.config.type_check
    soft = t.dtype.kind == "f" or not (checked or enable_double_backprop or t.shape != x.shape)
    spec = _spec(normalize, ignore_label, reduce, soft_target_loss, soft)
    if class_weight is not None:
        _check_class_weight(class_weight, x.dtype if enable_double_backprop and checked else None)
    if x.dtype.kind != "f":
        refuse("x", "be floating point", x.dtype, error=TypeError)
    if not soft:
        labels = _labels(x, t, loose=enable_double_backprop)
        if enable_double_backprop and class_weight is not None:
            wide = np.result_type(x.dtype, class_weight.dtype)
            if reduce == "no" or (x.dtype == np.float16 and wide == np.float32):  # else Chainer returns the type of x
                x = _cast(x, wide)
        value = loss(spec, x, labels, class_weight=class_weight)
        return value if reduce == "mean" else value.reshape(t.shape)
    if enable_double_backprop:
        advice = "True, which is for labels; distributions have double backprop without it"
        refuse("enable_double_backprop", "be False where `t` holds distributions", advice)
    if x.ndim < 2 or t.shape != x.shape:
        refuse("t", f"have the shape of `x`, {x.shape}, of 2 axes or more, where it is floating point", t.shape)
    is_kl = soft_target_loss == "kl-divergence"
    x = _cast(x, np.result_type(x.dtype, np.float64 if is_kl and t.dtype.kind != "f" else t.dtype))
    value = loss(spec, x, t, class_weight=class_weight)
    if is_kl:
        # sum t log(t + 1e-7) is the cross-entropy of t with itself, but for its sign.
        log_t = chainer.backend.get_array_module(t).log(t.astype(x.dtype) + 1e-7)
        value -= loss(dataclasses.replace(spec, inputs="log_probs"), log_t, t, class_weight=class_weight)
    return value


@differing("chainer", "sigmoid_cross_entropy")
@calling(logits="x", targets="t")
def sigmoid_cross_entropy(x: Any, t: Any, normalize: bool = True, reduce: str = "mean") -> Variable:
    """Drop in for ``chainer.functions.sigmoid_cross_entropy``: its arguments, value, gradient, dtype and refusals.

    With ``chainer.config.type_check`` off it takes what Chainer then takes: numbers between 0 and 1, and labels that
    broadcast to the shape of ``x``, each of which the mean counts once.
    """
    _check_arrays(x=x, t=t)
    t = chainer.as_array(t)
    checked = chainer.config.type_check
    if t.dtype.kind not in ("i" if checked else "iuf"):
        refuse("t", f"be of a {'signed integer' if checked else 'numeric'} type", t.dtype, error=TypeError)
    xp, denominator = chainer.backend.get_array_module(t), None
    if t.dtype.kind != "f":
        t = _binary_labels(xp, t)
    if t.shape != x.shape and not checked and _broadcasts(t.shape, x.shape):
        if normalize and reduce == "mean":
            denominator = xp.maximum(1, (t != -1).sum())
        t = xp.broadcast_to(t, x.shape)
    return loss(conventions.sigmoid_cross_entropy(normalize, reduce), x, t, denominator=denominator)


def _binary_labels(xp: Any, t: Any) -> Any:
    outside = (t < -1) | (t > 1)
    if xp is not np:  # a negative label becomes NaN, and no synchronisation is forced
        return xp.where(outside, -2, t)
    if outside.any():
        first = tuple(np.argwhere(outside)[0].tolist())
        refuse("t", "be 0, 1, or -1 where ignored", t[first], f"at position {first}" if first else "")
    return t


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def _cast(x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype else chainer.functions.cast(x, dtype)


def _spec(*arguments: Any) -> Any:
    try:
        return _kept_spec(*arguments)
    except TypeError:  # what cannot be hashed is refused in words
        return _kept_spec.__wrapped__(*arguments)


@lru_cache(maxsize=64, typed=True)
def _kept_spec(normalize: Any, ignore_label: Any, reduce: Any, soft_target_loss: Any, soft_targets: bool) -> Any:
    return conventions.softmax_cross_entropy(
        normalize,
        ignore_label=ignore_label,
        reduce=reduce,
        soft_target_loss=soft_target_loss,
        soft_targets=soft_targets,
    )


def _check_arrays(**arguments: Any) -> None:
    for name, x in arguments.items():
        if not isinstance(x, _ARRAYS):
            refuse(name, "be a Variable or an array", type(x).__name__, error=TypeError)


def _check_class_weight(weight: Any, dtype: Any) -> None:
    """Refuse what Chainer refuses, whose other implementation insists on the logits' type."""
    if isinstance(weight, Variable):
        refuse("class_weight", "be an array, a constant", "a Variable; `loss` takes one")
    _check_arrays(class_weight=weight)
    if weight.ndim != 1:
        refuse("class_weight", "be 1-d, one per class", f"shape {weight.shape}")
    if weight.dtype.kind != "f" or (dtype is not None and weight.dtype != dtype):
        refuse("class_weight", f"be of type {'float' if dtype is None else dtype}", weight.dtype)


def _labels(x: Any, t: Any, *, loose: bool) -> Any:
    """Return the labels in the shape of x without its classes.

    Chainer is loose where it enables double backprop, and where it checks no types.
    """
    checked = chainer.config.type_check
    if t.dtype.kind not in ("i" if checked else "iu") + ("b" if loose else ""):
        kind = "a signed" if checked else "an"
        refuse("t", f"be labels of {kind} integer type, or distributions of floating point", t.dtype, error=TypeError)
    shape, exact = x.shape[:1] + x.shape[2:], checked and not loose
    if x.ndim < 2 or (t.shape != shape if exact else t.size != np.prod(shape, dtype=int)):
        refuse("t", f"have the shape of `x`, {x.shape}, without its second axis", t.shape)
    return t.astype(np.int8 if t.dtype.kind == "b" else t.dtype, copy=False).reshape(shape)
