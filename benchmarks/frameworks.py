"""Both sides of each comparison: the framework's own weighted loss, and ours by the convention that is the same number.

A loss takes logits and targets. ``training`` makes a step of it, forward and backward with a fresh gradient, and
``inference`` the forward pass alone.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import plain
from cases import Case

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, conventions

__all__ = ["BACKENDS", "CUDA", "NAMED", "Framework", "Loss", "make_framework"]

Loss = Callable[..., Any]


class Framework:
    """What the frameworks share: the spec, the three sides, a clock."""

    channels_last: ClassVar[bool] = False
    # A new shape is a new program.
    compiles = False
    # What is freed stays with its allocator.
    pools: ClassVar[bool] = False
    # Steps before the clock starts.
    warm = 1
    adapter: Any

    def __init__(self, variant: str, device: str) -> None:
        raise NotImplementedError

    def to_native(self, x: Any) -> Any:
        return x

    def to_logits(self, x: Any, half: bool = False) -> Any:
        if half:
            raise ValueError("`shape` may begin with bf16- for PyTorch alone")
        return self.to_native(x)

    def to_targets(self, x: Any, half: bool = False) -> Any:
        return self.to_native(x)

    def apart(self, side: str, logits: Any) -> Any:
        """Return the logits of one side: a copy, where it writes over them."""
        return logits

    def to_plain(self, x: Any) -> Any:
        """Return an array that arithmetic compares."""
        return np.asarray(x)

    def native(self, case: Case, weight: Any) -> Loss:
        """Return the framework's own loss, with class weights as it takes them."""
        raise NotImplementedError

    def ours(self, case: Case, weight: Any, precision: Any) -> Loss:
        return partial(self.adapter.loss, dataclasses.replace(self.spec(case, weight.tolist()), precision=precision))

    def spec(self, case: Case, weight: Any) -> SoftmaxCrossEntropy | SigmoidCrossEntropy:
        if case.binary:
            return SigmoidCrossEntropy(class_weight=(1, weight), reduction="mean_over_positions")
        return SoftmaxCrossEntropy(class_weight=weight, axis=-1 if self.channels_last else 1)

    def losses(self, case: Case, weight: Any) -> dict[str, Loss]:
        """Return the sides in the order in which they take turns."""
        return {
            "native": self.native(case, self.to_native(weight)),
            "ours": self.ours(case, weight, "native"),
            "exact": self.ours(case, weight, "exact"),
        }

    def training(self, loss: Loss) -> Loss:
        """Return what gives the loss and its gradient."""
        raise NotImplementedError

    def inference(self, loss: Loss) -> Loss:
        return loss

    def seconds(self, step: Callable[[], Any], repeats: int) -> float:
        """Return what one of these steps took."""
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return (time.perf_counter() - start) / repeats

    def device_bytes(self) -> float:
        """Return the memory that is free on the device."""
        return math.inf

    def device_copy(self) -> tuple[Callable[[], Any], int] | None:
        """Return a copy on the device and the bytes that it reads and writes."""
        return None

    def device_peak(self, step: Callable[[], Any]) -> int | None:
        """Return how far a step raises the memory in use on the device."""
        return None


class NumPy(Framework):
    """NumPy, against plain lines of it."""

    def __init__(self, variant: str, device: str) -> None:
        self.adapter, self.xp = importlib.import_module("classweight.adapters.numpy"), np

    def native(self, case: Case, weight: Any) -> Loss:
        return partial(plain.sigmoid_cross_entropy if case.binary else plain.softmax_cross_entropy, self.xp, weight)

    def ours(self, case: Case, weight: Any, precision: Any) -> Loss:
        spec = dataclasses.replace(self.spec(case, weight.tolist()), precision=precision)

        def loss(logits: Any, targets: Any, gradient: bool = True) -> Any:
            return (self.adapter.loss_and_grad if gradient else self.adapter.loss)(spec, logits, targets)

        return loss

    def training(self, loss: Loss) -> Loss:
        return loss

    def inference(self, loss: Loss) -> Loss:
        return partial(loss, gradient=False)


