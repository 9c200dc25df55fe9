"""PyTorch: the same numbers by every route that autograd, torch.func and torch.compile take."""

from __future__ import annotations

import dataclasses
import io
import pickle
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.reference import reference

from ..calls import CLOSE, ROWS_WITHOUT_A_SOFTMAX, RandomCall, random_call
from ..refusals import Refusal, assert_refused, each_refusal

W = [1.0, 2.0, 5.0, 0.5]
SPECS = {
    "index": SoftmaxCrossEntropy(class_weight=W, ignore_index=-100),
    "smoothed": SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W),
    "binary": SigmoidCrossEntropy(class_weight=(1, W), label_smoothing=0.1),
    "probabilities": SoftmaxCrossEntropy(inputs="probs", clip=1e-7, renormalize="before"),
}
each_spec = pytest.mark.parametrize("kind", list(SPECS))
each_precision = pytest.mark.parametrize("precision", ["native", "exact"])


def batch(kind: str, dtype: torch.dtype = torch.float64, rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (rows,), generator=generator)
    if kind == "probabilities":
        z = z.softmax(1)
    if kind == "distribution":
        return z.to(dtype), torch.rand(rows, 4, generator=generator).to(dtype)
    if kind == "binary":
        return z.to(dtype), torch.nn.functional.one_hot(y, 4).to(dtype)
    return z.to(dtype), y


def function(kind: str, precision: str, targets: Tensor, **changes: Any) -> Any:
    spec = dataclasses.replace(SPECS[kind], precision=precision, **changes)
    return lambda z, **arguments: cwt.loss(spec, z, targets, **arguments)


def gradient(f: Any, z: Tensor) -> Tensor:
    z = z.detach().clone().requires_grad_()
    return torch.autograd.grad(f(z), z)[0]


def tensors(call: RandomCall) -> dict[str, Any]:
    return {k: v if k == "denominator" else torch.tensor(v) for k, v in call.arguments.items()}


@pytest.mark.parametrize("seed", range(400))
def test_torch_equals_the_reference_fused_and_composite(seed: int) -> None:
    call = random_call(seed)
    expected = reference(call.spec, call.logits, call.targets, upstream=call.upstream, **call.arguments)
    z, upstream = torch.tensor(call.logits, requires_grad=True), torch.tensor(call.upstream)
    value = cwt.loss(call.spec, z, torch.tensor(call.targets), **tensors(call))
    assert value.shape == expected[0].shape
    np.testing.assert_allclose(value.detach(), expected[0], **CLOSE, err_msg=str(call))
    for graph in (False, False, True):  # the kept gradient, a second backward, the composite
        (found,) = torch.autograd.grad(value, z, upstream, retain_graph=True, create_graph=graph)
        call.assert_gradient(found.detach().numpy(), expected[1])
    for validate in (None, False):  # a second call, of which less is left to do
        again = cwt.loss(call.spec, z, torch.tensor(call.targets), validate=validate, **tensors(call))
        assert torch.equal(again.nan_to_num(), value.nan_to_num())


@each_refusal
def test_a_bad_call_is_refused(refusal: Refusal) -> None:
    assert_refused(refusal, cwt.loss, torch.tensor)
    if "denominator" not in refusal.arguments:
        assert_refused(refusal, cwt.loss_parts, torch.tensor)


def test_logits_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match="`logits` must be a tensor; got ndarray"):
        cwt.loss(SoftmaxCrossEntropy(), np.zeros((2, 3)), torch.tensor([0, 1]))  # type: ignore[arg-type]


@each_precision
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@each_spec
def test_results_have_the_logits_dtype(kind: str, dtype: torch.dtype, precision: str) -> None:
    z, t = batch(kind, dtype)
    value = function(kind, precision, t)(z.requires_grad_())
    value.backward()
    assert value.dtype is dtype
    assert z.grad is not None
    assert z.grad.dtype is dtype


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
@pytest.mark.parametrize("targets", [torch.tensor([0]), torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.5, 0.5, 0]])])
def test_a_row_without_a_softmax_is_nan_and_so_is_its_gradient(row: Any, targets: Tensor, graph: bool) -> None:
    for reduction in ("none", "sum"):
        z = torch.tensor([row], requires_grad=True)
        value = cwt.loss(SoftmaxCrossEntropy(reduction=reduction), z, targets).sum()
        assert value.isnan()
        (found,) = torch.autograd.grad(value, z, create_graph=graph)
        assert found.isnan().all()


