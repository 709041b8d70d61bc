"""Networks in Haiku; their activations come of the same layers, called by hand in a transform."""

import haiku as hk
import jax
from network.rows import ListedConv, Row, random_images, random_like

from jnnk.network._as_function import as_function

IMAGES = random_images(2, 8, 8, 3)


class Block(hk.Module):
    """Makes its second conv when it is called, its first one before."""

    def __init__(self, name=None):
        super().__init__(name)
        self.first = hk.Conv2D(4, 3, name="first")

    def __call__(self, x):
        x = jax.nn.relu(self.first(x))
        return x, jax.nn.relu(hk.Conv2D(6, 3, stride=2, name="second")(x))


class Net(hk.Module):
    """A conv, a block with convs made at both times, a Linear layer."""

    def __call__(self, x):
        first = jax.nn.relu(hk.Conv2D(4, 3, with_bias=False)(x))
        second, third = Block()(first)
        logits = hk.Linear(5)(hk.Flatten()(third))
        names = ("net/conv2_d", "net/block/~/first", "net/block/second")
        return logits, dict(zip(names, (first, second, third), strict=True))


def forward(x):
    return Net()(x)[0]


def activations(params, images):
    return hk.without_apply_rng(hk.transform(lambda x: Net()(x)[1])).apply(params, images)


def stateful(x, is_training):
    norm = {"create_scale": True, "create_offset": True, "decay_rate": 0.9}
    x = hk.Conv2D(4, 3, name="stem")(x)
    stem = x = jax.nn.relu(hk.BatchNorm(**norm, name="stem_norm")(x, is_training))
    x = hk.Conv2DTranspose(6, 2, stride=2, name="up")(x)
    up = x = jax.nn.relu(hk.BatchNorm(**norm, name="up_norm")(x, is_training))
    x = hk.DepthwiseConv2D(1, 3, stride=2, name="depthwise")(x)
    return {"stem": stem, "up": up, "depthwise": jax.nn.swish(x)}


def stateful_forward(x, is_training):
    return stateful(x, is_training)["depthwise"].mean((1, 2))


def stateful_activations(variables, images):
    found, _ = hk.transform_with_state(stateful).apply(*variables, None, images, False)
    return found


def _haiku():
    net = hk.transform(forward)
    return as_function(net, random_like(jax.eval_shape(net.init, jax.random.key(0), IMAGES)))


def _stateful():
    net = hk.without_apply_rng(hk.transform_with_state(stateful_forward))
    with jax.numpy_dtype_promotion("standard"):  # for its moving averages in training
        init = jax.eval_shape(
            lambda key: net.init(key, IMAGES, is_training=True), jax.random.key(0)
        )
    return as_function(net, random_like(init))


ROWS = (
    Row(
        "haiku",
        _haiku,
        IMAGES,
        (
            ListedConv("net/conv2_d", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("net/block/~/first", (3, 3, 4, 4), 1, (8, 8, 4), 8 * 8 * 9 * 4 * 4),
            ListedConv("net/block/second", (3, 3, 4, 6), 1, (4, 4, 6), 4 * 4 * 9 * 4 * 6),
        ),
        activations,
    ),
    Row(
        "haiku_state",
        _stateful,
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("up", (2, 2, 6, 4), 1, (16, 16, 6), 8 * 8 * 4 * 4 * 6),
            ListedConv("depthwise", (3, 3, 1, 6), 6, (8, 8, 6), 8 * 8 * 9 * 6),
        ),
        stateful_activations,
    ),
)
