"""Class weights from labels or from counts: schemes, normalisations, and what a class without a sample weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import refuse
from ..spec import _choice, _is_choice, _number
from . import labels as _labels
from .counts import ClassCounts, keyed

__all__ = ["ClassWeights", "class_weights"]

Scheme = Literal["inverse", "balanced", "max_ratio", "power", "effective_number", "log_scaled", "median_frequency"]
Normalize = Literal["mean_class", "mean_sample", "max"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class ClassWeights:
    """One weight a class, and where it came from; `class_weights` makes them.

    A sequence of floats, so that it goes wherever weights are asked for: ``SoftmaxCrossEntropy(class_weight=...)``,
    ``torch.as_tensor(...)``, ``np.asarray(...)``; and ``as_dict()`` is for ``fit(class_weight=...)`` of Keras. Printed,
    it is a table of the classes: count, share of the samples, weight, and share of the total weight.
    """

    values: tuple[float, ...]
    counts: tuple[int | float, ...]
    class_names: tuple[str, ...] | None = None
    scheme: Scheme = "balanced"
    power: float | None = None
    beta: float | None = None
    normalize: Normalize | None = None
    zero_count: float | Literal["error", "zero", "largest"] = "error"
    offset: float | None = None
    totals: tuple[float, ...] | None = None

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the weights of shape ``(C,)``, as float64 unless another dtype is asked for."""
        if copy is False:
            refuse("copy", "be None or True: the weights are no array", copy)
        return np.array(self.values, np.float64 if dtype is None else dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values)

    def __getitem__(self, index: int) -> float:
        return self.values[index]

    def __repr__(self) -> str:
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default)
        return f"ClassWeights({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

    def as_dict(self, *, names: bool = False) -> dict[Any, float]:
        """Return the weight of each class by its index, or by its name."""
        return keyed(list(self.values), self.class_names, names)

    def to_json(self) -> dict[str, Any]:
        """Return all of it, safe for JSON."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("values", "class_names")}
        return {
            "weights": list(self.values),
            "class_names": self.class_names and list(self.class_names),
            **{name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()},
            "share": self.share.tolist(),
            "effective_share": self.effective_share.tolist(),
        }

    @property
    def share(self) -> Vector:
        """Each class's share of the samples, of shape ``(C,)``."""
        return _share(np.array(self.counts, np.float64))

    @property
    def effective_share(self) -> Vector:
        """Each class's share of the total weight, of shape ``(C,)``."""
        return _share(np.array(self.counts, np.float64) * self)

    def __str__(self) -> str:
        header = ["class", *(() if self.class_names is None else ["name"]), "count", "share", "weight"]
        rows = [[*header, "effective share"]]
        shares = zip(self.counts, self.share, self.values, self.effective_share, strict=True)
        for c, (count, share, weight, effective) in enumerate(shares):
            name = () if self.class_names is None else [self.class_names[c]]
            rows.append([str(c), *name, f"{count:.10g}", f"{share:.6f}", f"{weight:.6g}", f"{effective:.6f}"])
        if len(rows) > 61:
            rows[31:-30] = [["..."] * len(rows[0])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = ["<" if title == "name" else ">" for title in rows[0]]
        formats = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
        return "\n".join("  ".join(formats).format(*row) for row in rows)


def class_weights(
    labels: Any = None,
    scheme: Scheme = "balanced",
    *,
    counts: Any = None,
    num_classes: int | None = None,
    class_names: Iterable[str] | None = None,
    normalize: Normalize | None = None,
    zero_count: float | Literal["error", "zero", "largest"] = "error",
    power: float | None = None,
    beta: float | None = None,
    offset: float | None = None,
    totals: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    ignore_index: int | None = None,
    one_hot: bool | None = None,
    axis: int = -1,
) -> Any:
    r"""Return the weight of each class, from labels or from counts.

    With n_c the samples of class c, n their sum and k the number of classes that have samples::

        inverse           1 / n_c
        balanced          n / (k n_c)                      scikit-learn's; every class weighs the same in all
        max_ratio         max(n) / n_c                     1 for the most frequent class
        power             n_c ** -power                    0.5 is the inverse root
        effective_number  (1 - beta) / (1 - beta ** n_c)   Cui et al., 2019
        log_scaled        1 / ln(offset + n_c / n)         ENet: Paszke et al., 2016
        median_frequency  median(f) / f_c, f = n_c / m_c   Eigen and Fergus, 2015; SegNet

    m_c, the ``totals``, are all pixels of the images that show class c; n where they are not given.

    Parameters
    ----------
    labels : array-like, tensor of any framework, mapping, or ClassCounts
        Labels as in `ClassCounts.update`: indices or names in any shape, or distributions. A mapping class -> number
        (a ``collections.Counter``) and `ClassCounts` are counts; **any other array is labels**, and counts in an array
        go to ``counts``. A mapping, or a list, of arrays has one output each.
    scheme : "balanced", "inverse", "max_ratio", "power", "effective_number", "log_scaled" or "median_frequency"
    counts : array-like of shape (C,), mapping class -> count, or ClassCounts
        Instead of labels. What has keys, such as pandas's ``value_counts()``, is a mapping.
    num_classes : int, optional
        C. Else the largest index and one.
    class_names : sequence of str, optional
        The classes in order. Labels that are names have the sorted order without it.
    normalize : None, "mean_class", "mean_sample" or "max"
        Scale the weights so that their mean over the classes is 1 (they add up to k), their mean over the samples is
        1, or the largest is 1.
    zero_count : "error", "zero", "largest" or float
        What a class without a sample, or whose samples weigh 0 together, weighs: 0, as much as the largest weight, or
        this number, as it is. The scheme and the scale are those of the other classes.
    power : float, optional
        Of the scheme "power", >= 0; 0.5 where it is not given.
    beta : float, optional
        Of the scheme "effective_number", from 0 to 1 (1 excluded); 0.999 where it is not given. 0 weighs all classes
        the same, and the weights are proportional to "inverse" as it approaches 1.
    offset : float, optional
        Of the scheme "log_scaled", finite and >= 1; 1.02 where it is not given. The weights are below 1 / ln(offset).
    totals : array-like of shape (C,), optional
        Of the scheme "median_frequency", each at least the class's count.
    sample_weight, mask, ignore_index, one_hot, axis
        How labels count, as in `ClassCounts.update`.

    Returns
    -------
    ClassWeights
        For several outputs, one of each, in a dict or a list as the labels were.

    Raises
    ------
    ValueError
        A class without a sample, unless ``zero_count`` says what it weighs; no sample at all; a parameter of another
        scheme; labels or counts that `ClassCounts` refuses.
    TypeError
        Labels that are neither numbers nor names.

    Notes
    -----
    Sources: ``compute_class_weight`` of scikit-learn; Cui, Jia, Lin, Song and Belongie, "Class-balanced loss based on
    effective number of samples", CVPR 2019; Paszke, Chaurasia, Kim and Culurciello, "ENet", arXiv:1606.02147, section
    5.2; Eigen and Fergus, "Predicting depth, surface normals and semantic labels with a common multi-scale
    convolutional architecture", ICCV 2015, section 6.3.2, whose scheme SegNet (Badrinarayanan et al., 2017) uses.

    Examples
    --------
    >>> print(class_weights(counts=[100000, 100, 10], scheme="max_ratio"))
    class   count     share  weight  effective share
        0  100000  0.998901       1         0.333333
        1     100  0.000999    1000         0.333333
        2      10  0.000100   10000         0.333333
    >>> class_weights(["cat", "dog", "cat", "cat"]).as_dict(names=True)
    {'cat': 0.6666666666666666, 'dog': 2.0}
    >>> import classweight as cw
    >>> cw.SoftmaxCrossEntropy(class_weight=class_weights([0, 1, 1, 1], normalize="max"))
    SoftmaxCrossEntropy(class_weight=(1.0, 0.3333333333333333))
    """
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "class_names": class_names,
        "sample_weight": sample_weight,
        "mask": mask,
        "ignore_index": ignore_index,
        "one_hot": one_hot,
        "axis": axis,
    }
    rule = _Rule.checked(scheme, power, beta, offset, totals, normalize, zero_count)
    if (labels is None) == (counts is None):
        refuse("counts", "be given where labels are not, and only there", "both" if counts is not None else "neither")
    outputs = _labels.outputs_of(labels)
    if outputs is not None:
        return _labels.each_output(outputs, lambda _, output: rule.weights(_counted(output, None, **options)))
    return rule.weights(_counted(labels, counts, **options), "labels" if counts is None else "counts")


