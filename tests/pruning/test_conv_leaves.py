"""Which leaves are pruned as convolutions, and which are left whole and named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jnnk.network._names import leaf_path
from jnnk.pruning import apply_masks, make_masks
from jnnk.pruning._conv_leaves import conv_kernels, other_kernels


def params_of(layer, *shape):
    return jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(shape))["params"]


class Scanned(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        layer = {
            "conv": lambda: nn.Conv(4, (3, 3), name="body"),
            "conv1d": lambda: nn.Conv(4, (3,), name="body"),
            "attention": lambda: nn.MultiHeadDotProductAttention(2, name="body"),
        }[self.kind]()
        eight = nn.scan(
            lambda module, x, _: (module(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=8,
        )
        return eight(layer, x, None)[0]


class Named(nn.Module):
    layer: nn.Module

    def setup(self):
        self.body = self.layer

    def __call__(self, x):
        return self.body(x)


class WithNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm()(nn.Conv(4, (3,), use_bias=False, name="body")(x))


def stacked(layer):
    """The layer several times, each with parameters and input of its own."""
    return nn.vmap(layer, variable_axes={"params": 0}, split_rngs={"params": True})


@pytest.mark.parametrize(
    "params",
    [
        params_of(Named(nn.DenseGeneral((3, 3), axis=(-2, -1))), 1, 5, 5, 4),
        params_of(nn.DenseGeneral((3, 3), axis=(-2, -1)), 1, 5, 5, 4),
        params_of(Named(nn.ConvLocal(4, (3, 3))), 1, 8, 8, 4),
        params_of(Scanned("conv"), 1, 8, 8, 4),
        params_of(Scanned("conv1d"), 1, 8, 4),
        params_of(Scanned("attention"), 1, 8, 4),
        params_of(Named(nn.Conv(4, (3,))), 1, 8, 4),
        params_of(Named(nn.Conv(4, (3, 3, 3))), 1, 5, 5, 5, 4),
        {"dense_0": {"kernel": jnp.ones((4, 4, 3, 10)), "bias": jnp.ones(10)}},
        {"query": {"kernel": jnp.ones((6, 8, 2, 4))}},
        {"body": {"kernel": jnp.ones((12, 64, 2, 32))}},
        params_of(stacked(nn.Conv)(4, (3,), use_bias=False), 8, 1, 5, 4),
        params_of(stacked(nn.Conv)(4, (3,), use_bias=False), 2, 1, 5, 4),
        params_of(stacked(nn.MultiHeadDotProductAttention)(2, use_bias=False), 5, 1, 8, 4),
        params_of(stacked(WithNorm)(), 3, 1, 5, 4),
    ],
    ids=[
        "DenseGeneral", "DenseGeneral alone", "ConvLocal", "scanned", "scanned 1D", "attention",
        "1D", "3D", "dense over the map", "stacked query", "too large",
        "8 copies without bias", "2 copies without bias", "attention without bias",
        "3 copies beside BatchNorm",
    ],
)  # fmt: skip
def test_other_layers_are_left_whole_and_named(params):
    tree = {"net": params, "conv": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.ones(4)}}
    others = other_kernels(tree)
    assert list(conv_kernels(tree)) == ["conv/kernel"]
    assert others and all(path.startswith("net/") for path in others)
    tree = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), tree)
    with pytest.warns(UserWarning, match=f"not pruned.*{next(iter(others))}"):
        masks = make_masks(tree, criterion="weight", keep_rate=0.5)
    assert masks["conv"]["kernel"].sum() == 4
    assert all(mask.shape == () and mask == 1 for mask in jax.tree.leaves(masks["net"]))
    make_masks(tree, criterion="weight", keep_rate=0.5, include="conv*")  # no warning


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, (3, 3), use_bias=False),
        nn.Conv(4, (1, 7)),
        nn.Conv(8, (3, 3), feature_group_count=4),
        nn.ConvTranspose(4, (2, 2)),
        nn.Conv(4, (16, 16), strides=16),
    ],
)
def test_convolutions_are_found(layer):
    params = params_of(Named(layer), 1, 32, 32, 4)
    assert list(conv_kernels(params)) == ["layer/kernel"] and other_kernels(params) == {}


@pytest.mark.parametrize(
    ("name", "is_conv"),
    [
        ("dense_conv", True), ("localization", True), ("DenseConv_0", True), ("condensed", True),
        ("valuesConv", True), ("keypoints", True), ("value_conv", True), ("conv2d_linear", True),
        ("curvilinear1", True), ("blocal2", True), ("attentional", True), ("Conv_0", True),
        ("dense1", False), ("DenseGeneral_0", False), ("ConvLocal_3", False), ("local", False),
        ("local_conv", False), ("MultiHeadDotProductAttention_0", False), ("self_attention", False),
        ("query", False), ("key_0", False), ("value_proj", False), ("nonlinear_Linear", False),
    ],
)  # fmt: skip
def test_names_are_read_by_words(name, is_conv):
    params = {"net": {name: {"kernel": jnp.ones((3, 3, 2, 4))}}}
    assert (list(conv_kernels(params)) == [f"net/{name}/kernel"]) == is_conv
    assert (list(other_kernels(params)) == []) == is_conv


def test_sides_that_differ_are_left_whole():
    params = {"c": {"kernel": jnp.ones((3, 3, 4, 4))}, "blocks": {"kernel": jnp.ones((8, 3, 4, 4))}}
    with pytest.warns(UserWarning, match=r"not pruned.*blocks/kernel.*\(8, 3, 4, 4\)"):
        masks = make_masks(params, criterion="weight", keep_rate=0.5)
    assert masks["blocks"]["kernel"].shape == () and masks["c"]["kernel"].sum() == 8
    assert list(conv_kernels(masks)) == ["c/kernel"]
    norm = {"scale": jnp.ones((3, 4)), "bias": jnp.ones((3, 4))}
    beside = {"net": {"body": params["c"], "norm": norm}, "other": params["c"]}
    assert list(conv_kernels(beside)) == ["other/kernel"]
    norm["scale"] = jnp.ones((5, 4))  # of something else
    assert list(conv_kernels(beside)) == ["net/body/kernel", "other/kernel"]


def test_boxed_and_nnx_parameters_are_found():
    class Boxed(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.with_partitioning(nn.initializers.he_normal(), (None,) * 4)
            return nn.Conv(8, (3, 3), kernel_init=init, name="conv")(x)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(4, 8, (3, 3), rngs=rngs)
            self.head = nnx.Linear(8, 3, rngs=rngs)

    state = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    boxed = Boxed().init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"]
    for params in (state, nnx.to_pure_dict(state), boxed):
        assert list(conv_kernels(params)) == ["conv/kernel"]
        masks = make_masks(params, criterion="weight", keep_rate=0.25)
        assert jax.tree.structure(masks) == jax.tree.structure(params)
        (kernel,) = conv_kernels(apply_masks(params, masks)).values()
        assert np.asarray(kernel != 0).any(axis=(0, 1)).sum() == 8
    named = [leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert named == ["conv/bias", "conv/kernel", "head/bias", "head/kernel"]


@pytest.mark.parametrize(
    ("params", "found"),
    [
        ({}, "got no leaves"),
        ({"conv1.weight": jnp.ones((8, 4, 3, 3))}, r"got 'conv1.weight' \(8, 4, 3, 3\)"),
        ([jnp.ones((3, 3, 2, 2))], r"got '0' \(3, 3, 2, 2\)"),
    ],
)
def test_a_tree_of_unknown_form_is_refused(params, found):
    with pytest.raises(ValueError, match=f"params: no conv kernel is found.*{found}"):
        make_masks(params, criterion="weight", keep_rate=0.5)
