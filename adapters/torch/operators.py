"""The kernels as PyTorch's operators, for graphs that `torch.compile` traces; eager calls do not go through them.

A graph holds them as it holds a matrix product: with the shapes that they return, and a backward. A reduced loss of
float32 or float64 in native precision returns its gradient for an upstream gradient of 1, which the graph then scales
where it lies; any other is computed a second time by the backward. What the kernels do not compute - gradients of
weights or soft targets, transforms of `torch.func`, probabilities - stays a composite of operations in the graph, and
so does everything in a graph that `torch.export` makes, for it must run where this package is not installed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as trees

from ...compute import cpu as kernels
from ...lowering import inside_of
from ...spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from . import cpu
from .arrays import composite_gradient, is_once, prepared, xp
from .cpu import Arguments

# Older versions cannot hand an object, and a guard on it, to a function that is run while a graph is traced.
IS_SUPPORTED = torch.torch_version.TorchVersion(torch.__version__) >= "2.13"
GIVEN = (
    "Tensor targets, Tensor? sample_weight, Tensor? class_weight, Tensor? positive_weight, "
    "Tensor? mask, Tensor? denominator, str spec, bool validate"
)
# By their fingerprints, the specs that are in graphs.
_SPECS: dict[str, Any] = {}
_FIELDS = {kind: [field.name for field in fields(kind)] for kind in (SoftmaxCrossEntropy, SigmoidCrossEntropy)}


@lru_cache(maxsize=1)
def gpu() -> Any:
    """Return the module of a GPU's kernels, where there is a Triton to compile them."""
    if importlib.util.find_spec("triton") is None:
        return None
    from . import gpu

    return gpu


def loss(given: Arguments, dtype: torch.dtype | None) -> Tensor | None:
    """Return the loss as an operator of the graph that is traced, None where it must be composed of operations."""
    operands, z = operands_of(given), given.logits
    if operands is None:
        return None
    wanted = torch.is_grad_enabled() and z.requires_grad
    value: Tensor = torch.ops.classweight.loss(z, *operands, dtype or z.dtype, wanted)
    return value


def operands_of(given: Arguments) -> list[Any] | None:
    """Return what an operator is given beside the logits, None where the loss must be composed of operations."""
    if torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return None
    if not (cpu.are_plain(given) and _has_kernels(str(given.logits.device))):
        return None
    z, spec, targets = given.logits, given.spec, given.targets
    key = _key(spec) or _key_of_fields(type(spec).__name__, *[getattr(spec, name) for name in _FIELDS[type(spec)]])
    w = given.class_weight
    if isinstance(spec, SoftmaxCrossEntropy) or w is None:
        w = (w, None)
    elif not isinstance(w, tuple | list) or len(w) != 2:  # it is refused there
        return None
    others: list[Any] = []
    for x in (given.sample_weight, *w, given.mask, given.denominator):
        if isinstance(x, int | float) and not isinstance(x, bool):
            x = xp.asarray(x, z, "")
        if not (x is None or isinstance(x, Tensor)):
            return None
        others.append(x)
    return [targets, *others, key, given.validate is True]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_kernels(device: str) -> bool:
    if device == "cpu":
        return kernels.kernels() is not None
    found = gpu() if device.startswith("cuda") else None
    return found is not None and found.is_usable(torch.empty(1, device=device))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _key(spec: Any) -> str:
    """Return the name of a spec, to which a graph is then bound; none if it is itself made while tracing."""
    return _named(spec) if "precision" in vars(spec) else ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _key_of_fields(kind: str, *values: Any) -> str:
    kinds = {cls.__name__: cls for cls in _FIELDS}
    return _named(kinds[kind](**dict(zip(_FIELDS[kinds[kind]], values, strict=True))))


def _named(spec: Any) -> str:
    key: str = spec.fingerprint()
    _SPECS.setdefault(key, spec)
    return key


def given_to(
    logits: Any,
    targets: Tensor,
    sample_weight: Tensor | None,
    class_weight: Tensor | None,
    positive_weight: Tensor | None,
    mask: Tensor | None,
    denominator: Tensor | None,
    spec: str,
    validate: bool,
) -> Arguments:
    """Return the arguments that an operator was given."""
    weights: Any = class_weight if positive_weight is None else (class_weight, positive_weight)
    return Arguments(_SPECS[spec], logits, validate, targets, sample_weight, weights, mask, denominator)


def _keeps_gradient(z: Tensor, spec: str) -> bool:
    """Whether the forward makes the gradient: where that is to be rounded before what is upstream is known anyway."""
    found = _SPECS[spec]
    return z.is_cpu and found.reduction != "none" and z.dtype is inside_of(xp, found, z.dtype)


