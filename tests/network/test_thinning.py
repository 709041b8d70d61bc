"""Thinned networks give what the masked networks give, and are as narrow as expected."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network.thinned import (
    check_same,
    compact,
    count,
    masked,
    random_like,
    random_masks,
    thin,
)

from jnnk.models.convnet import SIX, ConvNet
from jnnk.models.resnet import ResNet

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
SHORTCUTS = [{"shortcut": "A"}, {"shortcut": "B"}, {"shortcut": "B", "bottleneck": True}]


def residual(**options):
    model = ResNet(5, (1, 1), (8, 16), **options)
    return logits_of(model), initial(model)


def logits_of(model):
    return lambda variables, images: model.apply(variables, images)[0]


def initial(model, images=IMAGES):
    return random_like(jax.eval_shape(model.init, jax.random.key(1), images))


def all_kept(params):
    return jax.tree.map(lambda leaf: np.ones((1,) * leaf.ndim, np.float32), params)


@pytest.mark.parametrize("options", SHORTCUTS, ids=["A", "B", "bottleneck"])
@pytest.mark.parametrize("rate", [0.3, 0.03])
def test_residual_networks(options, rate):
    apply_fn, variables = residual(**options)
    masks = random_masks(variables["params"], rate)
    _, small = check_same(apply_fn, variables, masks, IMAGES)
    assert count(small) < count(variables)


def test_a_mask_that_keeps_all_changes_nothing():
    apply_fn, variables = residual()
    small, small_variables = compact(apply_fn, variables, all_kept(variables["params"]), IMAGES)
    np.testing.assert_allclose(
        jax.jit(small)(small_variables, IMAGES),
        jax.jit(apply_fn)(variables, IMAGES),
        rtol=1e-4,
        atol=1e-6,
    )
    jax.tree.map(np.testing.assert_array_equal, small_variables, variables)


def test_everything_dead_leaves_one_element_of_each_leaf():
    apply_fn, variables = residual()
    masks = random_masks(variables["params"], 0)
    _, small = check_same(apply_fn, variables, masks, IMAGES)
    kernels = [leaf for leaf in jax.tree.leaves(small["params"]) if leaf.ndim == 4]
    assert {kernel.size for kernel in kernels} == {1}


def test_half_of_a_dead_stream_leaves_every_leaf_half_as_wide():
    model = ResNet(5, (2,), (8,))
    variables = initial(model)
    dead = np.arange(8) % 2 == 0
    masks = all_kept(variables["params"])
    for path in ("conv1", ("layer1_0", "conv2"), ("layer1_1", "conv2")):
        module = masks[path] if isinstance(path, str) else masks[path[0]][path[1]]
        module["kernel"] = np.where(dead, 0.0, 1.0).reshape(1, 1, 1, 8)
    for block in ("layer1_0", "layer1_1"):
        masks[block]["conv1"]["kernel"] = np.where(dead, 0.0, 1.0).reshape(1, 1, 8, 1)
    masks["fc"]["kernel"] = np.where(dead, 0.0, 1.0).reshape(8, 1)
    _, small = check_same(logits_of(model), variables, masks, IMAGES)
    widths = jax.tree.map(jnp.shape, small["params"], is_leaf=lambda leaf: hasattr(leaf, "shape"))
    assert widths["conv1"]["kernel"] == (3, 3, 3, 4)
    for block in ("layer1_0", "layer1_1"):
        assert widths[block]["conv1"]["kernel"] == (3, 3, 4, 8)
        assert widths[block]["conv2"]["kernel"] == (3, 3, 8, 4)
        assert widths[block]["bn2"] == {"bias": (4,), "scale": (4,)}
        assert small["batch_stats"][block]["bn2"]["mean"].shape == (4,)
    assert widths["fc"]["kernel"] == (4, 5)


def test_a_stream_that_dies_but_is_read_goes_on_as_constants():
    model = ResNet(5, (2,), (8,))
    variables = initial(model)
    masks = all_kept(variables["params"])
    dead = np.where(np.arange(8) < 4, 0.0, 1.0).reshape(1, 1, 1, 8)
    for conv in (masks["conv1"], masks["layer1_0"]["conv2"], masks["layer1_1"]["conv2"]):
        conv["kernel"] = dead
    _, small = check_same(logits_of(model), variables, masks, IMAGES)
    assert small["params"]["conv1"]["kernel"].shape == (3, 3, 3, 4)
    assert small["params"]["layer1_1"]["conv1"]["kernel"].shape == (3, 3, 4, 8)
    assert small["params"]["fc"]["kernel"].shape == (4, 5)


def test_convnet_and_its_dense_reader():
    model = ConvNet(num_classes=5, layers=SIX, channels=8)
    variables = initial(model)
    _, small = check_same(
        logits_of(model), variables, random_masks(variables["params"], 0.05), IMAGES
    )
    assert small["params"]["fc"]["kernel"].shape[0] < variables["params"]["fc"]["kernel"].shape[0]


def two_convs(padding="SAME", activation=nn.relu):
    """A function of one conv with a shift, and one that reads it."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(6, (3, 3), padding=padding, name="one")(x)
            x = activation(nn.BatchNorm(use_running_average=True, name="norm")(x))
            return nn.Conv(4, (3, 3), padding=padding, name="two")(x)

    model = Network()
    return model.apply, initial(model)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CIRCULAR"])
