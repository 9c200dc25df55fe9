"""Counts of labels, gathered from a stream, and added up from wherever the parts were counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..call import _check_weights
from ..errors import refuse
from ..spec import _integer, _number
from . import labels as _labels

__all__ = ["ClassCounts"]

VERSION = 1


class ClassCounts:
    """Count labels, or add up their sample weights, batch by batch.

    Memory is that of the counts. Counts of the parts of a data set add up with ``+``, in any order, and travel by
    pickle or `to_dict`.

    Parameters
    ----------
    num_classes : int, optional
        C. Else it grows with the labels: the largest index seen and one, or the names seen.
    class_names : sequence of str, optional
        The classes in order. Labels may then be these names, or indices into them. Labels that are names need no list
        of them: their order is the sorted one.

    Raises
    ------
    ValueError, TypeError
        Another number of names than classes, a name given twice, a number of classes below 1.

    Examples
    --------
    >>> counts = ClassCounts()
    >>> counts.update([0, 1, 1]).update([1, 0], sample_weight=[0.5, 2])
    ClassCounts({0: 3.0, 1: 2.5})
    >>> ClassCounts().update(["cat", "dog"]) + ClassCounts().update(["ant", "dog"])
    ClassCounts({'ant': 1, 'cat': 1, 'dog': 2})
    """

    def __init__(self, num_classes: int | None = None, *, class_names: Iterable[str] | None = None) -> None:
        if num_classes is not None:
            num_classes = _integer("num_classes", num_classes, "be an int or None")
            if num_classes < 1:
                refuse("num_classes", "be >= 1", num_classes)
        if class_names is not None:
            names: tuple[Any, ...] = (None,)
            with contextlib.suppress(TypeError):
                names = tuple(class_names)
            if isinstance(class_names, str) or not all(isinstance(name, str) for name in names):
                refuse("class_names", "be a sequence of strings", repr(class_names), error=TypeError)
            if len(set(names)) != len(names) or len(names) != (num_classes or len(names)):
                each = "one per class" if num_classes is None else f"one for each of {num_classes} classes"
                refuse("class_names", f"be different names, {each}", names)
            class_names, num_classes = tuple(map(str, names)), len(names)
        self._num_classes = num_classes
        self._given_names = class_names
        self._counts: dict[Any, int | float] = {}

    def update(
        self,
        labels: Any,
        sample_weight: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        ignore_index: int | None = None,
        one_hot: bool | None = None,
        axis: int = -1,
    ) -> Self:
        """Count one more batch, and return these counts.

        Parameters
        ----------
        labels : array-like, or tensor of any framework
            Class indices or class names in any shape: ``(N,)``, pixel maps ``(N, H, W)``; or distributions, one-hot or
            soft, along ``axis``, which count as their entries.
        sample_weight : array-like, optional
            Finite and >= 0, for there is no less than no label, though a loss takes weights of either sign; a scalar or
            of a shape that is a prefix of the labels' position shape. Labels then count as much as they weigh.
        mask : array-like of bool, optional
            False where a label does not count; a prefix of the position shape.
        ignore_index : int, optional
            Class indices equal to it do not count.
        one_hot : bool, optional
            Whether ``axis`` holds distributions. Default: it does if it is longer than 1 and the labels are floating
            point and add up to 1, or a sparse matrix of several rows and columns.
        axis : int
            The class axis of distributions.

        Raises
        ------
        ValueError
            A label out of range, weights that are negative or not finite, shapes that do not fit, labels of which
            nobody can say whether they are one-hot. The counts are then what they were before.
        TypeError
            Labels that are neither numbers nor names, or indices after names.
        """
        batch = _labels.read(labels, "labels", mask=mask, ignore_index=ignore_index, one_hot=one_hot, axis=axis)
        if None not in (batch.num_classes, self._num_classes) and batch.num_classes != self._num_classes:
            expected = f"have {self._num_classes} entries, one per class, along axis {batch.axis}"
            refuse("labels", expected, batch.num_classes)
        if batch.axis is None and batch.names is None:
            batch.check_range("labels", self._num_classes)
        given = None if sample_weight is None else batch.sample_weight(sample_weight, counts=True)
        counts, occurs = batch.count(given)
        keys = batch.names or range(len(counts))
        self._add({keys[c]: count for c, count in enumerate(counts.tolist()) if occurs[c]})
        return self

    def _add(self, counts: Mapping[Any, int | float], argument: str = "labels") -> None:
        keys: Iterable[Any] = counts
        named = any(isinstance(key, str) for key in counts)
        if self._given_names is not None and named:
            position = {name: i for i, name in enumerate(self._given_names)}
            unknown = [key for key in counts if key not in position]
            if unknown:
                refuse(argument, f"be among the class names {self._given_names}", repr(unknown[0]))
            keys = [position[key] for key in counts]
        elif named and self._num_classes is not None:
            refuse("class_names", "be given with num_classes where the labels are names", "None")
        elif self._counts and counts and named != self._is_named:
            came = "names after indices" if named else "indices after names"
            refuse(argument, "be all class indices or all class names", came, error=TypeError)
        keys = list(keys)
        # Without a number, one stray index would ask for gigabytes.
        limit = self._num_classes or _labels.MOST_CLASSES
        beyond = [key for key in keys if not isinstance(key, str) and not 0 <= key < limit]
        if beyond:
            refuse(argument, f"have class indices from 0 to {limit - 1}", beyond[0])
        for key, count in zip(keys, counts.values(), strict=True):
            self._counts[key] = self._counts.get(key, 0) + count

    @property
    def _is_named(self) -> bool:
        return isinstance(next(iter(self._counts), None), str)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names in the order of the classes, None where there are none."""
        return tuple(sorted(self._counts)) if self._is_named else self._given_names

    @property
    def num_classes(self) -> int:
        """C as given, or as far as it was seen."""
        if self._num_classes is not None:
            return self._num_classes
        return len(self._counts) if self._is_named else max(self._counts, default=-1) + 1

    @property
    def counts(self) -> npt.NDArray[Any]:
        """The counts of shape ``(C,)``: int64, or float64 once a sample weight was given."""
        classes: Iterable[Any] = self.class_names or () if self._is_named else range(self.num_classes)
        counts = [self._counts.get(key, 0) for key in classes]
        return np.array(counts, np.float64 if any(isinstance(count, float) for count in counts) else np.int64)

    def as_dict(self, *, names: bool = False) -> dict[Any, int | float]:
        """Return the count of each class by its index, or by its name."""
        return keyed(self.counts.tolist(), self.class_names, names)

    @classmethod
    def from_counts(
        cls, counts: Any, num_classes: int | None = None, *, class_names: Iterable[str] | None = None
    ) -> Self:
        """Make the counts that somebody else counted.

        Parameters
        ----------
        counts : mapping class -> count, or array-like of shape (C,)
            Finite and >= 0. A class is an index or a name; one that the mapping lacks counts 0. What has keys, such as
            pandas's ``value_counts()``, is a mapping.

        Examples
        --------
        >>> ClassCounts.from_counts([5, 0, 2]).as_dict()
        {0: 5, 1: 0, 2: 2}
        """
        result = cls(num_classes, class_names=class_names)
        if isinstance(counts, Mapping) or hasattr(counts, "keys"):
            given = {_class(key): counts[key] for key in counts.keys()}  # noqa: SIM118 - a Series iterates its values
        else:
            array = _labels.to_host(counts, "counts")
            if array.ndim != 1 or array.dtype.kind not in "iuf":
                expected = "be a mapping or numbers of shape (C,), one per class"
                refuse("counts", expected, f"{array.dtype} of shape {array.shape}")
            _check_weights("counts", array)
            given = dict(enumerate(array.tolist()))
            result._num_classes = result.num_classes or len(given)
        for key, count in given.items():
            number = _number("counts", count, "be finite and >= 0", lambda n: 0 <= n < np.inf)
            given[key] = int(count) if number.is_integer() and not isinstance(count, float) else number
        result._add(given, "counts")
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe dict: the counts, and what was said of the classes."""
        names = None if self._given_names is None else list(self._given_names)
        pairs = [[key, self._counts[key]] for key in sorted(self._counts)]
        return {"version": VERSION, "num_classes": self._num_classes, "class_names": names, "counts": pairs}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Self:
        """Make the counts that `to_dict` described."""
        if not isinstance(description, Mapping):
            refuse("description", "be a mapping as `to_dict` gives it", type(description).__name__, error=TypeError)
        if description.get("version") != VERSION:
            refuse("version", f"be {VERSION}", repr(description.get("version")))
        counts = dict(map(tuple, description["counts"]))
        return cls.from_counts(counts, description["num_classes"], class_names=description["class_names"])

    def __add__(self, other: object) -> ClassCounts:
        """Return the counts of both parts.

        Raises
        ------
        ValueError, TypeError
            Parts with different numbers or names of classes.
        """
        if not isinstance(other, ClassCounts):
            return NotImplemented
        for name, ours, theirs in (
            ("num_classes", self._num_classes, other._num_classes),
            ("class_names", self._given_names, other._given_names),
        ):
            if None not in (ours, theirs) and ours != theirs:
                refuse(name, "be the same in both parts", f"{ours} and {theirs}")
        names = self._given_names or other._given_names
        result = ClassCounts(self._num_classes or other._num_classes, class_names=names)
        for part in (self, other):
            result._add(part._counts)
        return result

    def __radd__(self, other: object) -> ClassCounts:
        """Return a copy for the 0 that `sum` begins with."""
        return ClassCounts() + self if isinstance(other, int) and other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Whether the classes and their counts are the same."""
        if not isinstance(other, ClassCounts):
            return NotImplemented
        return self.class_names == other.class_names and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ClassCounts({self.as_dict(names=self.class_names is not None)})"


def keyed(values: list[Any], class_names: tuple[str, ...] | None, names: bool) -> dict[Any, Any]:
    """Return one value a class by the class's index, or by its name."""
    if not names:
        return dict(enumerate(values))
    if class_names is None:
        refuse("names", "be False where the classes have none", names)
    return dict(zip(class_names, values, strict=True))


def _class(key: Any) -> int | str:
    """Return a mapping's key as a class; a bool is one, as the labels of a binary problem may be."""
    if isinstance(key, str):
        return str(key)
    return int(key) if isinstance(key, bool | np.bool_) else _integer("counts", key, "have int or str keys")
