"""Keras 3: the loss on tensors of its TensorFlow, torch or JAX backend; losses for ``compile``; weights for ``fit``.

Beneath is the private half of the backend's own adapter, of which one is imported: the one that Keras runs on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...conventions.differences import differing
from ...errors import calling, missing_framework, refuse

try:
    import keras
except ImportError as cause:
    missing_framework("keras", "keras", cause)
from keras.src.backend import get_keras_mask
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from ...conventions import keras as conventions
from ...spec import Precision, SigmoidCrossEntropy, SoftmaxCrossEntropy
from ...weights.labels import to_host
from ...weights.samples import sample_weights

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "SparseCategoricalCrossentropy",
    "fit_sample_weight",
    "loss",
    "loss_parts",
]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
Tensor = Any  # of the backend
_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")
_register = keras.saving.register_keras_serializable(package="classweight")


def _native() -> Any:
    """Return the module that computes on the backend's tensors."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        from ..tensorflow import route as native
    elif backend == "torch":
        from ..torch import route as native  # type: ignore[no-redef]
    elif backend == "jax":
        from ..jax import route as native  # type: ignore[no-redef]
    else:
        refuse("KERAS_BACKEND", "be 'tensorflow', 'torch' or 'jax'", repr(backend))
    return native


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
    """Return the weighted cross-entropy that ``spec`` describes, on tensors of the backend.

    Parameters and result are those of the backend's own adapter, whose graphs say which value is bad as that does: in
    ``fit`` on TensorFlow on the CPU, not where XLA compiles. On JAX float64 is used inside whatever
    ``jax_enable_x64`` says.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.keras as cwk
    >>> logits = keras.ops.convert_to_tensor([[1.0, 2], [1, 3], [1, 3]])
    >>> value = cwk.loss(cw.SoftmaxCrossEntropy(class_weight=[1, 2]), logits, [0, 1, 1])
    >>> round(float(value), 4)
    0.3642
    """
    native = _native()
    return native.loss(
        native.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    )


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
    native = _native()
    return native.loss_parts(  # type: ignore[no-any-return]
        native.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask)
    )


_named = calling(logits="y_pred", targets="y_true")


