"""What a run found: figures a backend and clause, as a table, as JSON, and as an exit status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cases import Case
from .judge import Verdict

COLUMNS = ("loss", "gradient", "errors")
# What a table is followed by at most, a backend; all are in the JSON.
SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case came to on one backend; ``known`` says that the user expected a failure.

    ``evidence`` is a failed case with the worker's reply.
    """

    id: str
    clause: str
    tier: str
    flags: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    known: bool = False
    not_run: str | None = None
    evidence: tuple[Case, Mapping[str, Any]] | None = None

    @property
    def passed(self) -> bool:
        """Whether no column failed."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def status(self) -> str:
        """Return "passed", "failed", "known failure", "unexpected pass", "failed (optional)" or "not run"."""
        if self.not_run:
            return "not run"
        if self.passed:
            return "unexpected pass" if self.known else "passed"
        return "known failure" if self.known else "failed (optional)" if self.tier == "optional" else "failed"


@dataclass(slots=True)
class SweepFigures:
    """Sums over sweeps of one precision: elements of loss and gradient."""

    elements: int = 0
    wrong: int = 0
    zeros: int = 0
    near_ties: int = 0
    unrounded: int = 0
    worst: float = 0.0
    not_run: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add one sweep."""
        self.not_run += outcome.not_run is not None
        for verdict in outcome.verdicts:
            self.elements += verdict.elements
            self.wrong += verdict.wrong
            self.zeros += verdict.zeros
            self.near_ties += verdict.near_ties
            self.unrounded += verdict.unrounded
            self.worst = max(self.worst, verdict.worst)


@dataclass(slots=True)
class Differences:
    """How many elements differ in their bits from the first backend's: anywhere, and ``of`` each other backend.

    Of these, ``flushed`` are numbers below the smallest normal one, to which a runtime prefers 0.
    """

    elements: int = 0
    differing: int = 0
    flushed: int = 0
    of: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class BackendReport:
    """All outcomes of one backend; of the sweeps, those that failed or were not run."""

    name: str
    versions: dict[str, str]
    outcomes: list[Outcome] = field(default_factory=list)
    sweeps: dict[str, SweepFigures] = field(default_factory=dict)
    sweep_outcomes: list[Outcome] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return the name without the path of an interpreter."""
        return self.name.partition("@")[0]

    def with_status(self, *statuses: str) -> list[Outcome]:
        """Return the outcomes with one of these statuses."""
        return [outcome for outcome in (*self.outcomes, *self.sweep_outcomes) if outcome.status in statuses]


@dataclass(slots=True)
class Report:
    """A whole run."""

    backends: list[BackendReport] = field(default_factory=list)
    differences: dict[str, Differences] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """Return 1 where something failed that was not expected to, or passed that was, or nothing was run."""
        ran = all(any(not each.not_run for each in backend.outcomes) or backend.sweeps for backend in self.backends)
        bad = any(backend.with_status("failed", "unexpected pass") for backend in self.backends)
        return 0 if ran and not bad else 1

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON, each failure with its sentences."""
        return {
            "exit_status": self.exit_status,
            "backends": [_backend_json(backend) for backend in self.backends],
            "differing_elements": {
                precision: {name: getattr(d, name) for name in Differences.__slots__}
                for precision, d in self.differences.items()
            },
        }

    def to_text(self) -> str:
        """Return the tables, and below them what failed."""
        alone = len(self.backends) == 1
        parts = [] if alone or not any(backend.outcomes for backend in self.backends) else [matrix(self)]
        parts += [text for backend in self.backends for text in _backend_text(backend, table=alone)]
        if any(backend.sweeps for backend in self.backends):
            parts.append(sweeps_text(self.backends, self.differences))
        return "\n\n".join(parts)


def matrix(report: Report) -> str:
    """Return one table of all backends: the worst ULPs of a clause, or how many columns of cases failed."""
    names = [backend.title.partition(":") for backend in report.backends]
    head = [("", *COLUMNS, *(name for name, _, _ in names)), ("clause", "", "", "", *(v for _, _, v in names))]
    figures = [clause_figures(backend.outcomes) for backend in report.backends]
    alls = [_clause_json(backend.outcomes) for backend in report.backends]
    rows = []
    for clause in dict.fromkeys(clause for each in figures for clause in each):
        own = [each.get(clause) for each in figures]
        most = [str(max(f[column]["cases"] for f in own if f) or "-") for column in COLUMNS]
        rows.append((clause, *most, *map(_cell, own)))
    blank = ("", "", "")
    for column in COLUMNS:
        rows.append((f"{column} passed", *blank, *("{passed}/{cases}".format(**each[column]) for each in alls)))
    rows.append(("cases not run", *blank, *(str(each["not_run"] or "-") for each in alls)))
    if exact := report.differences.get("exact"):
        differing = [str(exact.of.get(backend.name, "-")) for backend in report.backends]
        rows.append(("bits that differ", *blank, *differing))
    versions = [", ".join(map(" ".join, backend.versions.items())) for backend in report.backends]
    named = dict.fromkeys(f"{name}: {v}" for (name, _, _), v in zip(names, versions, strict=True))
    caption = "the cases of each clause, and the worst ULP of loss and gradient where all passed"
    return "\n".join([caption, _table([*head, *rows]), "", *named])


