"""Masks told by a network: any layout, any library, zero in training."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from network.networks import each_network_at_length, read_row

import jnnk
from jnnk.network import read
from jnnk.network._names import leaves_by_path
from jnnk.pruning import (
    KeepRate,
    load_masks,
    masks_from_layers,
    save_masks,
    summarize,
    taylor_scores,
)


def positions_of(row, path, rank):
    """Axes of a kernel over positions, as its library stores them."""
    filters_first = "weight" in jax.tree_util.keystr(path) or row.name == "plain_nchw"
    return tuple(range(2, rank)) if filters_first else tuple(range(rank - 2))


@each_network_at_length
def test_the_smallest_kernels_are_pruned_wherever_they_lie(row):
    _, variables, network = read_row(row)
    masks = jnnk.make_masks(
        variables,
        criterion="weight",
        selection=KeepRate(0.6, "layer"),
        pointwise=True,
        network=network,
    )
    assert jax.tree.structure(masks) == jax.tree.structure(variables)
    kernels = {conv.path for conv in network.convs}
    leaves, found = leaves_by_path(variables), leaves_by_path(masks)
    for path, mask in found.items():
        if path not in kernels:
            assert mask.shape == () and mask == 1
            continue
        kernel = np.asarray(leaves[path], np.float64)
        steps = next(conv.steps for conv in network.convs if conv.path == path)
        over = positions_of(row, path, kernel.ndim - (steps > 1))
        over = tuple(axis + (steps > 1) for axis in over)
        means = np.abs(kernel).mean(axis=over, keepdims=True)
        assert mask.shape == means.shape
        num_pruned = math.floor(0.4 * means.size + 1e-9)
        assert (mask == 0).sum() == num_pruned
        if num_pruned:
            assert means[mask == 0].max() <= means[mask == 1].min()


@each_network_at_length
def test_pruned_weights_stay_zero_in_training(row):
    apply_fn, variables, network = read_row(row)
    masks = jnnk.make_masks(
        variables, criterion="weight", keep_rate=0.5, pointwise=True, network=network
    )
    optimizer = jnnk.keep_pruned_zero(optax.adamw(0.01))
    trained, frozen = split(variables)
    masks_of_trained, _ = split(masks, like=variables)

    def loss(trained):
        outputs = apply_fn(joined(trained, frozen), row.images)
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(outputs))

    @jax.jit
    @jax.numpy_dtype_promotion("standard")  # which Optax expects
    def step(trained, state):
        updates, state = optimizer.update(
            jax.grad(loss)(trained), state, trained, masks=masks_of_trained
        )
        return optax.apply_updates(trained, updates), state

    weights = jnnk.apply_masks(trained, masks_of_trained)
    state = optimizer.init(weights)
    before = weights
    for _ in range(2):
        weights, state = step(weights, state)
    moved = 0
    for start, after, mask in zip(
        *map(jax.tree.leaves, (before, weights, masks_of_trained)), strict=True
    ):
        pruned = np.broadcast_to(np.asarray(mask) == 0, after.shape)
        assert (np.asarray(after)[pruned] == 0).all()
        moved += (np.asarray(after) != np.asarray(start))[~pruned].sum()
    assert moved > 0


def split(variables, like=None):
    """The floating leaves, and the others; None in the place of those that are not there."""
    like = variables if like is None else like
    trains = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating), like)
    return (
        jax.tree.map(lambda leaf, here: leaf if here else None, variables, trains),
        jax.tree.map(lambda leaf, here: None if here else leaf, variables, trains),
    )


def joined(first, second):
    return jax.tree.map(
        lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None
    )


@each_network_at_length
def test_counts_scores_and_files(row, tmp_path):
    _, variables, network = read_row(row)
    convs = {conv.path: conv for conv in network.convs}
    masks = masks_from_layers(variables, {}, network=network)
    summary = summarize(variables, masks, network=network)
    assert summary.macs == (sum(conv.macs for conv in row.convs),) * 2
    assert len(summary.layers) == len(convs)
    masks = jnnk.make_masks(
        variables, criterion="weight", keep_rate=0.5, pointwise=True, network=network
    )
    save_masks(tmp_path / "masks.safetensors", masks, network=network)
    loaded = load_masks(tmp_path / "masks.safetensors", variables, network=network)
    jax.tree.map(np.testing.assert_array_equal, loaded, masks)
    summary = summarize(variables, masks, network=network)
    assert summary.kernels[1] == round(summary.kernels[0] / 2) or summary.kernels[0] % 2


def test_taylor_scores_of_kernels_that_lie_otherwise():
    """The square of the derivative by a gate on each kernel."""
    generator = np.random.default_rng(0)
    kernel = jnp.asarray(generator.normal(size=(4, 3, 3, 3)), jnp.float32)  # OIHW
    images = jnp.asarray(generator.normal(size=(2, 5, 3, 6, 6)), jnp.float32)

    def apply_fn(variables, images, gates=1.0):
        kernel = variables["conv"] * gates
        return jnp.tanh(jax.lax.conv(images, kernel, (1, 1), "SAME")).sum()

    network = read(apply_fn, {"conv": kernel}, images[0])
    scores = taylor_scores(apply_fn, {"conv": kernel}, images, network=network)["conv"]
    gates = jnp.ones((4, 3, 1, 1))
    by_gate = [
        jax.grad(lambda gates, batch: apply_fn({"conv": kernel}, batch, gates))(gates, batch)
        for batch in images
    ]
    expected = np.square(by_gate).mean(0)[..., 0, 0].T
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_a_part_of_the_variables_and_another_tree():
    kernel = jnp.ones((3, 3, 2, 4))

    def apply_fn(variables, images):
        return jax.lax.conv_general_dilated(
            images, variables["params"]["a"]["kernel"], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    variables = {"params": {"a": {"kernel": kernel}, "b": jnp.ones(2)}, "batch_stats": {}}
    network = read(apply_fn, variables, jnp.ones((1, 5, 5, 2)))
    masks = jnnk.make_masks(
        variables["params"], criterion="weight", keep_rate=0.25, network=network
    )
    assert masks["a"]["kernel"].shape == (1, 1, 2, 4) and masks["a"]["kernel"].sum() == 2
    with pytest.raises(ValueError, match=r"network: expected .* got one with .*'a'.*\['kernel'\]"):
        jnnk.make_masks({"c": kernel}, criterion="weight", keep_rate=0.5, network=network)
    with pytest.raises(ValueError, match=r"'a' has the kernel \(3, 3, 5, 4\), got .*\(3, 3, 2, 4"):
        other = {"a": {"kernel": jnp.ones((3, 3, 5, 4))}}
        jnnk.make_masks(other, criterion="weight", keep_rate=0.5, network=network)


def test_what_cannot_be_followed_is_named():
    def apply_fn(variables, images):
        made = variables["a"] @ variables["b"]
        return jax.lax.conv(images, made.reshape(4, 2, 3, 3), (1, 1), "SAME") + jax.lax.conv(
            images, variables["c"], (1, 1), "SAME"
        )

    variables = {"a": jnp.ones((8, 2)), "b": jnp.ones((2, 9)), "c": jnp.ones((4, 2, 3, 3))}
    network = read(apply_fn, variables, jnp.ones((1, 2, 5, 5)))
    assert [conv.name for conv in network.convs] == ["c"]
    assert "nor made of one by element" in str(network)
    with pytest.warns(UserWarning, match=r"not pruned, .*kernel \(4, 2, 3, 3\): its kernel is no"):
        jnnk.make_masks(variables, criterion="weight", keep_rate=0.5, network=network)
