"""Chainer underneath: the array functions, the closed form as a function node, and a composite for double backprop."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from ...errors import missing_framework, refuse

try:
    import chainer
    import chainer.functions as F
except Exception as cause:  # no distutils on Python 3.12, no numpy.bool under NumPy 2: many ways to fail
    missing_framework("chainer", "chainer", cause, "on Python 3.11 with numpy<2")
from chainer import FunctionNode, Variable

from ...call import Call, prepare
from ...compute import closed_form, composite, cpu
from ...compute.arrays import Array, ArrayFunctions
from ...lowering import inside_of, lower, reduce, undivided

Operation = Callable[..., Any]


class Tracked:
    """A Variable that compares, as Variables do not: comparisons see the values, arithmetic is the graph's."""

    __array_ufunc__ = None  # so that NumPy and, by the priority, CuPy leave operators to this class
    __array_priority__ = 1000

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.variable, name)

    def __neg__(self) -> Tracked:
        return Tracked(-self.variable)


def _define_operators() -> None:
    def arithmetic(apply: Operation) -> Operation:
        return lambda a, b: Tracked(apply(_variable(a), _variable(b)))

    def comparison(compare: Operation) -> Operation:
        return lambda a, b: compare(_array(a), _array(b))

    for name in ("add", "sub", "mul", "truediv"):
        method = arithmetic(getattr(operator, name))
        setattr(Tracked, f"__{name}__", method)
        setattr(Tracked, f"__r{name}__", lambda a, b, method=method: method(b, a))
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Tracked, f"__{name}__", comparison(getattr(operator, name)))


def _variable(x: Any) -> Any:
    return x.variable if isinstance(x, Tracked) else x


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Tracked) else x


_define_operators()


class ChainerArrays(ArrayFunctions):
    """The array functions on tracked variables, and as they are on the arrays of NumPy or CuPy."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        for name in ("exp", "expm1", "log", "log1p", "reshape"):
            setattr(self, name, _either(getattr(self, name), getattr(F, name)))
        self.where = self._where

    def asarray(self, x: Any, like: Array, name: str) -> Array:
        if not isinstance(x, Variable):
            return super().asarray(x, like, name)
        tracked = x.requires_grad and x.dtype.kind == "f" and chainer.config.enable_backprop
        return Tracked(x) if tracked else x.array

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        return super().to_numpy(_array(x))

    def astype(self, x: Array, dtype: Any) -> Array:
        if not isinstance(x, Tracked):
            return super().astype(x, dtype)
        return x if x.dtype == dtype else Tracked(_Cast(self, dtype).apply((x.variable,))[0])

    def _where(self, condition: Array, x: Any, y: Any) -> Array:
        if not isinstance(x, Tracked) and not isinstance(y, Tracked):
            return self.xp.where(condition, x, y)
        dtype = (x if isinstance(x, Tracked) else y).dtype
        both = (v.variable if isinstance(v, Tracked) else self.xp.asarray(v, dtype=dtype) for v in (x, y))
        return Tracked(F.where(condition, *both))

    def broadcast_to(self, x: Array, like: Array) -> Array:
        return _either(self.xp.broadcast_to, F.broadcast_to)(x, like.shape)

    def expand_dims(self, x: Array, axis: int) -> Array:
        return Tracked(F.expand_dims(x.variable, axis)) if isinstance(x, Tracked) else super().expand_dims(x, axis)

    def sum(self, x: Array, axis: int | None = None) -> Array:
        if not isinstance(x, Tracked):
            return super().sum(x, axis)
        return Tracked(F.sum(x.variable, axis, keepdims=axis is not None))

    def argmax(self, x: Array, axis: int) -> Array:
        return super().argmax(_array(x), axis)

    def take(self, values: Array, index: Array) -> Array:
        return Tracked(values.variable[index]) if isinstance(values, Tracked) else super().take(values, index)

    def pick(self, x: Array, index: Array, axis: int) -> Array:
        if not isinstance(x, Tracked):
            return super().pick(x, index, axis)
        # Chainer has no differentiable take_along_axis.
        return self.sum(self.where(self.positions(x.shape[axis], axis, x) == index, x, 0.0), axis)

    def detach(self, x: Array) -> Array:
        return _array(x)


def _either(plain: Operation, tracked: Operation) -> Operation:
    def apply(x: Array, *arguments: Any) -> Array:
        return Tracked(tracked(x.variable, *arguments)) if isinstance(x, Tracked) else plain(x, *arguments)

    return apply


functions = lru_cache(ChainerArrays)
"""The array functions of a module: one object for each, since weights are cached there."""
_plain = lru_cache(ArrayFunctions)
"""The same for arrays alone, which costs a small batch less."""


class _Cast(FunctionNode):  # type: ignore[misc]
    """Convert to another type; between float64 and float16 the value, or the gradient, is rounded once on CuPy too."""

    def __init__(self, xp: ChainerArrays, dtype: Any) -> None:
        self.xp, self.dtype = xp, dtype

    def forward(self, inputs: Any) -> Any:
        self.back = inputs[0].dtype
        return (closed_form.round_once(self.xp, inputs[0], self.dtype),)

    def backward(self, indexes: Any, upstream: Any) -> Any:
        return _Cast(self.xp, self.back).apply(upstream)


def make_call(spec: Any, logits: Any, validate: bool | None, *arguments: Any) -> tuple[ChainerArrays, Call]:
    """Return the array functions and the checked call on plain logits; NumPy's values are looked at."""
    array = chainer.as_array(logits)
    if not isinstance(array, (np.ndarray, chainer.backends.cuda.ndarray)):
        refuse("logits", "be a Variable, or an array of NumPy or CuPy", type(array).__name__, error=TypeError)
    xp = functions(chainer.backend.get_array_module(array))
    if validate is None:
        validate = isinstance(array, np.ndarray)
    return xp, prepare(xp, spec, array, *arguments, check_values=validate)


