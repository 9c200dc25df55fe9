"""Class weights from labels and counts, and the weights carried to samples and samplers."""

from .adjustment import adjust_logits, logit_offsets
from .counts import ClassCounts
from .samples import correct_for_sampling, sample_weights, sampler_weights
from .schemes import ClassWeights, class_weights

__all__ = [
    "ClassCounts",
    "ClassWeights",
    "adjust_logits",
    "class_weights",
    "correct_for_sampling",
    "logit_offsets",
    "sample_weights",
    "sampler_weights",
]
