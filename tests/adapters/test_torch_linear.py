"""PyTorch: the loss of a linear layer is that of its output, whose logits are never all there."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch import chunks, operators, products
from classweight.adapters.torch.cpu import Arguments

from ..calls import random_call

W = [1.0, 2.0, 5.0, 0.0, 0.5]
INDEX = SoftmaxCrossEntropy(class_weight=W, ignore_index=-100)
SPECS: dict[str, Any] = {
    "index": INDEX,
    "smoothed": dataclasses.replace(INDEX, label_smoothing=0.1, weighting="expected"),
    "distribution": SoftmaxCrossEntropy(class_weight=W, reduction="mean_over_batch"),
    "binary": SigmoidCrossEntropy(class_weight=(1, W), reduction="mean_over_positions"),
}
each_spec = pytest.mark.parametrize("kind", list(SPECS))
# Relative to the largest entry: a chunk's product may round otherwise than the whole's.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


# PyTorch's own: of its forward mode, and of Dynamo.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CHUNK_BYTES": 1, "HALF_BYTES": 1, "LEAST_ROWS": 3, "PART_BYTES": 40}.items():
        monkeypatch.setattr(chunks, name, value)
    monkeypatch.setattr(products, "CLASSES", 2)


def layer(dtype: torch.dtype = torch.float64, *shape: int, classes: int = 5, seed: int = 0) -> list[Tensor]:
    """Return a hidden layer, a weight and a bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape or (2, 4, 3), (classes, 3), (classes,))
    return [torch.randn(each, generator=generator, dtype=torch.float64).to(dtype) for each in shapes]


def targets(kind: str, dtype: torch.dtype = torch.float64) -> Tensor:
    if kind in ("index", "smoothed"):
        return torch.tensor([[0, -100, 2, 3], [4, 1, -100, 2]])
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 4, 5, generator=generator, dtype=torch.float64).to(dtype)


def step(f: Any, tensors: list[Tensor], upstream: Tensor | None = None) -> list[Tensor]:
    """Return the loss and its gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    value = f(*leaves)
    return [
        value.detach(),
        *torch.autograd.grad(value, leaves, torch.ones_like(value) if upstream is None else upstream),
    ]


def of_layer(spec: Any, t: Tensor, **arguments: Any) -> Any:
    def f(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return cwt.linear_loss(spec, hidden, weight, t, bias=bias, **arguments)

    return f


def of_logits(spec: Any, t: Tensor, **arguments: Any) -> Any:
    if isinstance(spec, SoftmaxCrossEntropy):
        spec = dataclasses.replace(spec, axis=-1)

    def f(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return cwt.loss(spec, functional.linear(hidden, weight, bias), t, **arguments)

    return f


def assert_close(found: list[Tensor], expected: list[Tensor], close: float | None = None) -> None:
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        bound = close or CLOSE[y.dtype]
        scale = float(y.double().nan_to_num().abs().max()) if y.numel() else 0.0
        torch.testing.assert_close(x.double(), y.double(), rtol=0, atol=bound * scale, equal_nan=True)


@pytest.mark.parametrize("seed", range(80))
def test_every_spec_is_the_loss_of_the_logits(seed: int) -> None:
    """Every field of both specs and every argument of a call, in float64."""
    call = random_call(seed, inputs="logits", last_axis=True, signed=seed % 2 == 0)
    shape = call.logits.shape
    tensors = layer(torch.float64, *shape[:-1], 3, classes=shape[-1], seed=seed)
    arguments = {name: torch.as_tensor(x) for name, x in call.arguments.items()}
    t, upstream = torch.as_tensor(call.targets), torch.as_tensor(call.upstream)
    found = step(of_layer(call.spec, t, **arguments), tensors, upstream)
    expected = step(of_logits(call.spec, t, **arguments), tensors, upstream)
    assert_close(found, expected, 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@each_spec
def test_every_type(kind: str, reduction: str, dtype: torch.dtype) -> None:
    spec, t, tensors = SPECS[kind], targets(kind, dtype), layer(dtype)
    if reduction == "none":
        spec = dataclasses.replace(spec, reduction="none")
    upstream = torch.randn(() if reduction == "mean" else (*t.shape[:2], *t.shape[2:] * (kind == "binary"))).to(dtype)
    assert_close(step(of_layer(spec, t), tensors, upstream), step(of_logits(spec, t), tensors, upstream))


def test_a_gradient_of_a_half_type_keeps_what_a_mean_makes_small() -> None:
    """A mean over a million makes gradients that float16 does not hold; a scaled loss brings them back."""
    tensors, t = layer(torch.float16), targets("index")
    f = of_layer(INDEX, t, denominator=1e9)
    found = step(f, tensors, torch.tensor(2.0**14, dtype=torch.float16))
    wide = step(of_logits(INDEX, t, denominator=1e9), [x.double() for x in tensors], torch.tensor(2.0**14))
    for x, y in zip(found[1:], wide[1:], strict=True):
        assert ((x.double() - y).abs() <= 4e-3 * y.abs().max() + 2.0**-25).all()
        assert x.abs().max() > 0


def test_one_label_for_all_overflows_no_half_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of the weight's gradient is a sum over thousands of rows, each scaled to what float16 holds."""
    monkeypatch.setattr(chunks, "HALF_BYTES", 1 << 20)
    hidden, weight = torch.rand(4096, 3) + 1, torch.randn(5, 3)
    t = torch.zeros(4096, dtype=torch.int64)
    for dtype in (torch.float16, torch.bfloat16):
        tensors = [hidden.to(dtype), weight.to(dtype)]
        wide = step(of_logits(INDEX, t), [x.double() for x in tensors])
        for x, y in zip(step(of_layer(INDEX, t), tensors), wide, strict=True):
            torch.testing.assert_close(x.double(), y, rtol=0, atol=CLOSE[dtype] * float(y.abs().max()))


