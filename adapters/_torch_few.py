"""A small batch of index targets on the CPU: checked and computed by NumPy, whose operations take less time each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import few
from ..spec import SoftmaxCrossEntropy
from ._torch_arrays import TENSORS, is_traced
from ._torch_fused import Fused, host

FLOATS = (torch.float32, torch.float64)


def loss(spec: Any, z: Any, targets: Any, class_weight: Any) -> Tensor | None:
    """Return the loss of a call that has no other arguments, or None where anything about it is unusual."""
    if type(spec) is not SoftmaxCrossEntropy or type(z) not in TENSORS or type(targets) is not Tensor:
        return None
    shape = z.shape
    if len(shape) != 2 or not 0 < z.numel() <= few.MOST or targets.shape != shape[:1] or spec.axis not in (1, -1):
        return None
    if z.dtype not in FLOATS or targets.dtype is not torch.int64 or not (z.is_cpu and targets.is_cpu) or is_traced():
        return None
    if z.layout is not torch.strided or targets.layout is not torch.strided or forward_ad._current_level >= 0:
        return None
    differentiable = torch.is_grad_enabled()
    if class_weight is not None:
        if type(class_weight) is not Tensor or class_weight.dtype not in FLOATS or class_weight.shape != shape[1:]:
            return None
        if not class_weight.is_cpu or class_weight.layout is not torch.strided:
            return None
        if differentiable and class_weight.requires_grad:
            return None
        w = class_weight.numpy(force=True)
        if not (np.minimum.reduce(w) >= 0 and np.maximum.reduce(w) < math.inf):
            return None
    if spec.ignore_index is not None and spec.ignore_index >= 0:
        return None
    differentiable = differentiable and z.requires_grad
    found = _loss_and_grad(spec, z, targets, class_weight, gradient=differentiable)
    if found is None:
        return None
    if not differentiable:
        return found[0]
    return _Few.apply(z, (spec, targets, class_weight), *found)  # type: ignore[no-any-return, no-untyped-call]


def _loss_and_grad(
    spec: Any, z: Tensor, targets: Tensor, class_weight: Tensor | None, *, gradient: bool
) -> tuple[Tensor, Tensor | None] | None:
    if class_weight is None:
        w = None if spec.class_weight is None else host.weights(spec, z.shape[1], None)
    else:
        w = class_weight.numpy(force=True).astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        found = few.loss_and_grad(spec, z.numpy(force=True), targets.numpy(), w, gradient=gradient)
    if found is None:
        return None
    value, slopes = found
    return torch.from_numpy(np.array(value)), None if slopes is None else torch.from_numpy(slopes)


class _Few(Fused):
    """The loss and its gradient, which are there already."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, about: Any, value: Tensor, gradient: Tensor) -> Tensor:  # type: ignore[override]
        spec, targets, class_weight = about
        ctx.save_for_backward(z, targets, None, None, None, class_weight)
        ctx.kept, ctx.inplace = gradient, False
        ctx.inside = torch.float64 if spec.precision == "exact" else z.dtype
        ctx.rest = (spec, None, True, tuple(z.shape), 1)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        if ctx.kept is None:  # a second time: from the same kernel, for the same bits
            z, targets, *_, class_weight = ctx.saved_tensors
            again: Any = _loss_and_grad(ctx.rest[0], z, targets, class_weight, gradient=True)
            ctx.kept = again[1]
        return Fused.backward(ctx, upstream)
