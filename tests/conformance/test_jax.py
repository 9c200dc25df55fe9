"""Users' losses on JAX, held against a spec."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import optax
import pytest

import classweight.adapters.jax as cwj
from classweight import conventions
from classweight.conformance import assert_conforms

SPEC = conventions.flax.compute_weighted_cross_entropy(class_weight=[1, 2, 5])


def test_the_adapter_conforms() -> None:
    assert_conforms(lambda z, t, s=None: cwj.loss(SPEC, z, t, s), SPEC, framework="jax")


def test_a_mean_over_rows_is_shown_to_be_none_over_weights() -> None:
    def over_rows(logits: Any, targets: Any) -> Any:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.mean(losses * jnp.take(jnp.array([1, 2, 5], logits.dtype), targets))

    with pytest.raises(AssertionError) as caught:
        assert_conforms(over_rows, SPEC, framework="jax")
    failed = set(re.findall(r"own-[\w-]+(?=-float32)", str(caught.value)))
    assert {"own-normal", "own-confident"} <= failed
