"""The subcommand ``weights``: class weights of the labels in a file, and the line to paste."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..streams import refused, say

SCHEMES = ("balanced", "inverse", "max_ratio", "power", "effective_number", "log_scaled", "median_frequency")


def add(commands: Any) -> None:
    """Add the subcommand to the command line."""
    parser = commands.add_parser(
        "weights",
        help="class weights of the labels in a file",
        description="Count the labels in a file, weigh the classes, and show the line to paste for each framework.",
        epilog="exit status: 0; 2 if the labels cannot be used",
    )
    parser.add_argument("labels", type=Path, help=".csv, .tsv, .parquet, .npy, .npz, or a folder of one folder a class")
    parser.add_argument("--column", metavar="NAME", help="of a table, or the array of an .npz file")
    parser.add_argument("--names", action="store_true", help="whole numbers are names, not indices from 0 on")
    parser.add_argument("--scheme", choices=SCHEMES, default="balanced", help="(%(default)s)")
    parser.add_argument("--normalize", choices=("mean_class", "mean_sample", "max"))
    parser.add_argument("--power", type=float, help="of the scheme power (0.5)")
    parser.add_argument("--beta", type=float, help="of the scheme effective_number (0.999)")
    parser.add_argument("--offset", type=float, help="of the scheme log_scaled (1.02)")
    zero = "of a class without a sample: zero, largest or a number (an error)"
    parser.add_argument("--zero-count", metavar="WEIGHT", default="error", help=zero)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from .files import count_file
    from .schemes import class_weights

    given = {name: getattr(options, name) for name in ("normalize", "power", "beta", "offset")}
    try:
        zero_count = options.zero_count
        zero_count = zero_count if zero_count in ("error", "zero", "largest") else float(zero_count)
        counts = count_file(options.labels, options.column, names=options.names)
        weights = class_weights(counts, options.scheme, zero_count=zero_count, **given)
    except (ImportError, OSError, TypeError, ValueError) as problem:
        return refused("weights", problem)
    say(json.dumps(weights.to_json(), indent=1) if options.json else "\n".join([str(weights), "", *lines(weights)]))
    return 0


def lines(weights: Any) -> Iterator[str]:
    """Yield the line to paste for each framework."""
    shown = [float(f"{weight:.6g}") for weight in weights]
    by_name = dict(zip(weights.class_names or range(len(shown)), shown, strict=True))
    calls = {
        "PyTorch": f"torch.nn.CrossEntropyLoss(weight=torch.tensor({shown}))",
        "Keras": f"model.fit(x, y, class_weight={dict(enumerate(shown))})",
        "TensorFlow": f"tf.losses.sparse_softmax_cross_entropy(labels, logits, tf.gather({shown}, labels))",
        "JAX": f"weight = jnp.array({shown})[labels]",
        "Chainer": f'F.softmax_cross_entropy(y, t, class_weight=xp.array({shown}, "float32"))',
        "scikit-learn": f"LogisticRegression(class_weight={by_name})",
        "classweight": f"classweight.SoftmaxCrossEntropy(class_weight={shown})",
    }
    width = max(map(len, calls))
    yield from (f"{name:{width}}  {call}" for name, call in calls.items())
