"""What the clauses are written with: drafts of cases, the batch that most use, and completion by mpmath."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath import mp, mpf

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy, from_dict

from .budgets import LARGEST, budgets
from .cases import TypedArray, brief
from .floats import FORMATS
from .oracle import DIGITS, Truth, evaluate
from .refusals import refusal

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
# Clauses loop over fields' values, which no checker can tell from other strings.
Softmax: Any = SoftmaxCrossEntropy
Sigmoid: Any = SigmoidCrossEntropy

# One batch whose losses differ between the frameworks' habits, used wherever a clause needs no other.
Z = [[2, -1, 0.5], [0, 1, -2], [0.5, 0.5, 3], [-1, 2, 0]]
T = [0, 1, 2, 1]
W = (1.0, 2.0, 5.0)
S = [1, 0.5, 2, 0]
Y = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.25, 0.25]]
HOT = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
UPSTREAM = [0.5, -1.25, 2, 0.75]
NAN, INF = float("nan"), float("inf")

BOTH = (("float32", "native"), ("float32", "exact"))
DTYPES = ("float16", "bfloat16", "float32", "float64")
ALL = tuple((dtype, precision) for dtype in DTYPES for precision in ("native", "exact"))


@dataclass(frozen=True, slots=True)
class Draft:
    """A case without its numbers; ``error`` is the expected exception's class and parts of its message."""

    name: str
    spec: Spec | Mapping[str, Any]
    logits: TypedArray
    targets: TypedArray
    arguments: dict[str, Any]
    upstream: TypedArray | None
    flags: tuple[str, ...]
    error: tuple[str, ...] | None
    tier: str
    note: str | None
    source: str | None
    published: dict[str, Any] = field(default_factory=dict)
    layout: str | None = None
    again: bool = False
    before: TypedArray | None = None


def draft(
    name: str,
    spec: Spec | Mapping[str, Any],
    logits: Any,
    targets: Any,
    dtype: str = "float32",
    *,
    flags: tuple[str, ...] = (),
    upstream: Any = None,
    error: tuple[str, ...] | None = None,
    tier: str = "required",
    note: str | None = None,
    source: str | None = None,
    published: dict[str, Any] | None = None,
    layout: str | None = None,
    again: bool = False,
    before: Any = None,
    **arguments: Any,
) -> Draft:
    """Return a draft; logits, distributions and upstream take ``dtype``, indices int64, weights float32."""
    types = {"mask": "bool", "sample_weight": "float32", "class_weight": "float32"}
    return Draft(
        name,
        spec,
        _argument(logits, dtype),
        _targets(targets, dtype),
        {key: _argument(value, types.get(key)) for key, value in arguments.items()},
        None if upstream is None else _argument(upstream, dtype),
        flags,
        error,
        tier,
        note,
        source,
        published or {},
        layout,
        again,
        None if before is None else _targets(before, dtype),
    )


def _targets(values: Any, dtype: str) -> TypedArray:
    """Return class indices for integers, else a distribution of the logits' type."""
    if isinstance(values, TypedArray):
        return values
    return TypedArray.of(values, {"i": "int64", "b": "bool"}.get(np.asarray(values).dtype.kind, dtype))


def _argument(value: Any, dtype: str | None) -> Any:
    if isinstance(value, tuple):
        return tuple(_argument(item, dtype) for item in value)
    return value if dtype is None or isinstance(value, TypedArray) else TypedArray.of(value, dtype)


def floats(values: Any) -> npt.NDArray[np.float64]:
    """Return values as floats, so that they are a distribution and not indices."""
    return np.asarray(values, np.float64)


def uniform(seed: str, *shape: int, low: float = -4, high: float = 4) -> npt.NDArray[np.float64]:
    """Return numbers that every Python and NumPy draws the same."""
    draw = random.Random(seed).random
    return np.array([low + (high - low) * draw() for _ in range(int(np.prod(shape)))]).reshape(shape)


