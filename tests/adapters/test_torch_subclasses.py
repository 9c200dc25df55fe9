"""PyTorch: whatever is no plain tensor, in any argument, goes through plain operations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.utils._pytree import tree_map

import classweight.adapters.torch as cwt
from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

W = [1.0, 2.0, 5.0, 0.5]
Z = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
T = torch.tensor([0, 3, 1, 1, 2, 0])
P = torch.rand(6, 4, generator=torch.Generator().manual_seed(2))
CALLS: dict[str, tuple[Any, Tensor]] = {
    "index": (SoftmaxCrossEntropy(class_weight=W, ignore_index=-100), T),
    "smoothed": (SoftmaxCrossEntropy(class_weight=W, label_smoothing=0.1), T),
    "distribution": (SoftmaxCrossEntropy(class_weight=W), P),
    "binary": (SigmoidCrossEntropy(class_weight=(1, W)), P),
}
each_call = pytest.mark.parametrize(("spec", "targets"), CALLS.values(), ids=list(CALLS))


class Wrapper(Tensor):
    """A tensor that holds another, and no memory of its own."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Wrapper:
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=held.device)  # type: ignore[attr-defined]
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        arguments, options = tree_map(lambda x: x.held if isinstance(x, Wrapper) else x, (arguments, options or {}))
        return tree_map(lambda x: Wrapper(x) if isinstance(x, Tensor) else x, function(*arguments, **options))


class Named(Tensor):
    """A subclass that adds nothing."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@each_call
@pytest.mark.parametrize("placement", [Shard(0), Replicate()], ids=str)
def test_a_distributed_tensor(mesh: DeviceMesh, placement: Any, spec: Any, targets: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # distributed tensors' own
        for given in (targets, distribute_tensor(targets, mesh, [placement])):
            z, plain = distribute_tensor(Z, mesh, [placement]).requires_grad_(), Z.clone().requires_grad_()
            weight = torch.arange(6.0)
            value, expected = cwt.loss(spec, z, given, weight), cwt.loss(spec, plain, targets, weight)
            value.backward()
            expected.backward()
            assert_close(value.full_tensor(), expected)
            assert z.grad is not None
            assert plain.grad is not None
            assert_close(z.grad.full_tensor(), plain.grad)


@each_call
@pytest.mark.parametrize("kind", [Wrapper, lambda x: x.as_subclass(Named)], ids=["wrapper", "subclass"])
def test_a_subclass_in_any_argument(kind: Any, spec: Any, targets: Tensor) -> None:
    weight, mask = torch.arange(6.0), torch.tensor([True] * 5 + [False])
    denominator, classes = torch.tensor(2.5), torch.tensor([3.0, 1, 2, 1])
    names = ("logits", "targets", "sample_weight", "mask", "denominator", "class_weight")
    given: dict[str, Any] = dict(zip(names, (Z, targets, weight, mask, denominator, classes), strict=True))
    binary = isinstance(spec, SigmoidCrossEntropy)
    if binary:
        given["class_weight"] = (classes, classes)
    expected = cwt.loss(spec, **given)
    for name in names:
        held = (classes, kind(classes)) if binary and name == "class_weight" else kind(given[name])
        value = cwt.loss(spec, **{**given, name: held})
        assert type(value) in (Wrapper, Named)
        assert_close(value.held if isinstance(value, Wrapper) else value.as_subclass(Tensor), expected)


@each_call
def test_a_transform_of_any_argument(spec: Any, targets: Tensor) -> None:
    """A batch of sample weights, of class weights or of targets, beside logits that are none."""
    weights, classes = torch.arange(12.0).reshape(2, 6), torch.tensor([[3.0, 1, 2, 1], W])
    for batches, f in (
        (weights, lambda w: cwt.loss(spec, Z, targets, w)),
        (torch.stack([targets, targets.flip(0)]), lambda t: cwt.loss(spec, Z, t)),
        (
            classes,
            lambda w: cwt.loss(spec, Z, targets, class_weight=(w, w) if isinstance(spec, SigmoidCrossEntropy) else w),
        ),
    ):
        assert_close(torch.func.vmap(f)(batches), torch.stack([f(x) for x in batches]))


@each_call
def test_fake_tensors_in_their_mode_and_outside(spec: Any, targets: Tensor) -> None:
    mode = FakeTensorMode()
    z, t = mode.from_tensor(Z), mode.from_tensor(targets)
    with mode:
        inside = cwt.loss(spec, z, t)
    for value in (inside, cwt.loss(spec, z, t), *cwt.loss_parts(spec, z, t)):
        assert type(value) is type(z)
        assert value.shape == ()


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_tensor_is_refused(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)], layout=layout)
    given = {"logits": Z, "targets": T}
    for name in ("logits", "targets", "sample_weight", "class_weight", "mask", "denominator"):
        with pytest.raises(TypeError, match=f"`{name}` must be a dense tensor; got a nested tensor"):
            cwt.loss(SoftmaxCrossEntropy(), **{**given, name: nested})
