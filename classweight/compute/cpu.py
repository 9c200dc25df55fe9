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
from ..lowering import changed, denominator_of_rows, parts_of, unless_empty
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
# Of a kernel's arrays - targets, weights, what is valid, ... - those that are not float64.
AS_THEY_ARE = 0, 2
# Elements of a binary loss whose weights are summed at a time.
SLICE = 1 << 18
# Targets that kernels read as they are; indices of other types are few numbers to copy.
INDICES, DISTRIBUTIONS = {"int64"}, {"uint8", "float16", "bfloat16", "float32", "float64"}


class Memory(NamedTuple):
    """An array as a kernel sees it: strides count numbers, and ``owner`` keeps it alive."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    owner: Any


def memory_of(x: np.ndarray[Any, Any]) -> Memory:
    """Return an array's memory, or a copy's where a kernel could not read it: bytes swapped, or numbers not aligned."""
    x = _readable_array(x)
    size = x.itemsize
    return Memory(address_of(x), x.shape, tuple([n // size for n in x.strides]), _name(x.dtype), x)


def _readable_array(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x if x.flags.aligned and x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def address_of(x: np.ndarray[Any, Any]) -> int:
    """Return where an array lies."""
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _name(dtype: Any) -> str:
    return str(dtype.name)  # NumPy words it anew each time


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
        of_elements = call.position_axis is None and not isinstance(call.spec, SoftmaxCrossEntropy)
        losses = np.zeros(call.loss_shape(host), _RAW[z.dtype] if of_elements else np.float64)
        _run(call, lowered, f, lowered.s, 1.0, z, g, upstream, team, losses)
        return losses
    share, s = 1.0, lowered.s
    if denominator is not None and denominator != denominator:
        upstream = denominator  # which reaches no row without a coefficient
    elif denominator is not None:
        share = 1 / float(denominator) if denominator != 0 else 0.0
        if 0 < abs(denominator) <= TINY or 1 / TINY <= abs(denominator) < math.inf:
            share, (f, s) = 1.0, _divided(f, s, denominator)
    value = _run(call, lowered, f, s, share, z, g, upstream, team, None)
    if denominator is None:
        return value
    mean = np.float64(value if denominator == denominator else denominator)
    return float(unless_empty(host, call.spec.zero_denominator, mean, denominator))


def denominator(call: Call) -> float:
    """Return what a mean divides by, 1 if there is none."""
    found = _lowered(call)[1]
    return 1.0 if found is None else float(found)


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
    counts = counts and call.denominator is None
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
        targets, s, mask = (part(x, rows) for x in (call.targets, call.sample_weight, call.mask))
        cut = {"logits": logits, "targets": targets, "sample_weight": s, "class_weight": pair, "mask": mask}
        found.append(replace(call, shape=shape, none_ignored=False, **cut))
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
    k, targets = kernels(), _targets(call)
    name, wide, options, column, row, alpha, beta, spread = _told(call, lowered, f, targets)
    alpha *= share
    if name != "elements":
        beta *= share
    elif losses is not None and losses.ndim < len(call.shape):
        options |= k.PER_ROW
    by_target, of_row = getattr(f, "by_target", None), getattr(f, "of_row", None)
    weight = s if of_row is None else of_row if s is None else of_row * s
    wide = wide or z.dtype == "float64"
    factor, each_factor = (0.0 if g is None else 1.0), None
    if g is not None and upstream is not None:
        if np.ndim(upstream):
            each_factor = upstream
        else:
            factor = float(upstream)
    arrays = [targets, weight, lowered.valid, each_factor, column, row]
    arrays = [None if x is None else _readable_array(x) for x in arrays]
    apart = g is not None and g.address == z.address
    layouts = [None if x is None else (x.shape, x.strides, x.dtype) for x in arrays]
    plan = _plan(axes_of(call), name, wide, z[1:4], g and g[1:4], apart, *layouts)
    for i in plan.spread:  # memory in which a group of axes has no single stride, or of a type that kernels do not read
        broadcast = np.broadcast_to(arrays[i], call.shape)
        arrays[i] = np.ascontiguousarray(broadcast, None if i in AS_THEY_ARE else np.float64)
    places: list[int] = [z.address, *plan.strides[0], g.address if g else 0, *plan.strides[1]]
    for x, strides in zip(arrays, plan.strides[2:], strict=True):
        places += [0 if x is None else address_of(x), *strides]
    sums = np.zeros(plan.blocks)
    arguments: Any = np.empty(plan.format.size // 8, np.int64)
    options |= plan.options
    whole = (
        address_of(by_target) if by_target is not None else 0,
        0 if losses is None else address_of(losses),
        address_of(sums),
    )

    def launch(options: int, kernel: Any = None) -> None:
        plan.format.pack_into(arguments, 0, 0, 0, 0, *plan.sizes, options, *whole, *places, alpha, beta, factor, spread)
        plan.launch(address_of(arguments), team, kernel)

    launch(options)
    if arguments[k.LEFT] and not wide:
        launch(options | k.REST, k.compiled(plan.name, "float64"))
    if arguments[k.BAD] and call.checked:
        check_targets(host, call)
    return float(sums[0] if plan.blocks == 1 else np.add.reduce(sums))


def _told(call: Call, lowered: Any, f: Any, targets: Array) -> tuple[Any, ...]:
    """Return the kernel's name, whether it computes in float64, its options, and the factors that all rows share."""
    k, wide = kernels(), call.spec.precision == "exact"
    if not isinstance(call.spec, SoftmaxCrossEntropy):
        # Of wider targets 1 - t must keep its digits.
        wide = wide or targets.dtype == np.float64
        return "elements", wide, k.BY_LABEL * f.by_label, f.positive, f.negative, f.share, f.keep, f.spread
    wide = wide or not (_is_moderate(f.column) and _is_moderate(f.row))
    name = ("index" if not f.spread else "smoothed") if call.hard else "distribution"
    column, row = lowered.by_class(f.column), lowered.by_class(f.row)
    return name, wide, k.BETA_BY_TARGET * f.beta_by_target, column, row, f.keep, f.spread, 0.0


