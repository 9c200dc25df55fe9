"""PyTorch underneath: the array functions, the fused loss, and the composite that takes over where more is asked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from ..errors import missing_framework, refuse

try:
    import torch
except ImportError as cause:
    missing_framework("torch", "torch", cause)
from torch import Tensor

from .. import composite
from .._arrays import Kind, class_shape, wide_weights
from ..call import Call, prepare
from ..lowering import SigmoidCoefficients, SoftmaxCoefficients, divide, lower, reduce

HALF = (torch.float16, torch.bfloat16)


class TorchArrays:
    """The array functions of `classweight._arrays.Arrays` on tensors."""

    wide, int64 = torch.float64, torch.int64
    exp, expm1, log, log1p = torch.exp, torch.expm1, torch.log, torch.log1p
    equal, where, ones_like = torch.eq, torch.where, torch.ones_like
    reshape, expand_dims = torch.reshape, torch.unsqueeze

    def kind(self, x: Tensor) -> Kind:
        if x.dtype.is_floating_point:
            return "f"
        return "b" if x.dtype is torch.bool else "other" if x.dtype.is_complex else "i"

    def asarray(self, x: Any, like: Tensor, name: str) -> Tensor:
        if not isinstance(x, Tensor):
            try:
                return torch.as_tensor(np.asarray(x), device=like.device)
            except (TypeError, ValueError):
                refuse(name, "be a tensor or numbers in a regular shape", repr(x), error=TypeError)
        if x.device == like.device:
            return x
        if x.ndim:
            refuse(name, f"be on the logits' device {like.device}", x.device)
        return x.to(like.device, non_blocking=True)

    def to_numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        x = x.detach()
        return (x.double() if x.dtype.is_floating_point else x).cpu().numpy()

    def shape(self, x: Tensor) -> tuple[Any, ...]:
        return tuple(x.shape)

    static_shape = shape

    def astype(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    def weights(self, spec: Any, num_classes: int, like: Tensor) -> Any:
        return _weights(spec, num_classes, like.device)

    def ones(self, shape: tuple[Any, ...], like: Tensor) -> Tensor:
        return torch.ones(shape, dtype=self.wide, device=like.device)

    def sum(self, x: Tensor, axis: int | None = None) -> Tensor:
        return x.sum() if axis is None else x.sum(axis, keepdim=True)

    def any(self, x: Tensor, axis: int) -> Tensor:
        return x.any(axis, keepdim=True)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return x.argmax(axis, keepdim=True)

    def positions(self, n: int, axis: int, like: Tensor) -> Tensor:
        return torch.arange(n, device=like.device).reshape(class_shape(n, axis, like.ndim))

    def take(self, values: Tensor, index: Tensor) -> Tensor:
        return values[index]

    def pick(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        return x.gather(axis, index)

    def detach(self, x: Tensor) -> Tensor:
        return x.detach()

    def eps(self, x: Tensor) -> float:
        return torch.finfo(x.dtype).eps


xp = TorchArrays()


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache what depends on the spec alone; not in a traced graph, for Dynamo warns of caches and looks through."""
    cached = lru_cache(maxsize=64)(function)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        return (function if torch.compiler.is_compiling() else cached)(*arguments, **options)

    return call


@kept
def _weights(spec: Any, num_classes: int, device: torch.device) -> Any:
    return wide_weights(spec, num_classes, lambda values: torch.tensor(values, dtype=torch.float64, device=device))


def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    if not isinstance(logits, Tensor):
        refuse("logits", "be a tensor", type(logits).__name__, error=TypeError)
    if validate is None:
        validate = logits.device.type == "cpu" and not _traced()
    return prepare(xp, spec, logits, *arguments, check_values=validate)


def _traced() -> bool:
    """Whether operations are being recorded or batched, so that values cannot be looked at."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def _inside(z: Tensor, call: Call) -> torch.dtype:
    """Return the type that is computed in."""
    exact = call.spec.precision == "exact" or z.dtype is torch.float64
    return torch.float64 if exact else torch.float32


def loss_parts(call: Call) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    c = lower(xp, call, _inside(call.logits, call))
    denominator = 1.0 if c.denominator is None else c.denominator
    total = dataclasses.replace(call, spec=_summed(call.spec))
    numerator = _value(total, dataclasses.replace(c, denominator=None), torch.float64)
    return numerator, torch.as_tensor(denominator, dtype=torch.float64, device=numerator.device)


@kept
def _summed(spec: Any) -> Any:
    return dataclasses.replace(spec, reduction="sum")


def loss(call: Call) -> Tensor:
    """Return the loss in the logits' type."""
    return _value(call, lower(xp, call, _inside(call.logits, call)), call.logits.dtype)