def test_one_chunk_of_bfloat16_needs_no_sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "HALF_BYTES", 1 << 20)
    made = []
    none_yet = chunks._none_yet
    monkeypatch.setattr(chunks, "_none_yet", lambda *arguments: made.append(none_yet(*arguments)) or made[-1])
    tensors, t = layer(torch.bfloat16), targets("index")
    found = step(of_layer(INDEX, t), tensors)
    assert [part.dtype for part in made[0].weight] == [torch.bfloat16]
    assert_close(found, step(of_logits(INDEX, t), tensors))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@each_spec
def test_what_unused_rows_hold_reaches_no_gradient(kind: str, bad: float) -> None:
    """Ignored, masked and of weight 0: no row's NaN is multiplied by 0."""
    tensors, t = layer(), targets(kind)
    mask, sample_weight = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4)
    mask[0, 1] = mask[1, 3] = False
    sample_weight[1, 2] = sample_weight[0, 3] = 0
    expected = step(of_layer(SPECS[kind], t, mask=mask, sample_weight=sample_weight), tensors)
    assert all(x.isfinite().all() for x in expected)
    tensors[0][~mask | (sample_weight == 0)] = bad
    found = step(of_layer(SPECS[kind], t, mask=mask, sample_weight=sample_weight), tensors)
    assert_close(found, expected)
    # By way of the logits, too.
    weight = sample_weight.clone().requires_grad_()
    assert_close(step(of_layer(SPECS[kind], t, mask=mask, sample_weight=weight), tensors), expected)


def test_where_no_row_counts_the_loss_is_what_the_spec_says() -> None:
    tensors, t = layer(), torch.full((2, 4), -100)
    for zero in ("zero", "nan"):
        value, *gradients = step(of_layer(dataclasses.replace(INDEX, zero_denominator=zero), t), tensors)
        assert value.isnan() if zero == "nan" else value == 0
        assert not any(x.any() for x in gradients)


@each_spec
def test_some_gradients_alone(kind: str) -> None:
    tensors, t = layer(), targets(kind)
    expected = step(of_logits(SPECS[kind], t), tensors)[1:]
    for i, x in enumerate(tensors):
        leaf = x.clone().requires_grad_()
        value = of_layer(SPECS[kind], t)(*tensors[:i], leaf, *tensors[i + 1 :])
        assert_close([torch.autograd.grad(value, leaf)[0]], [expected[i]])
    assert not of_layer(SPECS[kind], t)(*tensors).requires_grad
    assert_close(step(of_layer(SPECS[kind], t), tensors[:2]), step(of_logits(SPECS[kind], t), tensors[:2]))


