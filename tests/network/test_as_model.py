"""Networks of every library as the one model that is trained: equal to the library's own means."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.traverse_util import flatten_dict

from jnnk import InputError, models
from jnnk.data import Normalization
from jnnk.network import as_model
from jnnk.runs.checkpoints import Checkpoints
from jnnk.training import Batch, init_state, make_optimizer, make_train_step

eqx = pytest.importorskip("equinox")
hk = pytest.importorskip("haiku")

IMAGES = np.random.default_rng(0).standard_normal((4, 8, 8, 2)).astype("f4")
KEY = jax.random.key(3)
RATE = 0.9  # of running statistics that stay


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=RATE, name="norm")(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="last")(x))
        return {"logits": nn.Dense(3, name="head")(x.mean((1, 2))), "maps": x}


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=RATE, rngs=rngs)
        self.layers = nnx.List([nnx.Dropout(0.5, rngs=rngs)])
        self.last = nnx.Conv(4, 6, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = self.layers[0](nnx.relu(self.norm(self.conv(x))))
        return self.head(nnx.relu(self.last(x)).mean((1, 2)))


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.conv = eqx.nn.Conv2d(2, 4, 3, padding=1, key=keys[0])
        self.norm = eqx.nn.BatchNorm(4, "images", momentum=RATE, mode="ema")
        self.dropout = eqx.nn.Dropout(0.5)
        self.last = eqx.nn.Conv2d(4, 6, 3, stride=2, padding=1, key=keys[1])
        self.head = eqx.nn.Linear(6, 3, key=keys[2])

    def __call__(self, x, state, key):
        x, state = self.norm(self.conv(x), state)
        x = self.dropout(jax.nn.relu(x), key=key)
        return self.head(jax.nn.relu(self.last(x)).mean((1, 2))), state


class Block(hk.Module):
    def __init__(self):
        super().__init__()
        self.last = hk.Conv2D(6, 3, stride=2, name="last")

    def __call__(self, x):
        return jax.nn.relu(self.last(x))


@hk.transform_with_state
def haiku_net(x, is_training):
    x = hk.Conv2D(4, 3, name="conv")(x)
    x = jax.nn.relu(hk.BatchNorm(True, True, RATE, name="norm")(x, is_training))
    if is_training:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    return hk.Linear(3, name="head")(Block()(x).mean((1, 2)))


def plain_init(key, images):
    keys = jax.random.split(key, 3)
    channels = images.shape[-1]
    return {
        "convs": [
            jax.random.normal(keys[0], (3, 3, channels, 4)) / 4,
            jax.random.normal(keys[1], (3, 3, 4, 6)) / 6,
        ],
        "head": {"w": jax.random.normal(keys[2], (6, 3))},
        "seen": jnp.int32(7),
    }


def plain_apply(variables, images):
    x = images
    for number, kernel in enumerate(variables["convs"]):
        stride = (1 + number,) * 2
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(
                x, kernel, stride, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )
    return [x.mean((1, 2)) @ variables["head"]["w"], x]


class Case(NamedTuple):
    """A network, and what its library makes of it.

    Attributes:
        model: what `as_model` is given.
        names: of the arrays among ``params``.
        convs: names of the two convs.
        own: ``(variables as as_model has them) -> the library's own``.
        evaluate: ``(own variables, images) -> logits``.
        train: ``(own variables, images, key) -> new state``, by name; None where there is none.
    """

    model: Any
    names: set[str]
    convs: tuple[str, str]
    own: Callable[[Any], Any]
    evaluate: Callable[[Any, Any], Any]
    train: Callable[[Any, Any, Any], dict[str, Any]] | None


def linen_train(variables, images, key):
    _, updated = LinenNet().apply(
        variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return flatten_dict(updated["batch_stats"], sep="/")


NNX = NnxNet(nnx.Rngs(0))


def nnx_own(variables):
    """A copy of the module with these arrays."""
    net = nnx.clone(NNX)
    params, state = variables["params"], variables["batch_stats"]
    for name in ("conv", "last", "head"):
        layer = getattr(net, name)
        layer.kernel[...], layer.bias[...] = params[name]["kernel"], params[name]["bias"]
    net.norm.scale[...], net.norm.bias[...] = params["norm"]["scale"], params["norm"]["bias"]
    net.norm.mean[...], net.norm.var[...] = state["norm"]["mean"], state["norm"]["var"]
    return net


def nnx_evaluate(net, images):
    net.eval()
    return net(images)


def nnx_train(net, images, key):
    net.train()
    net(images)
    return {"norm/mean": net.norm.mean[...], "norm/var": net.norm.var[...]}


EQUINOX, STATE = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(0))


LEAVES = ("weight", "bias")


def equinox_own(variables):
    params, state = variables["params"], variables["batch_stats"]["norm"]
    names = ("conv", "norm", "last", "head")
    net = eqx.tree_at(
        lambda net: [getattr(getattr(net, name), leaf) for name in names for leaf in LEAVES],
        EQUINOX,
        [params[name][leaf] for name in names for leaf in LEAVES],
    )
    new = jax.tree.map(lambda leaf: leaf, STATE)
    moving = state["ema_state_index"]
    new = new.set(net.norm.ema_state_index, (moving["0"], moving["1"]))
    return net, new.set(net.norm.ema_first_time_index, state["ema_first_time_index"])


def equinox_evaluate(own, images):
    net, state = own
    net = eqx.nn.inference_mode(net)
    images = images.transpose(0, 3, 1, 2)
    return jax.vmap(lambda image: net(image, state, None)[0], axis_name="images")(images)


def equinox_train(own, images, key):
    net, state = own
    keys = jax.random.split(key, len(images))
    images = images.transpose(0, 3, 1, 2)
    _, state = jax.vmap(net, (0, None, 0), (0, None), axis_name="images")(images, state, keys)
    moving = state.get(net.norm.ema_state_index)
    return {
        "norm/ema_first_time_index": state.get(net.norm.ema_first_time_index),
        "norm/ema_state_index/0": moving[0],
        "norm/ema_state_index/1": moving[1],
    }


def haiku_own(variables):
    params, state = variables["params"], variables["batch_stats"]
    own = {name: params[name] for name in ("conv", "norm", "head")}
    norm = {f"norm/~/{name}": state["norm"]["~"][name] for name in ("mean_ema", "var_ema")}
    return {**own, "block/~/last": params["block"]["~"]["last"]}, norm


def haiku_train(own, images, key):
    _, state = haiku_net.apply(*own, key, images, True)
    return {f"{module}/{name}": leaf for module, leaves in state.items()
            for name, leaf in leaves.items()}  # fmt: skip


def plain_own(variables):
    params = variables["params"]
    kernels = params["convs"]
    return {"convs": [kernels["0"], kernels["1"]], "head": params["head"], "seen": jnp.int32(7)}


def of_layers(names, leaves):
    return {f"{name}/{leaf}" for name in names for leaf in leaves}


CASES = {
    "linen": Case(
        LinenNet(),
        of_layers(("conv", "last", "head"), ("kernel", "bias"))
        | of_layers(["norm"], ("scale", "bias")),
        ("conv", "last"),
        lambda variables: variables,
        lambda variables, images: LinenNet().apply(variables, images, train=False)["logits"],
        linen_train,
    ),
    "nnx": Case(
        NNX,
        of_layers(("conv", "last", "head"), ("kernel", "bias"))
        | of_layers(["norm"], ("scale", "bias")),
        ("conv", "last"),
        nnx_own,
        nnx_evaluate,
        nnx_train,
    ),
    "equinox": Case(
        (EQUINOX, STATE),
        of_layers(("conv", "norm", "last", "head"), ("weight", "bias")),
        ("conv", "last"),
        equinox_own,
        equinox_evaluate,
        equinox_train,
    ),
    "haiku": Case(
        haiku_net,
        of_layers(("conv", "block/~/last", "head"), ("w", "b"))
        | of_layers(["norm"], ("scale", "offset")),
        ("conv", "block/~/last"),
        haiku_own,
        lambda own, images: haiku_net.apply(*own, None, images, False)[0],
        haiku_train,
    ),
    "functions": Case(
        (plain_init, plain_apply),
        {"convs/0", "convs/1", "head/w"},
        ("convs/0", "convs/1"),
        plain_own,
        lambda own, images: plain_apply(own, images)[0],
        None,
    ),
}
each_case = pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in CASES.items()])


@pytest.fixture(autouse=True)
def _promotion(request):
    """Haiku's moving averages promote dtypes."""
    with jax.numpy_dtype_promotion("standard" if "haiku" in request.node.name else "strict"):
        yield


