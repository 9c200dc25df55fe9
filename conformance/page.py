"""A report as a page: HTML to look at, Markdown to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from math import inf

from classweight.page import bars, details, document, escape, table

from .explain import came, describe_call, expected, flags, looks_like, sentences
from .report import COLUMNS, BackendReport, Outcome, Report, clause_figures, clause_row, matrix, sweeps_text

# Further failures of a backend are told in their sentences alone.
MOST_EXPLAINED = 200
OPEN = 3
BINS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, inf)
BAD = ("failed", "unexpected pass", "failed (optional)")


def to_html(report: Report) -> str:
    """Return one HTML file: what failed first, then the figures of each backend."""
    failed = sum(len(backend.with_status("failed", "unexpected pass")) for backend in report.backends)
    # Stable: backends and cases with as many failures stay in their order.
    backends = sorted(report.backends, key=lambda each: -len(each.with_status(*BAD)))
    verdict = "All passed." if report.exit_status == 0 else f"{failed} cases failed." if failed else "Nothing was run."

    def body() -> Iterator[str]:
        kind = "good" if report.exit_status == 0 else "bad"
        yield f'<p class="{kind}"><strong>{verdict}</strong></p>'
        yield f'<p class="quiet">{escape(_written())}</p>'
        if any(backend.with_status(*BAD) for backend in backends):
            yield "<h2>What failed</h2>"
            for backend in backends:
                yield from _failures(backend)
        yield "<h2>Figures</h2>"
        for backend in backends:
            yield from _figures(backend)
        if any(backend.sweeps for backend in backends):
            yield f"<h3>Random sweeps</h3>\n{_pre('Random sweeps', sweeps_text(report.backends, report.differences))}"

    return document("Conformance of weighted cross-entropy", body())


def to_markdown(report: Report) -> str:
    """Return the tables as a page of Markdown."""
    parts = ["# Parity", _written(), f"```text\n{matrix(report)}\n```"]
    if any(backend.sweeps for backend in report.backends):
        parts += [
            "Random and adversarial elements:",
            f"```text\n{sweeps_text(report.backends, report.differences)}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def _written() -> str:
    return f"Written by `classweight conformance`, version {version('classweight')}, on {date.today().isoformat()}."


def _failures(backend: BackendReport) -> Iterator[str]:
    if bad := [outcome for status in BAD for outcome in backend.with_status(status)]:
        yield f"<h3>{escape(backend.title)}: {len(bad)} cases</h3>"
        for i, outcome in enumerate(bad):
            yield _failure(outcome, explained=i < MOST_EXPLAINED, is_open=i < OPEN)


def _failure(outcome: Outcome, *, explained: bool, is_open: bool) -> str:
    summary = f'<span class="bad">{escape(outcome.status)}</span>: <code>{escape(outcome.id)}</code>'

    def body() -> Iterator[str]:
        wrong = [text for verdict in outcome.verdicts for text in verdict.failures]
        if outcome.evidence is not None:
            case, reply = outcome.evidence
            wrong = sentences(case, outcome.verdicts)
        if wrong:
            yield "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in wrong) + "</ul>"
        if outcome.evidence is not None and explained:
            for text in looks_like(case, reply):
                yield f"<p>It looks like {escape(text)}.</p>"
            for lines in (describe_call(case), came(case, reply), expected(case)):
                if shown := list(lines):
                    title, *rest = shown
                    yield f"<h4>{escape(title.capitalize())}</h4>\n{_pre(f'{title}, {case.id}', chr(10).join(rest))}"
        if outcome.flags:
            yield "<h4>What this case is there for</h4>"
            yield "<dl>" + "".join(f"<dt>{f}</dt><dd>{escape(flags()[f])}</dd>" for f in outcome.flags) + "</dl>"

    return details(summary, body(), is_open=is_open)


def _pre(label: str, text: str) -> str:
    return f'<pre role="region" aria-label="{escape(label)}" tabindex="0">{escape(text)}</pre>'


def _figures(backend: BackendReport) -> Iterator[str]:
    versions = ", ".join(map(" ".join, backend.versions.items()))
    yield f'<h3>{escape(backend.title)}</h3>\n<p class="quiet">{escape(versions)}</p>'
    clauses = clause_figures(backend.outcomes)
    # Stable again: a clause with failures before one with none.
    rows = sorted(clauses.items(), key=lambda item: -sum(item[1][c]["cases"] - item[1][c]["passed"] for c in COLUMNS))
    head = ("clause", *COLUMNS, "worst ULP", "not rounded", "not run")
    yield table(f"Cases passed by {backend.title}", head, (clause_row(*row) for row in rows))
    for column in COLUMNS[:2]:
        yield from _distances(backend, column)
    reasons = Counter(outcome.not_run for outcome in backend.outcomes if outcome.not_run)
    yield from (f"<p>{count} not run: {escape(reason)}</p>" for reason, count in reasons.items())


def _distances(backend: BackendReport, column: str) -> Iterator[str]:
    """Yield how many cases are how far from the truth."""
    worst = [v.worst for outcome in backend.outcomes for v in outcome.verdicts if v.column == column]
    if worst:
        counts = Counter(next(i for i, end in enumerate(BINS) if x <= end) for x in worst)
        last = f"over {BINS[-2]:g} ULP"
        labels = ["0 ULP", *(f"to {end:g} ULP" for end in BINS[1:-1]), last]
        numbers = [counts[i] for i in range(len(BINS))]
        title = f"Worst distance of the {column}, cases of {backend.title}"
        yield f"<p>{escape(title)}</p>"
        yield bars(title, labels, numbers, list(map(str, numbers)), [False] * len(numbers))
