"""Wrong losses whose numbers, gradients or reading of memory are not what they should be."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

from .mutants import Result, catches, naive, right, typed, with_spec
from .mutants_weights import is_hard


def is_plain(spec: Any, logits: Any) -> bool:
    """Whether `naive` is what a call asks for."""
    unweighted = isinstance(spec, SoftmaxCrossEntropy) and spec.reduction == "none" and spec.class_weight is None
    return unweighted and not spec.label_smoothing and logits.ndim == 2 and spec.inputs == "logits"


def naively(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = naive(spec, logits, targets)
    return typed(logits, loss, gradient * np.expand_dims(arguments.get("upstream", np.ones_like(loss)), -1))


@catches("ConfidentTarget")
def dead_gradient_of_the_right_loss(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Compute p - 1 of a p that was rounded to 1."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, naively(spec, logits, targets, **arguments)[1] if is_plain(spec, logits) else gradient


@catches("ConfidentTarget")
def dead_loss_of_the_right_gradient(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Compute lse - z, whose digits are those of z."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return naively(spec, logits, targets, **arguments)[0] if is_plain(spec, logits) else loss, gradient


@catches("CommonOffset")
def lse_minus_logit(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Add the largest logit back before the target's is taken off: pytorch/pytorch#11752 and #195829."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_plain(spec, logits) and is_hard(spec, logits, targets):
        m = logits.max(-1)
        with np.errstate(all="ignore"):
            lse = (m + np.log(np.exp(logits - m[:, None]).sum(-1, dtype=logits.dtype))).astype(logits.dtype)
        loss = lse - logits[np.arange(len(logits)), targets]
    return loss, gradient


@catches("ConfidentTarget", "numbers")
def epsilon_in_the_logarithm(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Compute -log(p + 1e-7), so that it is finite."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_plain(spec, logits):
        loss = -np.log(np.exp(-loss.astype(np.float64)) + 1e-7)
    return typed(logits, loss, gradient)


@catches("InfiniteLogit")
def probabilities_of_at_least_1e_7(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Clip what comes from logits, too: Keras's focal losses."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_plain(spec, logits):
        loss = np.minimum(loss, 16.118095).astype(logits.dtype)
    return loss, gradient


@catches("published")
def gaps_of_at_most_64(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Paddle, on the CPU."""
    if spec.inputs == "logits" and isinstance(spec, SoftmaxCrossEntropy) and logits.size:
        axis = 0 if logits.ndim == 1 else spec.axis
        logits = np.maximum(logits, logits.max(axis, keepdims=True) - 64).astype(logits.dtype)
    return right(spec, logits, targets, **arguments)


