"""Chainer: the same numbers by every route of its autograd, drop-ins against the native functions, a real trainer."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer
    import chainer.functions as F
    import chainer.links as L
    from chainer.training import extensions

import classweight.adapters.chainer as cwch
import classweight.adapters.numpy as cwn
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conventions import chainer as conventions
from classweight.reference import reference

from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, random_call
from ..conventions.configurations import COUNT, batch, binary_batch, upstream
from ..refusals import Refusal, assert_refused, each_refusal

Variable = chainer.Variable
Z = np.array([[2, -1, 0.5], [0, 1, -2], [0.5, 0.5, 3], [-1, 2, 0]])
Y = np.array([0, 1, 2, 1])
W = np.array([1.0, 2, 5])


def gradient(value: Any, x: Any, upstream: Any = None, *, double: bool = False) -> Any:
    upstream = np.ones(value.shape, value.dtype) if upstream is None else upstream
    return chainer.grad([value], [x], [Variable(np.asarray(upstream))], enable_double_backprop=double)[0]


@pytest.mark.parametrize("seed", range(300))
def test_chainer_equals_the_reference_in_closed_form_and_composite(seed: int) -> None:
    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    z = Variable(call.logits)
    value = cwch.loss(call.spec, z, call.targets, **call.arguments)
    assert value.shape == expected[0].shape
    np.testing.assert_allclose(value.array, expected[0], **CLOSE, err_msg=str(call))
    for double in (False, False, True):  # the kept gradient, a second backward, the composite
        call.assert_gradient(gradient(value, z, call.upstream, double=double).array, expected[1])
    unchecked = cwch.loss(call.spec, z, call.targets, validate=False, **call.arguments)
    np.testing.assert_array_equal(unchecked.array, value.array)


@pytest.mark.parametrize("seed", range(60))
def test_bits_are_those_of_the_numpy_adapter(seed: int) -> None:
    call = random_call(seed)
    dtype = (np.float16, np.float32, np.float64)[seed % 3]
    z, above = call.logits.astype(dtype), call.upstream.astype(dtype)
    spec = dataclasses.replace(call.spec, precision="exact")
    expected = cwn.loss_and_grad(spec, z, call.targets, upstream=above, **call.arguments)
    x = Variable(z)
    value = cwch.loss(spec, x, call.targets, **call.arguments)
    value.grad = np.asarray(above)
    value.backward()
    for got, wanted in ((value.array, expected[0]), (x.grad, expected[1])):
        assert got.dtype == dtype
        # A float64 loss keeps its gradient and scales it: a rounding more, and no promise of bits.
        np.testing.assert_allclose(got, wanted, rtol=4e-16 if dtype is np.float64 else 0)


@pytest.mark.parametrize("above", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_exact_gradient_is_rounded_once_whether_it_was_kept_or_not(dtype: Any, above: float) -> None:
    rng = np.random.default_rng(5)
    z, y = rng.normal(size=(50, 7)).astype(dtype), rng.integers(0, 7, 50)
    spec = SoftmaxCrossEntropy(precision="exact", class_weight=rng.random(7))
    x = Variable(z)
    value = cwch.loss(spec, x, y)
    expected = reference(spec, z.astype(np.float64), y, upstream=above)[1].astype(dtype)
    for _ in range(2):  # what the forward kept, and what it did not
        np.testing.assert_array_equal(gradient(value, x, np.asarray(above, dtype)).array, expected)


@pytest.mark.parametrize("seed", range(80))
def test_double_backprop_is_the_difference_of_gradients(seed: int) -> None:
    call = random_call(seed, inputs="logits")
    rng = np.random.default_rng(seed)
    direction, step = rng.normal(size=call.logits.shape), 1e-6
    z = Variable(call.logits)
    first = gradient(cwch.loss(call.spec, z, call.targets, **call.arguments), z, call.upstream, double=True)
    second = gradient(first, z, direction).array
    ahead, behind = (
        cwn.loss_and_grad(
            call.spec, call.logits + h * direction, call.targets, upstream=call.upstream, **call.arguments
        )[1]
        for h in (step, -step)
    )
    # The Hessian is symmetric: its product with the direction is the gradient's derivative along it.
    scale = np.abs(ahead - behind).max(initial=0) / (2 * step)
    np.testing.assert_allclose(second, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8 * (1 + scale))


def test_a_third_derivative() -> None:
    z = Variable(np.array([0.3]))
    value = cwch.loss(SigmoidCrossEntropy(reduction="sum"), z, np.array([1.0]))
    first = gradient(value, z, double=True)
    second = gradient(first, z, double=True)
    q = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(gradient(second, z).array, [q * (1 - q) * (1 - 2 * q)], rtol=1e-14)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("bad", [-1, 3, -100])
def test_a_bad_label_that_is_not_looked_for_makes_its_row_nan(bad: int, double: bool) -> None:
    z = Variable(Z)
    labels = np.where(np.arange(4) == 2, bad, Y)
    value = cwch.loss(SoftmaxCrossEntropy(reduction="none"), z, labels, validate=False)
    np.testing.assert_array_equal(np.isnan(value.array), [False, False, True, False])
    np.testing.assert_array_equal(np.isnan(gradient(value, z, double=double).array).all(1), np.isnan(value.array))


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    assert_refused(refusal, cwch.loss, lambda x: x)
    assert_refused(refusal, cwch.loss, Variable)
    if "denominator" not in refusal.arguments:
        assert_refused(refusal, cwch.loss_parts, Variable)


def test_logits_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="`logits` must be a Variable, or an array of NumPy or CuPy; got list"):
        cwch.loss(SoftmaxCrossEntropy(), Z.tolist(), Y)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
@pytest.mark.parametrize("targets", [np.array([0]), np.array([[1.0, 0, 0]]), np.array([[0.5, 0.5, 0]])])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # Chainer's own, in its backward
def test_a_row_without_a_softmax_is_nan_and_so_is_its_gradient(row: Any, targets: Any, double: bool) -> None:
    z = Variable(np.array([row], float))
    value = cwch.loss(SoftmaxCrossEntropy(reduction="sum"), z, targets)
    assert np.isnan(value.array)
    assert np.isnan(gradient(value, z, double=double).array).all()


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("gap", [17, 30, 60])
@pytest.mark.parametrize("double", [False, True])
def test_a_confident_prediction_keeps_its_gradient(gap: float, precision: Any, double: bool) -> None:
    z = Variable(np.array([[gap, 0, 0]], np.float32))
    small = np.exp(-np.float64(gap))
    for targets in (np.array([0]), np.array([[1.0, 0, 0]])):
        value = cwch.loss(SoftmaxCrossEntropy(precision=precision), z, targets)
        np.testing.assert_allclose(value.array, 2 * small, rtol=1e-6)
        np.testing.assert_allclose(gradient(value, z, double=double).array, [[-2 * small, small, small]], rtol=1e-6)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean_over_weights", "mean_over_nonzero"])
@pytest.mark.parametrize("kind", ["distribution", "index", "binary"])
def test_gradients_flow_to_soft_targets_and_weights(kind: str, reduction: Any) -> None:
    rng = np.random.default_rng(4)
    above = rng.normal(size=(4, 3) if kind == "binary" else 4) if reduction == "none" else np.array(1.5)
    spec: Any = (SigmoidCrossEntropy if kind == "binary" else SoftmaxCrossEntropy)(
        reduction=reduction, label_smoothing=0.1
    )
    inputs = {"logits": Z, "sample_weight": rng.random(4) + 0.5, "class_weight": W}
    if kind == "binary":
        inputs |= {"class_weight": W, "targets": rng.random((4, 3))}
    elif kind == "distribution":
        inputs["targets"] = rng.random((4, 3))

    def value(arguments: dict[str, Any]) -> Any:
        arguments = {"targets": Y, **arguments}
        if kind == "binary":
            arguments["class_weight"] = (1.0, arguments["class_weight"])
        return cwch.loss(spec, **arguments)

    variables = {name: Variable(x) for name, x in inputs.items()}
    result = value(variables)
    result.grad = above
    result.backward()
    for name, x in inputs.items():
        for position in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[position] += 1e-6
            down[position] -= 1e-6
            ahead, behind = (value({**inputs, name: y}).array for y in (up, down))
            slope = (above * (ahead - behind)).sum() / 2e-6
            assert variables[name].grad[position] == pytest.approx(slope, rel=1e-6, abs=1e-8), name


def test_a_given_denominator_is_a_constant() -> None:
    z, denominator = Variable(Z), Variable(np.array(7.0))
    value = cwch.loss(SoftmaxCrossEntropy(), z, Y, denominator=denominator)
    value.backward()
    assert denominator.grad is None
    np.testing.assert_allclose(value.array, cwn.loss(SoftmaxCrossEntropy(reduction="sum"), Z, Y) / 7, rtol=1e-15)


def test_parts_of_two_batches_give_the_whole_and_its_gradient() -> None:
    spec = SoftmaxCrossEntropy(class_weight=W)
    z = Variable(Z.astype(np.float32))
    parts = [cwch.loss_parts(spec, z[rows], Y[rows]) for rows in (slice(0, 1), slice(1, 4))]
    assert all(part.dtype == np.float64 for pair in parts for part in pair)
    numerator, denominator = (sum(pair) for pair in zip(*parts, strict=True))
    whole, slopes = cwn.loss_and_grad(spec, Z, Y)
    value = numerator / denominator
    np.testing.assert_allclose(value.array, whole, rtol=1e-6)
    np.testing.assert_allclose(gradient(value, z).array, slopes, rtol=1e-6, atol=1e-7)


def test_average_weighted_sigmoid_losses_are_one_call() -> None:
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(6, 4)), rng.integers(0, 2, (6, 4))
    w = rng.random((6, 4))
    native, ours = Variable(x), Variable(x)
    wanted = F.average(F.sigmoid_cross_entropy(native, t, reduce="no"), weights=w)
    got = cwch.loss(SigmoidCrossEntropy(ignore_label=-1), ours, t, w)
    np.testing.assert_allclose(got.array, wanted.array, rtol=1e-14)
    np.testing.assert_allclose(gradient(got, ours).array, gradient(wanted, native).array, rtol=1e-12)


def test_no_backprop_mode_makes_no_gradient() -> None:
    z, w = Variable(Z), Variable(W)
    with chainer.no_backprop_mode():
        value = cwch.loss(SoftmaxCrossEntropy(), z, Y, class_weight=w)
    assert value.creator is None
    np.testing.assert_array_equal(value.array, cwn.loss(SoftmaxCrossEntropy(), Z, Y, class_weight=W))


# -- drop-ins ---------------------------------------------------------------------------------------------------------


def run(function: Any, logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    x = Variable(logits)
    value = function(x, targets, **arguments)
    value.grad = upstream(value.shape, str(value.dtype))
    value.backward()
    return value.array, x.grad


def assert_drops_in(name: str, logits: Any, targets: Any, **arguments: Any) -> None:
    """Assert that the drop-in has the native function's value, gradient, types and shapes, to their own rounding."""
    wanted = run(getattr(F, name), logits, targets, **arguments)
    eps = float(np.finfo(logits.dtype).eps)
    for got, native in zip(run(getattr(cwch, name), logits, targets, **arguments), wanted, strict=True):
        assert (got.dtype, got.shape) == (native.dtype, native.shape)
        # Both sides round sums of up to 56 terms of at most this size.
        scale = max(1, np.abs(native.astype(float)).max(initial=0))
        np.testing.assert_allclose(got, native, rtol=64 * eps, atol=64 * eps * scale, err_msg=f"{name} {arguments}")


