"""Keras 3 on the backend that KERAS_BACKEND names: the losses against Keras's own, and in training against Keras 2."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras
    from keras.src.backend import set_keras_mask

import classweight.adapters.keras as cwk
import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy

from ..calls import random_call
from ..conventions.configurations import batch, binary_batch, upstream
from ..conventions.differences import named
from ..dropins.helped import check as check_help
from ..refusals import Refusal, assert_refused, each_refusal

# Keras and torch ask NumPy for arrays in the way of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
BACKEND = keras.config.backend()
REDUCTIONS = ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None]
# JAX calls its operations one by one outside of a traced function, each slowly.
COUNT = 10 if BACKEND == "jax" else 150
cases = pytest.mark.parametrize("case", range(COUNT))


def value_and_gradient(f: Callable[[Any], Any], logits: Any, factor: Any = None) -> tuple[Any, Any]:
    """Return f's value, and the gradient of f times ``factor``: of the loss's shape, or made for it."""
    z = keras.ops.convert_to_tensor(logits)
    if BACKEND == "jax":
        import jax

        value, pullback = jax.vjp(f, z)
        up = factor if factor is not None else upstream(value.shape, value.dtype.name)
        return value, pullback(jax.numpy.asarray(up, value.dtype))[0]
    if BACKEND == "torch":
        import torch

        z = z.detach().requires_grad_()
        value = f(z)
        up = factor if factor is not None else upstream(tuple(value.shape), "float64")
        return value.detach(), torch.autograd.grad(value, z, torch.as_tensor(up, dtype=value.dtype))[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(z)
        value = f(z)
    up = factor if factor is not None else upstream(tuple(value.shape), "float64")
    return value, tape.gradient(value, z, tf.cast(up, value.dtype))


def numpy(x: Any) -> Any:
    x = keras.ops.cast(x, "float32") if "float16" in str(x.dtype) else x  # TensorFlow's bfloat16 is no array
    return keras.ops.convert_to_numpy(x)


def assert_close(ours: tuple[Any, Any], theirs: tuple[Any, Any]) -> None:
    """Assert that value, gradient, shape and dtype are Keras's, to the rounding of float32."""
    for mine, native in zip(ours, theirs, strict=True):
        assert mine.dtype == native.dtype
        assert tuple(mine.shape) == tuple(native.shape)
        scale = np.abs(numpy(native)).max(initial=0)
        np.testing.assert_allclose(numpy(mine), numpy(native), rtol=2e-5, atol=2e-6 * scale)


@cases
def test_exact_results_have_the_bits_of_every_other_backend(case: int) -> None:
    call = random_call(case)
    spec = dataclasses.replace(call.spec, precision="exact")
    logits, up = call.logits.astype(np.float32), np.asarray(call.upstream, np.float32)
    got = value_and_gradient(lambda z: cwk.loss(spec, z, call.targets, **call.arguments), logits, up)
    expected = cwn.loss_and_grad(spec, logits, call.targets, upstream=up, **call.arguments)
    for mine, theirs in zip(got, expected, strict=True):
        assert numpy(mine).dtype == np.float32
        np.testing.assert_array_equal(numpy(mine), theirs, err_msg=str(call))
    arguments = {k: v for k, v in call.arguments.items() if k != "denominator"}
    parts = cwk.loss_parts(spec, keras.ops.convert_to_tensor(logits), call.targets, **arguments)
    for mine, theirs in zip(parts, cwn.loss_parts(spec, logits, call.targets, **arguments), strict=True):
        assert numpy(mine).dtype == np.float64
        np.testing.assert_allclose(numpy(mine), theirs, rtol=1e-12)


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    enabled: Any = contextlib.nullcontext()
    convert: Any = keras.ops.convert_to_tensor
    if BACKEND == "jax":
        import jax

        enabled, convert = jax.enable_x64(True), jax.numpy.asarray
    with enabled:
        assert_refused(refusal, cwk.loss, convert)


# The losses against Keras's own.


def both(kind: str, y_true: Any, y_pred: Any, sample_weight: Any = None, mask: Any = None, **arguments: Any) -> None:
    class_weight = arguments.pop("class_weight", None)
    ours = getattr(cwk, kind)(**arguments, class_weight=class_weight)
    native = getattr(keras.losses, kind)(**arguments)
    weight = sample_weight
    if class_weight is not None:
        weight = cwk.fit_sample_weight(y_true, class_weight, sample_weight).astype(np.float32)

    def masked(loss: Any, weight: Any) -> Callable[[Any], Any]:
        def f(z: Any) -> Any:
            if mask is not None:
                z = keras.ops.convert_to_tensor(z)
                set_keras_mask(z, keras.ops.convert_to_tensor(mask))
            return loss(y_true, z, sample_weight=weight)

        return f

    assert_close(
        value_and_gradient(masked(ours, sample_weight), y_pred), value_and_gradient(masked(native, weight), y_pred)
    )