@each_precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["none", "mean_over_weights"])
@pytest.mark.parametrize("row", ROWS_WITHOUT_A_SOFTMAX)
@pytest.mark.parametrize("targets", ["index", "distribution", "binary"])
def test_an_ignored_row_adds_nothing_whatever_its_logits(
    targets: str, row: Any, reduction: Any, dtype: torch.dtype, precision: Any
) -> None:
    z = torch.tensor([[2, -1, 0.5], row, [0.5, 0.5, 3]], dtype=dtype)
    t: Any = torch.tensor([0, 0, 2])
    spec: Any = SoftmaxCrossEntropy(reduction=reduction, precision=precision, class_weight=[1, 2, 5])
    if targets != "index":
        t = torch.nn.functional.one_hot(t, 3).to(dtype)
    if targets == "binary":
        spec = SigmoidCrossEntropy(reduction=reduction, precision=precision, class_weight=(1, 2))
    kept = torch.tensor([True, False, True])
    for arguments in ({"mask": kept}, {"sample_weight": kept.double()}):
        leaf, alone = z.clone().requires_grad_(), z[kept].clone().requires_grad_()
        value = cwt.loss(spec, leaf, t, **arguments)
        # With the same arguments, for a call without any is computed by another kernel, of other last bits.
        expected = cwt.loss(spec, alone, t[kept], **{name: x[kept] for name, x in arguments.items()})
        assert torch.equal(value[kept] if reduction == "none" else value, expected)
        for graph in (False, False, True):
            (found,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True, create_graph=graph)
            (of_alone,) = torch.autograd.grad(expected.sum(), alone, retain_graph=True, create_graph=graph)
            assert torch.equal(found[kept], of_alone)
            assert (found[1] == 0).all()


@each_spec
def test_gradgradcheck(kind: str) -> None:
    z, t = batch(kind, rows=3)
    f = function(kind, "native", t)
    assert torch.autograd.gradcheck(f, z.requires_grad_())
    assert torch.autograd.gradgradcheck(f, z)


@each_precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_spec
def test_transforms_agree_with_autograd(kind: str, dtype: torch.dtype, precision: str) -> None:
    z, t = batch(kind, dtype)
    f = function(kind, precision, t)
    expected = gradient(f, z)
    # Exact results are rounded once by every route; native ones accumulate in another order.
    tolerance = (
        {"rtol": 0.0, "atol": 0.0} if precision == "exact" else {"rtol": 2e-2 if dtype is torch.bfloat16 else 1e-5}
    )
    if precision == "native":
        tolerance["atol"] = float(expected.abs().max()) * (2**-8 if dtype is torch.bfloat16 else 2**-22)
    torch.testing.assert_close(torch.func.grad(f)(z), expected, **tolerance)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)  # torch's own
        direction = torch.eye(24).reshape(24, 6, 4).to(dtype)
        tangents = torch.stack([torch.func.jvp(f, (z,), (d,))[1] for d in direction]).reshape(6, 4)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(f(forward_ad.make_dual(z, direction[5]))).tangent
    torch.testing.assert_close(tangents, expected, **tolerance)
    torch.testing.assert_close(dual, expected.flatten()[5], **tolerance)


@each_spec
def test_vmap_over_rows_is_the_loss_of_each(kind: str) -> None:
    z, t = batch(kind)
    spec = SPECS[kind]
    rows = torch.func.vmap(lambda a, b: cwt.loss(spec, a, b))(z, t)
    each = torch.stack([cwt.loss(spec, a, b) for a, b in zip(z, t, strict=True)])
    torch.testing.assert_close(rows, each, rtol=1e-14, atol=0)


@each_precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_spec
def test_a_compiled_loss_is_the_same_in_one_graph(kind: str, dtype: torch.dtype, precision: str) -> None:
    z, t = batch(kind, dtype)
    f = function(kind, precision, t)
    torch.compiler.reset()
    with warnings.catch_warnings():
        # Dynamo makes an instance of autograd.Function to trace it, and PyTorch warns of that.
        warnings.filterwarnings("ignore", message=".*should not be instantiated", category=DeprecationWarning)
        compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if precision == "native" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(compiled(z), f(z), **tolerance)
        torch.testing.assert_close(gradient(compiled, z), gradient(f, z), **tolerance)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
