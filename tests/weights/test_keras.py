"""Keras: tensors of its backend as labels; class weights and sample weights in ``fit``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

from classweight import class_weights, sample_weights

LABELS = np.array([0, 2, 2, 1, 2, 0])
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
S = np.array([1, 0.5, 2, 1, 3, 0.25])

# Keras's arrays on torch.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(outputs: int = 1) -> Any:
    inputs = keras.Input((4,))
    logits = [
        keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=i), name=f"head{i}")(inputs)
        for i in range(outputs)
    ]
    model = keras.Model(inputs, dict(zip(("kind", "size"), logits, strict=False)) if outputs > 1 else logits[0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss={"kind": loss, "size": loss} if outputs > 1 else loss)
    return model


def rows(model: Any, y: Any) -> Any:
    """Return the loss of each row, from the logits that the model gives before it is trained."""
    z = model.predict(X, verbose=0).astype(np.float64)
    return np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), y]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_tensors_of_the_backend_are_labels(dtype: str) -> None:
    assert class_weights(keras.ops.convert_to_tensor(LABELS, dtype)).counts == (2, 1, 3)
    one_hot = keras.ops.one_hot(keras.ops.convert_to_tensor(LABELS), 3)
    assert class_weights(keras.ops.cast(one_hot, "bfloat16")).counts == (2, 1, 3)
    assert class_weights(keras.Variable(LABELS, trainable=False, dtype="int32")).counts == (2, 1, 3)


needs_training = pytest.mark.skipif(keras.config.backend() == "numpy", reason="on NumPy Keras has no training")


@needs_training
def test_class_weights_go_into_fit() -> None:
    weights, model = class_weights(LABELS), network()
    expected = np.mean(np.asarray(weights)[LABELS] * rows(model, LABELS))
    history = model.fit(X, LABELS, batch_size=6, class_weight=weights.as_dict(), verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@needs_training
def test_sample_weights_are_the_product_that_fit_refuses() -> None:
    weights, model = class_weights(LABELS), network()
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(X, LABELS, sample_weight=S, class_weight=weights.as_dict(), verbose=0)
    expected = np.mean(S * np.asarray(weights)[LABELS] * rows(model, LABELS))
    history = model.fit(X, LABELS, batch_size=6, sample_weight=sample_weights(LABELS, weights, S), verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@needs_training
def test_every_output_has_weights_of_its_own() -> None:
    """Which Keras refuses as class weights."""
    y = {"kind": LABELS, "size": np.array([1, 0, 1, 1, 2, 1])}
    weights, model = class_weights(y), network(outputs=2)
    heads = {key: keras.Model(model.inputs, model.output[key]) for key in y}
    expected = sum(np.mean(S * np.asarray(weights[key])[y[key]] * rows(heads[key], y[key])) for key in y)
    history = model.fit(X, y, batch_size=6, sample_weight=sample_weights(y, weights, S), verbose=0)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)
