"""Taylor scores against derivatives by gates, computed in float64 with NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.models import create
from jnnk.network import read
from jnnk.pruning import (
    KeepRate,
    channel_masks,
    make_masks,
    taylor_channel_scores,
    taylor_scores,
)
from jnnk.pruning._conv_leaves import conv_kernels

RNG = np.random.default_rng(0)
PARAMS = {
    "conv": {"kernel": RNG.normal(size=(3, 3, 2, 4)), "bias": RNG.normal(size=4)},
    "fc": {"kernel": RNG.normal(size=(4, 3))},
}
BATCHES = (RNG.normal(size=(5, 6, 3, 3, 2)), RNG.normal(size=(5, 6, 3)))


def loss(params, batch):
    """Squared error of a conv on its whole input, tanh and a dense layer."""
    images, targets = batch
    hidden = jnp.einsum("nhwi,hwio->no", images, params["conv"]["kernel"]) + params["conv"]["bias"]
    return jnp.mean(jnp.square(jnp.tanh(hidden) @ params["fc"]["kernel"] - targets))


def gate_slopes():
    """Derivatives of the loss by gates on kernels (B, 2, 4) and channels (B, 4), in float64."""
    kernel, bias, dense = PARAMS["conv"]["kernel"], PARAMS["conv"]["bias"], PARAMS["fc"]["kernel"]
    parts = np.einsum("bnhwi,hwio->bnio", BATCHES[0], kernel)  # what each kernel puts out
    hidden = np.tanh(parts.sum(2) + bias)
    error = 2 * (hidden @ dense - BATCHES[1]) / BATCHES[1][0].size
    slope = (error @ dense.T) * (1 - hidden**2)  # by what goes into tanh, (B, N, 4)
    return (
        np.einsum("bno,bnio->bio", slope, parts),
        np.einsum("bno,bno->bo", slope, parts.sum(2) + bias),
    )


@pytest.fixture(scope="module")
def arrays():
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (PARAMS, BATCHES))


def test_scores_are_squared_derivatives_by_gates(arrays):
    params, batches = arrays
    by_kernel, by_channel = gate_slopes()
    scores = jax.jit(lambda p, b: taylor_scores(loss, p, b))(params, batches)
    assert list(scores) == ["conv/kernel"]
    np.testing.assert_allclose(scores["conv/kernel"], (by_kernel**2).mean(0), rtol=1e-4)
    scores = taylor_channel_scores(loss, params, batches)
    np.testing.assert_allclose(scores["conv/kernel"], (by_channel**2).mean(0), rtol=1e-4)
    # Squares are averaged, not averages squared.
    assert not np.allclose((by_channel**2).mean(0), by_channel.mean(0) ** 2, rtol=0.1)


def test_masks_by_them_keep_the_largest(arrays):
    params, batches = arrays
    by_kernel, by_channel = ((slopes**2).mean(0) for slopes in gate_slopes())
    masks = make_masks(params, criterion=taylor_scores(loss, params, batches), keep_rate=0.5)
    np.testing.assert_array_equal(
        masks["conv"]["kernel"][0, 0], by_kernel > np.sort(by_kernel, None)[3]
    )
    masks = make_masks(
        params,
        criterion=taylor_channel_scores(loss, params, batches),
        selection=KeepRate(0.5, whole_filters=True),
    )
    keep = np.broadcast_to(by_channel > np.sort(by_channel)[1], (2, 4))
    np.testing.assert_array_equal(masks["conv"]["kernel"][0, 0], keep)


class Smooth(nn.Module):
    """Two convs without a kink, of which the first has a BatchNorm."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.BatchNorm(True, name="norm")(nn.Conv(3, (3, 3), name="first")(x)))
        x = nn.softplus(nn.Conv(4, (3, 3), name="second")(x))
        return nn.Dense(3, name="fc")(x.mean((1, 2)))


