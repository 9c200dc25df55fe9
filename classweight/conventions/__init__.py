"""Every framework's weighted cross-entropy as a spec, by its native name and arguments.

One page a framework, one function for each native call. A function takes what the native call takes beside the batch
(per-element arguments - torch's BCE ``weight``, TensorFlow's ``weights``, any ``sample_weight`` - belong to our call)
and returns a spec. No framework is imported here.

``DIFFERENCES`` names every case in which a native call and its spec part ways.

>>> from classweight import conventions
>>> conventions.torch.cross_entropy(weight=[1, 2, 5])
SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), ignore_index=-100, zero_denominator='nan')
>>> conventions.chainer.softmax_cross_entropy(class_weight=[1, 2, 5])
SoftmaxCrossEntropy(class_weight=(1.0, 2.0, 5.0), ignore_index=-1, reduction='mean_over_valid')
"""

from __future__ import annotations

from . import chainer, flax, keras, onnx, optax, sklearn, tensorflow, torch
from .differences import DIFFERENCES, Difference

__all__ = ["DIFFERENCES", "Difference", "chainer", "flax", "keras", "onnx", "optax", "sklearn", "tensorflow", "torch"]
