"""One weighted mean over two devices of Keras on JAX: the updates are one device's.

Keras lays a batch out over a mesh of devices and compiles one step over all of it. So the sum of the weights is that of
the whole batch already, and nothing is to be handed over: neither the classes of a device's rows nor the number of
steps in an execution make a difference. The example prints the largest one, in ULPs of float32, and what the mean of
the devices' means would have made of it.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import keras
import numpy as np

import classweight.adapters.keras as cwk
from classweight import SoftmaxCrossEntropy

SPEC = SoftmaxCrossEntropy(class_weight=[1, 4, 20], axis=-1)
ROWS, STEPS = 16, 4
generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, 8)).astype(np.float32)
Y = np.sort(generator.choice(3, ROWS, p=[0.5, 0.3, 0.2]))


def weighted_mean(y_true: Any, y_pred: Any) -> Any:
    return cwk.loss(SPEC, y_pred, keras.ops.cast(y_true, "int32"))  # Keras makes them floats


def mean_of_halves(y_true: Any, y_pred: Any) -> Any:
    half = ROWS // 2
    return (weighted_mean(y_true[:half], y_pred[:half]) + weighted_mean(y_true[half:], y_pred[half:])) / 2


def trained(devices: int, loss: Any, steps: int = 1) -> list[Any]:
    """Return the loss of the last epoch, and the parameters after it."""
    keras.utils.set_random_seed(0)
    mesh = keras.distribution.DataParallel(devices=keras.distribution.list_devices("cpu")[:devices])
    with mesh.scope():
        network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)])
        network.compile(keras.optimizers.SGD(0.1), loss, steps_per_execution=steps)
        repeated = np.tile(X, (STEPS, 1)), np.tile(Y, STEPS)
        history = network.fit(*repeated, batch_size=ROWS, shuffle=False, verbose=0)
    assert len(network.weights[0].value.sharding.device_set) == devices
    return [np.float32(history.history["loss"][-1]), *network.get_weights()]


def main() -> None:
    assert jax.device_count() == 2
    expected = trained(1, weighted_mean)
    runs = {
        "two devices": trained(2, weighted_mean),
        "two devices, 2 steps an execution": trained(2, weighted_mean, 2),
        "the mean of the devices' means": trained(1, mean_of_halves),
    }
    print(f"{'':34} {'loss':>12} {'parameters':>12}")
    for name, found in runs.items():
        loss, *parameters = (
            float(np.max(np.abs(a - b) / np.spacing(np.maximum(abs(a), abs(b)))))
            for a, b in zip(found, expected, strict=True)
        )
        print(f"{name:34} {loss:>12,.0f} {max(parameters):>12,.0f}")
        assert max(loss, *parameters) <= 32 if "two" in name else min(loss, max(parameters)) > 1000


if __name__ == "__main__":
    main()
