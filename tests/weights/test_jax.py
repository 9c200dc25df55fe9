"""Class weights and offsets of arrays of JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from classweight import adjust_logits, logit_offsets


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_logits_are_adjusted_in_their_own_type_and_in_a_jit(dtype: str) -> None:
    offsets = logit_offsets(jnp.array([0, 1, 1, 2]))
    logits = jnp.zeros((2, 3, 4), dtype)

    def adjust(z: jax.Array) -> jax.Array:
        return adjust_logits(z, offsets, axis=1)

    for adjusted in (adjust(logits), jax.jit(adjust)(logits)):
        assert adjusted.dtype == dtype
        np.testing.assert_array_equal(adjusted[1, :, 3], jnp.asarray(offsets, dtype))
    slope = jax.grad(lambda z: adjust(z).sum())(logits)
    np.testing.assert_array_equal(slope, jnp.ones_like(logits))
