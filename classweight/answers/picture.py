"""A comparison as a picture. matplotlib is an optional extra, imported here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .row import Row

THICKNESS = 1.8
# Losses that differ by more are drawn on a logarithmic axis.
WIDE = 20


def draw(batch: str, groups: list[list[Row]], classes: list[int], num_classes: int, path: Path) -> None:
    """Write bars of the loss and of each shown class's share of the gradient, one for each group of rows.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as cause:
        message = f"a picture needs matplotlib: pip install 'classweight[plot]' ({cause})"
        raise ImportError(message, name="matplotlib") from cause

    labels = [_label(group) for group in groups]
    heights = np.array([label.count("\n") + 2 for label in labels])
    places = heights / 2 - np.cumsum(heights)
    figure = Figure(figsize=(13, 1.9 + 0.17 * heights.sum()), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 3))
    _losses(left, [group[0].loss or 0.0 for group in groups], places)
    _shares(right, [group[0] for group in groups], classes, num_classes, places)
    left.set_yticks(places, labels, fontsize=8, family="monospace")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=9, frameon=False, fontsize=9)
    figure.suptitle(f"One batch, every convention: {batch}", fontsize=11)
    figure.savefig(path, dpi=150)


def _label(group: list[Row]) -> str:
    """Return the first call of each framework in a group, without the arguments that all have."""
    calls = {row.framework: _short(row.call) for row in reversed(group)}
    names = [calls[framework] for framework in dict.fromkeys(row.framework for row in group)]
    rest = len(group) - len(names)
    return "\n".join([*names, f"and {rest} more"] if rest else names)


def _short(call: str) -> str:
    function, _, arguments = call.partition("(")
    kept = [x for x in arguments.rstrip(")").split(", ") if x.startswith(("reduction", "normalize", "soft", "backend"))]
    return f"{function}({', '.join(kept)})" if kept else function


def _losses(axes: Any, losses: list[float], places: Any) -> None:
    finite = [x for x in losses if np.isfinite(x)]
    positive = bool(finite) and min(finite) > 0
    wide = positive and max(finite) / min(finite) > WIDE
    drawn = [x if np.isfinite(x) else 0.0 for x in losses]
    bars = axes.barh(places, drawn, THICKNESS, color="#4C72B0")
    axes.bar_label(bars, [f"{x:.6g}" for x in losses], padding=4, fontsize=9)
    if wide:
        axes.set_xscale("log")
        axes.set_xlim(min(finite) / 2, max(finite) * 8)
    elif positive:
        axes.set_xlim(0, max(finite) * 1.25)
    axes.set_xlabel("loss, nats" + (" (logarithmic)" if wide else ""))
    _bare(axes)


def _shares(axes: Any, rows: list[Row], classes: list[int], num_classes: int, places: Any) -> None:
    from matplotlib import color_sequences

    shares = np.array([row.shares or (0.0,) * num_classes for row in rows])
    columns = [(f"class {c}", shares[:, c]) for c in classes]
    if len(classes) < num_classes:
        columns.append((f"{num_classes - len(classes)} other classes", 1 - shares[:, classes].sum(1)))
    colours = [c for i, c in enumerate(color_sequences["tab10"]) if i != 7]  # its grey is for the other classes
    start = np.zeros(len(rows))
    for i, (name, width) in enumerate(columns):
        colour = colours[i] if i < len(classes) else "#BBBBBB"
        bars = axes.barh(places, width, THICKNESS, left=start, color=colour, label=name, edgecolor="white")
        axes.bar_label(
            bars, [f"{100 * x:.0f}%" if x > 0.04 else "" for x in width], label_type="center", fontsize=8, color="white"
        )
        start = start + width
    for place, row in zip(places, rows, strict=True):
        axes.text(1.015, place, f"|g| {row.gradient_norm:.4g}", va="center", fontsize=9)
    axes.set_xlim(0, 1.14)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("share of the gradient by the class of the label, and its norm |g|")
    _bare(axes)


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
