"""PyTorch: the loss on tensors, on any device, under autograd, torch.func and torch.compile; modules; drop-ins.

On an accelerator or in a traced graph values are not looked at, for that would force a synchronisation: a bad row is
NaN there, and ``validate=True`` buys the error.
"""

from __future__ import annotations

from typing import Any

from . import route  # isort: skip  (first: it words the error of a missing torch)

import torch
from torch import Tensor

from ... import errors
from ...conventions import torch as conventions
from ...conventions.differences import differing
from ...errors import calling, refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from .arrays import HALF, kept
from .linear import LinearLoss, linear_loss, linear_loss_parts

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "LinearLoss",
    "Loss",
    "NLLLoss",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "linear_loss",
    "linear_loss_parts",
    "loss",
    "loss_parts",
    "nll_loss",
]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
errors.is_traced = torch.compiler.is_compiling


def loss(
    spec: Spec,
    logits: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    class_weight: Any = None,
    mask: Tensor | None = None,
    denominator: Tensor | float | None = None,
    validate: bool | None = None,
    inplace: bool = False,
) -> Tensor:
    """Return the weighted cross-entropy that ``spec`` describes, differentiable in whatever requires a gradient.

    Parameters are those of `classweight.adapters.numpy.loss`, as tensors on the logits' device. In addition:

    Parameters
    ----------
    class_weight : Tensor, optional
        May require a gradient (softmax), as may ``sample_weight`` and targets that are distributions.
    validate : bool, optional
        Look at the values. Default: on the CPU outside a traced graph.
    inplace : bool, optional
        Write the gradient over the logits, so that the step needs no memory of their size. From this call on they are
        logits no more: compute what else is made of them before. An operation that needs its result for its backward,
        such as a softcap by ``tanh``, must not have made them; autograd then raises a RuntimeError. There is one
        backward, which cannot be differentiated. Where no gradient is asked for, nothing is written.

    Returns
    -------
    Tensor of the logits' dtype and device
        In nats; of the position shape for ``reduction="none"``, else 0-d.

    Raises
    ------
    ValueError
        With ``inplace``: logits that are a leaf, or a view of one, are not contiguous float32 or float64 on the CPU or
        do not hold what is computed in; ``reduction="none"``; whatever the loss needs its composite of operations for.

    Examples
    --------
    >>> import torch
    >>> import classweight as cw
    >>> import classweight.adapters.torch as cwt
    >>> logits = torch.tensor([[1.0, 2], [1, 3], [1, 3]], requires_grad=True)
    >>> cwt.loss(cw.SoftmaxCrossEntropy(class_weight=[1, 2]), logits, torch.tensor([0, 1, 1])).backward()
    >>> logits.grad
    tensor([[-0.1462,  0.1462],
            [ 0.0477, -0.0477],
            [ 0.0477, -0.0477]])
    """
    call = route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask, denominator)
    return route.loss(call, inplace)


