"""Networks in Equinox, each of one image (C, H, W); layers are called by hand for activations."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from network.rows import ListedConv, Row, random_images, random_like

from jnnk.network._as_function import as_function

IMAGES = random_images(2, 3, 8, 8)


def last(x):
    """(N, C, H, W) to (N, H, W, C)."""
    return jnp.moveaxis(x, 1, -1)


def filled(module):
    """The module with other arrays."""
    arrays, static = eqx.partition(module, eqx.is_inexact_array)
    return eqx.combine(random_like(arrays), static)


class Plain(eqx.Module):
    """As in Equinox's tutorial: layers and functions in a list, then a flattened map."""

    layers: list

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.layers = [
            eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
            eqx.nn.MaxPool2d(2, 2),
            jax.nn.relu,
            eqx.nn.Conv2d(4, 6, 3, padding=1, groups=2, key=keys[1]),
            jax.nn.gelu,
            eqx.nn.ConvTranspose2d(6, 4, 2, 2, key=keys[2]),
            jax.nn.relu,
            jnp.ravel,
            eqx.nn.Linear(4 * 6 * 6, 5, key=keys[3]),
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@functools.cache
def _plain():
    return filled(Plain(jax.random.key(0)))


def _plain_activations(variables, images):
    layers = eqx.combine(variables, _plain()).layers
    found = {}
    x = images
    for number, layer in enumerate(layers[:-2]):
        x = (layer if layer in (jax.nn.relu, jax.nn.gelu) else jax.vmap(layer))(x)
        found[number] = last(x)
    # The pooling reads the first conv's output before any nonlinearity.
    return {"layers/0": found[0], "layers/3": found[4], "layers/5": found[6]}


class Block(eqx.Module):
    """A post-activation residual block."""

    conv1: eqx.nn.Conv2d
    norm1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, channels, key):
        keys = jax.random.split(key)
        self.conv1 = eqx.nn.Conv2d(channels, 6, 3, padding=1, use_bias=False, key=keys[0])
        self.conv2 = eqx.nn.Conv2d(6, channels, 3, padding=1, use_bias=False, key=keys[1])
        self.norm1 = eqx.nn.BatchNorm(6, "batch", mode="ema")
        self.norm2 = eqx.nn.BatchNorm(channels, "batch", mode="ema")
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key=None):
        y, state = self.norm1(self.conv1(x), state)
        y = self.dropout(jax.nn.relu(y), key=key)
        y, state = self.norm2(self.conv2(y), state)
        return jax.nn.relu(x + y), state


class WithState(eqx.Module):
    """Two residual blocks with BatchNorm between a stem and a Linear layer."""

    stem: eqx.nn.Conv2d
    blocks: list[Block]
    linear: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.stem = eqx.nn.Conv2d(3, 4, 3, stride=2, padding=1, key=keys[0])
        self.blocks = [Block(4, key=keys[1]), Block(4, key=keys[2])]
        self.linear = eqx.nn.Linear(4, 5, key=keys[3])

    def __call__(self, x, state, *, key=None):
        x = jax.nn.relu(self.stem(x))
        for block in self.blocks:
            x, state = block(x, state, key=key)
        return self.linear(x.mean((1, 2))), state


@functools.cache
def _with_state():
    module, state = eqx.nn.make_with_state(WithState)(jax.random.key(0))
    # Means and variances have no names in a State: all of them are positive.
    return filled(module), random_like({"var": state})["var"]


def _with_state_activations(variables, images):
    module = eqx.nn.inference_mode(eqx.combine(variables.params, _with_state()[0]))

    def norm(layer, x):
        return jax.vmap(lambda x: layer(x, variables.state)[0], axis_name="batch")(x)

    x = jax.nn.relu(jax.vmap(module.stem)(images))
    found = {"stem": x}
    for number, block in enumerate(module.blocks):
        y = jax.nn.relu(norm(block.norm1, jax.vmap(block.conv1)(x)))
        x = jax.nn.relu(x + norm(block.norm2, jax.vmap(block.conv2)(y)))
        found |= {f"blocks/{number}/conv1": y, f"blocks/{number}/conv2": x}
    return {name: last(values) for name, values in found.items()}


class Stacked(eqx.Module):
    """Blocks made by ``filter_vmap`` and run by a scan, as Equinox's documentation shows."""

    stem: eqx.nn.Conv2d
    blocks: eqx.nn.Conv2d

    def __init__(self, key):
        keys = jax.random.split(key)
        self.stem = eqx.nn.Conv2d(3, 4, 3, padding=1, key=keys[0])
        make = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(4, 4, 3, padding=1, key=key))
        self.blocks = make(jax.random.split(keys[1], 3))

    def __call__(self, x):
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def step(x, arrays):
            return jax.nn.silu(eqx.combine(arrays, static)(x)), None

        x, _ = jax.lax.scan(step, jax.nn.silu(self.stem(x)), arrays)
        return x.mean((1, 2))


@functools.cache
def _stacked():
    return filled(Stacked(jax.random.key(0)))


def _stacked_activations(variables, images):
    module = eqx.combine(variables, _stacked())
    stem = x = jax.nn.silu(jax.vmap(module.stem)(images))
    steps = []
    for number in range(3):
        block = jax.tree.map(lambda leaf, at=number: leaf[at], module.blocks)
        x = jax.nn.silu(jax.vmap(block)(x))
        steps.append(last(x))
    return {"stem": last(stem), "blocks": jnp.stack(steps)}


ROWS = (
    Row(
        "equinox",
        lambda: as_function(_plain()),
        IMAGES,
        (
            ListedConv("layers/0", (4, 3, 3, 3), 1, (6, 6, 4), 6 * 6 * 9 * 3 * 4),
            ListedConv("layers/3", (6, 2, 3, 3), 2, (3, 3, 6), 3 * 3 * 9 * 2 * 6),
            ListedConv("layers/5", (4, 6, 2, 2), 1, (6, 6, 4), 3 * 3 * 4 * 6 * 4),
        ),
        _plain_activations,
    ),
    Row(
        "equinox_state",
        lambda: as_function(*_with_state()),
        IMAGES,
        (
            ListedConv("stem", (4, 3, 3, 3), 1, (4, 4, 4), 4 * 4 * 9 * 3 * 4),
            ListedConv("blocks/0/conv1", (6, 4, 3, 3), 1, (4, 4, 6), 4 * 4 * 9 * 4 * 6),
            ListedConv("blocks/0/conv2", (4, 6, 3, 3), 1, (4, 4, 4), 4 * 4 * 9 * 6 * 4),
            ListedConv("blocks/1/conv1", (6, 4, 3, 3), 1, (4, 4, 6), 4 * 4 * 9 * 4 * 6),
            ListedConv("blocks/1/conv2", (4, 6, 3, 3), 1, (4, 4, 4), 4 * 4 * 9 * 6 * 4),
        ),
        _with_state_activations,
    ),
    Row(
        "equinox_scan",
        lambda: as_function(_stacked()),
        IMAGES,
        (
            ListedConv("stem", (4, 3, 3, 3), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("blocks", (3, 4, 4, 3, 3), 1, (8, 8, 4), 3 * 8 * 8 * 9 * 4 * 4, steps=3),
        ),
        _stacked_activations,
    ),
)