DTYPES = ("float64", "float32", "float32", "float16")


@pytest.mark.parametrize("case", range(COUNT))
def test_softmax_cross_entropy_of_labels_drops_in(case: int) -> None:
    b = batch(case, dtypes=DTYPES, min_classes=2)
    double, label = b.pick(False, True), b.pick(-1, 255, 0)
    arguments = {
        "normalize": b.pick(True, False),
        "cache_score": b.pick(True, False),
        "class_weight": b.pick(None, b.class_weight, b.class_weight.astype(b.dtype if double else "float64")),
        "ignore_label": label,
        "reduce": b.pick("mean", "mean", "no"),
        "enable_double_backprop": double,
    }
    targets = b.marked(label).astype(b.pick("int16", "int32", "int64"))
    if double:
        targets = targets.reshape(b.pick(targets.shape, targets.shape[::-1], (-1, 1)))
    assert_drops_in("softmax_cross_entropy", b.logits, b.pick(targets, Variable(targets)), **arguments)


@pytest.mark.parametrize("case", range(COUNT))
def test_softmax_cross_entropy_of_distributions_drops_in(case: int) -> None:
    b = batch(case, dtypes=DTYPES, min_classes=2)
    arguments = {
        "normalize": b.pick(True, False) if b.logits.ndim == 2 else True,
        "ignore_label": b.pick(-1, 5),
        "reduce": b.pick("mean", "mean", "no"),
        "soft_target_loss": b.pick("cross-entropy", "kl-divergence"),
    }
    targets = b.distributions(normalised=True)
    if b.dtype == "float16" and arguments["soft_target_loss"] == "kl-divergence":
        targets = np.full_like(targets, 1 / b.num_classes)  # Chainer's 1e-7 is lost beside a float16 of 0
    assert_drops_in("softmax_cross_entropy", b.logits, targets, **arguments)


