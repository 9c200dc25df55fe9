"""One call of a loss, its arguments checked: shapes and types always, values where the host holds them.

What depends on the logits' shape or on values is decided here, once for every framework, so that each refusal reads the
same everywhere and nothing is computed from arguments that do not fit.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .compute.arrays import Array, ArrayFunctions, Arrays
from .errors import TargetIndexError, refuse
from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

Shape = tuple[Any, ...]
WEIGHTS = "be finite and >= 0"
FINITE = "be finite"
_LARGEST = np.finfo(np.float64).max
_numpy = ArrayFunctions(np)
# The unsigned type of a floating type's bits, and those of infinity.
_INFINITY: dict[Any, tuple[Any, int]] = {
    np.dtype(np.float16): (np.uint16, 0x7C00),
    np.dtype(np.float32): (np.uint32, 0xFF << 23),
    np.dtype(np.float64): (np.uint64, 0x7FF << 52),
}


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call as native arrays that fit each other.

    ``shape`` is the logits' shape; an axis that is not known while a graph is traced is None. ``checked`` says that the
    values were looked at; where they were not, the lowering turns bad rows into NaN. ``none_ignored`` says that they
    were, and that no target was the ignored one; ``asserted`` that they were not, and that a NaN shall be explained.
    """

    spec: Any
    logits: Array
    targets: Array
    sample_weight: Array | None
    class_weight: Any
    mask: Array | None
    denominator: Array | float | None
    checked: bool
    shape: Shape
    axis: int
    none_ignored: bool = False
    asserted: bool = False

    @property
    def hard(self) -> bool:
        """Whether the targets are class indices."""
        return len(self.targets.shape) < len(self.shape)

    @property
    def position_axis(self) -> int | None:
        """The axis that a position runs along: the classes, the averaged outputs, or none (binary elements)."""
        return _position_axis(self.spec, self.shape, self.axis)

    @property
    def num_classes(self) -> int:
        """The length of the class axis; for a binary loss, of the last."""
        return int(self.shape[self.axis])

    @property
    def position_shape(self) -> Shape:
        """The logits' shape without the axis that a position runs along."""
        return drop(self.shape, self.position_axis)

    def rows(self, xp: Arrays, x: Array | None) -> Array | None:
        """Return a weight or mask, given for a prefix of the position shape, as broadcastable against the logits."""
        if x is None:
            return None
        missing = len(self.position_shape) - len(x.shape)
        x = xp.reshape(x, (*xp.shape(x), *(1,) * missing)) if missing else x
        return x if self.position_axis is None else xp.expand_dims(x, self.position_axis)

    def row_shape(self, xp: Arrays) -> Shape:
        """Return the shape of one number a position, the axis it runs along kept with length 1."""
        shape = xp.shape(self.logits)
        return shape if self.position_axis is None else replace(shape, self.position_axis, 1)

    def loss_shape(self, xp: Arrays) -> Shape:
        """Return the position shape as far as it is known while running."""
        return drop(xp.shape(self.logits), self.position_axis)

    def num_positions(self, xp: Arrays) -> Any:
        """Return the number of positions, ignored ones included."""
        return math.prod(self.loss_shape(xp))

    def batch_size(self, xp: Arrays) -> Any:
        """Return the length of the first position axis, 1 where there is none."""
        return (*self.loss_shape(xp), 1)[0]


def drop(shape: Shape, axis: int | None) -> Shape:
    """Return the shape without one axis."""
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]


def replace(shape: Shape, axis: int, length: int) -> Shape:
    """Return the shape with another length on one axis."""
    return (*shape[:axis], length, *shape[axis + 1 :])


