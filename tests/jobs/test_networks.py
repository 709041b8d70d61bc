"""What jobs ask of a network before they work on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jnnk import InputError
from jnnk.data import Dataset, Normalization
from jnnk.jobs.checks import check_layers
from jnnk.jobs.networks import network_of, told_network
from jnnk.network import as_model
from jnnk.runs.progress import Silent

IMAGES = np.zeros((2, 8, 8, 3), np.uint8)
LABELS = np.zeros(2, np.int32)
DATA = Dataset(
    name="some", train_images=IMAGES, train_labels=LABELS, test_images=IMAGES, test_labels=LABELS,
    class_names=("a", "b"), normalization=Normalization(np.zeros(3, "f4"), np.ones(3, "f4")),
)  # fmt: skip


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


class Pointwise(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (1, 1))(x).mean((1, 2))


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x.reshape(len(x), -1))


class OnPurpose(nn.Module):
    """A conv whose kernel depends on the images, beside one that is a leaf."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3, 3), name="own")(x)
        made = jnp.broadcast_to(x.mean(), (3, 3, 2, 2))
        return jax.lax.conv_general_dilated(
            x, made, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).mean((1, 2))


def test_networks_without_kernels_to_prune_or_layers_are_refused():
    for module in (Pointwise(), Dense()):
        with pytest.raises(InputError, match="no kernels of more than one position"):
            told_network(as_model(module), DATA, Notes())
    with pytest.raises(InputError, match="no layer to measure"):
        check_layers(("*",), as_model(Dense()), DATA)


def test_what_cannot_be_followed_is_told_once():
    notes = Notes()
    model = as_model(OnPurpose())
    network = told_network(model, DATA, notes)
    (said,) = notes.said
    assert said.startswith("not pruned: ") and "its kernel depends on the images" in said
    assert not network.left_out and [conv.name for conv in network.convs] == ["own"]
    assert network_of(model, DATA) is network_of(as_model(OnPurpose()), DATA)
