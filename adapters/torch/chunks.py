"""The loss of a linear layer's output by chunks of rows: what is kept for the backward are gradients, never the logits.

Coefficients and denominators do not depend on logits, so they are known before the first of them is. A chunk's logits
become their gradient where they lie, which two products take to the layer's arguments. Rows whose coefficients are all
0 are left out before that. A reduced loss makes its gradients in the forward, for an upstream gradient of 1, and the
backward scales them; those of single losses, and in exact precision of another upstream gradient, are made there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...call import Call
from ...lowering import changed, magnitudes, unless_empty
from . import cpu, operators, products, route, shards, tensor_rows
from .arrays import HALF, TENSORS, is_dense, is_once, is_traced, kept, mode_of, round_once, xp
from .cpu import Arguments
from .shards import Share

# Of a chunk's logits, where that is no less than so many rows: fewer do not repay a pass over the weight's gradient,
# which costs more where it is added up in another type.
CHUNK_BYTES, HALF_BYTES, LEAST_ROWS = 1 << 26, 1 << 27, 512
# Of such sums, at a time: the allocator gives back to the system what is as large.
PART_BYTES = 1 << 26

Wanted = tuple[bool, bool, bool]
# What makes of a chunk's call its loss, and the gradient to its logits times a factor, if there is one.
OfChunk = Callable[[Call, Tensor | None], tuple[Tensor, Tensor | None]]
NOTHING: Wanted = (False, False, False)

_last = kept(lambda spec: changed(spec, axis=-1))


class Layer(NamedTuple):
    """The arguments of a linear layer, the type that it computes in, and which of all classes it has."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    dtype: torch.dtype
    share: Share | None = None

    def tensors(self) -> list[Tensor]:
        """Return the arguments that there are."""
        return [x for x in self[:3] if x is not None]

    def logits_like(self) -> Tensor:
        """Return what has the logits' shape and type, and no memory."""
        classes = self.weight.shape[0] if self.share is None else self.share.classes
        shape = (*self.hidden.shape[:-1], classes)
        return self.hidden.detach().new_empty((), dtype=self.dtype).expand(shape)

    def cast(self) -> Layer:
        """Return the arguments in the type that is computed in."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        return self._replace(hidden=self.hidden.to(self.dtype), weight=self.weight.to(self.dtype), bias=bias)


class Made(NamedTuple):
    """Gradients times ``scale``, None where they are not wanted; the weight's is in parts if of another type."""

    hidden: Tensor | None
    weight: list[Tensor] | None
    bias: Tensor | None
    scale: float


def of_last_axis(spec: Any) -> Any:
    """Return the spec of classes that are where a linear layer has them."""
    return spec if getattr(spec, "axis", -1) == -1 else _last(spec)


def loss(layer: Layer, given: Arguments, dtype: torch.dtype) -> Tensor:
    """Return the loss in ``dtype``; of ``given``, the logits are `Layer.logits_like`."""
    if not is_fused(layer, given):
        return composite(layer, given, dtype)
    if torch.is_grad_enabled() and any(x.requires_grad for x in layer.tensors()):
        return Chunked.apply(layer, *layer[:3], given, dtype)  # type: ignore[no-any-return, no-untyped-call]
    return evaluate(layer, given, dtype, NOTHING)[0]


def is_fused(layer: Layer, given: Arguments) -> bool:
    """Whether chunks compute a call: the layer's arguments alone are differentiated, once, where there are kernels."""
    if not (cpu.is_fused(given) if layer.share is None and given.logits.is_cpu else _is_fused_on_device(layer, given)):
        return False
    for x in layer.tensors():
        if type(x) not in TENSORS or not (is_dense(x) and x.device == given.logits.device) or x.is_neg():
            return False
    # Of single binary losses there are as many as logits.
    return bool(given.spec.reduction != "none" or getattr(given.spec, "average_outputs", True))


def _is_fused_on_device(layer: Layer, given: Arguments) -> bool:
    if is_traced() or not cpu.are_plain(given):
        return False
    device = operators.gpu() if layer.share is None else None
    if layer.share is None and not (device and device.is_usable(given.logits)):
        return False
    # Which rows are used must be known on the host.
    return not (given.logits.is_cuda and torch.cuda.is_current_stream_capturing())


def composite(layer: Layer, given: Arguments, dtype: torch.dtype) -> Tensor:
    """Return the loss by way of the logits; a row without a coefficient reaches no gradient, whatever it holds."""
    with mode_of((*layer.tensors(), *given.tensors())):
        hidden, weight, bias, *_ = layer.cast()
        used = ~xp.equal(magnitudes(xp, given.call()), 0)
        hidden = torch.where(used | hidden.isfinite().all(-1, keepdim=True), hidden, 0.0)
        if layer.share is None:
            z = linear(hidden, weight, bias)
        else:
            z = shards.Joined.of(linear(shards.Spread.of(hidden, layer.share), weight, bias), layer.share)
    return route.value(given._replace(logits=z, validate=False), dtype)


