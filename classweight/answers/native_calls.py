"""The native calls that a batch is put through: what each takes, the spec it amounts to, and its formula.

A row here is a call in `classweight.conventions` with the arguments that people use it with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from .. import conventions
from ..spec import SigmoidCrossEntropy, SoftmaxCrossEntropy
from .batch import Batch, Kind

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy


@dataclass(frozen=True)
class Habit:
    """One native call; each field says what the framework's own function can be given."""

    page: str
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "softmax"
    targets: Literal["index", "distribution", "either"] = "either"
    weight: str | None = None
    """Its argument for class weights; "pos_weight" takes the positive one alone."""
    ignore: str | None = None
    """Its argument for a label to ignore."""
    smoothing: bool = False
    among_others: bool = False
    """Whether smoothing goes to the other classes alone, of which it must know the number."""
    sample_weight: bool = False
    mask: bool = True
    """Whether positions can be taken out: by a mask, an ignored label, or a weight of 0."""
    drops: tuple[str, ...] = ()
    """What it is given and silently does not use."""
    reduction: str | None = None
    """How a call that reduces nothing is usually reduced: "mean"."""

    def lacks(self, batch: Batch) -> dict[str, str]:
        """Return what the batch has and the call does not take: a sentence by the name of the argument."""
        said = {}
        if self.targets == "index" and not batch.hard:
            said["targets"] = "takes class indices, and these are distributions"
        if batch.class_weight is not None and "class_weight" not in self.drops:
            if self.weight is None:
                said["class_weight"] = "takes no class weights"
            elif self.weight == "pos_weight" and np.any(np.asarray(batch.class_weight[0]) != 1):
                said["class_weight"] = "takes a weight of the positive class alone, and the negative one's is not 1"
        if batch.label_smoothing and not self.smoothing:
            said["label_smoothing"] = "takes no label smoothing"
        elif self.among_others and batch.label_smoothing > 1 - 1 / batch.num_classes:
            said["label_smoothing"] = "takes no label smoothing that leaves the label less than the others"
        if batch.sample_weight is not None and not self.sample_weight:
            said["sample_weight"] = "takes no sample weights"
        if not self.mask and batch.ignored().any():
            said["mask"] = "takes no mask, and a distribution has no label to ignore"
        return said

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Return the call's arguments: its options, and of the batch what it takes."""
        lacking, arguments = self.lacks(batch), dict(self.options)
        if self.weight is not None and batch.class_weight is not None and "class_weight" not in lacking:
            arguments[self.weight] = batch.class_weight[1] if self.weight == "pos_weight" else batch.class_weight
        elif self.weight is not None and self.function in ("weight_map", "weighted_cross_entropy_with_logits"):
            arguments[self.weight] = 1.0 if self.weight == "pos_weight" else None  # what they cannot do without
        if self.ignore is not None and batch.ignore_index is not None:
            arguments[self.ignore] = batch.ignore_index
        if self.smoothing and batch.label_smoothing:
            arguments["label_smoothing"] = batch.label_smoothing
            if self.among_others:
                arguments["num_classes"] = batch.num_classes
        return arguments

    def spec(self, batch: Batch) -> Spec:
        """Return the convention's spec for this batch, its class axis where a `Batch` has it."""
        spec: Spec = getattr(getattr(conventions, self.page), self.function)(**self.arguments(batch))
        if self.reduction is not None:
            spec = replace(spec, reduction="mean_over_positions")
        if isinstance(spec, SigmoidCrossEntropy):
            return spec
        clip = float(np.finfo(batch.dtype).eps) if spec.clip == "dtype" and batch.dtype.kind == "f" else spec.clip
        return replace(spec, axis=1, clip=clip)

    def batch(self, batch: Batch) -> Batch:
        """Return the batch as the call is given it."""
        if batch.kind == "softmax" and self.targets == "distribution":
            batch = batch.one_hot()
        return batch if self.ignore is not None else batch.without_index()

    def text(self, batch: Batch) -> str:
        """Return the call as one would write it, weights by their name."""
        arguments = self.arguments(batch)
        shown = {name: repr(value) for name, value in arguments.items()}
        if self.weight in shown and batch.class_weight is not None:
            shown[self.weight] = "w+" if self.weight == "pos_weight" else "w"
        call = f"{self.name}({', '.join(f'{name}={value}' for name, value in shown.items())})"
        return f"{self.reduction} of {call}" if self.reduction else call

    @property
    def name(self) -> str:
        """The page and the function."""
        return f"{self.page}.{self.function}"

    def note(self, batch: Batch) -> str:
        """Return what the number does not show."""
        if batch.class_weight is not None and "class_weight" in self.drops:
            return "class_weight is silently not used with distributions"
        if self.page == "keras" and batch.class_weight is not None and batch.sample_weight is not None:
            return "Keras 2; Keras 3 refuses both weights together"
        if self.among_others and batch.label_smoothing:
            return "from which the entropy of the smoothed label is taken away"
        return "ignored rows masked" if self.ignore is None and batch.ignore_index is not None else ""


