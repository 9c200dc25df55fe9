"""What a worker runs: one short class a framework, between the suite's bytes and the framework's arrays.

A glue has ``decode`` (bytes to a native array), ``encode`` (back), and ``run``, which calls a loss and makes its
gradient from an upstream one. ``loss`` is the adapter's, or a user's own behind the adapter's signature.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol
from unittest.mock import patch

import numpy as np

from .layouts import laid_out

__all__ = ["GLUES", "Backend", "Glue", "NotRun", "available", "make_backend"]

Result = tuple[Any, Any]
# Of which a linear layer takes some classes at a time; and of which an identity is made.
FEW_LOGITS, MOST_ROWS = 1000, 2048


class NotRun(Exception):
    """Raised with the reason why a case cannot be handed to a backend."""


class Glue(Protocol):
    """What a framework's class offers; ``loss`` has the signature of an adapter's."""

    framework: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]
    loss: Callable[..., Any]

    def __init__(self, variant: str) -> None: ...

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        """Return a native array of little-endian bytes; the type by its name in NumPy, or ``bfloat16``."""

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        """Return a native array's bytes, type and shape."""

    def lay(self, x: Any, layout: str) -> Any:
        """Return the same numbers as they are to lie in memory; what it is called on where that is not ours to say."""

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        """Return the loss and its gradient with respect to the logits times ``upstream`` (None: 1).

        Where it is asked for ``again``, the second of one graph.
        """


def _adapter(framework: str) -> Any:
    """Return an adapter, to be imported before its framework: the ImportError then names what to install."""
    return importlib.import_module(f"classweight.adapters.{framework}")


class NumPy:
    """NumPy, whose loss comes with its gradient; a user's own may return the pair, or the loss alone."""

    framework: ClassVar[str] = "numpy"
    variants: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, variant: str) -> None:
        self.loss: Callable[..., Any] = _adapter("numpy").loss_and_grad

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        if dtype == "bfloat16":
            try:
                import ml_dtypes
            except ImportError:
                raise NotRun("NumPy has bfloat16 only with the package ml_dtypes") from None
            return np.frombuffer(data, ml_dtypes.bfloat16).reshape(shape)
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)

    def lay(self, x: Any, layout: str) -> Any:
        def cut(buffer: Any, strides: list[int] | None) -> Any:
            if strides is None:
                return np.frombuffer(buffer, x.dtype)
            return np.ndarray(x.shape, x.dtype, buffer, 0, [n * x.itemsize for n in strides])

        return laid_out(x, layout, x.itemsize, cut)

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        x = np.asarray(x)
        return x.tobytes(), x.dtype.name, x.shape

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        if upstream is not None:
            arguments = {**arguments, "upstream": upstream}
        result = self.loss(spec, logits, targets, **arguments)
        if again:  # there is no graph, but arguments that must be what they were
            result = self.loss(spec, logits, targets, **arguments)
        return result if isinstance(result, tuple) else (result, None)