def _cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    failed = sum(figures[column]["cases"] - figures[column]["passed"] for column in COLUMNS)
    return f"{failed} failed" if failed else _worst(figures) if figures["elements"] else "-"


def _worst(figures: dict[str, Any]) -> str:
    return " ".join(f"{float(figures['worst_ulp'][column]):.3g}" for column in COLUMNS[:2])


def _backend_json(backend: BackendReport) -> dict[str, Any]:
    return {
        "name": backend.name,
        "versions": backend.versions,
        "clauses": clause_figures(backend.outcomes),
        "sweeps": {
            precision: {name: getattr(figures, name) for name in SweepFigures.__slots__}
            for precision, figures in backend.sweeps.items()
        },
        "cases": [
            {
                "id": outcome.id,
                "status": outcome.status,
                "flags": list(outcome.flags),
                "worst_ulp": {v.column: _finite(v.worst) for v in outcome.verdicts if v.column != "errors"},
                "failures": [failure for verdict in outcome.verdicts for failure in verdict.failures],
                **({"reason": outcome.not_run} if outcome.not_run else {}),
            }
            for outcome in (*backend.outcomes, *backend.sweep_outcomes)
        ],
    }


def _finite(x: float) -> float | str:
    return x if x < float("inf") else "inf"


def _by_clause(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    for clause in dict.fromkeys(outcome.clause for outcome in outcomes):
        yield clause, [outcome for outcome in outcomes if outcome.clause == clause]


def clause_figures(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Return the figures of each clause: of the columns the cases and those passed, ULPs, and what was not run."""
    return {clause: _clause_json(own) for clause, own in _by_clause(outcomes)}


def _clause_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    columns = {}
    for column in COLUMNS:
        own = [verdict for verdict in verdicts if verdict.column == column]
        columns[column] = {"cases": len(own), "passed": sum(verdict.passed for verdict in own)}
    return {
        **columns,
        "worst_ulp": {c: _finite(max((v.worst for v in verdicts if v.column == c), default=0.0)) for c in COLUMNS[:2]},
        "elements": sum(verdict.elements for verdict in verdicts),
        "unrounded": sum(verdict.unrounded for verdict in verdicts),
        "not_run": sum(outcome.not_run is not None for outcome in outcomes),
    }


def _backend_text(backend: BackendReport, *, table: bool) -> Iterator[str]:
    versions = ", ".join(map(" ".join, backend.versions.items()))
    if table and backend.outcomes:
        rows: list[tuple[str, ...]] = [("clause", *COLUMNS, "worst ULP", "not rounded", "not run")]
        named = [*_by_clause(backend.outcomes), ("all", backend.outcomes)]
        rows += [clause_row(clause, _clause_json(outcomes)) for clause, outcomes in named]
        yield f"{backend.title} ({versions})\n{_table(rows)}"
    sentences = [f"{o.status}: {f}" for o in backend.with_status("failed") for v in o.verdicts for f in v.failures]
    optional = backend.with_status("failed (optional)")
    sentences += [f"{o.status}: {f}" for o in optional for v in o.verdicts for f in v.failures]
    sentences += [f"unexpected pass: {outcome.id}" for outcome in backend.with_status("unexpected pass")]
    if sentences:
        shown = sentences[:SHOWN_FAILURES]
        if len(sentences) > len(shown):
            shown.append(f"... and {len(sentences) - len(shown)} more")
        yield "\n".join(f"{backend.title}: {sentence}" for sentence in shown)
    reasons = [outcome.not_run for outcome in backend.with_status("not run")]
    for reason in dict.fromkeys(reasons):
        yield f"{backend.title}: {reasons.count(reason)} not run: {reason}"
    if known := backend.with_status("known failure"):
        yield f"{backend.title}: {len(known)} known failures"


def clause_row(clause: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of a backend's own table."""
    counts = (figures[column] for column in COLUMNS)
    passed = (f"{count['passed']}/{count['cases']}" if count["cases"] else "-" for count in counts)
    share = f"{figures['unrounded']}/{figures['elements']}" if figures["elements"] else "-"
    return (clause, *passed, _worst(figures) if figures["elements"] else "-", share, str(figures["not_run"] or ""))


def sweeps_text(backends: Sequence[BackendReport], differences: dict[str, Differences]) -> str:
    """Return the table of the sweeps, and below it how many elements differ between backends."""
    head = ("sweeps", "elements", "wrong", "of them 0", "near-ties", "worst ULP", "not rounded", "not run")
    rows: list[tuple[str, ...]] = [head]
    for precision in ("exact", "native"):
        for backend in backends:
            if (figures := backend.sweeps.get(precision)) is not None:
                numbers = (figures.elements, figures.wrong, figures.zeros, figures.near_ties)
                last = (f"{figures.worst:.3g}", f"{figures.unrounded:,}", str(figures.not_run or ""))
                rows.append((f"{precision} {backend.title}", *(f"{n:,}" for n in numbers), *last))
    lines = [_table(rows)]
    for precision, d in differences.items():
        flushed = f", {d.flushed:,} of them subnormal here and 0 there" if d.flushed else ""
        lines.append(f"{precision}: {d.differing:,} of {d.elements:,} elements differ between backends{flushed}")
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
