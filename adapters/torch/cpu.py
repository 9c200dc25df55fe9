"""The fused loss on the CPU, as an autograd function: kernels read and write the tensors' memory."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...call import Call, check_targets
from ...compute import cpu
from ...compute.cpu import Memory
from ...errors import refuse
from ...lowering import inside_of
from . import threads
from .arrays import (
    HALF,
    NOT_INPLACE,
    TENSORS,
    composite_gradient,
    is_dense,
    is_once,
    is_traced,
    prepared,
    round_once,
    xp,
)

NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}
# NumPy asks the system for large pages for arrays of this size, PyTorch does not.
LARGE_BYTES = 1 << 22
# Of PyTorch's memory, in bytes. A product into less aligned memory takes a fifth longer.
ALIGNMENT = 64
MOST_REPEATED = 256


class Arguments(NamedTuple):
    """What a loss is given, as the user gave it."""

    spec: Any
    logits: Any
    validate: bool | None
    targets: Any
    sample_weight: Any = None
    class_weight: Any = None
    mask: Any = None
    denominator: Any = None

    def tensors(self) -> list[Any]:
        """Return the arguments that may be tensors."""
        pair = self.class_weight if isinstance(self.class_weight, tuple | list) else (self.class_weight,)
        return [self.targets, self.sample_weight, self.mask, self.denominator, *pair]

    def call(self) -> Call:
        """Return the checked call on tensors."""
        return prepared(*self)


def is_fused(given: Arguments) -> bool:
    """Whether the kernels compute a call: logits alone are differentiated, once, and all is plain memory of the CPU."""
    if is_traced() or not are_plain(given) or not given.logits.is_cpu or given.logits.is_neg():
        return False
    return cpu.kernels() is not None and not any(x.is_neg() for x in given.tensors() if isinstance(x, Tensor))


def are_plain(given: Arguments) -> bool:
    """Whether a call is of logits that alone are differentiated, and of plain tensors on their device."""
    z = given.logits
    if type(z) not in TENSORS or z.dtype not in NAMES or not is_dense(z):
        return False
    if getattr(given.spec, "inputs", None) != "logits" or torch.autograd.forward_ad._current_level >= 0:
        return False
    differentiable = torch.is_grad_enabled()
    for x in given.tensors():
        if isinstance(x, Tensor):
            if type(x) not in TENSORS or x.device != z.device or not is_dense(x) or x.is_complex():
                return False
            if differentiable and x.requires_grad:
                return False
    return True


def loss(given: Arguments, dtype: torch.dtype, inplace: bool = False) -> Tensor:
    """Return the loss of a call that `is_fused`, in ``dtype``."""
    z, given = given.logits, given._replace(logits=None)
    if torch.is_grad_enabled() and z.requires_grad:
        return Fused.apply(z, given, dtype, inplace)  # type: ignore[no-any-return, no-untyped-call]
    return evaluate(z, given, dtype, None)


def checked(given: Arguments) -> Call:
    """Return a call that `is_fused` on NumPy's arrays; a kernel looks at targets itself, here all are looked at."""
    spec, z, validate, *others = given
    call = cpu.prepare(spec, memory(z), *map(on_host, others), check_values=validate is not False)
    if call.checked:
        check_targets(cpu.host, call)
    return call


@np.errstate(all="ignore")
def denominator(given: Arguments) -> float:
    """Return the denominator of a call that `is_fused`, 1 if it has none."""
    return cpu.denominator(checked(given))


class Fused(torch.autograd.Function):
    """The loss of one call.

    A reduced loss makes its gradient in the forward, for an upstream gradient of 1, and keeps it. Another upstream
    gradient scales it, where that rounds no more than the native loss does; else it is made again. A backward that is
    itself differentiated goes through the composite.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, given: Arguments, dtype: torch.dtype, inplace: bool) -> Tensor:
        kept = None
        if given.spec.reduction != "none":
            kept = z.detach() if inplace else memory_like(z)
        value = evaluate(z, given, dtype, kept)
        # What autograd saves it also lets go; nothing else may hold the batch.
        arguments = given.tensors()
        tensors = [x if isinstance(x, Tensor) else None for x in arguments]
        ctx.save_for_backward(None if inplace else z, *tensors)
        others = [x if y is None else None for x, y in zip(arguments, tensors, strict=True)]
        ctx.given = given.spec, others, isinstance(given.class_weight, tuple | list)
        ctx.kept, ctx.inplace = kept, inplace
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        kept, ctx.kept = ctx.kept, None
        once = is_once(upstream)
        if ctx.inplace and not (once and kept is not None):
            refuse("inplace", NOT_INPLACE, True, error=RuntimeError)
        spec, others, is_pair = ctx.given
        if kept is not None and once:
            factor = upstream.item()
            if factor == 1:
                return kept, None, None, None
            if ctx.inplace or (kept.dtype is inside_of(xp, spec, kept.dtype) and math.isfinite(factor)):
                return kept.mul_(upstream), None, None, None
        z, *tensors = ctx.saved_tensors  # raises if one of them was changed in place since
        arguments = [other if x is None else x for x, other in zip(tensors, others, strict=True)]
        targets, sample_weight, mask, denominator, *weights = arguments
        class_weight = tuple(weights) if is_pair else weights[0]
        given = Arguments(spec, z, False, targets, sample_weight, class_weight, mask, denominator)
        if not once:
            return composite_gradient(given.call(), upstream), None, None, None
        gradient = memory_like(z) if kept is None else kept
        evaluate(z, given, upstream.dtype, gradient, upstream)
        return gradient, None, None, None


@np.errstate(all="ignore")
def of_chunk(call: Call, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the wide loss; with a factor the logits become their gradient times it, which is returned, too."""
    place, z = memory(call.logits), call.logits
    given = {name: on_host(getattr(call, name)) for name in ("targets", "sample_weight", "mask", "class_weight")}
    denominator = None if call.denominator is None else float(call.denominator)
    part = dataclasses.replace(call, logits=place, denominator=denominator, **given)
    slopes: Any = None
    if factor is not None:
        slopes = factor.double().numpy()
        slopes = slopes.reshape(-1, 1) if slopes.ndim else float(slopes)
    value = cpu.evaluate(part, place, None if factor is None else place, slopes, threads.team())
    return torch.from_numpy(np.asarray(value)), None if factor is None else z