def test_a_second_backward_computes_it_again() -> None:
    leaves = [x.requires_grad_() for x in layer()]
    value = of_layer(INDEX, targets("index"))(*leaves)
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    assert_close(list(torch.autograd.grad(value, leaves, torch.tensor(-2.0))), [-2 * x for x in first])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_upstream_is_not_rounded_where_it_is_not_looked_at(dtype: torch.dtype) -> None:
    """On a device it stays a tensor, which a half type might not hold."""
    tensors = layer(dtype)
    call = chunks.Layer(*tensors, dtype)
    given = Arguments(chunks.of_last_axis(INDEX), call.logits_like(), None, targets("index"), denominator=1e6)
    for upstream in (2.0**17, 3e3):
        known, unknown = (
            chunks.scaled(call, chunks.evaluate(call, given, dtype, (True,) * 3)[1], factor)
            for factor in (upstream, torch.tensor(upstream))
        )
        assert_close(known, unknown)  # type: ignore[arg-type]
        assert all(x.any() for x in unknown)


@each_spec
def test_exact_precision_rounds_once(kind: str) -> None:
    """With a layer that is the identity a gradient is that of the logits to the last bit, whatever is upstream."""
    spec = dataclasses.replace(SPECS[kind], precision="exact")
    z, t = 3 * layer(torch.float32, 2, 4, 5)[0], targets(kind, torch.float32)
    for upstream in (torch.tensor(1.0), torch.tensor(0.3)):
        found = step(lambda z: of_layer(spec, t)(z, torch.eye(5)), [z], upstream)
        expected = step(lambda z: of_logits(spec, t)(z, torch.eye(5)), [z], upstream)
        assert all(map(torch.equal, found, expected))


def test_parts_add_up_and_a_denominator_keeps_accumulation_exact() -> None:
    tensors, t = layer(), targets("index")
    whole = step(of_layer(INDEX, t), tensors)
    numerator, denominator = cwt.linear_loss_parts(INDEX, tensors[0], tensors[1], t, bias=tensors[2])
    assert numerator.dtype is denominator.dtype is torch.float64
    torch.testing.assert_close(numerator / denominator, whole[0])
    assert denominator == torch.tensor(W)[t[t >= 0]].sum()
    halves = [
        step(lambda h, *rest: of_layer(INDEX, t[i], denominator=denominator)(h[i], *rest), tensors)  # noqa: B023
        for i in range(2)
    ]
    assert_close([x + y for x, y in zip(*halves, strict=True)], whole)


@each_spec
def test_double_backward_and_functional_transforms(kind: str) -> None:
    tensors, t = layer(), targets(kind)
    ours, theirs = of_layer(SPECS[kind], t), of_logits(SPECS[kind], t)

    def curvature(f: Any) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in tensors]
        first = torch.autograd.grad(f(*leaves), leaves, create_graph=True)
        return list(torch.autograd.grad(sum((x**2).sum() for x in first), leaves))

    assert_close(curvature(ours), curvature(theirs), 1e-10)
    every = (0, 1, 2)
    assert_close([*torch.func.grad(ours, every)(*tensors)], [*torch.func.grad(theirs, every)(*tensors)])
    tangents = tuple(map(torch.ones_like, tensors))
    assert_close([torch.func.jvp(ours, (*tensors,), tangents)[1]], [torch.func.jvp(theirs, (*tensors,), tangents)[1]])


def test_gradients_of_weights() -> None:
    tensors, t = layer(), targets("index")
    class_weight, sample_weight = torch.tensor(W, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64)

    def of(make: Any) -> list[Tensor]:
        f = lambda h, w, b, c, s: make(INDEX, t, class_weight=c, sample_weight=s)(h, w, b)  # noqa: E731
        return step(f, [*tensors, class_weight, sample_weight])

    assert_close(of(of_layer), of(of_logits))


def test_autocast_computes_in_its_type_and_keeps_the_gradients() -> None:
    tensors, t = layer(torch.float32), targets("index")
    with torch.autocast("cpu", torch.bfloat16):
        found = step(of_layer(INDEX, t), tensors)
        expected = step(of_logits(INDEX, t), tensors)
    assert found[0].dtype is torch.bfloat16
    assert_close(found, expected, CLOSE[torch.bfloat16])


