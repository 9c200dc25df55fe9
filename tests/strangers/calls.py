"""Calls that strangers might make: random arguments, right and wrong, for the public functions of every adapter.

A right call must give the number of the reference, a wrong one an error of one sentence that names what is wrong. The
calls of a seed are the same everywhere; ``CLASSWEIGHT_RANDOM_CALLS`` asks for more of them.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy
from classweight.conformance.backends import GLUES
from classweight.conformance.cases import TypedArray
from classweight.conformance.floats import FORMATS, pack, round_once, ulp, unpack
from classweight.reference import reference, sigmoid_terms, softmax_terms

SIGNED = True  # weights of either sign are valid
BLOCKS = 10
SHAPES = [(5, 4), (4, 3), (7,), (3, 5, 2), (2, 3, 2, 2), (6, 1), (0, 3), (1, 8), (20, 10)]
REDUCTIONS = ["none", "sum", *(f"mean_over_{what}" for what in ("weights", "valid", "positions", "batch", "nonzero"))]
# Roundings that a number may be made of, each of the size of the terms that it is a sum of.
ROUNDINGS = 16
# One sentence, which begins with an argument.
SENTENCE = re.compile(r"`(\w+)(\[\d+\])?` must .+")


@dataclass
class Call:
    """One call; ``wrong`` are the arguments that it must be refused for, of which an error names one.

    ``spec`` is what is handed in instead of one; with ``parts`` the parts of the loss are asked for, too.
    """

    kind: type
    fields: dict[str, Any]
    logits: Any
    targets: Any
    arguments: dict[str, Any] = field(default_factory=dict)
    upstream: Any = None
    wrong: set[str] = field(default_factory=set)
    spec: Any = None
    parts: bool = False

    def __str__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
        given = {"logits": self.logits, "targets": self.targets, **self.arguments, "upstream": self.upstream}
        lines = [f"{self.kind.__name__ if self.spec is None else self.spec}({fields})"]
        return "\n    ".join([*lines, *(f"{name} = {_shown(value)}" for name, value in given.items())])


def _shown(x: Any) -> str:
    if isinstance(x, TypedArray):
        return f"{x.dtype} {np.array2string(x.values, threshold=60).replace(chr(10), '')}"
    return str(tuple(map(_shown, x))) if isinstance(x, tuple) else repr(x)


class Chance:
    """A random generator with the few choices that calls are made of."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def rarely(self, of: int) -> bool:
        return bool(self.rng.integers(of) == 0)

    def eighths(self, shape: Any = (), *, signed: bool = False) -> Any:
        """Return numbers of few bits, whose sums and products are exact in any order, with zeros among them."""
        x = self.rng.integers(0, 25, shape) / 8 * (self.rng.random(shape) < 0.8)
        return x * self.rng.choice([-1, 1, 1], shape) if signed and SIGNED else x

    def prefix(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[: self.rng.integers(len(shape) + 1)]


def right_call(chance: Chance, dtypes: list[str]) -> Call:
    """Return a call that the definition has a number for."""
    pick, rng = chance.pick, chance.rng
    what = pick("index", "index", "distribution", "binary")
    shape = pick(*SHAPES)
    fields: dict[str, Any] = {
        "reduction": pick(*REDUCTIONS),
        "label_smoothing": pick(0, 0, 0.0, 0.125, 0.5, 1.0),
        "precision": pick("exact", "native"),
        "zero_denominator": pick("zero", "nan"),
        "inputs": pick("logits", "logits", "logits", "log_probs", "probs"),
    }
    if what == "binary":
        fields["average_outputs"] = shape[-1] in (1, 2, 4, 8) and pick(True, False)
        axis, positions = -1, shape[:-1] if fields["average_outputs"] else shape
    else:
        axis = int(rng.integers(-len(shape), len(shape)))
        while not shape[axis]:
            axis = int(rng.integers(-len(shape), len(shape)))
        fields["axis"] = axis
        axis = 0 if len(shape) == 1 else axis % len(shape)
        positions = shape[:axis] + shape[axis + 1 :]
    if fields["inputs"] == "probs":
        fields["clip"] = pick(None, None, 0.125, "dtype")
        if what != "binary":
            fields["renormalize"] = pick(None, "before", "after")
    dtype = pick(*dtypes)
    logits = TypedArray.of(_scores(chance, fields["inputs"], what, shape, axis), dtype)
    fill = _binary if what == "binary" else _softmax
    targets = fill(chance, what, fields, shape, axis, positions)
    call = Call(SigmoidCrossEntropy if what == "binary" else SoftmaxCrossEntropy, fields, logits, targets)
    if pick(True, False):
        weight = chance.eighths(chance.prefix(positions), signed=True)
        call.arguments["sample_weight"] = TypedArray.of(weight, pick("float16", "float32", "float64"))
    if pick(True, False):
        call.arguments["mask"] = TypedArray.of(rng.random(chance.prefix(positions)) < 0.7, "bool")
    if pick(True, False):
        weights = [chance.eighths(n, signed=True) for n in ([()] * 2 if what == "binary" else [shape[axis]])]
        arrays = tuple(TypedArray.of(weight, pick("float32", "float64")) for weight in weights)
        call.arguments["class_weight"] = arrays if what == "binary" else arrays[0]
    if fields["reduction"].startswith("mean") and chance.rarely(4):
        call.arguments["denominator"] = pick(0, 7.5, 4, -2.0, TypedArray.of(2.5, "float64"))
    if fields["reduction"] == "none" or pick(True, False):
        above = chance.eighths(positions if fields["reduction"] == "none" else (), signed=True)
        # 0 times the gradient of a row that has none is NaN, or 0 where nothing was multiplied.
        call.upstream = TypedArray.of(np.where(above == 0, 1, above), dtype)
    return call


def _scores(chance: Chance, inputs: str, what: str, shape: tuple[int, ...], axis: int) -> Any:
    rng = chance.rng
    if inputs == "logits":
        z = rng.normal(size=shape) * chance.pick(1, 8, 60) + chance.pick(0, 0, 1000)
        strange: list[float] = [np.inf, -np.inf, np.nan, -np.inf, 0]
    else:
        z = np.exp(rng.normal(size=shape))
        z = z / (z.sum(axis, keepdims=True) if what != "binary" else 1 + z)
        z = np.clip(z, 2.0**-10, 1)
        z = np.log(z) if inputs == "log_probs" else z
        strange = [0, -np.inf, -1, 0.5, np.nan] if inputs == "log_probs" else [0, 1, 0, 1, -0.25, 1.5, np.inf, np.nan]
    return np.where(rng.random(shape) < chance.pick(0, 0, 0, 0.02, 0.2), rng.choice(strange, shape), z)


def _softmax(
    chance: Chance, what: str, fields: dict[str, Any], shape: tuple[int, ...], axis: int, positions: tuple[int, ...]
) -> TypedArray:
    pick, rng, num_classes = chance.pick, chance.rng, shape[axis]
    weights = chance.eighths(num_classes, signed=True).tolist()
    fields["class_weight"] = pick(None, weights, dict(enumerate(weights)))
    if isinstance(fields["class_weight"], dict) and pick(True, False):
        fields["missing_class_weight"] = pick(1.0, 0, -0.5 if SIGNED else 0.5)
        fields["class_weight"].pop(int(rng.integers(num_classes)))
    fields["weighting"] = pick("term", "label", "expected")
    if what == "distribution":
        return TypedArray.of(chance.eighths(shape), pick("float16", "float32", "float64", "int64", "bool"))
    targets = rng.integers(0, num_classes, positions)
    fields["ignore_index"] = pick(None, -1, -100, num_classes - 1, num_classes)
    if fields["ignore_index"] is not None:
        targets = np.where(rng.random(positions) < 0.3, fields["ignore_index"], targets)
    return TypedArray.of(targets, pick("int64", "int32", "int8"))


def _binary(
    chance: Chance, what: str, fields: dict[str, Any], shape: tuple[int, ...], axis: int, positions: tuple[int, ...]
) -> TypedArray:
    pick, rng = chance.pick, chance.rng
    pair = [chance.eighths(pick((), shape[-1:]), signed=True).tolist() for _ in range(2)]
    fields["class_weight"] = pick(None, tuple(pair))
    fields["weighting"] = pick("term", "label")
    fields["ignore_label"] = pick(None, -1, 0)
    targets = pick(rng.integers(0, 2, shape), chance.eighths(shape) / 3)
    targets = np.round(8 * targets) / 8
    if fields["ignore_label"] is not None:
        targets = np.where(rng.random(shape) < 0.3, fields["ignore_label"], targets)
    whole = np.array_equal(targets, np.round(targets))
    return TypedArray.of(targets, pick(*(("int64", "float32", "int8") if whole else ("float32", "float64"))))


SPOILT_FIELDS: dict[str, list[Any]] = {
    "reduction": ["mean", None, 3],
    "label_smoothing": [-0.1, 1.5, np.nan, "a", [0.1]],
    "precision": ["half", None],
    "zero_denominator": [0, "one"],
    "inputs": ["scores", None],
    "clip": [-0.1, 0.7, np.nan, "eps"],
    "renormalize": ["during", True],
    "weighting": ["class", None],
    "class_weight": [[1, np.nan], [[[1.0]]], "balanced", [np.inf], {"a": 1}, 3.0, [1j]],
    "missing_class_weight": ["zero", np.nan, [1]],
    "axis": [1.5, "last", None, 9, -9],
    "ignore_index": [1.5, "none", [1]],
    "ignore_label": ["none", [1]],
    "average_outputs": ["yes", None],
}


def spoil(chance: Chance, call: Call) -> None:
    """Make a call wrong in one place."""
    softmax = call.kind is SoftmaxCrossEntropy
    spoilers: list[Callable[[Chance, Call], str]] = [_field, _field, _logits, _targets, _weights, _mask, _class_weight]
    chance.pick(*spoilers, _denominator, *([_index] * 3 if softmax else [_entry]), _spec, _entry)(chance, call)


def _wrong(call: Call, name: str, *also: str) -> None:
    call.wrong |= {name, *also}


def _spec(chance: Chance, call: Call) -> None:
    call.spec = chance.pick("mean", "None", "3")
    _wrong(call, "spec")


def _field(chance: Chance, call: Call) -> None:
    softmax = call.kind is SoftmaxCrossEntropy
    alone = {"average_outputs", "ignore_label"} if softmax else {
        "axis", "ignore_index", "missing_class_weight", "renormalize"
    }  # fmt: skip
    name = chance.pick(*(SPOILT_FIELDS.keys() - alone))
    call.fields[name] = chance.pick(*SPOILT_FIELDS[name])
    # A clip of logits, and a field of some other field, are told by either name.
    _wrong(call, name, *({"clip", "renormalize", "inputs"} if name in ("clip", "renormalize", "inputs") else ()))
    if name == "axis" and call.fields[name] in (9, -9) and len(call.logits.shape) == 1:
        call.fields[name] = "last"


def _logits(chance: Chance, call: Call) -> None:
    shape = call.logits.shape
    spoilt = [TypedArray("int64", np.ones(shape, np.int64)), TypedArray("bool", np.ones(shape, np.bool_))]
    if call.kind is SoftmaxCrossEntropy:
        axis = 0 if len(shape) == 1 else call.fields["axis"] % len(shape)
        empty = (*shape[:axis], 0, *shape[axis + 1 :])
        spoilt += [TypedArray.of(np.ones(empty), call.logits.dtype), TypedArray.of(1.0, call.logits.dtype)]
    call.logits = chance.pick(*spoilt, None, "text", [[1.0], [1.0, 2.0]])
    _wrong(
        call, "logits", "targets" if isinstance(call.logits, TypedArray) and not call.logits.values.size else "logits"
    )


def _targets(chance: Chance, call: Call) -> None:
    shape, dtype = call.targets.shape, call.targets.dtype
    spoilt: list[Any] = [TypedArray.of(np.ones((*shape, 9)), dtype), TypedArray.of(np.ones((11, *shape[1:])), dtype)]
    if call.kind is SoftmaxCrossEntropy and len(shape) < len(call.logits.shape):
        spoilt += [TypedArray.of(np.ones(shape), "float32")] * 2
    call.targets = chance.pick(*spoilt, None, "text", [[1], [1, 2]])
    _wrong(call, "targets")


def _weights(chance: Chance, call: Call) -> None:
    n = call.logits.shape[:1]
    nan = TypedArray.of(chance.pick(np.nan, np.inf, -np.inf), "float32")
    call.arguments["sample_weight"] = chance.pick(
        nan, TypedArray.of(np.ones((11, *n)), "float32"), "text", [[1], [1, 2]]
    )
    _wrong(call, "sample_weight")


def _mask(chance: Chance, call: Call) -> None:
    call.arguments["mask"] = chance.pick(TypedArray.of(1, "int64"), TypedArray.of(np.ones(11), "bool"), "text", 0.5)
    _wrong(call, "mask")


def _class_weight(chance: Chance, call: Call) -> None:
    spoilt = [TypedArray.of(np.ones(11), "float32"), "text", TypedArray.of(np.ones((2, 11)), "float32")]
    if call.kind is SoftmaxCrossEntropy:
        axis = 0 if len(call.logits.shape) == 1 else call.fields["axis"]
        values = np.ones(call.logits.shape[axis])
        values[-1] = chance.pick(np.nan, np.inf)
        spoilt.append(TypedArray.of(values, "float64"))
    else:
        spoilt += [TypedArray.of(np.ones(2), "float32"), (1.0, 2.0, 3.0), (TypedArray.of(np.nan, "float32"), 1.0)]
    call.arguments["class_weight"] = chance.pick(*spoilt)
    _wrong(call, "class_weight")


def _denominator(chance: Chance, call: Call) -> None:
    mean = call.fields["reduction"].startswith("mean")
    spoilt = [np.nan, np.inf, "2", True, TypedArray.of(np.ones(2), "float64"), 10**400]
    call.arguments["denominator"] = chance.pick(*spoilt) if mean else chance.pick(*spoilt, 2.0)
    _wrong(call, "denominator")


def _index(chance: Chance, call: Call) -> None:
    """Put a class index out of range where it counts, or ``ignore_index`` beside distributions."""
    targets, shape = call.targets, call.logits.shape
    if len(targets.shape) == len(shape):
        call.fields["ignore_index"] = 0
        _wrong(call, "ignore_index")
    elif targets.values.size:
        num_classes = shape[0 if len(shape) == 1 else call.fields["axis"]]
        wrong = [index for index in (-1, -2, num_classes, num_classes + 1, 100) if index != call.fields["ignore_index"]]
        _place(chance, call, chance.pick(*wrong))


def _entry(chance: Chance, call: Call) -> None:
    """Put a number that is no share into distributions, or binary targets, where it counts."""
    targets = call.targets
    if len(targets.shape) == len(call.logits.shape) and targets.values.size and targets.dtype in FORMATS:
        _place(chance, call, chance.pick(np.nan, np.inf, -0.5))


def _place(chance: Chance, call: Call, value: float) -> None:
    values = call.targets.values.copy()
    values.reshape(-1)[chance.rng.integers(values.size)] = value
    call.targets = TypedArray(call.targets.dtype, values)
    call.arguments.pop("mask", None)
    _wrong(call, "targets")


def random_call(seed: int, dtypes: list[str]) -> Call:
    """Return the call of a seed, of which more than a third are wrong."""
    chance = Chance(seed)
    call = right_call(chance, dtypes)
    if chance.pick(False, False, False, True, True):
        spoil(chance, call)
    call.parts = "denominator" not in call.arguments and chance.rarely(2)
    call.arguments["validate"] = chance.pick(None, True) if call.wrong else chance.pick(None, True, False)
    return call


class Adapter:
    """The public functions of one adapter, called as the calls say."""

    # On a device values are looked at only where that is asked for.
    must_ask = False

    def __init__(self, backend: str, dtypes: list[str] | None = None, module: Any = None) -> None:
        framework, _, variant = backend.partition(":")
        self.glue = GLUES[framework](variant)
        self.module = module or importlib.import_module(f"classweight.adapters.{framework}")
        self.dtypes = dtypes or list(FORMATS)

    def native(self, x: Any) -> Any:
        if isinstance(x, TypedArray):
            return self.glue.decode(pack(x.values, x.dtype), x.dtype, x.shape)
        return tuple(map(self.native, x)) if isinstance(x, tuple) else x

    def check(self, seed: int) -> None:
        """Make the call of a seed, and demand a right number or one clear error."""
        call = random_call(seed, self.dtypes)
        try:
            self._check(call)
        except AssertionError as problem:
            raise AssertionError(f"call {seed}: {problem}\n{call}") from None
        except Exception as problem:
            raise AssertionError(f"call {seed}: {type(problem).__name__}: {problem}\n{call}") from problem

    def _check(self, call: Call) -> None:
        arguments = {name: self.native(value) for name, value in call.arguments.items()}
        if call.wrong:
            if self.must_ask:
                arguments["validate"] = True
            functions = {
                name: getattr(self.module, name) for name in ("loss", "loss_and_grad") if hasattr(self.module, name)
            }
            for name, function in functions.items():
                self._refused(call, name, function, arguments)
            if call.parts:
                self._refused(call, "loss_parts", self.module.loss_parts, arguments)
            return
        spec = call.kind(**call.fields)
        logits, targets, upstream = map(self.native, (call.logits, call.targets, call.upstream))
        truth = Truth(spec, call)
        value, gradient = self.glue.run(spec, logits, targets, dict(arguments), upstream)
        truth.check("loss", self.glue.encode(value), truth.loss, truth.loss_size)
        truth.check("gradient", self.glue.encode(gradient), truth.gradient, truth.gradient_size)
        if call.parts:
            numerator, denominator = self.module.loss_parts(spec, self.native(call.logits), targets, **arguments)
            number = (float(getattr(part, "array", part)) for part in (numerator, denominator))  # Chainer has Variables
            truth.check_parts(call, *number)

    def _refused(self, call: Call, name: str, function: Any, arguments: dict[str, Any]) -> None:
        try:
            spec = call.kind(**call.fields) if call.spec is None else call.spec
            found = function(spec, self.native(call.logits), self.native(call.targets), **arguments)
        except (TypeError, ValueError) as error:
            message = str(error)
        else:
            raise AssertionError(f"{name} is {found}, but should be refused for {call.wrong}")
        sentence = SENTENCE.fullmatch(message)
        assert sentence, f"{name} says {message}"
        assert sentence[1] in call.wrong, f"{name} blames another argument than {call.wrong}: {message}"


class Truth:
    """What the reference says of a right call, and the size of the terms that each number is a sum of."""

    def __init__(self, spec: Any, call: Call) -> None:
        self.dtype = FORMATS[call.logits.dtype]
        self.name = call.logits.dtype
        eps = self.dtype.eps
        self.eps = 2.0**-52 if spec.precision == "exact" or self.name == "float64" else 2.0**-23
        if spec.clip == "dtype":  # the reference knows no bfloat16
            spec = replace(spec, clip=eps)
        self.spec = spec
        given = {name: _values(value) for name, value in call.arguments.items() if name != "validate"}
        up = 1.0 if call.upstream is None else call.upstream.values
        z, t = call.logits.values, call.targets.values
        self.loss, self.gradient = reference(spec, z, t, upstream=up, **given)
        rows, slopes, axis = _sizes(spec, z, t, given)
        # What a mean divides by, and what a row's gradient is multiplied by.
        scale, self.mean = np.asarray(up, np.float64), spec.reduction.startswith("mean")
        self.numerator_size = _finite(rows).sum()
        self.denominator = self.denominator_of(spec, z, t, given) if self.mean else 1.0
        by = 1 / abs(self.denominator) if self.denominator else 0.0
        self.loss_size = rows if spec.reduction == "none" else self.numerator_size * by
        scale = np.broadcast_to(np.abs(scale) * by, rows.shape)
        self.gradient_size = slopes * (scale if scale.ndim == slopes.ndim else np.expand_dims(scale, axis))

    @staticmethod
    def denominator_of(spec: Any, z: Any, t: Any, given: dict[str, Any]) -> float:
        """Return what the reference divides by."""
        if given.get("denominator") is not None:
            return float(given["denominator"])
        if isinstance(spec, SoftmaxCrossEntropy):
            axis, hard = 0 if z.ndim == 1 else spec.axis, t.ndim < z.ndim
            zeros, target = np.moveaxis(np.zeros(z.shape), axis, -1), t if hard else np.moveaxis(t, axis, -1)
            _, weights, valid = softmax_terms(spec, zeros, target, hard, *_given(given))
        else:
            _, _, weights, valid = sigmoid_terms(spec, z, t, *_given(given))
        return float(
            {
                "mean_over_weights": weights.sum(),
                "mean_over_valid": valid.sum(),
                "mean_over_positions": valid.size,
                "mean_over_batch": (*valid.shape, 1)[0],
                "mean_over_nonzero": np.count_nonzero(weights),
            }[spec.reduction]
        )

    def check(self, what: str, found: tuple[bytes, str, tuple[int, ...]], expected: Any, size: Any) -> None:
        data, dtype, shape = found
        assert (dtype, shape) == (self.name, expected.shape), f"{what} is {dtype} {shape}"
        values = unpack(data, dtype, shape)
        rounded = round_once(expected, 0.0, dtype)
        step = ulp(expected, dtype)
        # A number below the smallest normal one may be flushed, and what it is made of before.
        bound = ROUNDINGS * self.eps * np.maximum(size, np.abs(expected)) + step + self.dtype.smallest_normal * 2.0**-10
        bound = bound + FORMATS["float32"].smallest_normal * (1 + size) * 64
        flushed = (values == 0) & (np.abs(expected) < self.dtype.smallest_normal)
        with np.errstate(invalid="ignore"):
            same = (values == rounded) | (np.isnan(values) & np.isnan(expected)) | flushed
            near = np.isfinite(expected) & (np.abs(values - expected) <= bound)
            # What overflows by a rounding may as well not.
            near |= np.isfinite(expected) & np.isinf(values) & (np.abs(expected) + bound > self.dtype.largest)
            near |= np.isinf(rounded) & (np.abs(expected) - bound <= self.dtype.largest) & (values != 0)
        bad = np.argwhere(~(same | near))
        if len(bad):
            index = tuple(bad[0].tolist())
            raise AssertionError(
                f"{what}{list(index)} is {values[index]!s}, but should be {expected[index]!s} within {bound[index]!s}"
            )

    def check_parts(self, call: Call, numerator: float, denominator: float) -> None:
        """Numerator and denominator are in float64, of losses that are not."""
        given = {name: _values(value) for name, value in call.arguments.items() if name != "validate"}
        total = replace(self.spec, reduction="sum")
        expected = float(reference(total, call.logits.values, call.targets.values, **given)[0])
        bound = ROUNDINGS * self.eps * self.numerator_size + FORMATS["float32"].smallest_normal
        close = abs(numerator - expected) <= bound or np.array_equal(numerator, expected, equal_nan=True)
        assert close, f"the numerator is {numerator}, but should be {expected} within {bound}"
        if self.mean:
            assert denominator == self.denominator, (
                f"the denominator is {denominator}, but should be {self.denominator}"
            )


def _given(given: dict[str, Any]) -> tuple[Any, Any, Any]:
    return given.get("sample_weight"), given.get("class_weight"), given.get("mask")


def _values(x: Any) -> Any:
    if isinstance(x, TypedArray):
        return x.values
    return tuple(map(_values, x)) if isinstance(x, tuple) else x


def _finite(x: Any) -> Any:
    return np.where(np.isfinite(x), x, 0.0)


def _absolute(weights: Any) -> Any:
    """Return class weights of a spec, or of a call, without their signs."""
    if weights is None:
        return None
    if isinstance(weights, dict):
        return {key: abs(weight) for key, weight in weights.items()}
    return tuple(np.abs(w) for w in weights) if isinstance(weights, tuple) else np.abs(weights)


def _sizes(spec: Any, z: Any, t: Any, arguments: dict[str, Any]) -> tuple[Any, Any, int]:
    """Return the sizes of each row's loss and of each entry's gradient, and the class axis."""
    s, w, mask = _given(arguments)
    s, w = _absolute(s), _absolute(w)
    with np.errstate(all="ignore"):
        if isinstance(spec, SoftmaxCrossEntropy):
            axis = 0 if z.ndim == 1 else spec.axis
            z = np.moveaxis(z, axis, -1)
            if w is None:
                held = spec.class_weight_values(z.shape[-1])
                w = None if held is None else np.abs(np.array(held))
            hard = t.ndim < z.ndim
            a, _, _ = softmax_terms(spec, z, t if hard else np.moveaxis(t, axis, -1), hard, s, w, mask)
            rows, slopes = _softmax_sizes(spec, z, a)
            return rows, np.moveaxis(slopes, -1, axis), axis
        held = None if spec.class_weight is None else tuple(np.abs(np.asarray(x)) for x in spec.class_weight)
        pos, neg, _, _ = sigmoid_terms(replace(spec, class_weight=None), z, t, s, w or held, mask)
        rows, slopes = _sigmoid_sizes(spec, z, pos, neg)
        return (rows.sum(-1) if spec.average_outputs else rows), slopes, -1


def _softmax_sizes(spec: Any, z: Any, a: Any) -> tuple[Any, Any]:
    total = a.sum(-1, keepdims=True)
    if spec.inputs == "log_probs":
        return (a * np.abs(_finite(z))).sum(-1), a
    if spec.inputs == "logits":
        gap = z.max(-1, keepdims=True) - z
        q = np.exp(-gap)
        # An exponent's own rounding is as large as the exponent.
        return (a * (1 + _finite(gap))).sum(-1), _finite(total * q / q.sum(-1, keepdims=True) * (1 + _finite(gap)) + a)
    first = spec.renormalize == "before" or (spec.renormalize == "after" and spec.clip is None)
    before = np.abs(_finite(z)).sum(-1, keepdims=True) if first else 1.0
    p = np.abs(z / before)
    u = p if spec.clip is None else np.clip(p, spec.clip, 1 - spec.clip)
    rows = (a * (1 + np.abs(_finite(np.log(u))))).sum(-1)
    slopes = np.where(a == 0, 0.0, a / u) + total
    if first:
        slopes = (slopes + (slopes * p).sum(-1, keepdims=True)) / before
    return rows, _finite(slopes)


def _sigmoid_sizes(spec: Any, z: Any, pos: Any, neg: Any) -> tuple[Any, Any]:
    if spec.inputs == "logits":
        return pos * _finite(np.logaddexp(0, -z)) + neg * _finite(np.logaddexp(0, z)), pos + neg
    p = np.exp(z) if spec.inputs == "log_probs" else z
    u = np.abs(p) if spec.clip is None else np.clip(p, spec.clip, 1 - spec.clip)
    v = np.abs(1 - u)
    rows = pos * np.abs(_finite(np.log(u))) + neg * (np.abs(_finite(np.log(v))) + _finite(u / v))
    slopes = pos * (1 if spec.inputs == "log_probs" else _finite(1 / u)) + neg * _finite((1 + u / v) / v)
    return rows, slopes


def blocks(number: int) -> Any:
    """Return the parameters of a test: seeds in a few blocks, ``number`` in all, or as many as are asked for."""
    number = int(os.environ.get("CLASSWEIGHT_RANDOM_CALLS", number))
    seeds = [range(number * i // BLOCKS, number * (i + 1) // BLOCKS) for i in range(BLOCKS)]
    return pytest.mark.parametrize("seeds", seeds, ids=lambda seeds: f"{seeds.start}-{seeds.stop}")
