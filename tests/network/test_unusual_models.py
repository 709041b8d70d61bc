"""Networks written in ways that nobody had in mind: they are trained and evaluated as they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jnnk import training
from jnnk.network import as_function, as_model
from jnnk.network._named_trees import named_tree

eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

IMAGES = np.random.default_rng(0).standard_normal((4, 8, 8, 2)).astype("f4")
KEY = jax.random.key(3)


def in_both_modes(model):
    """Logits in evaluation, and of a step of training with the state afterwards."""
    variables = model.init(KEY, IMAGES[:1])
    logits, _ = model.apply(variables, IMAGES)
    (trained, _), updated = model.apply(
        variables, IMAGES, train=True, mutable=True, rngs={"dropout": KEY}
    )
    return variables, logits, trained, updated["batch_stats"]


class Listed(nn.Module):
    """Its widths are a list, by which it cannot be hashed."""

    widths: list[int]

    @nn.compact
    def __call__(self, x):
        for number, width in enumerate(self.widths):
            x = nn.relu(nn.Conv(width, (3, 3), name=f"conv{number}")(x))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Listed([4, 5]),
        lambda: nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, lambda x: x.mean((1, 2))]),
    ],
)
def test_linen_modules_that_cannot_be_hashed(make):
    one, other = as_model(make()), as_model(make())
    assert hash(one) == hash(one) and one == one and one != other
    optimizer = training.make_optimizer("sgd", learning_rate=0.1, num_steps=2)
    state = training.init_state(one, optimizer, KEY, image_shape=(8, 8, 2))
    assert jax.jit(lambda v: one.apply(v, IMAGES)[0])(state.variables).shape[0] == 4


def test_modules_in_fields_are_told_their_mode():
    layers = (
        nn.Conv(4, (3, 3)),
        nn.BatchNorm(use_running_average=True),
        nn.Dropout(0.5, deterministic=True),
        lambda x: x.mean((1, 2)),
    )
    _, logits, trained, state = in_both_modes(as_model(nn.Sequential(layers)))
    assert bool((state["layers_1"]["mean"] != 0).all())
    assert bool((logits != trained).any())
    apply_fn, _ = as_function(nn.Sequential([nn.Dropout(0.5, deterministic=False)]), {"params": {}})
    np.testing.assert_array_equal(apply_fn({"params": {}}, IMAGES), IMAGES)


class OnceTold(nn.Module):
    """Its mode is a field that may be None, and then an argument."""

    deterministic: bool | None = None

    @nn.compact
    def __call__(self, x, deterministic=None):
        told = nn.merge_param("deterministic", self.deterministic, deterministic)
        return nn.Dropout(0.5)(x, deterministic=told).mean((1, 2))


def test_a_mode_that_is_none_at_first():
    _, logits, trained, _ = in_both_modes(as_model(OnceTold()))
    np.testing.assert_allclose(logits, IMAGES.mean((1, 2)), rtol=1e-6)
    assert bool((logits != trained).any())


class Sowing(nn.Module):
    """It collects a loss beside its logits."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Conv(3, (3, 3))(x))
        self.sow("losses", "l2", (x**2).mean())
        return x.mean((1, 2))


class SowingNnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        x = self.norm(self.conv(x))
        self.sow(nnx.Intermediate, "maps", x)
        return x.mean((1, 2))


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")  # Flax wants nnx.capture around it
@pytest.mark.parametrize("make", [Sowing, lambda: SowingNnx(nnx.Rngs(0))])
def test_what_is_sown_is_no_state(make):
    variables, _, _, state = in_both_modes(as_model(make()))
    before = variables["batch_stats"]
    assert jax.tree.structure(state) == jax.tree.structure(before)
    assert bool((state["norm"]["mean"] != before["norm"]["mean"]).any())


class WithHelp(nn.Module):
    """In training it has a second head."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv")(x)).mean((1, 2))
        logits = nn.Dense(3, name="head")(x)
        return (logits, nn.Dense(3, name="auxiliary")(x)) if train else logits


def test_layers_of_training_alone_are_initialised():
    variables, logits, trained, _ = in_both_modes(as_model(WithHelp()))
    assert "auxiliary" in variables["params"]
    np.testing.assert_allclose(logits, trained, rtol=1e-5)


def test_init_and_apply_of_a_linen_module_are_that_module():
    net = WithHelp()
    assert as_model((net.init, net.apply)) == as_model(net)


class DrawingEquinox(eqx.Module):
    conv: eqx.nn.Conv2d
    first: eqx.nn.Dropout
    second: eqx.nn.Dropout

    def __call__(self, x, key):
        one, other = jax.random.split(key)
        x = self.first(jax.nn.relu(self.conv(x)), key=one)
        return self.second(x, key=other).mean((1, 2))


class DrawingNnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.5)

    def __call__(self, x, rngs):
        return self.dropout(nnx.relu(self.conv(x)), rngs=rngs).mean((1, 2))


class CalledTrain(nnx.Module):
    """An attribute of it hides the method ``train``."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.train = True

    def __call__(self, x):
        return self.conv(x).mean((1, 2)) + float(self.train)