@pytest.mark.parametrize("case", range(COUNT))
def test_sigmoid_cross_entropy_drops_in(case: int) -> None:
    b = binary_batch(case, dtypes=DTYPES)
    targets = np.where(b.ignored, -1, b.labels).astype(b.pick("int8", "int32", "int64"))
    arguments = {"normalize": b.pick(True, False), "reduce": b.pick("mean", "mean", "no")}
    assert_drops_in("sigmoid_cross_entropy", b.logits, targets, **arguments)


def test_distributions_of_a_wider_type_widen_the_value_as_in_chainer() -> None:
    z, y = Z.astype(np.float32), np.eye(3)[Y]
    wanted = F.softmax_cross_entropy(z, y)
    x = Variable(z)
    got = cwch.softmax_cross_entropy(x, y)
    got.backward()  # Chainer's raises
    assert got.dtype == wanted.dtype == np.float64
    assert x.grad.dtype == np.float32
    np.testing.assert_allclose(got.array, wanted.array, rtol=1e-6)


def test_bool_labels_are_taken_where_chainer_takes_them() -> None:
    labels = np.array([True, False, False, True])
    wanted = F.softmax_cross_entropy(Z, labels, enable_double_backprop=True)
    got = cwch.softmax_cross_entropy(Z, labels, enable_double_backprop=True)
    np.testing.assert_allclose(got.array, wanted.array, rtol=1e-14)


