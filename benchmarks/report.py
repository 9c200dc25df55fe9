"""The measurements as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["picture", "table"]

NOTE = """\
Forward and backward. Above 1 ours is faster: the median of native / ours over runs in turn, and its quartiles.
Memory is the peak beside the inputs in units of the logits, native > ours, read where these have 16 MiB or more; a
gradient is 1."""
HEADS = ("native", "ours", "exact", "native / ours", "native / exact", "memory", "forward alone")
COLOURS = {"ours": "#1f6f8b", "exact": "#9cc5d3"}


def table(report: dict[str, Any]) -> str:
    """Return what is printed: a block a shape, a line a framework, and what is known of each framework's process."""
    machine = report["machine"]
    lines = [f"{machine['cpu']}, threads: {machine['threads']}, {machine['device']}; float32 but for bf16", NOTE]
    heads = (*HEADS, "of the bandwidth") if machine["device"] == "cuda" else HEADS
    for shape in report["shapes"]:
        lines += ["", _line(shape, heads)]
        results = [result for result in report["results"] if result["case"] == shape]
        for result in results:
            lines += [_line(f"  {result['backend']}", _cells(result)), *_further(result)]
    if any("growth" in backend for backend in report["backends"].values()):
        lines += [
            "",
            "MiB left behind by 900 steps of changing shape, native > ours; torch.compile makes programs of them",
        ]
        lines += [
            _line(f"  {name}", (_grown(backend.get("growth", {})),)) for name, backend in report["backends"].items()
        ]
    environments: dict[str, list[str]] = {}
    for name, backend in report["backends"].items():
        versions = ", ".join(map(" ".join, backend.get("versions", {}).items()))
        environments.setdefault(versions, []).append(name)
    lines += ["", *(f"{', '.join(names)}: {versions}" for versions, names in environments.items() if versions)]
    return "\n".join([*lines, *(f"failed: {failure}" for failure in report["failures"])])


def _line(first: str, cells: tuple[str, ...]) -> str:
    widths = (8, 8, 8, 18, 18, 13, 13, 16)
    return f"{first:28}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=False)).rstrip()


def _cells(result: dict[str, Any]) -> tuple[str, ...]:
    if "ms" not in result:
        return (f"skipped: {result['skipped']}" if "skipped" in result else "failed: see the end",)
    times = (_time(result["ms"][side]) for side in ("native", "ours", "exact"))
    ratios = ("{:.2f} ({:.2f}-{:.2f})".format(*result["ratio"][side]) for side in ("ours", "exact"))
    memory, share = result.get("memory", {}), result.get("bandwidth")
    both = memory.keys() == {"native", "ours"}
    peaks = (f"{memory['native'][k]:.2f} > {memory['ours'][k]:.2f}" if both else "" for k in ("training", "forward"))
    return (*times, *ratios, *peaks, *([f"{share['native']:.0%} > {share['ours']:.0%}"] if share else []))


def _further(result: dict[str, Any]) -> list[str]:
    """Return a line for each other side, its time and how many times as fast ours is; and one of peaks on a device."""
    lines = []
    for side, ratio in result.get("rivals", {}).items():
        cells = [_time(result["ms"][side]), "", "", "{:.2f} ({:.2f}-{:.2f})".format(*ratio)]
        if share := result.get("bandwidth"):
            cells += ["", "", "", f"{share[side]:.0%}"]
        lines.append(_line(f"    {side} against ours", tuple(cells)))
    if share := result.get("bandwidth"):
        lines.append(f"    of the bandwidth: exact {share['exact']:.0%}")
    if peaks := result.get("peaks"):
        lines.append("    peaks: " + ", ".join(f"{side} {peak:.2f}" for side, peak in peaks.items()))
    return lines


def _grown(growth: dict[str, int]) -> str:
    return " > ".join(f"{growth[side] / 2**20:+.1f}" for side in ("native", "ours") if side in growth) or "not read"


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms" if milliseconds >= 1 else f"{1000 * milliseconds:.3g} us"


def picture(report: dict[str, Any], file: Path) -> None:
    """Draw a panel a shape and in it two bars a framework, from the line at 1 to the right where ours is faster."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shapes, names = report["shapes"], list(report["backends"])
    found = {(result["backend"], result["case"]): result for result in report["results"]}
    columns = min(3, len(shapes))
    rows = -(-len(shapes) // columns)
    figure = Figure((2 + 3.7 * columns, 1.3 + rows * (0.7 + 0.3 * len(names))), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes, shape in zip(grid, shapes, strict=False):
        axes.set_title(
            shape.replace("x", " x ").replace("bce-", "binary, ").replace("bf16-", "bfloat16, "),
            fontsize=10,
            loc="left",
        )
        for place, name in enumerate(names):
            for offset, side in ((-0.19, "ours"), (0.19, "exact")):
                if "ratio" in found[name, shape]:
                    _bar(axes, place + offset, found[name, shape]["ratio"][side], side)
            if "ratio" not in found[name, shape]:
                axes.annotate("not measured", (1, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
        _decorate(axes, names)
    for axes in grid[len(shapes) :]:
        axes.remove()
    machine = report["machine"]
    figure.suptitle(
        "How many times as fast as the framework's own weighted loss, forward and backward: medians and quartiles\n"
        f"{machine['cpu']}, threads: {machine['threads']}, {machine['device']}, float32",
        fontsize=10,
    )
    labels = [f"{name} precision" for name in ("native", "exact")]
    handles = [Patch(color=colour) for colour in COLOURS.values()]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)


def _bar(axes: Any, place: float, ratio: list[float], side: str) -> None:
    median, low, high = ratio
    axes.barh(place, median - 1, 0.36, left=1, color=COLOURS[side], zorder=2)
    axes.plot((low, high), (place, place), color="#333333", linewidth=0.8, zorder=3)
    faster = median >= 1
    axes.annotate(
        f"{median:.2f}",
        (max(median, high) if faster else min(median, low), place),
        (3 if faster else -3, 0),
        textcoords="offset points",
        ha="left" if faster else "right",
        va="center",
        fontsize=7,
    )


def _decorate(axes: Any, names: list[str]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_tick_params(labelbottom=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    axes.axvline(1, color="black", linewidth=1, zorder=4)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.2)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