@hk.transform
def drawing_haiku(x, is_training):
    x = jax.nn.relu(hk.Conv2D(3, 3)(x))
    keep = jax.random.bernoulli(hk.next_rng_key(), 0.5 if is_training else 1.0, x.shape)
    return jnp.where(keep, x, 0).mean((1, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DrawingEquinox(
            eqx.nn.Conv2d(2, 3, 3, key=KEY), eqx.nn.Dropout(0.5), eqx.nn.Dropout(0.5)
        ),
        lambda: DrawingNnx(nnx.Rngs(0)),
        lambda: CalledTrain(nnx.Rngs(0)),
        lambda: drawing_haiku,
    ],
)
def test_networks_that_draw_in_evaluation_too(make):
    net = make()
    model = as_model(net)
    variables, logits, trained, _ = in_both_modes(model)
    assert bool((logits != trained).any())
    again, _ = model.apply(variables, IMAGES)
    np.testing.assert_array_equal(logits, again)
    own = (net, drawing_haiku.init(KEY, IMAGES[:1], True)) if net is drawing_haiku else (net,)
    apply_fn, own_variables = as_function(*own)
    images = IMAGES.transpose(0, 3, 1, 2) if isinstance(net, eqx.Module) else IMAGES
    np.testing.assert_allclose(apply_fn(own_variables, images), logits, rtol=1e-4, atol=1e-6)


def test_a_convolution_s_own_derivative_is_trained_by():
    @jax.custom_vjp
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, jnp.sign(kernel), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    conv.defvjp(lambda x, kernel: (conv(x, kernel), (x, kernel)), lambda r, g: (r[0], 3 + 0 * r[1]))

    def init(key, images):
        return {"conv": {"kernel": jax.random.normal(key, (3, 3, 2, 4))}}

    model = as_model((init, lambda v, x: jax.nn.relu(conv(x, v["conv"]["kernel"])).mean((1, 2))))
    variables = model.init(KEY, IMAGES)

    def loss(params):
        logits, activations = model.apply({**variables, "params": params}, IMAGES, train=True)
        assert activations["conv"].shape == (4, 8, 8, 4)
        return logits.sum()

    np.testing.assert_array_equal(jax.grad(loss)(variables["params"])["conv"]["kernel"], 3.0)


def test_numbers_among_the_variables_of_a_pair():
    model = as_model((lambda key, images: {"w": jnp.ones((2, 3)), "by": 2.0},
                      lambda v, x: x.mean((1, 2)) @ v["w"] * v["by"]))  # fmt: skip
    variables, logits, _, _ = in_both_modes(model)
    assert variables["params"]["by"].shape == ()
    assert as_model(model) is model
    np.testing.assert_allclose(logits[:, 0], 2 * IMAGES.mean((1, 2)).sum(-1), rtol=1e-5)


class Attention(eqx.Module):
    query: jax.Array
    key: jax.Array
    value: jax.Array


def test_an_attribute_called_value_is_a_leaf_of_its_own():
    module = {"attention": Attention(*jnp.arange(3.0))}, Attention(*jnp.arange(3.0))
    assert set(named_tree(module[1])) == {"query", "key", "value"}

    class Around(eqx.Module):
        attention: Attention

    assert set(named_tree(Around(module[1]))["attention"]) == {"query", "key", "value"}


def test_scales_and_shifts_of_other_libraries_are_not_decayed():
    params = {
        "equinox": {"weight": jnp.ones((4, 3, 3, 3)), "bias": jnp.ones((4, 1, 1))},
        "haiku": {"w": jnp.ones((3, 1)), "scale": jnp.ones((1, 1, 1, 4))},
        "scan": {"kernel": jnp.ones((2, 3, 3, 4, 4)), "bias": jnp.ones((2, 4))},
        "other": {"vector": jnp.ones((1, 4)), "matrix": jnp.ones((3, 4))},
    }
    optimizer = training.make_optimizer("sgd", learning_rate=1.0, num_steps=9, weight_decay=0.1)
    masks = jax.tree.map(jnp.ones_like, params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(zeros, optimizer.init(params), params, masks=masks)
    decayed = jax.tree.map(lambda leaf: bool(leaf.any()), updates)
    assert decayed == {
        "equinox": {"weight": True, "bias": False},
        "haiku": {"w": True, "scale": False},
        "scan": {"kernel": True, "bias": False},
        "other": {"vector": False, "matrix": True},
    }
