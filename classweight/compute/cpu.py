"""The door to the kernels of the CPU, for whatever library holds the memory: NumPy, Chainer, PyTorch.

A call is lowered to factors, which the kernels multiply; logits, targets and gradient are handed over as they lie.
"""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import call as calls
from ..call import Call, check_targets
from ..lowering import inside_of, parts_of, unless_empty
from ..spec import SoftmaxCrossEntropy
from . import closed_form, threads
from .arrays import Array, ArrayFunctions


class HostArrays(ArrayFunctions):
    """NumPy's array functions, and what saves it memory."""

    def weighted_sum(self, x: Array, w: Array, axis: int) -> Array:
        """Return the wide sum of x_c w_c along an axis, which is kept."""
        axes = list(range(x.ndim))
        kept = axes[:axis] + axes[axis + 1 :]
        return np.expand_dims(np.einsum(x, axes, w, [axis], kept, dtype=np.float64, casting="unsafe"), axis)


host = HostArrays(np)
# Up to so many classes, rows are computed in tiles.
FEW_CLASSES = 32
# A block, of which a thread takes one at a time, has about so many logits. Fewer are not worth a second thread.
BLOCK, FEW_LOGITS = 1 << 15, 3 << 14
# In magnitude, factors of the classes that float32 carries.
MODERATE = 2.0**-30, 2.0**30
# Above it a denominator has a reciprocal, as below the inverse of this.
TINY = 1e-300
# Elements of a binary loss whose weights are summed at a time.
SLICE = 1 << 18
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_TARGETS = {"int64", "int32", "int8", "uint8", "bool", *_FLOATS}


class Memory(NamedTuple):
    """An array as a kernel sees it: strides count numbers, and ``owner`` keeps it alive."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    owner: Any


def memory_of(x: np.ndarray[Any, Any]) -> Memory:
    """Return an array's memory, or a copy's where a kernel could not read it: bytes swapped, or numbers not aligned."""
    if not (x.flags.aligned and x.dtype.isnative):
        x = x.astype(x.dtype.newbyteorder("="))
    size = x.itemsize
    address = x.__array_interface__["data"][0]
    return Memory(address, x.shape, tuple([n // size for n in x.strides]), x.dtype.name, x)


@lru_cache(maxsize=1)
def kernels() -> Any:
    """Return the module of the kernels, None where there is no Numba to compile them."""
    try:
        from . import cpu_kernels
    except ImportError:
        return None
    return cpu_kernels


def is_usable(call: Call) -> bool:
    """Whether kernels compute a call."""
    return call.spec.inputs == "logits" and kernels() is not None


class Axes(NamedTuple):
    """How the axes of a call's logits fall into those before a row's own, behind it, and that one."""

    shape: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    outer: int
    inner: int
    classes: int

    def strides(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int] | None:
        """Return an array's strides along each group, 0 where it is spread; None where a group has no single one."""
        missing, found = len(self.shape) - len(shape), []
        for group in self.groups:
            stride, following = 0, None
            for axis in reversed(group):
                if self.shape[axis] == 1:
                    continue
                i = axis - missing
                own = strides[i] if i >= 0 and shape[i] != 1 else 0
                if following is None:
                    stride = own
                elif own != following:
                    return None
                following = own * self.shape[axis]
            found.append(stride)
        return found


@lru_cache(maxsize=256)
def _axes(shape: tuple[int, ...], own: int | None, split: int) -> Axes:
    """Return the axes where a row's own is ``own`` and inner ones start at ``split``."""
    groups: Any = (range(split), range(split, len(shape)), (own,) if own is not None else ())
    groups = tuple(tuple(axis for axis in group if i == 2 or axis != own) for i, group in enumerate(groups))
    return Axes(shape, groups, *(math.prod(shape[axis] for axis in group) for group in groups))


def axes_of(call: Call) -> Axes:
    """Return the axes of a call."""
    if isinstance(call.spec, SoftmaxCrossEntropy):
        return _axes(call.shape, call.axis, call.axis)
    if not call.shape:
        return _axes((), None, 0)
    # What is given for a prefix of the shape is the same along the rest.
    last = len(call.shape) - 1
    return _axes(
        call.shape, last, min([last, *(x.ndim or last for x in (call.sample_weight, call.mask) if x is not None)])
    )