def _counted(
    labels: Any, counts: Any, num_classes: int | None, class_names: Iterable[str] | None, **reading: Any
) -> ClassCounts:
    """Return the counts that were given, or those of the labels."""
    if counts is None and isinstance(labels, Mapping | ClassCounts) and not _labels.is_sparse(labels):
        labels, counts = None, labels
    if counts is None:
        return ClassCounts(num_classes, class_names=class_names).update(labels, **reading)
    for name, value in reading.items():
        if value is not None and name != "axis":
            refuse(name, "be None with counts, which have no single labels", repr(value))
    if isinstance(counts, ClassCounts):
        return ClassCounts(num_classes, class_names=class_names) + counts
    return ClassCounts.from_counts(counts, num_classes, class_names=class_names)


@dataclass(frozen=True)
class _Rule:
    """How counts become weights."""

    scheme: Scheme
    power: float | None
    beta: float | None
    offset: float | None
    totals: Vector | None
    normalize: Normalize | None
    zero_count: float | Literal["error", "zero", "largest"]

    @classmethod
    def checked(
        cls, scheme: Any, power: Any, beta: Any, offset: Any, totals: Any, normalize: Any, zero_count: Any
    ) -> _Rule:
        _choice("scheme", scheme, get_args(Scheme))
        _choice("normalize", normalize, (None, *get_args(Normalize)))
        for name, value, owner in (
            ("power", power, "power"),
            ("beta", beta, "effective_number"),
            ("offset", offset, "log_scaled"),
            ("totals", totals, "median_frequency"),
        ):
            if value is not None and scheme != owner:
                refuse(name, f"be None unless the scheme is {owner!r}", f"{value!r} with {scheme!r}")
        if scheme == "power":
            power = _number("power", 0.5 if power is None else power, "be finite and >= 0", lambda p: 0 <= p < np.inf)
        if scheme == "effective_number":
            expected = "be a number from 0 to 1 (1 excluded)"
            beta = _number("beta", 0.999 if beta is None else beta, expected, lambda b: 0 <= b < 1)
        if scheme == "log_scaled":
            expected = "be finite and >= 1"
            offset = _number("offset", 1.02 if offset is None else offset, expected, lambda c: 1 <= c < np.inf)
        if totals is not None:
            totals = _labels.to_host(totals, "totals")
            if totals.ndim != 1 or totals.dtype.kind not in "iuf":
                refuse("totals", "be numbers of shape (C,), one per class", f"{totals.dtype} of shape {totals.shape}")
        if not _is_choice(zero_count, "error", "zero", "largest"):
            expected = "be 'error', 'zero', 'largest' or a finite number >= 0"
            zero_count = _number("zero_count", zero_count, expected, lambda w: 0 <= w < np.inf)
        return cls(scheme, power, beta, offset, totals, normalize, zero_count)

    def weights(self, counted: ClassCounts, argument: str = "labels") -> ClassWeights:
        counts, names = counted.counts, counted.class_names
        present = counts > 0
        if not present.any():
            refuse(argument, "hold at least one sample", "none")
        if self.zero_count == "error" and not present.all():
            first = int(np.flatnonzero(~present)[0])
            hint = " (an array of counts goes to `counts`)" if argument == "labels" else ""
            expected = (
                f"hold a sample of each of the {len(counts)} classes, or `zero_count` say what an empty class weighs"
            )
            weighing = " with a weight > 0" if counts.dtype == np.float64 else ""
            refuse(argument, expected + hint, f"none of class {first if names is None else names[first]!r}{weighing}")
        n = counts[present].astype(np.float64)
        m = np.full(n.shape, n.sum())
        if self.totals is not None:
            if self.totals.shape != counts.shape or not (counts <= self.totals).all():
                refuse("totals", f"be {len(counts)} numbers, each at least the class's count", self.totals)
            m = self.totals[present].astype(np.float64)
        with np.errstate(all="ignore"):
            weights = self._scale(self._raw(n, m), n)
        if not ((weights > 0) & (weights < np.inf)).all():
            refuse("scheme", "give finite weights > 0 for these counts", f"{weights.min()} to {weights.max()}")
        match self.zero_count:
            case "zero" | "error":
                absent = 0.0
            case "largest":
                absent = weights.max()
            case number:
                absent = number
        values = np.full(counts.shape, absent)
        values[present] = weights
        return ClassWeights(
            tuple(values.tolist()),
            tuple(counts.tolist()),
            names,
            self.scheme,
            self.power,
            self.beta,
            self.normalize,
            self.zero_count,
            self.offset,
            None if self.totals is None else tuple(self.totals.tolist()),
        )

    def _raw(self, n: Vector, m: Vector) -> Vector:
        match self.scheme:
            case "inverse":
                return 1 / n
            case "balanced":
                return np.asarray(n.sum() / (len(n) * n))
            case "max_ratio":
                return np.asarray(n.max() / n)
            case "power":
                return np.asarray(n ** -np.float64(self.power or 0))
            case "log_scaled":
                # What is added to 1 is small, and log(offset + share) would round it away.
                return np.asarray(1 / np.log1p(np.float64(self.offset or 0) - 1 + n / n.sum()))
            case "median_frequency":
                return np.asarray(np.median(n / m) / (n / m))
            case "effective_number":
                beta = np.float64(self.beta or 0)
                # 1 - beta ** n would lose every digit where beta is close to 1.
                return np.asarray((1 - beta) / -np.expm1(n * np.log(beta)))

    def _scale(self, weights: Vector, n: Vector) -> Vector:
        match self.normalize:
            case "mean_class":
                return np.asarray(weights * (len(n) / weights.sum()))
            case "mean_sample":
                return np.asarray(weights * (n.sum() / (n * weights).sum()))
            case "max":
                return np.asarray(weights / weights.max())
        return weights


def _share(x: Vector) -> Vector:
    return np.asarray(x / x.sum())