def test_a_compiled_loss_runs_in_inductor() -> None:
    z, t = batch("index", torch.float32)
    f = function("index", "native", t)
    torch.compiler.reset()
    compiled = torch.compile(f, fullgraph=True)
    torch.testing.assert_close(gradient(compiled, z), gradient(f, z), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean_over_weights", "mean_over_nonzero"])
def test_gradients_flow_to_soft_targets_and_weights(reduction: str) -> None:
    z, t = batch("distribution", rows=3)
    spec = SoftmaxCrossEntropy(reduction=reduction, label_smoothing=0.1)  # type: ignore[arg-type]
    s, w = torch.rand(3, dtype=torch.float64) + 0.1, torch.tensor(W, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (z, t, s, w)]

    def f(z: Tensor, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return cwt.loss(spec, z, t, s, class_weight=w)

    assert torch.autograd.gradcheck(f, inputs)
    assert torch.autograd.gradgradcheck(f, inputs)


def test_class_weights_of_index_targets_have_a_gradient() -> None:
    z, y = batch("index")
    w = torch.tensor(W, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: cwt.loss(SoftmaxCrossEntropy(), z, y, class_weight=w), w)


def test_a_given_denominator_is_a_constant() -> None:
    z, y = batch("index")
    denominator = torch.tensor(3.0, requires_grad=True)
    value = cwt.loss(SoftmaxCrossEntropy(), z.requires_grad_(), y, denominator=denominator)
    value.backward()
    assert denominator.grad is None
    torch.testing.assert_close(value, cwt.loss(SoftmaxCrossEntropy(reduction="sum"), z, y) / 3)


@each_precision
@each_spec
def test_layouts_do_not_matter(kind: str, precision: str) -> None:
    z, t = batch(kind, torch.float32)
    f = function(kind, precision, t)
    expected = gradient(f, z)
    for view in (z.T.contiguous().T, torch.stack([z, z], -1)[..., 0], z.repeat_interleave(2, 0)[::2]):
        view = view.detach().requires_grad_()
        assert not view.is_contiguous()
        (found,) = torch.autograd.grad(f(view), view)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    row = z[:1].detach().requires_grad_()
    expanded = row.expand(6, 4)
    torch.autograd.grad(f(expanded), row)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_and_channels_last_agree_with_rows(memory_format: torch.memory_format) -> None:
    z = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=memory_format)
    y = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(1))
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 3, 4, 5], reduction="none")
    maps = cwt.loss(spec, z, y)
    rows = cwt.loss(spec, z.permute(0, 2, 3, 1).reshape(-1, 5), y.reshape(-1))
    last = cwt.loss(
        SoftmaxCrossEntropy(class_weight=[1, 2, 3, 4, 5], reduction="none", axis=-1), z.permute(0, 2, 3, 1), y
    )
    torch.testing.assert_close(maps.reshape(-1), rows, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(maps, last, rtol=1e-6, atol=1e-7)


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(4096, 700, generator=torch.Generator().manual_seed(0))
    y = torch.randint(0, 700, (4096,), generator=torch.Generator().manual_seed(1))
    for precision in ("native", "exact"):
        spec = SoftmaxCrossEntropy(precision=precision, reduction="none")  # type: ignore[arg-type]
        whole = cwt.loss(spec, z, y)
        parts = torch.cat([cwt.loss(spec, a, b) for a, b in zip(z.split(97), y.split(97), strict=True)])
        assert torch.equal(whole, parts)
        reduced = SoftmaxCrossEntropy(precision=precision)  # type: ignore[arg-type]
        found = gradient(lambda z, spec=reduced: cwt.loss(spec, z, y), z)
        part = gradient(lambda z, spec=reduced: cwt.loss(spec, z, y[:97], denominator=4096), z[:97])
        assert torch.equal(found[:97], part)


def test_the_parts_of_a_binary_loss_are_float64_throughout() -> None:
    z, t = torch.zeros(4, 1000), torch.ones(4, 1000)
    spec = SigmoidCrossEntropy(reduction="mean_over_batch")
    total, _ = cwt.loss_parts(spec, z, t, class_weight=(torch.tensor(1e36), torch.tensor(1e36)))
    torch.testing.assert_close(total.item(), 4e39 * np.log(2), rtol=1e-6, atol=0)


@each_precision
def test_a_binary_loss_is_the_same_of_labels_as_of_shares(precision: str) -> None:
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 9
    z[0], z[1, :2], z[2, :2] = 0.0, 800.0, -800.0
    t = torch.randint(0, 2, (50, 4), generator=generator)
    spec = dataclasses.replace(SPECS["binary"], label_smoothing=0.0, reduction="none", precision=precision)
    # A share in the last row keeps the labels before it from the shorter way; so does, there, a target beyond 1.
    for share in (0.5, 2.0):
        shares = t.double()
        shares[-1, 0] = share
        for targets in (t, shares):
            logits = z.clone().requires_grad_()
            rows = cwt.loss(spec, logits, targets)
            rows.sum().backward()
            for found, expected in zip((rows, logits.grad), reference(spec, z, targets), strict=True):
                torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-14, atol=0)


