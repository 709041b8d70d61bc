"""Reading networks: the convolutions a person lists, and the activations the library itself has."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from network.networks import each_network, each_network_at_length, read_row, row_named
from network.rows import random_images

from jnnk import models
from jnnk.network import capture, read, with_activations
from jnnk.network._names import layer_name, layer_of_leaf, leaf_path, leaves_by_path


def close(found, expected, rtol=1e-5):
    """Equal to a share of the largest value."""
    scale = float(np.abs(np.asarray(expected, np.float64)).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * max(scale, 1e-3))


@each_network
def test_the_listed_convolutions_are_found(row):
    _, variables, network = read_row(row)
    found = {
        conv.name: (conv.kernel_shape, conv.groups, conv.output_shape, conv.macs, conv.steps)
        for conv in network.convs
    }
    listed = {
        conv.name: (conv.kernel_shape, conv.groups, conv.output_shape, conv.macs, conv.steps)
        for conv in row.convs
    }
    assert found == listed
    assert network.left_out == ()
    leaves = leaves_by_path(variables)
    for conv in network.convs:
        assert leaves[conv.path].shape == conv.kernel_shape
        axes = (*conv.axes.spatial, conv.axes.input, conv.axes.output, *conv.axes.stack)
        assert sorted(axes) == list(range(len(conv.kernel_shape)))
        assert conv.kernel_shape[conv.axes.output] == conv.output_shape[-1]
        assert f"\n{conv.name} " in f"\n{network}"


@pytest.mark.parametrize("path", ["conv1/kernel", "stem/0/weight", "net/~/w"])
def test_a_layer_has_one_name_in_networks_and_in_lists_of_leaves(path):
    keys = [jax.tree_util.DictKey(name) for name in ("params", *path.split("/"))]
    assert layer_name(keys) == layer_of_leaf(path) == path.rsplit("/", 1)[0]
    assert layer_name(keys[-1:]) == layer_of_leaf(keys[-1].key)


@each_network_at_length
def test_activations_are_those_of_the_library(row):
    apply_fn, variables = row.make()
    outputs, found = jax.jit(with_activations(apply_fn))(variables, row.images)
    own = jax.jit(apply_fn)(variables, row.images)
    assert jax.tree.structure(outputs) == jax.tree.structure(own)
    jax.tree.map(close, outputs, own)
    wanted = {}
    own_activations = jax.jit(row.activations)(variables, row.images)
    for conv in row.convs:
        values = own_activations[conv.name]
        if conv.steps == 1:
            wanted[conv.name] = values
        else:
            wanted |= {f"{conv.name}[{step}]": values[step] for step in range(conv.steps)}
    assert found.keys() == wanted.keys()
    captured = {layer.name: layer.values for layer in capture(apply_fn, variables, row.images)}
    assert captured.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].shape[::3] == (len(row.images), values.shape[-1])
        close(found[name], jnp.reshape(values, found[name].shape))
        close(captured[name], found[name])


@pytest.mark.parametrize(
    "name", ["plain_made_kernels", "linen_remat", "linen_scan", "equinox", "haiku"]
)
def test_derivatives_are_the_networks_own(name):
    """Custom rules hold, as in a nonlinearity that lets gradients pass where it is flat."""
    row = row_named(name)
    apply_fn, variables = row.make()

    def by_reading(variables):
        found = with_activations(apply_fn)(variables, row.images)[1]
        return sum(jnp.square(values).sum() for values in found.values())

    def by_the_library(variables):
        found = row.activations(variables, row.images)
        return sum(jnp.square(found[conv.name]).sum() for conv in row.convs)

    grads = jax.jit(jax.grad(by_reading))(variables)
    jax.tree.map(partial(close, rtol=1e-4), grads, jax.grad(by_the_library)(variables))


def test_capture_in_passes_and_parts():
    row = row_named("equinox")  # (N, C, H, W)
    apply_fn, variables = row.make()
    expected = row.activations(variables, row.images)
    captured = list(capture(apply_fn, variables, row.images, batch_size=2, memory_limit=1))
    assert [layer.name for layer in captured] == [conv.name for conv in row.convs]
    for layer in captured:
        close(layer.values, expected[layer.name])
    name = captured[-1].name
    (few,) = capture(apply_fn, variables, row.images, layers=[name], channels={name: [1]})
    close(few.values, expected[name][..., [1]])
    before = list(capture(apply_fn, variables, row.images, site="conv"))
    assert any((a.values != b.values).any() for a, b in zip(before, captured, strict=True))


class Plain(nn.Module):
    """Strides, dilations, a stride of a transposed convolution, one of a scan."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=(2, 1), use_bias=False, name="strided")(x))
        x = nn.relu(nn.Conv(6, (3, 1), kernel_dilation=2, use_bias=False, name="dilated")(x))
        x = nn.relu(nn.ConvTranspose(2, (2, 2), strides=(2, 2), use_bias=False, name="up")(x))
        return x.mean((1, 2))


def plain():
    model, images = Plain(), random_images(3, 8, 6, 3)
    variables = model.init(jax.random.key(0), images)
    return model, variables, images


