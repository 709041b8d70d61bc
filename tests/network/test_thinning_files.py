"""Files of thinnings: nothing foreign in them is believed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jnnk.network import load_thinning, save_thinning, thin


def apply_fn(variables, images):
    hidden = jax.nn.softplus(images @ variables["one"] + variables["shift"])
    return hidden @ variables["two"]


VARIABLES = {
    "one": jnp.arange(12.0).reshape(3, 4),
    "shift": jnp.arange(4.0),
    "two": jnp.ones((4, 2)),
}


@pytest.fixture
def path(tmp_path):
    masks = {"one": np.array([[1, 0, 1, 0.0]]), "shift": np.ones(4), "two": np.ones((4, 2))}
    thinning = thin(apply_fn, VARIABLES, masks, jnp.ones((1, 3)))
    save_thinning(thinning, tmp_path / "thinning.safetensors")
    return tmp_path / "thinning.safetensors"


def described(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["leaves"])


def rewrite(path, leaves=None, **tensors):
    """The file with other descriptions or tensors; None drops one."""
    leaves = described(path) if leaves is None else leaves
    found = {**load_file(path), **tensors}
    found = {name: array for name, array in found.items() if array is not None}
    metadata = {"format": "jnnk thinning 1", "leaves": json.dumps(leaves)}
    save_file(found, path, metadata=metadata)


def test_indices_and_frozen_weights_come_back(path):
    one, shift, two = load_thinning(path).leaves
    np.testing.assert_array_equal(one.kept[1], [0, 2])
    np.testing.assert_array_equal(shift.kept[0], [0, 2])
    np.testing.assert_array_equal(shift.rest[0], [1, 3])
    np.testing.assert_array_equal(shift.values, [1, 3])
    np.testing.assert_array_equal(two.values, np.ones((2, 2)))
    assert two.path == ("['two']",) and two.shape == (4, 2)
    np.testing.assert_array_equal(one.masked, [[False, True, False, True]])


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which is no file"):
        load_thinning(tmp_path / "nothing")
    with pytest.raises(ValueError, match="which is no file"):
        load_thinning(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="not readable as safetensors"):
        load_thinning(tmp_path / "bytes")
    save_file({"a": np.ones(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="describes no thinning"):
        load_thinning(tmp_path / "other")


@pytest.mark.parametrize(
    "tensors",
    [
        {"1.kept.0": np.array([0, 4], np.int32)},
        {"1.kept.0": np.array([2, 0], np.int32)},
        {"1.kept.0": np.array([-1, 0], np.int32)},
        {"1.kept.0": np.array([], np.int32)},
        {"1.kept.0": np.array([0.0, 2.0], np.float32)},
        {"1.kept.0": None},
        {"1.values": np.ones(3, np.float32)},
        {"1.values": None},
        {"0.masked": np.array([1, 2], np.uint8)},
        {"0.masked": None},
    ],
)
def test_tensors_that_do_not_fit_are_refused(path, tensors):
    rewrite(path, **tensors)
    with pytest.raises(ValueError, match="describes no thinning"):
        load_thinning(path)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "one"},
        {"path": [1]},
        {"shape": [3, -4]},
        {"shape": [3, 4.0]},
        {"shape": [[3], 4]},
        {"shape": 12},
        {"unread": 1},
        {"kept": [7]},
        {"kept": None},
        {"kept": [True]},
        {"rest": [0]},
        {"masked": [3, 3]},
        {"masked": [10**12, 4]},
        {"another": 1},
    ],
)
def test_descriptions_that_do_not_fit_are_refused(path, change):
    leaves = described(path)
    leaves[0] |= change
    rewrite(path, leaves)
    with pytest.raises(ValueError, match="describes no thinning"):
        load_thinning(path)


@pytest.mark.parametrize("leaves", [{}, 3, [3], [[]], [{}], "one"])
def test_other_json_is_refused(path, leaves):
    rewrite(path, leaves)
    with pytest.raises(ValueError, match="describes no thinning"):
        load_thinning(path)


def test_two_leaves_of_one_path_are_refused(path):
    leaves = described(path)
    leaves[1]["path"] = leaves[0]["path"]
    rewrite(path, leaves)
    with pytest.raises(ValueError, match="leaves of different paths"):
        load_thinning(path)
