"""The table of networks is what it says."""

import jax
import numpy as np
from network.networks import ROWS, each_network, each_network_at_length


def test_names_are_unique():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


@each_network_at_length
def test_it_runs(row):
    apply_fn, variables = row.make()
    assert len(row.images) in (2, 3)
    for leaf in jax.tree.leaves(jax.jit(apply_fn)(variables, row.images)):
        assert np.isfinite(leaf).all()
        assert 1e-3 < np.abs(leaf).max() < 1e3


@each_network_at_length
def test_its_own_activations_have_the_listed_shapes(row):
    _, variables = row.make()
    found = jax.jit(row.activations)(variables, row.images)
    shapes = {name: values.shape for name, values in found.items()}
    assert shapes == {
        conv.name: ((conv.steps,) if conv.steps > 1 else ()) + (len(row.images), *conv.output_shape)
        for conv in row.convs
    }
    for values in found.values():
        assert np.isfinite(values).all()
        alive = np.abs(values).max(axis=tuple(range(values.ndim - 1))) > 1e-3
        assert alive.mean() >= 0.5


@each_network
def test_listed_kernels_are_leaves(row):
    """Each name is the path of a leaf of the shape as stored."""
    _, variables = row.make()
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        keys = [
            str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path
        ]
        names = [key for key in keys if key not in ("params", "value")]
        if names and names[-1] in ("kernel", "weight", "w"):
            leaves["/".join(names[:-1])] = leaf.shape
    for conv in row.convs:
        assert leaves[conv.name.partition("@")[0]] == conv.kernel_shape
