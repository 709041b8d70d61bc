"""What was found wrong by trying networks that nobody had in mind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from network.thinned import conv

import jnnk
from jnnk.network import compact, read

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.normal(size=(3, 4, 4, 3)), jnp.float32)


def drawn(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def in_fortrans_order(v, x):
    return conv(x, v["a"]).reshape((3, -1), order="F") @ v["head"]


def of_an_ensemble(v, x):
    return jax.vmap(lambda kernel: conv(x, kernel))(v["a"]).mean((0, 2, 3))


def by_a_number_of_vectors(v, x):
    return conv(x, v["a"] * (v["u"] @ v["u"])).mean((1, 2))


def with_spread_windows(v, x):
    maps = conv(x, v["a"])
    return lax.reduce_window(
        maps, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME", base_dilation=(1, 1, 1, 2)
    )


def on_a_grid(v, x):
    maps = conv(x, v["a"])[:, jnp.array([0, 2])[:, None], jnp.array([3, 1, 1])[None]]
    return conv(maps, v["b"]).mean((1, 2))


@pytest.mark.parametrize(
    ("apply_fn", "variables"),
    [
        (in_fortrans_order, {"a": drawn(3, 3, 3, 4), "head": drawn(64, 5)}),
        (of_an_ensemble, {"a": drawn(2, 3, 3, 3, 4)}),
        (by_a_number_of_vectors, {"a": drawn(3, 3, 3, 4), "u": drawn(6)}),
        (with_spread_windows, {"a": drawn(3, 3, 3, 4)}),
        (on_a_grid, {"a": drawn(3, 3, 3, 4), "b": drawn(3, 3, 4, 5)}),
    ],
)
def test_compacted_is_masked(apply_fn, variables):
    kernel = variables["a"]
    keep = np.ones(kernel.shape[-2:], "f4")
    keep[:, 1] = 0
    masks = {name: jnp.ones(()) for name in variables} | {"a": jnp.asarray(keep)}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES)
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(small(small_variables, IMAGES), expected, atol=1e-5 * scale)
    network = read(apply_fn, variables, IMAGES)
    assert network.convs[0].name == "a" and network.groups()


def test_sums_over_images_are_those_of_each_batch():
    """A dead filter's shift is summed over the images: another number for another batch."""

    def apply_fn(v, x):
        return jax.nn.relu(conv(x, v["a"]) + v["b"]).sum((0, 1, 2)) * v["s"]

    variables = {"a": jnp.ones((3, 3, 3, 2)), "b": jnp.ones(2), "s": jnp.ones(2)}
    masks = {"a": jnp.array([0.0, 1.0]), "b": jnp.ones(()), "s": jnp.ones(())}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES[:2])
    for count in (2, 3, 1):
        images = IMAGES[:count]
        expected = apply_fn(jnnk.apply_masks(variables, masks), images)
        np.testing.assert_allclose(small(small_variables, images), expected, rtol=1e-5)


def test_results_that_are_called_as_a_leaf_stay_whole():
    def apply_fn(v, x):
        return {"ab": conv(x, v["ab"]).mean((0, 1, 2)), "other": x.mean()}

    variables = {"ab": drawn(3, 3, 3, 6), "not read": jnp.ones(6)}
    masks = {"ab": jnp.array([1.0, 0, 1, 0, 1, 0]), "not read": jnp.ones(())}
    small, small_variables = compact(apply_fn, variables, masks, IMAGES)
    expected = apply_fn(jnnk.apply_masks(variables, masks), IMAGES)
    np.testing.assert_allclose(small(small_variables, IMAGES)["ab"], expected["ab"], atol=1e-5)


def test_macs_of_one_image_after_another():
    kernel = {"a": jax.ShapeDtypeStruct((3, 3, 3, 6), "float32")}
    one = read(lambda v, x: lax.map(lambda image: conv(image[None], v["a"]), x), kernel, IMAGES)
    assert one["a"].macs == 16 * 9 * 3 * 6 and one["a"].steps == 3
    first = read(lambda v, x: conv(x[:1], v["a"]), kernel, IMAGES)
    assert first["a"].macs == 16 * 9 * 3 * 6 // 3  # of three images one is looked at


def test_a_norm_over_all_channels_goes_with_them():
    def apply_fn(v, x):
        maps = conv(x, v["a"]) + v["bias"]
        return conv(jax.nn.softmax(maps, axis=-1), v["b"]).mean((1, 2)) @ v["head"]

    variables = {
        "a": drawn(3, 3, 3, 4), "bias": drawn(4), "b": drawn(3, 3, 4, 2), "head": drawn(2, 5)
    }  # fmt: skip
    group = next(g for g in read(apply_fn, variables, IMAGES).groups() if g.producers == ("a",))
    assert group.size == 1 and group.reason is None
    assert {jax.tree_util.keystr(each.path) for each in group.slices} == {
        "['a']",
        "['bias']",
        "['b']",
    }