I32 = Y.astype(np.int32)
SOFT = np.eye(3)[Y]
BOTH_REFUSE: dict[str, Any] = {
    "lists": lambda f: f(Z, Y.tolist()),
    "logits-that-are-a-list": lambda f: f(Z.tolist(), I32),
    "integer-logits": lambda f: f(Z.astype(int), I32),
    "unsigned-labels": lambda f: f(Z, Y.astype(np.uint8)),
    "unsigned-labels-double": lambda f: f(Z, Y.astype(np.uint8), enable_double_backprop=True),
    "bool-labels": lambda f: f(Z, Y > 0),
    "labels-of-a-column": lambda f: f(Z, I32[:, None]),
    "labels-too-few": lambda f: f(Z, I32[:3]),
    "labels-too-few-double": lambda f: f(Z, I32[:3], enable_double_backprop=True),
    "labels-too-large": lambda f: f(Z, I32 + 1),
    "classes-last": lambda f: f(np.zeros((2, 3, 4)), np.zeros((2, 3), int)),
    "one-row": lambda f: f(Z[0], np.array(0)),
    "one-distribution": lambda f: f(Z[0], SOFT[0]),
    "integer-one-hot": lambda f: f(Z, SOFT.astype(int)),
    "distribution-shape": lambda f: f(Z, SOFT[:, :2]),
    "distribution-double": lambda f: f(Z, SOFT, enable_double_backprop=True),
    "reduce": lambda f: f(Z, I32, reduce="sum"),
    "soft-target-loss": lambda f: f(Z, SOFT, soft_target_loss="l2"),
    "weight-list": lambda f: f(Z, I32, class_weight=[1.0, 2, 3]),
    "weight-variable": lambda f: f(Z, I32, class_weight=Variable(W)),
    "weight-integers": lambda f: f(Z, I32, class_weight=np.array([1, 2, 3])),
    "weight-matrix": lambda f: f(Z, I32, class_weight=W[None]),
    "weight-length": lambda f: f(Z, I32, class_weight=W[:2]),
    "weight-type-double": lambda f: f(Z, I32, class_weight=W.astype(np.float32), enable_double_backprop=True),
    "no-class": lambda f: f(Z[:, :0], I32),
}
BOTH_REFUSE_BINARY: dict[str, Any] = {
    "float-labels": lambda f: f(Z, SOFT),
    "unsigned-labels": lambda f: f(Z, SOFT.astype(np.uint8)),
    "bool-labels": lambda f: f(Z, SOFT > 0),
    "labels-shape": lambda f: f(Z, SOFT[:, :2].astype(int)),
    "labels-that-broadcast": lambda f: f(Z, SOFT[:1].astype(int)),
    "list": lambda f: f(Z, SOFT.astype(int).tolist()),
    "integer-logits": lambda f: f(Z.astype(int), SOFT.astype(int)),
    "reduce": lambda f: f(Z, SOFT.astype(int), reduce="sum"),
}