class CuPy(NumPy):
    """The same lines on CuPy's arrays."""

    def __init__(self, variant: str, device: str) -> None:
        self.adapter = importlib.import_module("classweight.adapters.cupy")
        self.xp = importlib.import_module("cupy")

    def to_native(self, x: Any) -> Any:
        return self.xp.asarray(x)

    def to_plain(self, x: Any) -> Any:
        return self.xp.asnumpy(x)

    def seconds(self, step: Callable[[], Any], repeats: int) -> float:
        return _seconds_on_device(self.xp.cuda.Event, self.xp.cuda.get_elapsed_time, step, repeats)

    def device_bytes(self) -> float:
        return float(self.xp.cuda.Device().mem_info[0])

    def device_copy(self) -> tuple[Callable[[], Any], int] | None:
        source = self.xp.ones(2**26, self.xp.float32)
        return partial(self.xp.copyto, self.xp.empty_like(source), source), 2 * source.nbytes


class Torch(Framework):
    """PyTorch, eager; ``compile`` has both sides compiled, ``vs-compile`` the native one alone.

    ``rivals`` is eager too and has more sides: the native loss compiled and, on a GPU, Liger's kernel where it is
    installed, of index targets; its gradient takes the memory of the logits.
    """

    def __init__(self, variant: str, device: str) -> None:
        self.adapter = importlib.import_module("classweight.adapters.torch")
        self.torch, self.variant, self.device = importlib.import_module("torch"), variant, device
        self.compiles = bool(variant)

    def to_native(self, x: Any) -> Any:
        return self.torch.from_numpy(x).to(self.device)

    def to_logits(self, x: Any, half: bool = False) -> Any:
        return self.to_targets(x, half).requires_grad_()

    def to_targets(self, x: Any, half: bool = False) -> Any:
        native = self.to_native(x)
        return native.bfloat16() if half and native.is_floating_point() else native

    def apart(self, side: str, logits: Any) -> Any:
        return logits.detach().clone().requires_grad_() if side == "liger" else logits

    def to_plain(self, x: Any) -> Any:
        return x.detach().float()

    def native(self, case: Case, weight: Any) -> Loss:
        functions, weight = self.torch.nn.functional, weight.bfloat16() if case.half else weight
        if case.binary:
            return partial(functions.binary_cross_entropy_with_logits, pos_weight=weight)
        return partial(functions.cross_entropy, weight=weight)

    def spec(self, case: Case, weight: Any) -> SoftmaxCrossEntropy | SigmoidCrossEntropy:
        if case.binary:
            return conventions.torch.binary_cross_entropy_with_logits(pos_weight=weight)
        return conventions.torch.cross_entropy(weight)

    def losses(self, case: Case, weight: Any) -> dict[str, Loss]:
        losses = super().losses(case, weight)
        if self.variant == "rivals":
            losses |= self._rivals(case, self.to_native(weight))
        compiled = {"vs-compile": ("native",), "compile": tuple(losses), "rivals": ("compiled",)}.get(self.variant, ())
        if compiled:
            self.torch.compiler.reset()
        return {name: self._compiled(loss) if name in compiled else loss for name, loss in losses.items()}

    def _rivals(self, case: Case, weight: Any) -> dict[str, Loss]:
        rivals = {"compiled": self.native(case, weight)}
        if self.device == "cuda" and not case.binary and importlib.util.find_spec("liger_kernel"):
            liger = importlib.import_module("liger_kernel.transformers.functional").liger_cross_entropy
            weight = weight.bfloat16() if case.half else weight

            def of_rows(logits: Any, targets: Any) -> Any:
                return liger(logits.movedim(1, -1).reshape(-1, logits.shape[1]), targets.reshape(-1), weight)

            rivals["liger"] = of_rows
        return rivals

    def _compiled(self, loss: Loss) -> Loss:
        # A function of its own for each: what torch.compile keeps, it keeps by the code.
        def function(logits: Any, targets: Any) -> Any:
            return loss(logits, targets)

        compiled: Loss = self.torch.compile(function, dynamic=False)
        return compiled

    def training(self, loss: Loss) -> Loss:
        def step(logits: Any, targets: Any) -> Any:
            value = loss(logits, targets)
            return value, self.torch.autograd.grad(value, logits)[0]

        return step

    def inference(self, loss: Loss) -> Loss:
        without: Loss = self.torch.no_grad()(loss)
        return without

    def device_bytes(self) -> float:
        return math.inf if self.device == "cpu" else float(self.torch.cuda.mem_get_info()[0])

    def seconds(self, step: Callable[[], Any], repeats: int) -> float:
        if self.device == "cpu":
            return super().seconds(step, repeats)
        event = partial(self.torch.cuda.Event, enable_timing=True)
        return _seconds_on_device(event, lambda a, b: a.elapsed_time(b), step, repeats)

    def device_copy(self) -> tuple[Callable[[], Any], int] | None:
        if self.device == "cpu":
            return None
        source = self.torch.ones(2**26, device=self.device)
        return partial(self.torch.empty_like(source).copy_, source), 2 * source.nbytes

    def device_peak(self, step: Callable[[], Any]) -> int | None:
        if self.device == "cpu":
            return None
        self.torch.cuda.reset_peak_memory_stats()
        before = self.torch.cuda.memory_allocated()
        step()
        return int(self.torch.cuda.max_memory_allocated() - before)


