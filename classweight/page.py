"""One HTML file that a reader only looks at: no script, no font and no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["bars", "details", "document", "escape", "table"]

# Text, quiet text, links, what failed, what passed, lines and paper, on white and on black.
LIGHT = {"text": "#1f2328", "quiet": "#59636e", "bad": "#b00020", "good": "#0a5fb0", "line": "#d0d7de", "paper": "#fff"}
DARK = {
    "text": "#f0f6fc",
    "quiet": "#9aa4af",
    "bad": "#ff8a80",
    "good": "#58a6ff",
    "line": "#30363d",
    "paper": "#0d1117",
}


def _variables(colours: dict[str, str]) -> str:
    return "; ".join(f"--{name}: {colour}" for name, colour in colours.items())


STYLE = f"""\
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }}
body {{ color: var(--text); background: var(--paper) }}
a, .good {{ color: var(--good) }} .bad {{ color: var(--bad) }} .quiet {{ color: var(--quiet) }}
.wide {{ overflow-x: auto }} table {{ border-collapse: collapse }} caption {{ text-align: left; padding: .5rem 0 }}
th, td {{ padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }}
th:first-child, td:first-child {{ text-align: left }}
pre {{ overflow-x: auto; border-left: 3px solid var(--line); padding: .5rem 1rem; margin: .5rem 0 }}
details {{ border-top: 1px solid var(--line); padding: .5rem 0 }} summary {{ cursor: pointer }}
:focus-visible {{ outline: 3px solid var(--good); outline-offset: 2px }}
svg text {{ fill: var(--text); font: 13px system-ui, sans-serif }} rect {{ fill: var(--good) }}
rect.bad {{ fill: var(--bad) }}"""


def document(title: str, body: Iterable[str]) -> str:
    """Return a page; ``title`` is text, ``body`` is HTML."""
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n</style>"
    content = "\n".join(body)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n'
        f"{content}\n</main>\n</body>\n</html>\n"
    )


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text, the first cell of a row naming it."""
    lines = [f"<caption>{escape(caption)}</caption>"]
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr></thead>")
    lines.append("<tbody>")
    for name, *cells in rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in cells]
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    # What scrolls must be reached by the keyboard.
    body = "\n".join([*lines, "</tbody>"])
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table>\n{body}\n</table></div>'
    )


def details(summary: str, body: Iterable[str], *, is_open: bool = False) -> str:
    """Return what can be folded; ``summary`` and ``body`` are HTML."""
    content = "\n".join(body)
    return f"<details{' open' if is_open else ''}>\n<summary>{summary}</summary>\n{content}\n</details>"


def bars(title: str, labels: Sequence[str], values: Sequence[float], shown: Sequence[str], bad: Sequence[bool]) -> str:
    """Return a picture of horizontal bars, which its title and its description say in words."""
    largest = max((value for value in values if value < float("inf")), default=0.0) or 1.0
    left = 12 + 8 * max(map(len, labels), default=0)
    height = 24 * len(labels) + 4
    lines = []
    for i, (label, value, text, is_bad) in enumerate(zip(labels, values, shown, bad, strict=True)):
        y, width = 24 * i + 4, 320 * max(0.0, min(value, largest)) / largest
        kind = ' class="bad"' if is_bad else ""
        lines.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>')
        lines.append(f'<rect{kind} x="{left}" y="{y}" width="{width:.1f}" height="18"></rect>')
        lines.append(f'<text x="{left + width + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    said = f"{title}: " + "; ".join(f"{label}: {text}" for label, text in zip(labels, shown, strict=True))
    return (
        f'<div class="wide" role="region" aria-label="{escape(title)}" tabindex="0">'
        f'<svg role="img" aria-label="{escape(said)}" width="{left + 460}" height="{height}">\n'
        + "\n".join(lines)
        + "\n</svg></div>"
    )
