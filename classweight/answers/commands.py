"""The subcommands ``compare`` and ``identify``, which read one batch from an .npz file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..streams import check_folder, refused, say

FILE = """\
The file is one that numpy.savez writes:

  logits          (N, C), (N, C, d1, ...), (N, d1, ..., C) or (C,), of a floating type; in their place `probs` or
                  `log_probs`
  targets         class indices in the logits' shape without the class axis; or distributions, or binary labels from 0
                  to 1, in the logits' shape
  class_weight    optional: (C,); for binary labels (2,), negative and positive
  sample_weight   optional: one a sample, or one a position
  mask            optional: bool, False where a position is ignored, in the shape of sample_weight
  label_smoothing, ignore_index, axis, kind
                  optional: one value each; an option of the command line wins

  numpy.savez("batch.npz", logits=logits, targets=targets, class_weight=weight)
"""


def add(commands: Any) -> None:
    """Add both subcommands to the command line."""
    compare = _command(
        commands,
        "compare",
        _compare,
        "one batch through every convention",
        "Put one batch through every framework's convention: loss, denominator, gradient, formula.",
        "exit status: 0; 2 if the batch cannot be used",
    )
    compare.add_argument("--markdown", action="store_true", help="print Markdown")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.add_argument("--plot", type=Path, metavar="FILE", help="also write a picture: .png, .svg or .pdf")
    compare.add_argument("--html", type=Path, metavar="FILE", help="also write a page to look at")

    identify = _command(
        commands,
        "identify",
        _identify,
        "name the convention that gives a number",
        "Name the convention, and the arguments, that make a printed loss of a batch.",
        "exit status: 0 if something gives the number; 1 if nothing does; 2 if it could not be tried",
    )
    identify.add_argument("--loss", required=True, help="the number, with just the digits that were printed")
    identify.add_argument("--dtype", help="what it was computed in: float16, bfloat16, float32 or float64")
    identify.add_argument("--json", action="store_true", help="print JSON")


def _command(commands: Any, name: str, run: Any, summary: str, description: str, status: str) -> Any:
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{FILE}\n{status}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("batch", type=Path, help="an .npz file; - is standard input")
    parser.add_argument("--label-smoothing", type=float, metavar="E", help="that the framework was given")
    parser.add_argument("--ignore-index", type=int, metavar="LABEL", help="that the framework was given")
    parser.add_argument("--axis", type=int, help="the class axis, where the shapes leave it open")
    parser.add_argument("--kind", choices=("softmax", "sigmoid"), help="of targets in the logits' shape")
    parser.set_defaults(run=run)
    return parser


def _load(options: argparse.Namespace) -> Any:
    from .batch import load_batch

    given = {name: getattr(options, name) for name in ("label_smoothing", "ignore_index", "axis", "kind")}
    return load_batch(options.batch, **given)


def _compare(options: argparse.Namespace) -> int:
    from .compare import compare_batch, json_text

    try:
        check_folder("--plot", options.plot)
        check_folder("--html", options.html)
        comparison = compare_batch(_load(options))
        if options.plot is not None:
            comparison.plot(options.plot)
        if options.html is not None:
            options.html.write_text(comparison.to_html(), "utf-8")
    except (ImportError, OSError, TypeError, ValueError) as problem:
        return refused("compare", problem)
    if options.json:
        say(json_text(comparison.to_json()))
    else:
        say(comparison.to_markdown() if options.markdown else comparison.to_text())
    return 0


def _identify(options: argparse.Namespace) -> int:
    from .compare import json_text
    from .identify import identify_batch

    try:
        answer = identify_batch(options.loss, _load(options), options.dtype)
    except (TypeError, ValueError) as problem:
        return refused("identify", problem)
    say(json_text(answer.to_json()) if options.json else answer.to_text())
    return 0 if answer.matches else 1
