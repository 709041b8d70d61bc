"""Thinning networks of NNX, Equinox and Haiku, whose variables are other trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network.thinned import check_same, random_like

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def halved(variables, ending, axis):
    """Masks that remove every second filter of the kernels whose path ends so."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if leaf.ndim != 4 or not any(name.find(part) >= 0 for part in ending):
            return np.ones((1,) * leaf.ndim, np.float32)
        shape = [1] * leaf.ndim
        shape[axis] = -1
        return (np.arange(leaf.shape[axis]) % 2).astype(np.float32).reshape(shape)

    return jax.tree_util.tree_map_with_path(draw, variables)


def shapes_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


class Block(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.second = nnx.Conv(8, 4, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.norm(self.first(x)))
        return self.dense(self.second(x).mean((1, 2)))


def test_nnx():
    graph, state = nnx.split(Block(nnx.Rngs(0)))
    state = random_like(state)
    _, small = check_same(
        lambda state, x: nnx.merge(graph, state)(x), state, halved(state, ["first"], -1), IMAGES
    )
    model = nnx.merge(graph, small)
    assert model.first.kernel.shape == (3, 3, 3, 4)
    assert model.norm.mean.shape == (4,)
    assert model.second.kernel.shape == (3, 3, 4, 4)


def test_equinox():
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        first: eqx.nn.Conv2d
        second: eqx.nn.Conv2d
        dense: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.first = eqx.nn.Conv2d(3, 8, 3, padding=1, key=keys[0])
            self.second = eqx.nn.Conv2d(8, 4, 3, stride=2, key=keys[1])
            self.dense = eqx.nn.Linear(36, 5, key=keys[2])

        def __call__(self, x):
            x = jax.nn.softplus(self.first(x))
            return self.dense(jax.nn.relu(self.second(x)).ravel())

    variables, static = eqx.partition(Network(jax.random.key(0)), eqx.is_inexact_array)
    variables = random_like(variables)

    def apply_fn(variables, images):
        return jax.vmap(eqx.combine(variables, static))(images)

    masks = halved(variables, ["first", "second"], 0)
    _, small = check_same(apply_fn, variables, masks, jnp.moveaxis(IMAGES, -1, 1))
    assert small.first.weight.shape == (4, 3, 3, 3)
    assert small.first.bias.shape == (4, 1, 1)
    assert small.second.weight.shape == (2, 4, 3, 3)
    assert small.dense.weight.shape == (5, 18)


def test_haiku():
    hk = pytest.importorskip("haiku")

    def forward(x, is_training=False):
        x = hk.Conv2D(8, 3, name="first")(x)
        x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=is_training)
        x = hk.Conv2D(4, 3, name="second")(jax.nn.silu(x))
        return hk.Linear(5)(hk.Flatten()(x))

    transformed = hk.transform_with_state(forward)
    with jax.numpy_dtype_promotion("standard"):  # Haiku's own counters need it
        params, state = transformed.init(jax.random.key(0), IMAGES, is_training=True)
    params = random_like(params)
    variables = {"params": params, "state": state}

    def apply_fn(variables, images):
        return transformed.apply(variables["params"], variables["state"], None, images)[0]

    _, small = check_same(apply_fn, variables, halved(params, ["first", "second"], -1), IMAGES)
    assert small["params"]["first"]["w"].shape == (3, 3, 3, 4)
    assert small["params"]["norm"]["scale"].shape == (1, 1, 1, 4)
    assert small["params"]["linear"]["w"].shape == (8 * 8 * 2, 5)