def prepare(
    xp: Arrays,
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    logits: Any,
    targets: Any,
    sample_weight: Any = None,
    class_weight: Any = None,
    mask: Any = None,
    denominator: Any = None,
    *,
    check_values: bool,
    targets_later: bool = False,
) -> Call:
    """Return the checked call; a kernel that sees bad targets itself has them checked ``targets_later``, if at all.

    Raises
    ------
    ValueError
        A shape or a value that does not fit; an out-of-range class index is an IndexError too.
    TypeError
        Logits that are not floating point, targets or weights that are not numbers, a spec that is none.
    """
    if not isinstance(spec, SoftmaxCrossEntropy | SigmoidCrossEntropy):
        expected = "be a SoftmaxCrossEntropy or a SigmoidCrossEntropy"
        refuse("spec", expected, type(spec).__name__, error=TypeError)
    if xp.kind(logits) != "f":
        refuse("logits", "be floating point", _dtype(logits), error=TypeError)
    shape = xp.static_shape(logits)
    softmax = isinstance(spec, SoftmaxCrossEntropy)
    axis = _axis(spec, shape) if isinstance(spec, SoftmaxCrossEntropy) else len(shape) - 1
    targets = xp.asarray(targets, logits, "targets")
    _check_targets(xp, spec, targets, shape, axis)
    positions = drop(shape, _position_axis(spec, shape, axis))
    if sample_weight is not None:
        sample_weight = xp.asarray(sample_weight, logits, "sample_weight")
        _check_prefix(xp, "sample_weight", sample_weight, positions, "fib", "real numbers")
        sample_weight = xp.astype(sample_weight, xp.wide)
    if mask is not None:
        mask = xp.asarray(mask, logits, "mask")
        _check_prefix(xp, "mask", mask, positions, "b", "bool")
    if class_weight is None:
        weights = _spec_weights(xp, spec, logits, shape, axis)
    elif softmax:
        weights = xp.asarray(class_weight, logits, "class_weight")
        _check_weight_kind(xp, weights)
        if xp.static_shape(weights) != (shape[axis],):
            refuse("class_weight", f"have shape ({shape[axis]},), one per class", xp.static_shape(weights))
    else:
        weights = _weight_pair(xp, class_weight, logits, shape)
    if denominator is not None:
        denominator = _denominator(xp, spec, denominator, logits, check_values)
    if check_values:
        for weight in () if class_weight is None else weights if isinstance(weights, tuple) else (weights,):
            _check_finite("class_weight", xp.to_numpy(weight))
        if sample_weight is not None:
            _check_finite("sample_weight", xp.to_numpy(sample_weight))
    call = Call(spec, logits, targets, sample_weight, weights, mask, denominator, check_values, shape, axis)
    if check_values and (_is_none_ignored if targets_later else check_targets)(xp, call):
        return dataclasses.replace(call, none_ignored=True)
    return call


def _position_axis(spec: Any, shape: Shape, axis: int) -> int | None:
    if isinstance(spec, SoftmaxCrossEntropy):
        return axis
    return len(shape) - 1 if spec.average_outputs else None


def _axis(spec: SoftmaxCrossEntropy, shape: Shape) -> int:
    if not shape:
        refuse("logits", "have a class axis", "shape ()")
    axis = 0 if len(shape) == 1 else spec.axis
    if not -len(shape) <= axis < len(shape):
        refuse("axis", f"be an axis of the logits, whose shape is {_text(shape)}", axis)
    axis %= len(shape)
    if shape[axis] is None or shape[axis] < 1:
        refuse("logits", "have at least one class, of a number known in advance", f"shape {_text(shape)}, axis {axis}")
    return axis


def _check_targets(xp: Arrays, spec: Any, targets: Array, shape: Shape, axis: int) -> None:
    kind, got = xp.kind(targets), xp.static_shape(targets)
    if isinstance(spec, SigmoidCrossEntropy):
        if spec.average_outputs and (not shape or not shape[-1]):
            expected = "have a last axis of at least one output, of a number known in advance"
            refuse("logits", expected, f"shape {_text(shape)}")
        if kind == "other" or not _fits(got, shape):
            refuse("targets", f"be real or bool, of the logits' shape {_text(shape)}", _described(xp, targets))
    elif _fits(got, shape) and kind != "other":
        if spec.ignore_index is not None:
            refuse("ignore_index", "be None for distributions, which have `mask`", spec.ignore_index)
    elif not (_fits(got, drop(shape, axis)) and kind == "i"):
        positions = drop(shape, axis)
        expected = f"be integers of shape {_text(positions)} or a distribution of shape {_text(shape)}"
        error = TypeError if _fits(got, positions) else ValueError
        refuse("targets", expected, _described(xp, targets), error=error)


