"""One batch as somebody hands it in - arrays or an .npz file - brought into one layout: the class axis second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..call import prepare
from ..compute.arrays import ArrayFunctions
from ..errors import calling, refuse
from ..spec import Inputs, SigmoidCrossEntropy, SoftmaxCrossEntropy, _choice, _integer
from ..streams import STANDARD_INPUT, read
from .npz import LARGEST, read_npz

Array = np.ndarray[Any, Any]
Kind = Literal["softmax", "sigmoid"]
OPTIONAL = ("class_weight", "sample_weight", "mask", "label_smoothing", "ignore_index", "axis", "kind")
INPUTS = ", ".join(map(repr, get_args(Inputs)))
SCALARS = ("label_smoothing", "ignore_index", "axis", "kind")


@dataclass(frozen=True)
class Batch:
    """The arguments of one call, whatever the framework; ``scores`` are what ``inputs`` names, in float64."""

    kind: Kind
    inputs: Inputs
    scores: Array
    targets: Array
    class_weight: Any = None
    sample_weight: Any = None
    mask: Any = None
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    axis: int = 1
    """Where the class axis was; here it is the second of two or more."""
    dtype: Any = np.float64
    """The type that the scores came in."""

    @property
    def hard(self) -> bool:
        """Whether the targets are class indices."""
        return self.kind == "softmax" and self.targets.ndim < self.scores.ndim

    @property
    def class_axis(self) -> int:
        """The class axis here; for a binary loss, the last."""
        return self.scores.ndim - 1 if self.kind == "sigmoid" else min(1, self.scores.ndim - 1)

    @property
    def num_classes(self) -> int:
        """The number of classes; a binary loss has two."""
        return 2 if self.kind == "sigmoid" else int(self.scores.shape[self.class_axis])

    @property
    def position_shape(self) -> tuple[int, ...]:
        """The scores' shape without the class axis; all of it for a binary loss."""
        shape: tuple[int, ...] = self.scores.shape
        return shape if self.kind == "sigmoid" else shape[: self.class_axis] + shape[self.class_axis + 1 :]

    @property
    def labels(self) -> Array:
        """The class of every position: the index, the first largest entry, or whether a binary target exceeds 0.5."""
        if self.kind == "sigmoid":
            return (self.targets > 0.5).astype(np.int64)
        return self.targets if self.hard else self.targets.argmax(self.class_axis)

    def ignored(self) -> Array:
        """Return where ``ignore_index`` or the mask takes a position out."""
        out = np.zeros(self.position_shape, bool)
        if self.mask is not None:
            mask = np.asarray(self.mask, bool)
            out |= ~mask.reshape(mask.shape + (1,) * (out.ndim - mask.ndim))
        if self.ignore_index is not None and (self.hard or self.kind == "sigmoid"):
            out |= self.targets == self.ignore_index
        return out

    def without_index(self) -> Batch:
        """Return the same batch with a mask for the ignored labels, whose place class 0 takes."""
        if self.ignore_index is None:
            return self
        ignored = self.ignored()
        mask = ~ignored if ignored.any() else self.mask
        return replace(self, targets=np.where(ignored, 0, self.targets), mask=mask, ignore_index=None)

    def one_hot(self) -> Batch:
        """Return the same batch with distributions for targets."""
        if not self.hard:
            return self
        plain = self.without_index()
        bad = (plain.targets < 0) | (plain.targets >= self.num_classes)
        if bad.any():
            where = tuple(np.argwhere(bad)[0].tolist())
            expected = f"be class indices from 0 to {self.num_classes - 1}"
            refuse("targets", expected, plain.targets[where], f"at position {where}")
        classes = np.arange(self.num_classes).reshape((-1,) + (1,) * (self.scores.ndim - self.class_axis - 1))
        return replace(plain, targets=(np.expand_dims(plain.targets, self.class_axis) == classes).astype(np.float64))

    def as_inputs(self, inputs: Inputs) -> Array:
        """Return the scores as a loss that takes ``inputs`` would be given them."""
        if self.inputs == inputs or (self.inputs == "log_probs" and inputs == "logits" and self.kind == "softmax"):
            return self.scores
        with np.errstate(all="ignore"):
            if self.kind == "sigmoid":
                p = self.scores if self.inputs == "probs" else np.exp(self.scores)
                p = np.exp(-np.logaddexp(0.0, -self.scores)) if self.inputs == "logits" else p
                made = {"logits": np.log(p) - np.log1p(-p), "probs": p, "log_probs": np.log(p)}
                return np.asarray(made[inputs])
            if self.inputs == "probs":
                return np.log(self.scores)
            log_p = log_softmax(self.scores, self.class_axis) if self.inputs == "logits" else self.scores
            return np.exp(log_p) if inputs == "probs" else log_p


