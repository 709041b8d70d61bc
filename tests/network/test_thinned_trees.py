"""Trees that hold variables, or a part of them, are thinned as these are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jnnk._core.errors import InputError
from jnnk.network import as_function, compact, read, thin
from jnnk.pruning import channel_masks, make_masks

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


class Block(nn.Module):
    """Layers of the same names as those beside it, as in torchvision."""

    def setup(self):
        self.conv1 = nn.Conv(8, (3, 3))
        self.conv2 = nn.Conv(8, (3, 3))

    def __call__(self, x):
        return x + self.conv2(nn.relu(self.conv1(x)))


class Net(nn.Module):
    def setup(self):
        self.conv1 = nn.Conv(8, (3, 3))
        self.layer1 = Block()
        self.fc = nn.Dense(3)

    def __call__(self, x):
        return self.fc(self.layer1(nn.relu(self.conv1(x))).mean((1, 2)))


@pytest.fixture(scope="module")
def net():
    function, variables = as_function(Net(), Net().init(jax.random.key(1), IMAGES))
    network = read(function, variables, IMAGES)
    masks = channel_masks(variables, network, "l1_norm", keep_rate=0.5)
    return network, variables, masks, thin(function, variables, masks, IMAGES)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def test_moments_are_thinned_as_the_variables_whatever_their_names(net):
    _, variables, _, thinning = net
    small = shapes(thinning.variables(variables))
    optimizer = optax.adam(1e-3)
    state = thinning.variables(optimizer.init(variables["params"]))
    assert shapes(state) == shapes(optimizer.init(thinning.variables(variables)["params"]))
    state = thinning.variables(optimizer.init(variables))
    assert shapes(state[0].mu) == small
    assert shapes(thinning.variables({"ema": variables["params"]})["ema"]) == small["params"]
    pair = thinning.variables((variables["params"], jnp.float32(0.5)))
    assert shapes(pair) == (small["params"], ())


def test_masks_that_broadcast_are_thinned(net):
    network, variables, masks, thinning = net
    small = shapes(thinning.variables(variables))
    kernels = make_masks(variables, criterion="weight", keep_rate=0.5, network=network)
    for each in (masks, kernels):
        assert shapes(thinning.variables(each)) == small
    assert shapes(thinning.variables(masks["params"])) == small["params"]
    # A kernel that went with its channel is 0 there, others are as the mask had them.
    found = np.asarray(thinning.variables(kernels)["params"]["conv1"]["kernel"])
    assert set(np.unique(found)) <= {0, 1}


def test_a_part_that_may_be_another_is_refused():
    variables = {
        "w": jax.random.normal(jax.random.key(0), (3, 3, 3, 3)),
        "block": {"w": jax.random.normal(jax.random.key(1), (3, 3, 3, 3))},
    }

    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def network(variables, x):
        return conv(jax.nn.relu(conv(x, variables["w"])), variables["block"]["w"])

    with pytest.raises(InputError, match=r"beside each of \['w'\], \['block'\]\['w'\]"):
        compact(network, variables, {"w": jnp.array([1, 1, 0.0])}, IMAGES)
    masks = {"w": jnp.array([1, 0, 0.0]), "block": {"w": jnp.ones(3)}}
    thinning = thin(network, variables, masks, IMAGES)
    with pytest.raises(InputError, match=r"beside each of \['w'\], \['block'\]\['w'\]"):
        thinning.variables(variables["block"])
    assert thinning.variables({"block": variables["block"]})["block"]["w"].shape == (3, 3, 1, 3)
