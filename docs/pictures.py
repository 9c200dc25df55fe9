"""Draw the pictures of README, and with ``--check`` say whether they are what the numbers of today would draw."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from math import exp, log10
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import classweight as cw
import classweight.adapters.torch as cwt

FOLDER = Path(__file__).parent
STYLE = """\
svg { font: 14px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
.paper { fill: #ffffff } .grid { stroke: #d8dee4 } text { fill: #1f2328 } .soft { fill: #59636e; font-size: 12px }
.code { font: 12px ui-monospace, Menlo, Consolas, monospace } .title { font-size: 16px; font-weight: 600 }
.native { fill: #b3450a } .ours { fill: #0a5fb0 } path { fill: none !important; stroke-width: 2.5 }
path.native { stroke: #b3450a } path.ours { stroke: #0a5fb0 }
@media (prefers-color-scheme: dark) {
.paper { fill: #0d1117 } .grid { stroke: #30363d } text { fill: #f0f6fc } .soft { fill: #9aa4af }
.native { fill: #f0883e } .ours { fill: #58a6ff } path.native { stroke: #f0883e } path.ours { stroke: #58a6ff }
}"""

LOGITS = np.array(
    [
        [[0.2, -0.2, 1.0], [0.2, -0.8, 0.5], [2.0, 1.4, -1.1], [-1.9, -0.9, 0.1]],
        [[-3.5, -0.3, -1.9], [-1.1, -0.8, -0.5], [0.6, 1.6, -0.2], [2.0, -1.0, 0.5]],
    ]
)
TARGETS = np.array([[0, 1, 2, 1], [0, 2, 1, -100]])
WEIGHT = (1.0, 3.0, 0.0)
CALLS = (
    (
        "torch.cross_entropy(weight=w, ignore_index=-100)",
        "PyTorch",
        "F.cross_entropy(z, y, w)",
        "the weights of the 7 words, 11",
    ),
    ("mean of optax.softmax_cross_entropy(class_weight=w)", "JAX", "jnp.mean(w[y] * optax...(z, y))", "all 8 words"),
    (
        "keras.sparse_categorical_crossentropy(from_logits=True, class_weight=w, ignore_class=-100)",
        "Keras",
        "fit(..., class_weight=w)",
        "the 7 words",
    ),
    (
        "tensorflow.v1_softmax_cross_entropy(class_weight=w)",
        "TensorFlow 1",
        "losses.sparse_softmax...(y, z, w[y])",
        "the 5 words that weigh something",
    ),
    (
        "chainer.softmax_cross_entropy(normalize=False, class_weight=w, ignore_label=-100)",
        "Chainer",
        "softmax_cross_entropy(..., normalize=False)",
        "the 2 sentences",
    ),
)
GAPS = np.arange(0.0, 40.5, 0.5)


def svg(width: int, height: int, title: str, text: str, body: Iterable[str]) -> str:
    """Return a picture that says in words what it shows."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    paper = f'<rect class="paper" width="{width}" height="{height}" rx="8"/>'
    named = f'role="img" aria-labelledby="t d">\n<title id="t">{title}</title>\n<desc id="d">{text}</desc>'
    return "\n".join([f"{head} {named}", f"<style>\n{STYLE}\n</style>", paper, *body, "</svg>", ""])


def five() -> str:
    """Return the picture of one batch in five frameworks."""
    table = cw.compare(LOGITS, TARGETS, class_weight=WEIGHT, ignore_index=-100, axis=-1)
    rows = {row.call: row for row in table.rows}
    drawn = [(name, call, divisor, rows[key]) for key, name, call, divisor in CALLS]
    losses, norms = ([float(getattr(row, name)) for *_, row in drawn] for name in ("loss", "gradient_norm"))
    native = F.cross_entropy(
        torch.tensor(LOGITS).reshape(-1, 3), torch.tensor(TARGETS).ravel(), torch.tensor(WEIGHT, dtype=torch.float64)
    )
    if not np.isclose(native, losses[0], rtol=1e-12, atol=0):
        raise AssertionError(f"PyTorch gives {native}, and not {losses[0]}")

    def body() -> Iterator[str]:
        yield '<text class="title" x="24" y="34">The same batch, five frameworks, five losses and gradients</text>'
        yield '<text class="soft" x="380" y="62">loss</text><text class="soft" x="640" y="62">length of gradient</text>'
        for i, ((name, call, divisor, _), loss, norm) in enumerate(zip(drawn, losses, norms, strict=True)):
            y = 76 + 58 * i
            yield f'<text x="24" y="{y + 13}">{name}</text><text class="code" x="24" y="{y + 30}">{call}</text>'
            yield f'<text class="soft" x="24" y="{y + 46}">divides by {divisor}</text>'
            for x, value, most, kind in ((380, loss, losses[-1], "native"), (640, norm, norms[-1], "native")):
                width = 170 * value / most
                yield f'<rect class="{kind}" x="{x}" y="{y + 6}" width="{width:.1f}" height="24" rx="3"/>'
                yield f'<text x="{x + width + 8:.1f}" y="{y + 23}">{value:.4f}</text>'
        words = "Two sentences of four words, one of them padding; class weights 1, 3 and 0."
        yield f'<text class="soft" x="24" y="386">{words}</text>'

    figures = zip(drawn, losses, norms, strict=True)
    said = "; ".join(f"{name} {loss:.4f} and {norm:.4f}" for (name, *_), loss, norm in figures)
    return svg(900, 404, "One batch in five frameworks", f"Loss and length of the gradient: {said}.", body())


def gradient(loss: object) -> list[float]:
    """Return the size of the gradient at a target whose logit leads by each gap, in float32."""
    logits = torch.tensor([[gap, 0.0] for gap in GAPS], dtype=torch.float32, requires_grad=True)
    loss(logits, torch.zeros(len(GAPS), dtype=torch.int64), reduction="sum").backward()  # type: ignore[operator]
    assert logits.grad is not None
    return [abs(float(x)) for x in logits.grad[:, 0]]


def confident() -> str:
    """Return the picture of the gradient of a confident target, native and ours."""
    native, ours = gradient(F.cross_entropy), gradient(cwt.cross_entropy)
    if not np.allclose(ours, [1 / (1 + exp(gap)) for gap in GAPS], rtol=1e-6, atol=0):
        raise AssertionError("the drawn gradient is not 1 / (1 + exp(gap))")
    left, top, bottom, lowest = 92, 64, 336, -18.0

    def place(gap: float, value: float) -> str:
        high = log10(value) if value else lowest
        return f"{left + 18 * gap:.1f} {bottom - (bottom - top) * (1 - high / lowest):.1f}"

    def line(values: list[float], kind: str) -> str:
        return f'<path class="{kind}" d="M{" L".join(map(place, GAPS, values))}"/>'

    def body() -> Iterator[str]:
        yield '<text class="title" x="24" y="34">The gradient of a confident target, float32</text>'
        for power in range(0, int(lowest), -4):
            y = place(0, 10.0**power).split()[1]
            yield f'<line class="grid" x1="{left}" x2="{left + 720}" y1="{y}" y2="{y}"/>'
            label = f"1e{power}" if power else "1"
            yield f'<text class="soft" x="{left - 10}" y="{float(y) + 4:.1f}" text-anchor="end">{label}</text>'
        yield f'<line class="grid" x1="{left}" x2="{left + 720}" y1="{bottom}" y2="{bottom}"/>'
        yield f'<text class="soft" x="{left - 10}" y="{bottom + 4}" text-anchor="end">exactly 0</text>'
        for gap in range(0, 41, 10):
            yield f'<text class="soft" x="{left + 18 * gap}" y="{bottom + 22}" text-anchor="middle">{gap}</text>'
        yield line(ours, "ours")
        yield line(native, "native")
        where = next(gap for gap, value in zip(GAPS, native, strict=True) if not value)
        x, words = left + 18 * where + 14, "F.cross_entropy: 0 from here on"
        yield f'<text class="native" x="{x:.1f}" y="{bottom - 12}">{words}</text>'
        yield f'<text class="ours" x="{left + 18 * 25}" y="{top + 112}">cwt.cross_entropy</text>'
        x, words = left + 360, "by how much the target's logit leads"
        yield f'<text class="soft" x="{x}" y="{bottom + 44}" text-anchor="middle">{words}</text>'

    zero = f"PyTorch's is exactly 0 where the target leads by 17 or more; ours is {ours[-1]:.2g} at {GAPS[-1]:g}."
    return svg(900, 396, "The gradient of a confident target", zero, body())


PICTURES = {"five-losses.svg": five, "confident-target.svg": confident}


def main() -> int:
    """Write the pictures, or return 1 where one is not what would be written."""
    stale = []
    for name, draw in PICTURES.items():
        text, path = draw(), FOLDER / name
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        elif path.read_text() != text:
            stale.append(name)
    if stale:
        print(f"{', '.join(stale)}: not what `python docs/pictures.py` draws", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