def memory_like(z: Tensor) -> Tensor:
    """Return memory for a gradient, in large pages if they are to be had: faults of small ones outlast a loss."""
    if z.nbytes < LARGE_BYTES or not (z.is_contiguous() and z.is_cpu):
        return torch.empty_like(z)
    memory = np.empty(z.nbytes + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return torch.from_numpy(memory[first : first + z.nbytes]).view(z.dtype).view(z.shape)


_repeated: dict[Any, cpu.Repeated] = {}


def _key(z: Tensor, given: Arguments, gradient: Tensor | None) -> Any:
    """Return what calls have in common that can be repeated, None for other calls."""
    spec, _, _, targets, sample_weight, w, mask, denominator = given
    if sample_weight is not None or mask is not None or denominator is not None:
        return None
    if (
        type(targets) is not Tensor
        or z.dtype in HALF
        or targets.dtype in HALF
        or (gradient is not None and gradient.data_ptr() == z.data_ptr())
    ):
        return None
    if w is not None:  # a factor of an index's row alone, or part of what is kept
        if not (type(w) is Tensor and w.dtype in NAMES and w.dtype not in HALF) or targets.ndim == z.ndim:
            return None
        if spec.label_smoothing:
            return None
    weights = None if w is None else (w.dtype, w.shape)
    return spec, z.dtype, z.shape, z.stride(), targets.dtype, targets.shape, targets.stride(), weights, gradient is None


@np.errstate(all="ignore")
def evaluate(
    z: Tensor, given: Arguments, dtype: torch.dtype, gradient: Tensor | None, upstream: Tensor | None = None
) -> Tensor:
    """Return the loss in ``dtype``; ``gradient``, if there is one, becomes its gradient times ``upstream``."""
    key = None if upstream is not None or dtype is not z.dtype else _key(z, given, gradient)
    known = _repeated.get(key)
    if known is not None:
        w = None if given.class_weight is None else given.class_weight.detach().double().numpy()
        if w is None or math.isfinite(np.add.reduce(w)):
            slopes = 0 if gradient is None else gradient.data_ptr()
            y = given.targets
            found = known.evaluate(z.data_ptr(), slopes, y.data_ptr(), y.numpy(), w, threads.team())
            if found is not None:
                return torch.from_numpy(np.array(found, NAMES[dtype]))
    read = memory(z)
    spec, _, validate, *others = given
    call = cpu.prepare(spec, read, *map(on_host, others), check_values=validate is not False)
    if call.shape and cpu.axes_of(call).strides(read.shape, read.strides) is None:
        read = memory(z.contiguous())
    written = None if gradient is None else memory(gradient)
    if written is not None and cpu.axes_of(call).strides(written.shape, written.strides) is None:
        apart = torch.empty(z.shape, dtype=z.dtype)
        value = evaluate(z, given, dtype, apart, upstream)
        gradient.copy_(apart)  # type: ignore[union-attr]
        return value
    factor: Any = None
    if upstream is not None:
        factor = upstream.double().numpy(force=True)
        if factor.ndim and call.position_axis is not None:
            factor = np.expand_dims(factor, call.position_axis)
    value = cpu.evaluate(call, read, written, factor, threads.team())
    if written is not None and written.address == read.address and z.numel():
        torch.autograd.graph.increment_version(z)
    if key is not None and known is None and read.owner is z:
        call = dataclasses.replace(call, checked=True)  # what a check refuses is left to this function
        if cpu.Repeated.fits(call):
            if len(_repeated) >= MOST_REPEATED:
                _repeated.clear()
            _repeated[key] = cpu.Repeated(call, read, written)
    if isinstance(value, float):
        if dtype in HALF:
            return round_once(torch.tensor(value, dtype=torch.float64), dtype)
        return torch.from_numpy(np.array(value, NAMES[dtype]))
    losses = torch.from_numpy(value)
    if not losses.numel():  # whose strides are 0
        return torch.empty(losses.shape, dtype=dtype)
    return losses.view(dtype) if losses.dtype is not torch.float64 else round_once(losses, dtype)


def memory(x: Tensor) -> Memory:
    """Return a tensor's memory as a kernel sees it."""
    return Memory(x.data_ptr(), tuple(x.shape), x.stride(), NAMES[x.dtype], x)


def on_host(x: Any) -> Any:
    """Return an argument as NumPy's array, which shares a tensor's memory."""
    if isinstance(x, tuple | list):
        return type(x)(map(on_host, x)) if any(isinstance(item, Tensor) for item in x) else x
    if not isinstance(x, Tensor):
        return x
    x = x.detach()
    if x.dtype is not torch.bfloat16:
        return x.numpy()
    if importlib.util.find_spec("ml_dtypes") is None:
        return x.float().numpy()
    import ml_dtypes

    return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