def log_softmax(z: Array, axis: int) -> Array:
    """Return the logarithm of softmax along an axis."""
    z = z - z.max(axis, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis, keepdims=True)))


def make_batch(
    scores: Any,
    targets: Any,
    *,
    inputs: str = "logits",
    class_weight: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    axis: int | None = None,
    kind: str | None = None,
) -> Batch:
    """Return the batch, with what was not said inferred from the shapes."""
    _choice("inputs", inputs, get_args(Inputs))
    _choice("kind", kind, (None, *get_args(Kind)))
    scores, targets = _numbers("logits", scores), _numbers("targets", targets)
    if scores.dtype.kind in "iub" or scores.ndim == 0:
        refuse("logits", "be floating point, with a class axis", f"{scores.dtype} of shape {scores.shape}")
    dtype, scores = scores.dtype, scores.astype(np.float64)
    where = _class_axis(scores, targets, axis)
    found = kind or _kind(scores, targets, where)
    rest = {"mask": mask, "label_smoothing": label_smoothing, "ignore_index": ignore_index, "dtype": dtype}
    if sample_weight is not None:
        rest["sample_weight"] = _numbers("sample_weight", sample_weight)
    if found == "sigmoid":
        if scores.shape != targets.shape:
            refuse("targets", f"have the logits' shape {scores.shape}", targets.shape)
        shape = (*scores.shape, 1) if scores.ndim == 1 else scores.shape
        scores, targets = scores.reshape(shape), targets.reshape(shape)
        return _checked(Batch("sigmoid", inputs, scores, targets, class_weight, axis=-1, **rest))  # type: ignore[arg-type]
    if where is None:
        expected = (
            f"have the shape of the logits, {scores.shape}, or that without the class axis, which `axis` may name"
        )
        refuse("targets", expected, targets.shape)
    if scores.ndim > 1:
        targets = np.moveaxis(targets, where, 1) if targets.ndim == scores.ndim else targets
        scores = np.moveaxis(scores, where, 1)
    return _checked(Batch("softmax", inputs, scores, targets, class_weight, axis=where, **rest))  # type: ignore[arg-type]


@calling(ignore_label="ignore_index")
def _checked(batch: Batch) -> Batch:
    """Refuse what no convention can take: everything but labels that are no class, which some of them do."""
    shared = {"class_weight": batch.class_weight, "label_smoothing": batch.label_smoothing}
    spec: Any
    if batch.kind == "sigmoid":
        spec = SigmoidCrossEntropy(ignore_label=batch.ignore_index, **shared)
    else:
        ignored = batch.ignore_index if batch.hard else None
        spec = SoftmaxCrossEntropy(missing_class_weight=1.0, ignore_index=ignored, **shared)
    targets = np.zeros_like(batch.targets) if batch.hard else batch.targets
    arguments = (targets, batch.sample_weight, None, batch.mask)
    prepare(ArrayFunctions(np), spec, batch.scores, *arguments, check_values=True)
    return replace(batch, class_weight=spec.class_weight) if batch.kind == "sigmoid" else batch


