"""Triton's kernels run by its interpreter, on the CPU; `test_triton_compiled` compiles them for devices.

Triton decides when it is imported, so this needs a process of its own with TRITON_INTERPRET=1.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.reference import reference

from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, random_call
from ..truth import assert_true

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a process of its own with TRITON_INTERPRET=1", allow_module_level=True)

import classweight.adapters.torch as cwt
from classweight.adapters.torch import chunks, gpu

from .. import interpreted

HALF = [torch.float16, torch.bfloat16]
TYPES = [torch.float32, torch.float64, *HALF]
# Shapes with their class axis: a row a program and many; one tile and several, at odd addresses; classes not last.
SHAPES = {
    "rows": ((150, 7), 1),
    "row": ((3, 1300), 1),
    "odd": ((3, 9001), 1),
    "map": ((2, 21, 2, 70), 1),
    "last": ((2, 5, 10), 2),
    "first": ((6, 40), 0),
    "vector": ((7,), 0),
    "one": ((3, 1), 1),
}
each_shape = pytest.mark.parametrize(("shape", "axis"), SHAPES.values(), ids=list(SHAPES))


@pytest.fixture(autouse=True)
def _as_a_device_does() -> Iterator[None]:
    with interpreted.as_a_device_does():
        yield


def loss_and_grad(
    spec: Any, z: torch.Tensor, targets: Any, upstream: Any = 1.0, **arguments: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return loss and gradient by the kernels, from a call as it is on a device: values are not looked at."""
    leaf = z.detach().requires_grad_()
    value = interpreted.loss(spec, leaf, targets, validate=False, **arguments)
    (gradient,) = torch.autograd.grad(value, leaf, torch.as_tensor(upstream, dtype=value.dtype))
    return value.detach(), gradient


def labels_for(shape: Any, axis: int, seed: int = 0) -> torch.Tensor:
    positions = shape[:axis] + shape[axis + 1 :]
    return torch.from_numpy(np.asarray(np.random.default_rng(seed).integers(0, shape[axis], positions)))


def ulps(got: torch.Tensor, wanted: Any, dtype: torch.dtype) -> float:
    """Return the largest distance in units of the last place of the type."""
    info, wanted = torch.finfo(dtype), torch.as_tensor(wanted, dtype=torch.float64)
    size = torch.clamp(wanted.abs(), min=info.smallest_normal)
    return float(((got.double() - wanted).abs() / (2 ** torch.floor(torch.log2(size)) * info.eps)).max())


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@each_shape
def test_index_targets(shape: Any, axis: int, dtype: Any, precision: Any) -> None:
    rng = np.random.default_rng(1)
    z = torch.from_numpy(5 * rng.normal(size=shape)).to(dtype)
    labels = labels_for(shape, axis)
    weight = rng.random(shape[axis]) + 0.1
    spec = SoftmaxCrossEntropy(axis=axis, class_weight=weight, reduction="none", precision=precision)
    upstream = torch.from_numpy(np.asarray(rng.normal(size=labels.shape))).to(dtype)
    got = loss_and_grad(spec, z, labels, upstream)
    wanted = reference(spec, z.double().numpy(), labels.numpy(), upstream=upstream.double().numpy())
    # Half an ULP is a single rounding; float32 inside takes differences of logits of up to 25.
    bound = 8.0 if dtype is torch.float64 else 0.5 + 2**-20 if precision == "exact" else 0.51 if dtype in HALF else 40.0
    for x, y in zip(got, wanted, strict=True):
        assert x.dtype is dtype
        assert ulps(x, y, dtype) <= bound


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("soft", [False, True], ids=["smoothed", "distribution"])
@each_shape
def test_dense_targets(shape: Any, axis: int, soft: bool, precision: Any) -> None:
    rng = np.random.default_rng(2)
    z = torch.from_numpy(5 * rng.normal(size=shape)).float()
    targets = torch.from_numpy(rng.random(shape)) if soft else labels_for(shape, axis)
    weight = rng.random(shape[axis]) + 0.1
    spec = SoftmaxCrossEntropy(
        axis=axis, class_weight=weight, label_smoothing=0.1, reduction="sum", precision=precision
    )
    value, gradient = loss_and_grad(spec, z, targets, 1.75)
    wanted = reference(spec, z.double().numpy(), targets.numpy(), upstream=1.75)
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(value, wanted[0], rtol=eps if precision == "exact" else 8 * eps)
    largest = np.abs(wanted[1]).max()
    rtol, atol = (eps / 2, 2**-44) if precision == "exact" else (8 * eps, 8 * eps)
    np.testing.assert_allclose(gradient, wanted[1], rtol=rtol, atol=atol * largest)


