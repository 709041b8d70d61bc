"""What the tests of thinning share: random weights and masks, and the masked network as oracle."""

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.network._compaction import compact, thin
from jnnk.pruning import apply_masks


def conv(images, kernel):
    """A convolution of images in NHWC, as large as they are."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def random_like(tree, seed=0):
    """Arrays of the shapes in a tree, scaled by the fan-in; variances are positive."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        value = rng.normal(size=leaf.shape) / fan_in**0.5
        return jnp.asarray(abs(value) if "var" in str(path[-1]) else value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def random_masks(params, rate, seed=0, *, axes=(-2, -1)):
    """Masks that keep a share of the kernels of every leaf with four axes, and all other leaves."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.ndim < 4:
            return np.ones(leaf.shape, np.float32)
        kept = [size if axis - leaf.ndim in axes else 1 for axis, size in enumerate(leaf.shape)]
        return (rng.random(kept) < rate).astype(np.float32)

    return jax.tree.map(draw, params)


def masked(variables, masks):
    """The variables under masks of all of them or of their ``params``."""
    if jax.tree.structure(masks) == jax.tree.structure(variables):
        return apply_masks(variables, masks)
    return {**variables, "params": apply_masks(variables["params"], masks)}


def check_same(apply_fn, variables, masks, images):
    """The thinned network gives the masked network's results; returns it and its variables."""
    small, small_variables = compact(apply_fn, variables, masks, images)
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(apply_fn)(masked(variables, masks), images)
        found = jax.jit(small)(small_variables, images)
    assert jax.tree.structure(small_variables) == jax.tree.structure(variables)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        largest = float(np.abs(np.asarray(other, np.float32)).max(initial=1e-6))
        np.testing.assert_allclose(
            np.asarray(one, np.float32), np.asarray(other, np.float32), atol=1e-5 * largest
        )
    return small, small_variables


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


__all__ = ["check_same", "compact", "count", "masked", "random_like", "random_masks", "thin"]