@catches("InfiniteLogit")
def nan_to_number(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return typed(logits, np.nan_to_num(loss.astype(np.float64)), gradient)


@catches("reduction")
def rows_rounded_before_the_sum(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Add up float32 numbers in a float32, in exact precision too."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if spec.reduction == "sum" and logits.dtype == np.float32:
        arguments.pop("upstream", None)
        rows, _ = right(with_spec(spec, reduction="none"), logits, targets, **arguments)
        loss = np.float32(0)
        for row in rows.ravel():
            loss = np.float32(loss + row)
    return loss, gradient


@catches("targets")
def softmax_twice(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Take probabilities for logits."""
    if isinstance(spec, SoftmaxCrossEntropy) and spec.inputs == "logits" and logits.size:
        axis = 0 if logits.ndim == 1 else spec.axis
        with np.errstate(all="ignore"):
            e = np.exp(logits - logits.max(axis, keepdims=True))
            logits = (e / e.sum(axis, keepdims=True)).astype(logits.dtype)
    return right(spec, logits, targets, **arguments)


@catches("targets")
def mean_over_classes(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Divide a row by its classes, as a mean over everything does."""
    loss, gradient = right(spec, logits, targets, **arguments)
    n = logits.shape[-1] if logits.ndim else 1
    return typed(logits, np.asarray(loss, np.float64) / n, gradient.astype(np.float64) / n)


@catches("targets")
def result_in_float64(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return np.asarray(loss, np.float64), gradient


@catches("targets", "sigmoid", "reduction")
def no_gradient(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    return right(spec, logits, targets, **arguments)[0], None


@catches("reduction", "NonUniformUpstream")
def one_number_for_none(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Return a sum for reduction="none": linkedin/Liger-Kernel#421."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return (np.sum(loss, dtype=np.float64).astype(logits.dtype) if spec.reduction == "none" else loss), gradient


@catches("NonUniformUpstream")
def no_gradient_under_none(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Return zeros: linkedin/Liger-Kernel#678 and #968."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, np.zeros_like(gradient) if spec.reduction == "none" else gradient


@catches("NonUniformUpstream")
def mean_of_upstream(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    if np.ndim(arguments.get("upstream")):
        up = arguments["upstream"]
        arguments["upstream"] = np.full_like(up, up.astype(np.float64).mean())
    return right(spec, logits, targets, **arguments)


@catches("ScaledUpstream")
def upstream_squared(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Multiply by it in two places."""
    if "upstream" in arguments:
        arguments["upstream"] = arguments["upstream"] ** 2
    return right(spec, logits, targets, **arguments)


@catches("axis")
def gradient_along_the_last_axis(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Hand back the gradient as it lay inside, the classes last."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if isinstance(spec, SoftmaxCrossEntropy) and logits.ndim > 2:
        gradient = np.ascontiguousarray(np.moveaxis(gradient, spec.axis, -1)).reshape(logits.shape)
    return loss, gradient


@catches("ignore_index")
def ignored_rows_have_a_gradient(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Silence their loss alone."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if is_hard(spec, logits, targets) and spec.ignore_index is not None and logits.ndim == 2:
        ignored = (targets == spec.ignore_index)[:, None]
        gradient = np.where(ignored, 1 / logits.shape[1], gradient).astype(logits.dtype)
    return loss, gradient


@catches("label_smoothing")
def smoothing_in_the_loss_alone(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, _ = right(spec, logits, targets, **arguments)
    return loss, right(with_spec(spec, label_smoothing=0.0), logits, targets, **arguments)[1]


@catches("class_weight")
def weights_in_the_loss_alone(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, _ = right(spec, logits, targets, **arguments)
    return loss, right(with_spec(spec, class_weight=None), logits, targets, **arguments)[1]


@catches("ProbabilityClip")
def gradient_through_the_clip(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, gradient if spec.clip is None else right(with_spec(spec, clip=None), logits, targets, **arguments)[1]


@catches("inputs")
def gradient_to_the_logits(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Return q - y though log-probabilities were handed in."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if isinstance(spec, SoftmaxCrossEntropy) and spec.inputs == "log_probs":
        with np.errstate(all="ignore"):
            total = gradient.astype(np.float64).sum(-1, keepdims=True)
            gradient = (gradient - total * np.exp(logits.astype(np.float64))).astype(logits.dtype)
    return loss, gradient


@catches("numbers", "ConfidentTarget")
def log_of_sigmoid(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    loss, gradient = right(spec, logits, targets, **arguments)
    is_each = isinstance(spec, SigmoidCrossEntropy) and spec.reduction == "none" and not spec.average_outputs
    if is_each and spec.inputs == "logits" and spec.class_weight is None and "sample_weight" not in arguments:
        with np.errstate(all="ignore"):
            p = (1 / (1 + np.exp(-logits))).astype(logits.dtype)
            loss = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    return typed(logits, loss, gradient)


@catches("HalfAccumulation")
def mean_in_half(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Divide a sum that has overflowed: pytorch/pytorch#91597."""
    loss, gradient = right(spec, logits, targets, **arguments)
    if logits.dtype in (np.float16, ml_dtypes.bfloat16) and spec.reduction.startswith("mean"):
        total, _ = right(with_spec(spec, reduction="sum"), logits, targets)
        loss = total / logits.dtype.type(len(logits))
    return loss, gradient


def as_rows(x: Any) -> Any:
    """Return what is read of an array's memory where rows are taken to follow each other; 0 is beyond it."""
    if x.flags.c_contiguous or not isinstance(x.base, bytearray):
        return x
    flat = np.frombuffer(x.base, x.dtype)[: x.size]
    return np.concatenate([flat, np.zeros(x.size - flat.size, x.dtype)]).reshape(x.shape)


@catches("StridedInput", "memory")
def logits_taken_for_rows(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """NVIDIA/TransformerEngine#2734."""
    return right(spec, as_rows(logits), targets, **arguments)


@catches("StridedInput")
def targets_taken_for_rows(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """pytorch/pytorch#72120."""
    return right(spec, logits, as_rows(targets) if np.ndim(targets) > 1 else targets, **arguments)


@catches("StridedInput")
def upstream_taken_for_rows(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Read beyond the one number that a sum's gradient is: ROCm/TransformerEngine#623."""
    if np.ndim(arguments.get("upstream")):
        arguments["upstream"] = as_rows(arguments["upstream"])
    return right(spec, logits, targets, **arguments)


@catches("FarApart")
def offsets_of_32_bits(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Read row 0 where the offset of a row wraps: pytorch/pytorch#190139, vllm-project/vllm#46560."""
    if logits.ndim > 1 and len(logits):
        offsets = np.arange(len(logits)) * (logits.strides[0] // logits.itemsize)
        logits = logits[np.where(offsets < 2**31, np.arange(len(logits)), 0)]
    return right(spec, logits, targets, **arguments)


@catches("SecondBackward", backend="torch")
def kept_gradient_scaled_in_place(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Any:
    """Dao-AILab/quack#209."""
    import torch

    import classweight.adapters.torch as cwt

    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any) -> Any:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                loss = cwt.loss(spec, z, targets, **arguments)
                ctx.kept = torch.autograd.grad(loss.sum(), z)[0]
            return loss.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            while upstream.ndim < ctx.kept.ndim:
                upstream = upstream.unsqueeze(-1)
            return ctx.kept.mul_(upstream)

    return Kept.apply(logits)  # type: ignore[no-untyped-call]


@catches("ConfidentTarget", backend="torch:compiled")
def backward_dropped_in_a_graph(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Any:
    """Compose the loss of what a graph can trace, where a kernel's own backward was careful."""
    import torch

    import classweight.adapters.torch as cwt

    if not torch.compiler.is_compiling():
        return cwt.loss(spec, logits, targets, **arguments)
    return -torch.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]


EARLIER: dict[Any, Any] = {}


def of_first(spec: Any, logits: Any, targets: Any) -> Any:
    """Return the targets of the first call like this one."""
    return EARLIER.setdefault((spec, *((x.shape, str(x.dtype)) for x in (logits, targets))), targets)


@catches("SecondCall", "memory")
def targets_of_the_first_call(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Keep what the first call was made into, as a plan that is looked up by shapes does."""
    return right(spec, logits, of_first(spec, logits, targets), **arguments)


@catches("SecondCall")
def a_mean_that_later_calls_do_not_divide(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Divide in what the first call makes, and not in what the others find made: this library, for a while."""
    is_first = of_first(spec, logits, targets) is targets
    return right(spec if is_first else with_spec(spec, reduction="sum"), logits, targets, **arguments)


@catches("UncheckedValue", "unchecked")
def an_index_that_nothing_looks_at_is_clamped(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Give the nearest class's loss for a label that is none, as a gather that clamps does: optax."""
    if is_hard(spec, logits, targets) and arguments.get("validate") is False:
        targets = np.where(targets == spec.ignore_index, targets, targets.clip(0, logits.shape[spec.axis] - 1))
    return right(spec, logits, targets, **arguments)


@catches("UncheckedValue")
def nan_of_the_mean_in_every_row(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Divide by a denominator that is NaN where there is nothing to be divided, too: 0 / NaN."""
    loss, gradient = right(spec, logits, targets, **arguments)
    return loss, gradient if loss.ndim or not np.isnan(gradient).any() else np.full_like(gradient, np.nan)


@catches("UncheckedValue")
def a_weight_that_nothing_looks_at_is_0(spec: Any, logits: Any, targets: Any, **arguments: Any) -> Result:
    """Make 0 of a weight that is no number."""
    if "sample_weight" in arguments and arguments.get("validate") is False:
        weight = np.asarray(arguments["sample_weight"])
        arguments["sample_weight"] = np.where(np.isfinite(weight), weight, 0).astype(weight.dtype)
    return right(spec, logits, targets, **arguments)
