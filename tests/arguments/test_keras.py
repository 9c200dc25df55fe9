"""Keras's errors say the arguments of the function that was called."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

import classweight.adapters.keras as cwk

from ..refusals import Z
from .names import BITS, Valid, Y, each_call, losses

INDEX, ROWS = {"y_true": Y, "y_pred": Z}, {"y_true": BITS, "y_pred": Z}
NATIVE = frozenset({"name", "dtype"})
CALLS = {
    **losses(cwk, ["loss", "loss_parts"]),
    "SparseCategoricalCrossentropy": Valid(cwk.SparseCategoricalCrossentropy(from_logits=True).__call__, INDEX),
    "CategoricalCrossentropy": Valid(cwk.CategoricalCrossentropy(from_logits=True).__call__, ROWS),
    "BinaryCrossentropy": Valid(cwk.BinaryCrossentropy(from_logits=True).__call__, ROWS),
    "SparseCategoricalCrossentropy-made": Valid(cwk.SparseCategoricalCrossentropy, {}, native=NATIVE),
    "CategoricalCrossentropy-made": Valid(cwk.CategoricalCrossentropy, {}, native=NATIVE),
    "BinaryCrossentropy-made": Valid(cwk.BinaryCrossentropy, {}, native=NATIVE),
    "fit_sample_weight": Valid(cwk.fit_sample_weight, {"y": Y, "class_weight": [1.0, 2, 5]}),
}


@each_call(cwk, CALLS)
def test_errors_say_the_arguments_of_the_call(call: Valid) -> None:
    assert call.assert_errors_name_arguments(keras.ops.convert_to_tensor)