class _Weighted:
    """What the three losses share; Keras's own loss class comes after it."""

    spec: Spec
    dtype: str
    reduction: str | None

    def _describe(self, spec: Spec) -> None:
        """Keep the spec, whose probabilities are clipped by the epsilon that Keras is configured for."""
        self.spec = spec if spec.clip is None else dataclasses.replace(spec, clip=keras.config.epsilon())

    @_named
    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the losses of the positions."""
        logits, targets = self._prepared(y_true, y_pred)
        return loss(dataclasses.replace(self.spec, reduction="none"), logits, targets)

    @_named
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        mask = get_keras_mask(y_pred)
        logits, targets = self._prepared(y_true, y_pred)
        denominator, column = None, False
        if sample_weight is not None:
            sample_weight = _numbers(sample_weight, "sample_weight")
            column = self.spec.reduction == "none" and len(sample_weight.shape) == 2 == len(logits.shape)
            denominator = self._sum_of(sample_weight, len(logits.shape) - 1, mask)
            sample_weight = _without_trailing_ones(sample_weight)
        if mask is not None:
            mask = _without_trailing_ones(keras.ops.cast(mask, "bool"))
        value = loss(self.spec, logits, targets, sample_weight, mask=mask, denominator=denominator)
        value = value[:, None] if column else value  # Keras's shape for weights of shape (N, 1)
        return self._share_of_replica(value)

    def _prepared(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Any]:
        """Return the predictions in the loss's dtype, and the targets in their own: no float type holds every label."""
        logits, targets = keras.ops.convert_to_tensor(_numbers(y_pred, "logits"), self.dtype), _array(y_true, "targets")
        rank, axis = len(logits.shape), getattr(self.spec, "axis", -1)
        if isinstance(self, SparseCategoricalCrossentropy):
            if len(targets.shape) == rank and targets.shape[axis] == 1:
                targets = targets[(slice(None),) * (axis % rank) + (0,)]
            # Where Keras infers shapes for tf.distribute, it hands in the mean of the replicas' labels.
            if str(targets.dtype).endswith("bool") or in_symbolic_scope():
                targets = keras.ops.cast(targets, "int32")
        elif len(targets.shape) == rank + 1 and targets.shape[-1] == 1:
            logits, targets = (logits[..., None], targets) if rank == 1 else (logits, targets[..., 0])
        elif len(targets.shape) == rank - 1 and logits.shape[-1] == 1:
            logits, targets = (logits, targets[..., None]) if rank == 2 else (logits[..., 0], targets)
        return logits, targets

    def _sum_of(self, sample_weight: Any, rank: int, mask: Any) -> Any:
        """Return what Keras divides by: the sum of the weights as they are given, where nothing else weighs."""
        if self.reduction != "mean_with_sample_weight" or self.spec.class_weight is not None:
            return None
        ignored = getattr(self.spec, "ignore_index", None)
        if mask is not None or ignored is not None or len(sample_weight.shape) not in (0, rank):
            return None
        return keras.ops.sum(keras.ops.convert_to_tensor(sample_weight, dtype=self.dtype))

    def _share_of_replica(self, value: Tensor) -> Tensor:
        """Return a mean divided by the number of replicas, which ``tf.distribute`` will sum it over."""
        if keras.config.backend() == "tensorflow" and self.reduction in _MEANS:
            import tensorflow as tf

            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            return value / replicas if replicas > 1 else value
        return value

    def get_config(self) -> dict[str, Any]:
        """Return Keras's own description, the axis, the class weights and the precision."""
        config = {**super().get_config(), "precision": self.spec.precision}  # type: ignore[misc]
        if isinstance(self.spec, SoftmaxCrossEntropy):
            config["axis"] = self.spec.axis
        return {**config, "class_weight": self.spec.to_dict()["class_weight"]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the loss that `get_config` described."""
        weight: Any = config.get("class_weight")
        pairs = isinstance(weight, list | tuple) and all(isinstance(pair, list | tuple) for pair in weight)
        if pairs and not issubclass(cls, BinaryCrossentropy):
            weight = dict(weight)  # JSON has no integer keys: a mapping is kept as pairs
        return cls(**{**config, "class_weight": weight})


@differing("keras", "sparse_categorical_crossentropy")
@_register
class SparseCategoricalCrossentropy(_Weighted, keras.losses.SparseCategoricalCrossentropy):  # type: ignore[misc]
    """Drop in for ``keras.losses.SparseCategoricalCrossentropy``, with class weights.

    The class weights multiply ``fit(sample_weight=...)``, as in Keras 2, whatever the data come from. Value, gradient,
    dtype and refusals are otherwise Keras's, but for ``classweight.conventions.DIFFERENCES``.

    Parameters
    ----------
    from_logits, ignore_class, reduction, axis, name, dtype
        As in Keras.
    class_weight : mapping class -> weight, or array-like of shape (C,)
        As in ``fit``: a class that the mapping lacks weighs 1.
    precision : "native" or "exact"
        As in `classweight.SoftmaxCrossEntropy`.

    Examples
    --------
    >>> import classweight.adapters.keras as cwk
    >>> loss = cwk.SparseCategoricalCrossentropy(from_logits=True, class_weight={1: 2.0})
    >>> round(float(loss([0, 1, 1], [[1.0, 2], [1, 3], [1, 3]])), 4)
    0.607
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        *,
        class_weight: Any = None,
        precision: Precision = "native",
    ) -> None:
        spec = conventions.sparse_categorical_crossentropy(
            from_logits,
            ignore_class,
            axis,
            reduction=reduction,
            class_weight=class_weight,
            backend=keras.config.backend(),
            precision=precision,
        )
        super().__init__(from_logits, ignore_class, reduction, axis, name, dtype)
        self._describe(spec)