def test_scores_are_those_of_central_differences_in_float64():
    images, targets = RNG.normal(size=(2, 4, 5, 5, 2)), RNG.normal(size=(2, 4, 3))
    shapes = jax.eval_shape(Smooth().init, jax.random.key(0), jnp.zeros((4, 5, 5, 2)))
    variables = jax.tree.map(lambda leaf: RNG.uniform(0.2, 1, leaf.shape), shapes)
    variables["params"]["first"]["kernel"] -= 0.6

    def loss(params, batch):
        logits = Smooth().apply({**variables, "params": params}, batch[0])
        return jnp.mean(jnp.square(logits - batch[1]))

    def slope(gates):
        """By differences along the leaves that gates, broadcast to them, multiply."""

        def at(step):
            params = jax.tree.map(lambda leaf: leaf, variables["params"])
            for (layer, name), gate in gates.items():
                params[layer][name] = params[layer][name] * (1 + step * gate)
            return [float(value(params, batch)) for batch in zip(images, targets, strict=True)]

        return np.mean(np.square(np.subtract(at(1e-5), at(-1e-5)) / 2e-5))

    with jax.enable_x64(True):
        value = jax.jit(loss)
        gated = {"first": (("norm", "scale"), ("norm", "bias"))}
        gated["second"] = (("second", "kernel"), ("second", "bias"))
        by_channel = {
            layer: [slope(dict.fromkeys(leaves, gate)) for gate in np.eye(width)]
            for (layer, leaves), width in zip(gated.items(), (3, 4), strict=True)
        }
        gates = np.eye(12).reshape(12, 3, 4)
        by_kernel = np.reshape([slope({("second", "kernel"): gate}) for gate in gates], (3, 4))
    arguments = jax.tree.map(jnp.float32, (variables["params"], (images, targets)))
    variables = jax.tree.map(jnp.float32, variables)
    network = read(Smooth().apply, variables, jnp.float32(images[0]))
    scores = taylor_channel_scores(loss, *arguments, network=network)
    for layer, expected in by_channel.items():
        np.testing.assert_allclose(scores[f"{layer}/kernel"], expected, rtol=1e-4)
    scores = taylor_scores(loss, *arguments)
    np.testing.assert_allclose(scores["second/kernel"], by_kernel, rtol=1e-4)


def test_channels_behind_batchnorm():
    model = create("resnet8", num_classes=3)
    images = RNG.normal(size=(2, 4, 8, 8, 3)).astype(np.float32)
    labels = RNG.integers(0, 3, (2, 4)).astype(np.int32)
    leaves, treedef = jax.tree.flatten(jax.eval_shape(model.init, jax.random.key(0), images[0]))
    variables = treedef.unflatten(
        [jnp.asarray(RNG.uniform(0.1, 0.5, leaf.shape), jnp.float32) for leaf in leaves]
    )

    def loss(params, batch):
        logits, _ = model.apply({**variables, "params": params}, batch[0])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), batch[1][:, None], axis=1)
        return -picked.mean()

    params, batches = variables["params"], (images, labels)
    network = read(lambda v, images: model.apply(v, images)[0], variables, images[0])
    scores = jax.jit(lambda p: taylor_channel_scores(loss, p, batches, network=network))(params)
    assert scores.keys() == conv_kernels(params).keys()

    @jax.jit
    def gated(gate, batch):
        norm = params["layer2_0"]["bn1"]
        block = {**params["layer2_0"], "bn1": {k: v * gate for k, v in norm.items()}}
        return loss({**params, "layer2_0": block}, batch)

    expected = []
    for channel in (0, 5):  # the slopes as differences
        step = np.zeros(32, np.float32)
        step[channel] = 0.05
        slopes = [
            (gated(1 + step, batch) - gated(1 - step, batch)) / 0.1
            for batch in zip(images, labels, strict=True)
        ]
        expected.append(np.mean(np.square(slopes)))
    found = scores["layer2_0/conv1/kernel"][np.array([0, 5])]
    np.testing.assert_allclose(found, expected, rtol=0.02)
    masks = channel_masks(params, network, scores, keep_rate=0.25)
    keep = np.asarray(masks["layer2_0"]["conv1"]["kernel"][0, 0, 0]) != 0
    scores = np.asarray(scores["layer2_0/conv1/kernel"])
    assert keep.sum() == 8 and scores[keep].min() >= scores[~keep].max()
