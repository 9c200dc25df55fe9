"""PyTorch's plain calls: the numbers of the general path, or of one compiled function; losses like any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
from classweight.compute import few
from classweight.reference import reference

each_precision = pytest.mark.parametrize("precision", ["native", "exact"])


@each_precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [None, "spec", "call"])
@pytest.mark.parametrize("reduction", ["sum", "mean_over_weights", "mean_over_nonzero", "mean_over_batch"])
def test_a_plain_call_has_the_bits_of_the_general_path(
    reduction: str, weights: str | None, dtype: torch.dtype, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(90, 60, generator=generator, dtype=dtype) * 4
    y = torch.randint(0, 60, (90,), generator=generator)
    z[1, y[1]] = -200.0  # whose exponential is lost
    w = torch.rand(60, generator=generator)
    w[y[2]] = 0.0
    if weights:
        z[2, y[2]] = -torch.inf
    given = {"class_weight": w} if weights == "call" else {}
    spec = SoftmaxCrossEntropy(
        class_weight=w.tolist() if weights == "spec" else None, reduction=reduction, precision=precision
    )
    monkeypatch.setattr(few, "compiled", lambda: None)
    found = []
    plain = cwt.plain.loss
    monkeypatch.setattr(cwt.plain, "loss", lambda *call: found.append(plain(*call)) or found[-1])
    values, gradients = [], []
    for validate in (None, False):  # what is not to be looked at has no plain path
        logits = z.clone().requires_grad_()
        value = cwt.loss(spec, logits, y, validate=validate, **given)
        value.backward(retain_graph=True)
        gradients.append(logits.grad)
        gradients.append(torch.autograd.grad(value, logits, torch.tensor(2.0, dtype=dtype))[0])
        values += [value.detach(), cwt.loss(spec, z, y, validate=validate, **given)]
    assert len(found) == 2
    assert not any(x is None for x in found)
    assert values[0].isfinite()
    for several in (values, gradients[::2], gradients[1::2]):
        for each in several[1:]:
            torch.testing.assert_close(each, several[0], rtol=0, atol=0, equal_nan=True)


@each_precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean_over_weights", "mean_over_nonzero", "mean_over_batch"])
def test_what_is_compiled_after_the_exponentials_is_the_reference(
    reduction: str, weighted: bool, dtype: torch.dtype, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(6)
    z = torch.randn(90, 60, generator=generator, dtype=dtype) * 4
    y = torch.randint(0, 60, (90,), generator=generator)
    w = torch.rand(60, generator=generator).double()
    w[3] = 0.0
    z[0] += 1000  # no softmax minds
    given = {"class_weight": w} if weighted else {}
    spec = SoftmaxCrossEntropy(reduction=reduction, precision=precision)
    kernels = few.compiled()
    found: list[float] = []

    def of_exponentials(*arguments: Any) -> float:
        found.append(kernels.of_exponentials(*arguments))
        return found[-1]

    monkeypatch.setattr(few, "compiled", lambda: SimpleNamespace(of_exponentials=of_exponentials))
    # A sum of float32 in float32, whose 60 terms are rounded; float64 inside is rounded to float32 once.
    rtol = 1e-13 if dtype is torch.float64 else 1e-7 if precision == "exact" else 2e-5
    for _ in range(2):
        logits = z.clone().requires_grad_()
        value = cwt.loss(spec, logits, y, **given)
        value.backward()
        for ours, expected in zip((value, logits.grad), reference(spec, z, y, **given), strict=True):
            torch.testing.assert_close(ours.double(), torch.tensor(expected), rtol=rtol, atol=0)
        assert len(found) == 1
        assert np.isnan(found) == (z[1, y[1]] < -1000)
        found.clear()
        z[1, y[1]] = -2000.0  # whose exponential is lost: that is another kernel's


@pytest.mark.parametrize("shape", [(3, 4), (90, 60), (3000, 100), (40, 8192)])
def test_a_loss_may_be_changed_in_place_like_any_other(shape: tuple[int, int]) -> None:
    z = torch.zeros(shape, requires_grad=True)
    value = cwt.loss(SoftmaxCrossEntropy(reduction="sum"), z, torch.zeros(shape[0], dtype=torch.int64))
    value /= 4
    value += 1
    value.backward()
    n, classes = shape
    torch.testing.assert_close(value.item(), n * np.log(classes) / 4 + 1, rtol=1e-6, atol=0)
    torch.testing.assert_close(z.grad[0, :2], torch.tensor([1 / classes - 1, 1 / classes]) / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 1 << 18), (4, 100_000), (1000, 1000)])
def test_equal_exponentials_do_not_add_up_their_roundings(shape: tuple[int, int]) -> None:
    z = torch.zeros(shape)
    z[:, 1] = 0.3
    z.requires_grad_()
    spec, y = SoftmaxCrossEntropy(), torch.zeros(shape[0], dtype=torch.int64)
    value = cwt.loss(spec, z, y)
    value.backward()
    for found, expected in zip((value, z.grad), reference(spec, z.detach(), y), strict=True):
        torch.testing.assert_close(found.double(), torch.tensor(expected), rtol=5e-7, atol=0)


def test_a_second_backward_with_other_threads_finds_a_gradient() -> None:
    z = torch.zeros(256, 1000)
    z[0, 0] = -300.0
    z.requires_grad_()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(8)
        value = cwt.loss(SoftmaxCrossEntropy(), z, torch.zeros(256, dtype=torch.int64))
        (first,) = torch.autograd.grad(value, z, retain_graph=True)
        torch.set_num_threads(1)
        (second,) = torch.autograd.grad(value, z)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(first, second, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("index", "weight"), [(60, 1.0), (-1, 1.0), (0, -np.inf), (0, np.nan), (0, np.inf), (0, 0.0)])
def test_what_is_compiled_refuses_what_others_word(index: int, weight: float) -> None:
    kernels = few.compiled()
    y, w = np.array([1, 1]), np.array([0.0, 0.0, 1.0])
    y[0], w[1] = index, weight
    for loss in (
        lambda: kernels.of_exponentials(np.ones((2, 3)), y, w, 1),
        lambda: kernels.loss_and_grad(np.ones((2, 3)), y, w, 1, np.empty((0, 0))),
    ):
        assert np.isnan(loss())
    w[:], y[:] = 2.0, 1
    assert kernels.of_exponentials(np.ones((2, 3)), y, w, 1) == pytest.approx(np.log(3), rel=1e-14)
