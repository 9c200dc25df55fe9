"""One definition of weighted cross-entropy, native in every framework, proven identical.

Describe a loss with `SoftmaxCrossEntropy` or `SigmoidCrossEntropy`, or take a framework's own from
`classweight.conventions`, and compute it with ``classweight.adapters.torch`` or another adapter. Importing this loads
NumPy and no framework.
"""

from . import conventions
from .answers.compare import compare
from .answers.identify import identify
from .conventions import DIFFERENCES
from .errors import TargetIndexError
from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy, from_dict
from .weights.counts import ClassCounts
from .weights.samples import correct_for_sampling, sample_weights, sampler_weights
from .weights.schemes import ClassWeights, class_weights

__all__ = [
    "DIFFERENCES",
    "ClassCounts",
    "ClassWeights",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "TargetIndexError",
    "class_weights",
    "compare",
    "conventions",
    "correct_for_sampling",
    "from_dict",
    "identify",
    "sample_weights",
    "sampler_weights",
]
