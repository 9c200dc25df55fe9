"""The loss of a linear layer's output, a vocabulary's say, without the logits in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import calling, refuse
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from . import chunk_operators, chunks, dtensors, operators, route, shards
from .arrays import check_dense
from .chunks import Layer
from .cpu import Arguments

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy


@calling(logits="hidden")
def linear_loss(
    spec: Spec,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    bias: Tensor | None = None,
    class_weight: Any = None,
    mask: Tensor | None = None,
    denominator: Tensor | float | None = None,
    validate: bool | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return ``loss(spec, F.linear(hidden, weight, bias), targets, ...)`` without the logits in memory.

    Logits are made for a chunk of rows at a time, 64 MiB of them (128 of half types) or 256 rows if that is more, and
    become their gradient where they lie. Rows that are ignored, masked or weigh nothing are left out before, so they
    cost nothing, and what they hold reaches no gradient, NaN included. Over the chunks gradients of a weight in a half
    type are added up in float32.

    A step holds, beside the arguments and their gradients, one chunk and those sums in float32. Logits in bfloat16 that
    take no more than the two are one chunk. float16 is multiplied in float32 on the CPU, some classes at a time. The
    gradients are made in the forward and kept for the backward; there an upstream gradient that is no power of 2 rounds
    those of half types once more. A loss for each position, exact precision with an upstream gradient other than 1, and
    a second backward compute the logits once more. Gradients of weights and soft targets, double backward,
    transforms of `torch.func`, forward mode, tensor subclasses, `torch.export` and other devices go by way of all
    logits.

    On a GPU, where there is Triton, the forward synchronises to learn which rows are left out, once, and for half types
    once more; the backward does not, and exact precision computes the logits once more there. Graphs of CUDA that are
    captured, and those of `torch.compile` on a GPU, go by way of all logits.

    A layer may be shared out over the processes of a ``group``, as tensor parallelism does: each rank has the weights
    of some classes, and a few arrays of the size of a chunk of their logits. The loss and the gradient of ``hidden``
    are then those of all classes, the same on every rank; do not add the latter up again. All ranks must make the call,
    and its backward: a few numbers a row are exchanged, and the gradient of ``hidden``. What one rank refuses of the
    layer, all do.

    Parameters
    ----------
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
        With ``inputs="logits"``. The classes are last, whatever its ``axis``.
    hidden : Tensor of shape (..., D)
        float16, bfloat16, float32 or float64.
    weight, bias : Tensor of shape (C, D), Tensor of shape (C,), optional
        Of `torch.nn.Linear`. Of the dtype of ``hidden``, and on its device. Under autocast all three are computed with
        in its type.
    targets : Tensor of shape (...) or (..., C)
        Class indices, or distributions; for a binary loss of shape (..., C).
    sample_weight, class_weight, mask, denominator, validate
        As in `loss`.
    group : ProcessGroup, optional
        Whose ranks have ``weight[first:last]``, and that part of ``bias``: contiguous shares of any sizes, in the order
        of the ranks. All else is whole and the same on every rank: targets are numbers among all classes, and class
        weights and distributions have one entry for each of them. A ``weight`` that is a DTensor sharded over its
        classes, on a mesh of one dimension, has a group of its own; the loss is a DTensor if ``hidden`` is one.

    Returns
    -------
    Tensor of the logits' dtype and device
        In nats; for ``reduction="none"`` of the position shape, else 0-d.

    Raises
    ------
    ValueError, TypeError
        As `loss`; and for layers whose shapes, types or devices do not fit, on this rank or on another, and a spec of
        probabilities.

    Examples
    --------
    >>> import torch
    >>> import classweight as cw
    >>> import classweight.adapters.torch as cwt
    >>> hidden = torch.tensor([[1.0, 2], [0, 1], [2, 0]], requires_grad=True)
    >>> weight = torch.tensor([[1.0, 0], [0, 1], [1, 1]], requires_grad=True)
    >>> spec = cw.SoftmaxCrossEntropy(ignore_index=-100)
    >>> cwt.linear_loss(spec, hidden, weight, torch.tensor([2, 1, -100])).backward()
    >>> hidden.grad
    tensor([[-0.1224, -0.0450],
            [ 0.2888, -0.0777],
            [ 0.0000,  0.0000]])
    """
    given = targets, sample_weight, class_weight, mask, denominator
    layer, arguments, like = _given(spec, hidden, weight, bias, group, validate, *given)
    return like(_loss(layer, arguments, layer.dtype))