def test_a_change_of_the_logits_before_a_second_backward_is_noticed() -> None:
    z, y = batch("index")
    leaf = z.requires_grad_()
    z = leaf * 1
    value = cwt.loss(SoftmaxCrossEntropy(reduction="none"), z, y).sum()
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_nothing_is_looked_at_where_that_would_synchronise() -> None:
    y = torch.tensor([0, 9, 1])
    z = torch.zeros(3, 4)
    rows = torch.func.vmap(lambda a, b: cwt.loss(SoftmaxCrossEntropy(), a, b))(z, y)
    assert rows.isnan().tolist() == [False, True, False]
    meta = cwt.loss(SoftmaxCrossEntropy(), z.to("meta"), y.to("meta"))
    assert meta.device.type == "meta"
    with pytest.raises(IndexError, match=r"got 9 at position \(1,\)"):
        cwt.loss(SoftmaxCrossEntropy(), z, y, validate=True)


def test_a_module_holds_its_weights_as_a_buffer() -> None:
    spec = SoftmaxCrossEntropy(class_weight=W, precision="exact")
    module = cwt.Loss(spec)
    z, y = batch("index", torch.float32)
    assert module.state_dict()["class_weight"].tolist() == W
    assert str(module) == f"Loss({spec!r})"
    assert torch.equal(module(z, y), cwt.loss(spec, z, y))
    assert torch.equal(module(z, y, reduction_weights := torch.rand(6)), cwt.loss(spec, z, y, reduction_weights))
    again = pickle.loads(pickle.dumps(module))
    assert torch.equal(again(z, y), module(z, y))
    saved = io.BytesIO()
    torch.save(module.state_dict(), saved)
    saved.seek(0)
    other = cwt.Loss(SoftmaxCrossEntropy(class_weight=[1, 1, 1, 1], precision="exact"))
    other.load_state_dict(torch.load(saved))
    assert torch.equal(other(z, y), module(z, y))
    assert module.to("meta").class_weight.device.type == "meta"  # type: ignore[union-attr]


def test_a_binary_modules_weights_are_two_buffers_and_a_mapping_stays_in_the_spec() -> None:
    z, t = batch("binary")
    for spec, names in (
        (SPECS["binary"], ["negative_weight", "positive_weight"]),
        (SoftmaxCrossEntropy(class_weight=dict(enumerate(W))), []),
    ):
        module = cwt.Loss(spec)
        assert list(module.state_dict()) == names
        assert torch.equal(module(z, t), cwt.loss(spec, z, t))


def test_a_modules_weights_stay_exact_when_a_model_is_halved() -> None:
    module = cwt.Loss(SoftmaxCrossEntropy(class_weight=[0.1, 70000]))
    assert module.half().state_dict()["class_weight"].tolist() == [0.1, 70000]


@each_precision
@each_spec
def test_the_parts_of_a_loss_divide_to_it_and_so_do_their_gradients(kind: str, precision: str) -> None:
    z, t = batch(kind, torch.float32)
    f = function(kind, precision, t)
    spec = dataclasses.replace(SPECS[kind], precision=precision)
    z.requires_grad_()
    numerator, denominator = cwt.loss_parts(spec, z, t)
    assert numerator.dtype is denominator.dtype is torch.float64
    (found,) = torch.autograd.grad(numerator / denominator, z)
    torch.testing.assert_close((numerator / denominator).float(), f(z), rtol=2**-23, atol=0)
    expected = gradient(f, z)
    torch.testing.assert_close(found, expected, rtol=2**-21, atol=2**-23 * float(expected.abs().max()))


def test_a_sum_is_not_silenced_by_a_denominator_of_zero() -> None:
    # No weight on the label, but smoothing puts some on the other class.
    spec = SoftmaxCrossEntropy(class_weight=[1, 0], label_smoothing=0.1)
    numerator, denominator = cwt.loss_parts(spec, torch.tensor([[1.0, 2]], dtype=torch.float64), torch.tensor([1]))
    assert float(denominator) == 0
    # The first class alone: 0.05 log(1 + e).
    np.testing.assert_allclose(float(numerator), 0.05 * np.log1p(np.e), rtol=1e-14)