class Torch:
    """PyTorch; the variant ``composite`` is the path that takes over where a weight requires a gradient too.

    A graph that is ``compiled``, and a GPU (``cuda``), look at values where they are told to alone: they are told so,
    or values are looked at eagerly before. Graphs are those that `torch.compile` traces, run by PyTorch's own kernels:
    inductor would compile each of hundreds of specs for seconds. ``linear`` has a glue of its own.
    """

    framework: ClassVar[str] = "torch"
    variants: ClassVar[tuple[str, ...]] = ("", "composite", "compiled", "linear", "cuda", "cuda:compiled")

    def __init__(self, variant: str) -> None:
        adapter = _adapter("torch")
        import torch

        self.torch, self.composite = torch, variant == "composite"
        self.device = "cuda" if variant.startswith("cuda") else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ImportError("the backend torch:cuda needs a GPU that PyTorch can use")
        self.loss: Callable[..., Any] = adapter.loss
        self.graph = lru_cache(maxsize=32)(self._graph) if variant.endswith("compiled") else None

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        native = getattr(self.torch, dtype)
        # frombuffer takes no empty buffer.
        flat = self.torch.frombuffer(bytearray(data), dtype=native) if data else self.torch.empty(0, dtype=native)
        return flat.reshape(shape).to(self.device)

    def lay(self, x: Any, layout: str) -> Any:
        if layout == "far" and self.device != "cpu":
            raise NotRun("a device has no memory that is there when it is touched")
        memory: dict[int, Any] = {}

        def cut(buffer: Any, strides: list[int] | None) -> Any:
            flat = self.torch.frombuffer(buffer, dtype=x.dtype).to(self.device)
            flat = memory.setdefault(id(buffer), flat)
            return flat if strides is None else flat.as_strided(x.shape, strides)

        return laid_out(x, layout, x.element_size(), cut)

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        x = x.detach().cpu().contiguous()
        return x.reshape(-1).view(self.torch.uint8).numpy().tobytes(), str(x.dtype).partition(".")[2], tuple(x.shape)

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        logits.requires_grad_(logits.is_floating_point())
        if self.composite:
            weight = arguments.get("sample_weight", self.torch.ones(()))
            if not isinstance(weight, self.torch.Tensor) or not weight.is_floating_point():
                weight = self.torch.as_tensor(weight, dtype=self.torch.float64)
            arguments = {**arguments, "sample_weight": weight.requires_grad_()}
        if self.device == "cuda":
            arguments = {"validate": True, **arguments}
        function = self.loss
        if self.graph is not None:
            self.loss(spec, logits, targets, **arguments)
            function, arguments = self.graph(spec), {**arguments, "validate": False}
        loss = function(spec, logits, targets, **arguments)
        return loss, self.gradient(loss, logits, upstream, again)

    def gradient(self, loss: Any, x: Any, upstream: Any, again: bool) -> Any:
        """Return the gradient to ``x`` times ``upstream`` (None: 1); the second of one graph where it is asked for."""
        upstream = self.torch.ones_like(loss) if upstream is None else upstream
        for retained in (True, False)[not again :]:
            (gradient,) = self.torch.autograd.grad(loss, x, upstream, retain_graph=retained)
        return gradient

    def _graph(self, spec: Any) -> Callable[..., Any]:
        self.torch.compiler.reset()  # each spec is a graph of its own, and Dynamo stops after a few of one function
        compiled: Any = self.torch.compile  # whose types have no limit
        # Of one spec there are as many graphs as shapes, types and arguments.
        graph: Callable[..., Any] = compiled(self.loss, fullgraph=True, backend="aot_eager", recompile_limit=1000)
        return graph


class Linear(Torch):
    """The loss of a linear layer in PyTorch, whose hidden layer is the logits and whose weight is the identity.

    There are two rows and, of few logits, two classes at a time. With the two exchanged, the weight's gradient must be
    what the hidden layer's was.
    """

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        self.loss = self._of_hidden

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        chunks, products = _adapter("torch.chunks"), _adapter("torch.products")
        few = logits.numel() < FEW_LOGITS
        parts: Any = {"PART_BYTES": 32} if few else {}
        with (
            patch.multiple(chunks, CHUNK_BYTES=1, HALF_BYTES=1, LEAST_ROWS=2, **parts),
            patch.object(products, "CLASSES", 2 if few else products.CLASSES),
        ):
            loss, gradient = super().run(spec, logits, targets, arguments, upstream, again)
            if not _is_scaled_exactly(spec, logits, upstream):
                raise NotRun("gradients of a half type are rounded before what is upstream is known")
            if not hasattr(spec, "axis") and gradient.isnan().any():
                raise NotRun("what is NaN of one logit is NaN in all of a hidden layer: it is times a weight of 0")
            axis = _last_of(spec, logits)
            rows = gradient.movedim(axis, -1).reshape(-1, logits.shape[axis])
            if logits.isfinite().all() and rows.isfinite().all() and len(rows) <= MOST_ROWS:
                found = self._gradient_of_weight(spec, logits, targets, arguments, upstream, again)
                if not self.torch.equal(found, rows):
                    raise ValueError(f"the weight's gradient is {found.tolist()}, the hidden layer's {rows.tolist()}")
        return loss, gradient

    def linear_loss(self, *arguments: Any, **given: Any) -> Any:
        """Return the adapter's loss."""
        return _adapter("torch").linear_loss(*arguments, **given)

    def _of_hidden(self, spec: Any, logits: Any, targets: Any, *others: Any, **arguments: Any) -> Any:
        axis = _last_of(spec, logits)
        if spec.inputs != "logits" or not logits.is_floating_point():
            raise NotRun("a linear layer gives logits, of a floating type")
        if not -logits.ndim <= axis < logits.ndim or not logits.shape[axis]:
            raise NotRun("a linear layer has its classes last")
        hidden = logits.movedim(axis, -1)
        targets = targets.movedim(axis, -1) if targets.shape == logits.shape else targets
        identity = self.torch.eye(hidden.shape[-1], dtype=hidden.dtype)
        value = self.linear_loss(spec, hidden, identity, targets, *others, **arguments)
        if not hidden.isfinite().all() and value.isnan().any():
            raise NotRun("what is not finite in a hidden layer is NaN in all classes: it is times a weight of 0")
        return value

    def _gradient_of_weight(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool
    ) -> Any:
        """Return the gradient of a weight that is the logits, where the hidden layer is the identity, row by row."""
        axis = _last_of(spec, logits)
        z = logits.detach().movedim(axis, -1)
        targets = targets.movedim(axis, -1) if targets.shape == logits.shape else targets
        weight = z.reshape(-1, z.shape[-1]).t().clone().requires_grad_()
        n = weight.shape[1]
        hidden = self.torch.eye(n, dtype=z.dtype).reshape(*z.shape[:-1], n)
        loss = self.linear_loss(spec, hidden, weight, targets, **arguments)
        return self.gradient(loss, weight, upstream, again).t()