def _evaluate(z: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    *others, dtype, wanted = arguments
    kept = [cpu.memory_like(z)] if wanted and _keeps_gradient(z, others[-2]) else []
    return cpu.evaluate(z, given_to(None, *others), dtype, kept[0] if kept else None), kept


def _shapes(z: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    *others, dtype, wanted = arguments
    call = prepared(*given_to(z, *others)._replace(validate=False))
    value = z.new_empty(call.loss_shape(xp) if call.spec.reduction == "none" else (), dtype=dtype)
    if not wanted:
        return value, []
    if z.is_cuda:
        return value, gpu().statistics_like(call)
    return value, [torch.empty_like(z)] if _keeps_gradient(z, others[-2]) else []


def _gradient(upstream: Tensor, kept: list[Tensor], z: Tensor, *arguments: Any) -> Tensor:
    gradient = cpu.memory_like(z)
    cpu.evaluate(z, given_to(None, *arguments), upstream.dtype, gradient, upstream)
    return gradient


def _evaluate_on_device(z: Tensor, *arguments: Any) -> tuple[Tensor, list[Tensor]]:
    *others, dtype, wanted = arguments
    value, _, statistics = gpu().evaluate(prepared(*given_to(z, *others)), dtype)
    return value, list(statistics) if wanted else []


def _gradient_on_device(upstream: Tensor, kept: list[Tensor], *arguments: Any) -> Tensor:
    call = prepared(*given_to(*arguments)._replace(validate=False))
    return gpu().gradient(call, tuple(kept), upstream)  # type: ignore[no-any-return]


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        value: Tensor
        value, kept = torch.ops.classweight.evaluate(*inputs)
        ctx.save_for_backward(*inputs[:7], *kept)
        ctx.others, ctx.count = inputs[7:9], len(inputs)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        arguments, kept = [*ctx.saved_tensors[:7], *ctx.others], list(ctx.saved_tensors[7:])
        z, key = arguments[0], ctx.others[0]
        if not is_once(upstream):
            gradient = composite_gradient(prepared(*given_to(*arguments)._replace(validate=False)), upstream)
        elif _keeps_gradient(z, key):
            gradient = torch.where(kept[0] == 0, 0.0, kept[0] * upstream).to(z.dtype)
        else:
            gradient = torch.ops.classweight.gradient(upstream, kept, *arguments)
        return gradient, *[None] * (ctx.count - 1)


def _differentiable(*inputs: Any) -> Tensor:
    """Return the loss by the operators that a graph is left with: what has no autograd of its own is called faster."""
    return _Differentiable.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]


def _one_by_one(operator: Any) -> Any:
    """Return the rule of `torch.func.vmap`: one call after the other."""

    def rule(info: Any, in_dims: Any, *arguments: Any) -> Any:
        flat, spec = trees.tree_flatten(arguments)
        dims = trees.tree_leaves(in_dims, is_leaf=lambda x: x is None)

        def of(i: int) -> Any:
            given = [x if d is None else x.select(d, i) for x, d in zip(flat, dims, strict=True)]
            return operator(*trees.tree_unflatten(given, spec))

        each = [of(i) for i in range(info.batch_size)]
        together = trees.tree_map(lambda *x: torch.stack(x), *each)
        return together, trees.tree_map(lambda _: 0, together)

    return rule


def _define() -> Any:
    make: Any = torch.library.Library  # whose methods have no types
    library, operators = make("classweight", "DEF"), torch.ops.classweight
    tag = torch.Tag.pt2_compliant_tag
    library.define(f"loss(Tensor logits, {GIVEN}, ScalarType dtype, bool wanted) -> Tensor", tags=tag)
    library.define(f"evaluate(Tensor logits, {GIVEN}, ScalarType dtype, bool wanted) -> (Tensor, Tensor[])", tags=tag)
    library.define(f"gradient(Tensor upstream, Tensor[] kept, Tensor logits, {GIVEN}) -> Tensor", tags=tag)
    library.impl("loss", _differentiable, "CompositeImplicitAutograd")
    for device, evaluate, gradient in (
        ("CPU", _evaluate, _gradient),
        ("CUDA", _evaluate_on_device, _gradient_on_device),
    ):
        library.impl("evaluate", evaluate, device)
        library.impl("gradient", gradient, device)
    torch.library.register_fake("classweight::evaluate", _shapes, lib=library)
    torch.library.register_fake("classweight::gradient", lambda u, k, z, *_: torch.empty_like(z), lib=library)
    for name in ("loss", "evaluate", "gradient"):
        torch.library.register_vmap(f"classweight::{name}", _one_by_one(getattr(operators, name)), lib=library)
    return library


_LIBRARY = _define() if IS_SUPPORTED else None