class Chunked(torch.autograd.Function):
    """The loss of one call. A backward that is itself differentiated goes through the composite."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: Layer,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        given: Arguments,
        dtype: torch.dtype,
    ) -> Tensor:
        is_kept = given.spec.reduction != "none" and (hidden.is_cpu or not rounds_once(given.spec, layer.dtype))
        wanted = ctx.needs_input_grad[1:4] if is_kept else NOTHING
        value, ctx.made = evaluate(layer, given, dtype, wanted)
        # What autograd saves it also lets go; nothing else may hold the batch.
        arguments = given.tensors()
        tensors = [x if isinstance(x, Tensor) else None for x in arguments]
        ctx.save_for_backward(hidden, weight, bias, *tensors)
        others = [x if y is None else None for x, y in zip(arguments, tensors, strict=True)]
        ctx.given = given.spec, others, isinstance(given.class_weight, tuple | list)
        ctx.dtype, ctx.share = layer.dtype, layer.share
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        made, ctx.made = ctx.made, None
        hidden, weight, bias, *tensors = ctx.saved_tensors  # raises if one of them was changed in place since
        layer, (spec, others, is_pair) = Layer(hidden, weight, bias, ctx.dtype, ctx.share), ctx.given
        once = is_once(upstream)
        if once and made and not hidden.is_cpu:  # to look at what is upstream would synchronise
            return None, *scaled(layer, made, upstream), None, None
        if once and made and (upstream.item() == 1 or not rounds_once(spec, layer.dtype)):
            return None, *scaled(layer, made, upstream.item()), None, None
        arguments = [other if x is None else x for x, other in zip(tensors, others, strict=True)]
        targets, sample_weight, mask, denominator, *weights = arguments
        class_weight = tuple(weights) if is_pair else weights[0]
        given = Arguments(spec, layer.logits_like(), False, targets, sample_weight, class_weight, mask, denominator)
        wanted = ctx.needs_input_grad[1:4]
        found = gradients(layer, given, upstream, wanted) if once else composed(layer, given, upstream, wanted)
        return None, *found, None, None


def gradients(layer: Layer, given: Arguments, upstream: Tensor, wanted: Wanted) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss times ``upstream``."""
    made = evaluate(layer, given, upstream.dtype, wanted, upstream)[1]
    return scaled(layer, made, 1.0)  # type: ignore[arg-type]


def composed(layer: Layer, given: Arguments, upstream: Tensor, wanted: Wanted) -> tuple[Tensor | None, ...]:
    """Return the gradients in a backward that is differentiated itself, or of many at once."""
    inputs = [x for x, each in zip(layer[:3], wanted, strict=True) if each and x is not None]

    def composite_of(*inputs: Tensor) -> Tensor:
        rest = iter(inputs)
        hidden, weight, bias = (next(rest) if each else x for x, each in zip(layer[:3], wanted, strict=True))
        return composite(Layer(hidden, weight, bias, *layer[3:]), given, upstream.dtype)  # type: ignore[arg-type]

    if torch.is_grad_enabled():  # create_graph=True
        found = torch.autograd.grad(composite_of(*inputs), inputs, upstream, create_graph=True)
    else:
        found = torch.func.vjp(composite_of, *(x.detach() for x in inputs))[1](upstream)
    rest = iter(found)
    return tuple(next(rest) if each else None for each in wanted)


def rounds_once(spec: Any, dtype: torch.dtype) -> bool:
    """Whether what is upstream must be part of a gradient's one rounding."""
    return bool(spec.precision == "exact" and dtype is not torch.float64)


@torch.no_grad()
def evaluate(
    layer: Layer,
    given: Arguments,
    dtype: torch.dtype,
    wanted: Wanted,
    upstream: Tensor | None = None,
    in_parts: bool = True,
) -> tuple[Tensor, Made | None]:
    """Return the loss in ``dtype``, and the gradients that are wanted times ``upstream``, or 1."""
    call, of_chunk = tensor_rows.rows_of(given), _of_chunk(layer)
    n, (hidden, weight, bias, *_) = call.shape[0], layer.cast()
    hidden, each = hidden.reshape(n, hidden.shape[-1]), call.spec.reduction == "none"
    used, largest = tensor_rows.used_of(call)
    factor = upstream if upstream is not None else hidden.new_ones((), dtype=torch.float64)
    made, size = None, _rows_at_once(len(used), layer)
    if any(wanted):
        scale = 1.0
        if layer.dtype in HALF and upstream is None and not rounds_once(call.spec, layer.dtype):
            scale = _scale(largest)
            factor = factor * scale
        made = _none_yet(layer, hidden, wanted, scale, in_parts, size < len(used))
    memory = hidden.new_empty(size, len(weight))
    losses = hidden.new_zeros(n if each else (), dtype=torch.float64)
    if made and not len(used):
        for sums in made.weight or ():
            sums.zero_()
    for first in range(0, len(used), size or 1):
        rows: Any = used[first : first + size]
        rows = slice(first, first + len(rows)) if len(used) == n else rows
        h = hidden[rows]
        z, slopes = memory[: len(h)], None
        products.logits(h, weight, bias, z)
        if made:
            slopes = factor.reshape(-1)[rows] if each else factor
        part = dataclasses.replace(tensor_rows.part_of(call, rows), logits=z)
        value, gradient = of_chunk(part, slopes)
        if each:
            losses[rows] = value
        else:
            losses += value
        if made and gradient is not None:
            _add(layer, made, gradient, h, weight, rows, first == 0)
    if each:
        return round_once(losses, dtype).reshape(given.logits.shape[:-1]), made
    if call.denominator is not None:
        losses = unless_empty(xp, call.spec.zero_denominator, losses, call.denominator)
    return round_once(losses, dtype), made


