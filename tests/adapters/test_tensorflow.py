"""TensorFlow: the same numbers eager, in a graph and under XLA, by every path."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

import classweight.adapters.numpy as cwn
import classweight.adapters.tensorflow as cwtf
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.tensorflow import operation, route
from classweight.reference import reference

from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, RandomCall, random_call
from ..refusals import Refusal, assert_refused, each_refusal

W = [1.0, 2.0, 5.0, 0.5]
MODES: dict[str, Callable[[Any], Any]] = {
    "eager": lambda f: f,
    "graph": tf.function,
    "xla": lambda f: tf.function(f, jit_compile=True),
    "xla-inside": lambda f: tf.function(tf.function(f, jit_compile=True)),
}
SPECS = {
    "index": SoftmaxCrossEntropy(class_weight=W, ignore_index=-100),
    "smoothed": SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W),
    "binary": SigmoidCrossEntropy(class_weight=(1, W), label_smoothing=0.1),
    "probabilities": SoftmaxCrossEntropy(inputs="probs", clip=1e-7, renormalize="before"),
}
each_mode = pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
each_spec = pytest.mark.parametrize("kind", list(SPECS))
each_dtype = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])


def arrays(kind: str, rows: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=(rows, 4)), rng.integers(4, size=rows)
    if kind == "probabilities":
        z = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    if kind == "distribution":
        return z, rng.random((rows, 4))
    return z, np.eye(4)[y] if kind == "binary" else y


def value_and_gradient(f: Any, *inputs: Any, factor: Any = None) -> Any:
    """Return a function of the inputs that returns f's value and its gradient with respect to the first."""

    def step(z: Any, *others: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = f(z, *others)
        return value, tape.gradient(value, z, factor)

    return step


def run(mode: str, call: RandomCall, **options: Any) -> tuple[Any, Any]:
    names = list(call.arguments)

    def f(z: Any, t: Any, *arguments: Any) -> Any:
        return cwtf.loss(call.spec, z, t, **dict(zip(names, arguments, strict=True)), **options)

    inputs = map(tf.constant, (call.logits, call.targets, *call.arguments.values()))
    return MODES[mode](value_and_gradient(f, factor=tf.constant(call.upstream)))(*inputs)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("mode", "seed"),
    [("eager", s) for s in range(300)]
    + [("graph", s) for s in range(300, 320)]
    + [("xla", s) for s in range(320, 332)],
)
def test_random_calls_agree_with_the_reference(mode: str, seed: int) -> None:
    call = random_call(seed)
    value, gradient = run(mode, call)
    expected, expected_gradient = reference(
        call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments
    )
    assert tuple(value.shape) == expected.shape
    np.testing.assert_allclose(value, expected, **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient, expected_gradient)
    if mode == "eager":
        np.testing.assert_array_equal(run(mode, call, validate=False)[0], value)
        arguments = {k: v for k, v in call.arguments.items() if k != "denominator"}
        for ours, theirs in zip(
            cwtf.loss_parts(call.spec, call.logits, call.targets, **arguments),
            cwn.loss_parts(call.spec, call.logits, call.targets, **arguments),
            strict=True,
        ):
            assert ours.dtype == tf.float64
            np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("jit_compile", [False, True])
