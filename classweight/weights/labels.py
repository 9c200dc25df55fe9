"""Labels of any kind, brought to the host: class indices, class names, or distributions along an axis.

No framework is imported: a tensor is known by what it offers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ..call import _check_finite, _check_prefix, _check_weights, _refuse_first, are_weights, drop
from ..compute.arrays import ArrayFunctions
from ..errors import TargetIndexError, refuse
from ..spec import _integer

HostArray = np.ndarray[Any, Any]
# Where nobody said how many classes there are: one stray label, or counts taken for labels, would ask for gigabytes.
MOST_CLASSES = 1 << 24
CHUNK = 1 << 18  # labels that are counted at a time, whatever the size of the array that they come in
_xp = ArrayFunctions(np)


@dataclass(frozen=True, slots=True)
class Labels:
    """One array of labels.

    ``values`` are class indices; with ``names``, positions in those; with ``axis``, the entries of distributions along
    it. ``keep``, None where nothing is left out, broadcasts against the values.
    """

    values: HostArray
    keep: HostArray | None
    names: tuple[str, ...] | None = None
    axis: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The position shape: one label, or one distribution, each."""
        return drop(self.values.shape, self.axis)

    @property
    def num_classes(self) -> int | None:
        """The length of the axis of distributions; None for class indices and names."""
        return None if self.axis is None else int(self.values.shape[self.axis])

    def spread(self, x: HostArray) -> HostArray:
        """Return what is given for a prefix of the positions as broadcastable against the values."""
        return _spread(x, self.shape, self.axis)

    def sample_weight(self, given: Any, *, counts: bool = False) -> HostArray:
        """Return sample weights, checked, as float64 of a prefix of the position shape; none < 0 where it counts."""
        weight = to_host(given, "sample_weight")
        _check_prefix(_xp, "sample_weight", weight, self.shape, "fib", "real numbers")
        (_check_weights if counts else _check_finite)("sample_weight", weight)
        return weight.astype(np.float64)

    def check_range(self, name: str, num_classes: int | None) -> None:
        """Refuse kept class indices outside ``[0, num_classes)``."""
        limit = MOST_CLASSES if num_classes is None else num_classes
        kept = True if self.keep is None else np.broadcast_to(self.keep, self.values.shape)
        low = self.values.min(initial=0, where=kept)
        high = self.values.max(initial=0, where=kept)
        if self.values.size and not (low >= 0 and high < limit):
            unless = " unless num_classes is given" if num_classes is None else ""
            expected = f"be class indices from 0 to {limit - 1}{unless}, or `ignore_index`"
            bad = ((self.values < 0) | (self.values >= limit)) & kept
            _refuse_first(name, expected, self.values, bad, TargetIndexError)

    def count(self, sample_weight: HostArray | None) -> tuple[HostArray, HostArray]:
        """Return the number of kept labels of each class, or the sum of their weights; and which classes occur."""
        codes, factors = self.values, list[HostArray]()
        if self.axis is not None:
            shape = [1] * self.values.ndim
            shape[self.axis] = -1
            codes = np.arange(self.num_classes or 0).reshape(shape)
            factors.append(self.values)
        if sample_weight is not None:
            factors.append(self.spread(sample_weight))
        return self._count(codes, factors, self.keep, sample_weight is not None)

    def _count(
        self, codes: HostArray, factors: list[HostArray], keep: HostArray | None, weighted: bool
    ) -> tuple[HostArray, HostArray]:
        num_classes = self.num_classes or 0
        number, total = np.zeros(num_classes, np.int64), np.zeros(num_classes)
        for index, *weights in _chunks(codes, factors, keep):
            number = _added(number, np.bincount(index, None, len(number)))
            if weights:
                total = _added(total, np.bincount(index, math.prod(weights), len(total)))
        # A class that a distribution has room for is known, even if it has no share; one of weight 0 occurs.
        occurs = number > 0 if self.axis is None else np.ones(num_classes, np.bool_)
        if factors and not weighted and self.values.dtype.kind in "iu":
            total = total.astype(np.int64)
        return total if factors else number, occurs

    @property
    def kept(self) -> HostArray | None:
        """Which positions are not left out, None where all are in."""
        return self.keep if self.keep is None or self.axis is None else self.keep.squeeze(self.axis)

    def expected(self, table: HostArray) -> HostArray:
        """Return sum_c w_c t_c of each distribution."""
        return np.asarray(np.moveaxis(self.values, self.axis or 0, -1) @ table)

    def largest(self) -> HostArray:
        """Return the class of each distribution's first largest entry."""
        return np.asarray(self.values.argmax(self.axis))