def _value(call: Call, c: Any, dtype: torch.dtype) -> Tensor:
    if _can_fuse(call, c):
        # A Function is not told of `no_grad`, and would make a gradient for nobody.
        return _Fused.apply(call.logits if torch.is_grad_enabled() else call.logits.detach(), call, c, dtype)
    return _composite_loss(call, c, dtype)


def _can_fuse(call: Call, c: Any) -> bool:
    z = call.logits
    if call.spec.inputs != "logits" or type(z) not in (Tensor, torch.nn.Parameter) or _traced():
        return False
    if torch.autograd.forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(c)))


def _composite_loss(call: Call, c: Any, dtype: torch.dtype) -> Tensor:
    z, inside = call.logits, _inside(call.logits, call)
    rows = composite.rows(xp, call.spec, _cast(z, inside), c, xp.eps(z), inside)
    return _cast(reduce(xp, call, rows, c.denominator), dtype)


def round_once(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return float64 as ``dtype``, rounded once: to a half type by way of a float32 rounded to odd.

    https://github.com/pytorch/pytorch converts float64 to half through float32, and so rounds twice.
    """
    if x.dtype is not torch.float64 or dtype not in HALF:
        return x.to(dtype)
    near = x.float()
    back, bits = near.double(), near.view(torch.int32)
    step = torch.where(back.abs() < x.abs(), 1, -1)
    odd = torch.where((back != x) & (bits & 1 == 0) & ~x.isnan(), bits + step, bits).int()
    return odd.view(torch.float32).to(dtype)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``x`` as ``dtype``; between float64 and a half type the value, or the gradient, is rounded once."""
    if torch.float64 not in (x.dtype, dtype) or not {x.dtype, dtype} & set(HALF):
        return x.to(dtype)
    # Dynamo traces no function with a jvp of its own, and forward mode needs one.
    return (_Cast if torch.compiler.is_compiling() else _CastWithTangent).apply(x, dtype)


class _Cast(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return round_once(x, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:
        ctx.back, ctx.dtype = inputs[0].dtype, inputs[1]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return _cast(upstream, ctx.back), None


class _CastWithTangent(_Cast):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _cast(tangent, ctx.dtype)


class _Fused(torch.autograd.Function):
    """The loss of one call, its gradient made block by block while the rows are in cache.

    Native float32 and float64 keep the gradient of a reduced loss from the forward and scale it at most once. All else
    keeps the logits and, for index targets, two numbers a row. A backward that is itself differentiated goes through
    the composite.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, call: Call, c: Any, dtype: torch.dtype) -> Tensor:
        inside, needs_gradient = _inside(z, call), ctx.needs_input_grad[0]
        scale, undefined = _mean_scale(call, c)
        keep = needs_gradient and call.spec.reduction != "none" and z.dtype is inside
        kept = torch.empty_like(z) if keep else None
        numbers: Any = None  # the rows' losses and, for index targets, two more
        for block, zb in _blocks(z, call, inside, copy=not keep):
            out = zb if kept is None else block.of(kept)
            found = _forward(zb, block.coefficients(c, inside, scale), out, slopes=keep)
            if isinstance(c, SigmoidCoefficients) and call.spec.average_outputs:
                found = (found[0].sum(-1, keepdim=True),)
            if block.rows is None:
                numbers = found
                break
            if numbers is None:
                numbers = [x.new_empty(call.row_shape(xp)) for x in found]
            for number, part in zip(numbers, found, strict=True):
                block.of(number).copy_(part)
        value = reduce(xp, call, numbers[0], None)
        if undefined is not None:
            value = torch.where(undefined, math.nan, value)
        if needs_gradient:
            ctx.save_for_backward(z, *_tensors(c), *numbers[1:])
            ctx.call, ctx.c, ctx.kept, ctx.scale = call, c, kept, scale
        return round_once(value, dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        if torch.is_grad_enabled():  # create_graph=True
            z = ctx.saved_tensors[0]
            value = _composite_loss(dataclasses.replace(ctx.call, logits=z), ctx.c, upstream.dtype)
            return torch.autograd.grad(value, z, upstream, create_graph=True)[0], None, None, None
        if ctx.kept is not None:
            kept, ctx.kept = ctx.kept, None
            unscaled = upstream.device.type == "cpu" and upstream.item() == 1
            return kept if unscaled else kept.mul_(upstream), None, None, None
        z, *saved = ctx.saved_tensors  # raises if one of them was changed in place since
        call, c, inside = ctx.call, ctx.c, _inside(z, ctx.call)
        scale = upstream.to(torch.float64) * ctx.scale
        if call.spec.reduction == "none" and call.position_axis is not None:
            scale = scale.unsqueeze(call.position_axis)
        gradient = torch.empty_like(z)
        for block, zb in _blocks(z, call, inside, copy=z.dtype is not inside):
            target = block.of(gradient)
            out = target if z.dtype is inside else zb
            share = block.coefficients(c, inside, scale)
            if _is_hard(c):
                top, others = (block.of(x) for x in saved[-2:])
                e = torch.sub(zb, top, out=out).exp_()
                total = others + e.gather(c.axis, share.index)
                _hard_slopes(e, share, others, total)
                if not _is_finite(total):
                    e.masked_fill_(share.alpha == 0, 0.0)
            else:
                _forward(zb, share, out, slopes=True)
            if out is not target:
                target.copy_(round_once(out, z.dtype))
        return gradient, None, None, None


def _tensors(c: Any) -> list[Tensor]:
    return [x for name in c.__slots__ if isinstance(x := getattr(c, name), Tensor)]


def _mean_scale(call: Call, c: Any) -> tuple[Tensor | float, Tensor | None]:
    """Return 1 / denominator - 0 where that is 0, 1 without a mean - and, if the value is NaN there, whether it is."""
    if c.denominator is None:
        return 1.0, None
    if isinstance(c.denominator, Tensor) and c.denominator.device.type != "cpu":
        scale = divide(xp, "zero", torch.ones_like(c.denominator), c.denominator)
        return scale, scale == 0 if call.spec.zero_denominator == "nan" else None
    denominator = float(c.denominator)  # a number costs less than operations on one
    if denominator:
        return 1 / denominator, None
    nan = call.spec.zero_denominator == "nan"
    return 0.0, torch.ones((), dtype=torch.bool, device=_tensors(c)[0].device) if nan else None


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """A range of the first axis of the logits, or all of it."""

    rows: slice | None
    shape: torch.Size

    def of(self, x: Tensor) -> Tensor:
        """Return the block's part of an array in the logits' shape, up to axes of length 1."""
        shared = self.rows is None or x.ndim < len(self.shape) or x.shape[0] != self.shape[0]
        return x if shared else x[self.rows]

    def coefficients(self, c: Any, inside: torch.dtype, scale: Tensor | float) -> Any:
        """Return the block's coefficients in the type that is computed in, times ``scale``."""
        if isinstance(scale, Tensor):
            scale = self.of(scale)

        def part(x: Tensor | None) -> Any:
            return None if x is None else self.of(x).to(inside)

        def scaled(x: Tensor | None) -> Any:
            return None if x is None else (self.of(x) * scale).to(inside)

        if isinstance(c, SigmoidCoefficients):
            return SigmoidCoefficients(scaled(c.pos), scaled(c.neg), None)
        index = None if c.index is None else self.of(c.index)
        return SoftmaxCoefficients(
            c.axis, index, part(c.targets), scaled(c.alpha), part(c.column), scaled(c.beta), part(c.row), None
        )


def _blocks(z: Tensor, call: Call, inside: torch.dtype, *, copy: bool) -> Iterator[tuple[_Block, Tensor]]:
    """Yield blocks of about 4 MB of logits, 2 MB where they are computed in another type, and their logits.

    A copy may be written over. All copies lie in one piece of memory: blocks that come and go between the small arrays
    which stay would spread over the heap.
    """
    n = z.shape[0] if z.ndim > 1 and call.axis != 0 else 1
    budget = (1 << 22 if z.dtype is inside else 1 << 21) * n
    step = min(n, max(1, budget // max(1, z.numel() * inside.itemsize))) if z.device.type == "cpu" else n
    work = None
    for start in range(0, max(1, n), max(1, step)):
        block = _Block(slice(start, start + step) if step < n else None, z.shape)
        logits = block.of(z)
        if copy:
            work = torch.empty_like(logits, dtype=inside) if work is None else work[: len(logits)]
            logits = work.copy_(logits)
        yield block, logits


def _is_hard(c: Any) -> bool:
    return isinstance(c, SoftmaxCoefficients) and c.index is not None and c.beta is None


def _forward(z: Tensor, c: Any, out: Tensor, *, slopes: bool) -> tuple[Tensor, ...]:
    """Return weighted row losses and, for index targets, two more numbers a row.

    ``out``, which may be ``z``, is written over; with ``slopes`` it then is the gradient.
    """
    if isinstance(c, SigmoidCoefficients):
        return (_binary(z, c, out, slopes),)
    if not _is_hard(c):
        return (_dense(z, c, out, slopes),)
    top, target = z.amax(c.axis, keepdim=True), z.gather(c.axis, c.index)
    own = torch.sub(z, top, out=out).exp_().gather(c.axis, c.index)
    others = out.scatter_(c.axis, c.index, 0.0).sum(c.axis, keepdim=True)
    total = others + own
    loss = torch.where(target == top, others.log1p(), total.log()).add_(top - target).mul_(c.alpha)
    if slopes:
        _hard_slopes(out, c, others, total)
    if not _is_finite(loss):
        loss.masked_fill_(c.alpha == 0, 0.0)
        out.masked_fill_(c.alpha == 0, 0.0)
    return loss, top, others


def _hard_slopes(e: Tensor, c: SoftmaxCoefficients, others: Tensor, total: Tensor) -> None:
    """Turn exp(z - max z) into alpha (q - [c = y]), with q_y - 1 as -R_y / S."""
    scale = c.alpha / total
    e.mul_(scale).scatter_(c.axis, c.index, others.mul(scale).neg_())


def _is_finite(x: Tensor) -> bool:
    """Whether every entry is finite - if that can be said without a synchronisation.

    A row without a coefficient weighs 0 already, unless its logits are infinite or NaN: then it must be cleared.
    """
    return x.device.type == "cpu" and math.isfinite(x.sum().item())


def _dense(z: Tensor, c: SoftmaxCoefficients, out: Tensor, slopes: bool) -> Tensor:
    axis = c.axis
    if c.targets is None:
        a = torch.zeros_like(z).scatter_(axis, c.index, c.alpha)
    else:
        a = c.targets * c.alpha
        a = a if c.column is None else a.mul_(c.column)
    if c.beta is not None:
        a += c.beta if c.row is None else c.beta * c.row
    top, dominant = z.max(axis, keepdim=True)
    a_top = a.gather(axis, dominant)
    rest = a.scatter_(axis, dominant, 0.0).sum(axis, keepdim=True)
    excess = torch.sub(top, z, out=out)
    # 0, but NaN where the largest logit is infinite or NaN: such a row has no softmax.
    own = excess.gather(axis, dominant)
    near = (a * excess.masked_fill(a == 0, 0.0)).sum(axis, keepdim=True)
    e = out.neg_().exp_().scatter_(axis, dominant, 0.0)
    others, weight = e.sum(axis, keepdim=True) + own, rest + a_top
    loss = weight * others.log1p() + near
    if slopes:
        scale = weight / (1 + others)
        # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
        at_dominant = torch.where(others < 1, rest - others * scale, scale - a_top)
        e.mul_(scale).sub_(a).scatter_(axis, dominant, at_dominant)
    if not _is_finite(loss):
        loss.masked_fill_(weight == 0, 0.0)
        e.masked_fill_(weight == 0, 0.0)
    return loss


def _binary(z: Tensor, c: SigmoidCoefficients, out: Tensor, slopes: bool) -> Tensor:
    positive = z > 0
    e = z.abs().neg_().exp_()
    tail = e.log1p()
    loss = (c.pos * torch.where(positive, tail, tail - z)).masked_fill_(c.pos == 0, 0.0)
    loss += (c.neg * torch.where(positive, tail + z, tail)).masked_fill_(c.neg == 0, 0.0)
    if slopes:
        large = 1 / (1 + e)
        small = e * large
        torch.where(positive, c.neg * large - c.pos * small, c.neg * small - c.pos * large, out=out)
        out.masked_fill_((c.pos == 0) & (c.neg == 0), 0.0)
    return loss
