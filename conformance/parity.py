"""Losses of several frameworks, given the same batches and held against each other in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from classweight.errors import refuse
from classweight.spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

from .assertions import Findings
from .cases import Case, TypedArray, to_hex
from .floats import Float, ulp

__all__ = ["assert_parity"]

Spec = SoftmaxCrossEntropy | SigmoidCrossEntropy
Reply = Mapping[str, Any]
Ask = Callable[[Mapping[str, Any]], dict[str, Any]]
# Entries that a text names.
NAMED = 3


def assert_parity(
    losses: Mapping[str, Callable[..., Any] | str],
    spec: Spec | None = None,
    *,
    targets: Literal["index", "distribution", "binary"] = "index",
    num_classes: int | None = None,
    positions: Sequence[int] = (),
    dtypes: Sequence[str] = ("float32", "float64"),
    ulps: float | None = None,
    known: Iterable[str] = (),
) -> None:
    """Hold losses ``loss(logits, targets, sample_weight=None)`` against each other, in value, gradient, type and shape.

    All get the same batches, random ones and those that real losses have got wrong. Sample weights are handed to them
    only if all take them. Needs mpmath.

    Parameters
    ----------
    losses : mapping of str to callable or str
        By framework; of two from one framework, a key has a hyphen and a name after it, such as "torch-compiled". A
        loss that cannot live in this process is named as ``"package.module:function@/path/to/python"``.
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy, optional
        What all of them are meant to compute: each is then judged by the definition, as `assert_conforms` does.
    targets : "index", "distribution" or "binary"
        What they take.
    num_classes : int, optional
        The length of the class axis. Default: what the spec's class weights say, else 5, or 3 outputs.
    positions : sequence of int
        Lengths of the axes beside the batch and the classes.
    dtypes : sequence of str
        Types of the logits.
    ulps : float, optional
        How many ULPs of the logits' type two of them may be apart; a softmax gradient's are of the largest entry of its
        row. Default: with a spec what the definition allows each, without one what native precision allows two.
    known : iterable of str
        Glob patterns of cases that are expected to fail, such as ``"own-confident-*"``.

    Raises
    ------
    AssertionError
        A case failed that was not expected to, or passed that was. The text shows the first one whole.
    ValueError
        Fewer than two losses, or an unknown framework.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.numpy as cwn
    >>> from classweight.conformance import assert_parity
    >>> native, exact = (cw.SoftmaxCrossEntropy(precision=precision) for precision in ("native", "exact"))
    >>> assert_parity({
    ...     "numpy": lambda z, t, s=None: cwn.loss_and_grad(native, z, t, s),
    ...     "numpy-exact": lambda z, t, s=None: cwn.loss_and_grad(exact, z, t, s),
    ... })
    """
    from .own import cases_for

    __tracebackhide__ = True
    if len(losses) < 2:
        refuse("losses", "hold two or more", f"{len(losses)}")
    findings = Findings("parity", known)
    with ExitStack() as stack:
        asks, take_sample_weight = _start(losses, stack)
        cases = cases_for(
            spec or (SigmoidCrossEntropy() if targets == "binary" else SoftmaxCrossEntropy()),
            targets="index" if targets == "binary" else targets,
            sample_weight=take_sample_weight,
            # Without a spec nobody knows the shape of the loss, and a NumPy loss may come with its gradient.
            upstream=spec is not None and "numpy" not in map(_framework, losses),
            num_classes=num_classes,
            positions=positions,
            dtypes=dtypes,
        )
        cases = [case for case in cases if spec is not None or case.error is None]
        for case in cases:
            replies = {name: ask(case.request()) for name, ask in asks.items()}
            wrong = [text for name, reply in replies.items() for text in _judged(case, name, reply, spec)]
            if (spec is None or ulps is not None) and all(reply.get("loss") for reply in replies.values()):
                wrong += [text for pair in pairwise(replies) for text in _apart(case, pair, replies, ulps)]
            if findings.add(case.id, wrong=bool(wrong)):
                findings.text = _explain(case, wrong, spec, replies)
    what = f"{', '.join(losses)} are not " + ("one loss" if spec is None else f"all {spec}")
    findings.check(what, len(cases))


def _framework(name: str) -> str:
    return name.partition("-")[0]


def _start(losses: Mapping[str, Callable[..., Any] | str], stack: ExitStack) -> tuple[dict[str, Ask], bool]:
    """Return what runs a case on each loss, and whether all take sample weights."""
    from .backends import own_backend
    from .client import Worker
    from .worker import answer

    asks: dict[str, Ask] = {}
    take = True
    for name, loss in losses.items():
        if isinstance(loss, str):
            worker = stack.enter_context(Worker(loss, framework=_framework(name)))
            asks[name] = worker.ask
            take = take and worker.hello["sample_weight"]
        else:
            backend = own_backend(name, loss, _framework(name))
            asks[name] = partial(answer, backend)
            take = take and backend.takes_sample_weight
    return asks, take


def _judged(case: Case, name: str, reply: Reply, spec: Spec | None) -> Iterator[str]:
    """Yield what is wrong with one result: by the definition, or because there is none."""
    from .explain import sentences
    from .judge import judge

    if "not_run" in reply:
        refuse("dtypes", f"be types that {name} has", reply["not_run"])
    if spec is not None or not reply.get("loss"):
        yield from (f"{name}'s {sentence}" for sentence in sentences(case, judge(case, reply)))


def _apart(case: Case, names: tuple[str, str], replies: Mapping[str, Reply], ulps: float | None) -> Iterator[str]:
    """Yield where two losses, or their gradients, are further apart than is allowed."""
    for column, budget in zip(("loss", "gradient"), case.budget, strict=True):
        results = {name: TypedArray.from_json(array) for name in names if (array := replies[name][column])}
        if len(results) == 2:
            yield from _differences(case, column, results, 2 * budget if ulps is None else ulps)


def _differences(case: Case, column: str, results: Mapping[str, TypedArray], allowed: float) -> Iterator[str]:
    a, b = results.values()
    for what in ("dtype", "shape"):
        if getattr(a, what) != getattr(b, what):
            yield f"{column}'s {what} is {' and '.join(f'{getattr(x, what)} in {name}' for name, x in results.items())}"
            return
    distance = _distance(case, column, a.values, b.values)
    wrong = np.argwhere(~(distance <= allowed))
    for index in map(tuple, wrong[:NAMED].tolist()):
        where = f"{column}[{', '.join(map(str, index))}]" if index else column
        numbers = [f"{x.values[index]!s} ({to_hex(x.values[index])}) in {name}" for name, x in results.items()]
        yield f"{where} is {' and '.join(numbers)}: {distance[index]:.3g} ULP apart; {allowed:g} allowed"
    if len(wrong) > NAMED:
        yield f"{column}: {len(wrong) - NAMED} more of {a.values.size} differ"


def _distance(case: Case, column: str, a: Float, b: Float) -> Float:
    """Return how far apart two results are, in ULPs; a NaN is as far from a number as can be."""
    with np.errstate(invalid="ignore"):
        size = np.where(np.isfinite(a), np.abs(a), 0), np.where(np.isfinite(b), np.abs(b), 0)
        largest = np.maximum(*size)
        if column == "gradient" and case.spec["loss"] == "SoftmaxCrossEntropy" and a.size:
            # Its entries are A q - a: what cancels in one is as large as the row's largest.
            axis = case.spec.get("axis", 1)
            largest = np.broadcast_to(largest.max(axis, keepdims=True), a.shape)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        distance = np.abs(a - b) / ulp(largest, case.logits.dtype)
    return np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))


def _explain(case: Case, wrong: Sequence[str], spec: Spec | None, replies: Mapping[str, Reply]) -> str:
    from .explain import describe_call, looks_like, why

    # Without a spec nobody knows the class weights that a convention would have to be tried with.
    each = replies.items() if spec is not None else ()
    resemblances = [f"{name} looks like {found}" for name, reply in each for found in looks_like(case, reply)]
    return "\n".join([*wrong, *resemblances, *describe_call(case, spec is not None), *why(case)])