def _last_of(spec: Any, logits: Any) -> int:
    """Return the axis that is a linear layer's last."""
    return getattr(spec, "axis", -1) if logits.ndim != 1 else -1


def _is_scaled_exactly(spec: Any, logits: Any, upstream: Any) -> bool:
    if upstream is None or logits.element_size() > 2 or spec.precision == "exact" or spec.reduction == "none":
        return True
    return abs(math.frexp(float(upstream))[0]) == 0.5


class Chainer(NumPy):
    """Chainer on NumPy arrays; the variant ``composite`` is the gradient that is to be differentiated again."""

    framework: ClassVar[str] = "chainer"
    variants: ClassVar[tuple[str, ...]] = ("", "composite")

    def __init__(self, variant: str) -> None:
        adapter = _adapter("chainer")
        import chainer

        self.chainer, self.composite = chainer, variant == "composite"
        self.loss = adapter.loss

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        if dtype == "bfloat16":
            raise NotRun("Chainer has no bfloat16")
        return super().decode(data, dtype, shape)

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        return super().encode(self.chainer.as_array(x))

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        variable = self.chainer.Variable(logits)
        loss = self.loss(spec, variable, targets, **arguments)
        above = self.chainer.Variable(np.ones_like(loss.array) if upstream is None else upstream)
        for _ in range(1 + again):
            gradient = self.chainer.grad([loss], [variable], [above], enable_double_backprop=self.composite)[0]
        if gradient is None:
            raise TypeError("the loss does not depend on the logits")
        return loss, gradient


class CuPy(NumPy):
    """CuPy on a device; values are looked at, so that errors can be compared."""

    framework: ClassVar[str] = "cupy"

    def __init__(self, variant: str) -> None:
        adapter = _adapter("cupy")
        import cupy

        self.cupy, self.loss = cupy, adapter.loss_and_grad

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        return self.cupy.asarray(super().decode(data, dtype, shape))

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        return super().encode(self.cupy.asnumpy(x))

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        return super().run(spec, logits, targets, {"validate": True, **arguments}, upstream, again)

    def lay(self, x: Any, layout: str) -> Any:
        return x


