"""Patience, frozen channels, and the rules that end a training."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jnnk import InputError, training
from jnnk.data import Dataset, Normalization
from jnnk.jobs.fit import fit
from jnnk.jobs.stopping import stopping
from jnnk.network import as_model, read
from jnnk.runs.progress import Silent
from jnnk.training import (
    freezable,
    freeze,
    start_freezing,
    start_patience,
    trainable_masks,
    update_patience,
)

NORMALIZATION = Normalization(np.float32([0.5]), np.float32([0.25]))


class Net(nn.Module):
    """One conv with BatchNorm and one with a bias."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(3, (3, 3), use_bias=False, name="conv1")(images)
        first = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
        second = nn.relu(nn.Conv(4, (3, 3), name="conv2")(first))
        logits = nn.Dense(2, name="fc")(second.mean((1, 2)))
        return logits, {"conv1": first, "conv2": second}


def _dataset(size=60):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size).astype(np.int32)
    images = rng.integers(0, 200, (size, 8, 8, 1))
    images[labels == 1, :4] += 55  # a class is seen in the upper half
    images = images.astype(np.uint8)
    return Dataset("blobs", images, labels, images, labels, ("a", "b"), NORMALIZATION)


def test_patience_runs_out_channel_by_channel():
    state = start_patience((3,))
    errors = [[0.5, 0.5, np.nan], [0.4, 0.5, np.nan], [0.4, 0.6, 0.2], [0.3, 0.1, 0.1]]
    stopped = []
    for row in errors:
        state = jax.jit(update_patience)(state, jnp.asarray(row, jnp.float32), patience=2)
        stopped.append(np.asarray(state.stopped).tolist())
    assert stopped == [
        [False, False, False],
        [False, False, True],
        [False, True, True],
        [False, True, True],  # 0.1 comes too late
    ]
    np.testing.assert_allclose(state.best, [0.3, 0.5, np.inf])


def test_frozen_channels_do_not_move_and_the_others_do():
    data, model = _dataset(), Net()
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam
        optimizer = freezable(
            training.make_optimizer("adam", learning_rate=0.1, num_steps=20, weight_decay=0.1)
        )
        state = start_freezing(
            training.init_state(model, optimizer, jax.random.key(0), image_shape=(8, 8, 1))
        )
        step = training.make_train_step(model, optimizer, normalization=NORMALIZATION)
        batch = training.Batch(data.train_images, data.train_labels)
        state, _ = step(state, batch)
        stopped = {"conv1": np.array([True, False, False]), "conv2": np.arange(4) == 2}
        network = read(lambda v, x: model.apply(v, x)[0], state.variables, jnp.ones((1, 8, 8, 1)))
        masks = trainable_masks(state.params, stopped, network=network)
        state = freeze(state, masks)
        params, inner = jax.tree.map(np.asarray, (state.params, state.opt_state))
        for _ in range(2):
            state, _ = step(state, batch)
    moved = jax.tree.map(lambda new, old: np.asarray(new) != old, state.params, params)
    np.testing.assert_array_equal(moved["conv1"]["kernel"].any((0, 1, 2)), [False, True, True])
    np.testing.assert_array_equal(moved["conv2"]["kernel"].any((0, 1, 2)), np.arange(4) != 2)
    assert not moved["conv2"]["bias"][2] and moved["conv2"]["bias"].any()
    for leaf in ("scale", "bias"):
        assert not moved["bn1"][leaf][0] and moved["bn1"][leaf].any()
    assert moved["fc"]["kernel"].any()
    pairs = zip(jax.tree.leaves(state.opt_state), jax.tree.leaves(inner),
                strict=True)  # fmt: skip
    moments = [(new, old) for new, old in pairs if np.shape(old) == (3, 3, 1, 3)]
    assert len(moments) == 2
    for new, old in moments:
        changed = (np.asarray(new) != old).any((0, 1, 2))
        np.testing.assert_array_equal(changed, [False, True, True])


