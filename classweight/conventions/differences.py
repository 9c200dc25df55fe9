"""The cases in which a native call and its spec part ways, on purpose.

Here the native result is an accident or wrong, or a refusal without need, and the definition of this library holds.
Tests show every entry with the installed framework; any other disagreement is a bug of ours.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["DIFFERENCES", "Difference", "differing"]

DropIn = TypeVar("DropIn", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Difference:
    """One case: what the native call does with it and what the spec does.

    Examples
    --------
    >>> [d.id for d in DIFFERENCES if d.framework == "sklearn"]
    ['sklearn-zero-weights', 'sklearn-soft-targets']
    """

    id: str
    framework: str
    call: str
    case: str
    native: str
    ours: str

    @property
    def evidence(self) -> str:
        """The test that shows it with the installed framework."""
        return f"tests/conventions/test_{self.framework}.py, {self.id}"


_TORCH = (
    Difference(
        "torch-zero-weight-mean-gradient",
        "torch",
        "cross_entropy, nll_loss; index targets, reduction='mean'",
        "the weights of all remaining rows are 0",
        "loss NaN, gradient NaN",
        "loss NaN, gradient 0",
    ),
    Difference(
        "torch-cancelled-weights",
        "torch",
        "cross_entropy, nll_loss; index targets, reduction='mean'",
        "weights of both signs that add up to 0",
        "loss infinite, gradient infinite or NaN",
        "loss NaN, gradient 0",
    ),
    Difference(
        "torch-ignored-nan-gradient",
        "torch",
        "cross_entropy; index targets",
        "NaN or inf among the logits of an ignored row",
        "the row's gradient is NaN",
        "the row's gradient is 0",
    ),
    Difference(
        "torch-zero-weight-nan",
        "torch",
        "cross_entropy, nll_loss, binary_cross_entropy_with_logits",
        "NaN logits in a row of weight 0",
        "loss NaN",
        "the row adds 0",
    ),
    Difference(
        "torch-zero-times-infinity",
        "torch",
        "cross_entropy; nll_loss; binary_cross_entropy_with_logits",
        "an infinite -log q times a target or weight of 0: logits [0, -inf, 1] and target [1, 0, 0]",
        "loss NaN",
        "the term is 0: loss 1.3132616",
    ),
    Difference(
        "torch-confident-rounding",
        "torch",
        "cross_entropy, binary_cross_entropy_with_logits; float32",
        "the target's logit leads by 17 or more",
        "loss 0, and a gradient of 0 at the target",
        "loss and gradient of about e**-17",
    ),
    Difference(
        "torch-half-accumulation",
        "torch",
        "cross_entropy; float16 on the CPU, reduction='mean'",
        "8192 rows whose losses are 20",
        "loss inf: the sum is taken in float16",
        "loss 20",
    ),
    Difference(
        "torch-uint8-targets",
        "torch",
        "cross_entropy, nll_loss",
        "uint8 targets of inputs with further axes, or with label_smoothing, weight and reduction='mean'",
        "refused, unless no row is left",
        "as int64",
    ),
    Difference(
        "torch-nll-channels-last",
        "torch",
        "nll_loss",
        "an input in channels-last memory format",
        "a RuntimeError from backward",
        "the gradient",
    ),
    Difference(
        "torch-invalid-weights",
        "torch",
        "any",
        "infinite or NaN weights",
        "computed",
        "refused",
    ),
    Difference(
        "torch-invalid-smoothing",
        "torch",
        "cross_entropy",
        "negative or NaN label_smoothing",
        "taken as 0",
        "refused",
    ),
    Difference(
        "torch-invalid-targets",
        "torch",
        "cross_entropy, binary_cross_entropy_with_logits",
        "a negative target",
        "computed",
        "refused",
    ),
)

_KERAS = (
    Difference(
        "keras-sample-weight-sum",
        "keras",
        "any, reduction='mean_with_sample_weight'",
        "sample weights of fewer elements than there are positions: a scalar, or (N, 1) beside (N, T)",
        "divides by their sum before broadcasting: a scalar gives the plain sum",
        "divides by the sum after broadcasting",
    ),
    Difference(
        "keras-single-position",
        "keras",
        "any, reduction='mean_with_sample_weight'",
        "an unbatched row",
        "not reduced: weight times loss",
        "divided by its weight",
    ),
    Difference(
        "keras-trailing-axis",
        "keras",
        "sparse_categorical_crossentropy, axis=1, on the torch backend",
        "predictions of shape (N, C, 1) and labels of shape (N, 1)",
        "the last axis is squeezed: losses of shape (N,)",
        "losses of shape (N, 1)",
    ),
    Difference(
        "keras-float32-clip",
        "keras",
        "any, from_logits=False; float32",
        "probabilities above 1 - 1e-7",
        "clipped to 1 - 2**-23, the float32 next to that: at most 15.942",
        "in exact precision clipped to 1 - 1e-7: at most 16.118",
    ),
    Difference(
        "keras-empty-batch",
        "keras",
        "any",
        "an empty batch",
        "not reduced: shape (0,)",
        "0 by every mean and sum",
    ),
    Difference(
        "keras-binary-class-weight",
        "keras",
        "binary_crossentropy with fit's class_weight",
        "more than one output",
        "every row weighs as the index of its first largest label",
        "every element weighs as its own label",
    ),
    Difference(
        "keras-temporal-class-weight",
        "keras",
        "sparse_categorical_crossentropy with fit's class_weight",
        "labels of shape (N, T)",
        "each sample weighs as the index of its first largest label in time",
        "each position weighs as its label",
    ),
    Difference(
        "keras-class-weight-keys",
        "keras",
        "any, with fit's class_weight",
        "a key that is no class",
        "never looked up",
        "refused",
    ),
    Difference(
        "keras-weight-product",
        "keras",
        "fit, train_on_batch",
        "class_weight and sample_weight together",
        "refused",
        "multiplied, as by Keras 2",
    ),
    Difference(
        "keras-time-step-weights",
        "keras",
        "any",
        "sample weights of shape (N,) beside losses of shape (N, N)",
        "weigh time steps",
        "weigh samples",
    ),
    Difference(
        "keras-broadcast-weights",
        "keras",
        "any",
        "sample weights of shape (T,) or (1, T) beside losses of shape (N, T)",
        "weigh time steps",
        "refused: a shape is a prefix of the positions', or (N, T) is given whole",
    ),
    Difference(
        "keras-sparse-class-axis",
        "keras",
        "sparse_categorical_crossentropy, on the TensorFlow, JAX and NumPy backends",
        "an axis that is not the last",
        "refused",
        "computed, as on the torch backend",
    ),
    Difference(
        "keras-smoothing-last-axis",
        "keras",
        "categorical_crossentropy, label_smoothing > 0",
        "an axis that is not the last",
        "spreads the smoothing by 1 / the length of the last axis",
        "by 1 / the number of classes",
    ),
    Difference(
        "keras-invalid-smoothing",
        "keras",
        "categorical_crossentropy, binary_crossentropy",
        "label_smoothing outside [0, 1]",
        "computed",
        "refused",
    ),
    Difference(
        "keras-silent-labels",
        "keras",
        "sparse_categorical_crossentropy",
        "on the JAX backend a label outside [0, C), on NumPy's a negative one, on torch's -100",
        "loss 0, and the row is counted",
        "refused",
    ),
    Difference(
        "keras-float-labels",
        "keras",
        "sparse_categorical_crossentropy",
        "labels of a floating type",
        "truncated: 1.9 is class 1",
        "refused",
    ),
    Difference(
        "keras-recovered-logits",
        "keras",
        "any, from_logits=False, on the TensorFlow backend",
        "probabilities made by Keras's own softmax or sigmoid",
        "the loss uses the logits they came from, unclipped",
        "the probabilities given, clipped",
    ),
    Difference(
        "keras-numpy-binary-clip",
        "keras",
        "binary_crossentropy, from_logits=True, on the NumPy backend",
        "logits beyond 16.1",
        "clips the probabilities made from them",
        "does not clip",
    ),
    Difference(
        "keras-dense-gradient",
        "keras",
        "categorical_crossentropy, from_logits=True, on the TensorFlow backend",
        "targets that do not sum to 1",
        "gradient q - y",
        "gradient q sum y - y",
    ),
    Difference(
        "keras-zero-times-infinity",
        "keras",
        "categorical_crossentropy; on jax and numpy sparse_categorical_crossentropy too",
        "an infinite -log q times a target of 0",
        "loss NaN",
        "the term is 0",
    ),
    Difference(
        "keras-zero-weight-nan",
        "keras",
        "any",
        "NaN logits in a row of sample weight 0",
        "loss NaN",
        "the row adds 0",
    ),
    Difference(
        "keras-invalid-weights",
        "keras",
        "any",
        "infinite or NaN weights",
        "computed",
        "refused",
    ),
    Difference(
        "keras-invalid-targets",
        "keras",
        "categorical_crossentropy, binary_crossentropy",
        "a negative target",
        "computed",
        "refused",
    ),
)

_TENSORFLOW = (
    Difference(
        "tensorflow-dense-gradient",
        "tensorflow",
        "softmax_cross_entropy_with_logits and what is built on it: v1 losses, the weight map",
        "targets that do not sum to 1",
        "gradient q - y",
        "gradient q sum y - y",
    ),
    Difference(
        "tensorflow-zero-times-infinity",
        "tensorflow",
        "softmax_cross_entropy_with_logits",
        "an infinite -log q times a target of 0",
        "loss NaN",
        "the term is 0",
    ),
    Difference(
        "tensorflow-zero-weight-nan",
        "tensorflow",
        "v1 losses",
        "NaN logits in a row of weight 0",
        "loss NaN",
        "the row adds 0",
    ),
    Difference(
        "tensorflow-v1-float32",
        "tensorflow",
        "v1 losses",
        "float64 logits",
        "losses are weighted and reduced in float32",
        "in float64",
    ),
    Difference(
        "tensorflow-sparse-bfloat16",
        "tensorflow",
        "sparse_softmax_cross_entropy_with_logits; bfloat16",
        "logits [2, -1, 0.5] and label 0, whose loss is 0.2413113",
        "0.2353516: computed in bfloat16",
        "0.2412109, the nearest bfloat16",
    ),
    Difference(
        "tensorflow-xla-labels",
        "tensorflow",
        "sparse_softmax_cross_entropy_with_logits under XLA",
        "a label outside [0, C)",
        "loss and gradient of the row NaN",
        "refused",
    ),
    Difference(
        "tensorflow-weights-shape",
        "tensorflow",
        "v1 losses",
        "weights of the losses' rank whose leading dimension is 1: (1, T) beside (N, T)",
        "broadcast",
        "refused: sample weights have a prefix of the position shape",
    ),
    Difference(
        "tensorflow-pos-weight-shape",
        "tensorflow",
        "weighted_cross_entropy_with_logits",
        "a pos_weight larger than the logits",
        "enlarges the result",
        "refused",
    ),
    Difference(
        "tensorflow-invalid-smoothing",
        "tensorflow",
        "v1 losses",
        "label_smoothing outside [0, 1]",
        "negative is taken as 0, larger than 1 computed",
        "refused",
    ),
    Difference(
        "tensorflow-invalid-weights",
        "tensorflow",
        "any",
        "infinite or NaN weights",
        "computed",
        "refused",
    ),
    Difference(
        "tensorflow-invalid-targets",
        "tensorflow",
        "softmax_cross_entropy_with_logits, weighted_cross_entropy_with_logits",
        "a negative target",
        "computed",
        "refused",
    ),
)

_CHAINER = (
    Difference(
        "chainer-soft-class-weight",
        "chainer",
        "softmax_cross_entropy",
        "distributions as targets and class_weight",
        "the weights are dropped",
        "the weights apply to each class's term",
    ),
    Difference(
        "chainer-soft-normalize",
        "chainer",
        "softmax_cross_entropy, normalize=False",
        "distributions as targets with further axes",
        "divides by the number of positions",
        "divides by the length of the batch axis, as for labels",
    ),
    Difference(
        "chainer-soft-gradient",
        "chainer",
        "softmax_cross_entropy",
        "distributions that do not sum to 1",
        "gradient q - t",
        "gradient q sum t - t",
    ),
    Difference(
        "chainer-kl-divergence",
        "chainer",
        "softmax_cross_entropy, soft_target_loss='kl-divergence'",
        "distributions as targets",
        "adds sum t log(t + 1e-7)",
        "the cross-entropy alone; the gradient is the same",
    ),
    Difference(
        "chainer-wrapped-labels",
        "chainer",
        "softmax_cross_entropy",
        "a label outside [0, C) that is not ignore_label",
        "negative labels count from the end; with enable_double_backprop all are clipped into range",
        "refused",
    ),
    Difference(
        "chainer-ignored-nan",
        "chainer",
        "softmax_cross_entropy, sigmoid_cross_entropy",
        "NaN or inf among the logits of an ignored row",
        "loss and gradient NaN",
        "the row adds 0",
    ),
    Difference(
        "chainer-zero-times-infinity",
        "chainer",
        "softmax_cross_entropy",
        "an infinite -log q times a target or weight of 0",
        "loss NaN",
        "the term is 0",
    ),
    Difference(
        "chainer-class-weight-length",
        "chainer",
        "softmax_cross_entropy",
        "a class_weight of length 1",
        "broadcast to all classes",
        "refused",
    ),
    Difference(
        "chainer-negative-zero",
        "chainer",
        "softmax_cross_entropy",
        "all rows ignored",
        "loss -0.0",
        "loss 0.0",
    ),
    Difference(
        "chainer-binary-labels",
        "chainer",
        "sigmoid_cross_entropy",
        "a negative label other than -1",
        "put into the formula",
        "refused",
    ),
    Difference(
        "chainer-unsigned-binary-labels",
        "chainer",
        "sigmoid_cross_entropy with chainer.config.type_check off",
        "labels of an unsigned type",
        "0 - 1 wraps around to the type's largest number",
        "the loss of the labels",
    ),
    Difference(
        "chainer-unchecked-calls",
        "chainer",
        "softmax_cross_entropy, sigmoid_cross_entropy with chainer.config.type_check off",
        "fewer labels than positions; binary labels that enlarge the logits; integer logits",
        "the loss of the first positions; one of another shape, with no gradient; truncated to integers",
        "refused",
    ),
    Difference(
        "chainer-average-ignored",
        "chainer",
        "average(softmax_cross_entropy(reduce='no'), weights=w[t])",
        "an ignored row",
        "its weight stays in the denominator",
        "mean_over_weights leaves it out",
    ),
    Difference(
        "chainer-empty-soft",
        "chainer",
        "softmax_cross_entropy",
        "an empty batch of distributions",
        "ZeroDivisionError",
        "loss 0",
    ),
    Difference(
        "chainer-empty-backward",
        "chainer",
        "softmax_cross_entropy",
        "the gradient of an empty batch",
        "an internal error",
        "an empty gradient",
    ),
    Difference(
        "chainer-wide-soft-gradient",
        "chainer",
        "softmax_cross_entropy",
        "the gradient for distributions of a wider type than the logits",
        "an internal error",
        "the gradient, in the logits' type",
    ),
    Difference(
        "chainer-double-backprop",
        "chainer",
        "softmax_cross_entropy",
        "double backprop without enable_double_backprop",
        "refused",
        "computed",
    ),
    Difference(
        "chainer-invalid-weights",
        "chainer",
        "softmax_cross_entropy",
        "infinite or NaN weights",
        "computed",
        "refused",
    ),
    Difference(
        "chainer-invalid-targets",
        "chainer",
        "softmax_cross_entropy",
        "a negative target",
        "computed",
        "refused",
    ),
)

_SKLEARN = (
    Difference(
        "sklearn-zero-weights",
        "sklearn",
        "log_loss",
        "sample weights that are all 0, or of both signs and add up to 0",
        "refused",
        "loss NaN",
    ),
    Difference(
        "sklearn-soft-targets",
        "sklearn",
        "log_loss",
        "distributions as targets",
        "refused unless one-hot",
        "computed",
    ),
)

_ONNX = (
    Difference(
        "onnx-negative-labels",
        "onnx",
        "SoftmaxCrossEntropyLoss",
        "a negative label that is not ignore_index",
        "counts from the end, with the weight of class 0 in the reference evaluator",
        "refused",
    ),
    Difference(
        "onnx-cancelled-weights",
        "onnx",
        "SoftmaxCrossEntropyLoss, reduction='mean'",
        "weights of both signs that add up to 0",
        "loss infinite",
        "loss NaN",
    ),
    Difference(
        "onnx-log-of-softmax",
        "onnx",
        "SoftmaxCrossEntropyLoss, reference evaluator; float32",
        "the target's logit lies 104 or more below the largest",
        "loss inf",
        "the gap",
    ),
    Difference(
        "onnx-invalid-weights",
        "onnx",
        "SoftmaxCrossEntropyLoss",
        "infinite or NaN weights",
        "computed",
        "refused",
    ),
)

_OPTAX = (
    Difference(
        "optax-confident-rounding",
        "optax",
        "softmax_cross_entropy_with_integer_labels; float32",
        "the target's logit leads by 17 or more",
        "loss 0, and a gradient of 0 at the target",
        "loss and gradient of about e**-17",
    ),
    Difference(
        "optax-zero-times-infinity",
        "optax",
        "softmax_cross_entropy, sigmoid_binary_cross_entropy",
        "an infinite -log q times a label of 0: logits [0, -inf, 1] and labels [1, 0, 0]",
        "loss NaN",
        "the term is 0: loss 1.3132616",
    ),
    Difference(
        "optax-forward-mode",
        "optax",
        "safe_softmax_cross_entropy in forward mode: jvp, jacfwd",
        "a logit of -inf",
        "tangent NaN",
        "the derivative, which is 0 there",
    ),
    Difference(
        "optax-wrapped-labels",
        "optax",
        "softmax_cross_entropy_with_integer_labels",
        "a label from -C to -1",
        "counts from the end: -1 is the last class",
        "refused; NaN where it is traced",
    ),
    Difference(
        "optax-labels-out-of-range",
        "optax",
        "softmax_cross_entropy_with_integer_labels",
        "a label outside [-C, C)",
        "loss NaN, and a finite gradient",
        "refused; loss and gradient NaN where it is traced",
    ),
    Difference(
        "optax-label-left-out",
        "optax",
        "softmax_cross_entropy_with_integer_labels",
        "`where` leaves out the label's own class",
        "a finite number, negative at times: the label's logit against the others",
        "loss inf: the label has a probability of 0",
    ),
    Difference(
        "optax-label-gradient",
        "optax",
        "softmax_cross_entropy",
        "the gradient to labels that `where` leaves out",
        "NaN",
        "0",
    ),
    Difference(
        "optax-half-types",
        "optax",
        "any; bfloat16 and float16",
        "logits [2, -1, 0.5] and label 0 in bfloat16, whose loss is 0.2413113",
        "0.25: computed in bfloat16",
        "0.2412109, the nearest bfloat16",
    ),
    Difference(
        "optax-zero-weight-nan",
        "optax",
        "losses times weights",
        "NaN logits in a row of weight 0",
        "loss NaN",
        "the row adds 0",
    ),
    Difference(
        "optax-no-class",
        "optax",
        "softmax_cross_entropy",
        "logits without a class",
        "loss 0",
        "refused",
    ),
    Difference(
        "optax-invalid-labels",
        "optax",
        "softmax_cross_entropy, safe_softmax_cross_entropy, sigmoid_binary_cross_entropy",
        "a negative label",
        "computed",
        "refused; NaN where it is traced",
    ),
)

_FLAX = (
    Difference(
        "flax-smoothing-constant",
        "flax",
        "compute_weighted_cross_entropy",
        "label_smoothing",
        "each loss less the smallest that it can be, the entropy of the smoothed label",
        "the loss: a constant apart, the same gradient",
    ),
    Difference(
        "flax-float32-labels",
        "flax",
        "compute_weighted_cross_entropy",
        "label_smoothing and float64 logits",
        "the smoothed labels are float32",
        "in float64",
    ),
    Difference(
        "flax-labels-out-of-range",
        "flax",
        "compute_weighted_cross_entropy",
        "a label outside [0, C)",
        "loss 0 and no gradient, and the row is still counted",
        "refused",
    ),
    Difference(
        "flax-zero-times-infinity",
        "flax",
        "compute_weighted_cross_entropy",
        "a logit of -inf at another class than the label",
        "loss NaN",
        "the term is 0",
    ),
    Difference(
        "flax-one-class",
        "flax",
        "compute_weighted_cross_entropy",
        "a single class",
        "ZeroDivisionError",
        "loss 0",
    ),
)

DIFFERENCES: tuple[Difference, ...] = _TORCH + _KERAS + _TENSORFLOW + _CHAINER + _SKLEARN + _ONNX + _OPTAX + _FLAX


def differing(framework: str, *calls: str) -> Callable[[DropIn], DropIn]:
    """Return a decorator that ends a drop-in's docstring with the cases in which it differs from the native call.

    ``calls`` are the names by which the differences of the framework know the call.
    """
    known = re.compile(rf"^any\b|\b({'|'.join(calls)})\b")
    found = [d for d in DIFFERENCES if d.framework == framework and known.search(d.call)]
    said = "\n".join(f"- {d.case} ({d.call}): native, {d.native}; here, {d.ours}." for d in found)

    def add(drop_in: DropIn) -> DropIn:
        if drop_in.__doc__:  # python -OO has none
            drop_in.__doc__ = f"{inspect.cleandoc(drop_in.__doc__)}\n\nDiffers from native in\n\n{said}\n"
        return drop_in

    return add
