"""The oracle holds against closed forms, against numerical differentiation, and against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conformance.oracle import evaluate
from classweight.reference import reference

from ..calls import CLOSE, random_call

EPS = 2.0**-52


def numeric(call: Any, index: tuple[int, ...]) -> Any:
    """Return the derivative of sum(upstream * loss) by a central difference with steps that float64 holds exactly."""
    with mp.workdps(50):
        step = 2.0**-20
        sides = []
        # Richardson over two steps: errors of order h**4, exact inputs throughout.
        for h in (step, step / 2):
            ends = []
            for sign in (1, -1):
                z = call.logits.copy()
                z[index] += sign * h
                assert z[index] - call.logits[index] == sign * h
                loss = evaluate(call.spec, z, call.targets, eps=EPS, **call.arguments).loss
                ends.append(sum(mpf(float(u)) * x for u, x in zip(np.ravel(call.upstream), loss.ravel(), strict=True)))
            sides.append((ends[0] - ends[1]) / (2 * mpf(h)))
        return (4 * sides[1] - sides[0]) / 3


@pytest.mark.parametrize("seed", range(80))
def test_gradient_is_the_derivative_of_the_loss(seed: int) -> None:
    call = random_call(seed)
    if call.logits.size == 0 or call.logits.size > 60:
        call = random_call(seed + 10_000)
    call.logits = np.round(call.logits * 2**20) / 2**20  # so that a step away is a float64 too
    truth = evaluate(call.spec, call.logits, call.targets, eps=EPS, upstream=call.upstream, **call.arguments)
    if mp.isnan(truth.loss.ravel()[0] if truth.loss.size else 0):  # a denominator of 0
        assert not truth.gradient.any()
        return
    scale = max((abs(g) for g in truth.gradient.ravel()), default=0) + mpf("1e-30")
    for index in list(np.ndindex(call.logits.shape))[::7]:
        clip = call.spec.clip if call.spec.clip != "dtype" else EPS
        if clip is not None:
            p = call.logits[index]
            if min(abs(p - clip), abs(p - 1 + clip)) < 1e-5:
                continue  # the derivative jumps there
        assert abs(truth.gradient[index] - numeric(call, index)) <= mpf("1e-15") * scale, (call, index)


@pytest.mark.parametrize("seed", range(400))
def test_oracle_equals_the_reference_on_every_kind_of_call(seed: int) -> None:
    call = random_call(seed)
    truth = evaluate(call.spec, call.logits, call.targets, eps=EPS, upstream=call.upstream, **call.arguments)
    value, gradient = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    np.testing.assert_allclose(truth.loss.astype(np.float64), value, **CLOSE, err_msg=str(call))
    call.assert_gradient(truth.gradient.astype(np.float64), gradient)


def test_two_equal_logits_lose_the_logarithm_of_two() -> None:
    truth = evaluate(SoftmaxCrossEntropy(), np.zeros((1, 2)), np.array([1]), eps=EPS)
    with mp.workdps(50):
        assert abs(truth.loss[()] - mp.log(2)) < mpf("1e-50")
        assert truth.gradient.tolist() == [[mpf("0.5"), mpf("-0.5")]]


def test_a_gap_of_500_keeps_50_digits() -> None:
    truth = evaluate(SoftmaxCrossEntropy(), np.array([[500.0, 0]]), np.array([0]), eps=EPS)
    binary = evaluate(SigmoidCrossEntropy(), np.array([500.0]), np.array([1.0]), eps=EPS)
    with mp.workdps(300):
        loss, slope = mp.log1p(mp.exp(-500)), -1 / (1 + mp.exp(500))
        for found in (truth, binary):
            assert abs(found.loss[()] / loss - 1) < mpf("1e-50")
            assert abs(found.gradient.ravel()[0] / slope - 1) < mpf("1e-50")


def test_magnitudes_are_the_sums_of_what_cancels() -> None:
    z = np.array([[3.0, 1, 0], [3, 1, 0]])
    t = np.array([[0.75, 0.25, 0.25], [0, 0.75, 0.5]])
    truth = evaluate(SoftmaxCrossEntropy(reduction="sum"), z, t, eps=EPS)
    q = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    expected = 1.25 * q + t
    expected[0, 0] = 0.5 + 1.25 * (1 - q[0, 0])
    assert expected[0, 0] < 1.25 * q[0, 0] + t[0, 0]
    np.testing.assert_allclose(truth.gradient_magnitude.astype(float), expected, rtol=1e-14)
    np.testing.assert_array_equal(truth.gradient_scale.astype(float), np.full((2, 3), 1.25))
