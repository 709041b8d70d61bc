"""`as_function` gives what Flax's own ways of evaluating a network give; functions pass."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from network.rows import assert_close, random_images, random_like

from jnnk import InputError
from jnnk.network._as_function import as_function

IMAGES = random_images(3, 8, 8, 2)


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
    assert_close(jax.jit(apply_fn)(variables, IMAGES), expected)


def test_options_win():
    module = Linen()
    given = linen_variables(module)
    apply_fn, variables = as_function(module, given, scale=3.0)
    assert variables is given
    expected = module.apply(variables, IMAGES, train=False)["logits"] * 3
    assert_close(apply_fn(variables, IMAGES)["logits"], expected)
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
    assert_close(apply_fn(variables, IMAGES), expected)


def test_a_bound_linen_module_brings_its_variables():
    module = Linen()
    given = linen_variables(module)
    apply_fn, variables = as_function(module.bind(given))
    assert_close(variables, given)
    assert_close(apply_fn(variables, IMAGES), module.apply(given, IMAGES, train=False))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.convs = nnx.List([nnx.Conv(2, 4, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.noise = nnx.Rngs(noise=3)

    def __call__(self, x, train=True):
        x = self.dropout(self.norm(self.convs[0](x)))
        return x + jax.random.normal(self.noise.noise(), ()) + (100.0 if train else 0.0)


def test_nnx_evaluates_a_copy():
    module = Nnx(nnx.Rngs(0))
    nnx.update(module, random_like(nnx.state(module, nnx.Not(nnx.RngState))))
    apply_fn, variables = as_function(module)
    assert not module.norm.use_running_average
    assert not module.dropout.deterministic
    reference = nnx.clone(module)
    reference.eval()
    expected = reference(IMAGES, train=False)
    for _ in range(2):  # the keys' counters are where they were
        assert_close(apply_fn(variables, IMAGES), expected)
        assert_close(jax.jit(apply_fn)(variables, IMAGES), expected)
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
    assert_close(variables["convs"][0]["kernel"][...], before)
    nnx.update(module, stepped)
    assert np.abs(module.convs[0].kernel[...] - before).max() > 0
    # What happens to the module does not reach the variables.
    assert_close(variables["convs"][0]["kernel"][...], before)
    assert_close(as_function(module)[1], stepped)


def test_functions_pass_through():
    def apply(variables, images):
        return images.sum() * variables["scale"]

    given = {"scale": jnp.float32(2)}
    assert as_function(apply, given) == (apply, given)
    assert as_function((lambda key: given, apply), given) == (apply, given)
    jitted = jax.jit(apply)
    assert as_function(jitted, given)[0] is jitted
    # What is off by default stays untouched: jit would make an array of it.
    switched = jax.jit(lambda variables, images, train=False: 1 / 0 if train else images)
    assert_close(as_function(switched, given)[0](given, IMAGES), IMAGES)


def test_functions_evaluate():
    def apply(variables, images, train=True, offset=0.0):
        return images.sum() * variables + offset + (1000.0 if train else 0.0)

    expected = 2 * IMAGES.sum()
    assert_close(as_function(apply, 2.0)[0](2.0, IMAGES), expected)
    assert_close(as_function(apply, 2.0, offset=5.0)[0](2.0, IMAGES), expected + 5)
    assert_close(as_function(apply, 2.0, train=True)[0](2.0, IMAGES), expected + 1000)


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


def test_functions_of_one_nnx_module_are_equal():
    module = nnx.Conv(2, 4, (3, 3), rngs=nnx.Rngs(0))
    first, _ = as_function(module)
    second, _ = as_function(module)
    other, _ = as_function(nnx.Conv(2, 4, (1, 1), rngs=nnx.Rngs(0)))
    assert first == second
    assert first != other


def test_a_function_with_random_keys_compiles_once():
    apply_fn, variables = as_function(Nnx(nnx.Rngs(0)))
    jitted = jax.jit(lambda apply_fn, *args: apply_fn(*args), static_argnums=0)
    for scale in (1.0, 2.0):
        jitted(apply_fn, jax.tree.map(lambda leaf, by=scale: leaf * by, variables), IMAGES)
    assert jitted._cache_size() == 1


def linen_params_alone():
    return as_function(Linen(), linen_variables(Linen())["params"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: as_function(3, {}), "model: expected a Flax module .* got int$"),
        (lambda: as_function(Linen, {}), "got the class Linen$"),
        (lambda: as_function([len, len], {}), "model: expected .* got list$"),
        (lambda: as_function(Linen()), "variables: expected what init .* got None$"),
        (linen_params_alone, "got dict with 'BatchNorm_0', 'Conv_0'$"),
        (lambda: as_function(Linen(), {"params": {}}, trian=True), "train, scale.*, got trian$"),
        (lambda: as_function(Nnx(nnx.Rngs(0)), {"a": 1}), "variables: expected none .* 'a'$"),
        (
            lambda: as_function(lambda variables, images: images),
            "variables: expected the first argument",
        ),
    ],
)
def test_wrong_objects_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        wrong()


@pytest.mark.parametrize(
    ("uses", "absent"),
    [
        ("as_function(lambda v, x: x, 1)", ("flax", "equinox", "haiku")),
        (
            "from flax import linen; as_function(linen.Dense(3), {'params': {}})",
            ("equinox", "haiku"),
        ),
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
