"""Classes shared out over three processes: checks that each rank makes, run as a script, for its processes are forked.

What each check said on each rank, nothing if all is well, is written to a file beside the store.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

sys.path.insert(0, str(Path(__file__).parents[1]))

from calls import random_call
from suite import CASES, assert_passes

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.adapters.torch import chunks, products
from classweight.conformance.backends import Backend, Linear, NotRun, Torch

RANKS, CLASSES = 3, 7
W = [1.0, 2.0, 5.0, 0.0, 0.5, 1.0, 3.0]
INDEX = SoftmaxCrossEntropy(class_weight=W, ignore_index=-100)
LABELS = torch.tensor([[0, -100, 2, 3], [4, 6, -100, 2]])
SHARES = torch.rand(2, 4, CLASSES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SPECS: dict[str, tuple[Any, Tensor]] = {
    "index": (INDEX, LABELS),
    "smoothed": (dataclasses.replace(INDEX, label_smoothing=0.1, weighting="expected"), LABELS),
    "distribution": (SoftmaxCrossEntropy(class_weight=W, reduction="mean_over_batch"), SHARES),
    "binary": (SigmoidCrossEntropy(class_weight=(1, W), reduction="mean_over_positions"), SHARES),
    "averaged": (SigmoidCrossEntropy(class_weight=(1, W), average_outputs=True), SHARES),
}
# Relative to the largest entry, as where one process has all classes.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
Gradients = list[Tensor]


def own(classes: int = CLASSES, seed: int = 0, ranks: int = RANKS) -> slice:
    """Return this rank's classes, of shares that are uneven and may be empty."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, classes + 1, ranks - 1))
    edges = [0, *map(int, cuts), classes]
    return slice(edges[dist.get_rank()], edges[dist.get_rank() + 1])


def layer(dtype: torch.dtype = torch.float64, *shape: int, classes: int = CLASSES, seed: int = 0) -> Gradients:
    """Return a hidden layer, a weight and a bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (shape or (2, 4, 3), (classes, 3), (classes,))
    return [torch.randn(each, generator=generator, dtype=torch.float64).to(dtype) for each in shapes]


def step(f: Any, tensors: Gradients, upstream: Tensor | None = None) -> Gradients:
    """Return the loss and its gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    value = f(*leaves)
    upstream = torch.ones_like(value) if upstream is None else upstream.to(value.dtype)
    return [value.detach(), *torch.autograd.grad(value, leaves, upstream)]


def loss(spec: Any, t: Tensor, group: Any = None, **arguments: Any) -> Any:
    """Return the loss as a function of hidden layer, weight, bias and, by their names, other arguments."""
    names = list(arguments)

    def f(hidden: Tensor, weight: Tensor, bias: Tensor, *others: Tensor) -> Tensor:
        given = {**arguments, **dict(zip(names, others, strict=False))}
        t_ = given.pop("targets", t)
        return cwt.linear_loss(spec, hidden, weight, t_, bias=bias, group=group, **given)

    return f


def shared(tensors: Gradients, mine: slice) -> Gradients:
    hidden, weight, bias, *others = tensors
    return [hidden, weight[mine], bias[mine], *others]


def assert_close(found: Gradients, expected: Gradients, close: float | None = None) -> None:
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        scale = float(y.double().nan_to_num().abs().max()) if y.numel() else 0.0
        bound = (close or CLOSE[y.dtype]) * scale
        torch.testing.assert_close(x.double(), y.double(), rtol=0, atol=bound, equal_nan=True)


