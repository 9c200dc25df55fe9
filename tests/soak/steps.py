"""Many steps of one process, of one loss in threads, and of worker processes; a script: ``steps.py ADAPTER STEPS``.

A step is a loss and its gradient of a batch of its own, by its number: shape, spec, logits, targets and weights. Where
shapes are compiled they are few, and so are the steps; elsewhere hardly one comes twice.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

Step = Callable[[int], bytes]
THREADS, WORKERS, EACH = 8, 2, 64
# What memory may grow by after the first steps, which load the kernels: less than a batch in each of CI's steps.
GROWTH = 4 << 20
COMPILED = ("tensorflow", "jax", "keras:tensorflow", "keras:torch", "keras:jax")
SHAPES = 8
SOFTMAX = SoftmaxCrossEntropy(ignore_index=-100)
SPECS = (
    SOFTMAX,
    SoftmaxCrossEntropy(ignore_index=-100, label_smoothing=0.1, reduction="mean_over_valid"),
    SoftmaxCrossEntropy(reduction="sum"),
    SigmoidCrossEntropy(class_weight=(1, 3)),
)


def batch(number: int, shapes: int | None) -> tuple[Any, Any, Any, Any, Any]:
    """Return spec, logits, targets, sample weights and class weights."""
    shape = np.random.default_rng(number if shapes is None else number % shapes)
    kind, rows, classes = shape.integers(len(SPECS)), shape.integers(1, 65), shape.integers(2, 34)
    generator = np.random.default_rng([1, number])
    spec, logits = SPECS[kind], generator.normal(size=(rows, classes)).astype(np.float32)
    targets = generator.integers(classes, size=rows)
    if kind < 2:
        targets[generator.random(rows) < 0.2] = -100
    elif kind == 2:
        targets = generator.dirichlet(np.ones(classes), rows).astype(np.float32)
    else:
        targets = generator.random((rows, classes)).astype(np.float32)
    weight = None if kind == 3 else generator.random(classes)
    return spec, logits, targets, generator.random(rows).astype(np.float32), weight


def numpy_step(number: int) -> bytes:
    import classweight.adapters.numpy as cwn

    spec, z, y, s, w = batch(number, None)
    value, gradient = cwn.loss_and_grad(spec, z, y, s, class_weight=w)
    return bytes(value.tobytes() + gradient.tobytes())


def torch_step(number: int) -> bytes:
    import torch

    import classweight.adapters.torch as cwt

    spec, z, y, s, w = (torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in batch(number, None))
    value = cwt.loss(spec, z.requires_grad_(), y, s, class_weight=w)
    value.backward()
    return bytes(value.detach().numpy().tobytes() + z.grad.numpy().tobytes())


def chainer_step(number: int) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import chainer

    import classweight.adapters.chainer as cwch

    spec, z, y, s, w = batch(number, None)
    variable = chainer.Variable(z)
    value = cwch.loss(spec, variable, y, s, class_weight=w)
    value.backward()
    return bytes(value.array.tobytes() + variable.grad.tobytes())


def tensorflow_step(number: int) -> bytes:
    import tensorflow as tf

    import classweight.adapters.tensorflow as cwtf

    spec, z, y, s, w = batch(number, SHAPES)
    z = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = cwtf.loss(spec, z, y, s, class_weight=w)
    return bytes(value.numpy().tobytes() + tape.gradient(value, z).numpy().tobytes())


@functools.lru_cache
def _jitted(spec: Any) -> Any:
    import jax

    import classweight.adapters.jax as cwj

    return jax.jit(jax.value_and_grad(lambda z, y, s, w: cwj.loss(spec, z, y, s, class_weight=w)))


def jax_step(number: int) -> bytes:
    spec, *arrays = batch(number, SHAPES)
    value, gradient = _jitted(spec)(*arrays)
    return bytes(np.asarray(value).tobytes() + np.asarray(gradient).tobytes())


@functools.lru_cache
def _keras(backend: str) -> Any:
    from classweight.conformance.backends import make_backend

    return make_backend(f"keras:{backend}").glue


def keras_step(backend: str, number: int) -> bytes:
    spec, *arrays = batch(number, SHAPES)
    glue = _keras(backend)
    z, y, s, w = (None if x is None else glue.decode(x.tobytes(), x.dtype.name, x.shape) for x in arrays)
    arguments = {"sample_weight": s, "class_weight": w}
    if backend == "jax":  # whose glue compiles each call
        found = glue.jax.value_and_grad(lambda z: glue.loss(spec, z, y, **arguments))(z)
    else:
        found = glue.run(spec, z, y, arguments, None)
    return b"".join(glue.encode(x)[0] for x in found)


STEPS: dict[str, Step] = {
    name: globals()[f"{name}_step"] for name in ("numpy", "torch", "chainer", "tensorflow", "jax")
}
STEPS |= {f"keras:{name}": functools.partial(keras_step, name) for name in ("tensorflow", "torch", "jax")}


def memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(step: Step, steps: int) -> tuple[int, int]:
    """Return what memory is once every kernel is loaded, and after all steps.

    Raises
    ------
    AssertionError
        It grew.
    """
    first = min(max(1000, steps // 5), steps // 2)
    for number in range(first):
        step(number)
    before = memory()
    for number in range(first, steps):
        step(number)
    after = memory()
    assert after - before <= GROWTH, f"{(after - before) / (steps - first):.0f} bytes a step"
    return before, after


def by_threads(step: Step, numbers: Iterable[int]) -> list[bytes]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(step, numbers))


def by_workers(step: Step, numbers: Iterable[int], method: str) -> list[bytes]:
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context(method)) as pool:
        return list(pool.map(step, numbers))


class Losses:
    """A data set whose items are losses."""

    def __len__(self) -> int:
        return EACH

    def __getitem__(self, number: int) -> bytes:
        return torch_step(number)


def by_loader(method: str) -> list[bytes]:
    """Return the steps of the workers of PyTorch's DataLoader."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(Losses(), batch_size=None, num_workers=WORKERS, multiprocessing_context=method)  # type: ignore[arg-type]
    return list(loader)


def main(name: str, steps: int) -> None:
    step = STEPS[name]
    numbers = range(EACH)
    if name.endswith("tensorflow"):
        # The first calls of a shape are not compiled yet, and of other bits in native precision.
        for number in numbers:
            step(number)
    one_by_one = [step(number) for number in numbers]
    assert by_threads(step, numbers) == one_by_one
    if name not in COMPILED:  # whose runtimes have threads that a fork loses
        for method in ("fork", "spawn"):
            found = by_loader(method) if name == "torch" else by_workers(step, numbers, method)
            assert found == one_by_one, method
    before, after = (size / 2**20 for size in soak(step, steps))
    print(f"{name}: {steps} steps, {before:.1f} MiB after the first of them, {after:.1f} MiB at the end")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
