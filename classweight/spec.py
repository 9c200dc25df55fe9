"""What the user means: two immutable descriptions of a loss, free of any framework.

Every framework's habit is one instance of these two classes; `classweight.conventions` lists them by native name.
`classweight.lowering` turns an instance and a batch into coefficients.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from .errors import refuse

__all__ = ["SigmoidCrossEntropy", "SoftmaxCrossEntropy", "Spec", "from_dict"]

VERSION = 1

Reduction = Literal[
    "none",
    "sum",
    "mean_over_weights",
    "mean_over_valid",
    "mean_over_positions",
    "mean_over_batch",
    "mean_over_nonzero",
]
Inputs = Literal["logits", "log_probs", "probs"]
Precision = Literal["native", "exact"]
Weighting = Literal["term", "label", "expected"]


class Spec:
    """What both losses share: validation, equality by value, a short repr, JSON and a fingerprint."""

    reduction: Reduction
    zero_denominator: Literal["zero", "nan"]
    label_smoothing: float
    inputs: Inputs
    clip: float | Literal["dtype"] | None
    precision: Precision
    weighting: Any
    _weightings: ClassVar[tuple[str, ...]] = get_args(Weighting)

    def __post_init__(self) -> None:
        self._set(
            "label_smoothing",
            _number("label_smoothing", self.label_smoothing, "be a number from 0 to 1", lambda e: 0 <= e <= 1),
        )
        _choice("reduction", self.reduction, get_args(Reduction))
        _choice("zero_denominator", self.zero_denominator, ("zero", "nan"))
        _choice("weighting", self.weighting, self._weightings)
        _choice("inputs", self.inputs, get_args(Inputs))
        _choice("precision", self.precision, get_args(Precision))
        if self.clip is not None:
            if self.inputs != "probs":
                refuse("clip", "be None unless inputs='probs'", repr(self.clip))
            if not _is_choice(self.clip, "dtype"):
                expected = "be None, 'dtype' or a number from 0 to 0.5 (0.5 excluded)"
                self._set("clip", _number("clip", self.clip, expected, lambda e: 0 <= e < 0.5))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in changed)})"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((type(self), *(getattr(self, f.name) for f in fields(self))))  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was cached: a string's hash differs from one process to the next."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe dict: every field, the loss's name and the version of the format."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]
        return {"loss": type(self).__name__, "version": VERSION, **values}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Self:
        """Make the spec that `to_dict` described.

        Raises
        ------
        ValueError
            Another loss or version, or a field that this version does not know.
        """
        values = dict(description)
        loss, version = values.pop("loss", None), values.pop("version", None)
        if loss != cls.__name__:
            refuse("loss", f"be {cls.__name__!r}", repr(loss))
        if version != VERSION:
            refuse("version", f"be {VERSION}", repr(version))
        unknown = sorted(set(values) - {f.name for f in fields(cls)})  # type: ignore[arg-type]
        if unknown:
            refuse("description", f"hold only fields of {cls.__name__}", unknown)
        return cls(**{name: _frozen(value) for name, value in values.items()})

    def fingerprint(self) -> str:
        """Return the SHA-256 of the canonical JSON: the same in every process and on every machine."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, repr=False)