def test_a_module_is_a_linear_layer() -> None:
    spec, linear = INDEX, torch.nn.Linear(3, 5, dtype=torch.float64)
    module = cwt.LinearLoss(spec, 3, 5, dtype=torch.float64)
    assert module.load_state_dict(linear.state_dict()).missing_keys == []
    assert linear.load_state_dict(module.state_dict()).unexpected_keys == []
    hidden, t = layer()[0], targets("index")
    assert_close([module(hidden, t).detach()], [of_logits(spec, t)(hidden, linear.weight, linear.bias).detach()])
    assert torch.equal(copy.deepcopy(module)(hidden, t, denominator=2.0), module(hidden, t, denominator=2.0))
    embedding = torch.nn.Embedding(5, 3, dtype=torch.float64)
    tied = cwt.LinearLoss(spec, 3, 5, bias=False)
    tied.weight = embedding.weight
    tied(embedding(torch.arange(4)).expand(2, 4, 3), t).backward()
    assert embedding.weight.grad is not None
    assert repr(tied).startswith("LinearLoss(SoftmaxCrossEntropy(class_weight=")


def test_checkpoints() -> None:
    tensors, t = layer(), targets("index")
    for reentrant in (False, True):
        f = lambda *x: checkpoint(of_layer(INDEX, t), *x, use_reentrant=reentrant)  # noqa: B023, E731
        leaves = [x.clone().requires_grad_() for x in tensors]
        f(*leaves).backward()
        assert_close([x.grad for x in leaves], step(of_logits(INDEX, t), tensors)[1:])  # type: ignore[misc]


def test_no_chunk_is_larger_than_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 rows of 5000 classes no more than 3 are there at a time: neither in the forward nor in the backward."""
    tensors, t = layer(torch.float32, 64, 3, classes=5000), torch.arange(64)
    sizes = []
    write = products.logits
    monkeypatch.setattr(products, "logits", lambda *a: (sizes.append(tuple(a[-1].shape)), write(*a)))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        step(of_layer(SoftmaxCrossEntropy(), t), tensors)
    assert (3, 5000) in sizes
    assert max(event.cpu_memory_usage for event in found.events()) < 64 * 5000 * 4 / 2


def test_a_layer_that_does_not_fit_is_refused() -> None:
    hidden, weight, bias = layer(torch.float32)
    t = targets("index")
    for arguments, message in (
        (
            (hidden, weight[:, :2], bias),
            r"`hidden` must have a last axis of length 2, as `weight` has; got shape \(2, 4, 3",
        ),
        ((hidden, weight, bias[:2]), r"`bias` must have shape \(5,\), one per class; got \(2,\)"),
        ((hidden, weight.double(), bias), "`weight` must have the dtype of `hidden`, torch.float32; got torch.float64"),
        ((hidden.long(), weight, bias), "`hidden` must be floating point; got int64"),
        ((hidden, weight[0], bias), r"`weight` must have 2 axes; got shape \(3,\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            of_layer(INDEX, t)(*arguments)
    with pytest.raises(ValueError, match="`inputs` must be 'logits' of a linear layer; got 'probs'"):
        of_layer(SoftmaxCrossEntropy(inputs="probs"), t)(hidden, weight)
    with pytest.raises(IndexError, match=r"`targets` must be class indices from 0 to 4; got 5 at position \(0, 1\)"):
        of_layer(INDEX, t.abs().clamp(max=5))(hidden, weight)
    assert of_layer(INDEX, t.abs(), validate=False)(hidden, weight).isnan()


REPLICA = """
import sys, torch, classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
spec = SoftmaxCrossEntropy(class_weight=given["class_weight"], ignore_index=-100)
module = cwt.LinearLoss(spec, 3, 5, dtype=torch.float64)
module.load_state_dict({"weight": given["weight"], "bias": given["bias"]})
hidden, t = given["hidden"][rank], given["targets"][rank]
denominator = cwt.linear_loss_parts(spec, hidden, module.weight, t, bias=module.bias)[1]
torch.distributed.all_reduce(denominator)
replica = torch.nn.parallel.DistributedDataParallel(module)
(2 * replica(hidden, t, denominator=denominator)).backward()
torch.save([x.grad for x in module.parameters()], f"{folder}/{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch is built without it")
def test_replicas_have_the_gradients_of_the_whole_batch(tmp_path: Path) -> None:
    (hidden, weight, bias), t = layer(), targets("index")
    given = {"hidden": hidden, "weight": weight, "bias": bias, "targets": t, "class_weight": W}
    torch.save(given, tmp_path / "given.pt")
    commands = [[sys.executable, "-c", REPLICA, str(rank), str(tmp_path)] for rank in range(2)]
    replicas = [subprocess.Popen(command) for command in commands]
    assert [replica.wait(timeout=300) for replica in replicas] == [0, 0]
    expected = step(of_logits(INDEX, t), [hidden, weight, bias])[2:]
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)


