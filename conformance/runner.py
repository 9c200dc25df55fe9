"""A run: every case to every backend's worker, every reply to the judge, everything into one report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from . import sweeps
from .cases import Case, TypedArray
from .client import Worker
from .judge import equal, judge
from .report import BackendReport, Differences, Outcome, Report, SweepFigures

Progress = Callable[[str, int, int], None]


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
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(name, framework=framework, timeout=timeout)) for name in backends]
        for worker in workers:
            own = BackendReport(worker.name, dict(worker.hello["versions"]))
            report.backends.append(own)
            cases = cases_of(worker.hello)
            for i, case in enumerate(cases):
                progress(worker.name, i, len(cases))
                own.outcomes.append(_outcome(worker.name, case, worker.ask(case.request()), known))
        if elements:
            _sweep(report, workers, elements, known, progress)
    progress("", 0, 0)
    return report


def _outcome(backend: str, case: Case, reply: Mapping[str, Any], known: KnownFailures) -> Outcome:
    expected = known.match(backend, case.id)
    reason = str(reply["not_run"]) if "not_run" in reply else None
    verdicts = () if reason else tuple(judge(case, reply))
    return Outcome(case.id, case.clause, case.tier, case.flags, verdicts, expected, reason)


def _sweep(report: Report, workers: Sequence[Worker], elements: int, known: KnownFailures, progress: Progress) -> None:
    plan = list(sweeps.plan(elements))
    for i, sweep in enumerate(plan):
        progress("sweeps", i, len(plan))
        for case in sweeps.cases(sweep):
            precision = case.spec["precision"]
            request, results = case.request(), []
            for worker, own in zip(workers, report.backends, strict=True):
                reply = worker.ask(request)
                outcome = _outcome(worker.name, case, reply, known)
                own.sweeps.setdefault(precision, SweepFigures()).add(outcome)
                if outcome.status != "passed":
                    own.sweep_outcomes.append(outcome)
                if reply.get("gradient"):
                    results.append([TypedArray.from_json(reply[name]).values for name in ("loss", "gradient")])
            if len(results) > 1 and len({tuple(map(np.shape, result)) for result in results}) == 1:
                report.differences.setdefault(precision, Differences()).add(_differing(results))


def _differing(results: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Return how many elements there are, and how many differ between any two backends."""
    total = differing = 0
    for arrays in zip(*results, strict=True):
        same = np.logical_and.reduce([equal(arrays[0], other) for other in arrays[1:]])
        total, differing = total + same.size, differing + int((~same).sum())
    return total, differing


def on_terminal(what: str, done: int, total: int) -> None:
    """Show progress in one line of stderr."""
    text = f"{what}: {done} of {total}" if what else ""
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
