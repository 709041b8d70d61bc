"""Strict settings for every test, and the fixture for the shared data."""

import os
import pathlib

# Before JAX is imported: implicit promotion between dtypes is an error in our code.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest

#: The files that take longest, the longest first.
LONGEST = (
    "notebooks",
    "cli", "conv_scores", "qp", "weights", "lever_studies", "graph", "eigenvalues", "resume",
    "lever_options", "masks", "readme", "early_stopping", "channels", "overlap_penalty",
    "reproduce_overlap", "sharding", "channel_pruning", "models", "compaction", "training",
    "overlap", "measures", "consistency", "data", "baselines", "protocol", "reproduce_pruning",
    "neighbors", "sklearn", "docs", "pytorch",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files come first: of several workers, none ends long after the others."""

    def place(item):
        name = item.path.stem.removeprefix("test_")
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


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