def prepare(spec: Any, logits: Any, *arguments: Any, check_values: bool) -> Call:
    """Return the checked call of NumPy's arrays; the kernels look at the targets, where there are kernels."""
    later = getattr(spec, "inputs", None) == "logits" and kernels() is not None
    return calls.prepare(host, spec, logits, *arguments, check_values=check_values, targets_later=later)


def loss_and_grad(call: Call, upstream: Any = None, *, gradient: bool = True) -> tuple[Any, Any]:
    """Return the loss of NumPy's arrays and its gradient times ``upstream``; see `closed_form.loss_and_grad`."""
    z = call.logits
    if not is_usable(call):
        return closed_form.loss_and_grad(host, call, upstream, gradient=gradient)
    if upstream is not None:
        upstream = closed_form.scale_of(host, call, upstream)
    memory, dtype = _readable(call, z), z.dtype.newbyteorder("=")
    slopes = np.empty(z.shape, dtype) if gradient else None
    value = evaluate(call, memory, None if slopes is None else memory_of(slopes), upstream, threads.of_numpy())
    if isinstance(value, np.ndarray) and value.dtype != np.float64:
        return value.view(dtype).reshape(call.loss_shape(host)), slopes
    return closed_form.round_once(host, np.asarray(value), dtype).reshape(
        call.loss_shape(host) if each(call) else ()
    ), slopes


def each(call: Call) -> bool:
    """Whether a loss of each position is wanted."""
    return bool(call.spec.reduction == "none")


def loss_parts(call: Call) -> tuple[Any, Any]:
    """Return the sum over positions and what a mean divides it by (1 for a sum), in float64."""
    if not is_usable(call):
        return closed_form.loss_parts(host, call)
    return parts(call, _readable(call, call.logits), threads.of_numpy())


def _readable(call: Call, z: np.ndarray[Any, Any]) -> Memory:
    memory = memory_of(z)
    if axes_of(call).strides(memory.shape, memory.strides) is not None:
        return memory
    return memory_of(np.ascontiguousarray(memory.owner))


def parts(call: Call, z: Memory, team: threads.Team) -> tuple[np.float64, np.float64]:
    """Return numerator and denominator of a call whose logits are in ``z``."""
    lowered, denominator = _lowered(call)
    numerator = _run(call, lowered, lowered.factors(), lowered.s, 1.0, z, None, None, team, None)
    return np.float64(numerator), np.float64(1.0 if denominator is None else denominator)


def evaluate(call: Call, z: Memory, g: Memory | None, upstream: Array | float | None, team: threads.Team) -> Any:
    """Return the loss, a number or an array of the positions', in float64 or in bits of the logits' type.

    Parameters
    ----------
    call : Call
        Of NumPy's arrays, but for the logits, of which shape and type are asked alone.
    z, g : Memory
        Logits, and what becomes the gradient, which may be the logits' memory. Each group of axes has a single stride.
    upstream : array or float, optional
        By which the gradient is multiplied; an array broadcasts against the logits.
    team : Team
        The threads.

    Raises
    ------
    ValueError
        A target that is none, where values are looked at.
    """
    if g is not None and g.address == z.address and call.checked:
        check_targets(host, call)  # before anything is written over
    lowered, denominator = _lowered(call)
    f = lowered.factors()
    if each(call):
        losses = np.empty(call.loss_shape(host), _RAW[z.dtype])
        if call.position_axis is not None and not isinstance(call.spec, SoftmaxCrossEntropy):
            losses = np.zeros(losses.shape)
        _run(call, lowered, f, lowered.s, 1.0, z, g, upstream, team, losses)
        return losses
    share, s = 1.0, lowered.s
    if denominator is not None:
        share = 1 / float(denominator) if denominator != 0 else 0.0
        if 0 < abs(denominator) <= TINY or 1 / TINY <= abs(denominator) < math.inf:
            share, (f, s) = 1.0, _divided(f, s, denominator)
    value = _run(call, lowered, f, s, share, z, g, upstream, team, None)
    return (
        value
        if denominator is None
        else float(unless_empty(host, call.spec.zero_denominator, np.float64(value), denominator))
    )


