"""`as_function` gives what Equinox's and Haiku's own ways of evaluating a network give."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from network.rows import assert_close, random_images, random_like

from jnnk import InputError
from jnnk.network._as_function import as_function

eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

IMAGES = random_images(3, 8, 8, 2)
CHANNELS_FIRST = IMAGES.transpose(0, 3, 1, 2)


class Equinox(eqx.Module):
    conv: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    numbers: jax.Array
    function: object

    def __init__(self, key):
        self.conv = eqx.nn.Conv2d(2, 4, 3, key=key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.numbers = jnp.arange(4)
        self.function = jax.nn.relu

    def __call__(self, image, *, key):
        x = self.function(self.dropout(self.conv(image), key=key))
        return x, x.mean((1, 2))[self.numbers]


def test_equinox_takes_batches_of_images():
    module = Equinox(jax.random.key(0))
    apply_fn, variables = as_function(module)
    assert len(jax.tree.leaves(variables)) == 2
    assert eqx.tree_equal(eqx.combine(variables, module), module)
    assert not module.dropout.inference
    other = random_like(variables)
    found = jax.jit(apply_fn)(other, CHANNELS_FIRST)
    for at, image in enumerate(CHANNELS_FIRST):
        x = jax.nn.relu(eqx.combine(other, module).conv(image))
        assert_close(jax.tree.map(lambda leaf, at=at: leaf[at], found), (x, x.mean((1, 2))))


class WithState(eqx.Module):
    layers: list

    def __init__(self, key, mode):
        conv = eqx.nn.Conv2d(2, 4, 3, key=key)
        self.layers = [conv, eqx.nn.BatchNorm(4, "images", mode=mode)]

    def __call__(self, image, context, *, train=True):
        return (*self.layers[1](self.layers[0](image), context, inference=not train),)


@pytest.mark.parametrize("mode", ["ema", "batch"])
def test_equinox_with_state(mode):
    module, state = eqx.nn.make_with_state(WithState)(jax.random.key(0), mode)
    batch = jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name="images")
    _, state = batch(jnp.asarray(CHANNELS_FIRST), state)
    apply_fn, variables = as_function(module, state)
    inference = eqx.nn.inference_mode(module)
    expected = [inference(image, state, train=False)[0] for image in CHANNELS_FIRST]
    training, _ = as_function(module, state, train=True)
    # Training on writes to the state that was given.
    before, state = batch(jnp.asarray(CHANNELS_FIRST), state)
    assert_close(apply_fn(variables, CHANNELS_FIRST), jnp.stack(expected))
    assert_close(jax.jit(apply_fn)(variables, CHANNELS_FIRST), jnp.stack(expected))
    assert_close(training(variables, CHANNELS_FIRST), before)
    assert eqx.tree_equal(eqx.combine(variables.params, module), module)
    newer = variables._replace(state=state)
    expected = [inference(image, state, train=False)[0] for image in CHANNELS_FIRST]
    assert_close(apply_fn(newer, CHANNELS_FIRST), jnp.stack(expected))


def test_a_function_with_integers_compiles_once():
    apply_fn, variables = as_function(Equinox(jax.random.key(0)))
    jitted = jax.jit(lambda apply_fn, *args: apply_fn(*args), static_argnums=0)
    for scale in (1.0, 2.0):
        scaled = jax.tree.map(lambda leaf, by=scale: leaf * by, variables)
        jitted(apply_fn, scaled, CHANNELS_FIRST)
    assert jitted._cache_size() == 1


def test_an_equinox_sequence_of_layers():
    layers = [eqx.nn.Conv2d(2, 4, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.5)]
    module = eqx.nn.Sequential(layers)
    apply_fn, variables = as_function(module)
    assert_close(apply_fn(variables, CHANNELS_FIRST), jax.vmap(layers[0])(CHANNELS_FIRST))


def haiku_forward(x, is_training=True):
    x = hk.Conv2D(4, 3)(x)
    if is_training:
        x = jnp.where(jax.random.bernoulli(hk.next_rng_key(), 0.5, x.shape), x, 0.0)
    return x


@pytest.mark.parametrize("wrap", [lambda net: net, hk.without_apply_rng])
def test_haiku(wrap):
    net = hk.transform(haiku_forward)
    params = random_like(net.init(jax.random.key(0), IMAGES))
    apply_fn, variables = as_function(wrap(net), params)
    assert variables is params
    assert_close(jax.jit(apply_fn)(variables, IMAGES), net.apply(params, None, IMAGES, False))


@pytest.mark.parametrize("wrap", [lambda net: net, hk.without_apply_rng])
def test_haiku_with_state(wrap):
    def forward(x, is_training):
        return hk.BatchNorm(True, True, 0.9)(haiku_forward(x, False), is_training)

    net = hk.transform_with_state(forward)
    params, state = random_like(net.init(jax.random.key(0), IMAGES, True))
    apply_fn, variables = as_function(wrap(net), (params, state))
    assert variables.params is params
    assert variables.state is state
    expected, _ = net.apply(params, state, None, IMAGES, False)
    assert_close(jax.jit(apply_fn)(variables, IMAGES), expected)
    assert_close(apply_fn((params, state), IMAGES), expected)


def with_state_module(**given):
    module, _ = eqx.nn.make_with_state(WithState)(jax.random.key(0), "ema")
    return as_function(module, **given)


def haiku_net(with_state):
    make = hk.transform_with_state if with_state else hk.transform
    return make(lambda x: hk.Conv2D(4, 3)(x))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (with_state_module, "variables: expected the State .* got None$"),
        (lambda: with_state_module(variables={"a": 1}), "make_with_state .* got dict with 'a'$"),
        (lambda: as_function(Equinox(jax.random.key(0)), 3), "expected none .* got int$"),
        (lambda: as_function(haiku_net(False)), "the parameters that init .* got None$"),
        (
            lambda: as_function(haiku_net(False), ({}, {})),
            "the parameters that .* got a tuple of dict",
        ),
        (lambda: as_function(haiku_net(True), {}), "parameters and state that .* nothing in it$"),
        (lambda: as_function(haiku_net(False), {}, train=False), "options: expected .* got train$"),
    ],
)
def test_wrong_objects_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        wrong()


@pytest.mark.parametrize(
    ("uses", "absent"),
    [
        ("import equinox; as_function(equinox.nn.Identity())", ("flax", "haiku")),
        # Haiku itself imports Flax.
        ("import haiku; as_function(haiku.transform(lambda x: x), {})", ("equinox",)),
    ],
)
def test_libraries_are_imported_with_their_objects(uses, absent):
    program = f"""
import sys
import jnnk.network
from jnnk.network._as_function import as_function
{uses}
for name in {absent}:
    assert name not in sys.modules, name
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
