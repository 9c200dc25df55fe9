"""Chainer's own functions against their conventions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from classweight import conventions
from classweight.adapters import numpy as cwn
from classweight.reference import reference
from classweight.spec import SoftmaxCrossEntropy

from .configurations import COUNT, SHAPES, assert_same, batch, binary_batch, upstream
from .differences import Shown, named

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer
    import chainer.functions as F

from classweight.adapters import chainer as cwch  # after Chainer, whose warnings are ignored above

shows = Shown("chainer")
cases = pytest.mark.parametrize("case", range(COUNT))


def native(function: Any, logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    """Return Chainer's loss and gradient."""
    x = chainer.Variable(logits)
    loss = function(x, targets, **arguments)
    assert loss.dtype == logits.dtype
    loss.grad = upstream(loss.shape, str(logits.dtype))
    loss.backward()
    return loss.array, x.grad


def softmax(logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    return native(F.softmax_cross_entropy, np.array(logits), np.array(targets), **arguments)


def ours(logits: Any, targets: Any, **arguments: Any) -> tuple[Any, Any]:
    """Return the reference's loss and gradient of the convention with these arguments."""
    soft = np.ndim(logits) == np.ndim(targets)
    spec = conventions.chainer.softmax_cross_entropy(**arguments, soft_targets=soft)
    loss = reference(spec, logits, targets)[0]
    return reference(spec, logits, targets, upstream=upstream(loss.shape, "float64"))


@pytest.mark.parametrize("reduce", ["mean", "no"])
@pytest.mark.parametrize("double", [False, True])
def test_weights_of_either_sign(double: bool, reduce: str) -> None:
    z, labels = np.array([[2, -1, 0.5], [0, 1, -2], [1, 0.25, 0.75]]), np.array([0, 1, 2], np.int32)
    arguments: dict[str, Any] = {"class_weight": np.array([1, -0.5, -3]), "reduce": reduce}
    got = native(F.softmax_cross_entropy, z, labels, enable_double_backprop=double, **arguments)
    assert_same(got, conventions.chainer.softmax_cross_entropy(**arguments), z, labels)
    dropped_in = native(cwch.softmax_cross_entropy, z, labels, enable_double_backprop=double, **arguments)
    for x, y in zip(dropped_in, got, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


@cases
def test_softmax_cross_entropy_of_labels(case: int) -> None:
    b = batch(case)
    label = b.pick(-1, 255, 0)
    arguments = {
        "normalize": b.pick(True, False),
        "cache_score": b.pick(True, False),
        "class_weight": b.pick(None, b.class_weight),
        "ignore_label": label,
        "reduce": b.pick("mean", "mean", "no"),
        "enable_double_backprop": b.pick(False, True),
    }
    targets = b.marked(label).astype(b.pick("int32", "int64"))
    spec = conventions.chainer.softmax_cross_entropy(**arguments)
    assert_same(native(F.softmax_cross_entropy, b.logits, targets, **arguments), spec, b.logits, targets)


@cases
def test_softmax_cross_entropy_of_distributions(case: int) -> None:
    b = batch(case)
    arguments = {"normalize": b.pick(True, False), "reduce": b.pick("mean", "mean", "no")}
    arguments["ignore_label"] = b.pick(-1, 5)
    targets = b.distributions(normalised=True)
    if targets.ndim > 2 and arguments["reduce"] == "mean" and not arguments["normalize"]:
        assert named("chainer-soft-normalize")
        arguments["normalize"] = True
    spec = conventions.chainer.softmax_cross_entropy(**arguments, soft_targets=True)
    assert_same(native(F.softmax_cross_entropy, b.logits, targets, **arguments), spec, b.logits, targets)


@cases
def test_sigmoid_cross_entropy(case: int) -> None:
    b = binary_batch(case, shapes=[*SHAPES, (0, 2)])
    arguments = {"normalize": b.pick(True, False), "reduce": b.pick("mean", "mean", "no")}
    targets = np.where(b.ignored, -1, b.labels).astype(b.pick("int8", "int32", "int64"))
    spec = conventions.chainer.sigmoid_cross_entropy(**arguments)
    assert_same(native(F.sigmoid_cross_entropy, b.logits, targets, **arguments), spec, b.logits, targets)


Z = [[2.0, -1, 0.5], [0, 1, -2]]
Y = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]
W = np.array([1.0, 2, 5])


@shows("chainer-soft-class-weight")
def soft_class_weight() -> None:
    assert softmax(Z, Y, class_weight=W)[0] == softmax(Z, Y)[0]
    log_q = np.log(np.exp(Z) / np.exp(Z).sum(-1, keepdims=True))
    assert ours(Z, Y, class_weight=W)[0] == pytest.approx(-(W * Y * log_q).sum() / 2, rel=1e-14)


@shows("chainer-soft-normalize")
def soft_normalize() -> None:
    z, y = np.array(Z).T[None], np.array(Y).T[None]
    assert softmax(z, y, normalize=False)[0] == softmax(z, y, normalize=True)[0]
    assert ours(z, y, normalize=False)[0] == pytest.approx(2 * softmax(z, y)[0], rel=1e-14)


@shows("chainer-soft-gradient")
def soft_gradient() -> None:
    y = 2 * np.array(Y)
    q = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
    factor = upstream((), "float64") / 2
    np.testing.assert_allclose(softmax(Z, y)[1], factor * (q - y), rtol=1e-12)
    np.testing.assert_allclose(ours(Z, y)[1], factor * (2 * q - y), rtol=1e-12)


@shows("chainer-kl-divergence")
def kl_divergence() -> None:
    loss, gradient = softmax(Z, Y, soft_target_loss="kl-divergence")
    plain, plain_gradient = ours(Z, Y, soft_target_loss="kl-divergence")
    constant = (Y * np.log(np.add(Y, 1e-7))).sum() / 2
    assert loss == pytest.approx(plain + constant, rel=1e-13)
    np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-12)


