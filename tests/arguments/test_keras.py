"""Keras's errors say the arguments of the function that was called."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

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


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="other backends trace without assertions")
@pytest.mark.parametrize("jit_compile", ["auto", False, True])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_bad_label_in_fit_is_named_unless_xla_compiles(jit_compile: Any) -> None:
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    loss = cwk.SparseCategoricalCrossentropy(from_logits=True, class_weight={1: 2.0})
    model.compile("sgd", loss, jit_compile=jit_compile)
    x, y = np.ones((8, 2), np.float32), np.array([0, 1, 2, 0, 1, 3, 0, 1])
    if jit_compile is True:
        assert np.isnan(model.fit(x, y, verbose=0).history["loss"])
        return
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"`y_true` must .* from 0 to 2; got\] \[3\] \[at position\] \[\d"
    ):
        model.fit(x, y, verbose=0)
