"""PyTorch: `inplace=True` puts the gradient where the logits were, or is refused; nothing else has that size."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

W = [1.0, 2.0, 5.0, 0.5]
Y = torch.tensor([0, 3, 2, 1, 0, -100])
INDEX = SoftmaxCrossEntropy(class_weight=W, ignore_index=-100)
SPECS: dict[str, Any] = {
    "index": INDEX,
    "smoothed": SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1, ignore_index=-100, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W),
    "binary": SigmoidCrossEntropy(class_weight=(1, W)),
}
each_spec = pytest.mark.parametrize("kind", list(SPECS))


def hidden(dtype: torch.dtype = torch.float64, *shape: int) -> Tensor:
    """Return a leaf to make logits of."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*(shape or (6, 4)), generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def targets(kind: str, dtype: torch.dtype) -> Tensor:
    if kind in ("index", "smoothed"):
        return Y
    return torch.softmax(hidden().detach().flip(0) * 2, 1).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("upstream", [1.0, -0.75])
@each_spec
def test_the_gradient_is_the_same_and_lies_where_the_logits_were(
    kind: str, upstream: float, dtype: torch.dtype
) -> None:
    spec, t, leaf = SPECS[kind], targets(kind, dtype), hidden(dtype)
    expected_value = cwt.loss(spec, leaf * 3, t)
    (expected,) = torch.autograd.grad(expected_value * upstream, leaf)
    places = []
    z = leaf * 3
    z.register_hook(lambda gradient: places.append(gradient.data_ptr()))
    value = cwt.loss(spec, z, t, inplace=True)
    assert torch.equal(value, expected_value)
    (value * upstream).backward()
    assert torch.equal(leaf.grad, expected)  # type: ignore[arg-type]
    assert places == [z.data_ptr()]


def test_blocks_are_written_over_one_after_the_other() -> None:
    leaf = hidden(torch.float32, 3000, 1000)
    y = torch.arange(3000) % 1000
    (expected,) = torch.autograd.grad(cwt.loss(SoftmaxCrossEntropy(), leaf * 2, y), leaf)
    (found,) = torch.autograd.grad(cwt.loss(SoftmaxCrossEntropy(), leaf * 2, y, inplace=True), leaf)
    assert torch.equal(found, expected)


def test_a_module_takes_it_too() -> None:
    leaf = hidden()
    module = cwt.Loss(INDEX)
    (expected,) = torch.autograd.grad(module(leaf * 3, Y), leaf)
    (found,) = torch.autograd.grad(module(leaf * 3, Y, inplace=True), leaf)
    assert torch.equal(found, expected)


@each_spec
def test_logits_stay_where_no_gradient_is_asked_for(kind: str) -> None:
    for z in (hidden().detach(), hidden() * 1):
        before, t = z.detach().clone(), targets(kind, torch.float64)
        with torch.no_grad():
            value = cwt.loss(SPECS[kind], z, t, inplace=True)
        assert torch.equal(value, cwt.loss(SPECS[kind], before, t))
        assert torch.equal(z, before)