def predictions(b: Any, from_logits: bool, axis: int = -1) -> Any:
    x = b.logits if from_logits else b.probabilities(normalised=True)
    return np.moveaxis(x, 1, axis) if x.ndim > 1 else x


@cases
def test_sparse_categorical_crossentropy(case: int) -> None:
    b = batch(case, dtypes=("float32",), min_classes=2, shapes=[(1,), (5,), (3, 2), (2, 2, 3)])
    from_logits, label = bool(b.pick(True, False)), b.pick(None, -1, 255)
    labels = b.labels if label is None else b.marked(label)
    weight = b.pick(
        None, b.sample_weight, b.sample_weight[..., None], b.sample_weight[..., :1] if label is None else None
    )
    if b.labels.ndim == 1 and weight is not None and len(weight) != len(b.labels):
        weight = b.sample_weight
    both(
        "SparseCategoricalCrossentropy",
        labels[..., None] if b.pick(True, False) and label is None else labels,
        predictions(b, from_logits),
        weight,
        # On torch Keras fails to spread weights over a mask.
        mask=b.pick(None, ~b.ignored) if weight is None or weight.shape == b.labels.shape else None,
        class_weight=b.pick(None, b.weight_mapping) if weight is None or weight.shape == b.labels.shape else None,
        from_logits=from_logits,
        ignore_class=label,
        reduction=b.pick(*REDUCTIONS),
    )


@cases
def test_categorical_crossentropy(case: int) -> None:
    b = batch(case, dtypes=("float32",), min_classes=2, shapes=[(1,), (5,), (3, 2), (2, 2, 3)])
    from_logits, axis = bool(b.pick(True, False)), b.pick(-1, -1, 1)
    y_true = np.moveaxis(b.distributions(normalised=True), 1, axis)
    # Keras spreads the smoothing by the length of the last axis.
    assert named("keras-smoothing-last-axis")
    smoothing = 0.0 if axis == 1 and y_true.ndim > 2 else b.smoothing
    both(
        "CategoricalCrossentropy",
        y_true,
        predictions(b, from_logits, axis),
        weight := b.pick(None, b.sample_weight),
        class_weight=b.pick(None, b.weight_mapping) if axis == -1 else None,
        mask=b.pick(None, ~b.ignored) if weight is None else None,
        from_logits=from_logits,
        label_smoothing=smoothing,
        axis=axis,
        reduction=b.pick(*REDUCTIONS),
    )


@cases
def test_binary_crossentropy(case: int) -> None:
    b = binary_batch(case, dtypes=("float32",), shapes=[(5, 1), (5, 1), (3, 2), (2, 2, 3)])
    from_logits, y_true = bool(b.pick(True, False)), b.targets()
    y_pred = b.logits if from_logits else b.probabilities()
    one_output = y_true.shape[-1] == 1
    both(
        "BinaryCrossentropy",
        y_true[..., 0] if one_output and b.pick(True, False) else y_true,
        y_pred,
        b.pick(None, b.row_weight),
        # With more outputs each element weighs as its own label.
        class_weight=b.pick(None, {0: 0.5, 1: 3.0}, {1: 2.0})
        if one_output and named("keras-binary-class-weight")
        else None,
        from_logits=from_logits,
        label_smoothing=b.smoothing,
        reduction=b.pick(*REDUCTIONS),
    )


def test_weights_of_fewer_elements_divide_as_keras_divides() -> None:
    y, z = np.array([[0, 1], [1, 0]]), np.array([[[1, 2], [3, 1]], [[0, 1], [1, 3]]], np.float32)
    for weight in (np.float32(2), np.array([[1.0], [3]], np.float32)):
        both("SparseCategoricalCrossentropy", y, z, weight, from_logits=True, reduction="mean_with_sample_weight")


