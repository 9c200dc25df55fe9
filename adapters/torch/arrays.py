"""PyTorch's array functions, and the loss that is composed of them, as often differentiable as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from ...errors import missing_framework, refuse

try:
    import torch
except ImportError as cause:
    missing_framework("torch", "torch", cause)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...call import Call, prepare
from ...compute import composite
from ...compute.arrays import Arrays, Kind, class_shape, wide_weights
from ...lowering import inside_of, lower, reduce

HALF = (torch.float16, torch.bfloat16)
# A subclass may be anything: a distributed tensor, a fake one.
TENSORS = (Tensor, torch.nn.Parameter)
NOT_INPLACE = "be False for a second backward, one of many gradients at once, or one that is differentiated"


class TorchArrays:
    """The array functions of `classweight._arrays.Arrays` on tensors."""

    wide, float32, int64, flushes = torch.float64, torch.float32, torch.int64, False
    exp, expm1, log, log1p = torch.exp, torch.expm1, torch.log, torch.log1p
    equal, where = torch.eq, torch.where
    reshape, expand_dims = torch.reshape, torch.unsqueeze

    def kind(self, x: Tensor) -> Kind:
        if x.dtype.is_floating_point:
            return "f"
        return "b" if x.dtype is torch.bool else "other" if x.dtype.is_complex else "i"

    def asarray(self, x: Any, like: Tensor, name: str) -> Tensor:
        if not isinstance(x, Tensor):
            try:
                if isinstance(x, int | float):  # Dynamo follows no dtype of NumPy's, and a copy would synchronise
                    x = torch.full((), x, dtype=torch.float64 if isinstance(x, float) else None, device=like.device)
                else:
                    x = torch.tensor(np.array(x, np.asarray(x).dtype.newbyteorder("="), order="C"), device=like.device)
            except (TypeError, ValueError, RuntimeError, OverflowError):
                refuse(name, "be a tensor or numbers in a regular shape", type(x).__name__, error=TypeError)
        check_dense(name, x)
        if x.device == like.device:
            return _beside(x, like)
        if x.ndim:
            refuse(name, f"be on the logits' device {like.device}", x.device)
        return x.to(like.device, non_blocking=True)  # type: ignore[no-any-return]

    def to_numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        whole = x.full_tensor() if hasattr(x, "full_tensor") else x  # of a distributed one
        return (whole.float() if whole.dtype is torch.bfloat16 else whole).numpy(force=True)

    def shape(self, x: Tensor) -> tuple[Any, ...]:
        return tuple(x.shape)

    static_shape = shape

    def astype(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    def weights(self, spec: Any, num_classes: int, like: Tensor) -> Any:
        weights = _weights(spec, num_classes, like.device)
        return tuple(_beside(w, like) for w in weights) if isinstance(weights, tuple) else _beside(weights, like)

    def broadcast_to(self, x: Tensor, like: Tensor) -> Tensor:
        return x.expand_as(like)

    def ones(self, shape: tuple[Any, ...], like: Tensor) -> Tensor:
        return _beside(torch.ones(shape, dtype=self.wide, device=like.device), like)

    def sum(self, x: Tensor, axis: int | None = None) -> Tensor:
        # The order in which a row is added up, and with it the last bits, would be that of its memory.
        return x.sum() if axis is None else x.contiguous().sum(axis, keepdim=True)

    def any(self, x: Tensor, axis: int) -> Tensor:
        return x.any(axis, keepdim=True)

    def argmax(self, x: Tensor, axis: int) -> Tensor:
        return x.argmax(axis, keepdim=True)

    def positions(self, n: int, axis: int, like: Tensor) -> Tensor:
        return _beside(torch.arange(n, device=like.device).reshape(class_shape(n, axis, like.ndim)), like)

    def take(self, values: Tensor, index: Tensor) -> Tensor:
        return values[index]

    def pick(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        return x.gather(axis, index)

    def detach(self, x: Tensor) -> Tensor:
        return x.detach()

    def eps(self, x: Tensor) -> float:
        return torch.finfo(x.dtype).eps


def is_dense(x: Tensor) -> bool:
    """Whether a tensor has strides."""
    return x.layout is torch.strided and not x.is_nested


def check_dense(name: str, x: Tensor) -> None:
    """Refuse a tensor without strides."""
    if not is_dense(x):
        got = "a nested tensor" if x.is_nested else x.layout
        refuse(name, "be a dense tensor", got, error=TypeError)


def _beside(x: Tensor, like: Tensor) -> Tensor:
    """Return a tensor as one that operations take beside ``like``: a distributed tensor takes no plain one."""
    mesh = None if type(like) in TENSORS or type(x) not in TENSORS else getattr(like, "device_mesh", None)
    if mesh is None:
        return x
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)


xp: Arrays = TorchArrays()  # type: ignore[assignment]  # torch's functions name their arguments otherwise


def kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache what depends on the spec alone; not in a traced graph, for Dynamo warns of caches and looks through."""
    cached = lru_cache(maxsize=64, typed=True)(function)

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        # A tensor made in inference mode, or a fake one, must not be kept for others.
        passing = is_traced() or torch.is_inference_mode_enabled()
        try:
            return (function if passing else cached)(*arguments, **options)
        except TypeError:  # a list among native arguments cannot be hashed, and is refused in words
            return function(*arguments, **options)

    return call


