"""One batch through every convention: what each framework's own call would have given for the same arrays."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import page
from ..call import prepare
from ..compute import cpu
from ..compute.arrays import ArrayFunctions
from ..lowering import denominator_of
from .batch import Array, Batch, make_batch
from .native_calls import HABITS, LEGEND, Habit, Spec, formula
from .row import Row

__all__ = ["Comparison", "Row", "compare"]

# More classes than this are left to the JSON: those whose shares differ least between conventions.
SHOWN_CLASSES = 8


@dataclass(frozen=True)
class Comparison:
    """Every convention's row; printed, it is a table."""

    batch: str
    num_classes: int
    rows: tuple[Row, ...]

    def groups(self) -> list[list[Row]]:
        """Return the rows that have a number, those of the same numbers together, in the order of their loss."""
        groups: list[list[Row]] = []
        for row in self.rows:
            if not row.reason:
                same = next((g for g in groups if g[0].same(row)), None)
                groups.append([row]) if same is None else same.append(row)
        return sorted(groups, key=lambda g: _order(g[0].loss))

    def to_text(self) -> str:
        """Return a table for a terminal."""
        classes = self.shown_classes
        head = ["loss", "denominator", "|gradient|", *(f"class {c}" for c in classes)]
        groups = self.groups()
        table = [head, *([*_figures(group[0], classes)] for group in groups)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        aligned = ["  ".join(cell.rjust(n) for cell, n in zip(figures, widths, strict=True)) for figures in table]
        lines = [self.batch, *(["", aligned[0]] if groups else [])]
        for figures, group in zip(aligned[1:], groups, strict=True):
            lines.append(figures)
            for text, rows in _by_formula(group):
                lines.append(f"    {text}")
                lines += [f"      {row.call}" + (f"  [{row.note}]" if row.note else "") for row in rows]
        signs = [text for sign, text in LEGEND.items() if any(re.search(sign, row.formula) for row in self.rows)]
        lines += ["", "; ".join(signs)] if signs else []
        if refused := self._refused():
            lines += ["", "no number:"]
            for reason, calls in refused.items():
                text = f"{', '.join(calls)}: {reason}"
                lines += textwrap.wrap(text, 116, initial_indent="  ", subsequent_indent="    ")
        if len(classes) < self.num_classes:
            lines += ["", f"{self.num_classes - len(classes)} more classes are in the JSON"]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Return a table in Markdown."""
        classes = self.shown_classes
        head = ["convention", "formula", "loss", "denominator", "gradient norm", *(f"class {c}" for c in classes)]
        lines = [self.batch, "", f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * (len(head) - 2)}"]
        for group in self.groups():
            calls = "<br>".join(f"`{row.call}`" + (f" ({row.note})" if row.note else "") for row in group)
            formulas = "<br>".join(f"`{text}`" for text, _ in _by_formula(group))
            lines.append(f"| {' | '.join([calls, formulas, *_figures(group[0], classes)])} |")
        refused = [f"- {', '.join(f'`{c}`' for c in calls)}: {reason}" for reason, calls in self._refused().items()]
        return "\n".join([*lines, *(["", "No number:", "", *refused] if refused else [])])

    def to_json(self) -> dict[str, Any]:
        """Return everything, safe for JSON: a number that is not finite is a string."""
        rows = [{**asdict(row), "shares": list(row.shares)} for row in self.rows]
        for row in rows:
            for name in ("loss", "denominator", "gradient_norm"):
                row[name] = _json_number(row[name])
        return {"batch": self.batch, "num_classes": self.num_classes, "rows": rows}

    def to_html(self) -> str:
        """Return one HTML file: the numbers as pictures and tables, and by which calls they come."""
        title = f"One batch, every convention: {self.batch}"
        groups, classes = self.groups(), self.shown_classes
        calls = [list(dict.fromkeys(row.call.partition("(")[0] for row in group)) for group in groups]
        labels = [f"{names[0]}{' ...' if names[1:] else ''}" for names in calls]

        def body() -> Iterator[str]:
            for name, of in (("Loss, nats", "loss"), ("Length of the gradient", "gradient_norm")):
                values = [float(getattr(group[0], of)) for group in groups]
                yield f"<h2>{name}</h2>"
                sizes = [abs(value) if np.isfinite(value) else 0.0 for value in values]
                yield page.bars(name, labels, sizes, [f"{x:.7g}" for x in values], [not np.isfinite(x) for x in values])
            yield "<h2>Who divides by what</h2>"
            head = ["formula", "loss", "denominator", "gradient norm", *(f"class {c}" for c in classes)]
            rows = [["; ".join(t for t, _ in _by_formula(g)), *_figures(g[0], classes)] for g in groups]
            yield page.table("Each number once, and each class's share of the gradient", head, rows)
            yield "<h2>Calls</h2>"
            for group in groups:
                items = (page.escape(row.call + (f" [{row.note}]" if row.note else "")) for row in group)
                yield f"<h3>{group[0].loss:.7g}</h3>"
                yield "<ul>" + "".join(f"<li><code>{item}</code></li>" for item in items) + "</ul>"
            if refused := self._refused():
                items = (page.escape(f"{', '.join(names)}: {reason}") for reason, names in refused.items())
                yield "<h3>No number</h3>\n<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"

        return page.document(title, body())

    def plot(self, path: str | Path) -> None:
        """Write a picture: bars of the loss and of each class's share of the gradient, a row a convention.

        Raises
        ------
        ImportError
            Without matplotlib: the extra ``plot``.
        """
        from .picture import draw

        draw(self.batch, self.groups(), self.shown_classes, self.num_classes, Path(path))

    __str__ = to_text

    def _refused(self) -> dict[str, list[str]]:
        """Return the functions that give no number, by the reason; all options of a call have the same."""
        reasons: dict[str, list[str]] = {}
        for row in self.rows:
            names = reasons.setdefault(row.reason, [])
            name = row.call.partition("(")[0]
            names += [name] if name not in names else []
        reasons.pop("", None)
        return reasons

    @property
    def shown_classes(self) -> list[int]:
        """The classes to show: all, or those whose shares differ most between the conventions."""
        shares = np.array([row.shares for row in self.rows if row.shares])
        if self.num_classes <= SHOWN_CLASSES or not shares.size:
            return list(range(min(self.num_classes, SHOWN_CLASSES)))
        spread = np.ptp(shares, axis=0) * 1e6 + shares.max(0)
        return sorted(np.argsort(-spread, kind="stable")[:SHOWN_CLASSES].tolist())


def compare(
    logits: Any,
    targets: Any,
    *,
    class_weight: Any = None,
    sample_weight: Any = None,
    mask: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    axis: int | None = None,
    kind: str | None = None,
    inputs: str = "logits",
) -> Comparison:
    """Put one batch through every convention.

    Each is computed in float64 from its spec in `classweight.conventions`. A call is handed what it takes: logits,
    their softmax or its logarithm; class indices or the same as one-hot; the class axis where the framework has it.

    Parameters
    ----------
    logits : array of shape (N, C), (N, C, d1, ...), (N, d1, ..., C) or (C,)
        What ``inputs`` names, of a floating type. For binary losses of any shape.
    targets : array
        Class indices in the logits' shape without the class axis; or distributions, or binary labels, in the logits'
        shape.
    class_weight : array of shape (C,), mapping class -> weight, or pair (negative, positive) for binary losses
    sample_weight, mask, label_smoothing, ignore_index
        As in `classweight.adapters.numpy.loss` and the specs. Without an ``ignore_index`` each framework has its own.
    axis : int, optional
        The class axis. Inferred where the targets' shape decides it: 1 or the last axis.
    kind : "softmax" or "sigmoid", optional
        Targets in the logits' shape are distributions if they sum to 1 over classes or exceed 1, else binary labels.
    inputs : "logits", "probs" or "log_probs"
        What is handed in.

    Returns
    -------
    Comparison
        ``print`` shows the table; ``to_markdown()``, ``to_json()``, ``to_html()``, ``plot(path)``.

    Raises
    ------
    ValueError, TypeError
        Arrays that fit no loss at all. What one convention cannot take is said in its row.

    Examples
    --------
    >>> import classweight
    >>> table = classweight.compare([[2.0, -1.0], [0.0, 1.0]], [0, 1], class_weight=[1, 3])
    >>> for group in table.groups()[:3]:
    ...     print(round(group[0].loss, 4), group[0].call)
    0.1809 chainer.softmax_cross_entropy(soft_targets=True)
    0.2471 torch.cross_entropy(weight=w)
    0.4942 torch.cross_entropy(soft_targets=True, weight=w)
    """
    return compare_batch(
        make_batch(
            logits,
            targets,
            inputs=inputs,
            class_weight=class_weight,
            sample_weight=sample_weight,
            mask=mask,
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
            axis=axis,
            kind=kind,
        )
    )


def compare_batch(batch: Batch) -> Comparison:
    """Put a batch through every convention of its kind."""
    rows = tuple(_row(habit, batch) for habit in HABITS if habit.kind == batch.kind)
    return Comparison(describe(batch), batch.num_classes, rows)


def describe(batch: Batch) -> str:
    """Return one sentence about the batch."""
    shape = " x ".join(map(str, batch.position_shape)) or "1"
    what = "binary elements" if batch.kind == "sigmoid" else f"positions of {batch.num_classes} classes"
    labels = "" if batch.kind == "sigmoid" else ", class indices" if batch.hard else ", distributions"
    given = [name for name in ("class_weight", "sample_weight", "mask") if getattr(batch, name) is not None]
    given += [f"label_smoothing={batch.label_smoothing:g}"] if batch.label_smoothing else []
    given += [f"ignore_index={batch.ignore_index}"] if batch.ignore_index is not None else []
    return f"{shape} {what}{labels}{''.join(f', {name}' for name in given)}"


def _row(habit: Habit, batch: Batch) -> Row:
    page, call = habit.page, habit.text(batch)
    if lacks := habit.lacks(batch):
        return Row(page, call, reason="; ".join(lacks.values()))
    try:
        spec, own = habit.spec(batch), habit.batch(batch)
        loss, denominator, gradient = _numbers(spec, own)
    except (TypeError, ValueError) as problem:
        return Row(page, call, reason=str(problem))
    norm, shares = float(np.linalg.norm(gradient)), _shares(own, gradient)
    return Row(page, call, formula(spec, batch), loss, denominator, norm, shares, habit.note(batch))


_xp = ArrayFunctions(np)


def _numbers(spec: Spec, batch: Batch) -> tuple[float, float, Array]:
    """Return loss, denominator and the gradient with respect to the logits."""
    scores = batch.as_inputs(spec.inputs)
    arguments = (batch.targets, batch.sample_weight, None, batch.mask)
    call = prepare(_xp, spec, scores, *arguments, check_values=True)
    with np.errstate(all="ignore"):
        loss, gradient = cpu.loss_and_grad(call)
        denominator = denominator_of(_xp, call, np.float64)
        if spec.inputs != "logits":
            gradient = _through_softmax(batch, spec.inputs, scores, gradient)
    return float(loss), 1.0 if denominator is None else float(denominator), gradient


def _through_softmax(batch: Batch, inputs: str, scores: Array, gradient: Array) -> Array:
    """Return the gradient of the logits from that of the probabilities or log-probabilities made of them."""
    p = np.exp(scores) if inputs == "log_probs" else scores
    slope = gradient if inputs == "log_probs" else np.where(p == 0, 0.0, p * gradient)
    if batch.kind == "sigmoid":
        return np.asarray(slope * (1 - p))
    return np.asarray(slope - p * slope.sum(batch.class_axis, keepdims=True))


def _shares(batch: Batch, gradient: Array) -> tuple[float, ...]:
    amounts = abs(gradient) if batch.kind == "sigmoid" else abs(gradient).sum(batch.class_axis)
    labels, counted = batch.labels, ~batch.ignored()
    counted &= (labels >= 0) & (labels < batch.num_classes)
    each = np.bincount(labels[counted].ravel(), amounts[counted].ravel(), batch.num_classes)
    total = each.sum()
    return tuple((each / total if total else each).tolist())


def _figures(row: Row, classes: list[int]) -> Iterator[str]:
    yield f"{row.loss:.7g}"
    yield f"{row.denominator:.7g}"
    yield f"{row.gradient_norm:.4g}"
    for c in classes:
        yield f"{100 * row.shares[c]:.1f}%" if row.shares else ""


def _by_formula(group: list[Row]) -> list[tuple[str, list[Row]]]:
    texts = dict.fromkeys(row.formula for row in group)
    return [(text, [row for row in group if row.formula == text]) for text in texts]


def _order(loss: float | None) -> tuple[bool, float]:
    """Return a key that sorts by the loss, NaN last."""
    return (False, loss) if loss is not None and loss == loss else (True, 0.0)


def _json_number(x: float | None) -> float | str | None:
    return x if x is None or np.isfinite(x) else str(x)


def json_text(value: dict[str, Any]) -> str:
    """Return JSON as a file should hold it."""
    return json.dumps(value, indent=1, allow_nan=False)