class SoftmaxCrossEntropy(Spec):
    r"""Describe a weighted cross-entropy of one class out of C.

    Also known as softmax loss, categorical or sparse categorical cross-entropy, multinomial log loss, and - on
    log-probabilities - negative log-likelihood. With ``L_ic = -log softmax(z_i)_c``, smoothed targets
    ``t' = (1 - e) t + e / C``, sample weights ``s`` and class weights ``w``, a position's loss in nats is::

        term      s_i * sum_c w_c t'_ic L_ic                    (torch, TensorFlow with y * w)
        label     s_i * w[argmax_c t_ic] * sum_c t'_ic L_ic     (Keras fit, Chainer)
        expected  s_i * (sum_c w_c t'_ic) * sum_c t'_ic L_ic    (Paddle, the U-Net recipe)

    All three agree on hard targets without smoothing. ``reduction`` divides the sum over positions.

    Parameters
    ----------
    class_weight : None, array-like of shape (C,), or mapping class -> weight
        Finite, of either sign; held as float64. A mapping must name every class unless `missing_class_weight` is a
        number.
    missing_class_weight : "error" or float
        What a class absent from the mapping weighs (Keras 3: 1.0).
    weighting : "term", "label" or "expected"
        Where the class weight enters, as above.
    label_smoothing : float
        e, from 0 to 1.
    ignore_index : int or None
        Index targets equal to it are ignored. Distributions use the call's ``mask``.
    reduction : str
        With v = 1 where a position is neither ignored nor masked and W its class weight before smoothing:
        "none"; "sum"; "mean_over_weights" (by sum v s W); "mean_over_valid" (sum v); "mean_over_positions" (all);
        "mean_over_batch" (length of the first position axis); "mean_over_nonzero" (positions with v s W != 0).
    zero_denominator : "zero" or "nan"
        The value when the denominator is exactly 0. The gradient is then 0.
    axis : int
        The class axis. 1-d logits are one position whatever it says.
    inputs : "logits", "log_probs" or "probs"
        What is handed in; the gradient is with respect to it. Where a number is no probability, a term that does not
        exist - log of p below 0, log(1 - p) of p above 1, anything of a row that its sum cannot divide - is NaN if it
        counts. Log-probabilities of a softmax may be any numbers.
    clip : None, float or "dtype"
        Probabilities are clipped to [clip, 1 - clip]; "dtype" is the input type's eps. The gradient is 0 where clipped.
    renormalize : None, "before" or "after"
        Divide probabilities by their sum before or after the clip.
    precision : "native" or "exact"
        The input type's own arithmetic, or float64 inside and one rounding.

    Raises
    ------
    ValueError, TypeError
        A field outside what is listed above. What depends on C is checked at the call.

    Examples
    --------
    >>> spec = SoftmaxCrossEntropy(class_weight={0: 1, 1: 2.5}, ignore_index=-100)
    >>> spec
    SoftmaxCrossEntropy(class_weight=((0, 1.0), (1, 2.5)), ignore_index=-100)
    >>> SoftmaxCrossEntropy.from_dict(spec.to_dict()) == spec
    True
    """

    class_weight: Any = None
    missing_class_weight: float | Literal["error"] = "error"
    weighting: Weighting = "term"
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    reduction: Reduction = "mean_over_weights"
    zero_denominator: Literal["zero", "nan"] = "zero"
    axis: int = 1
    inputs: Inputs = "logits"
    clip: float | Literal["dtype"] | None = None
    renormalize: Literal["before", "after"] | None = None
    precision: Precision = "native"

    # A dataclass that compares by value would bring a hash of its own, slow for many classes.
    __hash__ = Spec.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weight is not None:
            self._set("class_weight", _class_weight(self.class_weight))
        if not _is_choice(self.missing_class_weight, "error"):
            weight = _number(
                "missing_class_weight", self.missing_class_weight, f"be 'error' or {_WEIGHT}", math.isfinite
            )
            self._set("missing_class_weight", weight)
        if self.ignore_index is not None:
            self._set("ignore_index", _integer("ignore_index", self.ignore_index, "be an int or None"))
        self._set("axis", _integer("axis", self.axis, "be an int"))
        _choice("renormalize", self.renormalize, (None, "before", "after"))
        if self.renormalize is not None and self.inputs != "probs":
            refuse("renormalize", "be None unless inputs='probs'", repr(self.renormalize))

    @property
    def has_weight_mapping(self) -> bool:
        """Whether `class_weight` is a mapping, held as sorted pairs, rather than one float per class."""
        return self.class_weight == () or (self.class_weight is not None and isinstance(self.class_weight[0], tuple))

    def class_weight_values(self, num_classes: int) -> tuple[float, ...] | None:
        """Return one class weight per class, or None.

        Raises
        ------
        ValueError
            Another length than C, a mapping's key outside [0, C), or a class without a weight.
        """
        if self.class_weight is None:
            return None
        if not self.has_weight_mapping:
            if len(self.class_weight) != num_classes:
                expected = f"have shape ({num_classes},), one per class"
                refuse("class_weight", expected, (len(self.class_weight),))
            return self.class_weight  # type: ignore[no-any-return]
        weights = dict(self.class_weight)
        outside = [key for key in weights if not 0 <= key < num_classes]
        if outside:
            refuse("class_weight", f"have keys from 0 to {num_classes - 1}", f"key {outside[0]}")
        absent = [c for c in range(num_classes) if c not in weights]
        if absent and self.missing_class_weight == "error":
            expected = f"name each of the {num_classes} classes, or missing_class_weight be a number"
            refuse("class_weight", expected, f"no weight for class {absent[0]}")
        return tuple(weights.get(c, self.missing_class_weight) for c in range(num_classes))