def loss_parts(
    spec: Spec,
    logits: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    class_weight: Any = None,
    mask: Tensor | None = None,
    validate: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    Both are differentiable, and the parts of several micro-batches or replicas add up to the whole batch's. Parameters
    are those of `loss`.
    """
    return route.loss_parts(route.make_call(spec, logits, validate, targets, sample_weight, class_weight, mask))


class Loss(torch.nn.Module):
    """A spec as a module: its class weights are buffers, so they follow ``to(device)`` and are in ``state_dict``.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.torch as cwt
    >>> cwt.Loss(cw.SoftmaxCrossEntropy(class_weight=[1, 2], reduction="sum"))
    Loss(SoftmaxCrossEntropy(class_weight=(1.0, 2.0), reduction='sum'))
    """

    class_weight: Tensor | None
    negative_weight: Tensor | None
    positive_weight: Tensor | None

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        pair: Any = (None, None)
        weight = None
        if isinstance(spec, SigmoidCrossEntropy):
            pair = spec.class_weight or pair
        elif not spec.has_weight_mapping:  # the length of a mapping is known at the call only: it stays in the spec
            weight = spec.class_weight
        for name, values in (("class_weight", weight), ("negative_weight", pair[0]), ("positive_weight", pair[1])):
            self.register_buffer(name, None if values is None else torch.tensor(values, dtype=torch.float64))

    def extra_repr(self) -> str:
        """Return the spec's repr."""
        return repr(self.spec)

    def _apply(self, fn: Any, recurse: bool = True) -> Loss:
        """Move the weights where the module goes, but keep them float64: ``half()`` is meant for layers."""
        exact = {name: weight for name, weight in self.named_buffers() if weight is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, weight in exact.items():
            setattr(self, name, weight.to(getattr(self, name).device))
        return self

    def forward(self, logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None, **options: Any) -> Tensor:
        """Return `loss` of the spec; ``options`` are its keyword arguments."""
        weight = self.class_weight if self.negative_weight is None else (self.negative_weight, self.positive_weight)
        options.setdefault("class_weight", weight)
        return loss(self.spec, logits, targets, sample_weight, **options)


_cross_entropy_spec = kept(
    lambda *native, soft_targets: conventions.cross_entropy(None, *native, soft_targets=soft_targets)
)
_nll_loss_spec = kept(lambda *native: conventions.nll_loss(None, *native))
_binary_spec = kept(conventions.binary_cross_entropy_with_logits)


@differing("torch", "cross_entropy")
@calling(logits="input", targets="target", class_weight="weight")
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Drop in for ``torch.nn.functional.cross_entropy``: its arguments, value, gradient, dtype, shape and refusals.

    The differences, each for the better, are those of ``classweight.conventions.DIFFERENCES``.
    """
    _check_tensors(input=input, target=target, weight=weight)
    input, target, weight = _autocast(input, target, weight)
    _check_class_weight(weight)
    soft = target.shape == input.shape
    if soft:
        if not target.is_floating_point():
            refuse("target", "be floating point where it has the input's shape", target.dtype, error=TypeError)
        input = input.to(_promoted(input, target, weight))
    else:
        _check_index_path(input, target, weight)
    spec = _cross_entropy_spec(size_average, ignore_index, reduce, reduction, label_smoothing, soft_targets=soft)
    return loss(spec, input, target, class_weight=weight)


@differing("torch", "nll_loss")
@calling(logits="input", targets="target", class_weight="weight")
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Drop in for ``torch.nn.functional.nll_loss``: its arguments, value, gradient, dtype, shape and refusals."""
    _check_tensors(input=input, target=target, weight=weight)
    input, target, weight = _autocast(input, target, weight)
    _check_class_weight(weight)
    _check_index_path(input, target, weight)
    spec = _nll_loss_spec(size_average, ignore_index, reduce, reduction)
    return loss(spec, input, target, class_weight=weight)


@differing("torch", "binary_cross_entropy_with_logits")
@calling(logits="input", targets="target", class_weight="pos_weight", sample_weight="weight")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Drop in for ``torch.nn.functional.binary_cross_entropy_with_logits``, whose result has the target's dtype."""
    _check_tensors(input=input, target=target, weight=weight, pos_weight=pos_weight)
    input, target, weight, pos_weight = _autocast(input, target, weight, pos_weight)
    if target.shape != input.shape:
        refuse("target", f"have the input's shape {tuple(input.shape)}", tuple(target.shape))
    if not target.is_floating_point():
        refuse("target", "be floating point", target.dtype, error=TypeError)
    for name, each in (("weight", weight), ("pos_weight", pos_weight)):
        _check_constant(name, each)
        if each is not None and not _broadcasts(each, input):
            refuse(name, f"broadcast against the input's shape {tuple(input.shape)}", tuple(each.shape))
    spec = _binary_spec(size_average, reduce, reduction)
    value = loss(
        spec,
        input.to(_promoted(input, target)),
        target,
        None if weight is None else weight.expand_as(input),
        class_weight=None if pos_weight is None else (1.0, pos_weight),
    )
    return value.to(target.dtype)


@differing("torch", "cross_entropy")
class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """Drop in for ``torch.nn.CrossEntropyLoss``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return `cross_entropy` with the module's arguments."""
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


@differing("torch", "nll_loss")
class NLLLoss(torch.nn.NLLLoss):
    """Drop in for ``torch.nn.NLLLoss``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return `nll_loss` with the module's arguments."""
        return nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


@differing("torch", "binary_cross_entropy_with_logits")
class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """Drop in for ``torch.nn.BCEWithLogitsLoss``."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return `binary_cross_entropy_with_logits` with the module's arguments."""
        return binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


def _check_tensors(input: Tensor, **others: Tensor | None) -> None:
    for name, x in {"input": input, **others}.items():
        if not isinstance(x, Tensor) and not (x is None and "weight" in name):
            refuse(name, "be a tensor", type(x).__name__, error=TypeError)
    if not input.is_floating_point():
        refuse("input", "be floating point", input.dtype, error=TypeError)


def _autocast(input: Tensor, *others: Tensor | None) -> tuple[Any, ...]:
    """Return the arguments as autocast hands them to these losses, which are on its float32 list."""
    if not torch.is_autocast_enabled(input.device.type):
        return (input, *others)

    def cast(x: Tensor | None) -> Tensor | None:
        return x if x is None or x.dtype not in HALF else x.float()

    return tuple(map(cast, (input, *others)))


def _promoted(*tensors: Tensor | None) -> torch.dtype:
    dtype = torch.bool
    for x in tensors:
        if x is not None:
            dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def _check_class_weight(weight: Tensor | None) -> None:
    if weight is not None and weight.ndim != 1:
        refuse("weight", "be 1-d, one per class", f"shape {tuple(weight.shape)}")


def _check_index_path(input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Refuse what PyTorch refuses with class indices."""
    if target.ndim >= input.ndim:
        refuse("target", f"have the input's shape {tuple(input.shape)} without its classes", tuple(target.shape))
    if target.dtype not in (torch.int64, torch.uint8):
        refuse("target", "be int64 or uint8 class indices", target.dtype, error=TypeError)
    if weight is not None and weight.dtype is not input.dtype:
        refuse("weight", f"have the input's dtype {input.dtype}", weight.dtype, error=TypeError)
    _check_constant("weight", weight)


def _check_constant(name: str, weight: Tensor | None) -> None:
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        refuse(name, "not require a gradient", "one that does; `loss` takes it as `class_weight` or `sample_weight`")


def _broadcasts(x: Tensor, to: Tensor) -> bool:
    return x.ndim <= to.ndim and all(n in (1, m) for n, m in zip(x.shape[::-1], to.shape[::-1], strict=False))