needs_operators = pytest.mark.skipif(not operators.IS_SUPPORTED, reason="this PyTorch composes the loss in its graphs")


def compiled(f: Any) -> tuple[Any, list[str]]:
    """Return the compiled function, and the names of our operators in its graphs."""
    torch._dynamo.reset()
    found: list[str] = []

    def record(graph: Any, inputs: Any) -> Any:
        found.extend(str(node.target) for node in graph.graph.nodes if "classweight" in str(node.target))
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    return torch.compile(f, fullgraph=True, backend=record), found


@needs_operators
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_spec
def test_a_graph_has_an_operator(kind: str, dtype: torch.dtype) -> None:
    """With an upstream gradient, single losses, and exact precision, whose gradients the backward makes."""
    t, tensors = targets(kind, dtype), layer(dtype)
    for fields in ({}, {"precision": "exact"}, *([{"reduction": "none"}] if kind == "index" else [])):
        spec = dataclasses.replace(SPECS[kind], **fields)
        f = of_layer(spec, t, sample_weight=torch.rand(2, 4))
        upstream = torch.tensor(0.3, dtype=dtype).expand(f(*tensors).shape)
        g, found = compiled(f)
        assert_close(step(g, tensors, upstream), step(f, tensors, upstream))
        assert found == ["classweight.linear_loss"]


@needs_operators
def test_parts_modules_and_inference_in_a_graph() -> None:
    (hidden, *_), t, module = layer(torch.float32), targets("index"), cwt.LinearLoss(INDEX, 3, 5)
    g, found = compiled(lambda h: module(h, t))
    assert_close(step(g, [hidden]), step(lambda h: module(h, t), [hidden]))
    g(hidden).backward()
    first = [x.grad.clone() for x in module.parameters()]  # type: ignore[union-attr]
    module.zero_grad()
    module(hidden, t).backward()
    assert_close(first, [x.grad for x in module.parameters()])  # type: ignore[misc]
    with torch.no_grad():
        assert torch.equal(g(hidden), module(hidden, t))
    parts = lambda h: cwt.linear_loss_parts(INDEX, h, module.weight, t)  # noqa: E731
    with torch.no_grad():
        assert_close([*compiled(parts)[0](hidden)], [*parts(hidden)])
    assert set(found) == {"classweight.linear_loss"}


@needs_operators
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own
def test_a_compiled_step_runs_in_inductor() -> None:
    """A layer before it, whose part of the graph is inductor's own."""
    tensors, t = layer(torch.float32), targets("index")

    def f(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return of_layer(INDEX, t)(functional.silu(hidden), weight, bias)

    torch.compiler.reset()
    assert_close(step(torch.compile(f, fullgraph=True), tensors), step(f, tensors))


@needs_operators
def test_what_chunks_do_not_compute_is_composed_in_a_graph() -> None:
    tensors, t = layer(), targets("index")
    weight = torch.rand(2, 4, dtype=torch.float64)
    f = lambda h, w, b, s: of_layer(INDEX, t, sample_weight=s)(h, w, b)  # noqa: E731
    g, found = compiled(f)
    assert_close(step(g, [*tensors, weight]), step(f, [*tensors, weight]))
    gradient = torch.func.grad(of_layer(INDEX, t))
    assert_close([compiled(gradient)[0](*tensors)], [gradient(*tensors)])
    assert found == []


@needs_operators
def test_the_operator_is_what_pytorch_expects_of_one() -> None:
    hidden, weight, bias = (x.requires_grad_() for x in layer(torch.float32))
    for spec in (INDEX, dataclasses.replace(INDEX, reduction="none")):
        operands = targets("index"), *[None] * 5, operators._named(spec), False, torch.float32, torch.float32
        torch.library.opcheck(torch.ops.classweight.linear_loss.default, (hidden, weight, bias, *operands, [True] * 3))
