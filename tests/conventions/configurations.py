"""Random batches for every framework's tests, and how two results are compared. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classweight.reference import reference

from .recording import record

COUNT = 240
SHAPES = [(1,), (2,), (5,), (7,), (3, 2), (2, 4), (1, 3), (4, 1), (2, 2, 3), (3, 1, 2)]


@dataclass
class Batch:
    """One batch of a softmax loss, the class axis second, and a random choice of everything around it.

    Logits stay within 3.5 of 0, so that no loss is so small that comparing relatively compares rounding.
    """

    rng: np.random.Generator
    dtype: str
    logits: Any  # (N, C, d1, ...), or (C,)
    labels: Any  # (N, d1, ...)
    ignored: Any  # bool, in the labels' shape
    class_weight: Any
    sample_weight: Any
    smoothing: float

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    @property
    def num_classes(self) -> int:
        return int(self.logits.shape[self.class_axis])

    @property
    def class_axis(self) -> int:
        return 0 if self.logits.ndim == 1 else 1

    @property
    def weight_mapping(self) -> dict[int, float]:
        """The class weights as a dict in which classes may be missing, of float32 numbers as Keras makes of them."""
        return {c: float(np.float32(w)) for c, w in enumerate(self.class_weight) if self.rng.random() < 0.7}

    def marked(self, label: int) -> Any:
        """Return the labels, ignored positions marked by ``label``."""
        return np.where(self.ignored, label, self.labels)

    def one_hot(self) -> Any:
        return np.moveaxis(np.eye(self.num_classes, dtype=self.dtype)[self.labels], -1, self.class_axis)

    def distributions(self, *, normalised: bool) -> Any:
        """Return soft targets: positive, or one-hot, or with zero entries and rows."""
        y = self.rng.gamma(0.7, size=self.logits.shape) + 0.01
        if normalised:
            y /= y.sum(self.class_axis, keepdims=True)
            return self.pick(y.astype(self.dtype), y.astype(self.dtype), self.one_hot())
        y *= self.pick(1, self.rng.random(y.shape) < 0.6)
        return self.pick(y.astype(self.dtype), self.one_hot())

    def probabilities(self, *, normalised: bool = True, ends: bool = True) -> Any:
        """Return probabilities in place of logits; with ``ends`` some of them are 0 or 1."""
        p = np.exp(self.logits.astype(np.float64))
        p *= self.pick(1, self.rng.random(p.shape) < 0.8) if ends else 1
        total = p.sum(self.class_axis, keepdims=True)
        p = np.where(total == 0, 1 / self.num_classes, p / np.where(total == 0, 1, total))
        return (p if normalised else p * self.rng.uniform(0.5, 2, total.shape)).astype(self.dtype)


def batch(
    case: int,
    *,
    dtypes: Sequence[str] = ("float64", "float64", "float64", "float32"),
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    min_classes: int = 1,
) -> Batch:
    """Return the batch of this number. ``()`` among the shapes is a single unbatched row."""
    rng = np.random.default_rng([20240611, case])
    dtype = str(rng.choice(dtypes))
    shape = shapes[rng.integers(len(shapes))]
    classes = int(rng.integers(min_classes, 8))
    logits = np.clip(rng.normal(size=(*shape[:1], classes, *shape[1:])) * 1.5, -3.5, 3.5).astype(dtype)
    ignored = rng.random(shape) < rng.choice([0, 0.3, 1], p=[0.4, 0.5, 0.1])
    return Batch(
        rng=rng,
        dtype=dtype,
        logits=logits,
        labels=np.asarray(rng.integers(classes, size=shape)),
        ignored=np.asarray(ignored),
        class_weight=_weights(rng, (classes,)).astype(dtype),
        sample_weight=_weights(rng, shape).astype(dtype),
        smoothing=float(rng.choice([0, 0.1, rng.uniform(0, 1), 1])),
    )


@dataclass
class BinaryBatch:
    """One batch of a binary loss."""

    rng: np.random.Generator
    dtype: str
    logits: Any
    labels: Any  # 0 or 1
    ignored: Any
    soft: Any  # within [0, 1]
    weight: Any  # per element
    row_weight: Any  # of the logits' shape without the last axis
    pos_weight: Any  # broadcasts against the logits
    smoothing: float

    pick = Batch.pick

    def targets(self) -> Any:
        return self.pick(self.soft, self.labels.astype(self.dtype))

    def probabilities(self, *, ends: bool = True) -> Any:
        p = 1 / (1 + np.exp(-self.logits.astype(np.float64)))
        return np.where(ends & (self.rng.random(p.shape) < 0.1), np.round(p), p).astype(self.dtype)


def binary_batch(
    case: int,
    *,
    dtypes: Sequence[str] = ("float64", "float64", "float64", "float32"),
    shapes: Sequence[tuple[int, ...]] = SHAPES,
) -> BinaryBatch:
    """Return the binary batch of this number."""
    rng = np.random.default_rng([20240612, case])
    dtype = str(rng.choice(dtypes))
    shape = shapes[rng.integers(len(shapes))]
    # A spec holds weights as nested tuples, which cannot tell (0, 2) from (0,).
    full = shape if 0 not in shape else ()
    pos_shape = [(), shape[-1:], full, tuple(d if rng.random() < 0.5 else 1 for d in full)][rng.integers(4)]
    return BinaryBatch(
        rng=rng,
        dtype=dtype,
        logits=np.clip(rng.normal(size=shape) * 1.5, -3.5, 3.5).astype(dtype),
        labels=rng.integers(2, size=shape),
        ignored=np.asarray(rng.random(shape) < rng.choice([0, 0.3, 1], p=[0.4, 0.5, 0.1])),
        soft=rng.choice([0.5, rng.random()], size=shape).astype(dtype) * (rng.random(shape) < 0.8).astype(dtype),
        weight=_weights(rng, shape).astype(dtype),
        row_weight=_weights(rng, shape[:-1]).astype(dtype),
        pos_weight=_weights(rng, pos_shape).astype(dtype),
        smoothing=float(rng.choice([0, 0.1, rng.uniform(0, 1), 1])),
    )


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Return weights of which some, or rarely all, are 0."""
    return np.asarray(rng.uniform(0.1, 4, shape) * (rng.random(shape) >= rng.choice([0, 0.3, 1], p=[0.5, 0.4, 0.1])))


