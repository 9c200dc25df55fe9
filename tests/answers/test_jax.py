"""Numbers that JAX's users get with optax and by Flax's examples, and the call that is named for each."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax

from classweight import compare, identify

from ..conventions.test_flax import entropy, mean
from .surprises import LARGE_S, LARGE_T, LARGE_W, LARGE_Z, ONE_HOT, S, T, W, Z, assert_named

WEIGHTS = np.array(W)[T]
LOSSES = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(Z, jnp.float32), T)
OPTAX, FLAX = "mean of optax.softmax_cross_entropy", "flax.compute_weighted_cross_entropy"


def test_a_mean_of_weighted_losses() -> None:
    assert_named(f"{jnp.mean(LOSSES * WEIGHTS):.6f}", f"{OPTAX}(class_weight=w)", class_weight=W)
    assert_named(f"{jnp.mean(LOSSES * S):.6f}", f"{OPTAX}()", sample_weight=S)
    dense = optax.safe_softmax_cross_entropy(jnp.asarray(Z, jnp.float32), ONE_HOT)
    assert_named(f"{jnp.mean(dense * WEIGHTS):.6f}", f"{OPTAX}(class_weight=w)", targets=ONE_HOT, class_weight=W)


def test_an_average_by_weights_is_that_of_flax() -> None:
    assert_named(f"{jnp.average(LOSSES, weights=WEIGHTS):.6f}", f"{FLAX}(class_weight=w)", class_weight=W)
    z = jnp.asarray(LARGE_Z, jnp.float32)
    loss = mean(z, LARGE_T, LARGE_W[LARGE_T] * LARGE_S)
    given = {"logits": LARGE_Z, "targets": LARGE_T, "class_weight": LARGE_W, "sample_weight": LARGE_S}
    assert_named(f"{loss:.6f}", f"{FLAX}(class_weight=w)", **given)


def test_a_smoothing_among_the_others() -> None:
    loss = mean(jnp.asarray(LARGE_Z, jnp.float32), LARGE_T, None, 0.1) + entropy(0.1, 5)
    call = f"{FLAX}(label_smoothing=0.1, num_classes=5)"
    assert_named(f"{loss:.6f}", call, logits=LARGE_Z, targets=LARGE_T, label_smoothing=0.1)
    table = str(compare(LARGE_Z, LARGE_T, label_smoothing=0.1))
    assert "the entropy of the smoothed label" in table
    assert "leaves the label less than the others" in str(compare(LARGE_Z, LARGE_T, label_smoothing=0.9))


def test_a_mean_of_binary_losses() -> None:
    z, y = jnp.asarray(Z, jnp.float32), (Z > 0).astype(np.float32)
    y[0] = 1 - y[0]
    losses = optax.sigmoid_binary_cross_entropy(z, y) * np.where(y > 0.5, 3.0, 0.5)
    answer = identify(f"{jnp.mean(losses):.6f}", Z, y, kind="sigmoid", class_weight=(0.5, 3.0))
    assert any("mean of optax.sigmoid_binary_cross_entropy(class_weight=w)" in match.calls for match in answer.best)