def _of_chunk(layer: Layer) -> OfChunk:
    """Return what computes a chunk."""
    if layer.share is not None:
        return functools.partial(shards.of_chunk, layer.share)
    return cpu.of_chunk if layer.hidden.is_cpu else operators.gpu().of_chunk


def _rows_at_once(n: int, layer: Layer) -> int:
    """Return the rows of a chunk; all but the last, which may be shorter, have as many."""
    classes, features = layer.weight.shape
    memory, least = HALF_BYTES if layer.dtype in HALF else CHUNK_BYTES, LEAST_ROWS
    most = memory // ((classes or 1) * layer.dtype.itemsize)
    if layer.share is not None:  # the same on all ranks; a few arrays of float32 are made of them
        most, least = CHUNK_BYTES // (max(layer.share.sizes) * 16), LEAST_ROWS // 2
    elif layer.dtype is torch.bfloat16 and n <= most + features:
        return n  # whose logits take no more than the sums over several chunks
    return -(-n // -(-n // max(least, most))) if n else 0


def _scale(largest: float) -> float:
    """Return the power of 2 that brings a half type's gradients, which a mean made small, among its normal numbers.

    A row's sum is then 64 at most: below what overflows float16 after a product with weights up to 512.
    """
    return math.ldexp(1.0, 6 - math.frexp(largest)[1]) if 0 < largest < math.inf else 1.0


def _none_yet(layer: Layer, hidden: Tensor, wanted: Wanted, scale: float, in_parts: bool, is_cut: bool) -> Made:
    """Return the memory of gradients."""
    of_hidden = of_weight = of_bias = None
    (classes, features), inside = layer.weight.shape, products.sum_type(layer.dtype)
    if wanted[0]:
        of_hidden = torch.zeros_like(hidden)
    if wanted[1]:
        own = layer.weight.dtype
        if in_parts and layer.dtype is own is torch.bfloat16 and not is_cut:
            inside = own
        step = classes if inside is own or not in_parts else max(1, PART_BYTES // (inside.itemsize * (features or 1)))
        sizes = [min(step, classes - first) for first in range(0, classes or 1, step or 1)]
        of_weight = [cpu.memory_like(hidden.new_empty(size, features, dtype=inside)) for size in sizes]
    if wanted[2]:
        of_bias = hidden.new_zeros(classes, dtype=products.sum_type(layer.dtype))
    return Made(of_hidden, of_weight, of_bias, scale)


def _add(layer: Layer, made: Made, z: Tensor, h: Tensor, weight: Tensor, rows: Any, first: bool) -> None:
    """Add what a chunk's gradient ``z`` makes of its rows of the hidden layer and of the weight."""
    if made.hidden is not None:
        product = products.of_hidden(z, weight)
        if layer.share is not None:
            product = layer.share.added(product.to(products.sum_type(z.dtype)))
        made.hidden[rows] = product.to(made.hidden.dtype)
    if made.bias is not None:
        made.bias.add_(z.sum(0, dtype=made.bias.dtype))
    start = 0
    for part in made.weight or ():
        products.add_to_weight(part, z[:, start : start + len(part)], h, first)
        start += len(part)


def scaled(layer: Layer, made: Made, upstream: float | Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the layer's arguments times ``upstream``; what was made is spent."""
    is_known = not isinstance(upstream, Tensor)
    factor: Any = upstream / made.scale if is_known else upstream.double() / made.scale  # type: ignore[union-attr]

    def rounded(x: Tensor, like: Tensor) -> Tensor:
        # A half type would round what is upstream, or not hold it.
        wide = torch.promote_types(x.dtype, like.dtype) if is_known else products.sum_type(x.dtype)
        x = x if is_known and factor == 1 else x.to(wide).mul_(factor)
        return x.to(like.dtype).reshape(like.shape)

    hidden, parts, bias, _ = made
    weight = None
    if parts and len(parts) == 1:
        weight = rounded(parts[0], layer.weight)
    elif parts:
        weight = cpu.memory_like(layer.weight.detach())
        places = list(torch.split(weight, len(parts[0])))
        while parts:  # each gives way to what it becomes
            part = parts.pop()
            places.pop().copy_(part if is_known and factor == 1 else part.mul_(factor))
    hidden = None if hidden is None else rounded(hidden, layer.hidden)
    bias = None if bias is None else rounded(bias, layer.bias)  # type: ignore[arg-type]
    return hidden, weight, bias
