"""TensorFlow's errors say the arguments of the function that was called."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf

import classweight.adapters.tensorflow as cwtf

from ..refusals import Z
from .names import BITS, Valid, Y, each_call, losses

CALLS = {
    **losses(cwtf, ["loss", "loss_parts"]),
    "sparse_softmax_cross_entropy_with_logits": Valid(
        cwtf.sparse_softmax_cross_entropy_with_logits, {"labels": Y, "logits": Z}
    ),
    "softmax_cross_entropy_with_logits": Valid(cwtf.softmax_cross_entropy_with_logits, {"labels": BITS, "logits": Z}),
    "weighted_cross_entropy_with_logits": Valid(
        cwtf.weighted_cross_entropy_with_logits, {"labels": BITS, "logits": Z, "pos_weight": 2.0}
    ),
    "sparse_softmax_cross_entropy": Valid(cwtf.sparse_softmax_cross_entropy, {"labels": Y, "logits": Z}),
    "softmax_cross_entropy": Valid(cwtf.softmax_cross_entropy, {"onehot_labels": BITS, "logits": Z}),
    "sigmoid_cross_entropy": Valid(cwtf.sigmoid_cross_entropy, {"multi_class_labels": BITS, "logits": Z}),
}


@each_call(cwtf, CALLS)
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments(tf.constant)
