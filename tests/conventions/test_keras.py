"""Keras's losses against their conventions, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference

from .configurations import COUNT, SHAPES, Batch, assert_same, batch, binary_batch, upstream
from .differences import Shown, named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    from keras.src.backend import set_keras_mask
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

BACKEND = keras.config.backend()
if BACKEND == "jax":
    import jax

    jax.config.update("jax_enable_x64", True)

# The other backends' operations return float32 for float64.
ROUNDING = np.dtype("float64" if BACKEND == "tensorflow" else "float32")
REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None]
pytestmark = [
    pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy, expected y_pred.shape:SyntaxWarning"),
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The model does not have any trainable weights:UserWarning"),
]
shows = Shown("keras")
# JAX compiles for every shape anew.
cases = pytest.mark.parametrize("case", range(COUNT // 4 if BACKEND == "jax" else COUNT))
pages = conventions.keras


def native(function: Callable[[Any], Any], y_pred: Any) -> tuple[Any, Any]:
    """Return Keras's loss and, where the backend differentiates, its gradient."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        x = tf.constant(y_pred)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = function(x)
            total = tf.reduce_sum(loss * upstream(tuple(loss.shape), x.dtype.name))
        return loss.numpy(), tape.gradient(total, x).numpy()
    if BACKEND == "torch":
        import torch

        x = torch.tensor(y_pred, requires_grad=True)
        loss = function(x)
        loss.backward(torch.tensor(upstream(tuple(loss.shape), str(y_pred.dtype))))
        return loss.detach().numpy(), x.grad.numpy()
    if BACKEND == "jax":

        @jax.jit
        def step(x: Any) -> Any:
            loss, pull_back = jax.vjp(function, x)
            return loss, *pull_back(jax.numpy.asarray(upstream(loss.shape, str(y_pred.dtype))))

        loss, gradient = step(jax.numpy.asarray(y_pred))
        return np.asarray(loss), np.asarray(gradient)
    return np.asarray(function(np.array(y_pred))), None


def check(got: tuple[Any, Any], spec: Any, y_pred: Any, *args: Any, **kwargs: Any) -> None:
    assert_same(got, spec, y_pred, *args, dtype=max(ROUNDING, y_pred.dtype, key=lambda t: np.finfo(t).eps), **kwargs)


def of(kind: str, y_true: Any, y_pred: Any, sample_weight: Any = None, **arguments: Any) -> tuple[Any, Any]:
    """Return the loss class's value and gradient, computed in the predictions' dtype."""
    y_pred = np.asarray(y_pred)
    loss = getattr(keras.losses, kind)(dtype=str(y_pred.dtype), **arguments)
    return native(lambda x: loss(np.asarray(y_true), x, sample_weight=sample_weight), y_pred)


def predictions(b: Any, from_logits: bool, axis: int) -> Any:
    if from_logits:
        return np.moveaxis(b.logits, 1, axis)
    return np.moveaxis(b.probabilities(normalised=b.pick(True, False), ends=not clips_in_float32()), 1, axis)


def clips_in_float32() -> bool:
    return BACKEND == "numpy" and named("keras-float32-clip")


def fit_weights(b: Batch, y_true: Any) -> tuple[Any, Any, Any]:
    """Return a class weight, our sample weight, and both as Keras's sample weight: it does not take both itself."""
    if b.labels.ndim > 1 or b.pick(True, False):
        weight = b.pick(None, b.sample_weight)
        return None, weight, weight
    mapping, weight = b.weight_mapping, b.pick(1.0, b.sample_weight)
    assert named("keras-weight-product")
    return mapping, weight, class_weight_to_sample_weights(y_true, mapping).astype(b.dtype) * weight