@pytest.mark.parametrize("make", [torch.tanh, torch.exp, torch.relu, lambda h: torch.tanh(h).view(6, 4)])
def test_autograd_notices_that_the_maker_of_the_logits_needs_them(make: Callable[[Tensor], Tensor]) -> None:
    leaf = hidden()
    value = cwt.loss(INDEX, make(leaf), Y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_autograd_notices_that_another_reader_of_the_logits_needs_them() -> None:
    z = hidden() * 1
    other = (z * z).sum()
    value = cwt.loss(INDEX, z, Y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (value + other).backward()


def test_another_reader_that_needs_nothing_has_its_share_of_the_gradient() -> None:
    leaf = hidden()

    def step(inplace: bool) -> Tensor:
        z = leaf * 1
        other = (3 * z).sum()
        return torch.autograd.grad(cwt.loss(INDEX, z, Y, inplace=inplace) + other, leaf)[0]

    assert torch.equal(step(True), step(False))


@pytest.mark.parametrize("again", ["twice", "differentiated", "batched"])
def test_there_is_one_plain_backward(again: str) -> None:
    z = hidden() * 1
    value = cwt.loss(INDEX, z, Y, inplace=True)
    upstream = torch.ones(3, dtype=torch.float64) if again == "batched" else None
    if again == "twice":
        torch.autograd.grad(value, z, retain_graph=True)
    with pytest.raises(RuntimeError, match="`inplace` must be False for a second backward"):
        torch.autograd.grad(
            value, z, upstream, create_graph=again == "differentiated", is_grads_batched=again == "batched"
        )


def refused() -> dict[str, tuple[str, Any, Any, dict[str, Any]]]:
    """Return for each reason: a word of it, a spec, logits, and more arguments."""
    z, leaf = hidden() * 1, hidden()
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    row = hidden(torch.float64, 1, 4) * 1
    return {
        "leaf": ("leaf", INDEX, leaf, {}),
        "view of a leaf": ("leaf", INDEX, hidden(torch.float64, 24).view(6, 4), {}),
        "half": ("float16", INDEX, hidden(torch.float16) * 1, {}),
        "bfloat16": ("bfloat16", INDEX, hidden(torch.bfloat16) * 1, {}),
        "exact": ("float64", dataclasses.replace(INDEX, precision="exact"), hidden(torch.float32) * 1, {}),
        "none": ("reduction", dataclasses.replace(INDEX, reduction="none"), z, {}),
        "probabilities": ("composed", SoftmaxCrossEntropy(inputs="probs", ignore_index=-100), z.softmax(1), {}),
        "weight": ("composed", SoftmaxCrossEntropy(ignore_index=-100), z, {"class_weight": weight}),
        "expanded": ("contiguous", INDEX, row.expand(6, 4), {}),
        "transposed": ("contiguous", INDEX, (hidden(torch.float64, 4, 6) * 1).T, {}),
        "device": ("composed", INDEX, z.to("meta"), {}),
    }


@pytest.mark.parametrize("reason", list(refused()))
def test_it_is_refused_where_it_is_unsafe_and_nothing_is_written(reason: str) -> None:
    word, spec, z, arguments = refused()[reason]
    y = Y.to(z.device)
    before = z.detach().clone()
    with pytest.raises(ValueError, match=f"`inplace` must be False for this call; got True .*{word}"):
        cwt.loss(spec, z, y, inplace=True, **arguments)
    assert z.is_meta or torch.equal(z, before)


def test_it_is_refused_in_a_transform() -> None:
    with pytest.raises(ValueError, match=r"`inplace` must be False for this call; got True .*transforms"):
        torch.func.grad(lambda z: cwt.loss(INDEX, z, Y, inplace=True))(hidden().detach())


def largest_request(step: Callable[[], object]) -> int:
    """Return the bytes of the largest tensor or array that is made in a step."""
    step()
    tracemalloc.start()  # NumPy tells it of its arrays
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    of_numpy = max((trace.size for trace in tracemalloc.take_snapshot().traces), default=0)
    tracemalloc.stop()
    return max(of_numpy, *(event.cpu_memory_usage for event in found.events()), 0)


@pytest.mark.parametrize("precision", ["native", "exact"])
@each_spec
def test_only_the_gradient_has_the_size_of_the_logits(kind: str, precision: str) -> None:
    z = torch.zeros(1024, 16384, requires_grad=True)
    spec = dataclasses.replace(SPECS[kind], class_weight=None, precision=precision)
    t = torch.zeros(1024, 16384) if kind in ("binary", "distribution") else torch.zeros(1024, dtype=torch.int64)

    def without_gradient() -> None:
        with torch.no_grad():
            cwt.loss(spec, z, t)

    assert largest_request(without_gradient) < z.nbytes / 4
    assert largest_request(lambda: cwt.loss(spec, z, t, inplace=False)) < z.nbytes * 1.01
    if precision == "native":
        assert largest_request(lambda: cwt.loss(spec, z * 1, t, inplace=True)) <= z.nbytes
