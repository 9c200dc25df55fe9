"""A plain call on the CPU: index targets of one axis, weighted by class at most, that fit a block.

What such a batch costs beside its kernel is Python's time, so it has checks and coefficients of its own. The smallest
are computed by `classweight.few`: NumPy's operations take less time each, and one compiled function less than several.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ...compute import few
from ...lowering import inside_of
from ...spec import SoftmaxCrossEntropy
from . import rows as kernels
from .arrays import TENSORS, is_traced, xp
from .cpu import MOST_ROWS, Fused, block_of, host, memory_like

FLOATS: dict[torch.dtype, Any] = {torch.float32: np.dtype("float32"), torch.float64: np.dtype("float64")}
# Above these, one thread costs more than PyTorch's passes with all: logits times threads, and rows.
ONE_THREAD, ONE_THREAD_ROWS = 1 << 20, 1 << 11


def loss(spec: Any, z: Any, targets: Any, class_weight: Any) -> Tensor | None:
    """Return the loss of a call that has no other arguments, or None where anything about it is unusual."""
    if type(spec) is not SoftmaxCrossEntropy or not few.is_plain(spec) or spec.axis not in (1, -1):
        return None
    if spec.ignore_index is not None and spec.ignore_index >= 0:
        return None
    if type(z) not in TENSORS or type(targets) is not Tensor:
        return None
    shape = z.shape
    if len(shape) != 2 or not z.numel() or targets.shape != shape[:1]:
        return None
    if z.dtype not in FLOATS or targets.dtype is not torch.int64 or not (z.is_cpu and targets.is_cpu) or is_traced():
        return None
    if z.layout is not torch.strided or targets.layout is not torch.strided or forward_ad._current_level >= 0:
        return None
    if z.is_neg() or targets.is_neg():
        return None
    differentiable = torch.is_grad_enabled()
    if class_weight is not None:
        if type(class_weight) is not Tensor or class_weight.dtype not in FLOATS or class_weight.shape != shape[1:]:
            return None
        if not class_weight.is_cpu or class_weight.layout is not torch.strided or class_weight.is_neg():
            return None
        if differentiable and class_weight.requires_grad:
            return None
    differentiable = differentiable and z.requires_grad
    found = _loss_and_grad(spec, z, targets, class_weight, gradient=differentiable)
    if found is None:
        return None
    if not differentiable:
        return found[0]
    return _Plain.apply(z, (spec, targets, class_weight, *found))  # type: ignore[no-any-return, no-untyped-call]


def _loss_and_grad(
    spec: Any, z: Tensor, targets: Tensor, class_weight: Tensor | None, *, gradient: bool
) -> tuple[Tensor, Tensor | None] | None:
    z, y, w = z.detach(), np.ascontiguousarray(targets.numpy()), None
    n, num_classes = z.shape
    compiled, is_few = None, z.numel() <= few.MOST_COMPILED
    if is_few or (
        z.numel() * torch.get_num_threads() <= ONE_THREAD
        and n <= ONE_THREAD_ROWS
        and num_classes >= kernels.FEW_CLASSES
        and z.is_contiguous()
    ):
        compiled = few.compiled()
    if class_weight is not None:
        w = np.ascontiguousarray(class_weight.detach().numpy(), np.float64)
        if compiled is None and not np.isfinite(w).all():
            return None
    elif spec.class_weight is not None:
        w = host.weights(spec, num_classes, None)
    found: Any
    with np.errstate(all="ignore"):
        if is_few:
            found = few.loss_and_grad(spec, z.numpy(), y, w, gradient=gradient)
        else:
            found = _by_kernel(spec, z, y, w, gradient, compiled)
    if found is None:
        return None
    value, slopes = found
    if slopes is not None and not isinstance(slopes, Tensor):
        slopes = torch.from_numpy(slopes)
    return torch.from_numpy(np.array(value, FLOATS[z.dtype])), slopes


def _by_kernel(
    spec: Any, z: Tensor, y: few.Array, w: few.Array | None, wanted: bool, compiled: Any
) -> tuple[Any, Any] | None:
    """Return what `_torch_fused.evaluate` makes of a single block; compiled after the exponentials if it may be."""
    inside = inside_of(xp, spec, z.dtype)
    direct = wanted and inside is z.dtype
    if z.numel() > block_of(direct, inside) or len(y) > MOST_ROWS:
        return None
    gradient = memory_like(z) if wanted else None
    out: Any = gradient if direct else torch.empty_like(z, dtype=inside)
    if compiled:
        e = kernels.exponentials(z, 1, out).numpy()
        value = compiled.of_exponentials(e, y, few.NO_WEIGHTS if w is None else w, few.reduction_of(spec))
        if value != value:
            return None
    else:
        alpha = few.coefficients(spec, y, w, z.shape[1])
        if alpha is None:
            return None
        alpha = alpha[:, None]
        rows, rare = kernels.hard(z, 1, y[:, None], out, alpha if wanted else None)
        rows = alpha * rows
        value = (np.where(alpha == 0, 0.0, rows) if rare else rows).sum()
    if gradient is not None and out is not gradient:
        gradient.copy_(out)
    return value, gradient


class _Plain(Fused):
    """The loss and its gradient, which are there already."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, about: Any) -> Tensor:  # type: ignore[override]
        spec, targets, class_weight, value, gradient = about
        ctx.save_for_backward(z, targets, None, None, None, class_weight)
        ctx.kept, ctx.inplace, ctx.inside = gradient, False, inside_of(xp, spec, z.dtype)
        ctx.rest = (spec, None, True, tuple(z.shape), 1)
        return value  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        if ctx.kept is None:  # a second time: from the same kernel, for the same bits, unless the threads are others
            z, targets, *_, class_weight = ctx.saved_tensors
            again = _loss_and_grad(ctx.rest[0], z, targets, class_weight, gradient=True)
            ctx.kept = again and again[1]
        return Fused.backward(ctx, upstream)