def test_weights_of_n_samples_weigh_samples_where_there_are_n_time_steps() -> None:
    rng = np.random.default_rng(0)
    z, y, s = rng.normal(size=(3, 3, 2)).astype(np.float32), rng.integers(2, size=(3, 3)), np.array([1.0, 0.5, 4])
    loss = cwk.SparseCategoricalCrossentropy(from_logits=True)
    assert named("keras-time-step-weights")
    full = np.repeat(s[:, None], 3, 1).astype(np.float32)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, z, full)
    np.testing.assert_allclose(numpy(loss(y, z, s)), numpy(expected), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_labels_pass_through_no_float_type(dtype: str) -> None:
    label = {"bfloat16": 257, "float16": 2049, "float32": 2**24 + 1}[dtype]
    z = np.zeros((1, min(label + 1, 3000)), np.float32)
    loss = cwk.SparseCategoricalCrossentropy(from_logits=True, ignore_class=label - 1, dtype=dtype)
    if dtype == "float32":
        with pytest.raises(IndexError, match=f"got {label}"):
            loss(np.array([label]), z)
        return
    z[0, label] = 3
    value, gradient = value_and_gradient(lambda x: loss(np.array([label]), x), z)
    assert float(numpy(value)) > 1
    assert numpy(gradient)[0].argmin() == label


@pytest.mark.parametrize("labels", [np.array([0, 3]), np.array([-1, 1]), np.array([0.0, 1.0])])
def test_labels_that_are_none_are_refused(labels: Any) -> None:
    loss = cwk.SparseCategoricalCrossentropy(from_logits=True)
    assert named("keras-silent-labels")
    assert named("keras-float-labels")
    with pytest.raises((ValueError, TypeError), match="`y_true` must be"):
        loss(labels, np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "arguments",
    [{"class_weight": {0: np.nan}}, {"class_weight": [1, np.inf]}, {"reduction": "average"}, {"precision": "best"}],
)
def test_bad_arguments_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"class_weight|reduction|precision"):
        cwk.SparseCategoricalCrossentropy(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("SparseCategoricalCrossentropy", {"ignore_class": 255, "class_weight": {0: 1.5, 2: 3.0}, "axis": 1}),
        ("SparseCategoricalCrossentropy", {"class_weight": {}, "reduction": None}),
        ("CategoricalCrossentropy", {"label_smoothing": 0.1, "class_weight": np.array([1, 2, 5]), "name": "mine"}),
        ("BinaryCrossentropy", {"class_weight": {1: 4.0}, "precision": "exact", "reduction": "sum"}),
        ("BinaryCrossentropy", {"class_weight": (1, [2, 3, 4]), "label_smoothing": 0.2}),
    ],
)
def test_a_loss_is_remade_from_its_config(kind: str, arguments: Any) -> None:
    loss = getattr(cwk, kind)(from_logits=True, **arguments)
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert type(again) is getattr(cwk, kind)
    assert isinstance(again, getattr(keras.losses, kind))
    assert again.spec == loss.spec
    assert (again.name, again.reduction) == (loss.name, loss.reduction)


def test_call_returns_the_losses_of_the_positions() -> None:
    y, z = np.array([0, 1]), keras.ops.convert_to_tensor(np.array([[1.0, 2], [0, 3]], np.float32))
    values = cwk.SparseCategoricalCrossentropy(from_logits=True, class_weight={0: 2.0}).call(y, z)
    np.testing.assert_allclose(numpy(values), [2 * np.log1p(np.e), np.log1p(np.exp(-3))], rtol=1e-6)


# Training.

N, C, T = 10, 3, 4
WEIGHTS = {0: 0.5, 2: 3.0}
RNG = np.random.default_rng(7)
S = RNG.uniform(0.2, 2, N).astype(np.float32)
LABELS = {
    "labels": RNG.integers(C, size=N),
    "column": RNG.integers(C, size=(N, 1)),
    "steps": RNG.integers(C, size=(N, T)),
}
LABELS |= {"steps-column": LABELS["steps"][..., None], "map": RNG.integers(C, size=(N, 2, 3))}
Y = LABELS | {f"one-hot-{k}": np.eye(C, dtype=np.float32)[LABELS[k]] for k in ("labels", "steps", "map")}
POSITIONS = {name: y.shape[1:] if name in LABELS and "column" not in name else y.shape[1:-1] for name, y in Y.items()}
each_target = pytest.mark.parametrize("target", list(Y))


def features(target: str) -> Any:
    return np.random.default_rng(3).normal(size=(N, *POSITIONS[target], 5)).astype(np.float32)


def model(target: str, loss: Any, framework: Any = keras, **options: Any) -> Any:
    """Return a linear model of the classes of each position, always with the same weights."""
    network = framework.Sequential(
        [framework.layers.Input((*POSITIONS[target], 5)), framework.layers.Dense(C, use_bias=False)]
    )
    network.set_weights([np.random.default_rng(1).normal(size=(5, C)).astype(np.float32)])
    network.compile(loss=loss, optimizer=framework.optimizers.SGD(0.1), **options)
    return network


