"""PyTorch underneath: one call, by the route that is fastest among those that can be differentiated as it must be."""

from __future__ import annotations

from typing import Any

from .arrays import composite_loss, is_traced, kept, mode_of, xp  # isort: skip  (it words a missing torch)

import torch
from torch import Tensor

from ...call import Call
from ...errors import refuse
from ...lowering import denominator_of, inside_of, summed
from . import cpu, dtensors, operators
from .arrays import TENSORS
from .cpu import Arguments

make_call = Arguments


def loss(given: Arguments, inplace: bool = False) -> Tensor:
    """Return the loss in the logits' type."""
    return value(given, None, inplace)


def loss_parts(given: Arguments) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    below = denominator(given)  # which looks at targets and weights
    return value(given._replace(spec=summed_spec(given.spec), validate=False), torch.float64), below


def denominator(given: Arguments) -> Tensor:
    """Return the denominator of a mean (1 if there is none) in float64, of which the logits give shape and device."""
    z = given.logits
    if dtensors.has_sharded_classes(given):
        return dtensors.like(z)(denominator(dtensors.whole(given)))
    if cpu.is_fused(given):  # PyTorch's own sums depend on its threads
        return torch.tensor(cpu.denominator(given), dtype=torch.float64)
    with mode_of((z, *given.tensors())):
        call = given.call()
        found = denominator_of(xp, call, inside_of(xp, call.spec, z.dtype))
        if not isinstance(found, Tensor):  # made on the device: a copy to it would synchronise
            found = z.new_full((), 1.0 if found is None else found, dtype=torch.float64)
    return found.to(torch.float64)


summed_spec = kept(summed.__wrapped__)


def value(given: Arguments, dtype: torch.dtype | None, inplace: bool = False) -> Tensor:
    """Return the loss in ``dtype``, None for the logits'."""
    if operators.IS_SUPPORTED and torch.compiler.is_dynamo_compiling() and not inplace:
        found = operators.loss(given, dtype)
        if found is not None:
            return found
    if dtensors.has_sharded_classes(given):
        if inplace:
            _check_inplace(given.logits, given.spec, fused=False)
        return dtensors.loss(given, dtype or given.logits.dtype, value)
    if cpu.is_fused(given):
        if inplace:
            _check_inplace(given.logits, given.spec, fused=True)
        return cpu.loss(given, dtype or given.logits.dtype, inplace)
    with mode_of((given.logits, *given.tensors())):
        return _on_device(given.call(), dtype, inplace)


def _on_device(call: Call, dtype: torch.dtype | None, inplace: bool) -> Tensor:
    """Return the loss by the kernels of a GPU, or composed of operations."""
    differentiable = torch.is_grad_enabled()
    fused = _fused_on_device(call, differentiable)
    if inplace:
        _check_inplace(call.logits, call.spec, fused=fused is not None)
    if fused is None:
        return composite_loss(call, dtype or call.logits.dtype)
    # A Function is not told of `no_grad`, and would make a gradient for nobody.
    z = call.logits if differentiable else call.logits.detach()
    return fused.apply(z, call, dtype or z.dtype, inplace)  # type: ignore[no-any-return]


def _fused_on_device(call: Call, differentiable: bool) -> Any:
    """Return the fused function of a GPU, None where a composite of operations is needed."""
    z, weights = call.logits, call.class_weight
    if not z.is_cuda or call.spec.inputs != "logits" or type(z) not in TENSORS or is_traced():
        return None
    if torch.autograd.forward_ad._current_level >= 0:
        return None
    others = (call.targets, call.sample_weight, *(weights if isinstance(weights, tuple) else (weights,)))
    if differentiable and any(x is not None and x.requires_grad for x in others):
        return None
    device = operators.gpu()
    return device.FusedOnDevice if device and device.is_usable(z) else None


def _check_inplace(z: Tensor, spec: Any, *, fused: bool) -> None:
    """Refuse to write over logits that others still need, or with a gradient that must be rounded from a wider one."""
    owner = z._base if z._base is not None else z
    inside = inside_of(xp, spec, z.dtype)
    reason = None
    if not fused:
        reason = "True where the loss is composed of operations (inputs=, gradients of weights, transforms, devices)"
    elif spec.reduction == "none":
        reason = "True with reduction='none'"
    elif z.dtype is not inside:
        reason = f"True with {z.dtype} logits that are computed in {inside}"
    elif not z.is_contiguous():
        reason = "True with logits that are not contiguous"
    elif owner.is_leaf and owner.requires_grad:
        reason = "True with logits that are a leaf that requires a gradient, or a view of one"
    if reason:
        refuse("inplace", "be False for this call", reason)
