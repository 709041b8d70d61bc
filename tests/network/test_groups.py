"""Channels that hang together: removed together, a network shrinks by just their slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network.networks import each_network, each_network_at_length, read_row
from network.rows import assert_close

import jnnk
from jnnk import models
from jnnk.network import read
from jnnk.network._compaction import compact
from jnnk.network._names import leaves_by_path
from jnnk.pruning import KeepRate


def masks_without(variables, slices_and_channels):
    """Masks of whole leaves: zero at the slices of the channels named."""
    masks = {path: np.ones(leaf.shape, "f4") for path, leaf in leaves_by_path(variables).items()}
    for slices, channels in slices_and_channels:
        mask = np.moveaxis(masks[slices.path], slices.axis, 0)
        mask[slices.indices[channels].ravel()] = 0
    leaves = [jnp.asarray(mask) for mask in masks.values()]
    return jax.tree.unflatten(jax.tree.structure(variables), leaves)


@each_network_at_length
def test_slices_of_a_channel_go_together(row):
    """Half the channels of each group removed: leaves lose their slices, outputs are equal."""
    apply_fn, variables, network = read_row(row)
    generator = np.random.default_rng(0)
    removed, sizes = (
        [],
        {path: list(leaf.shape) for path, leaf in leaves_by_path(variables).items()},
    )
    for group in network.groups():
        if group.reason is None and group.size > 1:
            channels = generator.choice(group.size, group.size // 2, replace=False)
            for slices in group.slices:
                removed.append((slices, channels))
                sizes[slices.path][slices.axis] -= slices.indices[channels].size
    masks = masks_without(variables, removed)
    small_fn, small = compact(apply_fn, variables, masks, row.images)
    for path, leaf in leaves_by_path(small).items():
        assert list(leaf.shape) == sizes[path], path
    masked = jnnk.apply_masks(variables, masks)
    expected = jax.jit(apply_fn)(masked, row.images)
    assert_close(jax.jit(small_fn)(small, row.images), expected)


@each_network_at_length
def test_networks_under_random_masks_become_smaller_ones(row):
    apply_fn, variables, network = read_row(row)
    masks = jnnk.make_masks(
        variables,
        criterion="random",
        selection=KeepRate(0.4, "layer"),
        key=jax.random.key(1),
        pointwise=True,
        network=network,
    )
    small_fn, small = compact(apply_fn, variables, masks, row.images)
    masked = jnnk.apply_masks(variables, masks)
    expected = jax.jit(apply_fn)(masked, row.images)
    assert_close(jax.jit(small_fn)(small, row.images), expected)


@each_network
def test_all_convolutions_are_in_groups(row):
    _, _, network = read_row(row)
    made = {name for group in network.groups() for name in group.producers}
    assert made == {conv.name for conv in network.convs}
    for group in network.groups():
        if any(network[name].steps > 1 for name in group.producers):
            assert group.reason == "it runs in a scan, whose steps share a leaf"
            assert group.size == network[group.producers[0]].output_shape[-1]
    for group in network.groups():
        for slices in group.slices:
            assert slices.indices.shape[0] == group.size
            assert len(np.unique(slices.indices)) == slices.indices.size


def resnet_groups(**options):
    model = models.create("resnet8", num_classes=5, **options)
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    network = read(lambda variables, images: model.apply(variables, images)[0], variables, images)
    return {
        group.producers: (group.size, group.readers)
        for group in network.groups()
        if group.reason is None
    }


def test_the_streams_of_resnets():
    inner = {
        (f"layer{stage}_0/conv1",): (8 * 2**stage, (f"layer{stage}_0/conv2",))
        for stage in (1, 2, 3)
    }
    first = ("conv1", "layer1_0/conv2")
    second = ("layer2_0/conv2",)
    third = ("layer3_0/conv2",)
    assert resnet_groups() == inner | {  # zeros around the stream: it goes on as it is
        first + second + third: (16, ("layer1_0/conv1", "layer2_0/conv1", "layer3_0/conv1")),
        second + third: (16, ("layer3_0/conv1",)),
        third: (32, ()),
    }
    down = [f"layer{stage}_0/downsample_conv" for stage in (2, 3)]
    assert resnet_groups(shortcut="B") == inner | {
        first: (16, ("layer1_0/conv1", down[0], "layer2_0/conv1")),
        (down[0], *second): (32, (down[1], "layer3_0/conv1")),
        (down[1], *third): (64, ()),
    }


def conv(images, kernel, groups=1):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )  # fmt: skip


def kernel(*shape):
    return jax.ShapeDtypeStruct(shape, "float32")


def groups_of(apply_fn, **variables):
    network = read(apply_fn, variables, kernel(2, 6, 6, 3))
    return {group.producers: group for group in network.groups() if group.producers}


def test_what_stays_says_why():
    found = groups_of(
        lambda v, x: conv(jnp.sort(conv(x, v["a"]), axis=-1), v["b"]),
        a=kernel(3, 3, 3, 4),
        b=kernel(3, 3, 4, 2),
    )
    assert "sort" in found["a",].reason and "output" in found["b",].reason
    found = groups_of(
        lambda v, x: conv(conv(x, v["a"]) * jax.nn.sigmoid(conv(x, v["gate"])), v["b"]),
        a=kernel(3, 3, 3, 4),
        gate=kernel(3, 3, 3, 1),
        b=kernel(3, 3, 4, 2),
    )
    assert found["a",].reason is None and "several channels" in found["gate",].reason


def test_groups_of_channels_and_norms():
    found = groups_of(
        lambda v, x: conv(conv(conv(x, v["a"]), v["grouped"], 2), v["b"]).mean((1, 2)) @ v["head"],
        a=kernel(1, 1, 3, 4),
        grouped=kernel(3, 3, 2, 6),
        b=kernel(3, 3, 6, 2),
        head=kernel(2, 5),
    )
    both = found["a", "grouped"]
    assert both.size == 2 and both.reason is None
    indices = {jax.tree_util.keystr(each.path): each.indices.tolist() for each in both.slices}
    assert indices == {
        "['a']": [[0, 1], [2, 3]],
        "['grouped']": [[0, 1, 2], [3, 4, 5]],
        "['b']": [[0, 1, 2], [3, 4, 5]],
    }

    def normed(v, x):
        maps = conv(x, v["a"])
        maps = maps - maps.mean((1, 2, 3), keepdims=True)
        return conv(maps, v["b"]).mean((1, 2)) @ v["head"]

    found = groups_of(normed, a=kernel(1, 1, 3, 4), b=kernel(3, 3, 4, 2), head=kernel(2, 5))
    assert found["a",].size == 1 and found["a",].slices[0].indices.tolist() == [[0, 1, 2, 3]]


def test_a_network_of_two_heads_shares_what_both_read():
    found = groups_of(
        lambda v, x: (
            jax.nn.relu(conv(x, v["a"])).mean((1, 2)) @ v["one"],
            jnp.max(conv(x, v["a"]), (1, 2)) @ v["two"],
        ),
        a=kernel(1, 1, 3, 4),
        one=kernel(4, 5),
        two=kernel(4, 7),
    )
    paths = {jax.tree_util.keystr(each.path) for each in found["a", "a@2"].slices}
    assert paths == {"['a']", "['one']", "['two']"}


@pytest.mark.parametrize("first", [True, False])
def test_flattened_maps_in_both_orders(first):
    def apply_fn(v, x):
        maps = conv(x, v["a"])
        maps = maps.transpose(0, 3, 1, 2) if first else maps
        return maps.reshape(2, -1) @ v["head"]

    (group,) = groups_of(apply_fn, a=kernel(1, 1, 3, 4), head=kernel(144, 5)).values()
    rows = group.slices[-1].indices
    expected = np.arange(144).reshape(4, 36) if first else np.arange(144).reshape(36, 4).T
    np.testing.assert_array_equal(rows, expected)
