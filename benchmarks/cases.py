"""What is measured: the shapes, by name, and the batch that a name stands for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DEFAULT", "ON_A_GPU", "QUICK", "Case", "batch"]

DEFAULT = (
    "8192x1000",
    "65536x10",
    "1024x32000",
    "512x128256",
    "8192x100",
    "256x1000",
    "64x10",
    "32x21x128x128",
    "bce-65536x80",
)
QUICK = ("8192x1000", "65536x10", "64x10")
# The most telling first: what is left when the time is up is not measured.
ON_A_GPU = tuple(
    half + shape
    for shape in ("8192x32000", "65536x10", "4096x1000", "16x21x512x512", "bce-65536x80", "8192x128256")
    for half in ("", "bf16-")
)


@dataclass(frozen=True, slots=True)
class Case:
    """A shape with its classes second, ``8192x1000``; a binary loss's, ``bce-65536x80``; ``bf16-8192x1000``."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(bf16-)?(bce-)?[1-9]\d*(x[1-9]\d*)+", self.name):
            raise ValueError(f"`shape` must be like 8192x1000, 32x21x128x128 or bce-65536x80; got {self.name!r}")

    @property
    def binary(self) -> bool:
        return "bce-" in self.name

    @property
    def half(self) -> bool:
        """Whether the logits are bfloat16."""
        return self.name.startswith("bf16-")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(int, self.name.rpartition("-")[2].split("x")))

    def one(self) -> Case:
        """Return the case of a single row."""
        return Case(re.sub(r"\d+(?=x)", "1", self.name, count=1))

    @property
    def bytes(self) -> int:
        """The size of the logits."""
        return (2 if self.half else 4) * math.prod(self.shape)


def batch(case: Case, *, channels_last: bool = False) -> tuple[Any, Any, Any]:
    """Return logits, targets, and the weight of each class or - binary - of each column's positives."""
    rng = np.random.default_rng(0)
    n, classes, *rest = case.shape
    shape = (n, *rest, classes) if channels_last else case.shape
    logits = np.empty(shape, np.float32)
    rng.standard_normal(dtype=np.float32, out=logits)
    # Numbers that bfloat16 has too.
    weight = (rng.integers(64, 256, shape[-1] if case.binary else classes) / 128).astype(np.float32)
    if case.binary:
        return logits, (rng.random(shape, np.float32) < 0.2).astype(np.float32), weight
    return logits, rng.integers(0, classes, (n, *rest)), weight
