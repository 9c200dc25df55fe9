"""Classes that are shared out over a process group: of a row's logits each rank has those of its own classes.

The closed form of `classweight.compute.xla` serves them with array functions of which reductions over the classes are
the group's: a few numbers a row are exchanged. Whatever that does not compute goes by way of the logits of all classes.
All else that a loss is given is the same on all ranks, and so is what it refuses.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from ...call import Call
from ...compute import xla
from ...compute.arrays import class_shape
from ...errors import refuse
from ...lowering import INF, SigmoidCoefficients, inside_of, lower
from .arrays import TorchArrays, round_once, xp


class Share(NamedTuple):
    """The classes of one rank: contiguous, and in the order of the ranks."""

    group: Any
    sizes: tuple[int, ...]
    rank: int

    @property
    def first(self) -> int:
        """The number of this rank's first class."""
        return sum(self.sizes[: self.rank])

    @property
    def own(self) -> int:
        """How many classes this rank has."""
        return self.sizes[self.rank]

    @property
    def classes(self) -> int:
        """How many classes all ranks have."""
        return sum(self.sizes)

    def of(self, x: Tensor, axis: int) -> Tensor:
        """Return this rank's part of an array of all classes."""
        return x.narrow(axis, self.first, self.own)

    def added(self, x: Tensor) -> Tensor:
        """Return the sum over the ranks, in the memory of ``x``, which is contiguous."""
        dist.all_reduce(x, group=self.group)
        return x


@torch.compiler.disable  # type: ignore[untyped-decorator]
def share_of(group: Any, device: Any, found: Callable[[], tuple[int, str]]) -> Share:
    """Return this rank's share, once all ranks have found what they were given to fit.

    ``found`` returns the number of this rank's classes, and in words what must be the same of the hidden layer on all
    ranks. A refusal on one rank is one on all.
    """
    if not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
        refuse("group", "be a process group that this process is a member of", type(group).__name__, error=TypeError)
    refusal, own = None, (-1, "")
    try:
        own = found()
    except (ValueError, TypeError) as error:
        refusal, own = error, (-1, str(error))
    given = torch.tensor([own[0], zlib.crc32(own[1].encode())], device=device)
    everyone = given.new_empty(dist.get_world_size(group), 2)
    dist.all_gather(list(everyone), given, group=group)
    sizes, words = everyone.t().tolist()
    if -1 in sizes or len(set(words)) > 1:
        said: list[Any] = [None] * len(sizes)
        dist.all_gather_object(said, own, group=group)
        _refuse(refusal, own, said)
    if not sum(sizes):
        refuse("weight", "have at least one class on one of the ranks", "none")
    return Share(group, tuple(sizes), dist.get_rank(group))


def _refuse(refusal: Exception | None, own: tuple[int, str], everyone: list[tuple[int, str]]) -> NoReturn:
    """Refuse what does not fit on this rank, or else on another."""
    if refusal is not None:
        raise refusal
    for rank, (classes, words) in enumerate(everyone):
        if classes < 0:
            refuse("group", "have ranks that all have a layer that fits", f"on rank {rank}: {words}")
    rank, words = next((rank, words) for rank, (_, words) in enumerate(everyone) if words != own[1])
    refuse("hidden", f"be the same on all ranks of the group, {own[1]}", words, f"on rank {rank}")


