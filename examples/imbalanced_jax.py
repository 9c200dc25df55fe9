"""Find the patients whose diabetes advances fastest, one in ten, with Flax and optax on JAX.

scikit-learn's diabetes data, as in ``imbalanced_torch.py``. Here fifteen networks, one for each fold of a
cross-validation, are trained at once by ``vmap``: a fold is the mask of its loss. The example prints which part of each
class is found in patients that a network has not seen, with class weights and without, and then what one weighted batch
costs by the two habits of JAX's users.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_diabetes
from sklearn.model_selection import RepeatedStratifiedKFold

import classweight.adapters.jax as cwj
from classweight import SoftmaxCrossEntropy, conventions

STEPS = 150
SPEC = SoftmaxCrossEntropy(reduction="mean_over_weights", axis=-1)


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden, self.out = nnx.Linear(10, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.hidden(x)))


def load() -> tuple[jax.Array, jax.Array]:
    measurements, progression = load_diabetes(return_X_y=True)
    fastest = progression >= np.quantile(progression, 0.9)
    return jnp.asarray(measurements / np.std(measurements, axis=0), jnp.float32), jnp.asarray(fastest, jnp.int32)


def balanced_weights(y: jax.Array, mask: jax.Array) -> jax.Array:
    """Return n / (k n_c) for each class c of what the mask keeps."""
    counts = jnp.bincount(y, weights=mask.astype(jnp.float32), length=2)
    return counts.sum() / (2 * counts)


@partial(jax.vmap, in_axes=(0, 0, None, None, None))
def logits_of_trained(key: jax.Array, mask: jax.Array, x: jax.Array, y: jax.Array, weighted: bool) -> jax.Array:
    """Return the logits of all patients by a network that has learned from those that the mask keeps."""
    network, params = nnx.split(Network(nnx.Rngs(key)))
    class_weight = jnp.where(weighted, balanced_weights(y, mask), 1.0)
    optimizer = optax.adamw(0.01, weight_decay=0.1)

    def loss(params: nnx.State) -> jax.Array:
        return cwj.loss(SPEC, nnx.merge(network, params)(x), y, class_weight=class_weight, mask=mask)

    def step(state: tuple[nnx.State, optax.OptState], _: None) -> tuple[tuple[nnx.State, optax.OptState], None]:
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
    return nnx.merge(network, params)(x)


def main() -> None:
    x, y = load()
    folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
    unseen = np.zeros((15, len(y)), bool)
    for fold, (_, rows) in enumerate(folds.split(x, y)):
        unseen[fold, rows] = True
    train = jax.jit(logits_of_trained)
    found = []
    for weighted in (False, True):
        logits = train(jax.random.split(jax.random.key(0), 15), ~unseen, x, y, weighted)
        right = np.asarray(logits.argmax(-1) == y) & unseen
        found.append([right[:, y == c].sum() / unseen[:, y == c].sum() for c in (0, 1)])
    print("recall           without weights   with weights")
    for name, before, after in zip(("the others", "fastest tenth"), *found, strict=True):
        print(f"{name:<16} {before:>15.2f}   {after:>12.2f}")

    batch, labels = logits[0, :64], y[:64]
    class_weight = balanced_weights(y, ~unseen[0])
    losses = optax.softmax_cross_entropy_with_integer_labels(batch, labels)
    weights = jnp.take(class_weight, labels)
    each = conventions.optax.softmax_cross_entropy(class_weight=class_weight)
    numbers = {
        "jnp.mean(losses * weights)": jnp.mean(losses * weights),
        "the spec of that": cwj.loss(dataclasses.replace(each, reduction="mean_over_positions"), batch, labels),
        "jnp.average(losses, weights=weights)": jnp.average(losses, weights=weights),
        "the spec of this": cwj.loss(SPEC, batch, labels, class_weight=class_weight),
    }
    print()
    print("the same batch, logits and weights: divided by the number of rows, or by the sum of their weights")
    for name, value in numbers.items():
        print(f"{name:<38} {value:.6f}")


if __name__ == "__main__":
    main()