def assert_shared(
    of: Callable[[Any], Any],
    tensors: Gradients,
    mine: slice,
    upstream: Tensor | None = None,
    close: float | None = None,
) -> None:
    """Compare with one process that has all classes; the gradient of each class's weights is its owner's."""
    expected = step(of(None), tensors, upstream)
    found = step(of(dist.group.WORLD), shared(tensors, mine), upstream)
    scales = [float(x.double().nan_to_num().abs().max()) if x.numel() else 0.0 for x in expected]
    value, *gradients = expected
    for x, y, scale in zip(found, [value, *shared(gradients, mine)], scales, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        bound = (close or CLOSE[y.dtype]) * scale
        torch.testing.assert_close(x.double(), y.double(), rtol=0, atol=bound, equal_nan=True)
    everyone = [torch.empty_like(found[0]) for _ in range(RANKS)]
    dist.all_gather(everyone, found[0])
    assert all(torch.equal(x.nan_to_num(), everyone[0].nan_to_num()) for x in everyone)


def whole(x: Any) -> Tensor:
    """Return all of a tensor."""
    return (x.full_tensor() if isinstance(x, DTensor) else x).detach()  # type: ignore[no-any-return]


def check_every_spec() -> None:
    """Every field of both specs and every argument of a call, in float64."""
    for seed in range(40):
        call = random_call(seed, inputs="logits", last_axis=True, signed=seed % 2 == 0)
        shape = call.logits.shape
        tensors = layer(torch.float64, *shape[:-1], 3, classes=shape[-1], seed=seed)
        arguments = {name: torch.as_tensor(x) for name, x in call.arguments.items()}
        t, upstream = torch.as_tensor(call.targets), torch.as_tensor(call.upstream)
        of = lambda group: loss(call.spec, t, group, **arguments)  # noqa: B023, E731
        assert_shared(of, tensors, own(shape[-1], seed), upstream, 1e-11)


def check_every_type() -> None:
    for i, (name, (spec, t)) in enumerate(SPECS.items()):
        for j, dtype in enumerate(CLOSE):
            fields: Any = [{}, {"reduction": "none"}, {"precision": "exact"}][(i + j) % 3]
            each, given = dataclasses.replace(spec, **fields), t.to(dtype) if t.is_floating_point() else t
            shape = () if each.reduction != "none" else (2, 4, CLASSES) if name == "binary" else (2, 4)
            upstream = torch.randn(shape, generator=torch.Generator())
            assert_shared(lambda group: loss(each, given, group), layer(dtype), own(seed=3), upstream)  # noqa: B023


def check_exact_precision_has_the_same_bits() -> None:
    """With a layer that is the identity, which rounds nothing, whatever is upstream."""
    eye, none = torch.eye(CLASSES), torch.zeros(CLASSES)
    for spec, t in SPECS.values():
        for dtype in (torch.float32, torch.bfloat16):
            z = (3 * layer(dtype, 2, 4, CLASSES)[0]).to(dtype)
            exact, given = dataclasses.replace(spec, precision="exact"), t.to(dtype) if t.is_floating_point() else t
            for upstream in (torch.tensor(1.0), torch.tensor(0.3)):
                weight, bias, mine = eye.to(dtype), none.to(dtype), own(seed=5)
                ours, theirs = loss(exact, given, dist.group.WORLD), loss(exact, given)
                found = step(lambda z: ours(z, weight[mine], bias[mine]), [z], upstream)  # noqa: B023
                expected = step(lambda z: theirs(z, weight, bias), [z], upstream)  # noqa: B023
                assert all(map(torch.equal, found, expected))


def check_a_confident_row_keeps_its_digits() -> None:
    """Where the logits' gap is 40, and the other classes are another rank's."""
    z = torch.tensor([[40.0, 0, 1, 2, -1, 0, 3], [0, 1, 2, -1, 0, 3, 40.0]], requires_grad=True)
    value = cwt.linear_loss(SoftmaxCrossEntropy(), z, torch.eye(7)[own()], torch.tensor([0, 6]), group=dist.group.WORLD)
    value.backward()
    wide = z.detach().double().requires_grad_()
    expected = cwt.loss(SoftmaxCrossEntropy(), wide, torch.tensor([0, 6]))
    expected.backward()
    assert value > 0
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(z.grad.double(), wide.grad, rtol=1e-6, atol=0)  # type: ignore[union-attr]


def check_rows_without_a_softmax_are_nan() -> None:
    """Infinity and NaN of one rank alone; in the rows that hold them, and in no gradient of the others."""
    t = torch.tensor([1, 2, 3, 4])
    for bad in (torch.nan, torch.inf):
        for spec in (SoftmaxCrossEntropy(reduction="none"), SoftmaxCrossEntropy(reduction="none", label_smoothing=0.1)):
            z = layer(torch.float64, 4, CLASSES)[0]
            z[1, 5], z[2, 0] = bad, bad
            eye = torch.eye(CLASSES, dtype=torch.float64)
            # A linear layer would spread it over all classes.
            mesh = init_device_mesh("cpu", (RANKS,))
            leaf = distribute_tensor(z, mesh, [Shard(1)]).requires_grad_()
            value = cwt.loss(spec, leaf, t)
            plain = z.clone().requires_grad_()
            expected = cwt.loss(spec, plain, t)
            assert_close([value.full_tensor()], [expected.detach()])
            value.sum().backward()
            expected.sum().backward()
            assert_close([leaf.grad.full_tensor()], [plain.grad])  # type: ignore[union-attr, list-item]
            found = cwt.linear_loss(spec, z, eye[own()], t, group=dist.group.WORLD)
            assert torch.equal(found.isnan(), torch.tensor([False, True, True, False]))


def check_what_unused_rows_hold_reaches_no_gradient() -> None:
    mask, sample_weight = torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 4)
    mask[0, 1] = mask[1, 3] = False
    sample_weight[1, 2] = sample_weight[0, 3] = 0
    for spec, t in SPECS.values():
        tensors = layer()
        expected = step(loss(spec, t, mask=mask, sample_weight=sample_weight), tensors)
        tensors[0][~mask | (sample_weight == 0)] = torch.nan
        given = {"mask": mask, "sample_weight": sample_weight}
        found = step(loss(spec, t, dist.group.WORLD, **given), shared(tensors, own()))
        value, *gradients = expected
        assert_close(found, [value, *shared(gradients, own())], 1e-11)


