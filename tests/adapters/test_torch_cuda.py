"""PyTorch on a device: the public functions against the CPU's, no synchronisation, streams, sizes beyond int32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch import chunks
from classweight.reference import reference

from ..calls import CLOSE, random_call

pytestmark = pytest.mark.gpu
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SHAPES = [((700, 10), 1), ((60, 1000), 1), ((5, 50257), 1), ((3, 128256), 1), ((2, 21, 33, 40), 1), ((6, 4), 0)]


def loss_and_grad(spec: Any, z: torch.Tensor, *arguments: Any, upstream: Any = None, **options: Any) -> Any:
    leaf = z.detach().requires_grad_()
    value = cwt.loss(spec, leaf, *arguments, **options)
    value.backward(torch.ones_like(value) if upstream is None else upstream)
    return value.detach(), leaf.grad


def a_call(shape: Any, axis: int, dtype: torch.dtype, **fields: Any) -> Any:
    """Return a spec, logits, labels with an ignored one, and an upstream gradient, on the CPU."""
    rng = np.random.default_rng(1)
    spec = SoftmaxCrossEntropy(
        axis=axis, class_weight=rng.random(shape[axis]) + 0.1, ignore_index=-100, reduction="none", **fields
    )
    labels = torch.from_numpy(rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :]))
    labels.view(-1)[0] = -100
    upstream = torch.from_numpy(rng.normal(size=labels.shape)).to(dtype)
    return spec, torch.from_numpy(5 * rng.normal(size=shape)).to(dtype), labels, upstream


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_exact_precision_has_the_bits_of_the_cpu(shape: Any, axis: int, dtype: Any) -> None:
    spec, z, labels, upstream = a_call(shape, axis, dtype, precision="exact")
    wanted = loss_and_grad(spec, z, labels, upstream=upstream)
    got = loss_and_grad(spec, z.cuda(), labels.cuda(), upstream=upstream.cuda())
    for x, y in zip(got, wanted, strict=True):
        torch.testing.assert_close(x.cpu(), y, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_native_precision_is_as_near_as_torch(shape: Any, axis: int, smoothing: float, dtype: Any) -> None:
    spec, z, labels, upstream = a_call(shape, axis, dtype, label_smoothing=smoothing)
    wide = dataclasses.replace(spec, precision="exact")
    truth = loss_and_grad(wide, z.double(), labels, upstream=upstream.double())
    got = loss_and_grad(spec, z.cuda(), labels.cuda(), upstream=upstream.cuda())
    leaf = z.cuda().requires_grad_()
    weight = torch.tensor(spec.class_weight, dtype=dtype, device="cuda")
    value = torch.nn.functional.cross_entropy(
        leaf.movedim(axis, 1), labels.cuda(), weight, label_smoothing=smoothing, reduction="none"
    )
    value.backward(upstream.cuda())
    for x, native, y in zip(got, (value.detach(), leaf.grad), truth, strict=True):
        assert x.dtype is dtype
        allowed = (native.cpu().double() - y).abs().max() + 4 * torch.finfo(dtype).eps * y.abs().max()
        assert (x.cpu().double() - y).abs().max() <= allowed


@pytest.mark.parametrize("seed", range(100))
def test_a_device_equals_the_reference(seed: int) -> None:
    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    arguments = {name: torch.as_tensor(x).cuda() for name, x in call.arguments.items()}
    z, t = torch.from_numpy(call.logits).cuda(), torch.from_numpy(np.asarray(call.targets)).cuda()
    value, gradient = loss_and_grad(call.spec, z, t, upstream=torch.as_tensor(call.upstream).cuda(), **arguments)
    np.testing.assert_allclose(value.cpu(), expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient.cpu().numpy(), expected[1])


CALLS = {
    "index": (SoftmaxCrossEntropy(class_weight=[1, 2, 3], ignore_index=-100), torch.tensor([0, 1, -100, 7])),
    "smoothed": (SoftmaxCrossEntropy(label_smoothing=0.1), torch.tensor([0, 1, 2, 2])),
    "distribution": (SoftmaxCrossEntropy(class_weight=[1, 2, 3]), torch.full((4, 3), 0.25)),
    "binary": (SigmoidCrossEntropy(class_weight=(1, 2)), torch.full((4, 3), 0.25)),
}
each_call = pytest.mark.parametrize(("spec", "targets"), CALLS.values(), ids=list(CALLS))


@each_call
def test_nothing_synchronises(spec: Any, targets: torch.Tensor) -> None:
    z, targets = torch.randn(4, 3, device="cuda"), targets.cuda()
    sample_weight, upstream = torch.rand(4, device="cuda"), torch.tensor(2.0, device="cuda")
    loss_and_grad(spec, z, targets, sample_weight, upstream=upstream)  # compiles, and keeps the spec's weights
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_and_grad(spec, z, targets, sample_weight, upstream=upstream)
    finally:
        torch.cuda.set_sync_debug_mode(before)


@each_call
def test_a_graph_computes_anew(spec: Any, targets: torch.Tensor) -> None:
    z, targets, upstream = torch.randn(4, 3, device="cuda"), targets.cuda(), torch.tensor(2.0, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        loss_and_grad(spec, z, targets, upstream=upstream)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss_and_grad(spec, z, targets, upstream=upstream)
    z.neg_()
    graph.replay()
    for got, wanted in zip(captured, loss_and_grad(spec, z, targets, upstream=upstream), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)


def test_the_kernels_run_on_the_current_stream() -> None:
    z, labels = torch.zeros(64, 5000, device="cuda"), torch.zeros(64, dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        z.fill_(1.0)
        z[:, 0] = 3.0
        value, _ = loss_and_grad(SoftmaxCrossEntropy(), z, labels)
    stream.synchronize()
    np.testing.assert_allclose(value.item(), np.log1p(4999 * np.exp(-2.0)), rtol=1e-6)


def test_each_device_computes_on_its_own() -> None:
    """The device that is current is not the logits'."""
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    z, labels = torch.randn(8, 5, device=device), torch.zeros(8, dtype=torch.int64, device=device)
    with torch.cuda.device(0):
        value, gradient = loss_and_grad(SoftmaxCrossEntropy(), z, labels)
    wanted = loss_and_grad(SoftmaxCrossEntropy(), z.cpu(), labels.cpu())
    for got, expected in zip((value, gradient), wanted, strict=True):
        assert got.device == device
        torch.testing.assert_close(got.cpu(), expected)


