"""Strict settings for every test, and the fixture for the shared data."""

import os
import pathlib

# Before JAX is imported: implicit promotion between dtypes is an error in our code.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of shared data; skips the test where ``JNNK_SHARED`` does not name one."""
    folder = os.environ.get("JNNK_SHARED")
    if not folder:
        pytest.skip("JNNK_SHARED is not set: the shared data is not here")
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.skip(f"JNNK_SHARED={folder} is not a folder")
    return path
