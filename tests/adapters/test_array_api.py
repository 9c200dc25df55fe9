"""The array code of the NumPy, CuPy and Chainer adapters under the array API standard, nothing beside it allowed."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

from classweight.call import prepare
from classweight.compute import closed_form, cpu
from classweight.compute.arrays import ArrayFunctions

from ..calls import random_call
from ..refusals import Refusal, assert_refused, each_refusal

strict = ArrayFunctions(array_api_strict)


def call_of(spec: Any, logits: Any, targets: Any, *, check_values: bool = True, **arguments: Any) -> Any:
    names = ("sample_weight", "class_weight", "mask", "denominator")
    rest = (arguments.get(name) for name in names)
    return prepare(strict, spec, array_api_strict.asarray(logits), targets, *rest, check_values=check_values)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the infinities that are then put aside
@pytest.mark.parametrize("check_values", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(300))
def test_the_standard_suffices_and_the_bits_are_numpys(seed: int, dtype: Any, check_values: bool) -> None:
    call = random_call(seed)
    z, above = call.logits.astype(dtype), call.upstream
    arguments = {k: v if k == "denominator" else array_api_strict.asarray(v) for k, v in call.arguments.items()}
    targets = array_api_strict.asarray(call.targets)
    found = call_of(call.spec, z, targets, check_values=check_values, **arguments)
    names = ("sample_weight", "class_weight", "mask", "denominator")
    rest = (call.arguments.get(name) for name in names)
    of_numpy = prepare(cpu.host, call.spec, z, call.targets, *rest, check_values=check_values)
    results = closed_form.loss_and_grad(strict, found, array_api_strict.asarray(above))
    expected = closed_form.loss_and_grad(cpu.host, of_numpy, above)
    for got, wanted in zip(results, expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == getattr(array_api_strict, np.dtype(dtype).name)
        np.testing.assert_array_equal(np.asarray(got), wanted, err_msg=str(call))


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    assert_refused(refusal, call_of, array_api_strict.asarray)
