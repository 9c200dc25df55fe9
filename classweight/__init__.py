"""One definition of weighted cross-entropy, native in every framework, proven identical.

Describe a loss with `SoftmaxCrossEntropy` or `SigmoidCrossEntropy`, or take a framework's own from
`classweight.conventions`, and compute it with ``classweight.adapters.torch`` or another adapter. Importing this loads
NumPy and no framework.
"""

from . import conventions
from .conventions import DIFFERENCES
from .errors import TargetIndexError
from .spec import SigmoidCrossEntropy, SoftmaxCrossEntropy, from_dict

__all__ = [
    "DIFFERENCES",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "TargetIndexError",
    "conventions",
    "from_dict",
]
