"""Meshes by their text, and what lies where on them (on eight devices: `test_sharding.py`)."""

import jax
import numpy as np
import pytest

from jnnk import InputError
from jnnk.parallel import gather, local_rows, one_device, parse_mesh, replicate, shard_batch


def test_a_mesh_is_read():
    mesh = parse_mesh(" channel=1, data = 1")
    assert mesh.axis_names == ("channel", "data") and mesh.devices.shape == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=2", "unknown axis 'model'.*data and channel"),
        ("", "unknown axis ''"),
        ("data=1,", "unknown axis ''"),
        ("data=two", "data: expected a whole number of at least 1, got 'two'"),
        ("data", "data: expected a whole number of at least 1, got ''"),
        ("data=0", "whole number of at least 1"),
        ("data=-1", "whole number of at least 1"),
        ("data=²", "whole number of at least 1"),
        ("data=1,data=1", "data comes twice"),
        ("data=4000,channel=2", "asks for 8000 devices, there are"),
    ],
)
def test_a_mesh_that_is_none_is_named(text, message):
    with pytest.raises(InputError, match=f"mesh: .*{message}"):
        parse_mesh(text)


def test_batch_that_does_not_fit_the_mesh_is_named():
    with pytest.raises(InputError, match="16 is not a multiple of the 3 devices"):
        local_rows(16, jax.sharding.AbstractMesh((3,), ("data",)))
    with pytest.raises(InputError, match="expected an axis data for training, got channel"):
        local_rows(16, jax.sharding.AbstractMesh((2,), ("channel",)))


def test_a_batch_comes_back_as_it_was():
    mesh = one_device()
    assert mesh.axis_names == ("data",) and mesh.size == 1
    batch = {"images": np.arange(24, dtype=np.uint8).reshape(4, 6), "labels": np.arange(4)}
    rows = local_rows(4, mesh)
    np.testing.assert_array_equal(rows, np.arange(4))
    for placed in (
        shard_batch(jax.tree.map(lambda x: x[rows], batch), mesh),
        replicate(batch, mesh),
    ):
        assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(placed))
        jax.tree.map(np.testing.assert_array_equal, gather(placed), batch)
