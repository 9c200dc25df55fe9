"""The conformance suite in this process, on backends that no worker can make."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from classweight.conformance import sweeps
from classweight.conformance.backends import Backend
from classweight.conformance.cases import Case, load
from classweight.conformance.judge import judge
from classweight.conformance.worker import answer

CASES = list(load())
CLAUSES = sorted({case.clause for case in CASES})


def cases_of(clause: str) -> list[Case]:
    """Return a clause's cases."""
    return [case for case in CASES if case.clause == clause]


def swept(targets: str, elements: int) -> list[Case]:
    """Return the sweeps of some targets."""
    return [case for sweep in sweeps.plan(elements) if sweep.targets == targets for case in sweeps.cases(sweep)]


def assert_passes(backend: Backend, cases: Iterable[Case], at_least: int) -> None:
    """Assert that a backend passes its cases, and is given so many of them."""
    run, wrong = 0, []
    for case in cases:
        with np.errstate(all="ignore"):
            reply = answer(backend, case.request())
        if "not_run" not in reply:
            run += 1
            wrong += [text for verdict in judge(case, reply) for text in verdict.failures]
    assert not wrong, "\n".join(map(str, wrong))
    assert run >= at_least
