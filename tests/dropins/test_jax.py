"""JAX's drop-ins against optax's own functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import classweight.adapters.jax as cwj

from ..conventions.configurations import batch, binary_batch, upstream
from ..conventions.differences import named
from .helped import check as check_help

# JAX compiles for each shape anew.
cases = pytest.mark.parametrize("case", range(8))
SHAPES = [(), (4,), (3, 2), (0,), (2, 3, 2)]
DTYPES = ("float64", "float32", "float32", "float16")


def both(name: str, logits: Any, labels: Any, *, rtol: float = 0.0, traced: bool = True, **arguments: Any) -> None:
    """Assert that value, dtype, shape and gradients are optax's, to its own rounding."""
    # optax's gradient to labels that `where` leaves out is NaN.
    assert named("optax-label-gradient")
    soft = np.asarray(labels).dtype.kind == "f" and arguments.get("where") is None
    results = []
    for module in (optax, cwj):
        function = getattr(module, name)
        with jax.enable_x64(True):
            z, y = jnp.asarray(logits), jnp.asarray(labels)
            f = (lambda z, y: function(z, y, **arguments)) if soft else (lambda z: function(z, y, **arguments))  # noqa: B023
            value, pullback = jax.vjp(jax.jit(f) if traced else f, *((z, y) if soft else (z,)))
            results.append((value, *pullback(jnp.asarray(upstream(value.shape, value.dtype.name)))))
    eps = rtol or float(np.finfo(logits.dtype).eps)
    for theirs, mine in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype
        assert mine.shape == theirs.shape
        scale = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(mine, theirs, rtol=512 * eps, atol=8 * eps * scale)


def where_of(b: Any) -> Any:
    """Return rows, or rows and classes, that are kept; the label always is."""
    entries = np.random.default_rng(b.labels.size).random(b.logits.shape) < 0.7
    entries |= b.one_hot() == 1
    rows = np.expand_dims(~b.ignored, b.class_axis)
    return b.pick(None, ~b.ignored, rows, entries, entries & rows)


@cases
def test_softmax_cross_entropy_with_integer_labels(case: int) -> None:
    b = batch(case, shapes=SHAPES, dtypes=DTYPES)
    axis = b.pick(b.class_axis, b.class_axis - b.logits.ndim)
    labels = b.labels.astype(b.pick(np.int32, np.int64, np.uint8))
    both("softmax_cross_entropy_with_integer_labels", b.logits, labels, axis=axis, where=where_of(b))


@cases
def test_softmax_cross_entropy(case: int) -> None:
    b = batch(case, shapes=SHAPES, dtypes=DTYPES)
    where, labels = where_of(b), b.distributions(normalised=False)
    if where is not None:  # what is left out has a label of 0 here, and none there
        labels = b.one_hot()
    labels = labels.astype(b.pick(b.dtype, np.float32))
    both("softmax_cross_entropy", b.logits, labels, axis=b.class_axis, where=where)


@cases
def test_safe_softmax_cross_entropy(case: int) -> None:
    b = batch(case, shapes=SHAPES, dtypes=DTYPES)
    logits, labels = (np.moveaxis(x, b.class_axis, -1) for x in (b.logits, b.distributions(normalised=False)))
    both("safe_softmax_cross_entropy", logits, labels)


@cases
def test_sigmoid_binary_cross_entropy(case: int) -> None:
    b = binary_batch(case, shapes=SHAPES, dtypes=DTYPES)
    both("sigmoid_binary_cross_entropy", b.logits, b.pick(b.targets(), b.labels))


