"""`as_function` gives what the libraries' own ways of evaluating a network give."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from jnnk import InputError
from jnnk.network._as_function import as_function

eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 2)).astype("f4")
CHANNELS_FIRST = IMAGES.transpose(0, 3, 1, 2)


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def random_like(tree):
    """Other values for everything that is a floating-point number, all positive."""
    generator = np.random.default_rng(1)

    def other(leaf):
        is_inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return (
            jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), leaf.dtype) if is_inexact else leaf
        )

    return jax.tree.map(other, tree)


class Linen(nn.Module):
    """Told by an argument whether it trains."""

    @nn.compact
    def __call__(self, x, train=True, scale=1.0):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return {"logits": x.mean((1, 2)) * scale, "map": (x, x.sum())}


def linen_variables(module):
    return random_like(module.init(jax.random.key(0), IMAGES, train=False))


def test_linen_evaluates():
    module = Linen()
    apply_fn, variables = as_function(module, linen_variables(module))
    expected = module.apply(variables, IMAGES, train=False)
    assert expected["logits"].shape == (3, 4)
    close(jax.jit(apply_fn)(variables, IMAGES), expected)


def test_options_win():
    module = Linen()
    given = linen_variables(module)
    apply_fn, variables = as_function(module, given, scale=3.0)
    assert variables is given
    expected = module.apply(variables, IMAGES, train=False)["logits"] * 3
    close(apply_fn(variables, IMAGES)["logits"], expected)
    training, _ = as_function(module, given, train=True)
    with pytest.raises(Exception, match=r"batch_stats|dropout"):
        training(variables, IMAGES)


@pytest.mark.parametrize("field", [None, False])
def test_linen_told_by_field_or_argument(field):
    class Told(nn.Module):
        deterministic: bool | None = None

        @nn.compact
        def __call__(self, x, deterministic=None):
            told = nn.merge_param("deterministic", self.deterministic, deterministic)
            return nn.Dropout(0.5)(nn.Conv(4, (3, 3))(x), deterministic=told)

    variables = Told(deterministic=True).init(jax.random.key(0), IMAGES)
    apply_fn, _ = as_function(Told(deterministic=field), variables)
    expected = Told(deterministic=True).apply(variables, IMAGES)
    close(apply_fn(variables, IMAGES), expected)


def test_a_bound_linen_module_brings_its_variables():
    module = Linen()
    given = linen_variables(module)
    apply_fn, variables = as_function(module.bind(given))
    close(variables, given)
    close(apply_fn(variables, IMAGES), module.apply(given, IMAGES, train=False))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.convs = nnx.List([nnx.Conv(2, 4, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.noise = nnx.Rngs(noise=3)

    def __call__(self, x):
        x = self.dropout(self.norm(self.convs[0](x)))
        return x + jax.random.normal(self.noise.noise(), ())


def test_nnx_evaluates_a_copy():
    module = Nnx(nnx.Rngs(0))
    nnx.update(module, random_like(nnx.state(module)))
    apply_fn, variables = as_function(module)
    assert not module.norm.use_running_average
    assert not module.dropout.deterministic
    reference = nnx.clone(module)
    reference.eval()
    expected = reference(IMAGES)
    for _ in range(2):  # the keys' counters are where they were
        close(apply_fn(variables, IMAGES), expected)
        close(jax.jit(apply_fn)(variables, IMAGES), expected)
    assert int(module.noise.noise.count[...]) == 0


def test_nnx_variables_train_and_go_back():
    module = Nnx(nnx.Rngs(0))
    apply_fn, variables = as_function(module)
    assert {jnp.dtype(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {np.dtype("f4")}
    assert len(jax.tree.leaves(variables)) == 6

    gradients = jax.grad(lambda variables: (apply_fn(variables, IMAGES) ** 2).sum())(variables)
    optimizer = optax.sgd(0.1)
    updates, _ = optimizer.update(gradients, optimizer.init(variables))
    stepped = optax.apply_updates(variables, updates)
    before = np.asarray(module.convs[0].kernel[...])
    close(variables["convs"][0]["kernel"][...], before)
    nnx.update(module, stepped)
    assert np.abs(module.convs[0].kernel[...] - before).max() > 0
    # What happens to the module does not reach the variables.
    close(variables["convs"][0]["kernel"][...], before)
    close(as_function(module)[1], stepped)


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
        close(jax.tree.map(lambda leaf, at=at: leaf[at], found), (x, x.mean((1, 2))))


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
    close(apply_fn(variables, CHANNELS_FIRST), jnp.stack(expected))
    close(jax.jit(apply_fn)(variables, CHANNELS_FIRST), jnp.stack(expected))
    close(training(variables, CHANNELS_FIRST), before)
    assert eqx.tree_equal(eqx.combine(variables.params, module), module)
    newer = variables._replace(state=state)
    expected = [inference(image, state, train=False)[0] for image in CHANNELS_FIRST]
    close(apply_fn(newer, CHANNELS_FIRST), jnp.stack(expected))


def test_an_equinox_sequence_of_layers():
    layers = [eqx.nn.Conv2d(2, 4, 3, key=jax.random.key(0)), eqx.nn.Dropout(0.5)]
    module = eqx.nn.Sequential(layers)
    apply_fn, variables = as_function(module)
    close(apply_fn(variables, CHANNELS_FIRST), jax.vmap(layers[0])(CHANNELS_FIRST))


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
    close(jax.jit(apply_fn)(variables, IMAGES), net.apply(params, None, IMAGES, False))


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
    close(jax.jit(apply_fn)(variables, IMAGES), expected)
    close(apply_fn((params, state), IMAGES), expected)


def test_functions_pass_through():
    def apply(variables, images):
        return images.sum() * variables["scale"]

    given = {"scale": jnp.float32(2)}
    assert as_function(apply, given) == (apply, given)
    assert as_function((lambda key: given, apply), given) == (apply, given)
    jitted = jax.jit(apply)
    assert as_function(jitted, given)[0] is jitted


def test_functions_evaluate():
    def apply(variables, images, train=True, offset=0.0):
        return images.sum() * variables + offset + (1000.0 if train else 0.0)

    expected = 2 * IMAGES.sum()
    close(as_function(apply, 2.0)[0](2.0, IMAGES), expected)
    close(as_function(apply, 2.0, offset=5.0)[0](2.0, IMAGES), expected + 5)
    close(as_function(apply, 2.0, train=True)[0](2.0, IMAGES), expected + 1000)


def test_functions_of_equal_networks_compile_once():
    traced = []

    class Counted(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x):
            traced.append(self.features)
            return nn.Conv(self.features, (1, 1))(x)

    jitted = jax.jit(lambda apply_fn, *args: apply_fn(*args), static_argnums=0)
    variables = {size: Counted(size).init(jax.random.key(0), IMAGES) for size in (2, 3)}
    traced.clear()
    for size in (2, 3, 2, 3):
        jitted(as_function(Counted(size), variables[size])[0], variables[size], IMAGES)
    assert traced == [2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (Nnx(nnx.Rngs(0)), None, IMAGES),  # keys cannot be hashed
        lambda: (Equinox(jax.random.key(0)), None, CHANNELS_FIRST),  # nor arrays of integers
    ],
)
def test_each_function_compiles_once(make):
    model, given, images = make()
    apply_fn, variables = as_function(model, given)
    jitted = jax.jit(lambda apply_fn, *args: apply_fn(*args), static_argnums=0)
    for scale in (1.0, 2.0):
        jitted(apply_fn, jax.tree.map(lambda leaf, by=scale: leaf * by, variables), images)
    assert jitted._cache_size() == 1


def linen_params_alone():
    return as_function(Linen(), linen_variables(Linen())["params"])


def with_state_module(**given):
    module, _ = eqx.nn.make_with_state(WithState)(jax.random.key(0), "ema")
    return as_function(module, **given)


def haiku_net(with_state):
    make = hk.transform_with_state if with_state else hk.transform
    return make(lambda x: hk.Conv2D(4, 3)(x))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: as_function(3, {}), "model must be a Flax module .* got int$"),
        (lambda: as_function(Linen, {}), "got the class Linen$"),
        (lambda: as_function([len, len], {}), "model must .* got list$"),
        (lambda: as_function(Linen()), "variables must be what init .* got None$"),
        (linen_params_alone, "got dict with 'BatchNorm_0', 'Conv_0'$"),
        (lambda: as_function(Linen(), {"params": {}}, trian=True), "train, scale.*; got trian$"),
        (lambda: as_function(Nnx(nnx.Rngs(0)), {"a": 1}), "variables must be left out .* 'a'$"),
        (with_state_module, "variables must be the State .* got None$"),
        (lambda: with_state_module(variables={"a": 1}), "make_with_state .* got dict with 'a'$"),
        (lambda: as_function(haiku_net(False)), "the parameters that init .* got None$"),
        (lambda: as_function(haiku_net(False), ({}, {})), "the parameters that .* got tuple$"),
        (lambda: as_function(haiku_net(True), {}), "parameters and state that .* nothing in it$"),
        (lambda: as_function(lambda variables, images: images), "variables must be given"),
    ],
)
def test_wrong_objects_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        wrong()


@pytest.mark.parametrize(
    ("uses", "absent"),
    [
        ("as_function(lambda v, x: x, 1)", ("flax", "equinox", "haiku")),
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
