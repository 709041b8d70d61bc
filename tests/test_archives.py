"""Folders of numpy archives; damaged archives at random are in test_fuzz.py."""

import numpy as np
import pytest

from jnnk.archives import read_folder
from jnnk.errors import InputError


def test_a_folder_is_read_and_nothing_beside_it(tmp_path):
    path = tmp_path / "net.npz"
    secret = np.array([{}])  # would have to be unpickled
    np.savez(
        path, allow_pickle=True, **{"last/a": np.arange(3), "last/b": [2.0], "first/a": secret}
    )
    found = read_folder(path, "last/")
    assert list(found) == ["a", "b"] and (found["a"] == range(3)).all() and found["b"] == [2]
    assert read_folder(path, "none/") == {}
    with pytest.raises(InputError, match=r"net.npz: cannot be read .*[Oo]bject"):
        read_folder(path, "first/")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", None])
def test_what_is_no_archive_is_named(tmp_path, content):
    path = tmp_path / "net.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"net.npz: cannot be read as a numpy archive"):
        read_folder(path, "last/")