def check_where_no_row_counts_the_loss_is_what_the_spec_says() -> None:
    for zero in ("zero", "nan"):
        for dtype in (torch.float32, torch.float16):
            spec = dataclasses.replace(INDEX, zero_denominator=zero)
            t = torch.full((2, 4), -100)
            value, *gradients = step(loss(spec, t, dist.group.WORLD), shared(layer(dtype), own()))
            assert value.isnan() if zero == "nan" else value == 0
            assert not any(x.any() for x in gradients)


def check_bad_targets_without_a_look_are_nan() -> None:
    hidden, weight, bias = shared(layer(torch.float32), own())
    for label in (CLASSES, -1):
        value = loss(INDEX, LABELS.where(LABELS != 6, label), dist.group.WORLD, validate=False)(hidden, weight, bias)
        assert value.isnan()


def check_differentiated_otherwise() -> None:
    """Gradients of weights and distributions, double backward, a second backward, and a transform of functions."""
    generator = torch.Generator().manual_seed(2)
    s, w = (torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((2, 4), (CLASSES,)))
    tensors = layer()
    of = lambda group: loss(INDEX, LABELS, group, sample_weight=s, class_weight=w)  # noqa: E731
    assert_shared(of, [*tensors, s, w], own(seed=4), close=1e-11)
    of = lambda group: loss(SPECS["distribution"][0], SHARES, group, targets=SHARES)  # noqa: E731
    assert_shared(of, [*tensors, SHARES], own(seed=4), close=1e-11)

    def curvature(f: Any, tensors: Gradients) -> Gradients:
        leaves = [x.clone().requires_grad_() for x in tensors]
        first = torch.autograd.grad(f(*leaves), leaves, create_graph=True)
        # Of what all ranks have the same, so that each adds up to the same.
        return [x.detach() for x in torch.autograd.grad((first[0] ** 2).sum(), leaves)]

    mine, every = own(seed=2), (0, 1, 2)
    for spec, t in SPECS.values():
        ours, theirs = loss(spec, t, dist.group.WORLD), loss(spec, t)
        expected = curvature(theirs, tensors)
        assert_close(curvature(ours, shared(tensors, mine)), shared(expected, mine), 1e-9)
        expected = list(torch.func.grad(theirs, every)(*tensors))
        assert_close(list(torch.func.grad(ours, every)(*shared(tensors, mine))), shared(expected, mine), 1e-10)
        leaves = [x.clone().requires_grad_() for x in shared(tensors, mine)]
        value = ours(*leaves)
        first = torch.autograd.grad(value, leaves, retain_graph=True)
        assert_close(list(torch.autograd.grad(value, leaves, torch.tensor(-2.0))), [-2 * x for x in first], 1e-11)


