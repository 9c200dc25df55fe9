"""Distributed tensors whose classes are sharded: a layer's weight, and logits, the outputs of such a layer.

The mesh has one dimension. Other distributed tensors go through operations that are distributed themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...call import Call
from ...errors import refuse
from ...spec import SoftmaxCrossEntropy
from . import shards
from .arrays import is_once, is_traced, round_once
from .cpu import Arguments, are_plain
from .shards import Share

Value = Callable[[Arguments, torch.dtype], Tensor]


def is_distributed(x: Any) -> bool:
    """Whether a tensor is a DTensor."""
    return getattr(x, "device_mesh", None) is not None


def is_sharded(x: Any, axis: int) -> bool:
    """Whether a tensor is a distributed one of which each rank of a mesh of one dimension has a part of an axis."""
    placements: Any = getattr(x, "placements", ())
    return len(placements) == 1 and bool(placements[0].is_shard(axis)) and x.device_mesh.get_coordinate() is not None


def local(hidden: Any, weight: Any, bias: Any, *others: Any) -> list[Any]:
    """Return the group of a weight that `is_sharded`, what this rank has of it and the bias, and the others whole."""
    mesh = weight.device_mesh
    if is_distributed(hidden):
        hidden = _whole("hidden", hidden, mesh)
    if is_distributed(bias):
        bias = bias.redistribute(mesh, weight.placements).to_local()
    elif bias is not None:
        refuse("bias", "be a DTensor, as `weight` is", type(bias).__name__, error=TypeError)
    return [mesh.get_group(), hidden, weight.to_local(), bias, *(_whole_of(x, mesh) for x in others)]


def _whole_of(x: Any, mesh: Any) -> Any:
    if isinstance(x, tuple | list):
        return type(x)(_whole_of(item, mesh) for item in x)
    return _whole("targets and weights", x, mesh) if is_distributed(x) else x


def _whole(name: str, x: Any, mesh: Any) -> Tensor:
    """Return all of a distributed tensor; its gradient is the same on all ranks."""
    if x.device_mesh != mesh:
        refuse(name, f"be on the mesh of `weight`, {mesh}", x.device_mesh)
    from torch.distributed.tensor import Replicate  # which is slow to import

    replicate = [Replicate()]
    return x.redistribute(mesh, replicate).to_local(grad_placements=replicate)  # type: ignore[no-any-return]


def like(x: Any) -> Callable[[Tensor], Tensor]:
    """Return what makes of a result that all ranks have one of the kind of ``x``."""
    if not is_distributed(x):
        return _same
    from torch.distributed.tensor import DTensor, Replicate

    return lambda value: DTensor.from_local(value, x.device_mesh, [Replicate()], run_check=False)


def _same(x: Tensor) -> Tensor:
    return x


def has_sharded_classes(given: Arguments) -> bool:
    """Whether each rank has some classes of logits that are one out of them; binary losses need nobody else's."""
    z = given.logits
    if not is_distributed(z) or not isinstance(given.spec, SoftmaxCrossEntropy) or not z.ndim:
        return False
    axis = _axis(given.spec, z)
    if len(z.placements) > 1 and any(p.is_shard(axis) for p in z.placements):
        refuse("logits", "be sharded over their classes on a mesh of one dimension", z.placements)
    return is_sharded(z, axis)


def _axis(spec: SoftmaxCrossEntropy, z: Tensor) -> int:
    return 0 if z.ndim == 1 else spec.axis % z.ndim if -z.ndim <= spec.axis < z.ndim else -1


def whole(given: Arguments) -> Arguments:
    """Return the arguments beside the logits, whole, for logits of all classes that have no memory."""
    z = given.logits
    like = z.to_local().detach().new_empty(()).expand(z.shape)
    spec, _, validate, *others = given
    return Arguments(spec, like, validate, *(_whole_of(x, z.device_mesh) for x in others))


def loss(given: Arguments, dtype: torch.dtype, value: Value) -> Tensor:
    """Return the loss, by way of logits of all classes and ``value`` where the closed form does not serve."""
    z, axis = given.logits, _axis(given.spec, given.logits)
    mesh, rest, part = z.device_mesh, whole(given), z.to_local()
    step = -(-z.shape[axis] // mesh.size())
    sizes = [min(step, max(0, z.shape[axis] - i * step)) for i in range(mesh.size())]
    share = Share(mesh.get_group(), tuple(sizes), mesh.get_local_rank())

    def composed(part: Tensor) -> Tensor:
        joined = shards.Joined.of(part.movedim(axis, -1), share).movedim(-1, axis)
        return value(rest._replace(logits=joined), dtype)

    if are_plain(rest) and not is_traced():
        call = rest.call()
        return like(z)(_Fused.apply(part, share, call, dtype, composed))  # type: ignore[no-untyped-call]
    return like(z)(composed(part))


class _Fused(torch.autograd.Function):
    """The loss of the logits of this rank's classes, whose gradient the backward makes."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, share: Share, call: Call, dtype: torch.dtype, composed: Callable[[Tensor], Tensor]
    ) -> Tensor:
        halves = shards.halves_of(share, dataclasses.replace(call, logits=z), recomputes_exp=True)
        losses, saved = halves.losses()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(z, *saved)
            ctx.share, ctx.call, ctx.composed = share, call, composed
        return round_once(halves.value(losses), dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        z, *saved = ctx.saved_tensors  # raises if the logits were changed in place since
        if is_once(upstream):
            halves = shards.halves_of(ctx.share, dataclasses.replace(ctx.call, logits=z), recomputes_exp=True)
            return shards.slopes_of(halves, saved, upstream), None, None, None, None
        differentiated = torch.is_grad_enabled()
        with torch.enable_grad():
            value = ctx.composed(z)
        found = torch.autograd.grad(value, z, upstream, create_graph=differentiated)[0]
        return found, None, None, None, None
