"""PyTorch on the CPU: bits are NumPy's, in every layout and in place; threads, forks, and an interpreter that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import classweight.adapters.numpy as cwn
import classweight.adapters.torch as cwt

from ..batches import DTYPES, KINDS, Batch, assert_same_bits, batch

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", list(DTYPES))
each_precision = pytest.mark.parametrize("precision", ["native", "exact"])


def tensor(x: Any) -> Tensor:
    x = np.ascontiguousarray(x)
    if x.dtype == DTYPES["bfloat16"]:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x.copy())


def array(x: Tensor) -> Any:
    x = x.detach().contiguous()
    return x.view(torch.int16).numpy().view(DTYPES["bfloat16"]) if x.dtype is torch.bfloat16 else x.numpy()


def by_torch(spec: Any, z: Tensor, t: Tensor, s: Tensor, upstream: Any, **options: Any) -> tuple[Any, Any]:
    """Return loss and gradient; of a mean, those of a shared denominator."""
    shared = {"denominator": 7.0} if spec.reduction != "none" else {}
    leaf = z.detach().requires_grad_()
    value = cwt.loss(spec, leaf.mul(1) if options else leaf, t, s, **shared, **options)
    value.backward(torch.as_tensor(upstream).to(value.dtype))
    assert leaf.grad is not None
    return array(value), array(leaf.grad)


def by_numpy(b: Batch) -> tuple[Any, Any]:
    shared = {"denominator": 7.0} if b.spec.reduction != "none" else {}
    return cwn.loss_and_grad(b.spec, b.z, b.t, b.s, upstream=b.upstream, **shared)


def some(kind: str, dtype: str, classes: int, precision: Any = "native", rows: int | None = None) -> Batch:
    """Return a batch of which the upstream gradient is one that the logits' type has."""
    b = batch(kind, dtype, classes, precision, rows)
    return replace(b, upstream=b.upstream.astype(b.z.dtype).astype(np.float64))


@each_kind
@each_dtype
@each_precision
@pytest.mark.parametrize("classes", [10, 100])
def test_bits_are_those_of_numpy(kind: str, dtype: str, precision: str, classes: int) -> None:
    b = some(kind, dtype, classes, precision)
    for shaped in (b, replace(b.reduced(), upstream=np.float64(1))):
        found = by_torch(shaped.spec, *map(tensor, (b.z, b.t, b.s)), shaped.upstream)
        assert_same_bits(found, by_numpy(shaped))


@pytest.mark.parametrize("kind", ["index", "smoothed", "distribution"])
@each_dtype
@each_precision
@pytest.mark.parametrize("classes", [3, 40])
def test_images_have_the_same_bits_in_every_memory_format(kind: str, dtype: str, precision: str, classes: int) -> None:
    b = some(kind, dtype, classes, precision, rows=24)
    z, t, s, upstream = tensor(b.z), tensor(b.t), tensor(b.s), torch.from_numpy(b.upstream)
    expected = by_torch(b.spec, z, t, s, upstream)

    def image(x: Tensor) -> Tensor:
        x = x.reshape(2, 3, 4, *x.shape[1:])
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x

    def rows(x: Any) -> Any:
        return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).reshape(24, *((classes,) if x.ndim == 4 else ()))

    wide = torch.zeros(2, 2 * classes, 3, 8, dtype=z.dtype)
    every_second = wide[:, ::2, :, 1::2].copy_(image(z))
    layouts = (
        image(z),  # as channels last has it
        image(z).contiguous(),
        image(z).contiguous(memory_format=torch.channels_last),
        image(z).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        every_second,
    )
    for laid_out in layouts:
        targets = image(t) if t.ndim == 1 else image(t).contiguous()
        found = by_torch(b.spec, laid_out, targets, image(s), image(upstream))
        assert_same_bits([rows(x) for x in found], expected, str(laid_out.stride()))


@each_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [10, 100])
def test_bits_are_the_same_in_place(kind: str, dtype: str, classes: int) -> None:
    b = replace(some(kind, dtype, classes).reduced(), upstream=np.float64(1))
    found = by_torch(b.spec, *map(tensor, (b.z, b.t, b.s)), 1.0, inplace=True)
    assert_same_bits(found, by_numpy(b))


@pytest.fixture
def set_threads() -> Any:
    """Return PyTorch's setter of threads, which is undone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@each_kind
@each_precision
@pytest.mark.parametrize("shape", [(20_000, 10), (300, 700)])
def test_bits_and_means_do_not_depend_on_threads(
    kind: str, precision: str, shape: tuple[int, int], set_threads: Any
) -> None:
    b = some(kind, "float32", shape[1], precision, rows=shape[0])
    mean = b.reduced().spec
    z, t, s = map(tensor, (b.z, b.t, b.s))
    expected = None
    for count in (1, 2, 8):
        set_threads(count)
        parts = map(array, cwt.loss_parts(mean, z, t, s))
        found = *by_torch(b.spec, z, t, s, b.upstream), *by_torch(mean, z, t, s, 1.0), *parts
        expected = expected or found
        assert_same_bits(found, expected, f"{count} threads")


@each_kind
def test_eight_threads_of_the_user_may_compute_losses_at_once(kind: str, set_threads: Any) -> None:
    set_threads(2)
    b = replace(some(kind, "float32", 100, rows=1000).reduced(), upstream=np.float64(1))
    z, t, s = map(tensor, (b.z, b.t, b.s))
    expected = by_numpy(b)
    start, found = threading.Barrier(8), []

    def work(by: Any) -> None:
        start.wait()
        for _ in range(10):
            found.append(by())

    ways = [lambda: by_torch(b.spec, z, t, s, 1.0), lambda: by_numpy(b)]
    users = [threading.Thread(target=work, args=(ways[i % 2],)) for i in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join(timeout=60)
    assert len(found) == 80
    for result in found:
        assert_same_bits(result, expected)


SCRIPT = """
import os, threading, time, atexit, sys
import numpy as np
import torch
import classweight.adapters.numpy as cwn
import classweight.adapters.torch as cwt
from classweight import SoftmaxCrossEntropy
torch.set_num_threads(2)
rng = np.random.default_rng(0)
z, y = rng.normal(size=(1000, 100)).astype("f"), rng.integers(0, 100, 1000)
spec = SoftmaxCrossEntropy()
def both():
    x = torch.tensor(z, requires_grad=True)
    value = cwt.loss(spec, x, torch.tensor(y))
    value.backward()
    other, gradient = cwn.loss_and_grad(spec, z, y)
    assert value.item() == other and np.array_equal(x.grad.numpy(), gradient)
    return other
expected = both()
"""


def run(code: str, **variables: str) -> str:
    """Run code after `SCRIPT` in a process of its own."""
    command = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-c", SCRIPT + code]
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def test_workers_of_a_data_loader_compute_losses() -> None:
    code = """
from torch.utils.data import DataLoader, Dataset
class Losses(Dataset):
    def __len__(self): return 6
    def __getitem__(self, i):
        assert both() == expected
        return i
if __name__ == "__main__":
    if hasattr(os, "fork"):
        print(sum(DataLoader(Losses(), batch_size=None, num_workers=2, multiprocessing_context="fork")))
"""
    assert run(code) == ("15\n" if hasattr(os, "fork") else "")


def test_a_first_loss_may_come_from_an_exit_handler() -> None:
    code = """
spec = SoftmaxCrossEntropy(label_smoothing=0.1)
atexit.register(lambda: print(cwt.loss(spec, torch.tensor(z), torch.tensor(y)).item() > 0))
"""
    assert run(code) == "True\n"
