"""A failed case in words that need no knowledge of the suite: the call, what came, what should have, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from classweight import SoftmaxCrossEntropy, from_dict

from .cases import VECTORS, Case, TypedArray
from .floats import round_once
from .judge import Verdict, context

# Digits that tell any two float32 apart, and as many entries as fit on a screen.
PRINTED: dict[str, Any] = {"precision": 9, "threshold": 60, "max_line_width": 110}
LABEL = 14
# A loss that is off by less is rounded badly; one that is off by more may be another convention's.
ROUNDED = 1e-3
# A match is named if one of another origin would be so unlikely.
CHANCE = 1e-3


@cache
def flags() -> dict[str, str]:
    """Return what each flag guards against, with its public report."""
    return dict(json.loads((VECTORS.parent / "flags.json").read_text()))


def explain(case: Case, reply: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Return a failed case as a text: first what is wrong, then everything that it takes to see it again."""
    resemblance = [f"what it looks like\n  {text}" for text in looks_like(case, reply)]
    parts = (
        sentences(case, verdicts),
        resemblance,
        describe_call(case),
        came(case, reply),
        expected(case),
        why(case),
    )
    return "\n".join(line for part in parts for line in part)


def sentences(case: Case, verdicts: Sequence[Verdict]) -> list[str]:
    """Return what is wrong, without the call."""
    return [text.removesuffix(f" {context(case)}") for verdict in verdicts for text in verdict.failures]


def describe_call(case: Case, spec: bool = True) -> Iterator[str]:
    """Yield the lines that show the spec and each argument of the call."""
    yield "called with"
    if spec:
        yield f"  {'spec':{LABEL}}{_spec(case)}"
    arguments: dict[str, Any] = {"logits": case.logits, "targets": case.targets, **case.arguments}
    for name, value in arguments.items():
        yield from _array(name, value) if isinstance(value, TypedArray) else [f"  {name:{LABEL}}{value}"]
    if case.upstream is not None:
        yield from _array("upstream", case.upstream)
    if case.before is not None:
        yield from _array("before", case.before, ", the targets of a call before this one")


def _spec(case: Case) -> str:
    try:
        return repr(from_dict(case.spec))
    except (TypeError, ValueError):  # a case that such a spec is refused
        return json.dumps(dict(case.spec))


def _array(name: str, array: TypedArray, note: str = "") -> Iterator[str]:
    yield f"  {name:{LABEL}}{array.dtype} {array.shape}{note}"
    indent = " " * (LABEL + 2)
    yield indent + np.array2string(array.values, **PRINTED).replace("\n", f"\n{indent}")


def came(case: Case, reply: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show the reply."""
    if "crash" in reply:
        return
    yield "what came"
    if "error" in reply:
        yield f"  {reply['error']['type'][0]}: {reply['error']['message']}"
    for name in ("loss", "gradient"):
        if reply.get(name) is not None:
            yield from _array(name, TypedArray.from_json(reply[name]))


def expected(case: Case) -> Iterator[str]:
    """Yield the lines that show the truth, rounded, and how far from it is allowed; none for an error."""
    if case.error is None:
        yield "what was expected"
    for name, truth, budget in zip(("loss", "gradient"), (case.loss, case.gradient), case.budget, strict=True):
        if truth is not None:
            rounded = round_once(truth.hi, truth.lo, case.logits.dtype)
            bound = {"rounded": "correctly rounded", "exact": "correctly rounded, but for what cancels in float64"}
            allowed = bound.get(case.rule, f"within {budget:g} ULP")
            yield from _array(name, TypedArray(case.logits.dtype, rounded), f", {allowed}")


def looks_like(case: Case, reply: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a wrong loss is, if a framework's own convention would give it for this call."""
    shape = case.logits.shape
    if not reply.get("loss") or case.loss is None or not shape or not case.arguments.keys() <= {"sample_weight"}:
        return
    loss = TypedArray.from_json(reply["loss"])
    if loss.shape or not np.isfinite(loss.values) or np.isclose(loss.values, case.loss.hi, rtol=ROUNDED, atol=0):
        return
    from classweight.answers.identify import identify

    spec, arguments = from_dict(case.spec), {name: value.values for name, value in case.arguments.items()}
    if isinstance(spec, SoftmaxCrossEntropy):
        axis, kind, ignored = spec.axis if len(shape) > 1 else 0, "softmax", spec.ignore_index
    else:
        axis, kind, ignored = -1, "sigmoid", spec.ignore_label
    found = identify(
        float(loss.values),
        case.logits.values,
        case.targets.values,
        class_weight=spec.class_weight_values(shape[axis]),
        label_smoothing=spec.label_smoothing,
        ignore_index=ignored,
        axis=axis,
        kind=kind,
        inputs=spec.inputs,
        dtype=loss.dtype,
        **arguments,
    )
    if found.by_chance is not None and found.by_chance < CHANCE:
        for match in found.best[:1]:
            yield f"{'; '.join(match.changes or match.formulas[:1])}, as in {match.calls[0]}"


def why(case: Case) -> Iterator[str]:
    """Yield the lines that say which real losses fail such a case."""
    if case.flags:
        yield "what this case is there for"
        yield from (f"  {name}: {flags()[name]}" for name in case.flags)