def started(case):
    """A model, and variables other than it starts from."""
    model = as_model(case.model)
    variables = model.init(jax.random.key(1), jnp.asarray(IMAGES[:1]), train=False)
    generator = np.random.default_rng(5)

    def moved(lowest, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return leaf + jnp.asarray(generator.uniform(lowest, 0.3, leaf.shape), leaf.dtype)

    lowest = {"params": -0.3, "batch_stats": 0.1}  # variances stay above 0
    return model, {
        name: jax.tree.map(partial(moved, lowest[name]), tree) for name, tree in variables.items()
    }


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@each_case
def test_variables_have_the_names_of_their_leaves(case):
    model, variables = started(case)
    assert set(flatten_dict(variables["params"], sep="/")) == case.names
    assert hash(model) == hash(model)


@each_case
def test_logits_are_the_network_s_own(case):
    model, variables = started(case)
    logits, activations = jax.jit(model.apply)(variables, IMAGES)
    close(logits, case.evaluate(case.own(variables), IMAGES))
    assert {name: maps.shape for name, maps in activations.items()} == {
        case.convs[0]: (4, 8, 8, 4),
        case.convs[1]: (4, 4, 4, 6),
    }


@each_case
def test_training_gives_every_parameter_a_derivative_and_the_state_its_update(case):
    model, variables = started(case)
    options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": KEY}}

    def loss(params):
        (logits, activations), updated = model.apply(
            {**variables, "params": params}, IMAGES, **options
        )
        assert set(activations) == set(case.convs)
        return (logits**2).sum(), updated

    grads, updated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for name, leaf in flatten_dict(grads, sep="/").items():
        # What a norm subtracts again has no effect on the loss.
        assert name in ("conv/bias", "conv/b") or np.abs(leaf).max() > 1e-4, name
    found = flatten_dict(updated["batch_stats"], sep="/")
    if case.train is None:
        assert found == flatten_dict(variables["batch_stats"], sep="/")
        return
    expected = case.train(case.own(variables), IMAGES, KEY)
    assert set(found) == set(expected)
    for name, leaf in found.items():
        close(leaf, expected[name])
    before = flatten_dict(variables["batch_stats"], sep="/")
    assert any(np.abs(np.subtract(found[name], before[name], dtype="f4")).max() > 1e-3
               for name in found)  # fmt: skip


@pytest.mark.parametrize("name", ["linen", "nnx", "equinox", "haiku"])
def test_dropout_draws_from_the_key_and_is_off_in_evaluation(name):
    model, variables = started(CASES[name])

    def logits(key):
        found, _ = model.apply(
            variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return np.asarray(found[0])

    one, again, other = (logits(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3
    for first, second in zip(one, other, strict=True):  # every image by itself
        assert np.abs(first - second).max() > 1e-4
    quiet = [np.asarray(model.apply(variables, IMAGES)[0]) for _ in range(2)]
    np.testing.assert_array_equal(*quiet)


@each_case
def test_activations_are_behind_norm_and_nonlinearity(case):
    """Of the first conv those that make the second one's, and of both none is negative."""
    model, variables = started(case)
    _, activations = model.apply(variables, IMAGES)
    first, last = (np.asarray(activations[name]) for name in case.convs)
    assert first.min() == last.min() == 0.0
    params = flatten_dict(variables["params"], sep="/")
    (kernel,) = (leaf for name, leaf in params.items()
                 if name.startswith(case.convs[1]) and leaf.ndim == 4)  # fmt: skip
    biases = [leaf for name, leaf in params.items()
              if name in (f"{case.convs[1]}/bias", f"{case.convs[1]}/b")]  # fmt: skip
    if kernel.shape == (6, 4, 3, 3):
        made = jax.lax.conv(first.transpose(0, 3, 1, 2), kernel, (2, 2), [(1, 1), (1, 1)])
        made = made.transpose(0, 2, 3, 1)
    else:
        made = jax.lax.conv_general_dilated(
            first, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    for bias in biases:
        made = made + bias.reshape(6)
    close(last, np.maximum(made, 0))


@each_case
def test_two_steps_of_training_lower_the_loss_and_are_kept(case, tmp_path):
    model = as_model(case.model)
    optimizer = make_optimizer("sgd", learning_rate=0.1, num_steps=1000)
    ones = np.ones(2, np.float32)
    step = make_train_step(
        model, optimizer, normalization=Normalization(0 * ones, ones), augment=False
    )
    state = init_state(model, optimizer, jax.random.key(0), image_shape=(8, 8, 2))
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 2)).astype("u1")
    start = jax.tree.map(np.asarray, state.params)
    for _ in range(2):
        state, metrics = step(state, Batch(images, jnp.array([0, 1, 2, 1])))
        assert np.isfinite(metrics.loss)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, state.params)
    assert optax.tree_utils.tree_max(moved) > 1e-3
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(0, state)
        found = checkpoints.restore(0, jax.eval_shape(lambda: state))
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, found.batch_stats, state.batch_stats)


@pytest.mark.parametrize("name", ["resnet8", "resnet50"])
def test_a_block_s_last_conv_names_its_activation(name):
    """As the networks of jnnk name it, beside shortcuts with convs of their own."""
    options = {} if name == "resnet50" else {"shortcut": "B"}
    own = models.create(name, num_classes=3, **options)
    model = as_model(own)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    names = {}

    def of(key, images):
        variables = own.init(key, images, train=False)
        names["expected"] = list(own.apply(variables, images, train=False)[1])
        names["found"] = list(model.apply(variables, images)[1])

    jax.eval_shape(of, jax.random.key(0), images)
    assert names["found"] == names["expected"]


class Collections(nn.Module):
    """Counts in a collection of its own, beside BatchNorm's."""

    @nn.compact
    def __call__(self, x, train=True):
        calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
        if train and not self.is_initializing():
            calls.value += 1
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(3, (3, 3))(x))
        return x.mean((1, 2)), calls.value