def _check_prefix(xp: Arrays, name: str, x: Array, positions: Shape, kinds: str, words: str) -> None:
    if xp.kind(x) not in kinds:
        refuse(name, f"be {words}", _dtype(x), error=TypeError)
    got = xp.static_shape(x)
    if not _fits(got, positions[: len(got)]):
        refuse(name, f"be a scalar or have a shape that is a prefix of {_text(positions)}", _text(got))


def _spec_weights(xp: Arrays, spec: Any, logits: Array, shape: Shape, axis: int) -> Any:
    if spec.class_weight is None:
        return None
    if isinstance(spec, SoftmaxCrossEntropy):
        return xp.weights(spec, shape[axis], logits)
    pair = xp.weights(spec, 0, logits)
    for weight in pair:
        _check_broadcast(xp.static_shape(weight), shape)
    return pair


def _weight_pair(xp: Arrays, pair: Any, logits: Array, shape: Shape) -> tuple[Array, Array]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        refuse("class_weight", "be a pair (negative, positive)", type(pair).__name__)
    negative, positive = (xp.asarray(weight, logits, "class_weight") for weight in pair)
    for weight in (negative, positive):
        _check_weight_kind(xp, weight)
        _check_broadcast(xp.static_shape(weight), shape)
    return negative, positive


def _check_weight_kind(xp: Arrays, weight: Array) -> None:
    if xp.kind(weight) not in "fi":
        refuse("class_weight", "be real numbers", _dtype(weight), error=TypeError)


def _check_broadcast(weight: Shape, shape: Shape) -> None:
    fits = len(weight) <= len(shape) and all(
        n == 1 or m is None or n == m for n, m in zip(weight[::-1], shape[::-1], strict=False)
    )
    if not fits:
        refuse("class_weight", f"broadcast against the logits' shape {_text(shape)}", _text(weight))


def _denominator(xp: Arrays, spec: Any, denominator: Any, logits: Array, check_values: bool) -> Any:
    if not spec.reduction.startswith("mean"):
        refuse("denominator", "be None unless the reduction is a mean", f"{denominator!r} with {spec.reduction!r}")
    expected = "be a finite number, or a scalar array of one"
    if isinstance(denominator, int | float) and not isinstance(denominator, bool):
        if abs(denominator) >= 1 << 1023 and abs(denominator) != math.inf:
            refuse("denominator", expected, "more than float64 holds")
        if not math.isfinite(denominator):
            refuse("denominator", expected, float(denominator))
        return float(denominator)
    array = xp.asarray(denominator, logits, "denominator")
    if xp.kind(array) not in "fi" or xp.static_shape(array) != ():
        refuse("denominator", expected, _described(xp, array))
    array = xp.detach(xp.astype(array, xp.wide))
    if not check_values:
        return xp.where(abs(array) < math.inf, array, math.nan)
    if not math.isfinite(float(xp.to_numpy(array))):
        refuse("denominator", expected, float(xp.to_numpy(array)))
    return array


def check_targets(xp: Arrays, call: Call) -> bool:
    """Refuse bad targets; return whether it was seen that none is the ignored one."""
    spec, targets, low = call.spec, xp.to_numpy(call.targets), 0
    high: float = call.num_classes - 1 if call.hard else _LARGEST
    ignored = _ignored(spec)
    # One or two reductions settle the common case; NaN fails all comparisons.
    if call.hard:
        good = targets.size == 0 or (
            np.minimum.reduce(targets, None) >= low and np.maximum.reduce(targets, None) <= high
        )
    else:
        good = are_weights(targets)
    if good:
        return ignored is None or not low <= ignored <= high
    mask = None if call.mask is None else xp.to_numpy(call.mask)
    expected, bad = bad_targets(_numpy, spec, targets, mask, call.shape, call.axis)
    _refuse_first("targets", expected, targets, bad, TargetIndexError if call.hard else ValueError)
    return False