@differing("keras", "categorical_crossentropy")
@_register
class CategoricalCrossentropy(_Weighted, keras.losses.CategoricalCrossentropy):  # type: ignore[misc]
    """Drop in for ``keras.losses.CategoricalCrossentropy``, with class weights.

    A distribution weighs as the class of its first largest entry. Parameters are Keras's and those of
    `SparseCategoricalCrossentropy`.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        *,
        class_weight: Any = None,
        precision: Precision = "native",
    ) -> None:
        spec = conventions.categorical_crossentropy(
            from_logits, label_smoothing, axis, reduction=reduction, class_weight=class_weight, precision=precision
        )
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self._describe(spec)


@differing("keras", "binary_crossentropy")
@_register
class BinaryCrossentropy(_Weighted, keras.losses.BinaryCrossentropy):  # type: ignore[misc]
    """Drop in for ``keras.losses.BinaryCrossentropy``, with class weights.

    Each element weighs as its own label, a mapping of 0 and 1 or a pair (negative, positive). Parameters are Keras's
    and those of `SparseCategoricalCrossentropy`.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        *,
        class_weight: Any = None,
        precision: Precision = "native",
    ) -> None:
        spec = conventions.binary_crossentropy(
            from_logits, label_smoothing, axis, reduction=reduction, class_weight=class_weight, precision=precision
        )
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self._describe(spec)


@calling(targets="y")
def fit_sample_weight(
    y: npt.ArrayLike,
    class_weight: Mapping[int, float] | npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    one_hot: bool | None = None,
) -> npt.NDArray[np.float64]:
    """Return the product of class and sample weights, for ``fit(sample_weight=...)`` with one of Keras's own losses.

    Parameters
    ----------
    y : array
        Labels of shape (N,), (N, 1), or with further axes such as (N, T) or (N, H, W, 1); or distributions along the
        last axis, which weigh as the class of their first largest entry.
    class_weight : mapping class -> weight, or array-like of shape (C,)
        As in ``fit``: a class that the mapping lacks weighs 1.
    sample_weight : array, optional
        Of shape (N,), or of the positions' shape: what weighs samples is spread over their positions.
    one_hot : bool, optional
        Whether the last axis holds a distribution. Default: it does if it is longer than 1 and y is floating point.

    Returns
    -------
    ndarray of float64, in the shape of the labels

    Raises
    ------
    ValueError
        What `classweight.sample_weights` refuses of its targets and weights.

    Examples
    --------
    >>> import classweight.adapters.keras as cwk
    >>> cwk.fit_sample_weight([0, 2, 1], {2: 5.0}, [1, 0.5, 3])
    array([1. , 2.5, 3. ])
    """
    y = to_host(y, "targets")
    if y.ndim > 1 and y.shape[-1] == 1:
        y, one_hot = y[..., 0], False
    elif y.ndim > 1 and one_hot is None and y.dtype.kind == "f":
        one_hot = True
    if y.dtype.kind == "f" and not one_hot:
        y = np.rint(y).astype(np.int64)  # a half is rounded to the even, as Keras does
    if sample_weight is not None:
        sample_weight = _without_trailing_ones(to_host(sample_weight, "sample_weight"))
    weights = sample_weights(y, class_weight, sample_weight, one_hot=one_hot, missing_class_weight=1.0)
    return np.asarray(weights)


def _array(x: Any, name: str) -> Any:
    """Return a tensor of the backend as it is and anything else as an array of NumPy, its type kept."""
    try:
        return x if keras.ops.is_tensor(x) else np.asarray(x)
    except (TypeError, ValueError):
        refuse(name, "be a tensor or numbers in a regular shape", type(x).__name__, error=TypeError)


def _numbers(x: Any, name: str) -> Any:
    x = _array(x, name)
    if not any(kind in str(x.dtype) for kind in ("float", "int", "bool")):
        refuse(name, "be real numbers", str(x.dtype), error=TypeError)
    return x


def _without_trailing_ones(x: Any) -> Any:
    """Return weights such as Keras spreads over a last axis in the form that spreads them over any."""
    while len(x.shape) and x.shape[-1] == 1:
        x = x[..., 0]
    return x