@pytest.mark.parametrize("seed", range(120))
def test_the_kernels_equal_the_reference(seed: int) -> None:
    call = random_call(seed, inputs="logits")
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    arguments = {name: torch.as_tensor(x) for name, x in call.arguments.items()}
    z, t = torch.from_numpy(call.logits), torch.from_numpy(np.asarray(call.targets))
    value, gradient = loss_and_grad(call.spec, z, t, call.upstream, **arguments)
    np.testing.assert_allclose(value, expected[0], **CLOSE, err_msg=str(call))
    call.assert_gradient(gradient.numpy(), expected[1])


@pytest.mark.parametrize("seed", range(60))
def test_the_kernels_equal_fifty_digits_under_weights_of_either_sign(seed: int) -> None:
    call = random_call(seed, inputs="logits", small=True, signed=True)
    arguments = {name: torch.as_tensor(x) for name, x in call.arguments.items()}
    z, t = torch.from_numpy(call.logits), torch.from_numpy(np.asarray(call.targets))
    value, gradient = loss_and_grad(call.spec, z, t, call.upstream, **arguments)
    assert_true(call, value.numpy(), gradient.numpy())


@pytest.mark.parametrize("wide", [3, 9001])
@pytest.mark.parametrize("logit", [2.0, np.inf, np.nan])
def test_coefficients_that_cancel_are_not_none(logit: float, wide: int) -> None:
    z, t = torch.zeros(2, wide, dtype=torch.float64), torch.zeros(2, wide, dtype=torch.float64)
    z[0, 1], z[1], t[:, 0], t[0, -1] = logit, torch.nan, 0.5, 0.5
    w = np.resize([1.0, 0, -1], wide)
    w[-1] = -1
    spec = SoftmaxCrossEntropy(class_weight=w, reduction="none")
    upstream, weight = torch.tensor([2.0, 1]), torch.tensor([3.0, 0])
    found = loss_and_grad(spec, z, t, upstream, sample_weight=weight)
    wanted = reference(spec, z.numpy(), t.numpy(), weight, upstream=upstream)
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-15, atol=1e-15)
    assert found[0].isnan().tolist() == [not np.isfinite(logit), False]


@pytest.mark.parametrize("label", [0, 1], ids=["dominant", "not"])
@pytest.mark.parametrize("smoothing", [0, 1e-3])
@pytest.mark.parametrize("gap", [17, 40, 95])
@pytest.mark.parametrize("num_classes", [3, 3000])
def test_a_confident_prediction_keeps_its_loss_and_gradient(
    num_classes: int, gap: int, smoothing: float, label: int
) -> None:
    # A weight takes even exp(-95), which is no normal float32, back to where there are digits.
    spec = SoftmaxCrossEntropy(class_weight=np.full(num_classes, 1e9), label_smoothing=smoothing, reduction="sum")
    z = np.zeros((2, num_classes), np.float32)
    z[0, 0] = z[1, -1] = gap
    labels = np.array([0, num_classes - 1]) * (1 - label) + label
    value, gradient = loss_and_grad(spec, torch.from_numpy(z), torch.from_numpy(labels))
    wanted = reference(spec, z.astype(float), labels)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted[1], rtol=1e-5 if not smoothing else 2e-4)


def strided(z: torch.Tensor, how: str) -> torch.Tensor:
    if how == "sliced":
        wide = torch.full((*z.shape[:-1], z.shape[-1] + 3), torch.nan, dtype=z.dtype)
        wide[..., 2:-1] = z
        return wide[..., 2:-1]
    if how == "stepped":
        return z.repeat_interleave(2, -1)[..., ::2]
    if how == "expanded":
        return z[:1].expand(z.shape)
    order = tuple(range(z.ndim))[::-1]
    return z.permute(order).contiguous().permute(order)


