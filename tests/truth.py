"""A random call held against 50-digit arithmetic, within roundings of what its numbers are the sums of."""

from __future__ import annotations

from typing import Any

import numpy as np

from classweight.conformance import oracle

from .calls import RandomCall

EPS = float(np.finfo(np.float64).eps)


def assert_true(call: RandomCall, value: Any, gradient: Any) -> None:
    """Assert that loss and gradient of a call in float64 are those of the definition."""
    truth = oracle.evaluate(call.spec, call.logits, call.targets, eps=EPS, upstream=call.upstream, **call.arguments)
    for found, true, size in (
        (value, truth.loss, truth.loss_magnitude),
        (gradient, truth.gradient, truth.gradient_magnitude),
    ):
        true, size = true.astype(np.float64), size.astype(np.float64)
        assert np.shape(found) == true.shape
        np.testing.assert_array_equal(np.isnan(found), np.isnan(true))
        # 64 roundings, of the sum of the magnitudes of the terms that make up the number; 50 digits leave 1e-50 of a 0.
        bound = 64 * EPS * np.abs(size) + 1e-50
        assert (np.abs(found - true)[~np.isnan(true)] <= bound[~np.isnan(true)]).all(), call