@pytest.mark.parametrize(
    ("name", "call"),
    [("softmax_cross_entropy", call) for call in BOTH_REFUSE.values()]
    + [("sigmoid_cross_entropy", call) for call in BOTH_REFUSE_BINARY.values()],
    ids=[*BOTH_REFUSE, *(f"binary-{name}" for name in BOTH_REFUSE_BINARY)],
)
def test_what_chainer_refuses_is_refused_in_one_sentence(name: str, call: Any) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  (Chainer has many ways to)
        call(getattr(F, name))
    with pytest.raises((TypeError, ValueError), match=r"^`\w+` must .*; got ") as caught:
        call(getattr(cwch, name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("label", [-1, -2, 3])
def test_labels_that_chainer_wraps_or_clips_are_refused(label: int, double: bool) -> None:
    labels = np.array([0, 1, 2, label])
    with pytest.raises(IndexError, match=rf"`t` must be class indices .*; got {label} at position \(3,\)"):
        cwch.softmax_cross_entropy(Z, labels, ignore_label=255, enable_double_backprop=double)


def test_labels_of_a_binary_loss_are_checked() -> None:
    with pytest.raises(ValueError, match=r"`t` must be 0, 1, or -1 where ignored; got 2 at position \(1,\)"):
        cwch.sigmoid_cross_entropy(np.zeros(2), np.array([1, 2]))


def test_class_weights_of_distributions_are_kept() -> None:
    expected = -(W * SOFT * np.log(np.exp(Z) / np.exp(Z).sum(1, keepdims=True))).sum() / 4
    got = cwch.softmax_cross_entropy(Z, SOFT, class_weight=W)
    np.testing.assert_allclose(got.array, expected, rtol=1e-14)
    kl = cwch.softmax_cross_entropy(Z, SOFT, class_weight=W, soft_target_loss="kl-divergence")
    constant = (W * SOFT * np.log(SOFT + 1e-7)).sum() / 4
    np.testing.assert_allclose(kl.array, expected + constant, rtol=1e-14)


def test_ignored_rows_may_hold_anything() -> None:
    z = np.where(np.arange(4)[:, None] == 2, np.nan, Z)
    x = Variable(z)
    value = cwch.softmax_cross_entropy(x, np.array([0, 1, -1, 1]))
    value.backward()
    np.testing.assert_allclose(value.array, F.softmax_cross_entropy(np.delete(Z, 2, 0), Y[[0, 1, 3]]).array, rtol=1e-14)
    assert not x.grad[2].any()
    assert np.isfinite(x.grad).all()


@pytest.mark.parametrize("double", [False, True])
def test_an_empty_batch_has_a_loss_of_0_and_an_empty_gradient(double: bool) -> None:
    x = Variable(np.zeros((0, 3), np.float32))
    value = cwch.softmax_cross_entropy(x, np.zeros(0, int), enable_double_backprop=double)
    value.backward()
    assert value.array == 0
    assert x.grad.shape == (0, 3)


# -- in Chainer ------------------------------------------------------------------------------------------------------


def train(lossfun: Any, out: Path) -> Any:
    """Train a classifier with a real trainer and return its loss by epoch and its last weights."""
    rng = np.random.default_rng(0)
    labels = (rng.random(64) < 0.2).astype(np.int32)
    inputs = (rng.normal(size=(64, 5)) + labels[:, None]).astype(np.float32)
    predictor = L.Linear(5, 2, initialW=rng.normal(size=(2, 5)).astype(np.float32))
    model = L.Classifier(predictor, lossfun=lossfun)
    optimizer = chainer.optimizers.SGD(0.5).setup(model)
    iterator = chainer.iterators.SerialIterator(list(zip(inputs, labels, strict=True)), 16, shuffle=False)
    trainer = chainer.training.Trainer(
        chainer.training.StandardUpdater(iterator, optimizer), (5, "epoch"), out=str(out)
    )
    trainer.extend(extensions.LogReport(filename=None))
    trainer.run()
    return [entry["main/loss"] for entry in trainer.get_extension("LogReport").log], predictor.W.array


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Chainer's own
def test_a_trainer_trains_a_classifier_as_with_the_native_loss(tmp_path: Path) -> None:
    weight = np.array([1, 4], np.float32)
    native, native_weights = train(functools.partial(F.softmax_cross_entropy, class_weight=weight), tmp_path)
    spec = conventions.softmax_cross_entropy(class_weight=weight)
    for lossfun in (
        functools.partial(cwch.softmax_cross_entropy, class_weight=weight),
        functools.partial(cwch.loss, spec),
    ):
        losses, weights = train(lossfun, tmp_path)
        assert losses[-1] < losses[0]
        np.testing.assert_allclose(losses, native, rtol=1e-5)
        np.testing.assert_allclose(weights, native_weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fault",
    [
        "raise AttributeError(\"module 'numpy' has no attribute 'bool'\")",  # NumPy 2
        "import distutils_that_is_gone",  # Python 3.12
        "raise ModuleNotFoundError(\"No module named 'chainer'\", name='chainer')",
    ],
)
def test_a_chainer_that_cannot_be_imported_names_the_extra(fault: str, tmp_path: Path) -> None:
    (tmp_path / "chainer.py").write_text(fault)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import classweight.adapters.chainer"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: classweight.adapters.chainer needs chainer on Python 3.11 with numpy<2: ")
    assert "pip install 'classweight[chainer]'" in last


def test_a_sum_is_not_silenced_by_a_denominator_of_zero() -> None:
    # No weight on the label, but smoothing puts some on the other class.
    spec = SoftmaxCrossEntropy(class_weight=[1, 0], label_smoothing=0.1)
    numerator, denominator = cwch.loss_parts(spec, np.array([[1.0, 2]]), np.array([1]))
    assert float(denominator.array) == 0
    # The first class alone: 0.05 log(1 + e).
    np.testing.assert_allclose(float(numerator.array), 0.05 * np.log1p(np.e), rtol=1e-14)