def _seconds_on_device(event: Any, milliseconds: Any, step: Callable[[], Any], repeats: int) -> float:
    start, end = event(), event()
    start.record()
    for _ in range(repeats):
        step()
    end.record()
    end.synchronize()
    return float(milliseconds(start, end)) / 1000 / repeats


class TensorFlow(Framework):
    """TensorFlow, eager; ``function`` has the whole step in a ``tf.function``."""

    channels_last = True
    pools = True

    def __init__(self, variant: str, device: str) -> None:
        self.adapter = importlib.import_module("classweight.adapters.tensorflow")
        self.tf, self.compiles = importlib.import_module("tensorflow"), bool(variant)
        if not variant:  # shapes that have come so often are compiled
            self.warm = 20

    def to_native(self, x: Any) -> Any:
        return self.tf.constant(x)

    def native(self, case: Case, weight: Any) -> Loss:
        tf = self.tf

        def softmax(logits: Any, labels: Any) -> Any:
            weights = tf.gather(weight, labels)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            return tf.reduce_sum(weights * losses) / tf.reduce_sum(weights)

        def binary(logits: Any, labels: Any) -> Any:
            return tf.reduce_mean(tf.nn.weighted_cross_entropy_with_logits(labels, logits, weight))

        return binary if case.binary else softmax

    def training(self, loss: Loss) -> Loss:
        def step(logits: Any, targets: Any) -> Any:
            with self.tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(logits, targets)
            return value, tape.gradient(value, logits)

        return self.inference(step)

    def inference(self, loss: Loss) -> Loss:
        made: Loss = self.tf.function(loss, autograph=False) if self.compiles else loss
        return made


class Keras(Framework):
    """Keras's loss classes, the weights of the labels as ``sample_weight``; ``fit`` runs them in a ``tf.function``."""

    channels_last = True

    def native(self, case: Case, weight: Any) -> Loss:
        keras = importlib.import_module("keras")

        def softmax(logits: Any, labels: Any) -> Any:
            return sparse(labels, logits, sample_weight=keras.ops.take(weight, labels, axis=0))

        def binary(logits: Any, labels: Any) -> Any:  # an output a row, or Keras's weights would be of whole rows
            return dense(labels[..., None], logits[..., None], sample_weight=1 + (weight - 1) * labels)

        sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        dense = keras.losses.BinaryCrossentropy(from_logits=True)
        return binary if case.binary else softmax

    def ours(self, case: Case, weight: Any, precision: Any) -> Loss:
        adapter, class_weight = importlib.import_module("classweight.adapters.keras"), weight.tolist()
        if case.binary:
            loss = adapter.BinaryCrossentropy(from_logits=True, class_weight=(1, class_weight), precision=precision)
        else:
            loss = adapter.SparseCategoricalCrossentropy(True, class_weight=class_weight, precision=precision)
        return lambda logits, targets: loss(targets, logits)


