"""Cases as data: arrays with exact numbers, the call, what it must give, and their JSON."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classweight.streams import read_json

from .floats import FORMATS, pack, round_once, unpack

# The types of the protocol, and the bytes of each.
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8} | {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int32": 4,
    "int64": 8,
}
MOST_AXES, LONGEST_AXIS = 32, 1 << 31
# No expected number is longer; an exponent of nine digits would be a number of as many.
DECIMAL = re.compile(r"[+-]?\d{1,60}(\.\d{1,60})?(e[+-]\d{1,4})?|[+-]?inf|nan")
VECTORS = Path(str(resources.files(__package__) / "vectors"))


@dataclass(frozen=True, slots=True)
class TypedArray:
    """An array in transit: the name of its type, and its values as float64, int64 or bool, which hold them exactly."""

    dtype: str
    values: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape as Python's ints."""
        return tuple(self.values.shape)

    @classmethod
    def of(cls, values: Any, dtype: str) -> TypedArray:
        """Round values to a type, or convert them to it."""
        if dtype in FORMATS:
            return cls(dtype, round_once(np.asarray(values, np.float64), 0.0, dtype))
        return cls(dtype, np.asarray(values).astype(np.bool_ if dtype == "bool" else np.int64))

    def to_json(self) -> dict[str, Any]:
        """Return the array with hex floats, for a file."""
        flat = self.values.ravel().tolist()
        data = [to_hex(x) for x in flat] if self.dtype in FORMATS else flat
        return {"dtype": self.dtype, "shape": list(self.shape), "data": data}

    def to_wire(self) -> dict[str, Any]:
        """Return the array with the base64 of its little-endian bytes, for a pipe."""
        data = base64.b64encode(pack(self.values, self.dtype)).decode()
        return {"dtype": self.dtype, "shape": list(self.shape), "data": data}

    @classmethod
    def from_json(cls, array: Mapping[str, Any]) -> TypedArray:
        """Read either form.

        Raises
        ------
        ValueError
            What is no array: an unknown type, a shape that is none, or data of another length than that of the shape.
        """
        if not isinstance(array, Mapping) or not array.keys() >= {"dtype", "shape", "data"}:
            raise ValueError("what has no dtype, shape and data")
        dtype, data = array["dtype"], array["data"]
        if not isinstance(dtype, str) or dtype not in BYTES:
            raise ValueError(f"the type {dtype!r:.80}")
        shape = _shape(array["shape"])
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else data
        bytes_each = BYTES[dtype] if isinstance(data, str) else 1
        if not isinstance(content, bytes | list) or len(content) != math.prod(shape) * bytes_each:
            raise ValueError(f"other data than {dtype} of shape {shape!s:.80} has")
        try:
            if isinstance(content, bytes):
                return cls(dtype, unpack(content, dtype, shape))
            if dtype in FORMATS:
                return cls(dtype, np.array([float.fromhex(x) for x in data], np.float64).reshape(shape))
            if not all(type(x) in (bool, int) for x in data):
                raise ValueError(f"other data than {dtype}")
            return cls(dtype, np.array(data, np.bool_ if dtype == "bool" else np.int64).reshape(shape))
        except (TypeError, OverflowError):
            raise ValueError(f"other data than {dtype} of shape {shape!s:.80}") from None


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(type(n) is int for n in shape):
        raise ValueError(f"the shape {shape!r:.80}")
    # A length of 0 makes any other harmless, but for NumPy, which counts what it cannot hold.
    if not all(0 <= n < LONGEST_AXIS for n in shape):
        raise ValueError(f"the shape {shape!r:.80}")
    return tuple(shape)


def to_hex(x: float) -> str:
    """Return a hex float without trailing zeros."""
    digits, exponent, power = float(x).hex().partition("p")
    return digits.rstrip("0").rstrip(".") + exponent + power if "." in digits else digits + exponent + power


@dataclass(frozen=True, slots=True)
class Exact:
    """Expected numbers as ``hi + lo``, good to 2**-95 or better, and what their error is measured against.

    ``magnitude`` is None where no terms cancel: then that is the number itself.
    """

    hi: npt.NDArray[np.float64]
    lo: npt.NDArray[np.float64]
    magnitude: npt.NDArray[np.float64] | None = None

    @classmethod
    def from_json(cls, expected: Mapping[str, Any]) -> Exact:
        """Read decimals of up to 60 digits before and after the point, and exponents of up to four."""
        shape = _shape(expected["shape"])
        for decimal in (*expected["values"], *(expected.get("magnitude") or ())):
            if not isinstance(decimal, str) or not DECIMAL.fullmatch(decimal):
                raise ValueError(f"{decimal!r:.80} is no decimal")
        hi = np.array([float(x) for x in expected["values"]], np.float64).reshape(shape)
        rest = [float(Fraction(x) - Fraction(float(x))) if np.isfinite(float(x)) else 0.0 for x in expected["values"]]
        magnitude = expected.get("magnitude")
        if magnitude is not None:
            magnitude = np.array([float(x) for x in magnitude], np.float64).reshape(shape)
        return cls(hi, np.array(rest, np.float64).reshape(shape), magnitude)