def test_the_conv_site_is_the_output_of_flax_s_own_layer():
    model, variables, images = plain()
    _, seen = model.apply(variables, images, capture_intermediates=True)
    layers = list(capture(model.apply, variables, images, site="conv"))
    assert [layer.name for layer in layers] == ["strided", "dilated", "up"]
    for layer in layers:
        close(layer.values, seen["intermediates"][layer.name]["__call__"][0])


def test_what_is_told_of_a_convolution():
    model, variables, images = plain()
    network = read(model.apply, variables, images)
    told = [
        (c.strides, c.kernel_dilation, c.input_dilation, c.is_transposed, c.kernel_size, c.params)
        for c in network.convs
    ]
    assert told == [
        ((2, 1), (1, 1), (1, 1), False, (3, 3), 108),
        ((1, 1), (2, 2), (1, 1), False, (3, 1), 72),
        ((1, 1), (1, 1), (2, 2), True, (2, 2), 48),
    ]
    assert {conv.channel_axis for conv in network.convs} == {3}
    chw = read(
        lambda kernel, x: jax.lax.conv(x, kernel, (1, 1), "SAME"),
        jax.ShapeDtypeStruct((4, 3, 3, 3), "float32"),
        jax.ShapeDtypeStruct((2, 3, 8, 8), "float32"),
    )
    assert chw.convs[0].channel_axis == 1
    assert str(network) == TABLE


TABLE = """\
conv     kernel  in  out  stride      output  weights   MACs
strided       3   3    4   2 x 1   4 x 6 x 4      108  2,592
dilated   3 x 1   4    6       1   4 x 6 x 6       72  1,728  dilation 2
up            2   6    2       1  8 x 12 x 2       48  1,152  transposed, stride 2
all                                               228  5,472"""


def kernel_of(variables, images):
    return jax.lax.conv(images, variables["kernel"], (1, 1), "SAME")


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        (lambda v, x: jax.lax.cond(x.sum() > 0, lambda y: kernel_of(v, y), lambda y: y, x), "cond"),
        (lambda v, x: jax.lax.fori_loop(0, v["n"], lambda _, y: kernel_of(v, y), x), "while"),
        (
            lambda v, x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: kernel_of(v, y), x),
            "while",
        ),
    ],
)
def test_convolutions_that_are_not_followed_are_listed(inside, name):
    variables = {"kernel": jnp.ones((3, 3, 3, 3)), "n": jnp.array(2)}
    network = read(inside, variables, jnp.ones((2, 3, 4, 4)))
    assert network.convs == ()
    assert [each.what for each in network.left_out] == [f"convolutions in {name}"]
    assert f"convolutions in {name}" in str(network)


BATCH_NORM = ("mean", "shift"), ("scale", "scale"), ("var", "statistic"), ("bias", "shift")


@pytest.mark.parametrize(
    ("row", "conv", "expected"),
    [
        ("resnet", "first0", [(f"Norm_1/bn/{name}", role) for name, role in BATCH_NORM]),
        ("linen_batch_norm", "Conv_1",
         [("Conv_1/bias", "shift"), *((f"BatchNorm_1/{name}", role) for name, role in BATCH_NORM)]),
        ("nnx_residual", "reduce",
         [("reduce/bias", "shift"), ("norm1/scale", "scale"), ("norm1/bias", "shift")]),
        ("resnet_pre_activation", "second1", [("second1/bias", "shift")]),  # a sum, then the norm
        ("linen_pointwise", "Conv_1", []),
    ],
)  # fmt: skip
def test_bias_and_norm_of_a_convolution(row, conv, expected):
    row = row_named(row)
    found = read(*row.make(), row.images)[conv].channel_leaves
    assert [
        (leaf_path(leaf.path).removeprefix("params/").removeprefix("batch_stats/"), leaf.role)
        for leaf in found
    ] == expected
    assert all(leaf.axis == 0 for leaf in found)


@pytest.mark.parametrize(
    ("name", "blocks", "convs", "gmacs"),
    [("resnet18", (2, 2, 2, 2), 2, 1.81), ("resnet50", (3, 4, 6, 3), 3, 4.09)],
)
def test_torchvisions_resnets(name, blocks, convs, gmacs):
    """Names are torchvision's but for punctuation; MACs are what its documentation says."""
    model = models.create(name, num_classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    network = read(lambda v, x: model.apply(v, x)[0], variables, images)
    expected = {"conv1"}
    for stage, size in enumerate(blocks, 1):
        for block in range(size):
            expected |= {f"layer{stage}.{block}.conv{number}" for number in range(1, convs + 1)}
        if stage > 1 or convs == 3:
            expected.add(f"layer{stage}.0.downsample.0")
    found = {
        conv.name.replace("_conv", ".0").replace("_", ".").replace("/", ".")
        for conv in network.convs
    }
    assert found == expected and len(network.convs) == len(expected)
    assert abs(sum(conv.macs for conv in network.convs) / 1e9 - gmacs) < 0.006