def loss(xp: ChainerArrays, call: Call, logits: Any) -> Variable:
    """Return the loss in the logits' type: from the closed form, or where more than logits is asked, the composite."""
    z = chainer.as_variable(logits)
    weights = call.class_weight if isinstance(call.class_weight, tuple) else (call.class_weight,)
    if Tracked in map(type, (call.targets, call.sample_weight, *weights)):
        return _composite_loss(xp, call, z)
    return _Loss(xp, call, keep=z.requires_grad).apply((z,))[0]


def loss_parts(xp: ChainerArrays, call: Call, logits: Any) -> tuple[Variable, Variable]:
    """Return the sum over positions and the denominator of a mean (1 if there is none) in float64."""
    with np.errstate(all="ignore"):
        rows, denominator = _composite_rows(xp, call, chainer.as_variable(logits), parts=True)
        total = xp.sum(xp.astype(rows, xp.wide))
    if not isinstance(denominator, Tracked):
        denominator = xp.xp.asarray(1.0 if denominator is None else denominator, dtype=xp.wide)
    return tuple(chainer.as_variable(_variable(x)) for x in (total, denominator))


def _composite_rows(xp: ChainerArrays, call: Call, z: Variable, *, parts: bool = False) -> tuple[Array, Any]:
    inside = inside_of(xp, call.spec, call.logits.dtype)
    c = lower(xp, call, inside)
    of_rows = undivided(c) if parts else c
    rows = composite.rows(xp, call.spec, xp.astype(Tracked(z), inside), of_rows, xp.eps(call.logits), inside)
    return rows, c.denominator


def _composite_loss(xp: ChainerArrays, call: Call, z: Variable) -> Variable:
    with np.errstate(all="ignore"):
        value = reduce(xp, call, *_composite_rows(xp, call, z))
        return xp.astype(value, call.logits.dtype).variable


class _Loss(FunctionNode):  # type: ignore[misc]
    """The closed form. A reduced loss keeps its gradient from the forward, for an upstream gradient of 1.

    Another one scales it, once, where that is not a second rounding.
    """

    def __init__(self, xp: ChainerArrays, call: Call, *, keep: bool) -> None:
        self.xp, self.call, self.kept = xp, call, None
        self.closed_form: Operation = cpu.loss_and_grad
        if not xp.on_host:
            self.closed_form = partial(closed_form.loss_and_grad, _plain(xp.xp))
        self.native = call.logits.dtype == inside_of(xp, call.spec, call.logits.dtype)
        # On a device, whether the upstream gradient is 1 cannot be asked without a synchronisation.
        reduced = (self.native or xp.on_host) and call.spec.reduction != "none"
        self.keep = keep and reduced and chainer.config.enable_backprop

    def forward(self, inputs: Any) -> Any:
        self.retain_inputs((0,))
        with np.errstate(all="ignore"):
            value, self.kept = self.closed_form(self.call, gradient=self.keep)
        return (self.xp.xp.asarray(value),)

    def backward(self, indexes: Any, upstreams: Any) -> Any:
        (upstream,) = upstreams
        if chainer.config.enable_backprop:  # what this returns will be differentiated
            (z,) = self.get_retained_inputs()
            value = _composite_loss(self.xp, self.call, z)
            return chainer.grad([value], [z], [upstream], enable_double_backprop=True)
        gradient, self.kept = self.kept, None
        if gradient is None or not self.xp.on_host or upstream.array != 1:
            with np.errstate(all="ignore"):
                if gradient is not None and self.native:
                    gradient *= upstream.array
                else:
                    gradient = self.closed_form(self.call, upstream.array)[1]
        return (Variable(gradient, requires_grad=False),)