@shows("chainer-wrapped-labels")
def wrapped_labels() -> None:
    for label, double, becomes in [(-1, False, 2), (-1, True, 0), (3, True, 2)]:
        arguments = {"ignore_label": 255, "enable_double_backprop": double}
        assert softmax(Z, [label, 0], **arguments)[0] == pytest.approx(softmax(Z, [becomes, 0])[0], rel=1e-14)
        with pytest.raises(IndexError, match="`targets` must"):
            cwn.loss(conventions.chainer.softmax_cross_entropy(**arguments), Z, [label, 0])


@shows("chainer-ignored-nan")
def ignored_nan() -> None:
    z = [Z[0], [np.nan, 1, -2]]
    assert all(np.isnan(result).any() for result in softmax(z, [0, -1]))
    assert ours(z, [0, -1])[0] == pytest.approx(0.2413113, rel=2e-7)
    x, t = np.array([0.5, np.nan]), np.array([1, -1])
    assert np.isnan(native(F.sigmoid_cross_entropy, x, t)[0])
    assert reference(conventions.chainer.sigmoid_cross_entropy(), x, t)[0] == pytest.approx(np.log1p(np.exp(-0.5)))


@shows("chainer-zero-times-infinity")
def zero_times_infinity() -> None:
    z = [[0, -np.inf, 1]]
    assert np.isnan(softmax(z, [[1.0, 0, 0]])[0])
    assert ours(z, [[1.0, 0, 0]])[0] == pytest.approx(1.3132616, rel=1e-7)
    assert np.isnan(softmax(z, [1], class_weight=np.array([1.0, 0, 1]))[0])
    assert ours(z, [1], class_weight=[1, 0, 1])[0] == 0


@shows("chainer-class-weight-length")
def class_weight_length() -> None:
    assert softmax(Z, [0, 2], class_weight=np.array([3.0]))[0] == pytest.approx(3 * softmax(Z, [0, 2])[0], rel=1e-14)
    with pytest.raises(ValueError, match=r"`class_weight` must have shape \(3,\), one per class; got \(1,\)"):
        cwn.loss(conventions.chainer.softmax_cross_entropy(class_weight=[3.0]), Z, [0, 2])


@shows("chainer-negative-zero")
def negative_zero() -> None:
    loss = softmax(Z, [-1, -1])[0]
    assert loss == 0 and np.signbit(loss)
    loss = ours(Z, [-1, -1])[0]
    assert loss == 0 and not np.signbit(loss)


@shows("chainer-binary-labels")
def binary_labels() -> None:
    x, t = np.array([0.5]), np.array([-2])
    assert native(F.sigmoid_cross_entropy, x, t)[0] == pytest.approx(np.log1p(np.exp(0.5)) + 2 * 0.5, rel=1e-12)
    with pytest.raises(ValueError, match="`targets` must"):
        cwn.loss(conventions.chainer.sigmoid_cross_entropy(), x, t)


@shows("chainer-unsigned-binary-labels")
def unsigned_binary_labels() -> None:
    x, t = np.array([0.5]), np.array([0], np.uint8)
    with chainer.using_config("type_check", False):
        assert native(F.sigmoid_cross_entropy, x, t)[0] == pytest.approx(np.log1p(np.exp(-0.5)) - 255 * 0.5, rel=1e-12)
        assert native(cwch.sigmoid_cross_entropy, x, t)[0] == pytest.approx(np.log1p(np.exp(0.5)), rel=1e-12)