@pytest.mark.parametrize("activation", [nn.relu, nn.gelu, nn.silu, nn.softplus])
def test_constants_of_dead_filters_are_exact_up_to_the_borders(padding, activation):
    apply_fn, variables = two_convs(padding, activation)
    masks = all_kept(variables["params"])
    masks["one"]["kernel"] = np.array([0, 1, 0, 0, 1, 1.0]).reshape(1, 1, 1, 6)
    _, small = check_same(apply_fn, variables, masks, IMAGES)
    assert small["params"]["one"]["kernel"].shape == (3, 3, 3, 3)
    assert small["params"]["two"]["kernel"].shape == (3, 3, 3, 4)
    assert small["params"]["norm"]["scale"].shape == (3,)


def test_large_maps_of_constants_are_repeated_from_few_rows():
    def apply_fn(variables, images):
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            images, variables["one"], (1, 1), "SAME", dimension_numbers=numbers
        )
        x = nn.relu(x + variables["shift"])
        return jax.lax.conv_general_dilated(
            x, variables["two"], (1, 1), "SAME", dimension_numbers=numbers
        )

    shapes = {"one": (3, 3, 3, 4), "shift": (4,), "two": (5, 5, 4, 16)}
    variables = random_like({name: jnp.zeros(shape) for name, shape in shapes.items()})
    variables["shift"] = abs(variables["shift"]) + 1
    masks = all_kept(variables)
    masks["one"] = np.array([0, 0, 0, 1.0]).reshape(1, 1, 1, 4)
    images = jax.random.normal(jax.random.key(0), (1, 48, 50, 3))
    small, small_variables = check_same(apply_fn, variables, masks, images)
    closed = jax.make_jaxpr(small)(small_variables, images)
    assert sum(np.size(constant) for constant in closed.consts) < 48 * 50  # of 48 * 50 * 16


def test_a_filter_that_nothing_reads_goes_and_takes_others_along():
    model = ResNet(5, (1,), (8,), bottleneck=True)
    variables = initial(model)
    masks = all_kept(variables["params"])
    block = masks["layer1_0"]
    block["conv3"]["kernel"] = np.where(np.arange(8) == 2, 0.0, 1.0).reshape(1, 1, 8, 1)
    inner = np.ones((8, 8), np.float32)
    inner[3:5] = np.arange(8) == 2  # conv2's filter 2 alone reads filters 3 and 4 of conv1
    block["conv2"]["kernel"] = inner.reshape(1, 1, 8, 8)
    _, small = check_same(logits_of(model), variables, masks, IMAGES)
    found = small["params"]["layer1_0"]
    assert found["conv1"]["kernel"].shape == (1, 1, 8, 6)
    assert found["conv2"]["kernel"].shape == (3, 3, 6, 7)
    assert found["conv3"]["kernel"].shape == (1, 1, 7, 32)


def test_gradients_are_those_of_the_masked_network():
    apply_fn, variables = residual()
    masks = random_masks(variables["params"], 0.3)
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)

    def loss(fn):
        return lambda variables: (fn(variables, IMAGES) ** 2).sum()

    expected = jax.jit(jax.grad(loss(apply_fn)))(masked(variables, masks))
    found = jax.jit(jax.grad(loss(small)))(small_variables)
    # Weights that are masked within the small kernels have gradients of their own.
    slim = thin(apply_fn, variables, masks, IMAGES)
    of_kept = slim.variables(jax.tree.map(jnp.ones_like, variables))
    for one, kept, other in zip(
        *map(jax.tree.leaves, (found, of_kept, slim.variables(expected))), strict=True
    ):
        np.testing.assert_allclose(one * kept, other, atol=1e-4 * np.abs(other).max() + 1e-7)


def test_batch_size_is_free():
    apply_fn, variables = residual()
    masks = random_masks(variables["params"], 0.3)
    shape = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    small, small_variables = compact(apply_fn, variables, masks, shape)
    more = jax.random.normal(jax.random.key(1), (5, 8, 8, 3))
    np.testing.assert_allclose(
        jax.jit(small)(small_variables, more),
        jax.jit(apply_fn)(masked(variables, masks), more),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_network_that_computes_in_bfloat16():
    model = ResNet(5, (1, 1), (8, 16), dtype=jnp.bfloat16)
    variables, apply_fn = initial(model), logits_of(model)
    masks = random_masks(variables["params"], 0.2)
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    assert count(small_variables) < count(variables)
    expected = jax.jit(apply_fn)(masked(variables, masks), IMAGES)
    found = jax.jit(small)(small_variables, IMAGES)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_masks_that_do_not_fit_are_refused():
    apply_fn, variables = residual()
    masks = all_kept(variables["params"])
    masks["conv1"]["kernel"] = np.ones((3, 3, 3, 7))
    with pytest.raises(ValueError, match=r"masks: expected .* got shape \(3, 3, 3, 7\)"):
        compact(apply_fn, variables, masks, IMAGES)
    with pytest.raises(ValueError, match="masks: expected"):
        compact(apply_fn, variables, {"another": np.ones(3)}, IMAGES)