def test_only_the_number_of_classes_must_be_known_in_advance(jit_compile: bool, seed: int) -> None:
    call = random_call(seed, last_axis=True)
    names = list(call.arguments)
    given = [call.logits, call.targets, *call.arguments.values()]
    inputs = [tf.constant(x) for x in given]
    unknown = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in inputs]
    unknown[0] = tf.TensorSpec([*[None] * (call.logits.ndim - 1), call.logits.shape[-1]], tf.float64)

    @tf.function(input_signature=unknown, jit_compile=jit_compile)
    def f(z: Any, t: Any, *arguments: Any) -> Any:
        loss = lambda z: cwtf.loss(call.spec, z, t, **dict(zip(names, arguments, strict=True)))  # noqa: E731
        return value_and_gradient(loss, factor=tf.constant(call.upstream))(z)

    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    value, gradient = f(*inputs)
    np.testing.assert_allclose(value, expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient, expected[1])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_length_of_one_does_not_broadcast_where_lengths_are_unknown(jit_compile: bool) -> None:
    signature = [tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64), tf.TensorSpec([None])]
    f = tf.function(
        lambda z, t, s: cwtf.loss(SoftmaxCrossEntropy(), z, t, s), input_signature=signature, jit_compile=jit_compile
    )
    assert np.isfinite(f(tf.zeros((4, 3)), [0, 1, 2, 0], tf.ones(4)))
    for labels, weights in (([0], 4), ([0, 1, 2, 0], 1)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            f(tf.zeros((4, 3)), labels, tf.ones(weights))


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    assert_refused(refusal, cwtf.loss, tf.constant)
    if "denominator" not in refusal.arguments:
        assert_refused(refusal, cwtf.loss_parts, tf.constant)


def test_what_is_no_dense_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="`logits` must be a dense tensor or numbers in a regular shape"):
        cwtf.loss(SoftmaxCrossEntropy(), tf.ragged.constant([[1.0, 2], [3]]), [0, 1])
    with pytest.raises(ValueError, match="`logits` must have a number of axes that is known in advance"):
        tf.function(lambda z: cwtf.loss(SoftmaxCrossEntropy(), z, [0]), input_signature=[tf.TensorSpec(None)])(
            tf.zeros((1, 2))
        )
    with pytest.raises(ValueError, match=r"`logits` must have at least one class, of a number known in advance"):
        tf.function(lambda z: cwtf.loss(SoftmaxCrossEntropy(), z, [0]), input_signature=[tf.TensorSpec([1, None])])(
            tf.zeros((1, 2))
        )


@pytest.mark.parametrize("mode", ["graph", "xla", "xla-inside"])
@pytest.mark.parametrize("bad", [3, 99, -1, -100])
def test_an_invalid_label_in_a_graph_that_looks_for_none_is_nan(bad: int, mode: str) -> None:
    spec, validate = SoftmaxCrossEntropy(class_weight=[1, 2, 3], reduction="none"), False if mode == "graph" else None
    value, gradient = MODES[mode](value_and_gradient(lambda z, y: cwtf.loss(spec, z, y, validate=validate)))(
        tf.zeros((3, 3)), tf.constant([0, bad, 2])
    )
    assert np.isnan(value).tolist() == [False, True, False]
    assert np.isnan(gradient).all(1).tolist() == [False, True, False]


