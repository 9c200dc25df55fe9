"""Random calls over the whole definition: every field of both specs, every argument of a call. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from classweight import SigmoidCrossEntropy, SoftmaxCrossEntropy

SHAPES = [(5, 4), (7,), (3, 5, 2), (2, 3, 2, 2), (6, 1), (0, 3), (40, 10)]
REDUCTIONS = [
    "none",
    "sum",
    "mean_over_weights",
    "mean_over_valid",
    "mean_over_positions",
    "mean_over_batch",
    "mean_over_nonzero",
]
ROWS_WITHOUT_A_SOFTMAX = [[np.inf, 0, 1], [0, np.inf, 1], [-np.inf] * 3, [0, np.nan, 1], [np.nan, 0, 1]]
# What a call in float64 may differ by from the reference, which orders its sums in another way.
CLOSE = {"rtol": 1e-11, "atol": 1e-300}


@dataclass
class RandomCall:
    """One call: ``loss(spec, logits, targets, **arguments)``, and an upstream gradient of the loss's shape."""

    spec: Any
    logits: Any
    targets: Any
    upstream: Any
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = {name: np.shape(value) for name, value in self.arguments.items()}
        return f"{self.spec} on {self.logits.dtype}{self.logits.shape}, targets {np.shape(self.targets)}, {shapes}"

    def assert_gradient(self, gradient: Any, expected: Any) -> None:
        """Compare gradients, whose entries cancel: the bound is relative to the largest."""
        scale = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-14 * (1 + scale), err_msg=str(self))


def random_call(
    seed: int, *, inputs: str | None = None, last_axis: bool = False, small: bool = False, signed: bool = False
) -> RandomCall:
    """Return the call of this seed; ``inputs`` fixes what is handed in, ``last_axis`` where the classes are.

    ``signed`` makes weights of either sign, all of few bits, so that what cancels does so in any order of addition.
    """
    rng = np.random.default_rng(seed)

    def pick(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    kind = pick("index", "distribution", "binary")
    shape = pick(*(SHAPES[:-1] if small else SHAPES))
    axis = -1 if last_axis else int(rng.integers(-len(shape), len(shape)))
    inputs = inputs or pick("logits", "logits", "log_probs", "probs")
    fields = {
        "reduction": pick(*REDUCTIONS),
        "label_smoothing": float(pick(0, 0, 0.1, 1.0)),
        "precision": pick("exact", "native"),
        "zero_denominator": pick("zero", "nan"),
        "inputs": inputs,
    }
    logits = 3 * rng.normal(size=shape)
    if inputs != "logits":
        logits = np.exp(logits)
        logits /= logits.sum(-1 if kind == "binary" else axis if len(shape) > 1 else 0, keepdims=True)
        if kind == "binary":
            logits = logits.clip(0.01, 0.99)
        if inputs == "log_probs":
            logits = np.log(logits)
        else:
            fields["clip"] = pick(None, 0.1, "dtype")

    spec: Any
    if kind == "binary":
        average = bool(pick(True, False))
        spec = SigmoidCrossEntropy(
            class_weight=pick(None, (float(rng.random()), rng.random(shape[-1:]))),
            weighting=pick("term", "label"),
            ignore_label=pick(None, -1),
            average_outputs=average,
            **fields,
        )
        positions = shape[:-1] if average else shape
        targets = rng.choice([0, 1, 0.3], size=shape)
        if spec.ignore_label is not None:
            targets = np.where(rng.random(shape) < 0.3, spec.ignore_label, targets)
    else:
        class_axis = 0 if len(shape) == 1 else axis % len(shape)
        num_classes, positions = shape[class_axis], shape[:class_axis] + shape[class_axis + 1 :]
        if num_classes == 0:
            return random_call(seed + 1_000_003, inputs=inputs, last_axis=last_axis, small=small, signed=signed)
        if inputs == "probs":
            fields["renormalize"] = pick(None, "before", "after")
        spec = SoftmaxCrossEntropy(
            axis=axis,
            class_weight=pick(None, rng.choice([0, 1, 2.5, 0.3], size=num_classes)),
            weighting=pick("term", "label", "expected"),
            ignore_index=pick(None, -100, num_classes - 1) if kind == "index" else None,
            **fields,
        )
        if kind == "index":
            targets = rng.integers(0, num_classes, size=positions)
            if spec.ignore_index is not None:
                targets = np.where(rng.random(positions) < 0.3, spec.ignore_index, targets)
        else:
            targets = np.where(rng.random(shape) < 0.3, 0.0, rng.random(shape))

    call = RandomCall(spec, logits, targets, rng.normal(size=positions if spec.reduction == "none" else ()))
    if pick(True, False):
        prefix = positions[: rng.integers(len(positions) + 1)]
        call.arguments["sample_weight"] = np.asarray(rng.choice([0, 1, 0.5], size=prefix))
    if pick(True, False):
        prefix = positions[: rng.integers(len(positions) + 1)]
        call.arguments["mask"] = np.asarray(rng.random(prefix) < 0.7)
    if spec.reduction.startswith("mean") and pick(True, False, False, False):
        call.arguments["denominator"] = float(pick(0, 7.5))
    return _with_signs(call, positions, rng) if signed else call


def _with_signs(call: RandomCall, positions: Any, rng: Any) -> RandomCall:
    def some(x: Any) -> Any:
        return np.round(8 * np.asarray(x)) / 8 * rng.choice([-1, 1], size=np.shape(x))

    weights = call.spec.class_weight
    if weights is not None:
        weights = tuple(map(some, weights)) if isinstance(call.spec, SigmoidCrossEntropy) else some(weights)
        call.spec = replace(call.spec, class_weight=weights)
    call.arguments["sample_weight"] = some(call.arguments.get("sample_weight", np.ones(positions)))
    if "denominator" in call.arguments:
        call.arguments["denominator"] *= -1
    return call