class KerasTensorFlow(Keras, TensorFlow):
    pass


class KerasTorch(Keras, Torch):
    pass


class Jax(Framework):
    """JAX under ``jit``, against optax and the weights of the labels, as its users write it."""

    channels_last = True
    compiles = True

    def __init__(self, variant: str, device: str) -> None:
        self.jax = importlib.import_module("jax")
        self.adapter = importlib.import_module("classweight.adapters.jax")

    def to_native(self, x: Any) -> Any:
        return self.jax.numpy.asarray(x)

    def native(self, case: Case, weight: Any) -> Loss:
        jnp, optax = self.jax.numpy, importlib.import_module("optax")

        def softmax(logits: Any, labels: Any) -> Any:
            weights = jnp.take(weight, labels)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.sum(weights * losses) / jnp.sum(weights)

        def binary(logits: Any, labels: Any) -> Any:
            losses = optax.sigmoid_binary_cross_entropy(logits, labels)
            return jnp.mean(jnp.where(labels > 0.5, weight, 1) * losses)

        return binary if case.binary else softmax

    def training(self, loss: Loss) -> Loss:
        return self.inference(self.jax.value_and_grad(loss))

    def inference(self, loss: Loss) -> Loss:
        function = self.jax.jit(loss)
        return lambda logits, targets: self.jax.block_until_ready(function(logits, targets))


class KerasJax(Keras, Jax):
    pass


class Chainer(Framework):
    """Chainer, whose binary loss knows no weights: there both sides have none."""

    def __init__(self, variant: str, device: str) -> None:
        self.adapter = importlib.import_module("classweight.adapters.chainer")
        self.chainer = importlib.import_module("chainer")

    def to_targets(self, x: Any, half: bool = False) -> Any:
        return x.astype(np.int32)

    def to_plain(self, x: Any) -> Any:
        return self.chainer.as_array(x)

    def native(self, case: Case, weight: Any) -> Loss:
        functions = self.chainer.functions
        if case.binary:
            return lambda logits, labels: functions.sigmoid_cross_entropy(logits, labels)
        return lambda logits, labels: functions.softmax_cross_entropy(logits, labels, class_weight=weight)

    def spec(self, case: Case, weight: Any) -> SoftmaxCrossEntropy | SigmoidCrossEntropy:
        page = conventions.chainer
        return page.sigmoid_cross_entropy() if case.binary else page.softmax_cross_entropy(class_weight=weight)

    def training(self, loss: Loss) -> Loss:
        def step(logits: Any, targets: Any) -> Any:
            leaf = self.chainer.Variable(logits)
            value = loss(leaf, targets)
            value.backward()
            return value, leaf.grad

        return step

    def inference(self, loss: Loss) -> Loss:
        def forward(logits: Any, targets: Any) -> Any:
            with self.chainer.no_backprop_mode():
                return loss(logits, targets)

        return forward


BACKENDS: dict[str, type[Framework]] = {
    "numpy": NumPy,
    "torch": Torch,
    "torch:vs-compile": Torch,
    "torch:compile": Torch,
    "torch:rivals": Torch,
    "tensorflow": TensorFlow,
    "tensorflow:function": TensorFlow,
    "keras:tensorflow": KerasTensorFlow,
    "keras:tensorflow:function": KerasTensorFlow,
    "keras:torch": KerasTorch,
    "keras:jax": KerasJax,
    "jax": Jax,
    "chainer": Chainer,
    "cupy": CuPy,
}
# Measured when they are asked for: they compile for minutes.
NAMED = ("torch:compile", "torch:rivals")
CUDA = ("torch", "torch:vs-compile", "torch:compile", "torch:rivals", "cupy")


def make_framework(backend: str, device: str) -> Framework:
    """Import the framework of a backend; Keras takes its own backend from the environment, once."""
    framework, _, variant = backend.partition(":")
    if framework == "keras":
        os.environ["KERAS_BACKEND"], _, variant = variant.partition(":")
    return BACKENDS[backend](variant, device)
