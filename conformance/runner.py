"""A run: every case to every backend's worker, every reply to the judge, everything into one report.

Workers are asked side by side, as many at once as there are cores, and the last first: the slow ones are named last.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatchcase
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from . import sweeps
from .cases import Case, TypedArray
from .client import Worker
from .floats import FORMATS
from .judge import equal, judge
from .report import BackendReport, Differences, Outcome, Report, SweepFigures

Progress = Callable[[str, int, int], None]
Result: TypeAlias = tuple[TypedArray, TypedArray]
# What one worker does while another is slow; their results lie in memory until all are there.
SWEEPS_AT_ONCE = 8


class KnownFailures:
    """The failures that a user expects: one glob pattern a line, of an id or of ``backend/id``; ``#`` for a comment."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        bare = (line.partition("#")[0].strip() for line in lines)
        self.patterns = tuple(line for line in bare if line)

    def match(self, backend: str, case: str) -> bool:
        """Return whether this case is expected to fail."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns for name in (case, f"{backend}/{case}"))


def run(
    backends: Sequence[str],
    cases_of: Callable[[Mapping[str, Any]], Sequence[Case]],
    *,
    elements: int = 0,
    framework: str | None = None,
    timeout: float = 60.0,
    known: KnownFailures | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run the suite and return its report.

    Parameters
    ----------
    backends : sequence of str
        Names as in `Worker`.
    cases_of : callable
        Gets a worker's hello and returns the cases to hand to it.
    elements : int
        How many random logits to judge in all, beside the cases.
    framework : str, optional
        The framework of users' own losses.
    timeout : float
        Seconds after which a case counts as hung.
    known : KnownFailures, optional
    progress : callable, optional
        Called with what is running, how far it is, and how far it goes.

    Raises
    ------
    BackendError
        A backend cannot be started.
    """
    known, progress = known or KnownFailures(), progress or (lambda *_: None)
    report = Report()
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        workers = [Worker(name, framework=framework, timeout=timeout) for name in backends]
        for worker in workers:
            stack.callback(worker.stop)
        list(pool.map(Worker.start, workers))
        report.backends = [BackendReport(worker.name, dict(worker.hello["versions"])) for worker in workers]
        suites = [cases_of(worker.hello) for worker in workers]
        total, done, lock = sum(map(len, suites)), itertools.count(), Lock()

        def suite(worker: Worker, own: BackendReport, cases: Sequence[Case]) -> dict[str, Result]:
            results = {}
            for case in cases:
                with lock:
                    progress("cases", next(done), total)
                reply = worker.ask(case.request())
                own.outcomes.append(_outcome(worker.name, case, reply, known))
                if case.spec.get("precision") == "exact" and case.logits.dtype != "float64" and reply.get("gradient"):
                    results[case.id] = _result(reply)
            return results

        found = _last_first(pool, suite, workers, report.backends, suites)
        if len(workers) > 1:
            for case in dict.fromkeys(itertools.chain(*found)):
                _differ(report, "exact", [results.get(case) for results in found])
        if elements:
            _sweep(report, workers, elements, known, progress, pool)
    progress("", 0, 0)
    return report


def _outcome(backend: str, case: Case, reply: Mapping[str, Any], known: KnownFailures) -> Outcome:
    expected = known.match(backend.partition("@")[0], case.id)
    reason = str(reply["not_run"]) if "not_run" in reply else None
    verdicts = () if reason else tuple(judge(case, reply))
    evidence = None if all(verdict.passed for verdict in verdicts) else (case, reply)
    return Outcome(case.id, case.clause, case.tier, case.flags, verdicts, expected, reason, evidence)


def _sweep(
    report: Report, workers: Sequence[Worker], elements: int, known: KnownFailures, progress: Progress, pool: Executor
) -> None:
    def some(worker: Worker, own: BackendReport, cases: Sequence[Case]) -> list[Result | None]:
        results = []
        for case in cases:
            reply = worker.ask(case.request())
            outcome = _outcome(worker.name, case, reply, known)
            own.sweeps.setdefault(case.spec["precision"], SweepFigures()).add(outcome)
            if outcome.status != "passed":
                own.sweep_outcomes.append(outcome)
            results.append(_result(reply) if reply.get("gradient") else None)
        return results

    plan = list(sweeps.plan(elements))
    for i in range(0, len(plan), SWEEPS_AT_ONCE):
        progress("sweeps", i, len(plan))
        cases = [case for sweep in plan[i : i + SWEEPS_AT_ONCE] for case in sweeps.cases(sweep)]
        found = _last_first(pool, some, workers, report.backends, [cases] * len(workers))
        if len(workers) > 1:
            for case, *results in zip(cases, *found, strict=True):
                _differ(report, case.spec["precision"], results)


def _last_first(pool: Executor, function: Callable[..., Any], *each: Sequence[Any]) -> list[Any]:
    """Return what ``pool.map`` does."""
    return list(pool.map(function, *map(reversed, each)))[::-1]


def _result(reply: Mapping[str, Any]) -> Result:
    loss, gradient = (TypedArray.from_json(reply[name]) for name in ("loss", "gradient"))
    return loss, gradient


def _differ(report: Report, precision: str, results: Sequence[Result | None]) -> None:
    """Count the elements of each backend's result that differ from the first's."""
    named = [(own.name, result) for own, result in zip(report.backends, results, strict=True) if result]
    if len(named) < 2:
        return
    (_, first), *others = named
    counts = report.differences.setdefault(precision, Differences())
    for column, one in enumerate(first):
        anywhere, flushed = np.zeros((2, *one.shape), np.bool_)
        for name, result in others:
            # Another shape is another result, of which the judge says more.
            same_shape = result[column].shape == one.shape
            other = result[column].values if same_shape else np.full(one.shape, np.inf)
            differs = ~equal(one.values, other)
            counts.of[name] = counts.of.get(name, 0) + int(differs.sum())
            anywhere |= differs
            low, high = np.sort(np.abs([one.values, other]), axis=0)
            flushed |= differs & (low == 0) & (high < FORMATS[one.dtype].smallest_normal)
        counts.elements += one.values.size
        counts.differing += int(anywhere.sum())
        counts.flushed += int(flushed.sum())


def on_terminal(what: str, done: int, total: int) -> None:
    """Show progress in one line of stderr."""
    text = f"{what}: {done} of {total}" if what else ""
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