def test_more_elements_than_an_int32_counts() -> None:
    rows, classes = 17_000, 128_256  # 4.4 GB of float16
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of the device's memory")
    z = torch.zeros(rows, classes, dtype=torch.float16, device="cuda")
    z[-1, -1] = 10
    labels = torch.full((rows,), classes - 1, device="cuda")
    value, gradient = loss_and_grad(SoftmaxCrossEntropy(reduction="none"), z, labels)
    np.testing.assert_allclose(value[-1].item(), np.log1p((classes - 1) * np.exp(-10.0)), rtol=1e-3)
    np.testing.assert_allclose(gradient[-1, -1].item(), -1 / (1 + np.exp(10.0) / (classes - 1)), rtol=1e-3)
    np.testing.assert_allclose(value[0].item(), np.log(classes), rtol=1e-3)


@each_call
def test_nothing_of_the_logits_size_is_kept(spec: Any, targets: torch.Tensor) -> None:
    if isinstance(spec, SigmoidCrossEntropy) or targets.ndim == 2:
        pytest.skip("its targets are of that size")
    z = torch.randn(4096, 5000, device="cuda", requires_grad=True)
    labels = torch.zeros(4096, dtype=torch.int64, device="cuda")
    spec = dataclasses.replace(spec, class_weight=None)
    cwt.loss(spec, z, labels).backward()
    z.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    value = cwt.loss(spec, z, labels)
    assert torch.cuda.max_memory_allocated() - before < z.nbytes / 8
    value.backward()
    assert torch.cuda.max_memory_allocated() - before < 1.125 * z.nbytes