@dataclass(frozen=True, slots=True)
class SparseLabels(Labels):
    """A sparse matrix of distributions: ``values`` are its stored entries, row by row, of these positions and classes.

    ``keep`` is of the positions; what it leaves out is not among the entries. Nothing as large as the matrix is made.
    """

    positions: HostArray = field(kw_only=True)
    classes: HostArray = field(kw_only=True)
    matrix: tuple[int, int] = field(kw_only=True)
    """The number of positions, and that of classes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The position shape: one distribution each."""
        return self.matrix[:1]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.matrix[1]

    def count(self, sample_weight: HostArray | None) -> tuple[HostArray, HostArray]:
        """Return the sum of the kept entries of each class, or of their weights; and which classes occur."""
        factors = [self.values]
        if sample_weight is not None:
            factors.append(np.broadcast_to(sample_weight, self.shape)[self.positions])
        return self._count(self.classes, factors, None, sample_weight is not None)

    @property
    def kept(self) -> HostArray | None:
        """Which positions are not left out, None where all are in."""
        return self.keep

    def expected(self, table: HostArray) -> HostArray:
        """Return sum_c w_c t_c of each distribution."""
        return np.bincount(self.positions, self.values * table[self.classes], self.matrix[0])

    def largest(self) -> HostArray:
        """Return the class of each distribution's first largest entry; a stored one is the largest if it is > 0."""
        result = np.zeros(self.shape, np.int64)
        # The last that is written stays: the smallest class among a row's largest entries.
        order = np.lexsort((-self.classes, self.values, self.positions))
        order = order[self.values[order] > 0]
        result[self.positions[order]] = self.classes[order]
        return result


def _added(total: HostArray, part: HostArray) -> HostArray:
    """Return the sum of counts, of which the part's may know more classes."""
    part[: len(total)] += total
    return part


def read(
    labels: Any,
    name: str,
    *,
    mask: Any = None,
    ignore_index: int | None = None,
    one_hot: bool | None = None,
    axis: int = -1,
) -> Labels:
    """Return labels of any kind; ``name`` is the argument's, for errors."""
    if is_sparse(labels):
        shape = tuple(labels.shape)
        if one_hot is None and (len(shape) != 2 or min(shape) == 1):
            refuse("one_hot", f"be given where `{name}` are a sparse row or column", "None")
        if one_hot is not False and len(shape) == 2:
            return _read_sparse(labels, name, mask, ignore_index, axis)
        labels = labels.toarray()
    values = to_host(labels, name)
    names = None
    if values.dtype.kind in "OSUT":
        values, names = _encoded(values, name)
    values, kind = _plain(values, name)
    if one_hot and (names is not None or not values.ndim):
        refuse("one_hot", f"be None or False unless `{name}` are numbers along an axis", one_hot)
    soft = _is_soft(values, kind, name, one_hot, axis) if names is None and values.ndim else False
    class_axis = axis % values.ndim if soft else None
    keep = None
    if mask is not None:
        keep = to_host(mask, "mask")
        positions = drop(values.shape, class_axis)
        _check_prefix(_xp, "mask", keep, positions, "b", "bool")
        keep = _spread(keep, positions, class_axis)
    if ignore_index is not None:
        ignore_index = _integer("ignore_index", ignore_index, "be an int or None")
        if soft or names is not None:
            _refuse_ignore_index(ignore_index)
        kept = values != ignore_index
        keep = kept if keep is None else keep & kept
    if keep is not None and (soft or kind == "f"):
        values = np.where(keep, values, 0)  # what is left out may be anything, NaN too
    if soft:
        _check_weights(name, values)
    elif kind == "f":
        values = _whole(values.astype(np.float64), name)
    return Labels(values, keep, names, class_axis)