class TensorFlow(NumPy):
    """TensorFlow eager, in a graph, and under XLA, which can look at no value: both are looked at eagerly before."""

    framework: ClassVar[str] = "tensorflow"
    variants: ClassVar[tuple[str, ...]] = ("", "graph", "xla")

    def __init__(self, variant: str) -> None:
        adapter = _adapter("tensorflow")
        import tensorflow

        self.tf, self.variant = tensorflow, variant
        self.loss: Callable[..., Any] = adapter.loss
        # One function a spec, as a user has: it is compiled anew for other shapes only.
        self.compiled = lru_cache(maxsize=32)(self._compiled)

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        return self.tf.constant(super().decode(data, dtype, shape))

    def lay(self, x: Any, layout: str) -> Any:
        return x

    def encode(self, x: Any) -> tuple[bytes, str, tuple[int, ...]]:
        return super().encode(x.numpy())

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        if not self.variant:
            return self._step(spec, again, logits, targets, arguments, upstream)
        self.loss(spec, logits, targets, **arguments)
        result: Result = self.compiled(spec, again)(logits, targets, arguments, upstream)
        return result

    def _step(
        self, spec: Any, again: bool, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any
    ) -> Result:
        with self.tf.GradientTape(persistent=again) as tape:
            tape.watch(logits)
            loss = self.loss(spec, logits, targets, **arguments)
        for _ in range(1 + again):
            gradient = tape.gradient(loss, logits, upstream)
        if gradient is None:
            raise TypeError("the loss does not depend on the logits")
        return loss, self.tf.convert_to_tensor(gradient)  # of a gather they are slices

    def _compiled(self, spec: Any, again: bool) -> Callable[..., Result]:
        step = partial(self._step, spec, again)
        return self.tf.function(step, jit_compile=self.variant == "xla", autograph=False)  # type: ignore[no-any-return]


class Keras(NumPy):
    """Keras 3; the variant is its backend, of which a process has one."""

    framework: ClassVar[str] = "keras"
    variants: ClassVar[tuple[str, ...]] = ("tensorflow", "torch", "jax")

    def __new__(cls, variant: str) -> Any:
        """Return the glue of the backend's own tensors, with Keras's loss."""
        variant = variant or os.environ.get("KERAS_BACKEND", "tensorflow")
        os.environ["KERAS_BACKEND"] = variant
        adapter = _adapter("keras")
        glues: dict[str, Any] = {"tensorflow": TensorFlow, "torch": Torch, "jax": Jax}
        glue = glues[variant]("")
        glue.loss = adapter.loss
        return glue