def test_other_collections_of_linen_are_kept():
    model = as_model(Collections())
    variables = model.init(KEY, IMAGES[:1])
    for expected in (1, 2):
        (_, _), updated = model.apply(variables, IMAGES, train=True, mutable=True)
        variables = {**variables, **updated}
        assert variables["batch_stats"]["other collections"]["counts"]["calls"] == expected
    assert set(variables["batch_stats"]["BatchNorm_0"]) == {"mean", "var"}


@pytest.mark.parametrize("default", [False, True, None])
@pytest.mark.parametrize("train", [False, True])
def test_networks_are_told_their_mode_whatever_they_do_by_default(default, train):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=default, deterministic=default):
            assert deterministic is not train
            return nn.BatchNorm(use_running_average=not train)(x).mean((1, 2))

    model = as_model(Net())
    variables = model.init(KEY, IMAGES[:1])
    _, updated = model.apply(variables, IMAGES, train=train, mutable=True)
    means = updated["batch_stats"]["BatchNorm_0"]["mean"]
    assert bool((means != 0).all()) == train

    def apply(variables, images, training=default, inference=default):
        assert inference is not training
        return images.mean((1, 2)) if training else jnp.zeros((len(images), 2))

    pair = as_model((lambda key, images: {"w": jnp.ones(2)}, apply))
    logits, _ = pair.apply(pair.init(KEY, IMAGES), IMAGES, train=train)
    assert bool(logits.any()) == train


