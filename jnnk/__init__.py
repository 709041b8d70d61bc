"""Channel-wise NNK graphs, channel overlap and eigenvalue-based pruning of CNNs in JAX.

The names below are the public API in short; every submodule (``jnnk.similarity``,
``jnnk.dimension``, ``jnnk.models``, ...) is found as an attribute too, imported when first used.
"""

import importlib

from jnnk.channels import channelwise_nnk_graph
from jnnk.compaction import compact
from jnnk.conv_scores import kernel_scores
from jnnk.errors import InputError
from jnnk.graph import NNKGraph, nnk_graph
from jnnk.masks import apply_masks, keep_pruned_zero, make_masks
from jnnk.neighbors import nearest_neighbors
from jnnk.overlap import channel_overlap, cross_overlap
from jnnk.overlap_penalty import overlap_penalty
from jnnk.qp import QPSolution, solve_nnk

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