def loss_of(target: str, module: Any = cwk, **arguments: Any) -> Any:
    kind = "CategoricalCrossentropy" if target.startswith("one-hot") else "SparseCategoricalCrossentropy"
    return getattr(module, kind)(from_logits=True, **arguments)


def trained(network: Any, *data: Any, **arguments: Any) -> list[float]:
    """Return the losses of two epochs, and then the weights."""
    history = network.fit(*data, epochs=2, shuffle=False, verbose=0, **arguments).history["loss"]
    return [*history, *network.get_weights()[0].ravel()]


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays: Any) -> None:
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return -(-N // 4)

    def __getitem__(self, i: int) -> Any:
        return tuple(x[4 * i : 4 * i + 4] for x in self.arrays)


def data(source: str, *arrays: Any) -> Any:
    if source == "PyDataset":
        return (Batches(*arrays),)
    if source == "DataLoader":
        import torch

        return (torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.as_tensor, arrays)), 4),)
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices(arrays).batch(4),)


@pytest.mark.parametrize(
    ("target", "source"),
    [(target, "arrays") for target in Y]
    + [(t, source) for t in ("labels", "steps", "one-hot-map") for source in ("tf.data", "PyDataset", "DataLoader")],
)
def test_fit_multiplies_class_and_sample_weights(target: str, source: str) -> None:
    """The last of the batches of four has two samples."""
    assert named("keras-weight-product")
    x, y = features(target), Y[target]
    network = model(target, loss_of(target, class_weight=WEIGHTS))
    if source == "arrays":
        got = trained(network, x, y, sample_weight=S, batch_size=4)
    else:
        got = trained(network, *data(source, x, y, S))
    product = cwk.fit_sample_weight(y, WEIGHTS, S)
    native = model(target, loss_of(target, keras.losses))
    np.testing.assert_allclose(got, trained(native, x, y, sample_weight=product, batch_size=4), rtol=2e-5)


@each_target
def test_fit_agrees_with_keras_2(target: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras
    assert named("keras-temporal-class-weight")
    x, y, y2 = features(target), Y[target], Y[target]
    if target in ("steps", "map"):
        y2 = y[..., None]  # Keras 2 too takes an argmax over the last axis
    got = trained(model(target, loss_of(target, class_weight=WEIGHTS)), x, y, sample_weight=S, batch_size=5)
    old = model(target, loss_of(target, tf_keras.losses), tf_keras)
    # Keras 2 needs every class named, and batches of a fixed size.
    every = {c: WEIGHTS.get(c, 1.0) for c in range(C)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = trained(old, x, y2, sample_weight=S, class_weight=every, batch_size=5)
    np.testing.assert_allclose(got, expected, rtol=2e-5)


@pytest.mark.parametrize("target", ["labels", "column", "one-hot-labels"])
def test_fit_agrees_with_the_class_weight_of_keras_3(target: str) -> None:
    x, y = features(target), Y[target]
    got = trained(model(target, loss_of(target, class_weight=WEIGHTS)), x, y, batch_size=4)
    native = model(target, loss_of(target, keras.losses))
    np.testing.assert_allclose(got, trained(native, x, y, class_weight=WEIGHTS, batch_size=4), rtol=2e-5)


@pytest.mark.parametrize("precision", ["native", "exact"])
def test_train_on_batch_and_evaluate(precision: str) -> None:
    x, y = features("labels"), Y["labels"]
    network = model("labels", loss_of("labels", class_weight=WEIGHTS, precision=precision))
    spec = dataclasses.replace(network.loss.spec, precision="exact")
    expected = cwn.loss(spec, np.asarray(network.predict(x, verbose=0), np.float64), y, S)
    np.testing.assert_allclose(network.evaluate(x, y, sample_weight=S, verbose=0, batch_size=N), expected, rtol=1e-6)
    np.testing.assert_allclose(network.train_on_batch(x, y, sample_weight=S), expected, rtol=1e-6)


def test_a_model_is_saved_with_its_loss(tmp_path: Path) -> None:
    x, y = features("labels"), Y["labels"]
    network = model("labels", loss_of("labels", class_weight=WEIGHTS, ignore_class=-1))
    network.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss.spec == network.loss.spec
    rest = [trained(m, x, y, sample_weight=S, batch_size=4) for m in (network, again)]
    np.testing.assert_array_equal(*rest)


def test_a_mask_leaves_the_mean_and_so_does_an_ignored_class() -> None:
    tokens, y = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[0, 1, -1], [2, 0, 1]])
    network = keras.Sequential([keras.layers.Input((3,)), keras.layers.Embedding(4, C, mask_zero=True)])
    table = np.arange(12.0, dtype=np.float32).reshape(4, C) ** 0.5
    network.set_weights([table])
    network.compile(loss=cwk.SparseCategoricalCrossentropy(True, -1, class_weight=WEIGHTS), optimizer="sgd")
    got = network.evaluate(tokens, y, sample_weight=np.array([1.0, 2.0], np.float32), verbose=0)
    losses = np.log(np.exp(table).sum(-1, keepdims=True)) - table
    expected = (0.5 * losses[1, 0] + 1 * losses[2, 1] + 2 * 3 * losses[3, 2]) / 3
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_model_of_half_precision_has_a_loss_of_single_precision() -> None:
    policy = keras.DTypePolicy("mixed_bfloat16")
    network = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(C, dtype=policy)])
    network.compile(loss=cwk.SparseCategoricalCrossentropy(True, class_weight=WEIGHTS), optimizer="sgd")
    x, y = features("labels"), Y["labels"]
    expected = cwn.loss(network.loss.spec, np.asarray(network.predict(x, verbose=0), np.float64), y, S)
    np.testing.assert_allclose(network.train_on_batch(x, y, sample_weight=S), expected, rtol=1e-5)