def _targets(call: Call) -> np.ndarray[Any, Any]:
    """Return the targets with an axis for the classes, of a type that kernels read."""
    targets = call.targets
    if targets.dtype == np.bool_:
        targets = targets.view(np.uint8)
    if _name(targets.dtype) not in (INDICES if call.hard else DISTRIBUTIONS):
        targets = targets.astype(np.int64 if call.hard else np.float64)
    return np.expand_dims(targets, call.axis) if call.hard else targets


class Plan(NamedTuple):
    """What a kernel is told beside addresses, and which it is."""

    kernel: Any
    name: str
    options: int
    blocks: int
    sizes: tuple[int, ...]
    is_large: bool
    strides: list[list[int]]
    spread: list[int]
    format: struct.Struct

    def launch(self, arguments: int, team: threads.Team, kernel: Any = None) -> None:
        """Call the kernel, or another one, with the arguments at an address."""
        kernel, count = kernel or self.kernel, min(team.count, self.blocks) if self.is_large else 1
        if count > 1:
            team.launch(kernel, arguments, count)
        else:
            kernel.ctypes(arguments)


@lru_cache(maxsize=256)
def _plan(axes: Axes, name: str, wide: bool, z: Any, g: Any, apart: bool, targets: Any, *others: Any) -> Plan:
    """Return the plan of a call, of the shapes, strides and types of its arrays."""
    k, n = kernels(), axes.classes
    tile = k.TILE if n <= FEW_CLASSES else 1
    block_rows = max(1, BLOCK // (n * tile)) * tile
    if name == "elements":
        block_rows = max(1, k.PIECE // n) * max(1, BLOCK // max(n, k.PIECE))
    else:
        name += "_tiles" if tile > 1 else "_rows"
    strides: list[Any] = [axes.strides(*z[:2]), [0, 0, 0] if g is None else axes.strides(*g[:2])]
    spread = []
    for i, layout in enumerate((targets, *others)):
        found: Any = [0, 0, 0]
        if layout is not None:
            shape, steps, dtype = layout
            found = axes.strides(shape, tuple([step // dtype.itemsize for step in steps]))
            if found is None or (i not in AS_THEY_ARE and dtype != np.float64):
                spread.append(i)
                found = axes.strides(axes.shape, tuple(np.empty(axes.shape, np.bool_).strides))
        strides.append(found)
    inside, t_type = "float64" if wide else "float32", _name(targets[2])
    rows = axes.outer * axes.inner
    blocks = -(-rows // block_rows)
    options = k.APART * apart
    if name == "elements" and axes.inner == 1 and z[2] == t_type == inside:
        used = [strides[0], strides[2], *([strides[1]] if g is not None else [])]
        options |= k.FLAT * all(found[2] == 1 and (rows == 1 or found[0] == n) for found in used)
    return Plan(
        kernel=k.compiled(name, inside),
        name=name,
        options=options,
        blocks=blocks,
        sizes=(blocks, block_rows, rows, n, axes.inner, *(k.TYPES.index(dtype) for dtype in (z[2], t_type))),
        is_large=rows * n >= FEW_LOGITS,
        strides=strides,
        spread=spread,
        format=struct.Struct(f"{k.INTEGERS}q{k.FLOATS}d"),
    )


class Repeated:
    """A call like one before: of the same shapes and types, and nothing beside the targets but class weights.

    What Python does for a small batch takes longer than the kernel, so here it is done once. Whatever is unusual - an
    ignored target, a bad one, a denominator of 0 - is left to `evaluate`.
    """

    def __init__(self, call: Call, z: Memory, g: Memory | None) -> None:
        targets, lowered = _targets(call), parts_of(host, call, host.wide)
        f = lowered.factors()
        name, wide, options, self.column, self.row, *self.numbers = _told(call, lowered, f, targets)
        spec = call.spec
        if call.class_weight is None and spec.reduction in ("mean_over_weights", "mean_over_nonzero"):  # each weighs 1
            spec = changed(spec, reduction="mean_over_positions")
        self.call = replace(call, spec=spec, logits=z._replace(owner=None), targets=None, class_weight=None)
        self.by_class = getattr(f, "by_target", None)
        self.by_target = 0 if self.by_class is None else address_of(self.by_class)
        self.weights: Any = getattr(lowered, "w", None) if call.hard else None  # before smoothing
        self.buffers: list[tuple[Array, int]] = []
        self.looks, self.factor = call.spec.ignore_index is not None if call.hard else False, 0.0 if g is None else 1.0
        arrays = (targets, None, None, None, self.column, self.row)
        layouts = [None if x is None else (x.shape, x.strides, x.dtype) for x in arrays]
        wide = wide or z.dtype == "float64"
        self.plan = _plan(axes_of(call), name, wide, z[1:4], g and g[1:4], False, *layouts)
        self.options = options | self.plan.options
        self.factors: list[int] = []
        for x, strides in zip(arrays[4:], self.plan.strides[6:], strict=True):
            self.factors += [0 if x is None else address_of(x), *strides]

    @staticmethod
    def fits(call: Call) -> bool:
        """Whether calls like this one can be repeated."""
        if call.sample_weight is not None or call.mask is not None or call.denominator is not None or not call.checked:
            return False
        spec, ignored = call.spec, call.spec.ignore_index if call.hard else getattr(call.spec, "ignore_label", None)
        if (
            not math.prod(call.shape)
            or each(call)
            or _name(call.targets.dtype) not in (INDICES if call.hard else DISTRIBUTIONS)
        ):
            return False
        if (
            not call.hard
            and call.class_weight is not None
            and (spec.weighting != "term" or spec.reduction in ("mean_over_weights", "mean_over_nonzero"))
        ):  # something depends on the targets
            return False
        return ignored is None or (call.hard and ignored < 0)

    def evaluate(self, z: int, g: int, y: int, targets: Array, w: Array | None, team: threads.Team) -> float | None:
        """Return the loss, None where it is left to `evaluate`.

        ``z``, ``g`` and ``y`` are addresses of logits, gradient and targets; ``w`` are weights instead of the call's.
        """
        by_target, plan, k = self.by_target if w is None else address_of(w), self.plan, kernels()
        w = self.weights if w is None else w
        if self.looks and np.minimum.reduce(targets, None) < 0:
            return None
        try:
            denominator = denominator_of_rows(host, self.call, lambda: w.take(targets))
        except IndexError:
            return None
        if denominator is not None and not TINY < abs(denominator) < 1 / TINY:
            return None
        try:  # one thread at a time uses a buffer
            buffer, address = self.buffers.pop()
        except IndexError:
            buffer = np.empty(plan.format.size // 8 + plan.blocks, np.int64)
            address = address_of(buffer)
        buffer[-plan.blocks :] = 0  # the sums
        share = 1.0 if denominator is None else 1 / float(denominator)
        (zs, gs, ts), sums = plan.strides[:3], address + plan.format.size
        places = (by_target, 0, sums, z, *zs, g, *gs, y, *ts, *(0,) * 12, *self.factors)
        alpha, beta, spread = self.numbers
        beta *= share if plan.name != "elements" else 1.0
        plan.format.pack_into(
            buffer, 0, 0, 0, 0, *plan.sizes, self.options, *places, alpha * share, beta, self.factor, spread
        )
        plan.launch(address, team)
        found = None
        if not (buffer[k.BAD] or buffer[k.LEFT]):
            found = float(np.add.reduce(buffer[-plan.blocks :].view(np.float64)))
        self.buffers.append((buffer, address))
        return found


def _is_moderate(w: Array | None) -> bool:
    return w is None or bool(np.all((w == 0) | ((abs(w) >= MODERATE[0]) & (abs(w) <= MODERATE[1]))))