def _softmax() -> Iterator[Habit]:
    torch: dict[str, Any] = {"page": "torch", "function": "cross_entropy", "weight": "weight", "smoothing": True}
    soft = {"soft_targets": True}
    for reduction in ({}, {"reduction": "sum"}):
        yield Habit(**torch, options=reduction, targets="index", ignore="ignore_index")
        yield Habit(**torch, options=soft | reduction, targets="distribution", mask=False)
    yield Habit("torch", "nll_loss", targets="index", weight="weight", ignore="ignore_index")

    keras: dict[str, Any] = {"page": "keras", "weight": "class_weight", "sample_weight": True}
    sparse: dict[str, Any] = {
        "function": "sparse_categorical_crossentropy",
        "targets": "index",
        "ignore": "ignore_class",
    }
    dense: dict[str, Any] = {"function": "categorical_crossentropy", "targets": "distribution", "smoothing": True}
    for kind in (sparse, dense):
        for reduction in ({}, {"reduction": "mean_with_sample_weight"}, {"reduction": "sum"}):
            yield Habit(**keras, **kind, options={"from_logits": True} | reduction)
        yield Habit(**keras, **kind)
    yield Habit(**keras, **sparse, options={"backend": "torch"})

    v1: dict[str, Any] = {"page": "tensorflow", "function": "v1_softmax_cross_entropy", "weight": "class_weight"}
    for name in ("", "weighted_mean", "weighted_sum_over_batch_size", "weighted_sum"):
        yield Habit(**v1, options={"reduction": name} if name else {}, smoothing=True, sample_weight=True)
    yield Habit("tensorflow", "weight_map", targets="distribution", weight="class_weight")

    chainer: dict[str, Any] = {"page": "chainer", "function": "softmax_cross_entropy"}
    for normalize in ({}, {"normalize": False}):
        yield Habit(**chainer, options=normalize, targets="index", weight="class_weight", ignore="ignore_label")
    yield Habit(**chainer, options=soft, targets="distribution", mask=False, drops=("class_weight",))

    sklearn: dict[str, Any] = {"page": "sklearn", "function": "log_loss", "weight": "class_weight"}
    for normalize in ({}, {"normalize": False}):
        yield Habit(**sklearn, targets="index", options=normalize, sample_weight=True)

    onnx: dict[str, Any] = {"page": "onnx", "function": "softmax_cross_entropy_loss", "weight": "weights"}
    for reduction in ({}, {"reduction": "sum"}):
        yield Habit(**onnx, targets="index", options=reduction, ignore="ignore_index")

    optax: dict[str, Any] = {"page": "optax", "function": "softmax_cross_entropy", "weight": "class_weight"}
    yield Habit(**optax, sample_weight=True, reduction="mean")
    flax: dict[str, Any] = {"page": "flax", "function": "compute_weighted_cross_entropy", "weight": "class_weight"}
    yield Habit(**flax, targets="index", smoothing=True, among_others=True, sample_weight=True)


