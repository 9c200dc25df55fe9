"""The float64 reference holds against 50-digit arithmetic, and the lowering with its kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest

import classweight.adapters.numpy as cwn
from classweight.conformance import oracle
from classweight.reference import reference

from ..calls import CLOSE, random_call


@pytest.mark.parametrize("seed", range(600))
def test_numpy_equals_the_reference_on_every_kind_of_call(seed: int) -> None:
    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    value, gradient = cwn.loss_and_grad(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    np.testing.assert_allclose(value, expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient, expected[1])
    assert np.shape(value) == expected[0].shape
    unchecked = cwn.loss(call.spec, call.logits, call.targets, validate=False, **call.arguments)
    np.testing.assert_array_equal(unchecked, value)


@pytest.mark.parametrize("seed", range(150))
def test_the_reference_equals_fifty_digits(seed: int) -> None:
    call = random_call(seed, small=True)
    eps = float(np.finfo(np.float64).eps)
    truth = oracle.evaluate(call.spec, call.logits, call.targets, eps=eps, upstream=call.upstream, **call.arguments)
    value, gradient = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    for found, true, size in (
        (value, truth.loss, truth.loss_magnitude),
        (gradient, truth.gradient, truth.gradient_magnitude),
    ):
        true, size = true.astype(np.float64), size.astype(np.float64)
        assert found.shape == true.shape
        np.testing.assert_array_equal(np.isnan(found), np.isnan(true))
        # 64 roundings, of the sum of the magnitudes of the terms that make up the number; 50 digits leave 1e-50 of a 0.
        bound = 64 * eps * np.abs(size) + 1e-50
        assert (np.abs(found - true)[~np.isnan(true)] <= bound[~np.isnan(true)]).all(), call