@dataclass(frozen=True, slots=True)
class ExpectedError:
    """The class of an exception, or of an ancestor, and parts of its message."""

    type: str
    contains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One call of a loss and what must come of it.

    ``rule`` says how numbers are judged: "rounded" and "exact" are (a) and (b) of exact precision, "budget" allows
    ``budget`` ULPs of the loss and of the gradient. ``layout`` is how arrays are to lie in memory, ``again`` whether
    the gradient is to be asked for a second time, ``before`` the targets of a call that is made first.
    """

    id: str
    clause: str
    spec: Mapping[str, Any]
    logits: TypedArray
    targets: TypedArray
    arguments: Mapping[str, Any] = field(default_factory=dict)
    upstream: TypedArray | None = None
    flags: tuple[str, ...] = ()
    tier: str = "required"
    rule: str = "budget"
    budget: tuple[float, float] = (0.5, 0.5)
    loss: Exact | None = None
    gradient: Exact | None = None
    error: ExpectedError | None = None
    layout: str | None = None
    again: bool = False
    before: TypedArray | None = None

    def request(self) -> dict[str, Any]:
        """Return the call as a worker gets it."""
        return {
            "id": self.id,
            "spec": dict(self.spec),
            "logits": self.logits.to_wire(),
            "targets": self.targets.to_wire(),
            "arguments": {name: _argument_to_wire(value) for name, value in self.arguments.items()},
            "upstream": None if self.upstream is None else self.upstream.to_wire(),
            **({"layout": self.layout} if self.layout else {}),
            **({"again": True} if self.again else {}),
            **({"before": self.before.to_wire()} if self.before else {}),
        }

    @classmethod
    def from_json(cls, case: Mapping[str, Any]) -> Case:
        """Read a case as it is in a file."""
        return cls.from_parts(
            case,
            TypedArray.from_json(case["logits"]),
            TypedArray.from_json(case["targets"]),
            {name: argument_from_json(value) for name, value in case["arguments"].items()},
            None if case["upstream"] is None else TypedArray.from_json(case["upstream"]),
        )

    @classmethod
    def from_parts(
        cls,
        case: Mapping[str, Any],
        logits: TypedArray,
        targets: TypedArray,
        arguments: Mapping[str, Any],
        upstream: TypedArray | None,
    ) -> Case:
        """Read a case whose arrays are there already."""
        expected, budget = case["expected"], case.get("budget", {"loss": 0.5, "gradient": 0.5})
        error = expected.get("error")
        return cls(
            case["id"],
            case["clause"],
            case["spec"],
            logits,
            targets,
            arguments,
            upstream,
            tuple(case["flags"]),
            case["tier"],
            case.get("rule", "budget"),
            (budget["loss"], budget["gradient"]),
            None if error else Exact.from_json(expected["loss"]),
            None if error else Exact.from_json(expected["gradient"]),
            ExpectedError(error["type"], tuple(error["contains"])) if error else None,
            case.get("layout"),
            case.get("again", False),
            TypedArray.from_json(case["before"]) if "before" in case else None,
        )


def _argument_to_wire(value: Any) -> Any:
    if isinstance(value, TypedArray):
        return value.to_wire()
    return [_argument_to_wire(item) for item in value] if isinstance(value, tuple) else value


def argument_from_json(value: Any) -> Any:
    """Read an argument of a call: an array, a pair of arguments, a number or False."""
    if isinstance(value, Mapping):
        return TypedArray.from_json(value)
    return tuple(map(argument_from_json, value)) if isinstance(value, list) else value


def brief(spec: Any) -> dict[str, Any]:
    """Return the dict of a spec without the fields that have their default, which `from_dict` does not need."""
    default = type(spec)().to_dict()
    keep = ("loss", "version")
    return {name: value for name, value in spec.to_dict().items() if name in keep or value != default[name]}


def load(folder: Path = VECTORS) -> Iterator[Case]:
    """Yield the cases of every clause."""
    for path in sorted(folder.glob("*.json")):
        yield from map(Case.from_json, read_json(path)["cases"])


def dump(clause: str, cases: Iterable[Mapping[str, Any]]) -> str:
    """Return a clause's file: one line a field, so that a change shows as one."""
    parts = []
    for case in cases:
        lines = ",\n  ".join(
            f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in case.items()
        )
        parts.append("{\n  " + lines + "\n}")
    body = ",\n".join(parts)
    return f'{{"$schema": "../schema.json", "clause": {json.dumps(clause)}, "cases": [\n{body}\n]}}\n'
