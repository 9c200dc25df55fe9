"""The whole suite, on kernels for GPUs that run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from classweight.conformance import sweeps
from classweight.conformance.backends import Backend
from classweight.conformance.cases import Case, load
from classweight.conformance.judge import judge
from classweight.conformance.worker import answer

CLAUSES = sorted({case.clause for case in load()})


def cases_of(clause: str) -> list[Case]:
    """Return a clause's cases."""
    return [case for case in load() if case.clause == clause]


def swept(targets: str, elements: int) -> list[Case]:
    """Return the sweeps of some targets."""
    return [case for sweep in sweeps.plan(elements) if sweep.targets == targets for case in sweeps.cases(sweep)]


def assert_passes(backend: Backend, cases: list[Any], at_least: int) -> None:
    """Assert that a backend passes its cases, and is given so many of them."""
    run = 0
    for case in cases:
        with np.errstate(all="ignore"):
            reply = answer(backend, case.request())
        if "not_run" in reply:
            continue
        run += 1
        assert [verdict.failures for verdict in judge(case, reply) if verdict.failures] == [], case.id
    assert run >= at_least