def check_some_gradients_alone() -> None:
    mine, tensors = own(seed=2), layer()
    expected = shared(step(loss(INDEX, LABELS), tensors)[1:], mine)
    f, given = loss(INDEX, LABELS, dist.group.WORLD), shared(tensors, mine)
    for i, x in enumerate(given):
        leaf = x.clone().requires_grad_()
        value = f(*given[:i], leaf, *given[i + 1 :])
        assert_close([torch.autograd.grad(value, leaf)[0]], [expected[i]], 1e-10)
    assert not f(*given).requires_grad
    with torch.inference_mode():
        assert_close([f(*given)], [loss(INDEX, LABELS)(*tensors)])


def check_modules_parts_and_groups_of_some_ranks() -> None:
    hidden, weight, bias = layer()
    pair = dist.new_group([0, 1])
    expected = cwt.linear_loss_parts(INDEX, hidden, weight, LABELS, bias=bias)
    if dist.get_rank() < 2:
        mine = slice(0, 5) if dist.get_rank() == 0 else slice(5, CLASSES)
        head = cwt.LinearLoss(INDEX, 3, mine.stop - mine.start, dtype=torch.float64)
        head.load_state_dict({"weight": weight[mine], "bias": bias[mine]})
        value = head(hidden, LABELS, group=pair)
        parts = cwt.linear_loss_parts(INDEX, hidden, weight[mine], LABELS, bias=bias[mine], group=pair)
        assert_close([value.detach(), *parts], [expected[0] / expected[1], *expected])
        assert parts[1] == expected[1]
        value.backward()
        assert_close([head.weight.grad], [step(loss(INDEX, LABELS), layer())[2][mine]])  # type: ignore[list-item]
    else:
        with pytest.raises(TypeError, match="`group` must be a process group that this process is a member of"):
            cwt.linear_loss(INDEX, hidden, weight, LABELS, bias=bias, group=pair)


def check_autocast_checkpoints_and_graphs() -> None:
    tensors, mine = layer(torch.float32), own(seed=2)
    f = loss(INDEX, LABELS, dist.group.WORLD)
    with torch.autocast("cpu", torch.bfloat16):
        assert_shared(lambda group: loss(INDEX, LABELS, group), tensors, mine, close=CLOSE[torch.bfloat16])
    expected = step(f, shared(tensors, mine))
    again = lambda *x: torch.utils.checkpoint.checkpoint(f, *x, use_reentrant=False)  # noqa: E731
    assert_close(step(again, shared(tensors, mine)), expected)
    graph = torch.compile(lambda h, w, b: 2 * f(h * 1, w, b), backend="eager")
    assert_close(step(graph, shared(tensors, mine)), [2 * x for x in expected])