def bad_targets(
    xp: Arrays, spec: Any, targets: Array, mask: Array | None, shape: Shape, axis: int
) -> tuple[str, Array]:
    """Return what targets must be, and where they are not, unless ignored or masked; in their own shape."""
    hard = len(targets.shape) < len(shape)
    ignored = _ignored(spec)
    bad = ~((targets >= 0) & (targets <= shape[axis] - 1)) if hard else bad_weights(targets)
    if ignored is not None:
        bad = bad & ~xp.equal(targets, ignored)
    if mask is not None:
        position_axis = _position_axis(spec, shape, axis)
        kept = xp.reshape(mask, (*xp.shape(mask), *(1,) * (len(drop(shape, position_axis)) - len(mask.shape))))
        bad = bad & (kept if hard or position_axis is None else xp.expand_dims(kept, position_axis))
    return f"be class indices from 0 to {shape[axis] - 1}" if hard else WEIGHTS, bad


def bad_weights(values: Array) -> Array:
    """Return where numbers are not what `WEIGHTS` says."""
    with np.errstate(invalid="ignore"):  # bfloat16 warns of a NaN that it compares
        return ~((values >= 0) & (values <= _LARGEST))


def infinite(values: Array) -> Array:
    """Return where numbers are not what `FINITE` says."""
    # Not of one comparison, which a graph of TensorFlow turns round: then it is false of NaN.
    return ~((values >= -_LARGEST) & (values <= _LARGEST))


def _ignored(spec: Any) -> int | None:
    return spec.ignore_index if isinstance(spec, SoftmaxCrossEntropy) else spec.ignore_label


def _is_none_ignored(xp: Arrays, call: Call) -> bool:
    """Whether it is seen at a glance that no target is the ignored one."""
    ignored = _ignored(call.spec)
    if ignored is None or not call.hard or ignored >= 0:
        return ignored is None
    targets = xp.to_numpy(call.targets)
    return targets.size == 0 or bool(np.minimum.reduce(targets, None) >= 0)


def _check_finite(name: str, values: np.ndarray[Any, Any]) -> None:
    """Refuse weights of a loss that are infinite or NaN."""
    with np.errstate(invalid="ignore"):  # bfloat16 warns of a NaN that it compares
        bad = infinite(values)
    if bad.any():
        _refuse_first(name, FINITE, values, bad, ValueError)


def _check_weights(name: str, values: np.ndarray[Any, Any]) -> None:
    """Refuse what cannot be counted: shares, and numbers of labels, that are negative or not finite."""
    if not are_weights(values):
        _refuse_first(name, WEIGHTS, values, bad_weights(values), ValueError)


def are_weights(values: np.ndarray[Any, Any]) -> bool:
    """Whether all numbers are finite and none is negative; -0 may be taken for one that is."""
    if not values.size:
        return True
    unsigned = _INFINITY.get(values.dtype)
    if unsigned is None:
        with np.errstate(invalid="ignore"):  # bfloat16 warns of a NaN that it compares
            return bool(np.minimum.reduce(values, None) >= 0 and np.maximum.reduce(values, None) <= _LARGEST)
    # Their bits, seen as unsigned, are in the order of the numbers; those of negative ones are larger.
    return bool(np.maximum.reduce(values.view(unsigned[0]), None) < unsigned[1])


def _refuse_first(
    name: str, expected: str, values: np.ndarray[Any, Any], bad: np.ndarray[Any, Any], error: type[Exception]
) -> None:
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        refuse(name, expected, values[first], f"at position {first}" if first else "", error)


def _fits(got: Shape, expected: Shape) -> bool:
    """Whether the shapes agree as far as they are known."""
    if got == expected:
        return True
    return len(got) == len(expected) and all(None in (n, m) or n == m for n, m in zip(got, expected, strict=True))


def _text(shape: Shape) -> str:
    return str(tuple("?" if n is None else n for n in shape)).replace("'", "")


def _described(xp: Arrays, x: Array) -> str:
    return f"{_dtype(x)} of shape {_text(xp.static_shape(x))}"


def _dtype(x: Array) -> str:
    return str(getattr(x.dtype, "name", x.dtype)).rsplit(".", 1)[-1]
