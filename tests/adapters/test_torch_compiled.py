"""PyTorch: `torch.compile` keeps the kernels as operators of its graphs; what they do not compute is composed there."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch import operators

if not operators.IS_SUPPORTED:
    pytest.skip("this version of PyTorch composes the loss in its graphs", allow_module_level=True)

W = [1.0, 2.0, 5.0, 0.5]
INDEX = SoftmaxCrossEntropy(class_weight=W, ignore_index=-100)
SPECS: dict[str, Any] = {
    "index": INDEX,
    "smoothed": SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W),
    "binary": SigmoidCrossEntropy(class_weight=(1, W), label_smoothing=0.1),
}
each_spec = pytest.mark.parametrize("kind", list(SPECS))


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)  # inductor's own
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor", category=UserWarning)  # Dynamo's
        yield


def batch(kind: str = "index", rows: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    z = (3 * torch.randn(rows, 4, generator=generator)).to(dtype)
    if kind in ("index", "smoothed"):
        return z, torch.randint(0, 4, (rows,), generator=generator)
    t = torch.rand(rows, 4, generator=generator)
    return z, t / t.sum(1, keepdim=True) if kind == "distribution" else t


def step(f: Any, z: Tensor, *arguments: Any, upstream: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient of its sum times ``upstream``."""
    z = z.detach().clone().requires_grad_()
    value = f(z, *arguments)
    (gradient,) = torch.autograd.grad(value, z, torch.full_like(value, upstream))
    return value.detach(), gradient


def compiled(f: Any, **options: Any) -> tuple[Any, list[str]]:
    """Return the compiled function, and the names of our operators in its graphs."""
    found: list[str] = []

    def record(graph: Any, inputs: Any) -> Any:
        found.extend(str(node.target) for node in graph.graph.nodes if "classweight" in str(node.target))
        return torch._dynamo.lookup_backend(options.get("backend", "aot_eager"))(graph, inputs)

    return torch.compile(f, fullgraph=True, backend=record), found


def assert_same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for x, y in zip(found, expected, strict=True):
        assert x.dtype is y.dtype
        assert torch.equal(x, y)