def check_no_chunk_is_larger_than_it_is_said() -> None:
    """Of 64 rows of 6000 classes a rank has 5 rows of 2000 at a time, a few arrays of them."""
    hidden, weight, _ = layer(torch.float32, 64, 3, classes=6000)
    t, mine = torch.arange(64), slice(2000 * dist.get_rank(), 2000 * dist.get_rank() + 2000)
    f = lambda h, w: cwt.linear_loss(SoftmaxCrossEntropy(), h, w, t, group=dist.group.WORLD)  # noqa: E731
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        step(f, [hidden, weight[mine]])
    # The largest is that of the weight's gradient.
    assert max(event.cpu_memory_usage for event in found.events()) <= 5 * 2000 * 8
    assert_close(
        step(f, [hidden, weight[mine]])[:2],
        step(lambda h, w: loss(SoftmaxCrossEntropy(), t)(h, w, None), [hidden, weight])[:2],
    )


def check_a_refusal_is_one_on_all_ranks() -> None:
    hidden, weight, _ = shared(layer(torch.float32), mine := own(seed=2))
    group, rank = dist.group.WORLD, dist.get_rank()

    def refused(
        words: str, *arguments: Any, t: Any = LABELS, spec: Any = INDEX, error: Any = ValueError, **given: Any
    ) -> None:
        with pytest.raises(error, match=words):
            cwt.linear_loss(spec, *arguments, t, **{"group": group, **given})

    own_words = r"`hidden` must have a last axis of length 2, as `weight` has"
    refused(
        own_words if rank == 1 else r"`group` must have ranks that all have a layer that fits; got on rank 1: `hidden`",
        hidden,
        weight[:, :2] if rank == 1 else weight,
    )
    refused(
        r"`hidden` must be the same on all ranks of the group, .* of shape \(1, 4, 3\); got .*2, 4, 3.*rank 0"
        if rank == 2
        else r"`hidden` must be the same on all ranks .*; got torch.float32 of shape \(1, 4, 3\) on rank 2",
        hidden[:1] if rank == 2 else hidden,
        weight,
    )
    refused(
        "`weight` must have the dtype of `hidden`" if rank == 0 else "on rank 0: `weight` must have the dtype",
        hidden,
        weight.double() if rank == 0 else weight,
        error=TypeError if rank == 0 else ValueError,
    )
    refused("`weight` must have at least one class on one of the ranks; got none", hidden, weight[:0])
    refused(
        "`targets` must be class indices from 0 to 6; got 7", hidden, weight, t=LABELS.clamp(0) + 1, error=IndexError
    )
    refused(
        r"`class_weight` must have shape \(7,\), one per class; got \(\d,\)",
        hidden,
        weight,
        class_weight=torch.ones(len(weight)),
    )
    refused(
        r"`targets` must be integers of shape \(2, 4\) or a distribution of shape \(2, 4, 7\)",
        hidden,
        weight,
        t=SHARES[..., mine],
        spec=SPECS["distribution"][0],
    )
    refused(
        "`group` must be a process group that this process is a member of; got str",
        hidden,
        weight,
        group="tp",
        error=TypeError,
    )
    # After all of these the ranks are where they were.
    assert_shared(lambda group: loss(INDEX, LABELS, group), layer(), mine)