@pytest.mark.parametrize("soft", [False, True], ids=["index", "distribution"])
@pytest.mark.parametrize("how", ["sliced", "stepped", "expanded", "transposed"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 9001), 1), ((9, 10), 1), ((2, 21, 5, 40), 1), ((2, 3, 4, 6, 5), 2)])
def test_logits_of_any_strides(shape: Any, axis: int, how: str, soft: bool) -> None:
    rng = np.random.default_rng(3)
    z = strided(torch.from_numpy(rng.normal(size=shape)).float(), how)
    targets = torch.from_numpy(rng.random(shape)) if soft else labels_for(shape, axis)
    spec = SoftmaxCrossEntropy(axis=axis, reduction="none", precision="exact")
    upstream = rng.normal(size=shape[:axis] + shape[axis + 1 :])
    for got, wanted in zip(
        loss_and_grad(spec, z, targets, upstream), loss_and_grad(spec, z.contiguous(), targets, upstream), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@each_shape
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_an_ignored_row_is_nothing_and_a_bad_target_nan(shape: Any, axis: int, smoothing: float) -> None:
    z = torch.from_numpy(np.random.default_rng(4).normal(size=shape)).movedim(axis, -1).contiguous()
    rows = z.view(-1, shape[axis])
    labels = torch.zeros(len(rows), dtype=torch.int64)
    labels[0] = -100
    rows[0] = torch.tensor([np.nan, np.inf, -np.inf])[torch.arange(shape[axis]) % 3]
    labels[1:2] = shape[axis]
    spec = SoftmaxCrossEntropy(axis=axis, ignore_index=-100, label_smoothing=smoothing, reduction="none")
    z, labels = z.movedim(-1, axis), labels.view(shape[:axis] + shape[axis + 1 :])
    upstream = torch.full(labels.shape, 2.0)
    upstream.view(-1)[0] = np.inf
    value, gradient = loss_and_grad(spec, z, labels, upstream)
    value, gradient = value.view(-1), gradient.movedim(axis, -1).reshape(len(rows), -1)
    assert value[0] == 0
    assert not gradient[0].any()
    assert value[1:2].isnan().all()
    assert gradient[1:2].isnan().all()
    assert value[2:].isfinite().all()
    assert gradient[2:].isfinite().all()


@pytest.mark.parametrize("binary", [False, True], ids=["softmax", "sigmoid"])
def test_a_denominator_that_is_nan_leaves_an_ignored_row_at_0(binary: bool) -> None:
    z, upstream = torch.tensor([[0.5, -1.0, 2.0]] * 3), torch.tensor(2.0)
    if binary:
        spec: Any = SigmoidCrossEntropy(ignore_label=-100)
        targets = torch.tensor([[1.0, 0, 1], [-100] * 3, [np.nan, 0, 1]])
    else:
        spec, targets = SoftmaxCrossEntropy(ignore_index=-100, class_weight=(1, 2, 3)), torch.tensor([0, -100, 3])
    value, gradient = loss_and_grad(spec, z, targets, upstream)
    assert value.isnan()
    assert gradient.isnan().all(1).tolist() == [True, False, True]
    assert not gradient[1].any()


@pytest.mark.parametrize("wide", [3, 3000])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
def test_a_row_without_a_softmax_is_nan(row: Any, smoothing: float, wide: int) -> None:
    z = torch.full((2, wide), -torch.inf)
    z[0, :3], z[1, :3] = torch.tensor(row), torch.tensor([0.0, 1, 2])
    spec = SoftmaxCrossEntropy(label_smoothing=smoothing * (wide == 3), reduction="none")
    value, gradient = loss_and_grad(spec, z, torch.tensor([0, 1]), torch.ones(2))
    assert value.isnan().tolist() == [True, False]
    assert gradient.isnan().all(1).tolist() == [True, False]


@pytest.mark.parametrize("lowest", [-np.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("soft", [False, True], ids=["index", "distribution"])
def test_a_class_that_is_masked_out_weighs_nothing(lowest: float, soft: bool) -> None:
    z = torch.full((2, 5000), lowest)
    z[:, 4990:] = torch.arange(20.0).view(2, 10)
    labels = torch.tensor([4991, 4995])
    targets = torch.zeros_like(z).scatter_(1, labels[:, None], 1.0) if soft else labels
    value, gradient = loss_and_grad(SoftmaxCrossEntropy(reduction="none"), z, targets, torch.ones(2))
    wanted = reference(SoftmaxCrossEntropy(reduction="none"), z[:, 4990:].double().numpy(), labels.numpy() - 4990)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
    assert not gradient[:, :4990].any()
    np.testing.assert_allclose(gradient[:, 4990:], wanted[1], rtol=2e-6)


def test_an_infinite_loss_is_infinite() -> None:
    z = torch.tensor([[0.0, -torch.inf, 1.0]])
    for targets in (torch.tensor([1]), torch.tensor([[0.0, 0.5, 0.5]])):
        value, gradient = loss_and_grad(SoftmaxCrossEntropy(), z, targets)
        assert value == torch.inf
        assert gradient.isfinite().all()


@each_shape
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_the_gradient_may_be_written_over_the_logits(shape: Any, axis: int, smoothing: float) -> None:
    z = torch.from_numpy(np.random.default_rng(5).normal(size=shape)).float()
    spec, labels = SoftmaxCrossEntropy(axis=axis, label_smoothing=smoothing), labels_for(shape, axis)
    _, wanted = loss_and_grad(spec, z, labels)
    _, gradient = loss_and_grad(spec, z, labels, inplace=True)
    assert gradient.data_ptr() == z.data_ptr()
    torch.testing.assert_close(gradient, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("spec", [SoftmaxCrossEntropy(reduction="none"), SoftmaxCrossEntropy(), SigmoidCrossEntropy()])
def test_an_empty_batch(spec: Any) -> None:
    z = torch.empty(0, 4)
    targets = z if isinstance(spec, SigmoidCrossEntropy) else torch.empty(0, dtype=torch.int64)
    value, gradient = loss_and_grad(spec, z, targets, torch.ones(0) if spec.reduction == "none" else 1.0)
    assert not value.any()
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, *HALF], ids=str)
def test_binary_targets(dtype: Any, precision: Any) -> None:
    z = torch.linspace(-100, 100, 3000).view(1000, 3).to(dtype)
    targets = (torch.arange(3000).view(1000, 3) % 2).to(dtype)
    spec = SigmoidCrossEntropy(class_weight=(1.0, 3.0), reduction="none", precision=precision)
    upstream = torch.linspace(0.5, 2, 3000).view(1000, 3).to(dtype)
    got = loss_and_grad(spec, z, targets, upstream)
    wanted = reference(spec, z.double().numpy(), targets.double().numpy(), upstream=upstream.double().numpy())
    bound = 0.5 + 2**-20 if precision == "exact" else 6.0 if dtype is torch.float32 else 0.51
    for x, y in zip(got, wanted, strict=True):
        assert ulps(x, y, dtype) <= bound


def test_partial_sums_add_up() -> None:
    z, labels = torch.from_numpy(np.random.default_rng(6).normal(size=(1000, 12))), labels_for((1000, 12), 1)
    spec = SoftmaxCrossEntropy(reduction="sum")
    total, _ = loss_and_grad(spec, z, labels)
    rows, _ = loss_and_grad(dataclasses.replace(spec, reduction="none"), z, labels, torch.ones(1000))
    torch.testing.assert_close(total, rows.sum(), rtol=1e-14, atol=0)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_offsets_go_beyond_int32(axis: int, smoothing: float) -> None:
    # Memory that is not touched is not there.
    far = torch.empty((1 << 31) + 16, dtype=torch.float16).as_strided((3, 5), ((1 << 30) + 4, 1))
    far[:] = torch.arange(15).view(3, 5) % 7
    spec = SoftmaxCrossEntropy(axis=axis, label_smoothing=smoothing)
    labels = torch.tensor([0, 1, 2, 1, 0][: 5 - 2 * axis])
    for got, wanted in zip(loss_and_grad(spec, far, labels), loss_and_grad(spec, far.clone(), labels), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_a_linear_layer_by_chunks(seed: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows' gradients lie where their logits were; all specs, and no row but those that count."""
    monkeypatch.setattr(chunks, "_of_chunk", lambda layer: gpu.of_chunk)
    monkeypatch.setattr(chunks, "_rows_at_once", lambda n, layer: min(n, 5))
    call = random_call(seed, inputs="logits", last_axis=True, small=True)
    shape, rng = call.logits.shape, np.random.default_rng(seed)
    shapes = (*shape[:-1], 3), (shape[-1], 3), shape[-1:]
    layer = [torch.from_numpy(rng.normal(size=each)).to(dtype) for each in shapes]
    arguments = {name: torch.as_tensor(x) for name, x in call.arguments.items()}
    targets = torch.as_tensor(call.targets)
    upstream = torch.as_tensor(call.upstream)

    def step(loss: Any, tensors: Any) -> list[torch.Tensor]:
        leaves = [x.detach().clone().requires_grad_() for x in tensors]
        value = loss(*leaves)
        return [value.detach(), *torch.autograd.grad(value, leaves, upstream.to(value.dtype))]

    spec: Any = dataclasses.replace(call.spec, **({"axis": -1} if isinstance(call.spec, SoftmaxCrossEntropy) else {}))
    found = step(lambda h, w, b: cwt.linear_loss(spec, h, w, targets, bias=b, **arguments), layer)
    wide = [x.double() for x in layer]
    expected = step(lambda h, w, b: cwt.loss(spec, torch.nn.functional.linear(h, w, b), targets, **arguments), wide)
    close = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (dtype, y.shape)
        scale = float(y.nan_to_num().abs().max()) if y.numel() else 0.0
        torch.testing.assert_close(x.double(), y, rtol=0, atol=close * scale, equal_nan=True)
