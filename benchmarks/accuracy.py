"""Native precision against each framework's own functions: worst error of float32 losses and gradients by clause.

Errors are in ULPs of the true value (gradients of smoothed and soft targets, which cancel: in units of 2^-23 of the
largest), against the float64 reference. *zeros* counts results of exactly 0 where the truth is a normal number.

``python benchmarks/accuracy.py torch`` (or tensorflow, keras, chainer: what the environment holds)
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from classweight import conventions
from classweight.reference import reference

ELEMENTS = 200_000
CLASSES = (2, 10, 1000, 20011)
KINDS = {"normal": 2.0, "wide": 12.0, "confident": 1.0, "offset": 3.0}
CLAUSES = ("hard", "weighted", "ignored", "smoothed", "soft")
SMOOTHING = 0.1

Loss: TypeAlias = Callable[[Any], Any]
Pair: TypeAlias = tuple[Any, Loss, Loss]
"""A spec, our drop-in and the native function of the same arguments."""


def batch(clause: str, kind: str, num_classes: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Return float32 logits, targets (distributions for "soft" and "smoothed") and class weights."""
    rows = max(2, ELEMENTS // num_classes)
    y = rng.integers(0, num_classes, rows)
    z = rng.normal(0, KINDS[kind], (rows, num_classes))
    if kind == "confident":
        z[np.arange(rows), y] += rng.uniform(8, 60, rows)
    elif kind == "offset":
        z += rng.choice([1e4, -1e4, 3e5], (rows, 1))
    t: Any = y
    if clause == "smoothed":
        t = np.eye(num_classes, dtype=np.float32)[y] if num_classes < 2000 else (y[:, None] == np.arange(num_classes))
    elif clause == "soft":
        t = np.exp(rng.normal(0, 3, z.shape))
        t = t / t.sum(-1, keepdims=True)
    elif clause == "ignored":
        t = np.where(rng.random(rows) < 0.3, -1, y)
        t[0] = y[0]
    return z.astype(np.float32), t if t.ndim == 1 else t.astype(np.float32), rng.uniform(0.2, 1.2, num_classes)


def torch_pair(clause: str, reduction: str, t: Any, w: Any) -> Pair:
    torch, ours = importlib.import_module("torch"), importlib.import_module("classweight.adapters.torch")
    arguments: dict[str, Any] = {"reduction": reduction}
    if clause in ("weighted", "smoothed", "soft"):
        arguments["weight"] = torch.tensor(w, dtype=torch.float32)
    if clause == "smoothed":
        arguments["label_smoothing"] = SMOOTHING
    if clause == "ignored":
        arguments["ignore_index"] = -1
    spec = conventions.torch.cross_entropy(**arguments, soft_targets=t.ndim > 1)
    target = torch.tensor(t)
    functions = (ours.cross_entropy, torch.nn.functional.cross_entropy)
    return spec, *(partial(_swapped, function, target, arguments) for function in functions)


def _swapped(function: Any, target: Any, arguments: Mapping[str, Any], logits: Any) -> Any:
    return function(logits, target, **arguments)


def tensorflow_pair(clause: str, reduction: str, t: Any, w: Any) -> Pair | None:
    if clause == "ignored":
        return None  # no function of TensorFlow's ignores a label
    tf, ours = importlib.import_module("tensorflow"), importlib.import_module("classweight.adapters.tensorflow")
    reduction = {"none": "none", "mean": "weighted_sum_over_batch_size"}[reduction]
    arguments: dict[str, Any] = {"reduction": reduction, "loss_collection": None}
    weights = 1.0 if clause == "hard" else (w[t] if t.ndim == 1 else t @ w).astype(np.float32)
    spec = conventions.tensorflow.v1_softmax_cross_entropy(SMOOTHING if clause == "smoothed" else 0.0, reduction)
    if clause == "smoothed":
        arguments["label_smoothing"] = SMOOTHING
    name = "sparse_softmax_cross_entropy" if t.ndim == 1 else "softmax_cross_entropy"
    functions = (getattr(module, name) for module in (ours, tf.compat.v1.losses))
    pair = (lambda z, f=f: f(tf.constant(t), z, weights, **arguments) for f in functions)
    return (spec, weights), *pair


def keras_pair(clause: str, reduction: str, t: Any, w: Any) -> Pair:
    keras, ours = importlib.import_module("keras"), importlib.import_module("classweight.adapters.keras")
    arguments: dict[str, Any] = {"from_logits": True, "reduction": reduction}
    if clause == "ignored":
        arguments["ignore_class"] = -1
    if clause == "smoothed":
        arguments["label_smoothing"] = SMOOTHING
    weights = None if clause in ("hard", "ignored") else (w[t] if t.ndim == 1 else t @ w).astype(np.float32)
    kind = "sparse_categorical_crossentropy" if t.ndim == 1 else "categorical_crossentropy"
    name = "SparseCategoricalCrossentropy" if t.ndim == 1 else "CategoricalCrossentropy"
    functions = (getattr(module, name)(**arguments) for module in (ours, keras.losses))
    return (getattr(conventions.keras, kind)(**arguments), weights), *(
        lambda z, f=f: f(t, z, sample_weight=weights) for f in functions
    )


def chainer_pair(clause: str, reduction: str, t: Any, w: Any) -> Pair | None:
    if clause in ("smoothed", "soft"):
        return None  # Chainer drops the weights of soft targets, and smooths none
    chainer, ours = importlib.import_module("chainer"), importlib.import_module("classweight.adapters.chainer")
    arguments: dict[str, Any] = {"reduce": {"none": "no", "mean": "mean"}[reduction]}
    if clause == "weighted":
        arguments["class_weight"] = w.astype(np.float32)
    spec = conventions.chainer.softmax_cross_entropy(**arguments)
    functions = (ours.softmax_cross_entropy, chainer.functions.softmax_cross_entropy)
    return spec, *(partial(_swapped, function, t.astype(np.int32), arguments) for function in functions)


PAIRS: dict[str, Any] = {
    "torch": torch_pair,
    "tensorflow": tensorflow_pair,
    "keras": keras_pair,
    "chainer": chainer_pair,
}


def differentiated(framework: str, loss: Loss, z: Any, upstream: Any) -> tuple[Any, Any]:
    """Return a loss and its gradient times ``upstream`` as float64."""
    if framework == "keras":
        framework = str(importlib.import_module("keras").backend.backend())
    if framework == "torch":
        torch = importlib.import_module("torch")
        leaf = torch.tensor(z, requires_grad=True)
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, torch.tensor(upstream))
        return value.detach().double().numpy(), gradient.double().numpy()
    if framework == "tensorflow":
        tf = importlib.import_module("tensorflow")
        logits = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(logits)
        return value.numpy().astype(float), tape.gradient(value, logits, tf.constant(upstream)).numpy().astype(float)
    if framework == "jax":
        jax = importlib.import_module("jax")
        value, pullback = jax.vjp(loss, jax.numpy.asarray(z))
        return np.asarray(value, float), np.asarray(pullback(jax.numpy.asarray(upstream))[0], float)
    chainer = importlib.import_module("chainer")
    logits = chainer.Variable(z)
    value = loss(logits)
    value.grad = np.asarray(upstream)
    value.backward()
    return value.array.astype(float), logits.grad.astype(float)