@cases
def test_sparse_categorical_crossentropy(case: int) -> None:
    from_logits = case % 2 == 0
    b = batch(
        case, shapes=[*SHAPES, (0, 2)], min_classes=2, dtypes=("float64", "float32") if from_logits else ("float64",)
    )
    label = b.pick(None, -1, 255, 0)
    y_true = b.labels if label is None else b.marked(label)
    axis = b.pick(-1, 1) if BACKEND == "torch" else -1
    if axis == 1 and b.labels.ndim > 1 and b.labels.shape[-1] == 1:
        assert named("keras-trailing-axis")
        axis = -1
    y_pred = predictions(b, from_logits, axis)
    class_weight, ours, theirs = fit_weights(b, y_true)
    arguments = {"from_logits": from_logits, "ignore_class": label, "axis": axis, "reduction": b.pick(*REDUCTIONS)}
    spec = pages.sparse_categorical_crossentropy(**arguments, class_weight=class_weight, backend=BACKEND)
    got = of("SparseCategoricalCrossentropy", y_true, y_pred, theirs, **arguments)
    check(got, spec, y_pred, y_true, ours)


@cases
def test_categorical_crossentropy(case: int) -> None:
    from_logits = case % 2 == 0
    b = batch(
        case, shapes=[*SHAPES, (0, 2)], min_classes=2, dtypes=("float64", "float32") if from_logits else ("float64",)
    )
    axis = b.pick(-1, -1, 1)
    y_true = np.moveaxis(b.distributions(normalised=from_logits), 1, axis)
    y_pred = predictions(b, from_logits, axis)
    class_weight, ours, theirs = fit_weights(b, y_true)
    last = axis == -1 or y_pred.ndim == 2
    arguments = {"from_logits": from_logits, "axis": axis, "label_smoothing": b.smoothing if last else 0.0}
    arguments["reduction"] = b.pick(*REDUCTIONS)
    spec = pages.categorical_crossentropy(**arguments, class_weight=class_weight)
    got = of("CategoricalCrossentropy", y_true, y_pred, theirs, **arguments)
    check(got, spec, y_pred, y_true, ours)


@cases
def test_binary_crossentropy(case: int) -> None:
    from_logits = case % 2 == 0
    b = binary_batch(case, dtypes=("float64", "float32") if from_logits else ("float64",))
    y_true = b.targets()
    y_pred = b.logits if from_logits else b.probabilities(ends=not clips_in_float32())
    class_weight, ours = None, b.pick(None, b.row_weight)
    theirs = ours
    if y_true.shape[1:] == (1,) and b.pick(True, False):
        class_weight = {c: w for c, w in enumerate([0.5, 3]) if b.pick(True, True, False)}
        theirs = class_weight_to_sample_weights(y_true, class_weight).astype(b.dtype)
        theirs = theirs if ours is None else theirs * ours
    arguments = {"from_logits": from_logits, "label_smoothing": b.smoothing, "reduction": b.pick(*REDUCTIONS)}
    if y_true.ndim == 1 and ours is not None and arguments["reduction"] == "mean_with_sample_weight":
        assert named("keras-single-position")
        arguments["reduction"] = "sum"
    spec = pages.binary_crossentropy(**arguments, class_weight=class_weight)
    check(of("BinaryCrossentropy", y_true, y_pred, theirs, **arguments), spec, y_pred, y_true, ours)