def test_accumulated_micro_batches_are_the_whole_batch() -> None:
    z, y = batch("index")
    spec = SPECS["index"]
    _, denominator = cwt.loss_parts(spec, z, y)
    whole = gradient(lambda z: cwt.loss(spec, z, y), z)
    parts = [
        gradient(lambda a, b=b: cwt.loss(spec, a, b, denominator=denominator), a)
        for a, b in zip(z.split(2), y.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-15, atol=0)


def test_a_call_in_inference_mode_leaves_nothing_behind() -> None:
    z, y = batch("index")
    spec = SoftmaxCrossEntropy(class_weight=[1, 2, 3, 4.25])
    with torch.inference_mode():
        cwt.loss(spec, z, y)
    gradient(lambda z: cwt.loss(spec, z, z.detach().softmax(1)), z)


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_many_gradients_at_once_are_those_one_by_one(reduction: str) -> None:
    z, y = batch("index")
    z.requires_grad_()
    value = cwt.loss(SoftmaxCrossEntropy(class_weight=W, reduction=reduction), z, y)  # type: ignore[arg-type]
    many = torch.eye(6, dtype=torch.float64) if reduction == "none" else torch.arange(6, dtype=torch.float64)
    one_by_one = torch.stack([torch.autograd.grad(value, z, each, retain_graph=True)[0] for each in many])
    (batched,) = torch.autograd.grad(value, z, many, is_grads_batched=True, retain_graph=True)
    mapped = torch.func.vmap(lambda v: torch.autograd.grad(value, z, v, retain_graph=True)[0])(many)
    torch.testing.assert_close(batched, one_by_one, rtol=1e-14, atol=1e-16)
    torch.testing.assert_close(mapped, one_by_one, rtol=1e-14, atol=1e-16)


@each_spec
def test_after_the_backward_nothing_holds_the_batch(kind: str) -> None:
    z, t = batch(kind)
    leaf = z.requires_grad_()
    z, t = leaf * 1, t.clone()
    references = weakref.ref(z), weakref.ref(t)
    value = function(kind, "native", t)(z)
    del z, t
    value.backward()
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("targets", ["index", "distribution", "binary"])
def test_an_infinite_upstream_gradient_does_not_reach_an_ignored_row(targets: str) -> None:
    z, y = batch("index")
    spec: Any = SigmoidCrossEntropy(reduction="none") if targets == "binary" else SoftmaxCrossEntropy(reduction="none")
    t = y if targets == "index" else torch.nn.functional.one_hot(y, 4)
    mask = torch.arange(6) != 2
    z.requires_grad_()
    value = cwt.loss(spec, z, t, mask=mask)
    upstream = torch.ones_like(value)
    upstream[2] = torch.inf
    (found,) = torch.autograd.grad(value, z, upstream)
    assert (found[2] == 0).all()
    assert found[mask].isfinite().all()


@pytest.mark.parametrize("size", [1e-50, 1e40])
def test_weights_beyond_float32_cancel_in_a_weighted_mean(size: float) -> None:
    z, y = batch("index", torch.float32)
    expected = cwt.loss(SoftmaxCrossEntropy(), z, y)
    weight = torch.full((6,), size, dtype=torch.float64)
    torch.testing.assert_close(cwt.loss(SoftmaxCrossEntropy(), z, y, weight), expected, rtol=1e-6, atol=0)
    found = gradient(lambda z: cwt.loss(SoftmaxCrossEntropy(), z, y, weight), z)
    torch.testing.assert_close(
        found, gradient(lambda z: cwt.loss(SoftmaxCrossEntropy(), z, y), z), rtol=1e-5, atol=1e-8
    )


def test_targets_wider_than_the_logits_decide_before_they_are_rounded() -> None:
    z, edge = torch.zeros(1, 2), 1e-12
    t = torch.tensor([[0.5 - edge, 0.5 + edge]], dtype=torch.float64)
    label = SoftmaxCrossEntropy(class_weight=[1, 3], weighting="label", reduction="sum")
    torch.testing.assert_close(cwt.loss(label, z, t), torch.tensor(3 * np.log(2), dtype=torch.float32))
    binary = SigmoidCrossEntropy(class_weight=(1, 3), weighting="label", reduction="sum")
    torch.testing.assert_close(cwt.loss(binary, z[0, :1], t[0, 1:]), torch.tensor(3 * np.log(2), dtype=torch.float32))
    nearly_one = torch.tensor([1 - 1e-9], dtype=torch.float64)
    value = cwt.loss(SigmoidCrossEntropy(reduction="sum"), torch.tensor([1e4]), nearly_one)
    torch.testing.assert_close(value, torch.tensor(1e-5), rtol=1e-6, atol=0)


def test_bad_weights_that_are_not_looked_at_make_their_rows_nan() -> None:
    z, y = batch("index")
    spec = SoftmaxCrossEntropy(reduction="none")
    s = torch.tensor([1.0, -torch.inf, torch.inf, torch.nan, 0, -1])
    assert cwt.loss(spec, z, y, s, validate=False).isnan().tolist() == [False, True, True, True, False, False]
    w = torch.tensor([1.0, -torch.inf, -1, 1])
    assert torch.equal(cwt.loss(spec, z, y, class_weight=w, validate=False).isnan(), y == 1)
    assert cwt.loss(SoftmaxCrossEntropy(), z, y, denominator=torch.tensor(-torch.inf), validate=False).isnan()


@pytest.mark.parametrize("graph", [False, True])
def test_a_row_of_zero_class_weights_is_dead_under_smoothing_too(graph: bool) -> None:
    z = torch.tensor([[torch.nan, 1], [1, 2]], requires_grad=True)
    spec = SoftmaxCrossEntropy(class_weight=[0, 0], label_smoothing=0.1, reduction="sum")
    value = cwt.loss(spec, z, torch.tensor([0, 1]))
    assert value == 0
    assert (torch.autograd.grad(value, z, create_graph=graph)[0] == 0).all()


def test_a_denominator_of_zero_stops_every_gradient() -> None:
    p = torch.tensor([[0.0, 1]], requires_grad=True)
    cwt.loss(SoftmaxCrossEntropy(inputs="probs"), p, torch.tensor([0]), denominator=0).backward()
    assert p.grad is not None
    assert (p.grad == 0).all()


def test_vector_weights_compile_with_a_dynamic_batch() -> None:
    torch.compiler.reset()
    weight = torch.tensor([1.0, 2, 3, 4])
    compiled = torch.compile(
        lambda z, t: cwt.binary_cross_entropy_with_logits(z, t, pos_weight=weight),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    z, t = batch("binary", torch.float32)
    torch.testing.assert_close(compiled(z, t), cwt.binary_cross_entropy_with_logits(z, t, pos_weight=weight))


@pytest.mark.parametrize("name", ["ignore_index", "reduction"])
def test_an_unhashable_argument_is_refused_in_words(name: str) -> None:
    z, y = batch("index")
    with pytest.raises((TypeError, ValueError), match=rf"`{name}` must be"):
        cwt.cross_entropy(z, y, **{name: [1]})  # type: ignore[arg-type]


def test_what_is_no_tensor_becomes_one_of_its_own_shape_and_type() -> None:
    z, y = batch("index")
    spec = SoftmaxCrossEntropy(class_weight=W)
    expected = cwt.loss(spec, z, y, torch.tensor(0.1, dtype=torch.float64))
    for weight in (0.1, np.array(0.1), [0.1] * 6, np.full(6, 0.1)[::-1], np.full(6, 0.1).astype(">f8")):
        assert torch.equal(cwt.loss(spec, z, y, weight), expected)
    assert torch.equal(cwt.loss(spec, z, y.tolist(), np.array(0.1)), expected)


def test_a_sparse_tensor_is_refused_in_words() -> None:
    z, y = batch("index")
    with pytest.raises(TypeError, match=r"`logits` must be a dense tensor; got torch.sparse_coo"):
        cwt.loss(SoftmaxCrossEntropy(), z.to_sparse(), y)


@pytest.mark.gpu
@each_precision
@each_spec
def test_a_device_agrees_with_the_host_and_is_never_waited_for(kind: str, precision: str) -> None:
    z, t = batch(kind, torch.float32, rows=300)
    expected = gradient(function(kind, precision, t), z)
    z, t = z.cuda(), t.cuda()
    f = function(kind, precision, t)
    gradient(f, z)  # what is made once, such as the weights' copy, is made here
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = gradient(f, z)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    tolerance = {"rtol": 0, "atol": 0} if precision == "exact" else {"rtol": 1e-5, "atol": 1e-8}
    torch.testing.assert_close(found.cpu(), expected, **tolerance)
