"""PyTorch on a GPU, through Triton, which its CUDA builds bring: a pass for the losses and one for the gradient.

The logits are read twice and the gradient is written once. Class weights, smoothing and ignored rows cost no pass of
their own, nothing of the logits' size is made beside the gradient, and nothing synchronises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...lowering import SigmoidCoefficients, SoftmaxCoefficients
from . import triton_kernels as kernels

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BINARY_BLOCK = 1024
Statistics = tuple[Tensor, ...]


def is_usable(z: Tensor) -> bool:
    """Return whether the kernels take logits like ``z``: on a GPU of compute capability 8 or newer."""
    return z.is_cuda and z.dtype in TYPES and _capability(z.device) >= (8, 0) and max(z.shape, default=0) < 1 << 30


@lru_cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def losses(z: Tensor, c: Any, inside: torch.dtype, each: bool) -> tuple[Tensor, Statistics]:
    """Return the weighted row losses, and the statistics from which `gradient` makes the gradient.

    Parameters
    ----------
    z : Tensor
        Logits of any strides.
    c : SoftmaxCoefficients or SigmoidCoefficients
        On the logits' device.
    inside : torch.dtype
        What is computed in: float32 or float64.
    each : bool
        Whether each row's loss is asked for, in the logits' shape with length 1 on the class axis (binary: in the
        logits' shape); else they come as partial sums, 1-d and float64, that depend on no order of execution.
    """
    if not z.numel():
        shape = z.shape if isinstance(c, SigmoidCoefficients) else _row_shape(z, c.axis)
        return z.new_zeros(shape if each else (0,), dtype=torch.float64), ()
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        return (_binary_losses if isinstance(c, SigmoidCoefficients) else _softmax_losses)(z, c, inside, each)


def gradient(
    z: Tensor, c: Any, inside: torch.dtype, statistics: Statistics, factor: Tensor, out: Tensor | None = None
) -> Tensor:
    """Return the gradient times ``factor`` in the logits' type, each entry rounded once.

    Parameters
    ----------
    statistics : tuple of Tensor
        What `losses` returned beside the losses.
    factor : Tensor
        float64, 0-d or broadcastable against the logits, one a row (binary: or an element). Its 0 wins over any slope.
    out : Tensor, optional
        Where to write, of the logits' shape and type; may be the logits.
    """
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        out = torch.empty_like(z) if out is None else out
        if z.numel():
            write = _binary_gradient if isinstance(c, SigmoidCoefficients) else _softmax_gradient
            write(z, c, inside, statistics, factor, out)
        return out


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the programs of a launch share the rows of tensors of one shape."""

    tensors: tuple[Tensor | None, ...]
    sizes: tuple[int, ...]
    programs: int
    flags: dict[str, Any]

    def run(self, kernel: Any, *arguments: Any, **flags: Any) -> None:
        kernel[(self.programs,)](*self.tensors, *arguments, *self.sizes, **self.flags, **flags)


def _plan(axis: int, inside: torch.dtype, work: int, *tensors: Tensor | None) -> _Plan:
    """Return the plan for tensors of the logits' shape, the first of which are the logits, and None.

    The positions must lie along two strides at most; tensors whose do not are copied. ``work`` says how many numbers an
    element needs, in pairs: registers are what limits how much is under way.
    """
    given = [x for x in tensors if x is not None]
    groups = _position_groups(axis, given)
    if len(groups) > 2:
        return _plan(axis, inside, work, *(None if x is None else x.contiguous() for x in tensors))
    alone = (1, (0,) * len(given))
    (outer, so), (inner, si) = (alone, alone, *groups)[-2:]
    classes = given[0].shape[axis] if given[0].ndim else 1
    sc = tuple(x.stride(axis) if classes > 1 else 1 for x in given)
    unit = 1 if set(sc) == {1} else 2 if set(si) == {1} else 0

    # Sixteen bytes are what one instruction may move.
    size = given[0].itemsize
    most = 16 // size
    vector = math.gcd(most, *so, *((classes, *si) if unit == 1 else (inner, *sc))) if unit else 1
    work *= inside.itemsize // 4
    lanes, columns = 4096 // work, triton.next_power_of_2(classes)
    if unit == 1 or (unit == 0 and sc[0] <= si[0]):
        columns = min(columns, lanes)
        rows = 1 if columns >= 512 else min(lanes // 2 // columns, triton.next_power_of_2(inner))
    else:
        rows = min(triton.next_power_of_2(inner), 256)
        columns = min(columns, lanes // 2 // rows)
    shift = most if unit == 1 and rows == 1 and vector < most and classes > 2 * columns else 0
    aligned = all(len({stride % most for stride in strides}) == 1 for strides in (so, si))
    flags = {
        "REAL": tl.float64 if inside is torch.float64 else tl.float32,
        "HALF": size == 2 and inside is torch.float32,
        "ROWS": rows,
        "COLS": columns,
        "UNIT": unit,
        "V": vector,
        "SHIFT": shift,
        "OTHERS_SHIFT": shift if shift and aligned else 1,
        "num_warps": min(8, max(1, rows * columns // min(512 // work, 256 if unit == 1 and rows > 1 else 512))),
    }
    strides = iter(zip(so, sc, si, strict=True))
    each = [step for x in tensors for step in ((0, 0, 0) if x is None else next(strides))]
    return _Plan(tensors, (classes, inner, *each), outer * math.ceil(inner / rows), flags)


def _position_groups(axis: int, tensors: list[Tensor]) -> list[tuple[int, tuple[int, ...]]]:
    """Return lengths and strides of the axes of positions, those taken as one that are one in every tensor."""
    groups: list[tuple[int, tuple[int, ...]]] = []
    for i, n in enumerate(tensors[0].shape):
        if i == axis or n == 1:
            continue
        strides = tuple(x.stride(i) for x in tensors)
        if groups and groups[-1][1] == tuple(n * stride for stride in strides):
            groups[-1] = groups[-1][0] * n, strides
        else:
            groups.append((n, strides))
    return groups


def _softmax_losses(z: Tensor, c: SoftmaxCoefficients, inside: torch.dtype, each: bool) -> tuple[Tensor, Statistics]:
    shape = _row_shape(z, c.axis)
    count, hard = math.prod(shape), _is_hard(c)
    plan = _plan(c.axis, inside, 1, z) if hard else _plan(c.axis, inside, 2, z, c.targets)
    found = z.new_empty(count if each else plan.programs, dtype=torch.float64)
    statistics = [z.new_empty(count, dtype=inside) for _ in range(3 if hard else 4)]
    if hard:
        plan.run(kernels.hard_statistics, *_rows(shape, c.index, c.alpha), found, *statistics, EACH=each)
    else:
        statistics.append(z.new_empty(count, dtype=torch.int32))
        plan.run(kernels.dense_statistics, *_coefficients(shape, c, inside), found, *statistics, EACH=each)
    return found.view(shape) if each else found, tuple(statistics)


def _softmax_gradient(
    z: Tensor, c: SoftmaxCoefficients, inside: torch.dtype, statistics: Statistics, factor: Tensor, out: Tensor
) -> Tensor:
    shape, per_row = _row_shape(z, c.axis), factor.ndim > 0
    factors = _rows(shape, factor) if per_row else [factor]
    if _is_hard(c):
        plan = _plan(c.axis, inside, 1, z, out)
        plan.run(kernels.hard_gradient, *_rows(shape, c.index, c.alpha), *factors, *statistics, PER_ROW=per_row)
    else:
        plan = _plan(c.axis, inside, 2, z, out, c.targets)
        plan.run(kernels.dense_gradient, *_coefficients(shape, c, inside), *factors, *statistics, PER_ROW=per_row)
    written = plan.tensors[1]
    return out if written is out else out.copy_(written)  # type: ignore[arg-type]


def _is_hard(c: SoftmaxCoefficients) -> bool:
    return c.index is not None and c.beta is None


def _row_shape(z: Tensor, axis: int) -> tuple[int, ...]:
    return (*z.shape[:axis], 1, *z.shape[axis + 1 :])


def _rows(shape: tuple[int, ...], *arrays: Tensor | None) -> list[Tensor | None]:
    """Return row arrays in the order of the positions, one number after the other."""
    return [None if x is None else _flat(x.expand(shape)) for x in arrays]


def _flat(x: Tensor) -> Tensor:
    """Return the numbers one after the other; of numbers that lie equally far apart `reshape` alone makes a view."""
    return x.reshape(-1).contiguous()


def _coefficients(shape: tuple[int, ...], c: SoftmaxCoefficients, inside: torch.dtype) -> list[Tensor | None]:
    index, alpha, beta = _rows(shape, c.index, c.alpha, c.beta)
    column, row = (None if x is None else _flat(x).to(inside) for x in (c.column, c.row))
    return [index, alpha, column, beta, row]


def _binary_losses(z: Tensor, c: SigmoidCoefficients, inside: torch.dtype, each: bool) -> tuple[Tensor, Statistics]:
    n = z.numel()
    programs = math.ceil(n / BINARY_BLOCK)
    inputs = [x.contiguous() for x in (z, c.pos, c.neg)]
    found = z.new_empty(z.shape, dtype=inside) if each else z.new_empty(programs, dtype=torch.float64)
    kernels.binary_losses[(programs,)](*inputs, found, n, EACH=each, **_binary_flags(z, inside))
    return found, ()


def _binary_gradient(
    z: Tensor, c: SigmoidCoefficients, inside: torch.dtype, _: Statistics, factor: Tensor, out: Tensor
) -> Tensor:
    n = z.numel()
    inputs = [x.contiguous() for x in (z, c.pos, c.neg)]
    written = out if out.is_contiguous() else torch.empty_like(inputs[0])
    share = 1
    if factor.ndim:
        share = z.shape[-1] if factor.shape[-1] == 1 else 1
        factor = factor.expand(*z.shape[:-1], z.shape[-1] // share).contiguous()
    flags = _binary_flags(z, inside)
    grid = (math.ceil(n / BINARY_BLOCK),)
    kernels.binary_gradient[grid](inputs[0], written, *inputs[1:], factor, n, share, PER_ROW=factor.ndim > 0, **flags)
    return out if written is out else out.copy_(written)


def _binary_flags(z: Tensor, inside: torch.dtype) -> dict[str, Any]:
    real = tl.float64 if inside is torch.float64 else tl.float32
    return {
        "REAL": real,
        "HALF": z.itemsize == 2 and inside is torch.float32,
        "BLOCK": BINARY_BLOCK,
        "V": math.gcd(8, z.numel()),
    }