def numbers(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("axis", [(1, 2), (2, 0), (-1,), (1,), None])
def test_classes_along_several_axes(axis: Any) -> None:
    z, y = numbers(3, 2, 4), abs(numbers(3, 2, 4))
    axes = range(3) if axis is None else axis
    both("softmax_cross_entropy", z, y, axis=axis)
    if axis is not None:
        rest = [n for i, n in enumerate(z.shape) if i not in {j % 3 for j in axis}]
        classes = int(np.prod([z.shape[i] for i in axes]))
        labels = np.random.default_rng(0).integers(classes, size=rest)
        both("softmax_cross_entropy_with_integer_labels", z, labels, axis=axis)
        where = np.random.default_rng(2).random(z.shape) < 0.8
        both("softmax_cross_entropy", z, y, axis=axis, where=where, rtol=1e-6)


def test_arguments_are_broadcast_as_optax_does() -> None:
    z = numbers(3, 2, 4)
    both("softmax_cross_entropy", z, abs(numbers(4)))
    both("softmax_cross_entropy", z, abs(numbers(2, 1)))
    both("softmax_cross_entropy", numbers(2, 4), abs(z))
    both("softmax_cross_entropy", z, np.eye(4, dtype=int)[:2])
    both("softmax_cross_entropy_with_integer_labels", z, np.array([[0, 3]]))
    both("softmax_cross_entropy_with_integer_labels", numbers(1, 2, 4), np.array([[0, 3], [1, 1]]))
    where = np.array([[True, False]])
    both("softmax_cross_entropy_with_integer_labels", numbers(1, 2, 4), np.array([[0, 3], [1, 1]]), where=where)
    both("sigmoid_binary_cross_entropy", z, np.array([0.0, 1, 0.5, 1], np.float32))
    both("sigmoid_binary_cross_entropy", numbers(4), (z > 0).astype(np.float32))


def test_labels_that_are_left_out_have_a_gradient_of_0() -> None:
    where = np.array([True, False, True])
    f = lambda y: cwj.softmax_cross_entropy(numbers(3, 4), y, where=where).sum()  # noqa: E731
    found = jax.grad(f)(jnp.asarray(abs(numbers(3, 4))))
    np.testing.assert_allclose(found[where], -jax.nn.log_softmax(numbers(3, 4))[where], rtol=1e-5)
    assert not found[1].any()


def test_it_is_the_same_outside_of_jit() -> None:
    both("softmax_cross_entropy_with_integer_labels", numbers(3, 4), np.array([0, 3, 1]), traced=False)
    both("softmax_cross_entropy", numbers(3, 4), abs(numbers(3, 4)), where=np.array([True, False, True]), traced=False)


def test_a_row_that_is_left_out_is_0_whatever_it_holds() -> None:
    z, labels, where = numbers(3, 4), np.array([0, -7, 1]), np.array([True, False, True])
    z[1] = np.nan
    f = lambda z: cwj.softmax_cross_entropy_with_integer_labels(z, labels, where=where)  # noqa: E731
    losses, gradient = f(z), jax.grad(lambda z: f(z).sum())(z)
    kept = cwj.softmax_cross_entropy_with_integer_labels(z[where], labels[where])
    np.testing.assert_array_equal(losses[where], kept)
    assert losses[1] == 0
    assert not gradient[1].any()
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("jacobian", [jax.grad, jax.jacfwd])
def test_safe_in_forward_mode_too(jacobian: Any) -> None:
    assert named("optax-forward-mode")
    z, y = jnp.array([-jnp.inf, 0, 0]), jnp.array([0.0, 1, 0])
    np.testing.assert_array_equal(jacobian(cwj.safe_softmax_cross_entropy)(z, y), [0, -0.5, 0.5])


def test_a_label_that_is_left_out_has_no_chance() -> None:
    assert named("optax-label-left-out")
    where = np.array([[False, True, True, True]])
    assert cwj.softmax_cross_entropy_with_integer_labels(numbers(1, 4), np.array([0]), where=where) == np.inf


REFUSED = {
    "logits": (("softmax_cross_entropy", np.ones((2, 3), int), np.ones((2, 3))), "`logits` must be floating point"),
    "float labels": (
        ("softmax_cross_entropy_with_integer_labels", numbers(2, 3), np.zeros(2)),
        "`labels` must be integers; got float",
    ),
    "bool labels": (
        ("softmax_cross_entropy_with_integer_labels", numbers(2, 3), np.zeros(2, bool)),
        "`labels` must be integers; got bool",
    ),
    "axis": (("softmax_cross_entropy", numbers(2, 3), numbers(2, 3), 2), "`axis` must name axes of the logits, which"),
    "axes twice": (("softmax_cross_entropy_with_integer_labels", numbers(2, 3), np.array(0), (1, -1)), "`axis` must"),
    "axis None": (("softmax_cross_entropy_with_integer_labels", numbers(3), np.array(0), None), "`axis` must be an"),
    "shape": (("softmax_cross_entropy", numbers(2, 3), numbers(2, 4)), "`labels` must broadcast against the logits"),
    "rank": (
        ("softmax_cross_entropy_with_integer_labels", numbers(2, 3), np.zeros((2, 3), int)),
        "`labels` must have 1 axes",
    ),
    "where": (
        ("softmax_cross_entropy", numbers(2, 3), numbers(2, 3), -1, np.ones(5, bool)),
        "`where` must broadcast to the logits' shape",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_optax_refuses_is_refused(case: str) -> None:
    (name, *arguments), match = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=match):
        getattr(cwj, name)(*arguments)
    with pytest.raises((TypeError, ValueError, AssertionError)):
        getattr(optax, name)(*arguments)


def test_labels_that_optax_takes_for_others_are_refused() -> None:
    assert named("optax-wrapped-labels")
    assert named("optax-labels-out-of-range")
    for bad in (-1, 3):
        with pytest.raises(IndexError, match=f"got {bad}"):
            cwj.softmax_cross_entropy_with_integer_labels(numbers(2, 3), np.array([0, bad]))
        traced = jax.jit(cwj.softmax_cross_entropy_with_integer_labels)(numbers(2, 3), np.array([0, bad]))
        assert np.isnan(traced).tolist() == [False, True]
    with pytest.raises(ValueError, match="`labels` must have one entry or as many"):
        cwj.softmax_cross_entropy(numbers(2, 1), abs(numbers(2, 3)))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("softmax_cross_entropy", "softmax_cross_entropy"),
        ("safe_softmax_cross_entropy", "safe_softmax_cross_entropy"),
        ("softmax_cross_entropy_with_integer_labels", "softmax_cross_entropy_with_integer_labels"),
        ("sigmoid_binary_cross_entropy", "sigmoid_binary_cross_entropy"),
    ],
)
def test_help_says_what_differs_from_native(name: str, call: str) -> None:
    check_help("optax", getattr(cwj, name), call)