LINEAR = {
    "index": (SoftmaxCrossEntropy(class_weight=[1, 2, 3], ignore_index=-100), torch.tensor([0, 1, -100, 2])),
    **{name: CALLS[name] for name in ("smoothed", "distribution", "binary")},
}
each_layer = pytest.mark.parametrize(("spec", "targets"), LINEAR.values(), ids=list(LINEAR))


def linear_step(spec: Any, layer: list[torch.Tensor], targets: torch.Tensor, upstream: Any, **given: Any) -> Any:
    """Return the loss of a linear layer by chunks, and its gradients."""
    hidden, weight, bias = leaves = [x.detach().requires_grad_() for x in layer]
    value = cwt.linear_loss(spec, hidden, weight, targets, bias=bias, **given)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream.to(value.dtype))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@each_layer
def test_a_linear_layer_has_the_gradients_of_the_cpu(
    spec: Any, targets: torch.Tensor, reduction: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHUNK_BYTES", "HALF_BYTES"):
        monkeypatch.setattr(chunks, name, 1)
    monkeypatch.setattr(chunks, "LEAST_ROWS", 3)
    if reduction == "none":
        spec = dataclasses.replace(spec, reduction="none")
    generator = torch.Generator().manual_seed(0)
    layer = [torch.randn(shape, generator=generator).to(dtype) for shape in ((4, 5), (3, 5), (3,))]
    shape = () if reduction == "mean" else (4, 3) if isinstance(spec, SigmoidCrossEntropy) else (4,)
    upstream = torch.rand(shape, generator=generator) + 0.5
    wanted = linear_step(spec, [x.double() for x in layer], targets, upstream)
    got = linear_step(spec, [x.cuda() for x in layer], targets.cuda(), upstream.cuda())
    # On a device products of float32 may be of fewer digits.
    close = {torch.float64: 1e-11, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for x, y in zip(got, wanted, strict=True):
        assert (x.dtype, x.is_cuda) == (dtype, True)
        torch.testing.assert_close(x.cpu().double(), y, rtol=0, atol=close * float(y.abs().max()))


@each_layer
def test_a_linear_layer_synchronises_in_no_backward(spec: Any, targets: torch.Tensor) -> None:
    leaves = [torch.randn(shape, device="cuda", requires_grad=True) for shape in ((4, 5), (3, 5), (3,))]
    before = torch.cuda.get_sync_debug_mode()
    for _ in range(2):  # the first compiles
        value = cwt.linear_loss(spec, leaves[0], leaves[1], targets.cuda(), bias=leaves[2])
        torch.cuda.set_sync_debug_mode("error")
        try:
            torch.autograd.grad(value, leaves, torch.full((), 2.0, device="cuda"))
        finally:
            torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_linear_layer_makes_no_logits(dtype: Any) -> None:
    """Beside its gradients a step holds a chunk and, for half types, sums in float32: here 128 MiB and 400 MB."""
    rows, classes, features = 16384, 100_000, 1024
    if torch.cuda.mem_get_info()[0] < 8 << 30:
        pytest.skip("needs 8 GB of the device's memory")
    hidden = torch.randn(rows, features, dtype=dtype, device="cuda", requires_grad=True)
    weight = torch.randn(classes, features, dtype=dtype, device="cuda").mul_(features**-0.5).requires_grad_()
    labels = torch.randint(classes, (rows,), device="cuda")
    labels[::2] = -100
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    value = cwt.linear_loss(SoftmaxCrossEntropy(ignore_index=-100), hidden, weight, labels)
    found = torch.autograd.grad(value, (hidden, weight))
    held = torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in found)
    assert held < rows * classes * hidden.itemsize / 2
