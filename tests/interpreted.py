"""The kernels for GPUs on the CPU, run by Triton's interpreter: as a loss, and as a backend of the suite.

Triton decides when it is imported, so this needs a process of its own with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import torch
from triton.runtime import interpreter

from classweight.adapters.torch.arrays import prepared
from classweight.adapters.torch.gpu import FusedOnDevice
from classweight.conformance.backends import Backend, NotRun, Torch

NAMES = ("sample_weight", "class_weight", "mask", "denominator")


@contextmanager
def as_a_device_does() -> Iterator[None]:
    """Let the interpreter round fused multiplications once and bfloat16 to nearest, and not warn of infinities."""

    def fma(self: Any, x: Any, y: Any, z: Any) -> Any:
        wide = x.data.astype(np.longdouble) * y.data + z.data
        return interpreter.TensorHandle(wide.astype(z.data.dtype), z.dtype.scalar)

    def convert(data: Any, source: Any, target: Any, mode: Any) -> Any:
        if target.name == "bf16":
            return data.astype(ml_dtypes.bfloat16).view(np.uint16)
        return widen(data, source, target, mode)

    widen = interpreter._convert_float
    with (
        patch.object(interpreter.InterpreterBuilder, "create_fma", fma),
        patch.object(interpreter, "_convert_float", convert),
        np.errstate(all="ignore"),
    ):
        yield


def loss(
    spec: Any, logits: Any, targets: Any, *, validate: bool | None = None, inplace: bool = False, **arguments: Any
) -> torch.Tensor:
    """Return the loss by the kernels; values are looked at unless that is told otherwise."""
    call = prepared(spec, logits, validate is not False, targets, *(arguments.get(name) for name in NAMES))
    return FusedOnDevice.apply(logits, call, logits.dtype, inplace)  # type: ignore[no-any-return, no-untyped-call]


class Interpreted(Torch):
    """PyTorch, whose losses are those of the kernels."""

    def __init__(self) -> None:
        super().__init__("")
        self.loss = self._by_kernels

    def _by_kernels(self, spec: Any, logits: Any, targets: Any, *others: Any, **arguments: Any) -> Any:
        if getattr(spec, "inputs", "logits") != "logits":
            raise NotRun("kernels for GPUs take logits")
        arguments |= dict(zip(NAMES, others, strict=False))
        with as_a_device_does():
            return loss(spec, logits, targets, **arguments)

    def gradient(self, *arguments: Any) -> Any:
        with as_a_device_does():
            return super().gradient(*arguments)


def backend() -> Backend:
    """Return the kernels as a backend of the suite."""
    return Backend("torch:interpreted", Interpreted(), {})