def errors(result: Any, truth: Any, *, cancels: bool) -> tuple[float, int]:
    """Return the worst distance and the number of wrong zeros."""
    size = np.abs(truth).astype(np.float32)
    normal = size > 2e-38
    if cancels:
        return float(np.abs(result - truth).max() / np.abs(truth).max() * 2**23), 0
    distance = np.abs(result - truth)[normal] / np.spacing(size[normal])
    return float(distance.max(initial=0)), int(((result == 0) & normal).sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("framework", choices=PAIRS, nargs="?", default="torch")
    framework = parser.parse_args().framework
    rng = np.random.default_rng(0)
    print(f"{framework:10} loss: ours     native  zeros: ours/native   gradient: ours     native  zeros: ours/native")
    for clause in CLAUSES:
        cancels = clause in ("smoothed", "soft")
        worst, zeros = np.zeros((2, 2)), np.zeros((2, 2), int)
        for kind in KINDS:
            for num_classes in CLASSES:
                z, t, w = batch(clause, kind, num_classes, rng)
                for reduction in ("none", "mean"):
                    pair = PAIRS[framework](clause, reduction, t, w)
                    if pair is None:
                        continue
                    spec, *losses = pair
                    spec, weights = spec if isinstance(spec, tuple) else (spec, None)
                    upstream = rng.uniform(0.5, 1.5, len(z) if reduction == "none" else ()).astype(np.float32)
                    truth = reference(spec, z, t, weights, upstream=upstream)
                    for i, loss in enumerate(losses):
                        results = differentiated(framework, loss, z, upstream)
                        for j, (result, true) in enumerate(zip(results, truth, strict=True)):
                            distance, wrong = errors(result, true, cancels=cancels and j == 1)
                            worst[j, i] = max(worst[j, i], distance)
                            zeros[j, i] += wrong
        if not worst.any():
            continue
        columns = (f"{a[0]:10.3g} {a[1]:10.3g}  {n[0]:>9}/{n[1]}" for a, n in zip(worst, zeros, strict=True))
        print(f"{clause:10}", "   ".join(columns))


if __name__ == "__main__":
    main()
