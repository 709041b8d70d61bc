"""Strict settings for every test, and the fixture for the shared data."""

import os
import pathlib

# Before JAX is imported: implicit promotion between dtypes is an error in our code.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compilation(request):
    """Modules marked ``quick_compile`` compile without LLVM's optimisations, in half the time.

    For tests of compositions, whose programs run once on tiny arrays. What is numerically tight
    (qp, eigenvalues, conv_scores, ...) is compiled as users compile it.
    """
    is_marked = request.node.get_closest_marker("quick_compile") is not None
    jax.config.update("jax_disable_most_optimizations", is_marked)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