class ShardArrays(TorchArrays):
    """The array functions of a closed form, of whose sums `whole` makes those over the classes of all ranks.

    What `exp`, `with_entries` and `times` are given is an array of its own that nobody reads again: it is written over.
    """

    exp: Any = torch.exp_

    def __init__(self, share: Share, recomputes_exp: bool) -> None:
        self.share, self.recomputes_exp = share, recomputes_exp

    def whole(self, *rows: Tensor) -> list[Tensor]:
        """Return the sums of what the ranks have, in one exchange."""
        together = self.share.added(torch.stack([x.to(self.wide) for x in rows]))
        return [x.to(of_rank.dtype) for x, of_rank in zip(together, rows, strict=True)]

    def positions(self, n: int, axis: int, like: Tensor) -> Tensor:
        first, own = self.share.first, self.share.own
        return torch.arange(first, first + own, device=like.device).reshape(class_shape(own, axis, like.ndim))

    def max(self, x: Tensor, axis: int) -> Tensor:
        """Return the largest value, infinity where there is a NaN: not every backend's maximum keeps one."""
        if x.shape[axis]:
            top = x.amax(axis, keepdim=True)
            top = torch.where(top.isnan(), INF, top)
        else:
            top = x.new_full([1 if i == axis else n for i, n in enumerate(x.shape)], -INF)
        dist.all_reduce(top, dist.ReduceOp.MAX, group=self.share.group)
        return top

    def sum_in_type(self, x: Tensor, axis: int) -> Tensor:
        return x.sum(axis, keepdim=True)

    def wide_sum(self, x: Tensor, axis: int) -> Tensor:
        return x.sum(axis, keepdim=True, dtype=self.wide)

    def _own(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows' entries are this rank's, and where they are."""
        index = index - self.share.first
        return (index >= 0) & (index < self.share.own), index.clamp(0, max(self.share.own - 1, 0))

    def entries(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        is_own, index = self._own(index)
        return torch.where(is_own, x.gather(axis, index), 0.0) if x.shape[axis] else x.new_zeros(index.shape)

    def with_entries(self, x: Tensor, index: Tensor, values: Tensor | None, axis: int) -> Tensor:
        is_own, index = self._own(index)
        if not x.shape[axis]:
            return x
        new = torch.where(is_own, 0.0 if values is None else values, x.gather(axis, index))
        return x.scatter_(axis, index, new)

    def isnan(self, x: Tensor) -> Tensor:
        return x.isnan()

    def weighted(self, losses: Tensor, alpha: Tensor) -> Tensor:
        return torch.where(alpha == 0, 0.0, losses * alpha)

    def times(self, x: Tensor, rows: Tensor) -> Tensor:
        return x.mul_(rows).masked_fill_(rows == 0, 0.0)


def halves_of(share: Share, call: Call, recomputes_exp: bool = False) -> Any:
    """Return the closed form of a call whose logits are those of this rank's classes, and all else of all classes."""
    inside, axis = inside_of(xp, call.spec, call.logits.dtype), call.axis
    c: Any = lower(xp, call, inside)
    names = ("pos", "neg") if isinstance(c, SigmoidCoefficients) else ("targets", "column", "row")
    given = {name: getattr(c, name) for name in names}
    c = dataclasses.replace(c, **{name: share.of(x, axis) for name, x in given.items() if x is not None})
    arrays: Any = ShardArrays(share, recomputes_exp)
    return xla.halves_of_coefficients(arrays, call, c, inside)


def slopes_of(halves: Any, saved: Any, upstream: Tensor) -> Tensor:
    """Return the gradient times ``upstream``, of the loss's shape, in the logits' type."""
    with torch.enable_grad():
        losses = halves.linearised_at(saved).detach().requires_grad_()
        value = halves.value(losses)
    of_losses = torch.autograd.grad(value, losses, upstream.to(value.dtype).expand_as(value))[0]
    return round_once(halves.slopes(of_losses, saved), halves.call.logits.dtype)


def of_chunk(share: Share, call: Call, factor: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the wide loss of some rows, and the gradient to their logits times ``factor``, if there is one."""
    halves = halves_of(share, call)
    losses, saved = halves.losses()
    value = halves.value(losses).to(xp.wide)
    if isinstance(halves, xla.Binary):  # it is that of this rank's classes, which need not know of the others
        value = share.added(value.contiguous())
    return value, None if factor is None else slopes_of(halves, saved, factor)


class _Linear(torch.autograd.Function):
    """An operation whose gradient is one of these, too."""

    @classmethod
    def of(cls, x: Tensor, share: Share) -> Tensor:
        return cls.apply(x, share)  # type: ignore[no-any-return, no-untyped-call]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Share], output: Tensor) -> None:
        ctx.share = inputs[1]


class Spread(_Linear):
    """The same on all ranks, of which each rank makes something of its own; its gradients are added up."""

    @staticmethod
    def forward(x: Tensor, share: Share) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return Added.of(upstream, ctx.share), None


class Added(_Linear):
    """The sum over the ranks."""

    @staticmethod
    def forward(x: Tensor, share: Share) -> Tensor:
        return share.added(x.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return Spread.of(upstream, ctx.share), None


class Joined(_Linear):
    """The last axis of all ranks, the same on each of them."""

    @staticmethod
    def forward(x: Tensor, share: Share) -> Tensor:
        whole = x.new_zeros((*x.shape[:-1], share.classes))
        share.of(whole, -1).copy_(x)
        return share.added(whole)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return Own.of(upstream, ctx.share), None


class Own(_Linear):
    """What this rank has of the last axis."""

    @staticmethod
    def forward(x: Tensor, share: Share) -> Tensor:
        return share.of(x, -1).clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return Joined.of(upstream, ctx.share), None