@pytest.mark.parametrize("case", range(COUNT // 4))
def test_a_mask_leaves_the_mean(case: int) -> None:
    b = batch(case, min_classes=2, dtypes=("float64",))
    y_pred = np.moveaxis(b.logits, 1, -1)
    mask, weight, reduction = ~b.ignored, b.pick(None, b.sample_weight), b.pick(*REDUCTIONS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction, dtype="float64")

    def masked(x: Any) -> Any:
        x = keras.ops.convert_to_tensor(x)
        set_keras_mask(x, keras.ops.convert_to_tensor(mask))
        return loss(b.labels, x, sample_weight=weight)

    spec = pages.sparse_categorical_crossentropy(from_logits=True, reduction=reduction)
    check(native(masked, y_pred), spec, y_pred, b.labels, weight, mask=mask)


class TestTraining:
    def train(self, x: Any, y: Any, loss: Any, **weights: Any) -> Any:
        """Return the loss that train_on_batch reports of a model that does nothing."""
        model = keras.Sequential([keras.layers.Input(x.shape[1:]), keras.layers.Identity()])
        model.compile(loss=loss, optimizer="sgd", run_eagerly=BACKEND != "jax")
        return model.train_on_batch(x, y, **weights)

    @pytest.mark.parametrize("case", range(24))
    def test_class_weights_are_those_of_train_on_batch(self, case: int) -> None:
        b = batch(case, shapes=[(2,), (5,), (7,)], min_classes=2, dtypes=("float32",))
        soft, mapping, reduction = case % 2 == 0, b.weight_mapping, b.pick("mean", "mean_with_sample_weight", "sum")
        arguments = {"from_logits": True, "reduction": reduction}
        if soft:
            y, loss = b.distributions(normalised=True), keras.losses.CategoricalCrossentropy(**arguments)
            spec = pages.categorical_crossentropy(**arguments, class_weight=mapping)
        else:
            y, loss = b.labels, keras.losses.SparseCategoricalCrossentropy(**arguments)
            spec = pages.sparse_categorical_crossentropy(**arguments, class_weight=mapping)
        got = self.train(b.logits, y, loss, class_weight=mapping)
        check((got, None), spec, b.logits, y)

    def test_class_and_sample_weights_together_are_refused(self) -> None:
        assert named("keras-weight-product")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        with pytest.raises(ValueError, match="`sample_weight` and `class_weight` cannot be specified at the same time"):
            self.train(np.array(Z), np.array([0, 1]), loss, class_weight={0: 2.0}, sample_weight=np.ones(2))


if BACKEND == "numpy":  # on which Keras does not train
    del TestTraining


Z = [[2.0, -1, 0.5], [0, 1, -2]]
CLOSE = 64 * float(np.finfo(ROUNDING).eps)
SPARSE, DENSE, BINARY = "SparseCategoricalCrossentropy", "CategoricalCrossentropy", "BinaryCrossentropy"


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [[1, -0.5], [-2, 0.25]], ids=str)
def test_weights_of_either_sign(weight: Any, reduction: Any) -> None:
    weight, arguments = np.array(weight), {"from_logits": True, "reduction": reduction}
    z, labels, hot = np.array(Z), np.array([0, 1]), np.eye(3)[:2]
    check(
        of(SPARSE, labels, z, weight, **arguments),
        pages.sparse_categorical_crossentropy(**arguments),
        z,
        labels,
        weight,
    )
    check(of(DENSE, hot, z, weight, **arguments), pages.categorical_crossentropy(**arguments), z, hot, weight)
    check(of(BINARY, hot, z, weight, **arguments), pages.binary_crossentropy(**arguments), z, hot, weight)


def rows(z: Any = Z) -> Any:
    """Return log softmax."""
    z = np.asarray(z, np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@shows("keras-sample-weight-sum")
def sample_weight_sum() -> None:
    z, labels = np.stack([Z, np.add(Z, [1.0, 0, 0])]), np.zeros((2, 2), np.int64)
    arguments = {"from_logits": True, "reduction": "mean_with_sample_weight"}
    total = of(SPARSE, labels, z, from_logits=True, reduction="sum")[0]
    spec = pages.sparse_categorical_crossentropy(**arguments)
    assert of(SPARSE, labels, z, 2.0, **arguments)[0] == pytest.approx(total, rel=CLOSE)
    assert reference(spec, z, labels, 2.0)[0] == pytest.approx(total / 4, rel=CLOSE)
    column = np.array([[1.0], [3]])
    got = of(SPARSE, labels, z, column, **arguments)[0]
    assert got == pytest.approx(2 * reference(spec, z, labels, column[:, 0])[0], rel=CLOSE)
    assert got == pytest.approx(reference(spec, z, labels, column[:, 0], denominator=column.sum())[0], rel=CLOSE)


@shows("keras-single-position")
def single_position() -> None:
    arguments = {"from_logits": True, "reduction": "mean_with_sample_weight"}
    got = of(SPARSE, 0, Z[0], 3.0, **arguments)[0]
    ours = reference(pages.sparse_categorical_crossentropy(**arguments), Z[0], 0, 3.0)[0]
    assert (got, ours) == pytest.approx((-3 * rows()[0, 0], -rows()[0, 0]), rel=CLOSE)


@shows("keras-trailing-axis")
def trailing_axis() -> None:
    z, labels = np.array(Z)[..., None], np.array([[0], [1]])
    arguments = {"from_logits": True, "axis": 1, "reduction": "none"}
    assert of(SPARSE, labels, z, **arguments)[0].shape == (2,)
    assert reference(pages.sparse_categorical_crossentropy(**arguments), z, labels)[0].shape == (2, 1)


@shows("keras-float32-clip")
def float32_clip() -> None:
    p, y = np.array([[1.0]], np.float32), np.array([[0.0]], np.float32)
    assert of(BINARY, y, p)[0] == pytest.approx(-np.log(2.0**-23), rel=1e-6)
    assert reference(pages.binary_crossentropy(), p, y)[0] == pytest.approx(-np.log(1e-7), rel=1e-6)


@shows("keras-empty-batch")
def empty_batch() -> None:
    z, labels = np.zeros((0, 3)), np.zeros(0, np.int64)
    for reduction in ("sum", "mean"):
        assert of(SPARSE, labels, z, from_logits=True, reduction=reduction)[0].shape == (0,)
        spec = pages.sparse_categorical_crossentropy(from_logits=True, reduction=reduction)
        assert reference(spec, z, labels)[0] == 0


@shows("keras-binary-class-weight")
def binary_class_weight() -> None:
    z, y, mapping = np.array([[0.5, -1], [2, 0.3]]), np.array([[0.0, 1], [1, 1]]), {0: 2.0, 1: 5.0}
    weight = class_weight_to_sample_weights(y, mapping)
    assert weight.tolist() == [5, 2]
    elements = np.log1p(np.exp(-z * (2 * y - 1)))
    got = of(BINARY, y, z, weight, from_logits=True)[0]
    assert got == pytest.approx((weight[:, None] * elements).mean(), rel=CLOSE)
    ours = reference(pages.binary_crossentropy(from_logits=True, class_weight=mapping), z, y)[0]
    assert ours == pytest.approx((np.where(y == 1, 5, 2) * elements).mean(), rel=CLOSE)


@shows("keras-temporal-class-weight")
def temporal_class_weight() -> None:
    labels, mapping = np.array([[0, 2], [1, 1]]), {0: 2.0, 1: 5.0, 2: 7.0}
    assert class_weight_to_sample_weights(labels, mapping).tolist() == [5, 2]
    z = np.zeros((2, 2, 3))
    spec = pages.sparse_categorical_crossentropy(from_logits=True, reduction="none", class_weight=mapping)
    assert reference(spec, z, labels)[0] == pytest.approx(np.array([[2, 7], [5, 5]]) * np.log(3), rel=CLOSE)


@shows("keras-class-weight-keys")
def class_weight_keys() -> None:
    assert class_weight_to_sample_weights(np.array([0, 1]), {0: 2.0, 9: 5.0}).tolist() == [2, 1]
    with pytest.raises(ValueError, match="`class_weight` must have keys from 0 to 2; got key 9"):
        cwn.loss(pages.sparse_categorical_crossentropy(True, class_weight={0: 2.0, 9: 5.0}), Z, [0, 1])
    with pytest.raises(ValueError, match="`class_weight` must have keys 0 and 1; got key 2"):
        pages.binary_crossentropy(class_weight={0: 1.0, 2: 5.0})


@shows("keras-weight-product")
def weight_product() -> None:
    # What Keras refuses is shown in TestTraining, on the backends that train.
    spec = pages.sparse_categorical_crossentropy(True, reduction="none", class_weight={0: 2.0, 1: 5.0})
    expected = -rows()[[0, 1], [0, 1]] * [2 * 0.5, 5 * 4]
    assert reference(spec, Z, [0, 1], [0.5, 4])[0] == pytest.approx(expected, rel=CLOSE)


@shows("keras-time-step-weights")
def time_step_weights() -> None:
    z, labels, weight = np.stack([Z, np.add(Z, [1.0, 0, 0])]), np.zeros((2, 2), np.int64), np.array([1.0, 3])
    losses = -rows(z)[..., 0]
    got = of(SPARSE, labels, z, weight, from_logits=True)[0]
    ours = reference(pages.sparse_categorical_crossentropy(from_logits=True), z, labels, weight)[0]
    assert got == pytest.approx((losses * weight).mean(), rel=CLOSE)
    assert ours == pytest.approx((losses * weight[:, None]).mean(), rel=CLOSE)


@shows("keras-broadcast-weights")
def broadcast_weights() -> None:
    z, labels, weight = np.stack([Z, Z, Z]), np.zeros((3, 2), np.int64), np.array([1.0, 3])
    expected = -(rows()[:, 0] * weight).mean()
    for shape in ((2,), (1, 2)):
        got = of(SPARSE, labels, z, weight.reshape(shape), from_logits=True)[0]
        assert got == pytest.approx(expected, rel=CLOSE)
        with pytest.raises(ValueError, match=r"`sample_weight` must be a scalar or have a shape that is a prefix of"):
            cwn.loss(pages.sparse_categorical_crossentropy(True), z, labels, weight.reshape(shape))


@shows("keras-sparse-class-axis")
def sparse_class_axis() -> None:
    z, labels = np.array(Z).T[None], np.array([[0, 1]])
    with pytest.raises(ValueError, match=r"axis|shape"):
        of(SPARSE, labels, z, from_logits=True, axis=1)
    ours = reference(pages.sparse_categorical_crossentropy(True, axis=1, reduction="none"), z, labels)[0]
    assert ours == pytest.approx(-rows()[None, [0, 1], [0, 1]], rel=CLOSE)


@shows("keras-smoothing-last-axis")
def smoothing_last_axis() -> None:
    z, y = np.array(Z).T[None], np.array([[1.0, 0], [0, 1], [0, 0]])[None]
    arguments = {"from_logits": True, "axis": 1, "label_smoothing": 0.1}
    log_q = rows()
    for classes, got in [
        (2, of(DENSE, y, z, **arguments)[0]),
        (3, reference(pages.categorical_crossentropy(**arguments), z, y)[0]),
    ]:
        assert got == pytest.approx(-((0.9 * y[0].T + 0.1 / classes) * log_q).sum(-1).mean(), rel=CLOSE)


@shows("keras-invalid-smoothing")
def invalid_smoothing() -> None:
    y = np.array([[1.0, 0, 0], [0, 1, 0]])
    for kind, page in [(DENSE, pages.categorical_crossentropy), (BINARY, pages.binary_crossentropy)]:
        assert np.isfinite(of(kind, y, Z, from_logits=True, label_smoothing=1.5)[0])
        with pytest.raises(ValueError, match="`label_smoothing` must be a number from 0 to 1"):
            page(True, 1.5)


@shows("keras-silent-labels")
def silent_labels() -> None:
    label = {"torch": -100, "jax": 3, "numpy": -1}[BACKEND]
    loss = of(SPARSE, [0, label], Z, from_logits=True)[0]
    assert loss == pytest.approx(-rows()[0, 0] / 2, rel=CLOSE)
    with pytest.raises(IndexError, match="`targets` must"):
        cwn.loss(pages.sparse_categorical_crossentropy(True), Z, [0, label])


@shows("keras-float-labels")
def float_labels() -> None:
    expected = of(SPARSE, [0, 1], Z, from_logits=True)[0]
    assert of(SPARSE, [0.0, 1.9], Z, from_logits=True)[0] == expected
    with pytest.raises(TypeError, match="`targets` must be integers"):
        cwn.loss(pages.sparse_categorical_crossentropy(True), Z, [0.0, 1.9])


@shows("keras-recovered-logits")
def recovered_logits() -> None:
    p = keras.ops.softmax(np.array([[60.0, 0]], np.float32))
    loss = keras.losses.SparseCategoricalCrossentropy()
    assert loss(np.array([1]), p).numpy() == 60
    ours = reference(pages.sparse_categorical_crossentropy(), p.numpy(), [1])[0]
    assert ours == pytest.approx(16.1180957, rel=1e-6)


@shows("keras-numpy-binary-clip")
def numpy_binary_clip() -> None:
    got = of(BINARY, [[1.0]], [[-20.0]], from_logits=True)[0]
    assert got == pytest.approx(-np.log(1e-7), rel=CLOSE)
    assert reference(pages.binary_crossentropy(True), [[-20.0]], [[1.0]])[0] == pytest.approx(20, rel=1e-9)


@shows("keras-dense-gradient")
def dense_gradient() -> None:
    y = np.array([[1.0, 2, 0], [0, 0, 0]])
    q = np.exp(rows())
    gradient = of(DENSE, y, Z, from_logits=True, reduction="sum")[1]
    np.testing.assert_allclose(gradient, upstream((), "float64") * (q - y), rtol=CLOSE)
    spec = pages.categorical_crossentropy(True, reduction="sum")
    np.testing.assert_allclose(reference(spec, Z, y)[1], q * y.sum(-1, keepdims=True) - y, rtol=CLOSE)


@shows("keras-zero-times-infinity")
def zero_times_infinity() -> None:
    z = [[0, -np.inf, 1]]
    # XLA leaves out a product with a 0 that it knows.
    with jax.disable_jit() if BACKEND == "jax" else nullcontext():
        dense, sparse = (of(kind, y, z, from_logits=True)[0] for kind, y in ((DENSE, [[1.0, 0, 0]]), (SPARSE, [0])))
    assert np.isnan(dense)
    assert reference(pages.categorical_crossentropy(True), z, [[1.0, 0, 0]])[0] == pytest.approx(1.3132616, rel=1e-7)
    assert np.isnan(sparse) if BACKEND in ("jax", "numpy") else sparse == pytest.approx(1.3132616, rel=1e-7)


@shows("keras-zero-weight-nan")
def zero_weight_nan() -> None:
    z, weight = [Z[0], [np.nan, 1, -2]], np.array([1.0, 0])
    assert np.isnan(of(SPARSE, [0, 1], z, weight, from_logits=True)[0])
    spec = pages.sparse_categorical_crossentropy(True)
    assert reference(spec, z, [0, 1], weight)[0] == pytest.approx(0.2413113 / 2, rel=2e-7)


@shows("keras-invalid-weights")
def invalid_weights() -> None:
    assert np.isinf(of(SPARSE, [0, 1], Z, np.array([np.inf, 3]), from_logits=True)[0])
    with pytest.raises(ValueError, match="`sample_weight` must be"):
        cwn.loss(pages.sparse_categorical_crossentropy(True), Z, [0, 1], [np.inf, 3])
    with pytest.raises(ValueError, match="`class_weight` must be a finite number"):
        pages.categorical_crossentropy(class_weight=[1, np.inf])


@shows("keras-invalid-targets")
def invalid_targets() -> None:
    y = np.array([[1.5, -0.5, 0], [0, 1, 0]])
    for kind, page in [(DENSE, pages.categorical_crossentropy), (BINARY, pages.binary_crossentropy)]:
        assert np.isfinite(of(kind, y, Z, from_logits=True)[0])
        with pytest.raises(ValueError, match="`targets` must"):
            cwn.loss(page(True), Z, y)


BACKENDS = {
    "keras-silent-labels": ("torch", "jax", "numpy"),
    "keras-trailing-axis": ("torch",),
    "keras-sparse-class-axis": ("tensorflow", "jax", "numpy"),
    "keras-recovered-logits": ("tensorflow",),
    "keras-numpy-binary-clip": ("numpy",),
    "keras-dense-gradient": ("tensorflow",),
}


@pytest.mark.parametrize("difference", [d for d in shows.ids if BACKEND in BACKENDS.get(d, BACKEND)])
def test_difference(difference: str) -> None:
    shows.checks[difference]()


def test_what_a_spec_cannot_express_is_refused() -> None:
    with pytest.raises(ValueError, match="`axis` must be -1"):
        pages.binary_crossentropy(axis=1)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="`backend` must be one of 'tensorflow', 'torch', 'jax', 'numpy'; got 'mxnet'"):
        pages.sparse_categorical_crossentropy(backend="mxnet")
    for page, kind in [(pages.sparse_categorical_crossentropy, SPARSE), (pages.binary_crossentropy, BINARY)]:
        with pytest.raises(ValueError, match="`reduction` must be one of 'sum_over_batch_size'"):
            page(reduction="average")
        with pytest.raises(ValueError, match="Invalid value for argument `reduction`"):
            getattr(keras.losses, kind)(reduction="average")