class Shared(nn.Module):
    """A convolution, then another one called twice."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(3, (3, 3), name="stem")(images))
        conv = nn.Conv(3, (3, 3), name="shared")
        return nn.Dense(2)(conv(nn.relu(conv(x))).mean((1, 2))), {}


def test_channels_of_a_shared_kernel_train_until_the_last_of_them_has_stopped():
    images = jnp.ones((1, 8, 8, 1))
    variables = Shared().init(jax.random.key(0), images)
    network = read(lambda v, x: Shared().apply(v, x)[0], variables, images)
    first, second = [conv.name for conv in network.convs if conv.name != "stem"]
    for names in ((first, second), (second, first)):
        both = np.array([[True, True, False], [True, False, False]])
        stopped = dict(zip(names, both, strict=True))
        masks = trainable_masks(variables["params"], stopped, network=network)
        assert masks["shared"]["kernel"].ravel().tolist() == [0, 1, 1]


class Step(nn.Module):
    """A step of a scan."""

    @nn.compact
    def __call__(self, x, _):
        return x + nn.relu(nn.Conv(3, (3, 3), name="conv")(x)), None


class Scanned(nn.Module):
    """Two residual blocks by a scan, behind a convolution where there is a stem."""

    stem: bool

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.relu(nn.Conv(3, (3, 3), name="stem")(images)) if self.stem else images
        blocks = nn.scan(Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = blocks(name="blocks")(x, None)
        return nn.Dense(2)(x.mean((1, 2))), {}


def test_channels_in_a_scan_train_to_the_end():
    data, model = _dataset(), as_model(Scanned(stem=True))
    _, monitor = stopping("channel-nnk", model, data, patience=1)
    optimizer = freezable(training.make_optimizer("sgd", learning_rate=0.1, num_steps=2))
    state = start_freezing(
        training.init_state(model, optimizer, jax.random.key(0), image_shape=(8, 8, 1))
    )
    _, watched = monitor(state, [])
    assert list(watched.errors) == ["stem"]
    wide = np.tile(data.train_images, (1, 1, 1, 3))
    data = data._replace(train_images=wide, test_images=wide)
    with pytest.raises(InputError, match="--stop channel-nnk: every convolution"):
        stopping("channel-nnk", as_model(Scanned(stem=False)), data, patience=1)


def test_masks_of_another_tree_are_refused():
    optimizer = freezable(training.make_optimizer("sgd", learning_rate=0.1, num_steps=2))
    params = {"conv1": {"kernel": jnp.ones((3, 3, 1, 2))}}
    state = training.start_state(optimizer, jax.random.key(0), {"params": params})
    with pytest.raises(ValueError, match="treedef"):
        freeze(start_freezing(state), {})
    with pytest.raises(ValueError, match="trainable: expected the mask"):
        optimizer.update(params, state.opt_state, params, masks=state.masks)


@pytest.mark.parametrize(
    "name", [pytest.param("channel-nnk", marks=pytest.mark.thorough), "validation"]
)
def test_a_rule_ends_a_training_and_is_resumed(name, tmp_path):
    data, model = _dataset(), Net()
    trained_on, monitor = stopping(name, model, data, patience=1)
    assert len(trained_on.train_images) == (48 if name == "validation" else 60)
    optimizer = freezable(training.make_optimizer("sgd", learning_rate=1e-6, num_steps=1000))
    step = training.make_train_step(model, optimizer, normalization=NORMALIZATION, augment=False)

    def train(epochs):
        return fit(
            lambda: start_freezing(
                training.init_state(model, optimizer, jax.random.key(0), image_shape=(8, 8, 1))
            ),
            step, trained_on, evaluate=lambda *_: 0.5, epochs=epochs, batch_size=16, seed=0,
            folder=tmp_path, progress=Silent(), description="", monitor=monitor,
        )  # fmt: skip

    train(1)
    state = train(100)
    epochs = int(state.step) // (len(trained_on.train_images) // 16)
    # Nothing is learnt at this rate: as soon as patience allows, give or take a chance neighbour.
    assert 2 <= epochs < 20
    frozen = [leaf.min() for leaf in jax.tree.leaves(state.trainable)]
    assert (min(frozen) == 0) == (name == "channel-nnk")
    assert int(train(100).step) == int(state.step)


def test_unknown_rules_are_named():
    with pytest.raises(InputError, match="expected one of channel-nnk, nnk, validation"):
        stopping("loss", Net(), _dataset(), patience=1)
    assert stopping(None, Net(), _dataset(), patience=1)[1] is None
