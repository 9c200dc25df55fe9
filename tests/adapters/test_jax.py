"""JAX: the same numbers traced or not, in every mode of differentiation, mapped, scanned and sharded."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import classweight.adapters.jax as cwj
import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.jax import arrays as jax_arrays
from classweight.reference import reference

from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, RandomCall, random_call
from ..refusals import Refusal, assert_refused, each_refusal

W = [1.0, 2.0, 5.0, 0.5]
SPECS = {
    "index": SoftmaxCrossEntropy(class_weight=W, ignore_index=-100),
    "smoothed": SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W),
    "binary": SigmoidCrossEntropy(class_weight=(1, W), label_smoothing=0.1),
    "probabilities": SoftmaxCrossEntropy(inputs="probs", clip=1e-7, renormalize="before"),
}
MODES: dict[str, Callable[[Any], Any]] = {"eager": lambda f: f, "jit": jax.jit}
each_mode = pytest.mark.parametrize("mode", list(MODES))
each_spec = pytest.mark.parametrize("kind", list(SPECS))
each_dtype = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])


@pytest.fixture
def x64() -> Any:
    with jax.enable_x64(True):
        yield


def arrays(kind: str, rows: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=(rows, 4)), rng.integers(4, size=rows)
    if kind == "probabilities":
        z = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    if kind == "distribution":
        return z, rng.random((rows, 4))
    return z, np.eye(4)[y] if kind == "binary" else y


def value_and_gradient(f: Any, z: Any, upstream: Any = None) -> Any:
    value, pullback = jax.vjp(f, z)
    return value, pullback(jnp.ones_like(value) if upstream is None else jnp.asarray(upstream, value.dtype))[0]


def run(mode: str, call: RandomCall, **options: Any) -> tuple[Any, Any]:
    names = list(call.arguments)

    def f(z: Any, t: Any, *arguments: Any) -> Any:
        loss = lambda z: cwj.loss(call.spec, z, t, **dict(zip(names, arguments, strict=True)), **options)  # noqa: E731
        return value_and_gradient(loss, z, call.upstream)

    inputs = map(jnp.asarray, (call.logits, call.targets, *call.arguments.values()))
    return MODES[mode](f)(*inputs)  # type: ignore[no-any-return]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("mode", "seed"), [("jit", s) for s in range(25)] + [("eager", s) for s in range(60, 70)])
def test_random_calls_agree_with_the_reference(mode: str, seed: int) -> None:
    call = random_call(seed)
    value, gradient = run(mode, call)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    assert value.shape == expected[0].shape
    np.testing.assert_allclose(value, expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient, expected[1])
    if mode == "eager":
        arguments = {k: v for k, v in call.arguments.items() if k != "denominator"}
        for ours, theirs in zip(
            cwj.loss_parts(call.spec, call.logits, call.targets, **arguments),
            cwn.loss_parts(call.spec, call.logits, call.targets, **arguments),
            strict=True,
        ):
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize("seed", range(100, 110))
def test_64_bits_inside_whatever_jax_enable_x64_says(seed: int) -> None:
    call = random_call(seed)
    spec, logits = dataclasses.replace(call.spec, precision="exact"), call.logits.astype(np.float32)
    results = []
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            loss = lambda z: cwj.loss(spec, z, call.targets, **call.arguments)  # noqa: E731
            results.append(value_and_gradient(loss, jnp.asarray(logits), call.upstream))
            assert jax.config.jax_enable_x64 == enabled
    above = np.asarray(call.upstream, np.float32)
    results.append(cwn.loss_and_grad(spec, logits, call.targets, upstream=above, **call.arguments))
    for found in zip(*results, strict=True):
        for each in found:
            assert each.dtype == np.float32
            np.testing.assert_array_equal(each, found[0], err_msg=str(call))


@each_dtype
@each_spec
def test_exact_results_have_the_bits_of_every_other_backend(kind: str, dtype: str) -> None:
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    z, t = arrays(kind, rows=50)
    z = jnp.asarray(3 * z if kind != "probabilities" else z, dtype)
    value, gradient = value_and_gradient(lambda z: cwj.loss(spec, z, t), z)
    expected, expected_gradient = cwn.loss_and_grad(spec, np.asarray(z), t)
    assert value.dtype == gradient.dtype == z.dtype
    assert np.asarray(value).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(gradient, expected_gradient)


@each_dtype
@each_spec
def test_native_results_have_the_logits_dtype(kind: str, dtype: str) -> None:
    z, t = arrays(kind)
    z = jnp.asarray(z, dtype)
    value, gradient = value_and_gradient(lambda z: cwj.loss(SPECS[kind], z, t), z)
    assert value.dtype == gradient.dtype == z.dtype
    expected, slopes = reference(SPECS[kind], np.asarray(z, np.float64), t)
    eps = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-20}[dtype]
    np.testing.assert_allclose(np.asarray(value, np.float64), expected, rtol=eps)
    scale = np.abs(slopes).max()
    np.testing.assert_allclose(np.asarray(gradient, np.float64), slopes, rtol=eps, atol=eps * scale / 64)


# Refusals, and what is not looked at.


@pytest.mark.parametrize("classes", [10, 100])
def test_a_row_has_its_bits_in_a_batch_of_any_size(classes: int) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(6000 // classes, classes)).astype(np.float32), rng.integers(classes, size=6000 // classes)
    up = rng.normal(size=len(y)).astype(np.float32)
    spec = SoftmaxCrossEntropy(reduction="none")

    @jax.jit
    def step(z: Any, y: Any, up: Any) -> Any:
        return value_and_gradient(lambda z: cwj.loss(spec, z, y), z, up)

    whole = step(z, y, up)
    for rows in (slice(0, 1), slice(0, 50), slice(30, 40)):
        for part, all_rows in zip(step(z[rows], y[rows], up[rows]), whole, strict=True):
            np.testing.assert_array_equal(part, all_rows[rows])


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal, x64: None) -> None:
    assert_refused(refusal, cwj.loss, jnp.asarray)
    if "denominator" not in refusal.arguments:
        assert_refused(refusal, cwj.loss_parts, jnp.asarray)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match="`logits` must be numbers in a regular shape"):
        cwj.loss(SoftmaxCrossEntropy(), [[1.0, 2], [3]], [0, 1])
    with pytest.raises(TypeError, match="`logits` must be floating point"):
        cwj.loss(SoftmaxCrossEntropy(), "logits", [0, 1])


@pytest.mark.parametrize("bad", [3, 99, -1, -100])
def test_an_invalid_label_in_a_traced_function_is_nan(bad: int) -> None:
    spec, z = SoftmaxCrossEntropy(class_weight=[1, 2, 3], reduction="none"), np.zeros((3, 3), np.float32)
    f = jax.jit(lambda z, y: value_and_gradient(lambda z: cwj.loss(spec, z, y), z))
    value, gradient = f(z, np.array([0, bad, 2]))
    assert np.isnan(value).tolist() == [False, True, False]
    assert np.isnan(gradient).all(1).tolist() == [False, True, False]
    assert np.isnan(cwj.loss(spec, z, [0, bad, 2], validate=False)).tolist() == [False, True, False]


def test_what_is_no_tracer_is_looked_at_while_a_function_is_traced() -> None:
    f = jax.jit(jax.grad(lambda z: cwj.loss(SoftmaxCrossEntropy(), z, np.array([0, 3, 1]))))
    with pytest.raises(IndexError, match=r"from 0 to 2; got 3 at position \(1,\)"):
        f(np.zeros((3, 3), np.float32))


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_validate_looks_at_traced_arrays_when_they_run(transform: str) -> None:
    def loss(z: Any, y: Any, w: Any) -> Any:
        return cwj.loss(SoftmaxCrossEntropy(), z, y, class_weight=w, validate=True)

    many = lambda z, y, w: jax.vmap(loss, (0, 0, None))(z[None], y[None], w)  # noqa: E731
    f = jax.jit({"jit": loss, "grad": jax.grad(loss), "vmap": many}[transform])
    z, y, w = jnp.ones((3, 3)), jnp.array([0, 1, 2]), jnp.ones(3)
    assert np.isfinite(f(z, y, w)).all()
    for bad, match in (
        ((z, y.at[1].set(3), w), r"from 0 to 2; got 3 at position \(1,\)"),
        ((z, y, w.at[0].set(jnp.nan)), "`class_weight` must be"),
    ):
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=match):
            jax.block_until_ready(f(*bad))


# Differentiation.


@each_spec
def test_second_order_in_every_order_of_modes(kind: str, x64: None) -> None:
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    z, t = arrays(kind, rows=2)
    f, step = lambda z: cwj.loss(spec, z, t), 1e-5
    differences = np.zeros(z.shape * 2)
    for i in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[i] += step
        down[i] -= step
        differences[(..., *i)] = (reference(spec, up, t)[1] - reference(spec, down, t)[1]) / (2 * step)
    orders = [jax.hessian(f), jax.jacrev(jax.jacfwd(f)), jax.jacfwd(jax.jacfwd(f)), jax.jacrev(jax.grad(f))]
    for hessian in orders if kind == "index" else orders[:2]:
        np.testing.assert_allclose(jax.jit(hessian)(z), differences, rtol=1e-6, atol=1e-8)


@each_dtype
@each_spec
def test_a_tangent_is_the_gradient_times_the_direction(kind: str, dtype: str) -> None:
    z, t = arrays(kind)
    z = jnp.asarray(z, dtype)
    along = jnp.asarray(np.random.default_rng(5).normal(size=z.shape), dtype)
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    value, tangent = jax.jvp(lambda z: cwj.loss(spec, z, t), (z,), (along,))
    expected, slopes = reference(spec, np.asarray(z, np.float64), t)
    eps = float(jnp.finfo(dtype).eps)
    assert value.dtype == tangent.dtype == z.dtype
    np.testing.assert_allclose(np.float64(value), expected, rtol=eps)
    np.testing.assert_allclose(np.float64(tangent), (slopes * np.asarray(along, np.float64)).sum(), rtol=eps)


def test_a_hessian_in_float32_is_the_closed_form() -> None:
    z, y = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), np.array([0, 2])
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 5], precision="exact", reduction="sum")
    q = np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum(1, keepdims=True)
    blocks = [w * (np.diag(p) - np.outer(p, p)) for w, p in zip([1, 5], q, strict=True)]
    for hessian in (jax.hessian, lambda f: jax.jacrev(jax.grad(f)), lambda f: jax.jit(jax.hessian(f))):
        found = hessian(lambda z: cwj.loss(spec, z, y))(z)
        assert found.dtype == np.float32
        for i in range(2):
            np.testing.assert_allclose(found[i, :, i], blocks[i], rtol=1e-6)
            np.testing.assert_array_equal(found[i, :, 1 - i], 0)


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("targets", ["index", "distribution"])
def test_gradients_flow_to_soft_targets_and_weights(targets: str, mode: str, x64: None) -> None:
    z, t = arrays(targets)
    spec = SoftmaxCrossEntropy(label_smoothing=0.1)
    inputs = {"z": z, "t": t, "s": np.linspace(0.5, 2, 6), "w": np.array(W)}
    names = [name for name in inputs if inputs[name].dtype.kind == "f"]

    def loss(some: Any) -> Any:
        x = inputs | some
        return cwj.loss(spec, x["z"], x["t"], x["s"], class_weight=x["w"])

    jacobian = jax.grad if mode == "reverse" else jax.jacfwd
    found = jacobian(loss)({name: inputs[name] for name in names})
    for name in names:
        step = np.zeros(inputs[name].shape)
        step.flat[1] = 1e-6
        at = [
            reference(spec, x["z"], x["t"], x["s"], class_weight=x["w"])[0]
            for x in ({**inputs, name: inputs[name] + step}, {**inputs, name: inputs[name] - step})
        ]
        np.testing.assert_allclose(found[name].ravel()[1], (at[0] - at[1]) / 2e-6, rtol=1e-6)


@each_mode
@pytest.mark.parametrize("targets", [0, [1.0, 0, 0], [0.5, 0.5, 0]])
def test_rows_without_a_softmax_are_nan_and_so_is_their_gradient(targets: Any, mode: str) -> None:
    each = np.array([targets] * len(ROWS_WITHOUT_A_SOFTMAX))
    f = partial(value_and_gradient, lambda z: cwj.loss(SoftmaxCrossEntropy(reduction="none"), z, each))
    value, gradient = MODES[mode](f)(jnp.asarray(ROWS_WITHOUT_A_SOFTMAX, jnp.float32))
    assert np.isnan(value).all()
    assert np.isnan(gradient).all()


@pytest.mark.parametrize("jacobian", [jax.grad, jax.jacfwd, jax.jacrev])
def test_a_class_that_a_row_cannot_have_has_a_tangent_of_0(jacobian: Any) -> None:
    z, y = jnp.array([-jnp.inf, 0.0, 0.0]), jnp.array([0.0, 1, 0])
    for targets in (y, jnp.array(1)):
        found = jacobian(lambda z, t=targets: cwj.loss(SoftmaxCrossEntropy(reduction="sum"), z, t))(z)
        np.testing.assert_array_equal(found, [0, -0.5, 0.5])


@pytest.mark.parametrize("jacobian", [jax.grad, jax.jacfwd])
def test_nothing_of_an_ignored_row_reaches_a_gradient(jacobian: Any) -> None:
    z = jnp.array([[0.0, 1], [jnp.nan, jnp.inf]])
    found = jacobian(lambda z: cwj.loss(SoftmaxCrossEntropy(ignore_index=-1), z, jnp.array([0, -1])))(z)
    q = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(found, [[-q, q], [0, 0]], rtol=1e-6)


@each_mode
@pytest.mark.parametrize("classes", [2, jax_arrays.MANY])
def test_a_confident_prediction_keeps_its_loss_and_gradient(classes: int, mode: str) -> None:
    z = jnp.full((2, classes), -1000.0).at[:, :2].set(jnp.array([[20.0, 0.0], [80.0, 0.0]]))
    f = partial(value_and_gradient, lambda z: cwj.loss(SoftmaxCrossEntropy(reduction="sum"), z, np.zeros(2, int)))
    value, gradient = MODES[mode](f)(z)
    expected = np.log1p(np.exp([-20.0, -80.0]))
    np.testing.assert_allclose(value, expected.sum(), rtol=3e-7)
    np.testing.assert_allclose(gradient[:, :2], np.stack([-expected, expected], 1), rtol=3e-7)


def test_a_given_denominator_is_a_constant() -> None:
    z, y = arrays("index")
    loss = lambda d: cwj.loss(SoftmaxCrossEntropy(), jnp.asarray(z), y, denominator=d)  # noqa: E731
    assert jax.grad(loss)(3.0) == 0
    assert jax.jvp(loss, (3.0,), (1.0,))[1] == 0


def test_labels_have_no_tangent() -> None:
    z, y = map(jnp.asarray, arrays("index"))
    none = np.zeros(y.shape, jax.dtypes.float0)
    value, tangent = jax.jvp(lambda y: cwj.loss(SoftmaxCrossEntropy(), z, y), (y,), (none,))
    assert value == cwj.loss(SoftmaxCrossEntropy(), z, y)
    assert tangent == 0
    both = jax.jvp(lambda z, y: cwj.loss(SoftmaxCrossEntropy(), z, y), (z, y), (z, none))
    assert both == jax.jvp(lambda z: cwj.loss(SoftmaxCrossEntropy(), z, y), (z,), (z,))


def test_a_batch_of_nothing() -> None:
    for classes in (3, jax_arrays.MANY):
        f = lambda z: cwj.loss(SoftmaxCrossEntropy(), z, np.zeros(0, int))  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(f))(jnp.zeros((0, classes)))
        assert value == 0
        assert gradient.shape == (0, classes)


# Transformations.


@pytest.mark.parametrize("kind", ["index", "distribution", "binary"])
def test_vmap_is_the_loop(kind: str) -> None:
    z, t = map(jnp.asarray, arrays(kind))
    loss = partial(cwj.loss, SPECS[kind])
    rows = [loss(*row) for row in zip(z, t, strict=True)]
    np.testing.assert_allclose(jax.vmap(loss)(z, t), rows, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(loss, (0, None))(z, t[0]), [loss(row, t[0]) for row in z], rtol=1e-6)
    for jacobian in (jax.grad, jax.jacfwd):
        slopes = [jacobian(loss)(*row) for row in zip(z, t, strict=True)]
        np.testing.assert_allclose(jax.vmap(jacobian(loss))(z, t), slopes, rtol=1e-6, atol=1e-7)
        summed = jacobian(lambda z: jax.vmap(loss)(z, t).sum())(z)
        np.testing.assert_allclose(summed, slopes, rtol=1e-6, atol=1e-7)


def test_a_gradient_to_what_vmap_shares_is_summed() -> None:
    z, y = jnp.asarray(np.random.default_rng(1).normal(size=(5, 6, 4)), jnp.float32), arrays("index")[1]
    shared = lambda w, z: cwj.loss(SPECS["index"], z, y, class_weight=w)  # noqa: E731
    found = jax.grad(lambda w: jax.vmap(shared, (None, 0))(w, z).sum())(jnp.asarray(W))
    np.testing.assert_allclose(found, sum(jax.grad(shared)(jnp.asarray(W), each) for each in z), rtol=1e-6)


def test_a_map_of_tangents_is_transposed() -> None:
    z, y = map(jnp.asarray, arrays("index"))
    _, tangent = jax.linearize(lambda z: cwj.loss(SPECS["index"], z, y), z)
    many = jax.vmap(tangent)
    (found,) = jax.linear_transpose(many, jnp.zeros((3, *z.shape), z.dtype))(jnp.array([1.0, 0, 2]))
    slopes = jax.grad(lambda z: cwj.loss(SPECS["index"], z, y))(z)
    np.testing.assert_allclose(found, [slopes, 0 * slopes, 2 * slopes], rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint])
def test_scanned_micro_batches_are_the_whole_batch(wrap: Any) -> None:
    z, y = map(jnp.asarray, arrays("index"))
    spec = SPECS["index"]
    _, denominator = cwj.loss_parts(spec, z, y)

    @wrap
    def part(total: Any, batch: Any) -> Any:
        return total + cwj.loss(spec, *batch, denominator=denominator.astype(jnp.float32)), None

    def loss(z: Any) -> Any:
        return jax.lax.scan(part, 0.0, (z.reshape(3, 2, 4), y.reshape(3, 2)))[0]

    whole = jax.value_and_grad(lambda z: cwj.loss(spec, z, y))(z)
    for f in (loss, jax.jit(loss)):
        for found, expected in zip(jax.value_and_grad(f)(z), whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jacfwd(f)(z), whole[1], rtol=1e-5)


def test_checkpoint_and_donation() -> None:
    z, y = map(jnp.asarray, arrays("index"))
    f = lambda z: cwj.loss(SPECS["index"], jnp.tanh(z), y)  # noqa: E731
    expected = jax.grad(f)(z)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(f))(z), expected, rtol=1e-6)
    donated = jax.jit(lambda z: jax.grad(f)(z), donate_argnums=0)(z + 0)
    np.testing.assert_allclose(donated, expected, rtol=1e-5)


def test_the_parts_of_shards_add_up() -> None:
    """In a process of its own, with two devices."""
    options = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", str(Path(__file__).with_name("sharded_jax.py"))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | options)
    assert done.returncode == 0, done.stderr