def _read_sparse(matrix: Any, name: str, mask: Any, ignore_index: int | None, axis: int) -> SparseLabels:
    """Return the distributions along an axis of a sparse matrix."""
    if not -2 <= axis < 2:
        refuse("axis", f"be an axis of the labels, whose shape is {tuple(matrix.shape)}", axis)
    if ignore_index is not None:
        _refuse_ignore_index(ignore_index)
    rows = (matrix if axis % 2 else matrix.T).tocsr(copy=True)
    rows.sum_duplicates()
    entries = rows.tocoo()
    positions, classes, values = (to_host(x, name) for x in (entries.row, entries.col, entries.data))
    values, _ = _plain(values, name)
    keep = None
    if mask is not None:
        keep = to_host(mask, "mask")
        _check_prefix(_xp, "mask", keep, rows.shape[:1], "b", "bool")
        keep = np.broadcast_to(keep, rows.shape[:1])
        positions, classes, values = (x[keep[positions]] for x in (positions, classes, values))
    if not are_weights(values):
        first = np.flatnonzero(~((values >= 0) & (values < np.inf)))
        if first.size:
            place = (int(positions[first[0]]), int(classes[first[0]]))
            refuse(name, "be finite and >= 0", values[first[0]], f"at position {place if axis % 2 else place[::-1]}")
    return SparseLabels(values, keep, None, axis % 2, positions=positions, classes=classes, matrix=rows.shape)


def to_host(x: Any, name: str) -> HostArray:
    """Return an array-like, or a tensor of any framework on any device, as an array of NumPy."""
    if isinstance(x, np.ma.MaskedArray):
        refuse(name, "be a plain array, with what is masked in `mask`", "a masked array", error=TypeError)
    if isinstance(x, list | tuple):
        x = [_fetched(item) if hasattr(item, "shape") else item for item in x]
    try:
        values = np.asarray(_fetched(x))
    except (TypeError, ValueError, NotImplementedError):
        refuse(name, "be values of a regular shape that the host can read", type(x).__name__, error=TypeError)
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def _fetched(x: Any) -> Any:
    """Return a tensor in a form that NumPy reads."""
    if hasattr(x, "xp") and hasattr(x, "array"):  # a Variable of Chainer
        x = x.array
    if hasattr(x, "detach") and hasattr(x, "cpu"):  # torch
        x = x.detach().cpu()
        x = x.float() if "bfloat16" in str(x.dtype) else x
    elif hasattr(x, "get") and hasattr(x, "__cuda_array_interface__"):  # CuPy
        x = x.get()
    elif hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        x = np.from_dlpack(x)
    return x


def outputs_of(x: Any) -> dict[Any, Any] | list[Any] | None:
    """Return the outputs in a mapping or a list of arrays, None where this is one array, or one mapping of numbers.

    A list of lists of numbers is one array.
    """
    if isinstance(x, Mapping) and not is_sparse(x):
        return None if all(map(_is_scalar, x.values())) else dict(x)
    several = isinstance(x, list | tuple) and x and all(len(getattr(item, "shape", ())) for item in x)
    return list(x) if several else None


def is_sparse(x: Any) -> bool:
    """Whether this is a sparse matrix of SciPy, or in its likeness. One of its kinds is a dict."""
    return hasattr(x, "tocsr") and hasattr(x, "toarray")


def each_output(outputs: dict[Any, Any] | list[Any], function: Callable[[Any, Any], Any]) -> Any:
    """Return the same container with ``function(key, output)`` of each output."""
    if isinstance(outputs, dict):
        return {key: function(key, output) for key, output in outputs.items()}
    return [function(i, output) for i, output in enumerate(outputs)]