class Jax(NumPy):
    """JAX, compiled: 64 bits are enabled so that float64 can be handed in."""

    framework: ClassVar[str] = "jax"

    def __init__(self, variant: str) -> None:
        adapter = _adapter("jax")
        import jax

        jax.config.update("jax_enable_x64", True)
        self.jax, self.loss = jax, adapter.loss

    def decode(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        return self.jax.numpy.asarray(super().decode(data, dtype, shape))

    def lay(self, x: Any, layout: str) -> Any:
        return x

    def run(
        self, spec: Any, logits: Any, targets: Any, arguments: dict[str, Any], upstream: Any, again: bool = False
    ) -> Result:
        ones_like = self.jax.numpy.ones_like

        def function(logits: Any) -> Any:
            return self.loss(spec, logits, targets, **arguments)

        def step(logits: Any, upstream: Any) -> Result:
            loss, pullback = self.jax.vjp(function, logits)
            for _ in range(1 + again):
                (gradient,) = pullback(ones_like(loss) if upstream is None else upstream)
            return loss, gradient

        if not self.jax.numpy.issubdtype(logits.dtype, self.jax.numpy.floating):
            return function(logits), None
        # What is not traced is looked at while it is.
        result: Result = self.jax.jit(step)(logits, upstream)
        return result


GLUES: dict[str, type[Glue]] = {glue.framework: glue for glue in (NumPy, Torch, Chainer, CuPy, TensorFlow, Keras, Jax)}
# Of variants that are not their framework's.
OWN_GLUES: dict[str, type[Glue]] = {"torch:linear": Linear}


def available() -> list[str]:
    """Return every backend that can run here, each variant of a framework by itself.

    What compiles each case for longer than it computes, ``torch:compiled``, and what cannot be given every case,
    ``torch:linear``, are asked for by name.
    """
    named = [name for name in known() if not name.endswith((":compiled", ":linear"))]
    found = [name for name in named if importlib.util.find_spec(name.partition(":")[0])]
    return [name for name in found if not ("cuda" in name or name == "cupy") or _has_gpu(name.partition(":")[0])]


def _has_gpu(framework: str) -> bool:
    """Whether a framework has a GPU of NVIDIA's; it is imported only where a driver shows."""
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    module = importlib.import_module(framework)
    return bool(module.cuda.is_available() if framework == "torch" else module.is_available())


@dataclass(frozen=True, slots=True)
class Backend:
    """A glue with the versions that it runs on."""

    name: str
    glue: Glue
    versions: dict[str, str]
    takes_sample_weight: bool = True
    takes_validate: bool = True


def make_backend(name: str, framework: str | None = None) -> Backend:
    """Return a backend by name: ``torch``, ``torch:composite``, or ``package.module:function`` for a user's own loss.

    Raises
    ------
    ImportError
        The framework, or the user's module, cannot be imported.
    ValueError
        An unknown framework or variant, or a user's module that does not show its framework.
    """
    module, _, rest = name.partition(":")
    if module in GLUES:
        if rest not in GLUES[module].variants:
            raise ValueError(f"`backend` must be one of {', '.join(known())}; got {name!r}")
        glue = OWN_GLUES.get(name, GLUES[module])(rest)
        return Backend(name, glue, _versions(module))
    if not rest:
        raise ValueError(f"`backend` must be one of {', '.join(known())}, or module:function; got {name!r}")
    # At the end: a folder that happens to hold a `classweight` or a `torch` shadows nothing.
    sys.path.append("")
    owner = importlib.import_module(module)
    function: Any = owner
    for attribute in rest.split("."):
        function = getattr(function, attribute)
    return own_backend(name, function, framework or _framework_of(owner, name))


def own_backend(name: str, function: Callable[..., Any], framework: str) -> Backend:
    """Return a backend for a user's own ``loss(logits, targets, sample_weight=None)``."""
    if framework not in GLUES:
        raise ValueError(f"`framework` must be one of {', '.join(GLUES)}; got {framework!r}")
    glue = GLUES[framework]("")
    takes, validates = _takes_sample_weight(function), _takes_validate(function)

    def loss(spec: Any, logits: Any, targets: Any, sample_weight: Any = None, **arguments: Any) -> Any:
        if "validate" in arguments and not validates:
            raise NotRun("the loss has no argument `validate`")
        told = {name: value for name, value in arguments.items() if name == "validate"}
        return function(logits, targets, *([sample_weight] if takes else []), **told)

    glue.loss = loss
    return Backend(name, glue, _versions(framework), takes, validates)


def known() -> list[str]:
    """Return the name of every backend that has a glue."""
    return [f"{name}:{variant}" if variant else name for name, glue in GLUES.items() for variant in glue.variants]


def _framework_of(module: ModuleType, name: str) -> str:
    """Return the one framework that a module's global names come from; NumPy where there is none."""
    roots = {
        (value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))).partition(".")[0]
        for value in vars(module).values()
    }
    found = sorted(roots & (set(GLUES) - {"numpy"}))
    if len(found) > 1:
        raise ValueError(f"`framework` must be given for {name!r}, whose module imports {' and '.join(found)}")
    return found[0] if found else "numpy"


def _takes_sample_weight(function: Callable[..., Any]) -> bool:
    """Whether there is a third argument, but ``validate`` and ``weight``, PyTorch's word for class weights."""
    try:
        # A module of PyTorch takes *args and hands them to its forward.
        signature = inspect.signature(getattr(function, "forward", function))
        third = list(signature.bind(None, None, None).arguments)[2:]
    except (TypeError, ValueError):  # too few, or a builtin without a signature
        return False
    return third not in ([], ["weight"], ["validate"])


def _takes_validate(function: Callable[..., Any]) -> bool:
    """Whether there is an argument that says whether values are looked at."""
    try:
        return "validate" in inspect.signature(getattr(function, "forward", function)).parameters
    except (TypeError, ValueError):
        return False


def _versions(framework: str) -> dict[str, str]:
    names = dict.fromkeys((framework, "numpy"))
    versions = {name: str(importlib.import_module(name).__version__) for name in names}
    return {**versions, "python": ".".join(map(str, sys.version_info[:3]))}
