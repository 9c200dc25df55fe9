"""A loss of one's own, held against a spec in a test."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from classweight.errors import refuse
from classweight.spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = ["assert_conforms"]


def assert_conforms(
    loss: Callable[..., Any],
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    framework: str,
    *,
    targets: Literal["index", "distribution"] = "index",
    positions: Sequence[int] = (),
    dtypes: Sequence[str] = ("float32", "float64"),
    known: Iterable[str] = (),
) -> None:
    """Hold ``loss(logits, targets, sample_weight=None)`` against a spec: values, gradients, types, shapes, a bad index.

    A loss without a third argument is called without, and so is one whose third argument is called ``weight``. A NumPy
    loss returns ``(loss, gradient)``, or the loss alone. One with an argument ``validate`` must give NaN for a bad
    index where that is False. Needs mpmath.

    Parameters
    ----------
    loss : callable
        On native arrays.
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
        What it is meant to compute.
    framework : str
        "torch", "tensorflow", "keras", "jax", "chainer", "cupy" or "numpy".
    targets : "index" or "distribution"
        What a softmax loss takes.
    positions : sequence of int
        Lengths of the axes beside the batch and the classes, such as (4, 4) for maps of labels.
    dtypes : sequence of str
        Types of the logits: "float16", "bfloat16", "float32", "float64".
    known : iterable of str
        Glob patterns of cases that are expected to fail, such as ``"own-confident-*"``.

    Raises
    ------
    AssertionError
        A case failed that was not expected to, or passed that was. The text shows the first one whole.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.numpy as cwn
    >>> from classweight.conformance import assert_conforms
    >>> spec = cw.SoftmaxCrossEntropy(class_weight=[1, 2, 5], precision="exact")
    >>> assert_conforms(lambda z, t, s=None: cwn.loss_and_grad(spec, z, t, s), spec, "numpy")
    """
    from .backends import own_backend
    from .explain import explain
    from .judge import judge
    from .own import cases_for
    from .worker import answer

    __tracebackhide__ = True  # the text says it all
    name = getattr(loss, "__name__", type(loss).__name__)
    backend, findings = own_backend(name, loss, framework), Findings(name, known)
    cases = cases_for(
        spec,
        targets=targets,
        sample_weight=backend.takes_sample_weight,
        upstream=framework != "numpy",
        validate=backend.takes_validate,
        positions=positions,
        dtypes=dtypes,
    )
    for case in cases:
        reply = answer(backend, case.request())
        if "not_run" in reply:
            refuse("dtypes", f"be types that {framework} has", reply["not_run"])
        verdicts = judge(case, reply)
        if findings.add(case.id, wrong=any(verdict.failures for verdict in verdicts)):
            findings.text = explain(case, reply, verdicts)
    findings.check(f"{name} is not {spec}", len(cases))


class Findings:
    """What the cases of an assertion came to; ``text`` explains the first that failed."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        from .runner import KnownFailures

        self.name, self.known, self.text = name, KnownFailures(known), ""
        self.failed: list[str] = []
        self.passed: list[str] = []

    def add(self, case: str, *, wrong: bool) -> bool:
        """Note a case, and return whether it is the first that failed and was not expected to."""
        expected = self.known.match(self.name, case)
        if wrong and not expected:
            self.failed.append(case)
            return len(self.failed) == 1
        if expected and not wrong:
            self.passed.append(case)
        return False

    def check(self, what: str, cases: int) -> None:
        """Raise an AssertionError if anything was not as expected."""
        __tracebackhide__ = True
        lines = []
        if self.failed:
            first, *others = self.failed
            lines += [f"{what}: {len(self.failed)} of {cases} cases fail, the first of them {first}:", self.text]
            lines += textwrap.wrap(f"also {', '.join(others)}", 110, break_on_hyphens=False) if others else []
        lines += [f"unexpected pass: {', '.join(self.passed)}"] if self.passed else []
        if lines:
            raise AssertionError("\n".join(lines))
