"""The suite that a loss is judged by: vectors, sweeps, the judge, and the processes that backends run in.

``classweight conformance`` runs it; `assert_conforms` holds a loss of one's own against a spec in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from classweight.spec import SigmoidCrossEntropy, SoftmaxCrossEntropy

__all__ = ["assert_conforms"]


def assert_conforms(
    loss: Callable[..., Any],
    spec: SoftmaxCrossEntropy | SigmoidCrossEntropy,
    framework: str,
    *,
    targets: str = "index",
    known: Iterable[str] = (),
) -> None:
    """Hold ``loss(logits, targets, sample_weight=None)`` against a spec: values, gradients, types, shapes, a bad index.

    A loss without the parameter ``sample_weight`` is called without. A NumPy loss returns ``(loss, gradient)``, or the
    loss alone. Needs mpmath.

    Parameters
    ----------
    loss : callable
        On native arrays.
    spec : SoftmaxCrossEntropy or SigmoidCrossEntropy
        What it is meant to compute.
    framework : str
        "torch" or "numpy".
    targets : "index" or "distribution"
        What a softmax loss takes.
    known : iterable of str
        Glob patterns of cases that are expected to fail, such as ``"own-confident-*"``.

    Raises
    ------
    AssertionError
        A case failed that was not expected to, or passed that was; each in a sentence.

    Examples
    --------
    >>> import classweight as cw
    >>> import classweight.adapters.numpy as cwn
    >>> from classweight.conformance import assert_conforms
    >>> spec = cw.SoftmaxCrossEntropy(class_weight=[1, 2, 5], precision="exact")
    >>> assert_conforms(lambda z, t, s=None: cwn.loss_and_grad(spec, z, t, s), spec, "numpy")
    """
    from .backends import own_backend
    from .judge import judge
    from .own import cases_for
    from .runner import KnownFailures
    from .worker import answer

    name = getattr(loss, "__name__", "loss")
    backend, patterns, problems = own_backend(name, loss, framework), KnownFailures(known), []
    cases = cases_for(
        spec,
        targets=targets,  # type: ignore[arg-type]
        sample_weight=backend.takes_sample_weight,
        upstream=framework != "numpy",
    )
    for case in cases:
        failures = [text for verdict in judge(case, answer(backend, case.request())) for text in verdict.failures]
        expected = patterns.match(name, case.id)
        if failures and not expected:
            problems += failures
        elif expected and not failures:
            problems.append(f"unexpected pass: {case.id}")
    if problems:
        raise AssertionError("\n".join([f"{name} is not {spec}:", *problems]))