@dataclass(frozen=True, kw_only=True, repr=False)
class SigmoidCrossEntropy(Spec):
    r"""Describe a weighted binary cross-entropy, element by element.

    Also known as binary, multi-label or logistic loss, BCE with logits. With ``t' = (1 - e) t + e / 2`` and class
    weights ``(w_neg, w_pos)``, an element's loss in nats is::

        term   s * (w_pos t' softplus(-z) + w_neg (1 - t') softplus(z))              (torch's pos_weight p is (1, p))
        label  s * w[t > 0.5] * (t' softplus(-z) + (1 - t') softplus(z))             (Keras fit)

    Parameters
    ----------
    class_weight : None or pair (negative, positive)
        Each a float or an array-like that broadcasts against the logits by NumPy's rule. Finite, of either sign.
    weighting : "term" or "label"
        Where the class weight enters, as above.
    ignore_label : int or None
        Elements whose target equals it are ignored.
    average_outputs : bool
        Keras's way: an element's share is divided by the length of the last axis, and a position is a row - the
        logits' shape without the last axis - whose class weight is the mean of its elements'. A row whose elements
        are all ignored is ignored.
    label_smoothing, reduction, zero_denominator, inputs, clip, precision
        As in `SoftmaxCrossEntropy`, a position being an element (or a row).

    Raises
    ------
    ValueError, TypeError
        A field outside what is listed above. What depends on the logits' shape is checked at the call.

    Examples
    --------
    >>> SigmoidCrossEntropy(class_weight=(1, [3, 5]), reduction="mean_over_positions")
    SigmoidCrossEntropy(class_weight=(1.0, (3.0, 5.0)), reduction='mean_over_positions')
    """

    class_weight: Any = None
    weighting: Literal["term", "label"] = "term"
    label_smoothing: float = 0.0
    ignore_label: int | None = None
    reduction: Reduction = "mean_over_weights"
    zero_denominator: Literal["zero", "nan"] = "zero"
    average_outputs: bool = False
    inputs: Inputs = "logits"
    clip: float | Literal["dtype"] | None = None
    precision: Precision = "native"

    _weightings: ClassVar[tuple[str, ...]] = ("term", "label")
    __hash__ = Spec.__hash__

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_weight is not None:
            pair: Any = ()
            if not isinstance(self.class_weight, Mapping | str):
                with contextlib.suppress(TypeError):  # a 0-d array says that it can be iterated
                    pair = tuple(self.class_weight)
            if len(pair) != 2:
                refuse("class_weight", "be None or a pair (negative, positive)", repr(self.class_weight))
            self._set("class_weight", tuple(_frozen(_weights(weight).tolist()) for weight in pair))
        if self.ignore_label is not None:
            self._set("ignore_label", _integer("ignore_label", self.ignore_label, "be an int or None"))
        if not isinstance(self.average_outputs, bool):
            refuse("average_outputs", "be True or False", repr(self.average_outputs))

    def class_weight_values(self, num_outputs: int) -> tuple[Any, Any] | None:
        """Return the (negative, positive) weights as floats or nested tuples of them, or None."""
        return self.class_weight  # type: ignore[no-any-return]


