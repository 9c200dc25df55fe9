"""PyTorch, split: the denominator of a mean over micro-batches and processes, which is known before the forward.

It depends on targets and weights alone. With it each part's loss is that part's share of the whole batch's, whatever
rows the part got, and the parts' gradients add up to the whole batch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from . import route  # isort: skip  (first: it words the error of a missing torch)

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

from ...errors import refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from .arrays import xp

__all__ = ["denominator"]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
Weights = Tensor | float | Sequence[Tensor] | None
# Of which index targets are in range where nobody says how many classes there are; it has no memory.
MOST_CLASSES = 2**31 - 1


@overload
def denominator(
    spec: Spec,
    targets: Tensor | Sequence[Tensor],
    sample_weight: Weights = None,
    *,
    num_classes: int | None = None,
    class_weight: Any = None,
    mask: Tensor | Sequence[Tensor] | None = None,
    validate: bool | None = None,
    average: bool = True,
    group: dist.ProcessGroup | None = None,
    async_op: Literal[False] = False,
) -> Tensor: ...


@overload
def denominator(
    spec: Spec,
    targets: Tensor | Sequence[Tensor],
    sample_weight: Weights = None,
    *,
    num_classes: int | None = None,
    class_weight: Any = None,
    mask: Tensor | Sequence[Tensor] | None = None,
    validate: bool | None = None,
    average: bool = True,
    group: dist.ProcessGroup | None = None,
    async_op: Literal[True],
) -> Future[Tensor]: ...


@torch.no_grad()
def denominator(
    spec: Spec,
    targets: Tensor | Sequence[Tensor],
    sample_weight: Weights = None,
    *,
    num_classes: int | None = None,
    class_weight: Any = None,
    mask: Tensor | Sequence[Tensor] | None = None,
    validate: bool | None = None,
    average: bool = True,
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
) -> Tensor | Future[Tensor]:
    """Return what the mean over all micro-batches of all processes divides by, for `loss` as its ``denominator``.

    Where no process group is initialised it is that of this process. There is one all-reduce of one number.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
        Its reduction is a mean.
    targets : Tensor or sequence of Tensor
        Those of this process; a sequence holds one of each micro-batch of a step. For a softmax, integers are class
        indices, and floating point or bool are distributions. A process without rows has a tensor of length 0.
    sample_weight, mask : optional
        As in `loss`, and a sequence where the targets are one; a number weighs all.
    num_classes : int, optional
        The length of the class axis. Needed for index targets where class weights are a mapping; elsewhere, without
        it and without class weights, no index is too large.
    class_weight, validate : optional
        As in `loss`.
    average : bool
        The gradients of the processes are averaged, as ``DistributedDataParallel`` and ``fully_shard`` do: the
        denominator is the mean of theirs, and so is the whole batch's loss. False: gradients are summed.
    group : ProcessGroup, optional
        The processes that share a batch. Default: all.
    async_op : bool
        Return at once: the all-reduce overlaps with what comes before ``wait()``, such as the forward.

    Returns
    -------
    Tensor of float64, 0-d, on the targets' device
        With ``async_op``, a Future of it.

    Raises
    ------
    ValueError
        A reduction that is no mean; whatever `loss` refuses. The other processes then wait in vain.

    Examples
    --------
    >>> import torch
    >>> import classweight as cw
    >>> import classweight.adapters.torch as cwt
    >>> from classweight.adapters.torch import distributed
    >>> spec = cw.SoftmaxCrossEntropy(class_weight=[1, 2, 5], ignore_index=-100)
    >>> logits, targets = torch.eye(3)[[0, 1, 2, 0]], torch.tensor([0, 1, 1, -100])
    >>> steps = list(zip(logits.split(3), targets.split(3)))
    >>> denominator = distributed.denominator(spec, [y for _, y in steps])
    >>> denominator
    tensor(5., dtype=torch.float64)
    >>> sum(cwt.loss(spec, z, y, denominator=denominator) for z, y in steps) == cwt.loss(spec, logits, targets)
    tensor(True)
    """
    if not spec.reduction.startswith("mean"):
        refuse("spec", "have a mean as its reduction", repr(spec.reduction))
    parts = [targets] if isinstance(targets, Tensor) else list(targets)
    if not parts:
        refuse("targets", "be a tensor, or at least one", "none")
    weights, masks = (
        [x] * len(parts) if isinstance(targets, Tensor) or not isinstance(x, Sequence) else list(x)
        for x in (sample_weight, mask)
    )
    for name, found in (("sample_weight", weights), ("mask", masks)):
        if len(found) != len(parts):
            refuse(name, f"be one for each of the {len(parts)} targets", len(found))
    calls = [
        route.make_call(spec, _logits(spec, y, class_weight, num_classes), validate, y, s, class_weight, m)
        for y, s, m in zip(parts, weights, masks, strict=True)
    ]
    total = torch.stack([route.denominator(call) for call in calls]).sum()
    if not (dist.is_available() and dist.is_initialized()):
        return _done(total) if async_op else total
    if average:
        total /= dist.get_world_size(group)
    work = dist.all_reduce(total, group=group, async_op=async_op)
    return work.get_future().then(lambda _: total) if async_op else total


def _done(value: Tensor) -> Future[Tensor]:
    future: Future[Tensor] = Future()
    future.set_result(value)
    return future


def _logits(spec: Spec, targets: Any, class_weight: Any, num_classes: int | None) -> Tensor:
    """Return logits of the shape that the targets are for, without memory."""
    if not isinstance(targets, Tensor):
        refuse("targets", "be a tensor, or a sequence of them", type(targets).__name__, error=TypeError)
    shape = list(targets.shape)
    if isinstance(spec, SoftmaxCrossEntropy) and not (targets.is_floating_point() or targets.dtype is torch.bool):
        axis = spec.axis + len(shape) + 1 if spec.axis < 0 else spec.axis
        shape.insert(axis if shape else 0, _num_classes(spec, targets, class_weight, num_classes))
    return torch.empty((), dtype=torch.float32, device=targets.device).expand(shape)


def _num_classes(spec: SoftmaxCrossEntropy, targets: Tensor, class_weight: Any, num_classes: int | None) -> int:
    if num_classes is not None:
        return num_classes
    if class_weight is not None:
        return int((*xp.asarray(class_weight, targets, "class_weight").shape, 1)[0])
    if spec.has_weight_mapping:
        refuse("num_classes", "be given where class weights are a mapping", num_classes)
    return MOST_CLASSES if spec.class_weight is None else len(spec.class_weight)