def test_validate_looks_in_a_graph_when_it_runs() -> None:
    spec = SoftmaxCrossEntropy()
    f = tf.function(lambda z, y, w: cwtf.loss(spec, z, y, class_weight=w, validate=True))
    z, w = tf.zeros((3, 3)), tf.ones(3)
    assert f(z, tf.constant([0, 1, 2]), w) == cwtf.loss(spec, z, [0, 1, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"from 0 to 2; got 3 at position \(1,\)"):
        f(z, tf.constant([0, 3, 2]), w)
    assert np.isnan(cwtf.loss(spec, z, [0, 3, 2], validate=False))


@each_mode
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@each_spec
def test_exact_results_have_the_bits_of_every_other_backend(kind: str, dtype: str, mode: str) -> None:
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    z, t = arrays(kind, rows=50)
    z = tf.cast(3 * z if kind != "probabilities" else z, dtype)
    value, gradient = MODES[mode](value_and_gradient(lambda z: cwtf.loss(spec, z, t)))(z)
    expected, expected_gradient = cwn.loss_and_grad(spec, z.numpy(), t)
    assert value.dtype == gradient.dtype == z.dtype
    assert value.numpy().tobytes() == expected.tobytes()
    np.testing.assert_array_equal(gradient, expected_gradient)


@each_dtype
@each_spec
def test_native_results_have_the_logits_dtype(kind: str, dtype: str) -> None:
    z, t = arrays(kind)
    z = tf.cast(z, dtype)
    value, gradient = value_and_gradient(lambda z: cwtf.loss(SPECS[kind], z, t))(z)
    assert value.dtype == gradient.dtype == z.dtype
    expected, slopes = reference(SPECS[kind], tf.cast(z, "float64").numpy(), t)
    eps = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-20, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(tf.cast(value, "float64"), expected, rtol=eps)
    np.testing.assert_allclose(tf.cast(gradient, "float64"), slopes, rtol=eps, atol=eps * np.abs(slopes).max() / 64)


@each_mode
@pytest.mark.parametrize("targets", [0, [1.0, 0, 0], [0.5, 0.5, 0]])
def test_rows_without_a_softmax_are_nan_and_so_is_their_gradient(targets: Any, mode: str) -> None:
    each = np.array([targets] * len(ROWS_WITHOUT_A_SOFTMAX))
    f = value_and_gradient(lambda z: cwtf.loss(SoftmaxCrossEntropy(reduction="none"), z, each))
    value, gradient = MODES[mode](f)(tf.constant(ROWS_WITHOUT_A_SOFTMAX, tf.float32))
    assert np.isnan(value).all()
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("targets", ["index", "distribution", "binary"])
def test_a_weight_of_zero_has_a_gradient_which_is_its_loss(targets: str) -> None:
    z, t = arrays(targets)
    spec = dataclasses.replace(SPECS[targets], reduction="sum")
    losses = cwtf.loss(dataclasses.replace(spec, reduction="none"), z, t)
    found = value_and_gradient(lambda s: cwtf.loss(spec, z, t, s))(tf.zeros(losses.shape, tf.float64))[1]
    np.testing.assert_allclose(found, losses, rtol=1e-12)


@each_mode
def test_a_confident_prediction_keeps_its_loss_and_gradient(mode: str) -> None:
    z = tf.constant([[20.0, 0.0], [80.0, 0.0]])
    f = value_and_gradient(lambda z: cwtf.loss(SoftmaxCrossEntropy(reduction="sum"), z, [0, 0]))
    value, gradient = MODES[mode](f)(z)
    expected = np.log1p(np.exp([-20.0, -80.0]))
    np.testing.assert_allclose(value, expected.sum(), rtol=3e-7)
    np.testing.assert_allclose(gradient, np.stack([-expected, expected], 1), rtol=3e-7)


@each_mode
@each_spec
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_second_order(dtype: str, kind: str, mode: str) -> None:
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    z, t = arrays(kind, rows=2)
    z = tf.cast(z, dtype)

    def hessian(z: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(z)
            _, gradient = value_and_gradient(lambda z: cwtf.loss(spec, z, t))(z)
        # XLA takes no loop of unknown length, which the parallel one is spared.
        return outer.jacobian(gradient, z, experimental_use_pfor=True)

    found = MODES[mode](hessian)(z)
    assert found is not None
    assert found.dtype == z.dtype
    at, step = tf.cast(z, "float64").numpy(), 1e-5
    differences = np.zeros(at.shape * 2)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += step
        down[i] -= step
        differences[(..., *i)] = (reference(spec, up, t)[1] - reference(spec, down, t)[1]) / (2 * step)
    rounding = 2**-8 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(tf.cast(found, "float64"), differences, rtol=rounding, atol=1e-8)


@each_spec
def test_forward_mode_and_vectorised_maps(kind: str) -> None:
    z, t = map(tf.constant, arrays(kind))
    f = lambda z: cwtf.loss(SPECS[kind], z, t)  # noqa: E731
    direction = tf.random.stateless_normal(z.shape, (1, 2), dtype=tf.float64)
    with tf.autodiff.ForwardAccumulator(z, direction) as accumulator:
        value = f(z)
    gradient = value_and_gradient(f)(z)[1]
    np.testing.assert_allclose(accumulator.jvp(value), tf.reduce_sum(gradient * direction), rtol=1e-12)
    rows = tf.vectorized_map(lambda pair: cwtf.loss(SPECS[kind], *pair), (z, t))
    np.testing.assert_allclose(rows, [cwtf.loss(SPECS[kind], *row) for row in zip(z, t, strict=True)], rtol=1e-12)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("targets", ["index", "distribution"])
def test_gradients_flow_to_soft_targets_and_weights(targets: str, mode: str) -> None:
    z, t = arrays(targets)
    s, w = np.linspace(0.5, 2, 6), np.array(W)
    spec = SoftmaxCrossEntropy(label_smoothing=0.1)

    def gradients(z: Any, t: Any, s: Any, w: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([z, t, s, w])
            value = cwtf.loss(spec, z, t, s, class_weight=w)
        return [
            tf.convert_to_tensor(g) for g in tape.gradient(value, [z, t, s, w] if t.dtype.is_floating else [z, s, w])
        ]

    inputs = {"z": z, "t": t, "s": s, "w": w}
    found = MODES[mode](gradients)(*map(tf.constant, inputs.values()))
    if targets == "index":
        found.insert(1, None)
    for name, gradient in zip(inputs, found, strict=True):
        if gradient is not None:
            step = np.zeros(inputs[name].shape)
            step.flat[1] = 1e-6
            at = [
                reference(spec, x["z"], x["t"], x["s"], class_weight=x["w"])[0]
                for x in ({**inputs, name: inputs[name] + step}, {**inputs, name: inputs[name] - step})
            ]
            np.testing.assert_allclose(gradient.numpy().flat[1], (at[0] - at[1]) / 2e-6, rtol=1e-6)


def test_accumulated_micro_batches_are_the_whole_batch() -> None:
    z, y = arrays("index")
    _, denominator = cwtf.loss_parts(SPECS["index"], z, y)
    whole = value_and_gradient(lambda z: cwtf.loss(SPECS["index"], z, y))(tf.constant(z))[1]
    for i in (0, 2, 4):
        part = value_and_gradient(lambda z, i=i: cwtf.loss(SPECS["index"], z, y[i : i + 2], denominator=denominator))
        np.testing.assert_allclose(part(tf.constant(z[i : i + 2]))[1], whole[i : i + 2], rtol=1e-14)


def test_a_given_denominator_is_a_constant() -> None:
    z, y = arrays("index")
    denominator = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(denominator)
        value = cwtf.loss(SoftmaxCrossEntropy(), z, y, denominator=denominator)
    assert tape.gradient(value, denominator) is None


# The fused loss: eager, compiled by XLA as one function or as two, in a graph, in a graph and compiled there.

PATHS = ["eager", "compiled-as-one", "compiled-as-two", "graph", "compiled-in-graph"]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes a function take one of the paths."""
    monkeypatch.setattr(operation, "PATIENCE", 1 if "as" in request.param else 1 << 60)
    monkeypatch.setattr(operation, "SEVERAL", 1 << 60)
    monkeypatch.setattr(operation, "SMALL", 0 if request.param == "compiled-as-two" else 1 << 60)
    monkeypatch.setattr(operation, "LARGE", 0 if request.param == "compiled-in-graph" else 1 << 60)
    monkeypatch.setattr(operation, "MOST", 1 << 60)
    operation._kernel.cache_clear()
    yield (lambda f: tf.function(f, autograph=False)) if "graph" in request.param else lambda f: f
    operation._kernel.cache_clear()


def plain(z: Any, s: Any, w: Any, y: Any, reduction: str) -> Any:
    """Return the loss as TensorFlow's operations."""
    one_hot = tf.one_hot(y, z.shape[-1], dtype=z.dtype)
    weights = s * tf.linalg.matvec(one_hot, w)
    rows = -weights * tf.reduce_sum(one_hot * tf.nn.log_softmax(z), -1)
    return rows if reduction == "none" else tf.reduce_sum(rows) / tf.reduce_sum(weights)


def derivatives(f: Any, z: Any, s: Any, w: Any) -> dict[str, Any]:
    """Return whatever TensorFlow derives from f(z, s, w)."""
    found: dict[str, Any] = {}
    inputs, direction = [z, s, w], tf.reverse(z, [1])
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(inputs)
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(inputs)
            value = f(*inputs)
            some = value * tf.range(2, 2 + tf.size(value, tf.int64), dtype=tf.float64)
        found["value"], found["gradient"] = value, inner.gradient(some, inputs)
        square = sum(tf.reduce_sum(tf.convert_to_tensor(x) ** 2) for x in inner.gradient(value, inputs))
    found["second order"] = outer.gradient(square, inputs)
    with tf.GradientTape() as tape:
        tape.watch(w)
        value = f(*inputs)
    found["weights alone"] = tape.gradient(value, w)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = f(*inputs)
    found["jacobian"] = tape.jacobian(value, z)
    with tf.autodiff.ForwardAccumulator((z, s), (direction, s)) as accumulator:
        value = f(*inputs)
    found["tangent"] = accumulator.jvp(value)
    with tf.autodiff.ForwardAccumulator(z, direction) as accumulator:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = f(*inputs)
        slope = tape.gradient(value, z)
    found["hessian times a vector"] = accumulator.jvp(slope)
    return found


@pytest.mark.parametrize("reduction", ["none", "mean_over_weights"])
def test_what_is_derived_from_the_fused_loss_is_what_tensorflow_derives_from_its_operations(
    path: Any, reduction: str
) -> None:
    z, y = map(tf.constant, arrays("index"))
    s, w = tf.linspace(tf.constant(0.5, tf.float64), 2, 6), tf.constant(W, tf.float64)
    spec = SoftmaxCrossEntropy(reduction=reduction)
    ours = path(lambda z, s, w: cwtf.loss(spec, z, y, s, class_weight=w))
    found = derivatives(ours, z, s, w)
    for name, expected in derivatives(lambda z, s, w: plain(z, s, w, y, reduction), z, s, w).items():
        for x, right in zip(tf.nest.flatten(found[name]), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(
                tf.convert_to_tensor(x), tf.convert_to_tensor(right), rtol=1e-9, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("num_classes", [3, 100])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean_over_weights"])
def test_the_fused_loss_is_the_reference_for_any_axis(path: Any, axis: int, num_classes: int, reduction: str) -> None:
    rng = np.random.default_rng(5)
    shape = (4, num_classes, 3) if axis == 1 else (4, 3, num_classes)
    z, y, s = 5 * rng.normal(size=shape), rng.integers(num_classes, size=(4, 3)), rng.random((4, 3))
    y[1, 2] = -100
    z[(1, slice(None), 2) if axis == 1 else (1, 2)] = np.nan
    spec = SoftmaxCrossEntropy(
        class_weight=rng.random(num_classes), ignore_index=-100, axis=axis, reduction=reduction, precision="exact"
    )
    factor = rng.random((4, 3)) if reduction == "none" else np.float64(0.7)
    f = path(value_and_gradient(lambda z: cwtf.loss(spec, z, y, s), factor=tf.constant(factor)))
    for found, expected in zip(f(tf.constant(z)), reference(spec, z, y, s, upstream=factor), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("num_classes", [10, 1001])
@pytest.mark.parametrize("factor", [1.0, 1e20])
@pytest.mark.parametrize("gap", [50.0, 90.0, 110.0])
def test_no_normal_number_becomes_zero(path: Any, gap: float, factor: float, num_classes: int) -> None:
    z = tf.constant([[0.0] + [-gap] * (num_classes - 1)])
    spec = SoftmaxCrossEntropy(reduction="sum")
    f = path(value_and_gradient(lambda z: cwtf.loss(spec, z, [0], tf.constant([1e10])), factor=tf.constant(factor)))
    value, gradient = f(z)
    e, others = np.exp(-gap) * factor * 1e10, num_classes - 1
    for found, expected in ((value, others * e / factor), (gradient[0, 0], -others * e), (gradient[0, 1:], e)):
        normal = np.abs(expected) >= np.finfo(np.float32).tiny
        np.testing.assert_allclose(found, np.where(normal, expected, 0.0), rtol=2e-5, atol=0 if normal else 1.2e-38)


CLOSED = ["smoothed", "distribution", "binary"]


@pytest.mark.parametrize("kind", CLOSED)
def test_what_is_derived_from_a_closed_form_is_what_is_derived_from_the_composite(path: Any, kind: str) -> None:
    z, t = map(tf.constant, arrays(kind))
    s, w = tf.linspace(tf.constant(0.5, tf.float64), 2, 6), tf.constant(W, tf.float64)
    spec = dataclasses.replace(SPECS[kind], class_weight=None)

    def composite(z: Any, s: Any, w: Any) -> Any:
        call = route.make_call(spec, z, None, t, s, (1.0, w) if kind == "binary" else w, None, None)
        return route._composite(call, z.dtype)

    ours = path(lambda z, s, w: cwtf.loss(spec, z, t, s, class_weight=(1.0, w) if kind == "binary" else w))
    found = derivatives(ours, z, s, w)
    for name, expected in derivatives(composite, z, s, w).items():
        for x, right in zip(tf.nest.flatten(found[name]), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(
                tf.convert_to_tensor(x), tf.convert_to_tensor(right), rtol=1e-9, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize(("axis", "reduction"), [(1, "none"), (-1, "mean_over_weights")])
@pytest.mark.parametrize("kind", CLOSED)
def test_a_closed_form_is_the_reference_where_logits_tie_or_are_infinite(
    path: Any, kind: str, reduction: str, axis: int
) -> None:
    rng = np.random.default_rng(7)
    z, t, s = 20 * rng.normal(size=(5, 4, 3)), rng.random((5, 4, 3)), rng.random((5, 4) if kind == "binary" else 5)
    z[0] = 1.5
    z[1, 0], t[1, 0] = -np.inf, 0
    z[2], s[2] = np.nan, 0
    if kind == "smoothed":
        z[1, 0], t = -9, rng.integers(4 if axis == 1 else 3, size=(5, 3) if axis == 1 else (5, 4))
    options = {"reduction": reduction, "precision": "exact"}
    if kind == "binary":
        z[3, 1], t[3, 1] = np.inf, 1
        spec: Any = SigmoidCrossEntropy(class_weight=(1, [1.0, 2, 3]), **options)
    else:
        weights = [1.0, 2, 5, 0.5] if axis == 1 else [1.0, 2, 5]
        smoothing = 0.1 if kind == "smoothed" else 0
        spec = SoftmaxCrossEntropy(class_weight=weights, axis=axis, label_smoothing=smoothing, **options)
        z[1] = -9 if axis == -1 else z[1]  # else a row has no finite logit
    shape = np.shape(cwn.loss(spec, z, t, s))
    factor = rng.random(shape) if shape else np.float64(0.7)
    f = path(value_and_gradient(lambda z: cwtf.loss(spec, z, t, s), factor=tf.constant(factor)))
    for found, expected in zip(f(tf.constant(z)), reference(spec, z, t, s, upstream=factor), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", CLOSED)
def test_a_large_call_in_a_graph_is_compiled_and_agrees_with_the_eager_one(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation._kernel.cache_clear()
    monkeypatch.setattr(operation._Kernel, "compiled", 0)
    z, t = arrays(kind, rows=operation.LARGE // 4)
    z = tf.constant(z, tf.float32)
    f = value_and_gradient(lambda z: cwtf.loss(dataclasses.replace(SPECS[kind], precision="exact"), z, t))
    expected = f(z)
    assert operation._Kernel.compiled == 0
    for found, right in zip(tf.function(f, autograph=False)(z), expected, strict=True):
        np.testing.assert_array_max_ulp(found, right.numpy(), 1)
    assert operation._Kernel.compiled == 1
    operation._kernel.cache_clear()


def test_a_dense_target_that_fits_keeps_its_digits(path: Any) -> None:
    gap = 85.0
    z = tf.constant([[0.0, -gap, -gap]])
    f = path(value_and_gradient(lambda z: cwtf.loss(SoftmaxCrossEntropy(reduction="sum"), z, [[1.0, 0, 0]])))
    value, gradient = f(z)
    e = np.exp(-gap)
    np.testing.assert_allclose(value, 2 * e, rtol=2e-5)
    np.testing.assert_allclose(gradient, [[-2 * e, e, e]], rtol=2e-5)


@pytest.mark.parametrize("kind", ["index", *CLOSED])
def test_calls_that_come_again_are_compiled_and_keep_their_bits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operation._kernel.cache_clear()
    monkeypatch.setattr(operation._Kernel, "compiled", 0)
    z, y = arrays(kind)
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    f = value_and_gradient(lambda z: cwtf.loss(spec, z, y))
    found = [f(tf.constant(z, tf.float32)) for _ in range(operation.PATIENCE + 1)]
    parts = value_and_gradient(lambda z: cwtf.loss_parts(spec, z, y)[0])
    sums = [parts(tf.constant(z, tf.float32)) for _ in range(operation.PATIENCE)]
    assert operation._Kernel.compiled == 2
    np.testing.assert_allclose(sums[-1][0], sums[0][0], rtol=1e-14)
    np.testing.assert_array_equal(sums[-1][1], sums[0][1])
    monkeypatch.setattr(operation._Kernel, "compiled", 1)
    for value, gradient in found[1:]:
        np.testing.assert_array_equal(value, found[0][0])
        np.testing.assert_array_equal(gradient, found[0][1])
    monkeypatch.setattr(operation, "MOST", 1)
    for rows in range(1, 4):
        for _ in range(operation.PATIENCE + 1):
            f = value_and_gradient(lambda z, n=rows: cwtf.loss(spec, z, y[:n]))
            f(tf.constant(z[:rows], tf.float32))
    assert operation._Kernel.compiled == 1
    operation._kernel.cache_clear()


def test_equal_exponentials_of_very_many_classes_do_not_add_up_their_roundings() -> None:
    z, y = np.zeros((2, 1 << 20), np.float32), np.zeros(2, np.int64)
    z[:, 1] = 0.3
    spec = SoftmaxCrossEntropy(axis=-1)
    f = tf.function(value_and_gradient(lambda z: cwtf.loss(spec, z, y)), autograph=False)
    for found, expected in zip(f(tf.constant(z)), reference(spec, z, y), strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-7)


def test_shapes_that_keep_changing_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    operation._kernel.cache_clear()
    monkeypatch.setattr(operation, "SEVERAL", 2)
    monkeypatch.setattr(operation._Kernel, "compiled", 0)

    def steps(rows: int, times: int) -> int:
        for _ in range(times):
            cwtf.loss(SoftmaxCrossEntropy(), tf.zeros((rows, 2)), tf.zeros(rows, tf.int64))
        return operation._Kernel.compiled

    found = [steps(rows, operation.PATIENCE) for rows in range(1, 6)]
    assert found == [1, 2, 2, 2, 2]
    assert steps(5, operation.PATIENCE) == 3
    operation._kernel.cache_clear()


def test_a_sum_is_not_silenced_by_a_denominator_of_zero() -> None:
    # No weight on the label, but smoothing puts some on the other class.
    spec = SoftmaxCrossEntropy(class_weight=[1, 0], label_smoothing=0.1)
    numerator, denominator = cwtf.loss_parts(spec, np.array([[1.0, 2]]), np.array([1]))
    assert float(denominator) == 0
    # The first class alone: 0.05 log(1 + e).
    np.testing.assert_allclose(float(numerator), 0.05 * np.log1p(np.e), rtol=1e-14)
