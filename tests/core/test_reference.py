"""The float64 reference holds against 50-digit arithmetic, and the lowering with its kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest

import classweight.adapters.numpy as cwn
from classweight.reference import reference

from ..calls import CLOSE, random_call
from ..truth import assert_true


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


@pytest.mark.parametrize("signed", [False, True], ids=["", "signed"])
@pytest.mark.parametrize("seed", range(150))
def test_the_reference_equals_fifty_digits(seed: int, signed: bool) -> None:
    call = random_call(seed, small=True, signed=signed)
    assert_true(call, *reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments))


@pytest.mark.parametrize("seed", range(300))
def test_numpy_equals_fifty_digits_under_weights_of_either_sign(seed: int) -> None:
    call = random_call(seed, signed=True)
    assert_true(
        call, *cwn.loss_and_grad(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    )