def across(*pairs: tuple[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a name's ending, a type, and the fields of a precision, for each type and precision."""
    for dtype, precision in pairs:
        yield f"{dtype}-{precision}", dtype, {"precision": precision}


def complete(clause: str, each: Draft) -> dict[str, Any]:
    """Return the case as it is written to a file.

    Raises
    ------
    AssertionError
        The draft contradicts the definition: an error where there is none, or a published number that it does not give.
    """
    spec = brief(each.spec) if isinstance(each.spec, Spec) else dict(each.spec)
    case: dict[str, Any] = {
        "id": f"{clause}-{each.name}",
        "clause": clause,
        "tier": each.tier,
        "flags": list(each.flags),
        **({"note": each.note} if each.note else {}),
        **({"source": each.source} if each.source else {}),
        "spec": spec,
        "logits": each.logits.to_json(),
        "targets": each.targets.to_json(),
        "arguments": {name: _argument_to_json(value) for name, value in each.arguments.items()},
        "upstream": None if each.upstream is None else each.upstream.to_json(),
        **({"layout": each.layout} if each.layout else {}),
        **({"again": True} if each.again else {}),
        **({"before": each.before.to_json()} if each.before else {}),
    }
    if not isinstance(each.spec, Spec):
        _check_spec_is_refused(case["id"], spec)
    else:
        found = refusal(each.spec, each.logits, each.targets, each.arguments)
        expected = each.error and each.error[:2]
        assert found == expected, f"{case['id']}: the draft expects {expected}, the definition {found}"
    if each.error:
        return {**case, "expected": {"error": {"type": each.error[0], "contains": list(each.error[1:])}}}
    assert isinstance(each.spec, Spec)
    numbers = expected_numbers(each.spec, each.logits, each.targets, each.arguments, each.upstream, each.published)
    budget = max(numbers.get("budget", {"loss": 0.0}).values())
    assert budget <= LARGEST, f"{case['id']}: a budget of {budget} ULP catches nothing"
    return {**case, **numbers}


def expected_numbers(
    spec: Spec,
    logits: TypedArray,
    targets: TypedArray,
    arguments: Mapping[str, Any],
    upstream: TypedArray | None,
    published: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of a case that mpmath gives: rule, budget, loss and gradient."""
    plain = {name: _plain(value) for name, value in arguments.items() if name != "validate"}
    truth = evaluate(
        spec,
        logits.values,
        targets.values,
        eps=FORMATS[logits.dtype].eps,
        upstream=None if upstream is None else upstream.values,
        **plain,
    )
    for name, value in (published or {}).items():
        _check_published(getattr(truth, name), value)
    rule = _rule(spec, logits, targets, plain)
    one_term = rule == "rounded"
    with mp.workdps(DIGITS):
        if one_term and not _is_size(truth.loss.ravel(), truth.loss_magnitude.ravel()):
            rule = "exact"  # rows of both signs, or weights of a denominator, cancel
    case: dict[str, Any] = {"rule": rule}
    if rule == "budget":
        loss, gradient = _budget(spec, logits)
        case["budget"] = {"loss": loss, "gradient": gradient}
    case["expected"] = {"loss": _numbers(truth.loss), "gradient": _numbers(truth.gradient)}
    for name, magnitude in _magnitudes(spec, rule, truth).items():
        if one_term and name == "gradient":
            continue
        case["expected"][name]["magnitude"] = [mp.nstr(x, 6) for x in magnitude.ravel()]
    return case


def _check_spec_is_refused(name: str, spec: dict[str, Any]) -> None:
    try:
        from_dict(spec)
    except (TypeError, ValueError):
        return
    raise AssertionError(f"{name}: the spec is valid")


def _argument_to_json(value: Any) -> Any:
    if isinstance(value, TypedArray):
        return value.to_json()
    return [_argument_to_json(item) for item in value] if isinstance(value, tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, TypedArray):
        return value.values
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _rule(spec: Spec, logits: TypedArray, targets: TypedArray, arguments: Mapping[str, Any]) -> str:
    if spec.precision == "native" or logits.dtype == "float64":
        return "budget"
    if spec.label_smoothing or spec.clip is not None:
        return "exact"
    if isinstance(spec, SoftmaxCrossEntropy):
        hard = len(targets.shape) < len(logits.shape) and spec.renormalize is None
        return "rounded" if hard else "exact"
    return "rounded" if np.all(np.isin(targets.values, (0, 1, spec.ignore_label or 0))) else "exact"


def _budget(spec: Spec, logits: TypedArray) -> tuple[float, float]:
    z = logits.values
    if isinstance(spec, SoftmaxCrossEntropy):
        z = np.moveaxis(z, 0 if z.ndim == 1 else spec.axis, -1)
    return budgets(z, logits.dtype, inputs=spec.inputs, softmax=isinstance(spec, SoftmaxCrossEntropy))


def _magnitudes(spec: Spec, rule: str, truth: Truth) -> dict[str, Any]:
    """Return what errors are measured against, where that is more than the numbers themselves."""
    if rule == "rounded":
        return {}
    whole_row = rule == "exact" and spec.inputs == "logits"
    found = {
        "loss": (truth.loss, truth.loss_magnitude),
        "gradient": (truth.gradient, truth.gradient_scale if whole_row else truth.gradient_magnitude),
    }
    return {name: size for name, (value, size) in found.items() if not _is_size(value.ravel(), size.ravel())}


def _is_size(values: Any, sizes: Any) -> bool:
    pairs = zip(values, sizes, strict=True)
    return all(mp.isnan(x) or mp.isinf(x) or abs(abs(x) - size) <= mpf("1e-20") * size for x, size in pairs)


def _numbers(values: Any) -> dict[str, Any]:
    return {"shape": list(values.shape), "values": [_decimal(x) for x in values.ravel()]}


def _decimal(x: Any) -> str:
    if mp.isnan(x):
        return "nan"
    if mp.isinf(x):
        return "inf" if x > 0 else "-inf"
    return "0" if x == 0 else str(mp.nstr(x, 30))


def _check_published(values: Any, published: Any) -> None:
    """Hold the definition against printed figures, strings, to their last digit."""
    for value, text in zip(values.ravel(), np.ravel(published), strict=True):
        digits = len(str(text).partition(".")[2])
        # A figure may be cut off instead of rounded.
        assert abs(value - mpf(str(text))) <= mpf(10) ** -digits, f"published {text}, defined {mp.nstr(value, 12)}"