def test_binary_and_multi_label_models_train() -> None:
    x = features("labels")
    y = np.random.default_rng(0).integers(2, size=(N, C)).astype(np.float32)
    network = model("labels", cwk.BinaryCrossentropy(from_logits=True, class_weight=(1, [2.0, 3, 4])))
    spec = SigmoidCrossEntropy(
        class_weight=(1, [2.0, 3, 4]), weighting="label", average_outputs=True, reduction="mean_over_positions"
    )
    expected = cwn.loss(spec, np.asarray(network.predict(x, verbose=0), np.float64), y, S)
    np.testing.assert_allclose(network.train_on_batch(x, y, sample_weight=S), expected, rtol=1e-6)


# Weights for Keras's own losses.


def test_fit_sample_weight() -> None:
    steps = np.array([[0, 2, 1], [2, 2, 0]])
    expected = np.array([[0.5, 3, 1], [6, 6, 1]])
    for y in (steps, steps[..., None], np.eye(3)[steps], steps.astype(np.uint8), steps.astype(float)[..., None]):
        for s in ([1, 2], [[1], [2]], [[1, 1, 1], [2, 2, 2]]):
            np.testing.assert_array_equal(cwk.fit_sample_weight(y, WEIGHTS, s), expected)
    np.testing.assert_array_equal(cwk.fit_sample_weight([0, -1, 2], WEIGHTS), [0.5, 1, 3])
    np.testing.assert_array_equal(cwk.fit_sample_weight([0, 1], [2.5, 0.5], [1, 3]), [2.5, 1.5])
    np.testing.assert_array_equal(cwk.fit_sample_weight([[1, 0], [0, 1]], [2, 3], one_hot=True), [2, 3])
    np.testing.assert_array_equal(cwk.fit_sample_weight([[1, 0], [0, 1]], [2, 3], one_hot=False), [[3, 2], [2, 3]])
    assert cwk.fit_sample_weight(np.zeros((0, 3)), WEIGHTS).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([[1, 0], [0, 1]], [2, 3]), "`one_hot` must be given"),
        (([0, 2], [2, 3]), r"`y` must be class indices from 0 to 1, or `ignore_index`; got 2 at position \(1,\)"),
        (([0, -1], [2, 3]), "`y` must be class indices from 0 to 1, or `ignore_index`; got -1"),
        (([0, 1], [2, 3], [1, 2, 3]), r"`sample_weight` must be a scalar or have a shape that is a prefix of \(2,\)"),
        (([0, 1], [2, np.inf]), "`class_weight` must be a finite number"),
        (([0, 1], {0: np.nan}), "`class_weight` must map each class to a finite number"),
    ],
)
def test_fit_sample_weight_refuses(arguments: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        cwk.fit_sample_weight(*arguments)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"),
        ("CategoricalCrossentropy", "categorical_crossentropy"),
        ("BinaryCrossentropy", "binary_crossentropy"),
    ],
)
def test_help_says_what_differs_from_native(name: str, call: str) -> None:
    check_help("keras", getattr(cwk, name), call)
