"""TensorFlow: the loss on tensors, eager, in ``tf.function`` and under XLA; drop-ins for ``tf.nn`` and the v1 losses.

The loss of logits has a gradient in closed form, which XLA compiles: of large calls in a graph, and outside of one from
the third call of the same shapes on. All else - probabilities, gradients of the gradient or to soft targets and weights
- is a composite of TensorFlow's own operations. Tapes of any order, jacobians, tangents and vectorised maps go through
either. On an accelerator or under XLA values are not looked at, for that would force a synchronisation: a bad row is
NaN there, and ``validate=True`` buys the error. A graph on the CPU looks once its loss is NaN.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from . import route  # isort: skip  (first: it words the error of a missing TensorFlow)

import tensorflow as tf

from ...conventions import tensorflow as conventions
from ...conventions.differences import differing
from ...errors import calling, refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy, _integer

__all__ = [
    "loss",
    "loss_parts",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_logits",
    "sparse_softmax_cross_entropy",
    "sparse_softmax_cross_entropy_with_logits",
    "weighted_cross_entropy_with_logits",
]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
Tensor = Any  # TensorFlow carries no types

_ROWS = conventions.v1_softmax_cross_entropy(reduction="none")
_ELEMENTS = SigmoidCrossEntropy(reduction="none")
_NONZERO = "weighted_sum_by_nonzero_weights"  # tf.compat.v1.losses.Reduction.SUM_BY_NONZERO_WEIGHTS


@route.as_it_is
def loss(
    spec: Spec,
    logits: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    class_weight: Any = None,
    mask: Tensor | None = None,
    denominator: Tensor | float | None = None,
    validate: bool | None = None,
) -> Tensor:
    """Return the weighted cross-entropy that ``spec`` describes, differentiable in whatever a tape watches.

    Parameters are those of `classweight.adapters.numpy.loss`, as tensors or what NumPy makes arrays of. The number of
    classes must be known in advance, all other lengths need not be. In addition:

    Parameters
    ----------
    class_weight : Tensor, optional
        May be watched, as may ``sample_weight`` and targets that are distributions.
    validate : bool, optional
        Look at the values. Default: on the CPU; what XLA compiles does not. A graph looks when it runs, and raises
        ``tf.errors.InvalidArgumentError``. By default it does so where its loss is NaN, with an assertion that says the
        argument, what was expected, what came and where; losses of single elements show their own NaN. True looks
        before, on the host, whatever the device, with the eager sentence; XLA compiles no such look.

    Returns
    -------
    Tensor of the logits' dtype
        In nats; of the position shape for ``reduction="none"``, else 0-d.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.tensorflow as cwtf
    >>> logits = tf.constant([[1.0, 2], [1, 3], [1, 3]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(logits)
    ...     value = cwtf.loss(cw.SoftmaxCrossEntropy(class_weight=[1, 2]), logits, tf.constant([0, 1, 1]))
    >>> print(tape.gradient(value, logits).numpy().round(4))
    [[-0.1462  0.1462]
     [ 0.0477 -0.0477]
     [ 0.0477 -0.0477]]
    """
    call = route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    return route.loss(call)


@route.as_it_is
def loss_parts(
    spec: Spec,
    logits: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    class_weight: Any = None,
    mask: Tensor | None = None,
    validate: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    Both are differentiable, and the parts of several micro-batches or replicas add up to the whole batch's. Parameters
    are those of `loss`.
    """
    call = route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask)
    return route.loss_parts(call)


@differing("tensorflow", "sparse_softmax_cross_entropy_with_logits")
@route.as_it_is
@calling(targets="labels")
def sparse_softmax_cross_entropy_with_logits(labels: Tensor, logits: Tensor, name: str | None = None) -> Tensor:
    """Drop in for ``tf.nn.sparse_softmax_cross_entropy_with_logits``: its arguments, values, dtype, shape, refusals.

    The differences, each for the better, are those of ``classweight.conventions.DIFFERENCES``.
    """
    return _named(loss(_ROWS, logits, _labels(labels)), name)


@differing("tensorflow", "softmax_cross_entropy_with_logits")
@route.as_it_is
@calling(targets="labels")
def softmax_cross_entropy_with_logits(
    labels: Tensor, logits: Tensor, axis: int = -1, name: str | None = None
) -> Tensor:
    """Drop in for ``tf.nn.softmax_cross_entropy_with_logits``; its gradient is right whatever the labels sum to."""
    logits, axis = route.tensor(logits, "logits"), _integer("axis", axis, "be an int")
    labels = tf.cast(route.tensor(labels, "labels"), logits.dtype)
    if labels.shape.as_list() != logits.shape.as_list():
        labels = _spread(labels, logits, axis)
        logits, axis = tf.experimental.numpy.moveaxis(logits, axis, -1), -1
    return _named(loss(dataclasses.replace(_ROWS, axis=axis), logits, labels), name)


def _spread(labels: Tensor, logits: Tensor, axis: int) -> Tensor:
    """Return labels in the logits' shape, classes last: one row for all or a row for each, as TensorFlow takes them."""
    came = f"shapes {tuple(labels.shape)} and {tuple(logits.shape)}"
    if not labels.shape.rank or not logits.shape.rank:
        refuse("labels", "have a class axis, as logits must", came)
    for x in (labels, logits)[labels.shape.rank == 1 :]:
        if not -x.shape.rank <= axis < x.shape.rank:
            refuse("axis", f"be an axis of labels and logits, of {came}", axis)
    if labels.shape.rank > 1:
        labels = tf.experimental.numpy.moveaxis(labels, axis, -1)
    num_rows, num_classes = labels.shape[:-1].num_elements(), labels.shape[-1]
    like = tf.experimental.numpy.moveaxis(logits, axis, -1)
    of_logits = like.shape[:-1].num_elements()
    if num_rows not in (None, 1) and of_logits not in (None, num_rows):
        refuse("labels", "have one row, or as many as the logits", came)
    positions = tf.shape(like)[:-1]
    if num_rows == 1:
        labels = tf.broadcast_to(tf.reshape(labels, (num_classes,)), (*positions, num_classes))
    else:
        labels = tf.reshape(labels, (*positions, num_classes))
    return tf.broadcast_to(labels, tf.shape(like)) if num_classes == 1 else labels


@differing("tensorflow", "weighted_cross_entropy_with_logits")
@route.as_it_is
@calling(targets="labels", class_weight="pos_weight")
def weighted_cross_entropy_with_logits(
    labels: Tensor, logits: Tensor, pos_weight: Tensor | float, name: str | None = None
) -> Tensor:
    """Drop in for ``tf.nn.weighted_cross_entropy_with_logits``."""
    logits = route.tensor(logits, "logits")
    labels = route.tensor(labels, "labels", logits.dtype)
    if labels.dtype != logits.dtype:
        refuse("labels", f"have the logits' dtype {logits.dtype.name}", labels.dtype.name, error=TypeError)
    pos_weight = route.tensor(pos_weight, "pos_weight", logits.dtype)
    return _named(loss(_ELEMENTS, logits, labels, class_weight=(1.0, pos_weight)), name)


@differing("tensorflow", "v1 losses")
@route.as_it_is
@calling(targets="labels", sample_weight="weights")
def sparse_softmax_cross_entropy(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | float = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = _NONZERO,
) -> Tensor:
    """Drop in for ``tf.compat.v1.losses.sparse_softmax_cross_entropy``."""
    logits, labels = route.tensor(logits, "logits"), _labels(labels)
    if logits.shape.rank == labels.shape.rank:
        labels = _squeezed("labels", labels)
    elif logits.shape.rank == labels.shape.rank + 2:
        logits = _squeezed("logits", logits)
    weights = route.tensor(weights, "weights")
    if weights.shape.rank == labels.shape.rank + 1:
        weights = _squeezed("weights", weights)
    spec = conventions.v1_softmax_cross_entropy(reduction=reduction)
    return _v1_loss(spec, logits, labels, weights, scope, loss_collection)


@differing("tensorflow", "v1 losses")
@route.as_it_is
@calling(targets="onehot_labels", sample_weight="weights")
def softmax_cross_entropy(
    onehot_labels: Tensor,
    logits: Tensor,
    weights: Tensor | float = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = _NONZERO,
) -> Tensor:
    """Drop in for ``tf.compat.v1.losses.softmax_cross_entropy``."""
    logits = route.tensor(logits, "logits")
    labels = tf.stop_gradient(tf.cast(route.tensor(onehot_labels, "onehot_labels"), logits.dtype))
    spec = conventions.v1_softmax_cross_entropy(label_smoothing, reduction)
    return _v1_loss(spec, logits, labels, weights, scope, loss_collection)


@differing("tensorflow", "v1 losses")
@route.as_it_is
@calling(targets="multi_class_labels", sample_weight="weights")
def sigmoid_cross_entropy(
    multi_class_labels: Tensor,
    logits: Tensor,
    weights: Tensor | float = 1.0,
    label_smoothing: float = 0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = _NONZERO,
) -> Tensor:
    """Drop in for ``tf.compat.v1.losses.sigmoid_cross_entropy``."""
    logits = route.tensor(logits, "logits")
    labels = tf.cast(route.tensor(multi_class_labels, "multi_class_labels"), logits.dtype)
    ours = conventions.v1_softmax_cross_entropy(reduction=reduction).reduction
    spec = SigmoidCrossEntropy(label_smoothing=label_smoothing, reduction=ours)
    return _v1_loss(spec, logits, labels, weights, scope, loss_collection)


def _v1_loss(
    spec: Spec, logits: Tensor, labels: Tensor, weights: Tensor, scope: str | None, collection: str | None
) -> Tensor:
    """Return the loss; in a graph of TensorFlow 1 it joins the collection of losses, as the native ones do."""
    weights = route.tensor(weights, "weights")
    if weights.shape.rank:
        like = logits if isinstance(spec, SigmoidCrossEntropy) else logits[..., 0]
        if weights.shape.rank != like.shape.rank:
            refuse("weights", f"be a scalar or have {like.shape.rank} axes", f"shape {tuple(weights.shape)}")
        weights = _broadcast("weights", weights, like)
    value = _named(loss(spec, logits, labels, weights), scope)
    if not tf.executing_eagerly() and collection:
        tf.compat.v1.losses.add_loss(value, collection)
    return value


def _labels(labels: Tensor) -> Tensor:
    labels = route.tensor(labels, "labels")
    if labels.dtype not in (tf.int32, tf.int64):
        refuse("labels", "be int32 or int64", labels.dtype.name, error=TypeError)
    return labels


def _squeezed(name: str, x: Tensor) -> Tensor:
    if x.shape[-1] not in (None, 1):
        refuse(name, "have a last axis of length 1, or none", f"shape {tuple(x.shape)}")
    return tf.squeeze(x, -1)


def _broadcast(name: str, x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` in the shape of ``like``, which it may not enlarge."""
    if x.shape.rank > like.shape.rank or not all(
        n in (1, m) or None in (n, m) for n, m in zip(x.shape[::-1], like.shape[::-1], strict=False)
    ):
        refuse(name, f"broadcast to the shape {tuple(like.shape)}", tuple(x.shape))
    return tf.broadcast_to(x, tf.shape(like))


def _named(value: Tensor, name: str | None) -> Tensor:
    return value if name is None else tf.identity(value, name=name)