def upstream(shape: tuple[int, ...], dtype: str) -> Any:
    """Return the gradient of what follows that both sides are given: no two elements alike, some negative."""
    return np.cos(1.7 * np.arange(np.prod(shape, dtype=int)) + 0.4).reshape(shape).astype(dtype)


def assert_same(native: tuple[Any, Any], spec: Any, logits: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> None:
    """Assert that the native loss and gradient are the spec's, to the rounding of ``dtype`` (the logits').

    A gradient of None is not compared.
    """
    eps = float(np.finfo(dtype or logits.dtype).eps)
    kwargs["upstream"] = upstream(np.shape(native[0]), logits.dtype)
    record(native, spec, logits, dict(zip(("targets", "sample_weight"), args, strict=False)) | kwargs, eps)
    for what, got, expected in zip(("loss", "gradient"), native, reference(spec, logits, *args, **kwargs), strict=True):
        if got is None:
            continue
        got = np.asarray(got, np.float64)
        assert got.shape == expected.shape, f"{what} of shape {got.shape}, not {expected.shape}, for {spec}"
        # A gradient is a difference of numbers as large as its largest: that is what its rounding is relative to.
        scale = np.nanmax(np.abs(expected), initial=0) if what == "gradient" else 0
        np.testing.assert_allclose(got, expected, rtol=2048 * eps, atol=16 * eps * scale, err_msg=f"{what} for {spec}")
