"""Channel-wise NNK graphs, channel overlap and eigenvalue-based pruning of CNNs in JAX.

The names below are the public API in short; every submodule (``jnnk.graphs``,
``jnnk.measures``, ``jnnk.models``, ...) is found as an attribute too, imported when first used.
"""

import importlib

from jnnk._core.errors import InputError
from jnnk.graphs import (
    NNKGraph,
    QPSolution,
    channelwise_nnk_graph,
    nearest_neighbors,
    nnk_graph,
    solve_nnk,
)
from jnnk.measures import channel_overlap, cross_overlap
from jnnk.penalties import overlap_penalty
from jnnk.pruning import apply_masks, compact, keep_pruned_zero, kernel_scores, make_masks

__all__ = [
    "InputError",
    "NNKGraph",
    "QPSolution",
    "apply_masks",
    "channel_overlap",
    "channelwise_nnk_graph",
    "compact",
    "cross_overlap",
    "keep_pruned_zero",
    "kernel_scores",
    "make_masks",
    "nearest_neighbors",
    "nnk_graph",
    "overlap_penalty",
    "solve_nnk",
]


def __getattr__(name: str):
    """Imports a submodule on first use."""
    try:
        return importlib.import_module(f"jnnk.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"jnnk.{name}":
            raise
        raise AttributeError(f"module 'jnnk' has no attribute {name!r}") from None