def _is_scalar(x: Any) -> bool:
    return isinstance(x, Number | str | bytes | np.generic) or (hasattr(x, "shape") and len(x.shape) == 0)


def _spread(x: HostArray, positions: tuple[int, ...], axis: int | None) -> HostArray:
    x = x.reshape(x.shape + (1,) * (len(positions) - x.ndim))
    return x if axis is None else np.expand_dims(x, axis)


def _encoded(values: HostArray, name: str) -> tuple[HostArray, tuple[str, ...] | None]:
    """Return names as positions in the names found, in order of appearance; Python integers as integers."""
    items = values.ravel().tolist()
    if all(isinstance(item, int) for item in items) and items:
        return to_host(items, name).reshape(values.shape), None
    if not all(isinstance(item, str | bytes) for item in items):
        got = " and ".join(sorted({type(item).__name__ for item in items}))
        refuse(name, "be class indices, class names or distributions", got, error=TypeError)
    names: dict[str, int] = {}
    found = (item.decode() if isinstance(item, bytes) else item for item in items)
    codes = np.fromiter((names.setdefault(item, len(names)) for item in found), np.int64, len(items))
    return codes.reshape(values.shape), tuple(names)


def _plain(values: HostArray, name: str) -> tuple[HostArray, str]:
    """Return bools as integers, extended floating types as float64, and the kind: "i" or "f"."""
    kind = _xp.kind(values)
    if kind == "other":
        refuse(name, "be class indices, class names or distributions", f"dtype {values.dtype}", error=TypeError)
    if kind == "b":
        return values.view(np.uint8), "i"
    return (values if values.dtype.kind in "iuf" else values.astype(np.float64)), kind


def _refuse_ignore_index(given: int) -> NoReturn:
    refuse("ignore_index", "be None unless the labels are class indices: others have `mask`", given)


def _is_soft(values: HostArray, kind: str, name: str, one_hot: bool | None, axis: int) -> bool:
    """Whether the axis holds distributions: as said, else by the type where the values leave no doubt."""
    if not -values.ndim <= _integer("axis", axis, "be an int") < values.ndim:
        refuse("axis", f"be an axis of the labels, whose shape is {values.shape}", axis)
    if one_hot is not None or values.ndim < 2 or values.shape[axis] == 1:
        return bool(one_hot)
    if kind == "i":
        if values.size and values.min() == 0 and values.max() == 1 and (values.sum(axis, dtype=np.int64) <= 1).all():
            refuse("one_hot", "be given for integers that look like either", "None")
        return False
    sums = values.sum(axis, dtype=np.float64)
    # Half types add up to 1 no better than this; an all-zero row is padding. A NaN is refused later, by position.
    if not ((abs(sums - 1) < 0.01) | (sums == 0) | np.isnan(sums)).all():
        refuse("one_hot", "be given for numbers that do not add up to 1", "None")
    return True


def _whole(values: HostArray, name: str) -> HostArray:
    bad = ~(values == np.rint(values)) | (abs(values) >= 2**53)
    _refuse_first(name, "be whole numbers where they are class indices", values, bad, ValueError)
    return values.astype(np.int64)


def _chunks(codes: HostArray, factors: list[HostArray], keep: HostArray | None) -> Iterator[tuple[HostArray, ...]]:
    """Return the kept codes and factors, spread over each other, some at a time, in constant memory."""
    operands = [codes, *factors, *([] if keep is None else [keep])]
    types: list[npt.DTypeLike] = [np.int64, *(np.float64 for _ in factors), *([] if keep is None else [np.bool_])]
    iterator = np.nditer(
        operands,
        ["external_loop", "buffered", "zerosize_ok"],
        [["readonly"] for _ in operands],
        op_dtypes=types,
        casting="same_kind",
        buffersize=CHUNK,
    )
    for chunk in iterator:
        arrays: tuple[HostArray, ...] = chunk if isinstance(chunk, tuple) else (chunk,)
        if keep is not None:
            arrays = tuple(array[arrays[-1]] for array in arrays[:-1])
        if arrays[0].size:
            yield arrays