def _lowered(call: Call) -> tuple[Any, Any]:
    """Return what coefficients are made of, and the denominator."""
    dtype = call.targets.dtype if host.kind(call.targets) == "f" else host.wide
    lowered = parts_of(host, call, dtype)
    try:
        found = [parts_of(host, part, dtype).denominator() for part in _slices(call)] or [lowered.denominator()]
        return lowered, found[0] if len(found) == 1 else sum(found)
    except IndexError:  # no class has that weight
        check_targets(host, call)
        raise


def _slices(call: Call) -> list[Call]:
    """Return parts of a large binary call: for its denominator arrays of the logits' size would be made."""
    n, size = (call.shape or (1,))[0], math.prod(call.shape)
    counts = call.spec.reduction in ("mean_over_weights", "mean_over_nonzero", "mean_over_valid")
    if isinstance(call.spec, SoftmaxCrossEntropy) or size <= SLICE or call.position_axis == 0 or not counts:
        return []

    def part(x: Any, rows: slice) -> Any:
        return x[rows] if x is not None and x.ndim and x.shape[0] == n else x

    step, found = max(1, SLICE * n // size), []
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        shape = (rows.stop - start, *call.shape[1:])
        pair = call.class_weight and tuple(part(w, rows) if w.ndim == len(shape) else w for w in call.class_weight)
        logits = call.logits._replace(shape=shape) if isinstance(call.logits, Memory) else call.logits[rows]
        others = (part(x, rows) for x in (call.targets, call.sample_weight))
        mask, denominator = part(call.mask, rows), call.denominator
        found.append(Call(call.spec, logits, *others, pair, mask, denominator, call.checked, shape, call.axis))
    return found


def _divided(f: Any, s: Any, denominator: float) -> tuple[Any, Any]:
    """Return factors and sample weights divided by a denominator that has no reciprocal."""
    names = [name for name in ("of_row", "by_target", "column", "row", "positive", "negative") if hasattr(f, name)]
    given = {name: getattr(f, name) / denominator for name in names if getattr(f, name) is not None}
    return (replace(f, **given), s) if given else (f, s / denominator)


_RAW = {"float16": np.uint16, "bfloat16": np.int16, "float32": np.float32, "float64": np.float64}


def _run(
    call: Call,
    lowered: Any,
    f: Any,
    s: Array | None,
    share: float,
    z: Memory,
    g: Memory | None,
    upstream: Any,
    team: threads.Team,
    losses: Any,
) -> float:
    """Call the kernel, and return the losses' sum; ``losses`` become those of each position."""
    if not math.prod(call.shape):
        return 0.0
    k, spec, axes = kernels(), call.spec, axes_of(call)
    softmax, options, kept = isinstance(spec, SoftmaxCrossEntropy), 0, []

    def placed(x: Array | None, dtype: Any = np.float64) -> tuple[int, ...]:
        """Return the address and strides of an array that broadcasts against the logits."""
        if x is None:
            return 0, 0, 0, 0
        memory = memory_of(np.asarray(x, dtype))
        strides = axes.strides(memory.shape, memory.strides)
        if strides is None:
            memory = memory_of(np.ascontiguousarray(np.broadcast_to(memory.owner, call.shape)))
            strides = axes.strides(memory.shape, memory.strides)
        kept.append(memory.owner)
        return memory.address, *strides  # type: ignore[misc]

    def found(memory: Memory | None) -> tuple[int, ...]:
        return (0, 0, 0, 0) if memory is None else (memory.address, *axes.strides(memory.shape, memory.strides))  # type: ignore[misc]

    targets = call.targets
    if call.hard:
        targets = np.expand_dims(targets, call.axis)
    target_type = targets.dtype.name
    if target_type not in _TARGETS:
        target_type = "int64" if call.hard else "float64"
    if target_type == "bool":
        target_type = "uint8"
        targets = targets.view(np.uint8)
    raw_targets = placed(targets, None if target_type == targets.dtype.name else target_type)
    wide = inside_of(host, spec, z.dtype if z.dtype != "float64" else host.wide) == host.wide
    if softmax:
        few = axes.classes <= FEW_CLASSES
        kind = ("index" if not f.spread else "smoothed") if call.hard else "distribution"
        name = kind + ("_tiles" if few else "_rows")
        alpha, beta, spread = share * f.keep, share * f.spread, 0.0
        by_target = 0 if f.by_target is None else memory_of(np.ascontiguousarray(f.by_target))
        column, row = placed(lowered.by_class(f.column)), placed(lowered.by_class(f.row))
        options |= k.BETA_BY_TARGET * f.beta_by_target
        weight = s if f.of_row is None else f.of_row if s is None else f.of_row * s
        wide = wide or not (_is_moderate(f.column) and _is_moderate(f.row))
        tile = k.TILE if few else 1
        block_rows = max(1, BLOCK // (axes.classes * tile)) * tile
    else:
        name, alpha, beta, spread, by_target = "elements", share * f.share, f.keep, f.spread, 0
        column, row, weight = placed(f.positive), placed(f.negative), s
        wide = wide or target_type == "float64"  # 1 - t must keep its digits
        options |= k.BY_LABEL * f.by_label
        if losses is not None and losses.ndim < len(call.shape):
            options |= k.PER_ROW
        block_rows = max(1, k.PIECE // axes.classes) * max(1, BLOCK // max(axes.classes, k.PIECE))
    z_place, g_place = found(z), found(g)
    if g is not None:
        same = g.address == z.address
        options |= k.APART * same | k.DIRECT * (
            not same and g_place[3] == 1 and z.dtype == ("float64" if wide else "float32")
        )
    rows = axes.outer * axes.inner
    blocks = -(-rows // block_rows)
    sums = np.zeros(blocks)
    scale = 0.0 if g is None else 1.0
    up = (0, 0, 0, 0)
    if g is not None and upstream is not None:
        if isinstance(upstream, np.ndarray) and upstream.ndim:
            up = placed(upstream)
        else:
            scale = float(upstream)
    sums_memory = memory_of(sums)
    arguments = np.empty(k.INTEGERS + k.FLOATS, np.int64)
    address = arguments.__array_interface__["data"][0]
    of_rows = placed(weight), placed(lowered.valid, np.uint8 if lowered.valid is not None else None)

    def launch(kernel: Any, options: int) -> None:
        _ARGUMENTS(k).pack_into(
            arguments, 0,
            0, 0, 0, blocks, block_rows, rows, axes.classes, axes.inner, options,
            by_target and by_target.address, 0 if losses is None else memory_of(losses).address, sums_memory.address,
            *z_place, *g_place, *raw_targets, *of_rows[0], *of_rows[1], *up, *column, *row,
            alpha, beta, scale, spread,
        )  # fmt: skip
        count = min(team.count, blocks) if rows * axes.classes >= FEW_LOGITS else 1
        if count > 1:
            team.launch(kernel, address, count)
        else:
            kernel.ctypes(address)

    launch(k.compiled(name, z.dtype, "float64" if wide else "float32", target_type), options)
    if arguments[k.LEFT] and not wide:
        launch(k.compiled(name, z.dtype, "float64", target_type), options & ~k.DIRECT | k.REST)
    if arguments[k.BAD] and call.checked:
        check_targets(host, call)
    return float(sums[0] if blocks == 1 else np.add.reduce(sums))


@lru_cache(maxsize=1)
def _ARGUMENTS(k: Any) -> struct.Struct:
    return struct.Struct(f"{k.INTEGERS}q{k.FLOATS}d")


def _is_moderate(w: Array | None) -> bool:
    return w is None or bool(np.all((w == 0) | ((abs(w) >= MODERATE[0]) & (abs(w) <= MODERATE[1]))))
