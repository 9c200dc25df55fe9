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
from .._arrays import Arrays, Kind, class_shape, wide_weights
from ..call import Call, prepare
from ..lowering import SigmoidCoefficients, SoftmaxCoefficients, divide, lower, reduce, undivided

HALF = (torch.float16, torch.bfloat16)


class TorchArrays:
    """The array functions of `classweight._arrays.Arrays` on tensors."""

    wide, int64, flushes = torch.float64, torch.int64, False
    exp, expm1, log, log1p = torch.exp, torch.expm1, torch.log, torch.log1p
    equal, where, ones_like = torch.eq, torch.where, torch.ones_like
    reshape, expand_dims = torch.reshape, torch.unsqueeze

    def kind(self, x: Tensor) -> Kind:
        if x.dtype.is_floating_point:
            return "f"
        return "b" if x.dtype is torch.bool else "other" if x.dtype.is_complex else "i"

    def asarray(self, x: Any, like: Tensor, name: str) -> Tensor:
        if not isinstance(x, Tensor):
            if isinstance(x, int | float):  # Dynamo follows no dtype of NumPy's
                return torch.tensor(x, dtype=torch.float64 if isinstance(x, float) else None, device=like.device)
            try:
                return torch.tensor(np.array(x, np.asarray(x).dtype.newbyteorder("="), order="C"), device=like.device)
            except (TypeError, ValueError, RuntimeError):
                refuse(name, "be a tensor or numbers in a regular shape", type(x).__name__, error=TypeError)
        if x.layout is not torch.strided:
            refuse(name, "be a dense tensor", x.layout, error=TypeError)
        if x.device == like.device:
            return x
        if x.ndim:
            refuse(name, f"be on the logits' device {like.device}", x.device)
        return x.to(like.device, non_blocking=True)

    def to_numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        x = x.detach()
        return (x.float() if x.dtype is torch.bfloat16 else x).cpu().numpy()

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


xp: Arrays = TorchArrays()  # type: ignore[assignment]  # torch's functions name their arguments otherwise


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache what depends on the spec alone; not in a traced graph, for Dynamo warns of caches and looks through."""
    cached = lru_cache(maxsize=64, typed=True)(function)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        # A tensor made in inference mode, or a fake one, must not be kept for others.
        passing = _traced() or torch.is_inference_mode_enabled()
        try:
            return (function if passing else cached)(*arguments, **options)
        except TypeError:  # a list among native arguments cannot be hashed, and is refused in words
            return function(*arguments, **options)

    return call


@kept
def _weights(spec: Any, num_classes: int, device: torch.device) -> Any:
    return wide_weights(spec, num_classes, lambda values: torch.tensor(values, dtype=torch.float64, device=device))


def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    if not isinstance(logits, Tensor):
        refuse("logits", "be a tensor", type(logits).__name__, error=TypeError)
    if logits.layout is not torch.strided:
        refuse("logits", "be a dense tensor", logits.layout, error=TypeError)
    if validate is None:
        validate = logits.device.type == "cpu" and not _traced()
    return prepare(xp, spec, logits, *arguments, check_values=validate)


def _traced() -> bool:
    """Whether operations are being recorded, batched or faked, so that values cannot be looked at."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def _inside(z: Tensor, call: Call) -> torch.dtype:
    """Return the type that is computed in."""
    exact = call.spec.precision == "exact" or z.dtype is torch.float64
    return torch.float64 if exact else torch.float32