def _numbers(name: str, x: Any) -> Array:
    try:
        if hasattr(x, "detach"):  # a tensor of torch, whose bfloat16 NumPy does not know
            x = x.detach().cpu()
            x = x.float() if "bfloat16" in str(x.dtype) else x
        array = np.asarray(x)
    except (TypeError, ValueError):
        refuse(name, "be numbers in a regular shape", type(x).__name__, error=TypeError)
    if array.dtype.kind not in "fiub" and "float" not in array.dtype.name:
        refuse(name, "be real numbers", f"dtype {array.dtype}", error=TypeError)
    return array


def _class_axis(scores: Array, targets: Array, axis: int | None) -> int | None:
    """Return the class axis; None where no axis fits the targets."""
    ndim, same = scores.ndim, scores.shape == targets.shape
    if axis is not None:
        axis = _integer("axis", axis, "be an int or None")
        if not -ndim <= axis < ndim:
            refuse("axis", f"be an axis of the logits, whose shape is {scores.shape}", axis)
        return axis % ndim if same or _without(scores.shape, axis % ndim) == targets.shape else None
    if ndim == 1:
        return 0 if same or targets.ndim == 0 else None
    # The axes that frameworks put classes on: torch's and Chainer's, then Keras's and TensorFlow's.
    fitting = [a for a in dict.fromkeys((1, ndim - 1)) if same or _without(scores.shape, a) == targets.shape]
    summing = [a for a in fitting if same and _sums_to_1(targets, a)]
    if len(summing or fitting) > 1 and not (same and not summing):
        refuse("axis", f"be given: logits of shape {scores.shape} may have their classes on axis 1 or {ndim - 1}", None)
    return next(iter(summing or fitting), None)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _sums_to_1(targets: Array, axis: int) -> bool:
    return bool(np.allclose(targets.astype(np.float64).sum(axis), 1, rtol=0, atol=1e-3))


def _kind(scores: Array, targets: Array, axis: int | None) -> Kind:
    """Distributions sum to 1; other numbers from 0 to 1 in the logits' shape are binary labels."""
    if scores.shape != targets.shape or axis is None:
        return "softmax"
    if scores.ndim > 1 and scores.shape[axis] > 1 and _sums_to_1(targets, axis):
        return "softmax"
    return "sigmoid" if targets.size == 0 or targets.max() <= 1 else "softmax"


def load_batch(path: Path, **given: Any) -> Batch:
    """Return the batch in an .npz file, or in standard input for ``-``; what is ``given`` and not None wins over it.

    Raises
    ------
    ValueError
        A file that is no .npz, lacks an array or holds one that is not known.
    """
    others = ", ".join(OPTIONAL)
    expected = f"be an .npz file, and hold arrays of numbers: 'targets', one of {INPUTS}, and otherwise only {others}"
    try:
        source = BytesIO(read(path, LARGEST)) if path == STANDARD_INPUT else path.open("rb")
        with source as file:
            arrays = read_npz(file, (*get_args(Inputs), "targets", *OPTIONAL))
        scores = [name for name in get_args(Inputs) if name in arrays]
        if len(scores) != 1 or "targets" not in arrays:
            raise ValueError(", ".join(map(repr, arrays)) or "no array")
    except OSError as problem:
        refuse("batch", "be an .npz file that can be read", f"{str(path)!r}: {problem.strerror or problem}")
    except ValueError as problem:
        refuse("batch", expected, str(problem).partition("\n")[0], f"in {str(path)!r}")
    for name in SCALARS:
        if name in arrays:
            if arrays[name].ndim:
                refuse(name, "be one value", f"shape {arrays[name].shape}", f"in {str(path)!r}")
            arrays[name] = arrays[name].item()
    inputs = scores[0]
    values: dict[str, Any] = {name: arrays[name] for name in OPTIONAL if name in arrays}
    values |= {name: value for name, value in given.items() if value is not None}
    make = calling(logits=inputs)(make_batch)
    return make(arrays[inputs], arrays["targets"], inputs=inputs, **values)
