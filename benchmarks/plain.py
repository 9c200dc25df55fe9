"""What one writes in NumPy or CuPy, which have no loss of their own: the textbook's lines, in the logits' type."""

from __future__ import annotations

from typing import Any

__all__ = ["sigmoid_cross_entropy", "softmax_cross_entropy"]


def softmax_cross_entropy(xp: Any, weight: Any, logits: Any, targets: Any, gradient: bool = True) -> Any:
    """Return the loss, weighted by class and divided by the sum of the weights; and its gradient."""
    first, *rest = xp.ix_(*(xp.arange(n) for n in targets.shape))
    at = (first, targets, *rest)
    shifted = logits - logits.max(1, keepdims=True)
    exps = xp.exp(shifted)
    total = exps.sum(1, keepdims=True)
    weights = weight[targets]
    denominator = weights.sum()
    loss = (weights * (xp.log(total[:, 0]) - shifted[at])).sum() / denominator
    if not gradient:
        return loss
    exps /= total
    exps[at] -= 1
    exps *= xp.expand_dims(weights / denominator, 1)
    return loss, exps


def sigmoid_cross_entropy(xp: Any, weight: Any, logits: Any, targets: Any, gradient: bool = True) -> Any:
    """Return the loss, the positives weighted and divided by the number of elements; and its gradient."""
    weights = 1 + (weight - 1) * targets
    softplus = xp.log1p(xp.exp(-abs(logits))) + xp.maximum(-logits, 0)
    loss = ((1 - targets) * logits + weights * softplus).mean()
    return (loss, ((1 - targets) - weights / (1 + xp.exp(logits))) / logits.size) if gradient else loss
