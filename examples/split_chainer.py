"""One weighted mean over micro-batches in Chainer: the updates are the whole batch's.

Gradients add up in a link until ``cleargrads``. Each micro-batch's loss is its share of the mean where it is divided by
the weights of all: `loss_parts` gives those of each, and needs no graph for it. The example prints the largest
difference from the whole batch's loss and parameters, in ULPs of float32.
"""

from __future__ import annotations

from typing import Any

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

import classweight.adapters.chainer as cwch
from classweight import SoftmaxCrossEntropy

SPEC = SoftmaxCrossEntropy(class_weight=[1, 4, 20], ignore_index=-1)
ROWS, STEPS = [9, 2, 21, 8], 3
generator = np.random.default_rng(0)
X = generator.normal(size=(sum(ROWS), 16)).astype(np.float32)
Y = generator.integers(-1, 3, sum(ROWS)).astype(np.int32)


def denominator(y: Any) -> Any:
    """Return the denominator of a micro-batch, which no logits change."""
    with chainer.no_backprop_mode():
        return cwch.loss_parts(SPEC, np.zeros((len(y), 3), np.float32), y)[1].array


def trained(rows: list[int], exact: bool) -> list[Any]:
    """Return the loss of the last step, and the parameters after it."""
    start = np.random.RandomState(0)
    weights = [start.normal(0, 0.3, shape).astype(np.float32) for shape in ((32, 16), (3, 32))]
    network = chainer.Sequential(L.Linear(16, 32, initialW=weights[0]), F.tanh, L.Linear(32, 3, initialW=weights[1]))
    optimizer = chainer.optimizers.SGD(0.1).setup(network)
    ends = np.cumsum(rows)[:-1]
    parts = list(zip(np.split(X, ends), np.split(Y, ends), strict=True))
    total = np.float32(0)
    for _ in range(STEPS):
        whole = sum(denominator(y) for _, y in parts) if exact else None
        network.cleargrads()
        total = np.float32(0)
        for x, y in parts:
            loss = cwch.loss(SPEC, network(x), y, denominator=whole)
            loss = loss if exact else loss / len(parts)
            loss.backward()
            total += loss.array
        optimizer.update()
    return [total, *(parameter.array for parameter in network.params())]


def main() -> None:
    expected = trained([sum(ROWS)], exact=True)
    print(f"{'4 micro-batches':24} {'loss':>12} {'parameters':>12}")
    for exact in (True, False):
        loss, *parameters = (
            float(np.max(np.abs(a - b) / np.spacing(np.maximum(abs(a), abs(b)))))
            for a, b in zip(trained(ROWS, exact), expected, strict=True)
        )
        print(f"{'one denominator' if exact else 'means of the parts':24} {loss:>12,.0f} {max(parameters):>12,.0f}")
        assert max(loss, *parameters) <= 32 if exact else min(loss, max(parameters)) > 1000


if __name__ == "__main__":
    main()