def check_a_layer_of_distributed_tensors() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    tensors = layer()
    whole = {name: step(loss(spec, t), tensors) for name, (spec, t) in SPECS.items()}
    for name, (spec, t) in SPECS.items():
        for hidden in (None, [Replicate()], [Shard(1)]):
            leaves = [
                tensors[0].clone() if hidden is None else distribute_tensor(tensors[0], mesh, hidden),
                *(distribute_tensor(x, mesh, [Shard(0)]) for x in tensors[1:]),
            ]
            leaves = [x.requires_grad_() for x in leaves]
            given = t if hidden is None else distribute_tensor(t, mesh, hidden)
            value = loss(spec, given)(*leaves)
            assert type(value) is (Tensor if hidden is None else DTensor)
            value.backward()
            gradients = [x.grad for x in leaves]
            assert [x.placements for x in gradients[1:]] == [(Shard(0),)] * 2
            assert hidden is None or gradients[0].placements == tuple(hidden)
            found = [x.full_tensor() if isinstance(x, DTensor) else x for x in (value.detach(), *gradients)]
            assert_close(found, whole[name], 1e-11)
    numerator, denominator = cwt.linear_loss_parts(INDEX, leaves[0], leaves[1], LABELS, bias=leaves[2])
    assert_close([(numerator / denominator).full_tensor().detach()], [whole["index"][0]])
    _, weight, bias = leaves
    for words, given in (
        ("`bias` must be a DTensor, as `weight` is; got Tensor", {"bias": tensors[2]}),
        ("`group` must be None where `weight` is a DTensor", {"bias": bias, "group": dist.group.WORLD}),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            cwt.linear_loss(INDEX, tensors[0], weight, LABELS, **given)  # type: ignore[arg-type]


def check_a_module_is_made_parallel_as_a_linear_layer_is() -> None:
    mesh, tensors = init_device_mesh("cpu", (RANKS,)), layer()
    model = torch.nn.Module()
    model.head = cwt.LinearLoss(INDEX, 3, CLASSES, dtype=torch.float64)
    model.head.load_state_dict({"weight": tensors[1], "bias": tensors[2]})
    parallelize_module(model, mesh, {"head": ColwiseParallel(output_layouts=Replicate())})
    hidden = tensors[0].clone().requires_grad_()
    value = model.head(hidden, targets=LABELS)  # it hands on no other argument by its place
    assert type(value) is Tensor
    value.backward()
    expected = step(loss(INDEX, LABELS), tensors)
    found = [value.detach(), hidden.grad, model.head.weight.grad.full_tensor(), model.head.bias.grad.full_tensor()]
    assert_close(found, expected, 1e-11)  # type: ignore[arg-type]


def check_distributed_logits() -> None:
    """Sharded over their classes, wherever those are; targets plain, whole on each rank, or sharded."""
    mesh, z = init_device_mesh("cpu", (RANKS,)), layer(torch.float64, 2, 4, CLASSES)[0]
    weights = torch.rand(2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    places: list[Any] = [None, [Replicate()], [Shard(1)]]
    for name, (spec, t) in SPECS.items():
        for i, fields in enumerate(({}, {"reduction": "none"}, {"reduction": "sum"}, {"precision": "exact"})):
            each, axis, place = dataclasses.replace(spec, **fields), 2, places[i % 3]
            if isinstance(spec, SoftmaxCrossEntropy):
                each, axis = dataclasses.replace(each, axis=i % 2 + 1), i % 2 + 1
            x, y = (x.movedim(-1, axis).contiguous() if x.ndim == 3 else x for x in (z, t))
            given = y if place is None else distribute_tensor(y, mesh, place)
            s = 1.0 if name == "binary" else weights
            leaf, plain = distribute_tensor(x, mesh, [Shard(axis)]).requires_grad_(), x.clone().requires_grad_()
            value, expected = cwt.loss(each, leaf, given, s), cwt.loss(each, plain, y, s)
            upstream = torch.randn(expected.shape, generator=torch.Generator(), dtype=torch.float64)
            value.backward(distribute_tensor(upstream, mesh, [Replicate()]))  # type: ignore[no-untyped-call]
            expected.backward(upstream)  # type: ignore[no-untyped-call]
            if isinstance(each, SoftmaxCrossEntropy):
                assert leaf.grad.placements == (Shard(axis),)  # type: ignore[union-attr]
            found = [whole(value), whole(leaf.grad), *map(whole, cwt.loss_parts(each, leaf, given, s))]
            assert_close(found, [whole(x) for x in (expected, plain.grad, *cwt.loss_parts(each, plain, y, s))], 1e-11)


def check_distributed_logits_differentiated_otherwise() -> None:
    mesh = init_device_mesh("cpu", (RANKS,))
    z, t, spec = layer(torch.float64, 4, CLASSES)[0], torch.tensor([0, 3, 1, 6]), SoftmaxCrossEntropy(class_weight=W)

    def twice(z: Tensor, *w: Tensor) -> list[Tensor]:
        leaves = [x.requires_grad_() for x in (z, *w)]
        value = cwt.loss(spec, z, t, **dict(zip(["class_weight"], w, strict=False)))  # type: ignore[arg-type]
        first = torch.autograd.grad(value, leaves, create_graph=True)
        return [whole(x) for x in (*first, *torch.autograd.grad((first[0] ** 2).sum(), leaves))]

    for w in ([], [torch.tensor(W, dtype=torch.float64)]):
        of_shards = twice(distribute_tensor(z, mesh, [Shard(1)]), *(x.clone() for x in w))
        assert_close(of_shards, twice(z.clone(), *(x.clone() for x in w)), 1e-10)
    probs, of_probs = z.softmax(-1), dataclasses.replace(spec, inputs="probs")
    value = cwt.loss(of_probs, distribute_tensor(probs, mesh, [Shard(1)]), t)
    assert_close([whole(value)], [cwt.loss(of_probs, probs, t)])
    with pytest.raises(ValueError, match="`inplace` must be False for this call"):
        cwt.loss(spec, distribute_tensor(z, mesh, [Shard(1)]), t, inplace=True)
    wide = init_device_mesh("cpu", (RANKS, 1))
    with pytest.raises(ValueError, match="`logits` must be sharded over their classes on a mesh of one dimension"):
        cwt.loss(spec, distribute_tensor(z, wide, [Shard(1), Replicate()]), t)


class Sharded(Torch):
    """The suite's glue, whose logits lie on all ranks, each with some classes."""

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> tuple[Tensor, Tensor]:
        axis = getattr(spec, "axis", -1) if logits.ndim != 1 else 0
        if not -logits.ndim <= axis < logits.ndim:
            raise NotRun("no axis to share out")
        mesh = init_device_mesh("cpu", (RANKS,))
        leaf = distribute_tensor(logits, mesh, [Shard(axis)]).requires_grad_(logits.is_floating_point())
        value = cwt.loss(spec, leaf, targets, **{"validate": True, **arguments})
        upstream = torch.ones(value.shape, dtype=value.dtype) if upstream is None else upstream
        return whole(value), whole(self.gradient(value, leaf, distribute_tensor(upstream, mesh, [Replicate()]), again))


class Grouped(Linear):
    """The suite's linear layer, of which each rank has some classes."""

    def linear_loss(self, spec: Any, hidden: Tensor, weight: Tensor, *others: Any, **given: Any) -> Tensor:
        def added(gradient: Tensor) -> Tensor:
            whole = gradient.clone()
            dist.all_reduce(whole)
            return whole

        if weight.requires_grad:  # the gradient of each class is its owner's
            weight.register_hook(added)
        mine = own(len(weight), seed=len(weight))
        return cwt.linear_loss(spec, hidden, weight[mine], *others, group=dist.group.WORLD, **given)


# Whose numbers logits make.
OF_LOGITS = [case for case in CASES if case.spec.get("inputs", "logits") == "logits"]


def check_the_suite_on_distributed_logits() -> None:
    assert_passes(Backend("torch:shards", Sharded(""), {}), OF_LOGITS, 1200)


def check_the_suite_on_a_layer_of_a_group() -> None:
    assert_passes(Backend("torch:group", Grouped("linear"), {}), OF_LOGITS, 1000)


CHECKS = [name for name in list(globals()) if name.startswith("check_")]


def run(rank: int, folder: str, checks: list[str]) -> None:
    warnings.simplefilter("ignore")  # distributed tensors' own
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS, timeout=timedelta(seconds=120))
    chunks.CHUNK_BYTES, chunks.HALF_BYTES, chunks.LEAST_ROWS, chunks.PART_BYTES = 1, 1, 5, 32
    products.CLASSES = 2
    found = {}
    for name in checks:
        try:
            globals()[name]()
            found[name] = ""
        except BaseException:
            found[name] = traceback.format_exc()
            break  # the other ranks wait for this one
        finally:
            Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.start_processes(run, (sys.argv[1], sys.argv[2:] or CHECKS), nprocs=RANKS, start_method="fork")
