"""A weighted mean over two devices, in each way that JAX shards: a script, for the devices are counted at the start."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import classweight.adapters.jax as cwj
from classweight import SoftmaxCrossEntropy

WEIGHT = jnp.array([1.0, 2, 5, 0.5])
SPEC = SoftmaxCrossEntropy(ignore_index=-1)
rng = np.random.default_rng(0)
Z = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)
Y = jnp.array([0, 1, 2, 3, -1, -1, 1, -1])


def whole(z: Any, w: Any, y: Any = Y) -> Any:
    return cwj.loss(SPEC, z, y, class_weight=w)


def of_shards(z: Any, w: Any, y: Any) -> Any:
    """Return the mean over all shards, of which each has a part of the sum and of what it is divided by."""
    total, denominator = (jax.lax.psum(x.astype(jnp.float32), "i") for x in cwj.loss_parts(SPEC, z, y, class_weight=w))
    return total / denominator


def check(name: str, found: Any, expected: Any) -> None:
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=1e-7, err_msg=name)


def main() -> None:
    assert jax.device_count() == 2
    expected = jax.value_and_grad(whole, (0, 1))(Z, WEIGHT)
    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("i"), P(), P("i")), "out_specs": P()}
    mapped = jax.shard_map(of_shards, mesh=mesh, **specs)
    for name, f in {"shard_map": mapped, "jit of shard_map": jax.jit(mapped)}.items():
        check(name, jax.value_and_grad(f, (0, 1))(Z, WEIGHT, Y), expected)
        check(f"{name}, forward", jax.jacfwd(f, 1)(Z, WEIGHT, Y), expected[1][1])

    # The denominator depends on labels and weights alone: known before, each shard's loss is its share of the mean.
    @partial(jax.shard_map, mesh=mesh, in_specs=(P("i"), P("i")), out_specs=(P(), P("i")))
    def step(z: Any, y: Any) -> Any:
        denominator = jax.lax.psum(cwj.loss_parts(SPEC, z, y, class_weight=WEIGHT)[1], "i")
        loss = lambda z: cwj.loss(SPEC, z, y, class_weight=WEIGHT, denominator=denominator)  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(z)
        return jax.lax.psum(value, "i"), gradient

    check("a step in shard_map", step(Z, Y), (expected[0], expected[1][0]))

    halves = [x.reshape(2, 4, *x.shape[1:]) for x in (Z, Y)]
    of_device = jax.pmap(lambda z, y: of_shards(z, WEIGHT, y), axis_name="i")
    check("pmap", of_device(*halves), jnp.stack([expected[0]] * 2))

    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("i",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            z, y = (jax.device_put(x, NamedSharding(mesh, P("i"))) for x in (Z, Y))
            value, gradient = jax.jit(jax.value_and_grad(whole))(z, WEIGHT, y)
            check(f"sharded arrays, {kind}", (value, gradient), (expected[0], expected[1][0]))
            assert gradient.sharding.is_equivalent_to(z.sharding, 2), (kind, gradient.sharding)
            many = jnp.tile(Z, (1, 40))
            many = jax.device_put(many, NamedSharding(mesh, P("i")))
            grad = jax.grad(lambda z, y: cwj.loss(SPEC, z, y))
            check(f"many classes, {kind}", jax.jit(grad)(many, y), grad(jnp.tile(Z, (1, 40)), Y))


if __name__ == "__main__":
    main()