@calling(logits="hidden")
def linear_loss_parts(
    spec: Spec,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    sample_weight: Tensor | float | None = None,
    *,
    bias: Tensor | None = None,
    class_weight: Any = None,
    mask: Tensor | None = None,
    validate: bool | None = None,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the sum over positions and the denominator of the mean (1 if ``spec`` has none), in float64.

    As `loss_parts`, of the logits that `linear_loss` does not make. Parameters are those of `linear_loss`.
    """
    given = targets, sample_weight, class_weight, mask
    layer, arguments, like = _given(spec, hidden, weight, bias, group, validate, *given)
    denominator = route.denominator(arguments)  # which looks at targets and weights
    arguments = arguments._replace(spec=route.summed_spec(arguments.spec), validate=False)
    return like(_loss(layer, arguments, torch.float64)), like(denominator)


class LinearLoss(torch.nn.Linear):
    """A linear layer with the loss of its output: `torch.nn.Linear` whose call returns `linear_loss`.

    Its parameters are those of a `torch.nn.Linear`, as is its ``state_dict``; ``weight`` may be an embedding's.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.torch as cwt
    >>> cwt.LinearLoss(cw.SoftmaxCrossEntropy(ignore_index=-100), 64, 1000, bias=False)
    LinearLoss(SoftmaxCrossEntropy(ignore_index=-100), in_features=64, out_features=1000, bias=False)
    """

    def __init__(
        self, spec: Spec, in_features: int, num_classes: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(in_features, num_classes, bias, device, dtype)
        self.spec = spec

    def extra_repr(self) -> str:
        """Return the spec's repr and the layer's."""
        return f"{self.spec!r}, {super().extra_repr()}"

    def forward(  # type: ignore[override]
        self, hidden: Tensor, targets: Tensor, sample_weight: Tensor | float | None = None, **options: Any
    ) -> Tensor:
        """Return `linear_loss` of the layer; ``options`` are its keyword arguments."""
        return linear_loss(self.spec, hidden, self.weight, targets, sample_weight, bias=self.bias, **options)


def _loss(layer: Layer, given: Arguments, dtype: torch.dtype) -> Tensor:
    if layer.share is not None:
        return _shared_loss(layer, given, dtype)  # type: ignore[no-any-return]
    found = None
    if operators.IS_SUPPORTED and torch.compiler.is_dynamo_compiling():
        found = chunk_operators.loss(layer, given, dtype)
    return chunks.loss(layer, given, dtype) if found is None else found


_shared_loss: Any = torch.compiler.disable(chunks.loss)  # type: ignore[no-untyped-call]


def _given(
    spec: Spec,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    group: ProcessGroup | None,
    validate: bool | None,
    *others: Any,
) -> tuple[Layer, Arguments, Callable[[Tensor], Tensor]]:
    """Return the layer that fits together, the loss's arguments, and what makes a loss of the kind of ``hidden``."""
    if not isinstance(spec, SoftmaxCrossEntropy | SigmoidCrossEntropy):
        expected = "be a SoftmaxCrossEntropy or a SigmoidCrossEntropy"
        refuse("spec", expected, type(spec).__name__, error=TypeError)
    if spec.inputs != "logits":
        refuse("inputs", "be 'logits' of a linear layer", repr(spec.inputs))
    like, share = dtensors.like(None), None
    if dtensors.is_sharded(weight, 0):
        if group is not None:
            refuse("group", "be None where `weight` is a DTensor, which has one", "a process group")
        like = dtensors.like(hidden)
        group, hidden, weight, bias, *others = dtensors.local(hidden, weight, bias, *others)  # type: ignore[assignment]
    if group is not None:
        share = shards.share_of(group, getattr(hidden, "device", None), partial(_described, hidden, weight, bias))
    dtype = _checked(hidden, weight, bias, has_share=share is not None)
    layer = Layer(hidden, weight, bias, dtype, share)
    return layer, Arguments(chunks.of_last_axis(spec), layer.logits_like(), validate, *others), like


def _described(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, str]:
    """Return how many classes a layer that fits together has, and what of ``hidden`` must be the same on all ranks."""
    dtype = _checked(hidden, weight, bias, has_share=True)
    return weight.shape[0], f"{dtype} of shape {tuple(hidden.shape)}"


def _checked(hidden: Tensor, weight: Tensor, bias: Tensor | None, has_share: bool = False) -> torch.dtype:
    """Return the type that a layer that fits together computes in."""
    for name, x, ndim in (("hidden", hidden, None), ("weight", weight, 2), ("bias", bias, 1)):
        if x is None and name == "bias":
            continue
        if not isinstance(x, Tensor):
            refuse(name, "be a tensor", type(x).__name__, error=TypeError)
        check_dense(name, x)
        if not x.is_floating_point():
            refuse(name, "be floating point", str(x.dtype).rpartition(".")[2], error=TypeError)
        if x.ndim != ndim if ndim else not x.ndim:
            refuse(name, f"have {ndim} axes" if ndim else "have an axis of features", f"shape {tuple(x.shape)}")
    (classes, features), device = weight.shape, hidden.device
    if hidden.shape[-1] != features:
        refuse("hidden", f"have a last axis of length {features}, as `weight` has", f"shape {tuple(hidden.shape)}")
    if not classes and not has_share:
        refuse("weight", "have at least one class", f"shape {tuple(weight.shape)}")
    if bias is not None and bias.shape != (classes,):
        refuse("bias", f"have shape ({classes},), one per class", tuple(bias.shape))
    autocast = torch.is_autocast_enabled(device.type) and hidden.dtype is not torch.float64
    dtype = torch.get_autocast_dtype(device.type) if autocast else hidden.dtype
    for name, x in (("weight", weight), ("bias", bias)):
        if x is not None and x.device != device:
            refuse(name, f"be on the device of `hidden`, {device}", x.device)
        if x is not None and x.dtype is not hidden.dtype and not (autocast and x.dtype is not torch.float64):
            refuse(name, f"have the dtype of `hidden`, {hidden.dtype}", x.dtype, error=TypeError)
    return dtype
