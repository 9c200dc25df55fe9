"""Chainer's drop-ins beside the native functions: with type checks and without, and in Chainer's gradient checks."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of distutils
    import chainer
    import chainer.functions as F
    from chainer import gradient_check

import classweight.adapters.chainer as cwch

from .helped import check as check_help

RNG = np.random.default_rng(0)
Z, Z3 = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(2, 3, 4)).astype(np.float32)
Y, Y3 = np.array([0, 1, -1, 1]), RNG.integers(0, 3, (2, 4))
BITS, W = np.eye(3)[[0, 1, 2, 1]], np.array([1, 2, 5.0])
FLOATS = ("float16", "float32", "float64")
ANY = ("int8", "int64", "uint8", "uint64", "bool", *FLOATS)

Case = tuple[Any, Any, dict[str, Any]]


def softmax_cases() -> Iterator[tuple[str, Case]]:
    for reduce, double in itertools.product(("mean", "no"), (False, True)):
        options = {"reduce": reduce, "enable_double_backprop": double}
        labels = {f"labels-{kind}": (Z, abs(Y).astype(kind)) for kind in ANY}
        labels |= {f"one-hot-{kind}": (Z, BITS.astype(kind)) for kind in ANY}
        labels |= {
            "column": (Z, Y[:, None]),
            "row": (Z, Y[None]),
            "flat": (Z3, Y3.ravel()),
            "transposed": (Z3, Y3.T.copy()),
            "too-many": (Z, np.tile(Y, 2)),
            "one-row": (Z[0], np.array(1)),
            "one-row-soft": (Z[0], BITS[0]),
            "too-few": (Z, Y[:3]),
            "integer-logits": ((8 * Z).astype(int), Y),
        }
        if not double:  # where Chainer clips a label of 1
            labels["one-class"] = (Z[:, :1], np.ones((4, 1), int))
        for name, (x, t) in labels.items():
            yield f"{name}-{reduce}-{double}", (x, t, options)
            if "one-hot" in name:
                yield f"{name}-kl-{reduce}-{double}", (x, t, options | {"soft_target_loss": "kl-divergence"})
        for x, w in itertools.product(FLOATS, FLOATS):
            yield f"{x}-weight-{w}-{reduce}-{double}", (Z.astype(x), Y, options | {"class_weight": W.astype(w)})


def sigmoid_cases() -> Iterator[tuple[str, Case]]:
    for reduce, normalize in itertools.product(("mean", "no"), (False, True)):
        options = {"reduce": reduce, "normalize": normalize}
        labels = BITS.astype(int)
        labels[1] = -1
        arguments = {f"labels-{kind}": (Z, abs(labels).astype(kind)) for kind in ANY}
        arguments |= {
            "between": (Z, BITS * 0.7 + 0.1),
            "ignored": (Z, np.where(labels == -1, -1.0, 0.25)),
            "all-ignored": (Z, np.full(Z.shape, -1.0)),
            "above-1": (Z, BITS * 1.5),
            "of-a-row": (Z, labels[:1]),
            "of-no-batch": (Z, labels[0]),
            "of-a-column": (Z, labels[:, :1]),
            "scalar": (Z, np.array(1)),
            "too-few": (Z, labels[:, :2]),
            "enlarging": (Z[:1], labels),
            "more-axes": (Z, labels[None]),
            "integer-logits": ((8 * Z).astype(int), labels),
        }
        for name, (x, t) in arguments.items():
            yield f"{name}-{reduce}-{normalize}", (x, t, options)


CASES = [("softmax_cross_entropy", *case) for case in softmax_cases()]
CASES += [("sigmoid_cross_entropy", *case) for case in sigmoid_cases()]
# Chainer's accidents where nothing is checked, of which `DIFFERENCES` tells.
UNLIKE = {"softmax_cross_entropy": ("too-few", "integer-logits"), "sigmoid_cross_entropy": ("labels-uint",)}
UNLIKE["sigmoid_cross_entropy"] += ("enlarging", "more-axes", "integer-logits")


def run(function: Any, x: Any, t: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """Return the loss, and its gradient; None where Chainer has none."""
    variable = chainer.Variable(x)
    value = function(variable, t, **options)
    value.grad = np.linspace(0.5, 2, value.size, dtype=value.dtype).reshape(value.shape)
    try:
        value.backward()
    except (TypeError, ValueError, IndexError):  # where the loss is of a wider type, or labels are of another shape
        return value.array, None
    return value.array, variable.grad


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize(("function", "name", "case"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Chainer's own
def test_what_type_checks_refuse_is_refused_only_while_they_are_on(
    function: str, name: str, case: Case, checked: bool
) -> None:
    ours, native = getattr(cwch, function), getattr(F, function)
    with chainer.using_config("type_check", checked):
        try:
            wanted = run(native, *case)
        except Exception:
            wanted = None
        unlike = not checked and name.startswith(UNLIKE[function])
        if wanted is None or (unlike and not name.startswith("labels-uint")):
            names = "x|t|class_weight|enable_double_backprop"
            with pytest.raises((TypeError, ValueError), match=rf"^`({names})` must .*; got"):
                run(ours, *case)
            return
        got = run(ours, *case)
    assert got[1].dtype == case[0].dtype
    assert (got[0].dtype, got[0].shape) == (wanted[0].dtype, wanted[0].shape)
    if unlike:  # an unsigned 0 - 1
        wanted = run(native, case[0], case[1].astype(int), case[2])
    eps = float(np.finfo(case[0].dtype).eps)
    for mine, theirs in zip(got, wanted, strict=True):
        # Of labels in a column, Chainer's gradient is that of every label in every row.
        if theirs is not None and not (mine is got[1] and name.startswith("column")):
            np.testing.assert_allclose(mine, theirs, rtol=32 * eps, atol=32 * eps)


def test_a_gradient_of_labels_in_a_column_is_that_of_the_labels() -> None:
    with chainer.using_config("type_check", False):
        for options in ({}, {"reduce": "no"}):
            column = run(cwch.softmax_cross_entropy, Z, Y[:, None], options)[1]
            np.testing.assert_allclose(column, run(F.softmax_cross_entropy, Z, Y, options)[1], rtol=1e-5, atol=1e-7)


# Options, shapes and types as in the tests of Chainer 7.8.1 for this function.
SHAPES = {"far": None, "2d": (2, 3), "3d": (2, 3, 2), "4d": (2, 3, 2, 2)}
GRADIENTS = [
    *itertools.product(("mean", "no"), (True, False), (True, False), ("far", "4d"), ("float32",), ("int32",)),
    *itertools.product(("mean", "no"), (True,), (True,), SHAPES, ("float16", "float64"), ("int32",)),
    *itertools.product(("mean", "no"), (True,), (True,), SHAPES, ("float32",), ("int8", "int16", "int64")),
]


def check_gradients(loss: Any, x: Any, above: Any, direction: Any) -> None:
    """Let Chainer compare gradients of both orders with differences.

    Both compute in float64, so that logits and class weights are of two types, and the type checks are off. A gradient
    is rounded to the type of ``x``.
    """
    tolerance = {"rtol": 4e-3, "atol": 1e-3} if x.dtype == np.float16 else {"rtol": 1e-4, "atol": 1e-6}
    gradient_check.check_backward(loss, x, above, dtype=np.float64, **tolerance)
    gradient_check.check_double_backward(loss, x, above, direction, dtype=np.float64, **tolerance)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("case", GRADIENTS, ids=lambda case: "-".join(map(str, case)))
def test_gradients_pass_the_checks_of_chainer(case: Any, double: bool) -> None:
    reduce, normalize, weighted, shape, dtype, label = case
    rng = np.random.default_rng(3)
    if SHAPES[shape] is None:
        x, t = np.array([[-5 if dtype == "float16" else -1000, 1]], dtype), np.array([0], label)
    else:
        x = rng.uniform(-1, 1, SHAPES[shape]).astype(dtype)
        t = rng.integers(0, 3, x.shape[:1] + x.shape[2:]).astype(label)
        t.flat[1] = -1
    above = rng.uniform(-1, 1, () if reduce == "mean" else t.shape).astype(dtype)
    loss = functools.partial(
        cwch.softmax_cross_entropy,
        t=t,
        normalize=normalize,
        class_weight=rng.uniform(0, 10, x.shape[1]).astype(dtype) if weighted else None,
        reduce=reduce,
        enable_double_backprop=double,
    )
    check_gradients(loss, x, above, rng.uniform(-1, 1, x.shape).astype(dtype))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("reduce", ["mean", "no"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_of_the_binary_loss_pass_the_checks_of_chainer(dtype: str, reduce: str, normalize: bool) -> None:
    rng = np.random.default_rng(4)
    x, t = rng.uniform(-1, 1, (8, 7)).astype(dtype), rng.integers(-1, 2, (8, 7))
    above = rng.uniform(-1, 1, () if reduce == "mean" else x.shape).astype(dtype)
    loss = functools.partial(cwch.sigmoid_cross_entropy, t=t, normalize=normalize, reduce=reduce)
    check_gradients(loss, x, above, rng.uniform(-1, 1, x.shape).astype(dtype))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("softmax_cross_entropy", "softmax_cross_entropy"),
        ("sigmoid_cross_entropy", "sigmoid_cross_entropy"),
    ],
)
def test_help_says_what_differs_from_native(name: str, call: str) -> None:
    check_help("chainer", getattr(cwch, name), call)
