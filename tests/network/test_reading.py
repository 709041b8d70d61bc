"""Reading networks: the convolutions a person lists, and the activations the library itself has."""

import jax
import jax.numpy as jnp
import numpy as np
from network.networks import each_network

from jnnk.network import read, with_activations
from jnnk.network._leaves import leaves_by_path


@each_network
def test_the_listed_convolutions_are_found(row):
    apply_fn, variables = row.make()
    network = read(apply_fn, variables, row.images)
    found = {
        conv.name: (conv.kernel_shape, conv.groups, conv.output_shape, conv.macs, conv.steps)
        for conv in network.convs
    }
    listed = {
        conv.name: (conv.kernel_shape, conv.groups, conv.output_shape, conv.macs, conv.steps)
        for conv in row.convs
    }
    assert found == listed
    assert network.left_out == ()
    leaves = leaves_by_path(variables)
    for conv in network.convs:
        assert leaves[conv.path].shape == conv.kernel_shape
        axes = (*conv.axes.spatial, conv.axes.input, conv.axes.output, *conv.axes.stack)
        assert sorted(axes) == list(range(len(conv.kernel_shape)))
        assert conv.kernel_shape[conv.axes.output] == conv.output_shape[-1]
        assert f"\n{conv.name} " in f"\n{network}"


@each_network
def test_activations_are_those_of_the_library(row):
    apply_fn, variables = row.make()
    outputs, found = jax.jit(with_activations(apply_fn))(variables, row.images)
    same = jax.tree.map(
        np.testing.assert_array_equal, outputs, jax.jit(apply_fn)(variables, row.images)
    )
    del same
    wanted = {}
    for conv in row.convs:
        values = row.activations(variables, row.images)[conv.name]
        if conv.steps == 1:
            wanted[conv.name] = values
        else:
            wanted |= {f"{conv.name}[{step}]": values[step] for step in range(conv.steps)}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].shape[::3] == (len(row.images), values.shape[-1])
        np.testing.assert_allclose(
            found[name], jnp.reshape(values, found[name].shape), rtol=1e-5, atol=1e-5, err_msg=name
        )
