"""Chainer underneath: the array functions, the closed form as a function node, and the composite behind double backprop."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import missing_framework, refuse

try:
    import chainer
    import chainer.functions as F
except Exception as cause:  # an AttributeError under numpy 2, a ModuleNotFoundError on Python 3.12
    missing_framework("chainer", "chainer", cause)
from chainer import FunctionNode, Variable

from .. import closed_form, composite
from .._arrays import Array, ArrayFunctions
from ..call import Call, prepare
from ..lowering import lower, reduce


class Tracked:
    """A Variable whose comparisons give plain arrays, which Variables do not have; its arithmetic is the graph's."""

    __array_ufunc__ = None  # NumPy leaves operators to this class
    __array_priority__ = 1000  # and so does CuPy

    def __init__(self, variable: Any) -> None:
        self.variable = variable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.variable, name)

    def __neg__(self) -> Tracked:
        return Tracked(-self.variable)


def _variable(x: Any) -> Any:
    return x.variable if isinstance(x, Tracked) else x


def _array(x: Any) -> Any:
    return x.array if isinstance(x, Tracked) else x


def _install(name: str) -> None:
    arithmetic, comparison = getattr(operator, name, None), name in ("lt", "le", "gt", "ge", "eq", "ne")

    def forward(self: Tracked, other: Any) -> Any:
        if comparison:
            return arithmetic(self.array, _array(other))
        return Tracked(arithmetic(self.variable, _variable(other)))

    def backward(self: Tracked, other: Any) -> Any:
        return Tracked(arithmetic(other, self.variable))

    setattr(Tracked, f"__{name}__", forward)
    if not comparison:
        setattr(Tracked, f"__r{name}__", backward)


for _name in ("add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne"):
    _install(_name)
