"""Networks in Flax NNX; their activations come of calling the layers one after the other."""

import functools

from flax import nnx
from network.rows import ListedConv, Row, random_images, random_like

from jnnk.network._as_function import as_function

IMAGES = random_images(2, 8, 8, 3)


class Block(nnx.Module):
    """conv - BatchNorm - ReLU - dropout."""

    def __init__(self, inputs, outputs, *, rngs):
        self.conv = nnx.Conv(inputs, outputs, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.conv(x))))


class Net(nnx.Module):
    """A stem, blocks in a list, a flattened map and Dense layers."""

    def __init__(self, *, rngs):
        self.conv1 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(4, 6, rngs=rngs), Block(6, 4, rngs=rngs)])
        self.hidden = nnx.Linear(2 * 2 * 4, 6, rngs=rngs)
        self.logits = nnx.Linear(6, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        for block in self.blocks:
            x = nnx.max_pool(block(x), (2, 2), strides=(2, 2))
        return self.logits(nnx.relu(self.hidden(x.reshape(len(x), -1))))


@functools.cache
def _net():
    net = Net(rngs=nnx.Rngs(0))
    nnx.update(net, random_like(nnx.state(net, nnx.Not(nnx.RngState))))
    return net


def _activations(variables, images):
    net = nnx.clone(_net())
    net.eval()
    nnx.update(net, variables)
    first = nnx.relu(net.conv1(images))
    found = {"conv1": first}
    x = first
    for number, block in enumerate(net.blocks):
        found[f"blocks/{number}/conv"] = x = nnx.relu(block.norm(block.conv(x)))
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
    return found


class Residual(nnx.Module):
    """Post-activation blocks around a bottleneck, with NNX's GroupNorm."""

    def __init__(self, *, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.reduce = nnx.Conv(8, 4, (1, 1), rngs=rngs)
        self.norm1 = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.expand = nnx.Conv(4, 8, (3, 3), rngs=rngs)
        self.norm2 = nnx.GroupNorm(8, num_groups=2, rngs=rngs)
        self.up = nnx.ConvTranspose(8, 3, (2, 2), strides=(2, 2), rngs=rngs)

    def __call__(self, x):
        x = nnx.silu(self.stem(x))
        y = nnx.silu(self.norm1(self.reduce(x)))
        return self.up(nnx.silu(x + self.norm2(self.expand(y))))


@functools.cache
def _residual():
    net = Residual(rngs=nnx.Rngs(0))
    nnx.update(net, random_like(nnx.state(net)))
    return net


def _residual_activations(variables, images):
    net = nnx.clone(_residual())
    nnx.update(net, variables)
    stem = nnx.silu(net.stem(images))
    inner = nnx.silu(net.norm1(net.reduce(stem)))
    outer = nnx.silu(stem + net.norm2(net.expand(inner)))
    return {"stem": stem, "reduce": inner, "expand": outer, "up": net.up(outer)}


ROWS = (
    Row(
        "nnx",
        lambda: as_function(_net()),
        IMAGES,
        (
            ListedConv("conv1", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("blocks/0/conv", (3, 3, 4, 6), 1, (8, 8, 6), 8 * 8 * 9 * 4 * 6),
            ListedConv("blocks/1/conv", (3, 3, 6, 4), 1, (4, 4, 4), 4 * 4 * 9 * 6 * 4),
        ),
        _activations,
    ),
    Row(
        "nnx_residual",
        lambda: as_function(_residual()),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 8), 1, (4, 4, 8), 4 * 4 * 9 * 3 * 8),
            ListedConv("reduce", (1, 1, 8, 4), 1, (4, 4, 4), 4 * 4 * 8 * 4),
            ListedConv("expand", (3, 3, 4, 8), 1, (4, 4, 8), 4 * 4 * 9 * 4 * 8),
            ListedConv("up", (2, 2, 8, 3), 1, (8, 8, 3), 4 * 4 * 4 * 8 * 3),
        ),
        _residual_activations,
    ),
)
