"""Channel-wise NNK graphs, channel overlap and eigenvalue-based pruning of CNNs in JAX.

The names below are the public API in short. The packages beside them hold all of it:
``jnnk.graphs``, ``jnnk.measures``, ``jnnk.penalties``, ``jnnk.pruning``, ``jnnk.models``, ...
Each is imported when first used, so that importing :mod:`jnnk` takes no time.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from jnnk.network import capture, compact
    from jnnk.penalties import overlap_penalty
    from jnnk.pruning import apply_masks, keep_pruned_zero, kernel_scores, make_masks

_PLACES = {
    "_core.errors": ("InputError",),
    "graphs": (
        "NNKGraph", "QPSolution", "channelwise_nnk_graph", "nearest_neighbors", "nnk_graph",
        "solve_nnk",
    ),
    "network": ("capture", "compact"),
    "measures": ("channel_overlap", "cross_overlap"),
    "penalties": ("overlap_penalty",),
    "pruning": ("apply_masks", "keep_pruned_zero", "kernel_scores", "make_masks"),
}  # fmt: skip
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}
_PACKAGES = (
    "data", "graphs", "measures", "models", "network", "parallel", "penalties", "pruning",
    "sklearn", "training",
)  # fmt: skip

__all__ = [
    "InputError",
    "NNKGraph",
    "QPSolution",
    "apply_masks",
    "capture",
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
    """A public name or a package, imported on first use."""
    if name in _PLACE_OF:
        value = getattr(importlib.import_module(f"jnnk.{_PLACE_OF[name]}"), name)
        globals()[name] = value
        return value
    try:
        return importlib.import_module(f"jnnk.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"jnnk.{name}":
            raise
        raise AttributeError(f"module 'jnnk' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    """What users call: the short names, and the packages that hold the others."""
    return sorted([*__all__, *_PACKAGES])