@kept
def _weights(spec: Any, num_classes: int, device: torch.device) -> Any:
    return wide_weights(spec, num_classes, lambda values: torch.tensor(values, dtype=torch.float64, device=device))


def is_traced() -> bool:
    """Whether operations are being recorded, batched or faked, so that values cannot be looked at."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def mode_of(tensors: Iterable[Any]) -> Any:
    """Return what fake tensors are to be computed in: beside a number they are not taken outside of their mode."""
    return next((x.fake_mode for x in tensors if isinstance(x, FakeTensor)), nullcontext())


def prepared(spec: Any, logits: Any, validate: bool | None, targets: Any, *others: Any) -> Call:
    """Return the checked call; values are looked at where that costs no synchronisation."""
    if not isinstance(logits, Tensor):
        refuse("logits", "be a tensor", type(logits).__name__, error=TypeError)
    check_dense("logits", logits)
    if validate is None:
        validate = logits.device.type == "cpu" and not is_traced() and _is_plain((logits, targets, *others))
    return prepare(xp, spec, logits, targets, *others, check_values=validate)


def _is_plain(x: Any) -> bool:
    return all(map(_is_plain, x)) if isinstance(x, tuple | list) else not isinstance(x, Tensor) or type(x) in TENSORS


def composite_loss(call: Call, dtype: torch.dtype) -> Tensor:
    """Return the loss as operations that can be differentiated any number of times, batched and compiled."""
    z, inside = call.logits, inside_of(xp, call.spec, call.logits.dtype)
    c = lower(xp, call, inside)
    rows = composite.rows(xp, call.spec, _cast(z, inside), c, xp.eps(z), inside)
    return _cast(_added_up(reduce(xp, call, rows, c.denominator)), dtype)


def _added_up(x: Tensor) -> Tensor:
    """Return what each rank has a summand of, if it is that, as the sum, which is rounded once."""
    placements: Any = getattr(x, "placements", ())
    if not any(each.is_partial() for each in placements):
        return x
    from torch.distributed.tensor import Replicate  # which is slow to import

    whole = [Replicate() if each.is_partial() else each for each in placements]
    return x.redistribute(placements=whole)  # type: ignore[attr-defined, no-any-return]


def is_once(upstream: Tensor) -> bool:
    """Whether a backward is the last: not differentiated itself, nor of many gradients at once."""
    batched = torch._C._functorch.is_batchedtensor(upstream) or torch._C._functorch.is_legacy_batchedtensor(upstream)
    return not (torch.is_grad_enabled() or batched)


def composite_gradient(call: Call, upstream: Tensor) -> Tensor:
    """Return the gradient of a backward that is differentiated itself, or of many at once."""
    z = call.logits
    if torch.is_grad_enabled():  # create_graph=True
        return torch.autograd.grad(composite_loss(call, upstream.dtype), z, upstream, create_graph=True)[0]

    def composite_of(z: Tensor) -> Tensor:
        return composite_loss(dataclasses.replace(call, logits=z), upstream.dtype)

    return torch.func.vjp(composite_of, z.detach())[1](upstream)[0]  # type: ignore[no-any-return]


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