def loss_parts(call: Call) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    c = lower(xp, call, _inside(call.logits, call))
    denominator = 1.0 if c.denominator is None else c.denominator
    total = dataclasses.replace(call, spec=_summed(call.spec))
    numerator = _value(total, undivided(c), torch.float64)
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
        z = call.logits if torch.is_grad_enabled() else call.logits.detach()
        return _Fused.apply(z, call, c, dtype)  # type: ignore[no-any-return, no-untyped-call]
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
    function = _Cast if torch.compiler.is_compiling() else _CastWithTangent
    return function.apply(x, dtype)  # type: ignore[no-any-return, no-untyped-call]


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
        factor = _mean_factor(c) if call.spec.reduction != "none" else 1.0
        keep = needs_gradient and call.spec.reduction != "none" and z.dtype is inside
        kept = torch.empty_like(z) if keep else None
        numbers: Any = None  # the rows' losses and, for index targets, two more
        for block, zb in _blocks(z, call, inside, copy=not keep):
            out = zb if kept is None else block.of(kept)
            found = _forward(zb, block, c, out, factor if keep else None)
            if isinstance(c, SigmoidCoefficients) and call.spec.average_outputs:
                found = (found[0].sum(-1, keepdim=True),)
            if block.rows is None:
                numbers = found
                break
            if numbers is None:
                numbers = [x.new_empty(call.row_shape(xp)) for x in found]
            for number, part in zip(numbers, found, strict=True):
                block.of(number).copy_(part)
        rows = numbers[0]
        if _is_hard(c):  # weighted in float64, where no weight is too small or too large
            rows = rows * c.alpha
            if not _is_finite(rows):
                rows.masked_fill_(c.alpha == 0, 0.0)
        value = reduce(xp, call, rows, c.denominator)
        if needs_gradient:
            ctx.save_for_backward(z, *_tensors(c), *numbers[1:])
            # What autograd saves it also lets go; nothing else may hold the batch.
            ctx.call, ctx.kind, ctx.kept, ctx.factor = _emptied(call), type(c), kept, factor
            ctx.fields = [x if not isinstance(x, Tensor) else ... for x in (getattr(c, name) for name in c.__slots__)]
        return round_once(value, dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, None, None, None]:
        if ctx.kept is not None and not torch.is_grad_enabled() and not _is_batched(upstream):
            kept, ctx.kept = ctx.kept, None
            unscaled = upstream.device.type == "cpu" and upstream.item() == 1
            return kept if unscaled else kept.mul_(upstream), None, None, None
        z, *saved = ctx.saved_tensors  # raises if one of them was changed in place since
        tensors = iter(saved)
        c = ctx.kind(*(next(tensors) if x is ... else x for x in ctx.fields))
        call, inside = dataclasses.replace(ctx.call, logits=z), _inside(z, ctx.call)
        if torch.is_grad_enabled():  # create_graph=True
            value = _composite_loss(call, c, upstream.dtype)
            return torch.autograd.grad(value, z, upstream, create_graph=True)[0], None, None, None
        if _is_batched(upstream):

            def composite_of(z: Tensor) -> Tensor:
                return _composite_loss(dataclasses.replace(call, logits=z), c, upstream.dtype)

            return torch.func.vjp(composite_of, z.detach())[1](upstream)[0], None, None, None
        statistics = list(tensors)
        factor = upstream.to(torch.float64) * ctx.factor
        if call.spec.reduction == "none" and call.position_axis is not None:
            factor = factor.unsqueeze(call.position_axis)
        gradient = torch.empty_like(z)
        for block, zb in _blocks(z, call, inside, copy=z.dtype is not inside):
            target = block.of(gradient)
            out = target if z.dtype is inside else zb
            if statistics:
                top, others = (block.of(x) for x in statistics)
                e = torch.sub(zb, top, out=out).exp_()
                index = block.of(c.index)
                _hard_slopes(
                    e, c.axis, index, _scaled(block, c.alpha, factor), others, others + e.gather(c.axis, index)
                )
            else:
                _forward(zb, block, c, out, factor)
            if out is not target:
                target.copy_(round_once(out, z.dtype))
        return gradient, None, None, None


def _is_batched(x: Tensor) -> bool:
    """Whether this gradient is many at once: of vmap, or of ``is_grads_batched``."""
    return bool(torch._C._functorch.is_batchedtensor(x) or torch._C._functorch.is_legacy_batchedtensor(x))


def _emptied(call: Call) -> Call:
    """Return the call without the arrays of its batch."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("logits", "targets", "sample_weight", "class_weight", "mask", "denominator")
    )
    return dataclasses.replace(call, **nothing)


def _tensors(c: Any) -> list[Tensor]:
    return [x for name in c.__slots__ if isinstance(x := getattr(c, name), Tensor)]


def _mean_factor(c: Any) -> Tensor | float:
    """Return 1 / denominator, 0 where that is 0, 1 without one."""
    if c.denominator is None:
        return 1.0
    if isinstance(c.denominator, Tensor) and c.denominator.device.type != "cpu":
        return divide(xp, "zero", torch.ones_like(c.denominator), c.denominator)  # type: ignore[no-any-return]
    denominator = float(c.denominator)  # a number costs less than operations on one
    return 1 / denominator if denominator else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """A range of the first axis of the logits, or all of it."""

    rows: slice | None
    shape: torch.Size

    def of(self, x: Tensor) -> Tensor:
        """Return the block's part of an array in the logits' shape, up to axes of length 1."""
        shared = self.rows is None or x.ndim < len(self.shape) or x.shape[0] != self.shape[0]
        return x if shared else x[self.rows]


def _scaled(block: _Block, coefficient: Tensor, factor: Tensor | float) -> Tensor:
    """Return the block's coefficient times a factor, and 0 where it is 0 whatever the factor."""
    factor = block.of(factor) if isinstance(factor, Tensor) else factor
    part = block.of(coefficient)
    scaled = part * factor
    finite = math.isfinite(factor) if isinstance(factor, float) else _is_finite(factor)
    return scaled if finite else scaled.masked_fill_(part == 0, 0.0)


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


