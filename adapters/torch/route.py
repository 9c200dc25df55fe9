"""PyTorch underneath: one call, by the route that is fastest among those that can be differentiated as it must be."""

from __future__ import annotations

import dataclasses
import importlib.util
from functools import lru_cache
from typing import Any

from .arrays import composite_loss, is_traced, kept, xp  # isort: skip  (it words a missing torch)

import torch
from torch import Tensor

from ...call import Call, prepare
from ...errors import refuse
from ...lowering import denominator_of, inside_of, summed
from .arrays import TENSORS
from .cpu import Fused


def make_call(spec: Any, logits: Any, validate: bool | None, targets: Any, *others: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    if not isinstance(logits, Tensor):
        refuse("logits", "be a tensor", type(logits).__name__, error=TypeError)
    if logits.layout is not torch.strided:
        refuse("logits", "be a dense tensor", logits.layout, error=TypeError)
    if validate is None:
        validate = logits.device.type == "cpu" and not is_traced()
    return prepare(xp, spec, logits, targets, *others, check_values=validate)


def loss(call: Call, inplace: bool = False) -> Tensor:
    """Return the loss in the logits' type."""
    return _value(call, call.logits.dtype, inplace)


def loss_parts(call: Call) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    denominator = denominator_of(xp, call, inside_of(xp, call.spec, call.logits.dtype))
    total = dataclasses.replace(call, spec=_summed(call.spec), denominator=None)
    numerator = _value(total, torch.float64)
    if not isinstance(denominator, Tensor):  # made on the device: a copy to it would synchronise
        denominator = numerator.new_full((), 1.0 if denominator is None else denominator)
    return numerator, denominator.to(torch.float64)


_summed = kept(summed.__wrapped__)


def _value(call: Call, dtype: torch.dtype, inplace: bool = False) -> Tensor:
    differentiable = torch.is_grad_enabled()
    fused = _can_fuse(call, differentiable)
    if inplace:
        _check_inplace(call, fused)
    if not fused:
        return composite_loss(call, dtype)
    # A Function is not told of `no_grad`, and would make a gradient for nobody.
    z = call.logits if differentiable else call.logits.detach()
    return _fused_on(z).apply(z, call, dtype, inplace)  # type: ignore[no-any-return]


def _fused_on(z: Tensor) -> Any:
    """Return the fused function of the logits' device, or None."""
    if z.is_cpu:
        return Fused
    device = _on_gpu() if z.is_cuda else None
    return device.FusedOnDevice if device and device.is_usable(z) else None


@lru_cache(maxsize=1)
def _on_gpu() -> Any:
    """Return the module of the kernels, where there is a Triton to compile them."""
    if importlib.util.find_spec("triton") is None:
        return None
    from . import gpu

    return gpu


def _can_fuse(call: Call, differentiable: bool) -> bool:
    z, weights = call.logits, call.class_weight
    if _fused_on(z) is None or call.spec.inputs != "logits" or type(z) not in TENSORS or is_traced():
        return False
    if torch.autograd.forward_ad._current_level >= 0:
        return False
    others = (call.targets, call.sample_weight, *(weights if isinstance(weights, tuple) else (weights,)))
    return not (differentiable and any(x is not None and x.requires_grad for x in others))


def _check_inplace(call: Call, fused: bool) -> None:
    """Refuse to write over logits that others still need, or with a gradient that must be rounded from a wider one."""
    z = call.logits
    owner = z._base if z._base is not None else z
    reason = None
    if not fused:
        reason = "True where the loss is composed of operations (inputs=, gradients of weights, transforms, devices)"
    elif call.spec.reduction == "none":
        reason = "True with reduction='none'"
    elif z.dtype is not inside_of(xp, call.spec, call.logits.dtype):
        reason = f"True with {z.dtype} logits that are computed in {inside_of(xp, call.spec, call.logits.dtype)}"
    elif not z.is_contiguous():
        reason = "True with logits that are not contiguous"
    elif owner.is_leaf and owner.requires_grad:
        reason = "True with logits that are a leaf that requires a gradient, or a view of one"
    if reason:
        refuse("inplace", "be False for this call", reason)