def from_dict(description: Mapping[str, Any]) -> SoftmaxCrossEntropy | SigmoidCrossEntropy:
    """Make the spec of either kind that `to_dict` described."""
    kinds = {kind.__name__: kind for kind in (SoftmaxCrossEntropy, SigmoidCrossEntropy)}
    if not isinstance(description, Mapping):
        refuse("description", "be a mapping as `to_dict` gives it", type(description).__name__, error=TypeError)
    _choice("loss", description.get("loss"), tuple(kinds))
    return kinds[description["loss"]].from_dict(description)


_WEIGHT = "a finite number"


def _is_choice(value: object, *choices: object) -> bool:
    return any(value is choice or (isinstance(value, str) and value == choice) for choice in choices)


def _choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if not _is_choice(value, *choices):
        refuse(name, f"be one of {', '.join(map(repr, choices))}", repr(value))


def _number(name: str, value: Any, expected: str, accept: Any) -> float:
    # A bool is an int in Python, and `label_smoothing=True` is a mistake; a tensor of one element is a number.
    if isinstance(value, str | bytes | bool | np.bool_):
        refuse(name, expected, repr(value), error=TypeError)
    try:
        number = float(value)
    except OverflowError:
        refuse(name, expected, "an integer beyond float64")
    except (TypeError, ValueError):
        refuse(name, expected, repr(value), error=TypeError)
    if not accept(number):
        refuse(name, expected, repr(value))
    return number + 0.0  # -0.0 weighs what 0.0 does, and must not look different


def _integer(name: str, value: Any, expected: str) -> int:
    if isinstance(value, bool | np.bool_):
        refuse(name, expected, repr(value), error=TypeError)
    try:
        number = operator.index(value)
    except (TypeError, AttributeError):  # the latter of a tensor of TensorFlow
        refuse(name, expected, repr(value), error=TypeError)
    if not -(2**63) <= number < 2**63:
        refuse(name, f"{expected} that int64 holds", f"one of {number.bit_length()} bits")
    return number


def _class_weight(weight: Any) -> tuple[Any, ...]:
    if isinstance(weight, Mapping):
        weight = tuple(weight.items())
    elif not _is_pairs(weight):
        array = _weights(weight)
        if array.ndim != 1 or array.size == 0:
            refuse("class_weight", "be a mapping or have shape (C,), one per class", f"shape {array.shape}")
        return tuple(array.tolist())
    expected = f"map each class to {_WEIGHT}"
    pairs = [
        (_integer("class_weight", key, "have int keys"), _number("class_weight", value, expected, math.isfinite))
        for key, value in weight
    ]
    if len({key for key, _ in pairs}) != len(pairs):
        refuse("class_weight", "name each class once", repr(weight))
    return tuple(sorted(pairs))


def _is_pairs(weight: Any) -> bool:
    """Whether this is a mapping in the form that a spec holds: a tuple of (class, weight) tuples."""
    return isinstance(weight, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in weight)


def _weights(weight: Any) -> npt.NDArray[np.float64]:
    try:
        # `tolist` reads tensors of every framework, on any device and with a gradient.
        array = np.asarray(weight.tolist() if hasattr(weight, "tolist") else weight)
    except (TypeError, ValueError):
        refuse("class_weight", "be numbers in a regular shape", repr(weight), error=TypeError)
    if array.dtype.kind not in "iuf" and array.size:
        refuse("class_weight", "be real numbers", f"dtype {array.dtype}", error=TypeError)
    array = array.astype(np.float64) + 0.0
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = f"at index {tuple(bad[0].tolist())}" if array.ndim else ""
        refuse("class_weight", f"be {_WEIGHT}", array[tuple(bad[0])], where)
    return array


def _frozen(value: Any) -> Any:
    """Return nested lists as nested tuples, so that a spec is immutable and hashable."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