@pytest.mark.parametrize("precision", ["native", "exact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])  # each is kernels to compile
@pytest.mark.parametrize("reduction", ["mean_over_weights", "none"])
@each_spec
def test_a_compiled_loss_has_the_bits_of_an_eager_one(
    kind: str, reduction: Any, dtype: torch.dtype, precision: Any
) -> None:
    z, t = batch(kind, dtype=dtype)
    spec = dataclasses.replace(SPECS[kind], precision=precision, reduction=reduction)
    f = lambda z: cwt.loss(spec, z, t)  # noqa: E731
    g, found = compiled(f)
    assert_same(step(g, z), step(f, z))
    assert found == ["classweight.loss"]


def test_a_loss_without_a_gradient_makes_none() -> None:
    z, t = batch()
    g, found = compiled(lambda z: cwt.loss(INDEX, z, t))
    with torch.no_grad():
        assert torch.equal(g(z), cwt.loss(INDEX, z, t))
    assert found == ["classweight.loss"]
    assert torch.ops.classweight.evaluate(z, t, *[None] * 5, operators._named(INDEX), False, z.dtype, False)[1] == []


def test_an_upstream_gradient_scales_as_it_does_outside() -> None:
    z, t = batch()
    f = lambda z: cwt.loss(INDEX, z, t)  # noqa: E731
    for upstream in (0.0, 3.3, -1.0):
        assert_same(step(compiled(f)[0], z, upstream=upstream), step(f, z, upstream=upstream))
    # A slope of 0 stays so.
    assert not step(compiled(f)[0], torch.tensor([[300.0, 0, 0, 0]]).repeat(6, 1), upstream=torch.inf)[1].isnan().any()


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune"])
def test_inductor_and_its_modes(mode: str) -> None:
    z, t = batch()

    def model(z: Tensor, t: Tensor) -> Tensor:
        return cwt.loss(INDEX, torch.tanh(z) * 5, t) * 2

    expected = step(model, z, t)
    for _ in range(2):
        found = step(torch.compile(model, fullgraph=True, mode=mode), z, t)
        # The rest of the graph is inductor's own.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_batches_of_another_size_are_not_compiled_for_each() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    f = lambda z, t: cwt.loss(INDEX, z, t)  # noqa: E731
    g = torch.compile(f, fullgraph=True, backend=counter)
    for rows in (6, 7, 9, 31, 2):
        assert_same(step(g, *batch(rows=rows)), step(f, *batch(rows=rows)))
    assert counter.frame_count == 2


def test_another_spec_is_another_graph() -> None:
    z, t = batch()
    g = torch.compile(lambda z, spec: cwt.loss(spec, z, t), fullgraph=True, backend="aot_eager")
    for spec in (INDEX, dataclasses.replace(INDEX, reduction="sum"), dataclasses.replace(INDEX, class_weight=W[::-1])):
        assert_same(step(g, z, spec), step(lambda z: cwt.loss(spec, z, t), z))  # noqa: B023


def test_other_arguments_reach_the_operator() -> None:
    z, t = batch()
    mask, weight = torch.tensor([True, False, True, True, True, True]), torch.tensor([3.0, 1, 2, 1])
    for arguments in (
        {"sample_weight": torch.arange(6.0), "mask": mask, "class_weight": weight},
        {"sample_weight": 0.5, "denominator": 3},
        {"denominator": torch.tensor(2.5)},
    ):
        f = lambda z: cwt.loss(INDEX, z, t, **arguments)  # type: ignore[arg-type]  # noqa: B023, E731
        g, found = compiled(f)
        assert_same(step(g, z), step(f, z))
        assert set(found) == {"classweight.loss"}
    z, targets = batch("binary")
    pair = (1.0, weight)
    f = lambda z: cwt.loss(SPECS["binary"], z, targets, class_weight=pair)  # noqa: E731
    assert_same(step(compiled(f)[0], z), step(f, z))


def test_drop_ins_modules_and_parts_are_the_operator_too() -> None:
    z, t = batch()
    weight, module = torch.tensor(W), cwt.Loss(INDEX)
    binary = batch("binary")[1]
    for f in (
        lambda z: cwt.cross_entropy(z, t, weight),
        lambda z: cwt.binary_cross_entropy_with_logits(z, binary, pos_weight=weight),
        lambda z: module(z, t),
        lambda z: cwt.loss_parts(INDEX, z, t)[0],
    ):
        g, found = compiled(f)
        assert_same(step(g, z), step(f, z))
        assert found == ["classweight.loss"]


def test_autocast_changes_nothing() -> None:
    z, t = batch(dtype=torch.bfloat16)
    for f in (lambda z: cwt.loss(INDEX, z, t), lambda z: cwt.cross_entropy(z, t)):
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(step(compiled(f)[0], z), step(f, z))


def test_transforms_inside_a_graph_are_right() -> None:
    z, t = batch()
    exact = dataclasses.replace(INDEX, precision="exact")

    def loss(z: Tensor) -> Tensor:
        return cwt.loss(exact, z, t)

    def tangent(z: Tensor) -> Tensor:
        return torch.func.jvp(loss, (z,), (torch.ones_like(z),))[1]

    each = torch.func.vmap(lambda z, t: cwt.loss(INDEX, z, t))
    rows = dataclasses.replace(INDEX, reduction="none")
    twice = lambda z: cwt.loss(INDEX, z.double(), t)  # noqa: E731
    # PyTorch has dropped custom backwards there, silently.
    assert torch.equal(compiled(torch.func.grad(loss))[0](z), step(loss, z)[1])
    assert torch.equal(compiled(lambda z: torch.func.grad(loss)(z) * 1)[0](z), step(loss, z)[1])
    assert torch.equal(compiled(tangent)[0](z), tangent(z))
    torch.testing.assert_close(compiled(each)[0](z, t), each(z, t), rtol=1e-6, atol=0)
    jacobian = torch.func.jacrev(lambda z: cwt.loss(rows, z.double(), t))
    torch.testing.assert_close(compiled(jacobian)[0](z), jacobian(z))
    torch.testing.assert_close(compiled(torch.func.hessian(twice))[0](z), torch.func.hessian(twice)(z))


def test_gradients_of_weights_and_soft_targets_are_composed_in_the_graph() -> None:
    z, t = batch("distribution")

    def f(t: Tensor) -> Tensor:
        return cwt.loss(SPECS["distribution"], z, t)

    g, found = compiled(f)
    torch.testing.assert_close(step(g, t), step(f, t))
    assert found == []


def test_what_a_backend_leaves_to_autograd_can_be_differentiated_twice_and_batched() -> None:
    z, t = batch()
    each = dataclasses.replace(INDEX, reduction="none")

    def hessian(f: Any) -> Tensor:
        return torch.autograd.functional.hessian(f, z)  # type: ignore[no-any-return, no-untyped-call]

    f = lambda z: cwt.loss(INDEX, z, t)  # noqa: E731
    assert torch.equal(hessian(torch.compile(f, backend="eager")), hessian(f))

    def jacobian(f: Any) -> Tensor:
        leaf = z.clone().requires_grad_()
        return torch.autograd.grad(f(leaf), leaf, torch.eye(6), is_grads_batched=True)[0]

    f = lambda z: cwt.loss(each, z, t)  # noqa: E731
    torch.testing.assert_close(jacobian(torch.compile(f, backend="eager")), jacobian(f))


def test_the_operators_are_what_pytorch_expects_of_one() -> None:
    z, t = batch()
    for spec in (INDEX, dataclasses.replace(INDEX, reduction="none"), dataclasses.replace(INDEX, precision="exact")):
        arguments = (z.clone().requires_grad_(), t, *[None] * 5, operators._named(spec), False, torch.float32, True)
        torch.library.opcheck(torch.ops.classweight.loss.default, arguments)
        torch.library.opcheck(torch.ops.classweight.evaluate.default, (z, *arguments[1:]))
    stacked = torch.stack([z, 2 * z])
    both = torch.func.vmap(lambda z: torch.ops.classweight.loss(z, *arguments[1:]))(stacked)
    assert torch.equal(both, torch.stack([cwt.loss(spec, z, t) for z in stacked]))


def test_checkpoints_and_compiled_autograd() -> None:
    z, t = batch()
    f = lambda z: cwt.loss(INDEX, z * 1, t)  # noqa: E731
    saved = lambda z: checkpoint(f, z, use_reentrant=False)  # noqa: E731
    assert_same(step(torch.compile(saved, fullgraph=True, backend="aot_eager"), z), step(f, z))
    leaf = z.clone().requires_grad_()
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
        torch.compile(f, fullgraph=True, backend="aot_eager")(leaf).backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, step(f, z)[1])


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_logits_of_any_strides(backend: str) -> None:
    """PyTorch has fed operators other strides than those that they were traced with."""
    t = torch.arange(30).reshape(2, 3, 5) % 4
    wide = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(1))
    spec = dataclasses.replace(INDEX, axis=1)
    for arrange in (
        lambda z: z.transpose(1, 2)[:, :4],
        lambda z: (z * 2).permute(0, 2, 1, 3)[:, ::2],
        lambda z: z[:, :, :4].permute(0, 2, 1, 3).contiguous(memory_format=torch.channels_last),
        lambda z: z[:1, :, :4].expand(2, 3, 4, 5).transpose(1, 2),
    ):

        def f(wide: Tensor) -> Tensor:
            return cwt.loss(spec, arrange(wide), t)  # noqa: B023

        assert_same(step(torch.compile(f, fullgraph=True, backend=backend), wide), step(f, wide))


def test_values_are_looked_at_where_that_is_asked_for() -> None:
    z, t = batch()
    t[2] = 9
    g = torch.compile(lambda z, v: cwt.loss(INDEX, z, t, validate=v), fullgraph=True, backend="aot_eager")
    assert g(z, None).isnan()
    with pytest.raises(IndexError, match=r"`targets` must be class indices from 0 to 3; got 9 at position \(2,\)"):
        g(z, True)


def test_a_refusal_is_the_same_sentence() -> None:
    z, t = batch()
    g = torch.compile(lambda z, t: cwt.loss(INDEX, z, t), backend="aot_eager")
    with pytest.raises((ValueError, RuntimeError), match=r"`targets` must be integers of shape \(6,\)"):
        g(z, t[:5])


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_does_not_need_us(strict: bool) -> None:
    z, t = batch()
    program = torch.export.export(cwt.Loss(INDEX), (z, t), strict=strict)
    assert not [node for node in program.graph.nodes if "classweight" in str(node.target)]
    torch.testing.assert_close(program.module()(z, t), cwt.loss(INDEX, z, t))
