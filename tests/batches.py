"""Batches for tests of the CPU's kernels: each kind of loss that has one, logits that take every branch. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

KINDS = ["index", "smoothed", "distribution", "binary", "binary-rows"]
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}
# Few classes are computed in tiles of rows, many row by row: the numbers beside the border, and those of real losses.
ROWS = {2: 300, 10: 140, 32: 130, 33: 12, 100: 12, 1000: 8, 5000: 4}


@dataclass(frozen=True)
class Batch:
    """Rows of classes on the last axis, with what belongs to each row."""

    spec: Any
    z: Any
    t: Any
    s: Any
    upstream: Any

    def __getitem__(self, rows: Any) -> Batch:
        return replace(self, z=self.z[rows], t=self.t[rows], s=self.s[rows], upstream=self.upstream[rows])

    def __len__(self) -> int:
        return len(self.z)

    @property
    def is_binary(self) -> bool:
        return isinstance(self.spec, SigmoidCrossEntropy)

    @property
    def is_hard(self) -> bool:
        return self.t.ndim < self.z.ndim

    def reduced(self) -> Batch:
        """Return the batch with a mean for a loss."""
        return replace(self, spec=replace(self.spec, reduction="mean_over_weights"), upstream=np.float64(-0.75))


def batch(kind: str, dtype: str, classes: int, precision: Any = "native", rows: int | None = None) -> Batch:
    """Return a batch with confident rows, rows of equal logits, masked classes and weights of either sign and 0."""
    n, rng = rows or ROWS[classes], np.random.default_rng(KINDS.index(kind) + 10 * classes)
    z = rng.normal(size=(n, classes)) * rng.choice([1.0, 1, 30, 3000], size=(n, 1))
    z[1::13] = 2
    z[2::13, ::2] = -np.inf
    z[2::13, 0] = 1
    w = rng.choice([0, 1, 2.5, 0.3], size=classes)
    t: Any = rng.integers(0, classes, n)
    upstream = rng.normal(size=(n, classes) if kind == "binary" else n)
    spec: Any
    if kind.startswith("binary"):
        average = kind == "binary-rows"
        spec = SigmoidCrossEntropy(
            class_weight=(0.3, w), label_smoothing=0.1, average_outputs=average, reduction="none", precision=precision
        )
        t = rng.choice([0, 1, 0.3], size=(n, classes))
    else:
        smoothing = 0.1 if kind == "smoothed" else 0
        spec = SoftmaxCrossEntropy(class_weight=w, label_smoothing=smoothing, reduction="none", precision=precision)
        if kind == "distribution":
            t = np.where(rng.random((n, classes)) < 0.3, 0, rng.random((n, classes)))
    with np.errstate(over="ignore"):
        z = z.astype(DTYPES[dtype])
    t = t if t.ndim == 1 else t.astype(z.dtype)
    return Batch(spec, z, t, rng.choice([1, 0.3, 0, -2], size=n), upstream)


def assert_same_bits(found: Any, expected: Any, message: str = "") -> None:
    """Assert that arrays hold the same numbers, signs of zeros included."""
    for x, y in zip(found, expected, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        same = (bits(x) == bits(y)) | ((x != x) & (y != y))
        assert same.all(), f"{message}: {(~same).sum()} of {same.size} differ, first {x[~same][:3]} and {y[~same][:3]}"


def bits(x: Any) -> Any:
    """Return a float array's bits as integers."""
    return np.ascontiguousarray(x).view(f"u{x.itemsize}").reshape(x.shape)