def _forward(z: Tensor, block: _Block, c: Any, out: Tensor, factor: Tensor | float | None) -> tuple[Tensor, ...]:
    """Return row losses and, for index targets, two more numbers a row; those losses are not weighted yet.

    ``out``, which may be ``z``, is written over; with a factor it then is the gradient times it.
    """
    if isinstance(c, SigmoidCoefficients):
        pos, neg = (block.of(x).to(z.dtype) for x in (c.pos, c.neg))
        return (_binary(z, pos, neg, out, block, factor),)
    if not _is_hard(c):
        return (_dense(z, _dense_coefficients(z, block, c), c.axis, out, block, factor),)
    axis, index = c.axis, block.of(c.index)
    top, target = z.amax(axis, keepdim=True), z.gather(axis, index)
    own = torch.sub(z, top, out=out).exp_().gather(axis, index)
    others = out.scatter_(axis, index, 0.0).sum(axis, keepdim=True)
    total = others + own
    loss = torch.where(target == top, others.log1p(), total.log()).add_(top - target)
    if factor is not None:
        _hard_slopes(out, axis, index, _scaled(block, c.alpha, factor), others, total)
    return loss, top, others


def _hard_slopes(e: Tensor, axis: int, index: Tensor, alpha: Tensor, others: Tensor, total: Tensor) -> None:
    """Turn exp(z - max z) into alpha (q - [c = y]), with q_y - 1 as -R_y / S."""
    scale = alpha.to(e.dtype) / total
    e.mul_(scale).scatter_(axis, index, others.mul(scale).neg_())
    if not _is_finite(total):
        e.masked_fill_(alpha == 0, 0.0)


def _is_finite(x: Tensor) -> bool:
    """Whether every entry is finite - if that can be said without a synchronisation.

    A row without a coefficient weighs 0 already, unless its logits are infinite or NaN: then it must be cleared.
    """
    return x.device.type == "cpu" and math.isfinite(x.sum().item())


def _dense_coefficients(z: Tensor, block: _Block, c: SoftmaxCoefficients) -> Tensor:
    parts: Any = (None if x is None else block.of(x).to(z.dtype) for x in (c.alpha, c.column, c.beta, c.row))
    alpha, column, beta, row = parts
    if c.targets is None:
        a = torch.zeros_like(z).scatter_(c.axis, block.of(c.index), alpha)  # type: ignore[arg-type]
    else:
        a = block.of(c.targets).to(z.dtype) * alpha
        a = a if column is None else a.mul_(column)
    if beta is not None:
        a += beta if row is None else beta * row
    return a


def _dense(z: Tensor, a: Tensor, axis: int, out: Tensor, block: _Block, factor: Tensor | float | None) -> Tensor:
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
    if factor is not None:
        scale = weight / (1 + others)
        # A q_k - a_k: summed over the other classes where q_k > 1/2, and where that would cancel as it stands.
        at_dominant = torch.where(others < 1, rest - others * scale, scale - a_top)
        e.mul_(scale).sub_(a).scatter_(axis, dominant, at_dominant)
        _multiply(e, block, factor, weight == 0)
    if not _is_finite(loss):
        loss.masked_fill_(weight == 0, 0.0)
        e.masked_fill_(weight == 0, 0.0)
    return loss


def _multiply(gradient: Tensor, block: _Block, factor: Tensor | float, dead: Tensor) -> None:
    """Multiply by a factor of each row or of all; a row without a coefficient stays 0."""
    if isinstance(factor, Tensor):
        factor = block.of(factor).to(gradient.dtype)
        gradient.mul_(factor)
        if not _is_finite(factor):
            gradient.masked_fill_(dead, 0.0)
    elif factor != 1:
        gradient.mul_(factor)


def _binary(z: Tensor, pos: Tensor, neg: Tensor, out: Tensor, block: _Block, factor: Tensor | float | None) -> Tensor:
    positive = z > 0
    e = z.abs().neg_().exp_()
    tail = e.log1p()
    loss = (pos * torch.where(positive, tail, tail - z)).masked_fill_(pos == 0, 0.0)
    loss += (neg * torch.where(positive, tail + z, tail)).masked_fill_(neg == 0, 0.0)
    if factor is not None:
        large = 1 / (1 + e)
        small = e * large
        dead = (pos == 0) & (neg == 0)
        torch.where(positive, neg * large - pos * small, neg * small - pos * large, out=out)
        _multiply(out, block, factor, dead)
        out.masked_fill_(dead, 0.0)
    return loss