@shows("chainer-unchecked-calls")
def unchecked_calls() -> None:
    z, few, integers, more = np.array(Z), np.array([0]), np.array([[2, 0]]), np.array([[0], [1]])
    with chainer.using_config("type_check", False):
        assert F.softmax_cross_entropy(z, few).array == pytest.approx(softmax(Z[:1], few)[0], rel=1e-14)
        assert F.sigmoid_cross_entropy(integers, np.array([[1, 0]])).array == 0  # of log(2) / 2 + log(1 + exp(-2)) / 2
        assert F.sigmoid_cross_entropy(np.array([0.5]), more, reduce="no").shape == (2, 1)
        with pytest.raises(ValueError, match=r"^`t` must have the shape of `x`"):
            cwch.softmax_cross_entropy(z, few)
        with pytest.raises(TypeError, match=r"^`x` must be floating point; got int64"):
            cwch.sigmoid_cross_entropy(integers, np.array([[1, 0]]))
        with pytest.raises(ValueError, match=r"^`t` must be real or bool, of the logits' shape \(1,\)"):
            cwch.sigmoid_cross_entropy(np.array([0.5]), more)


@shows("chainer-average-ignored")
def average_ignored() -> None:
    labels = np.array([0, -1])
    losses = F.softmax_cross_entropy(np.array(Z), labels, reduce="no")
    row = losses.array[0]
    assert F.average(losses, weights=np.array([W[0], W[1]])).array == pytest.approx(row / 3, rel=1e-14)
    spec = SoftmaxCrossEntropy(class_weight=W, ignore_index=-1)
    assert reference(spec, Z, labels)[0] == pytest.approx(row, rel=1e-14)


@shows("chainer-empty-soft")
def empty_soft() -> None:
    with pytest.raises(ZeroDivisionError):
        F.softmax_cross_entropy(np.zeros((0, 3)), np.zeros((0, 3)))
    assert ours(np.zeros((0, 3)), np.zeros((0, 3)))[0] == 0


@shows("chainer-empty-backward")
def empty_backward() -> None:
    with pytest.raises(ValueError, match="number of gradients returned from backward is incorrect"):
        softmax(np.zeros((0, 3)), np.zeros(0, int))
    assert ours(np.zeros((0, 3)), np.zeros(0, int))[1].shape == (0, 3)


@shows("chainer-wide-soft-gradient")
def wide_soft_gradient() -> None:
    x = chainer.Variable(np.array(Z, np.float32))
    loss = F.softmax_cross_entropy(x, np.array(Y))
    with pytest.raises(TypeError, match="has a bug"):
        loss.backward()
    gradient = cwn.loss_and_grad(SoftmaxCrossEntropy(), x.array, np.array(Y))[1]
    assert gradient.dtype == np.float32


@shows("chainer-double-backprop")
def double_backprop() -> None:
    for function, refused in ((F.softmax_cross_entropy, True), (cwch.softmax_cross_entropy, False)):
        x = chainer.Variable(np.array(Z))
        (slope,) = chainer.grad([function(x, np.array([0, 2]))], [x], enable_double_backprop=True)
        if refused:
            with pytest.raises(RuntimeError, match="enable_double_backprop=False"):
                chainer.grad([F.sum(slope * slope)], [x])
        else:
            assert np.isfinite(chainer.grad([F.sum(slope * slope)], [x])[0].array).all()


@shows("chainer-invalid-weights")
def invalid_weights() -> None:
    assert np.isinf(softmax(Z, [0, 2], class_weight=np.array([1.0, 1, np.inf]))[0])
    with pytest.raises(ValueError, match="`class_weight` must be a finite number"):
        conventions.chainer.softmax_cross_entropy(class_weight=[1, 1, np.inf])


@shows("chainer-invalid-targets")
def invalid_targets() -> None:
    y = [[1.5, -0.5, 0], [0, 1, 0]]
    assert np.isfinite(softmax(Z, y)[0])
    with pytest.raises(ValueError, match="`targets` must"):
        cwn.loss(conventions.chainer.softmax_cross_entropy(soft_targets=True), Z, y)


@pytest.mark.parametrize("difference", shows.ids)
def test_difference(difference: str) -> None:
    with np.errstate(all="ignore"):
        shows.checks[difference]()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_an_empty_batch_is_0(double: bool, normalize: bool) -> None:
    arguments = {"normalize": normalize, "enable_double_backprop": double}
    z, t = np.zeros((0, 3)), np.zeros(0, np.int32)
    assert F.softmax_cross_entropy(z, t, **arguments).array == ours(z, t, normalize=normalize)[0] == 0


@pytest.mark.parametrize("page", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_an_unknown_reduce_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="`reduce` must be one of 'mean', 'no'; got 'sum'"):
        getattr(conventions.chainer, page)(reduce="sum")
    with pytest.raises(ValueError, match="only 'mean' and 'no' are valid"):
        getattr(F, page)(np.zeros((1, 3)), np.zeros((1, 3) if page.startswith("sig") else 1, np.int32), reduce="sum")


def test_an_unknown_soft_target_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="`soft_target_loss` must be one of 'cross-entropy', 'kl-divergence'"):
        conventions.chainer.softmax_cross_entropy(soft_target_loss="l2")
