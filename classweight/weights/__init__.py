"""Class weights from labels and counts, and the weights carried to samples and samplers."""

from .counts import ClassCounts
from .samples import correct_for_sampling, sample_weights, sampler_weights
from .schemes import ClassWeights, class_weights

__all__ = ["ClassCounts", "ClassWeights", "class_weights", "correct_for_sampling", "sample_weights", "sampler_weights"]
