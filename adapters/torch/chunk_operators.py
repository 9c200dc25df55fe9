"""The loss of a linear layer as PyTorch's operators, for graphs that `torch.compile` traces.

As in `operators`: a reduced loss returns its gradients for an upstream gradient of 1 with the number that they were
scaled by, and the graph does the rest; other gradients are made by an operator of the backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import chunks, operators
from .arrays import TENSORS, is_dense, is_once
from .chunks import Layer, rounds_once
from .cpu import Arguments
from .products import sum_type

_GIVEN = f"Tensor hidden, Tensor weight, Tensor? bias, {operators.GIVEN}, ScalarType inside"
# Of these the first three are the layer's, and the next six tensors.
_TENSORS = 9


def loss(layer: Layer, given: Arguments, dtype: torch.dtype) -> Tensor | None:
    """Return the loss as an operator of the graph that is traced, None where it must be composed of operations."""
    for x in layer.tensors():
        if type(x) not in TENSORS or not is_dense(x) or x.device.type != "cpu":
            return None
    if given.spec.reduction == "none" and not getattr(given.spec, "average_outputs", True):
        return None
    operands = operators.operands_of(given)
    if operands is None:
        return None
    enabled = torch.is_grad_enabled()
    wanted = [enabled and x is not None and x.requires_grad for x in layer[:3]]
    value: Tensor = torch.ops.classweight.linear_loss(*layer[:3], *operands, layer.dtype, dtype, wanted)
    return value


def _split(arguments: Any) -> tuple[Layer, Arguments]:
    """Return what an operator was given as the layer and the loss's arguments."""
    hidden, weight, bias, *others, inside = arguments
    layer = Layer(hidden, weight, bias, inside)
    given = operators.given_to(layer.logits_like(), *others)
    return layer, given._replace(spec=chunks.of_last_axis(given.spec))


def _is_kept(given: Arguments, inside: torch.dtype) -> bool:
    """Whether the forward makes the gradients: where they can be scaled by what will be upstream."""
    return given.spec.reduction != "none" and not rounds_once(given.spec, inside)


def _evaluate(*arguments: Any) -> tuple[Tensor, list[Tensor]]:
    *operands, dtype, wanted = arguments
    layer, given = _split(operands)
    wanted = tuple(wanted) if _is_kept(given, layer.dtype) else chunks.NOTHING
    value, made = chunks.evaluate(layer, given, dtype, wanted, in_parts=False)
    if made is None:
        return value, []
    found = [x for x in (made.hidden, *(made.weight or ()), made.bias) if x is not None]
    return value, [*found, torch.tensor(made.scale, dtype=torch.float64)]


def _shapes(*arguments: Any) -> tuple[Tensor, list[Tensor]]:
    *operands, dtype, wanted = arguments
    layer, given = _split(operands)
    (hidden, weight, *_), each = layer, given.spec.reduction == "none"
    value = hidden.new_empty(hidden.shape[:-1] if each else (), dtype=dtype)
    if not (any(wanted) and _is_kept(given, layer.dtype)):
        return value, []
    rows, wide = hidden.numel() // hidden.shape[-1] if hidden.shape[-1] else 0, sum_type(layer.dtype)
    shapes = ((rows, hidden.shape[-1]), layer.dtype), (weight.shape, wide), (weight.shape[:1], wide)
    found = [hidden.new_empty(shape, dtype=type) for (shape, type), each in zip(shapes, wanted, strict=True) if each]
    return value, [*found, hidden.new_empty((), dtype=torch.float64)]


def _gradients(upstream: Tensor, wanted: Any, *arguments: Any) -> list[Tensor]:
    layer, given = _split(arguments)
    found = chunks.gradients(layer, given._replace(validate=False), upstream, tuple(wanted))
    return [x for x in found if x is not None]


def _shapes_of_gradients(upstream: Tensor, wanted: Any, *arguments: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x, each in zip(arguments[:3], wanted, strict=True) if each]


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wanted: Any, *inputs: Any) -> Tensor:
        value: Tensor
        value, made = torch.ops.classweight.linear_evaluate(*inputs, wanted)
        ctx.save_for_backward(*inputs[:_TENSORS], *made)
        ctx.others, ctx.wanted = inputs[_TENSORS:-1], wanted
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        arguments = [*ctx.saved_tensors[:_TENSORS], *ctx.others]
        made, wanted = list(ctx.saved_tensors[_TENSORS:]), ctx.wanted
        if not is_once(upstream):
            layer, given = _split(arguments)
            found = chunks.composed(layer, given._replace(validate=False), upstream, tuple(wanted))
        else:
            if made:
                each = [_scaled(x, upstream.double() / made[-1]) for x in made[:-1]]
            else:
                each = torch.ops.classweight.linear_gradients(upstream, wanted, *arguments)
            rest = iter(each)
            inputs = zip(arguments[:3], wanted, strict=True)
            found = tuple(next(rest).to(x.dtype).reshape(x.shape) if wanted else None for x, wanted in inputs)
        return None, *found, *[None] * (len(ctx.others) + _TENSORS - 2)


def _scaled(x: Tensor, factor: Tensor) -> Tensor:
    """Return the product, which a half type gives way to float32 for."""
    wide = sum_type(x.dtype)
    return x.to(wide) * factor.to(wide)


def _differentiable(*inputs: Any) -> Tensor:
    *inputs, wanted = inputs  # type: ignore[assignment]
    return _Differentiable.apply(wanted, *inputs)  # type: ignore[no-any-return, no-untyped-call]


def _define() -> Any:
    make: Any = torch.library.Library  # whose methods have no types
    library, tag = make("classweight", "FRAGMENT"), torch.Tag.pt2_compliant_tag
    library.define(f"linear_loss({_GIVEN}, ScalarType dtype, bool[] wanted) -> Tensor", tags=tag)
    library.define(f"linear_evaluate({_GIVEN}, ScalarType dtype, bool[] wanted) -> (Tensor, Tensor[])", tags=tag)
    library.define(f"linear_gradients(Tensor upstream, bool[] wanted, {_GIVEN}) -> Tensor[]", tags=tag)
    library.impl("linear_loss", _differentiable, "CompositeImplicitAutograd")
    library.impl("linear_evaluate", _evaluate, "CPU")
    library.impl("linear_gradients", _gradients, "CPU")
    torch.library.register_fake("classweight::linear_evaluate", _shapes, lib=library)
    torch.library.register_fake("classweight::linear_gradients", _shapes_of_gradients, lib=library)
    return library


_LIBRARY = _define() if operators.IS_SUPPORTED else None