class Counting(eqx.Module):
    """BatchNorm of Equinox's other mode counts batches, in a weakly typed number at first."""

    norm: eqx.nn.BatchNorm

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return x.mean((1, 2)), state


def test_a_state_that_is_weakly_typed_at_first():
    made = eqx.nn.make_with_state(lambda: Counting(eqx.nn.BatchNorm(2, "batch", mode="batch")))()
    model = as_model(made)
    variables = model.init(KEY, IMAGES[:1])
    for expected in (1, 2):
        _, updated = jax.jit(lambda v: model.apply(v, IMAGES, train=True, mutable=True))(variables)
        variables = {**variables, **jax.tree.map(np.asarray, updated)}
        assert variables["batch_stats"]["norm"]["batch_counter"] == expected


def test_state_of_a_pair_stays_as_it_is():
    def init(key, images):
        return {"params": {"w": jnp.ones((2, 3))}, "scale": {"of": jnp.float32(2)}}

    def apply(variables, images, train=True):
        offset = 100.0 if train else 0.0
        return images.mean((1, 2)) @ variables["params"]["w"] * variables["scale"]["of"] + offset

    model = as_model((init, apply))
    variables = model.init(KEY, IMAGES)
    assert set(variables["batch_stats"]) == {"scale"}
    expected = 2 * IMAGES.mean((1, 2)).sum(-1, keepdims=True).repeat(3, 1)
    close(model.apply(variables, IMAGES)[0], expected)
    (logits, activations), updated = model.apply(variables, IMAGES, train=True, mutable=True)
    close(logits, expected + 100)
    assert activations == {} and updated["batch_stats"]["scale"]["of"] == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: as_model(3), "model: expected a Flax module .* got int$"),
        (lambda: as_model(LinenNet), "got the class LinenNet$"),
        (lambda: as_model(plain_apply), "got function$"),
        (lambda: as_model((plain_init, plain_apply, 3)), "got a tuple of function, function, int$"),
    ],
)
def test_other_objects_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        wrong()


@pytest.mark.parametrize("returned", [{"features": 1}, None, (), ({},), "logits"])
def test_other_results_are_named(returned):
    model = as_model((plain_init, lambda variables, images: returned))
    with pytest.raises(InputError, match=r"expected logits: an array.* got "):
        model.apply(model.init(KEY, IMAGES), IMAGES)


def test_names_that_begin_others_are_named():
    model = as_model((lambda key, images: {"a": jnp.ones(2), "a/b": jnp.ones(2)}, plain_apply))
    with pytest.raises(InputError, match="names of which none begins another, got a/b"):
        model.init(KEY, IMAGES)
