"""One definition of weighted cross-entropy, native in every framework, proven identical.

Describe a loss with `SoftmaxCrossEntropy` or `SigmoidCrossEntropy`, or take a framework's own from
`classweight.conventions`, and compute it with ``classweight.adapters.torch`` or another adapter. Importing this loads
nothing; what is used of it loads NumPy, and no framework.
"""

from typing import TYPE_CHECKING

from . import lazy as _lazy

if TYPE_CHECKING:
    from . import conventions
    from .answers.compare import compare
    from .answers.identify import identify
    from .conventions import DIFFERENCES
    from .errors import TargetIndexError
    from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy, from_dict
    from .weights.adjustment import adjust_logits, logit_offsets
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
    "adjust_logits",
    "class_weights",
    "compare",
    "conventions",
    "correct_for_sampling",
    "from_dict",
    "identify",
    "logit_offsets",
    "sample_weights",
    "sampler_weights",
]

__getattr__, __dir__ = _lazy.names(
    __name__,
    {
        "DIFFERENCES": ".conventions",
        "ClassCounts": ".weights.counts",
        "ClassWeights": ".weights.schemes",
        "SigmoidCrossEntropy": ".spec",
        "SoftmaxCrossEntropy": ".spec",
        "TargetIndexError": ".errors",
        "adjust_logits": ".weights.adjustment",
        "class_weights": ".weights.schemes",
        "compare": ".answers.compare",
        "conventions": ".",
        "correct_for_sampling": ".weights.samples",
        "from_dict": ".spec",
        "identify": ".answers.identify",
        "logit_offsets": ".weights.adjustment",
        "sample_weights": ".weights.samples",
        "sampler_weights": ".weights.samples",
    },
)