def _sigmoid() -> Iterator[Habit]:
    torch: dict[str, Any] = {"page": "torch", "function": "binary_cross_entropy_with_logits", "weight": "pos_weight"}
    for reduction in ({}, {"reduction": "sum"}):
        yield Habit(**torch, options=reduction, kind="sigmoid", sample_weight=True)
    keras: dict[str, Any] = {"page": "keras", "function": "binary_crossentropy", "weight": "class_weight"}
    keras |= {"kind": "sigmoid", "smoothing": True, "sample_weight": True}
    for reduction in ({}, {"reduction": "mean_with_sample_weight"}, {"reduction": "sum"}):
        yield Habit(**keras, options={"from_logits": True} | reduction)
    yield Habit(**keras)
    name = "weighted_cross_entropy_with_logits"
    yield Habit("tensorflow", name, kind="sigmoid", weight="pos_weight", reduction="mean")
    for normalize in ({}, {"normalize": False}):
        yield Habit("chainer", "sigmoid_cross_entropy", options=normalize, kind="sigmoid")
    optax: dict[str, Any] = {"page": "optax", "function": "sigmoid_binary_cross_entropy", "weight": "class_weight"}
    yield Habit(**optax, kind="sigmoid", sample_weight=True, reduction="mean")


HABITS = (*_softmax(), *_sigmoid())

DENOMINATORS = {
    "mean_over_weights": "sum_i {weights}",
    "mean_over_valid": "{rows} that count",
    "mean_over_positions": "all {rows}",
    "mean_over_batch": "length of the batch",
    "mean_over_nonzero": "{rows} of weight other than 0",
}


LEGEND = {
    r"_[id] s ": "s: sample weight",
    r"\bw[\[+_]": "w: class weight",
    r"\bL_c": "L_c = -log softmax(z)_c",
    r"\bL\[y\]": "L[y] = -log softmax(z)_y",
    r"\bL\+": "L+ = softplus(-z), L- = softplus(z)",
    r"mean_d": "d: outputs",
}
"""What the signs in a formula mean, by a pattern that finds them."""


def formula(spec: Spec, batch: Batch) -> str:
    """Return the loss as a formula, whose signs `LEGEND` explains."""
    weighted = spec.class_weight is not None and batch.class_weight is not None
    s = "s " if batch.sample_weight is not None else ""
    rows = "rows"
    if isinstance(spec, SigmoidCrossEntropy):
        t = "t'" if spec.label_smoothing else "t"
        if not weighted:
            term, w = f"({t} L+ + (1 - {t}) L-)", ""
        elif spec.weighting == "label":
            term, w = f"w[t] ({t} L+ + (1 - {t}) L-)", "w[t]"
        else:
            term, w = f"(w+ {t} L+ + w- (1 - {t}) L-)", "(w+ t + w- (1 - t))"
        if spec.average_outputs:
            term = f"mean_d {term}"
            w = f"mean_d {w}" if w else ""
        else:
            rows = "elements"
        smoothed = "; t' = (1 - e) t + e/2" if spec.label_smoothing else ""
    else:
        term, w = _softmax_term(spec, batch.hard, weighted)
        smoothed = "; t' = (1 - e) t + e/C" if spec.label_smoothing else ""
    text = f"sum_i {s}{term}"
    if spec.reduction != "sum":
        weights = f"{s}{w}".strip() or "1"
        below = DENOMINATORS[spec.reduction].format(rows=rows, weights=weights)
        below = f"{rows} that count" if below == "sum_i 1" else below
        text += f" / ({below})" if " " in below and not below.startswith("sum") else f" / {below}"
    return text + smoothed


def _softmax_term(spec: SoftmaxCrossEntropy, hard: bool, weighted: bool) -> tuple[str, str]:
    """Return a row's loss and its weight in a denominator."""
    if hard and not spec.label_smoothing:
        return ("w[y] L[y]", "w[y]") if weighted else ("L[y]", "")
    t = "t'" if spec.label_smoothing else "t"
    label = "w[y]" if hard else "w[argmax t]"
    if not weighted:
        return f"sum_c {t}_c L_c", ""
    if spec.weighting == "label":
        return f"{label} sum_c {t}_c L_c", label
    weight = "w[y]" if hard else "(sum_c w_c t_c)"
    if spec.weighting == "term":
        return f"sum_c w_c {t}_c L_c", weight
    return f"(sum_c w_c {t}_c) (sum_c {t}_c L_c)", weight
