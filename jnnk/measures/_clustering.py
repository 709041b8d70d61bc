"""Channels of a layer put in order, so that those that say the same stand together."""

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from jnnk._core.arrays import ArrayLike


class ChannelTree(NamedTuple):
    """Average-linkage clustering of a layer's live channels on 1 - overlap.

    Attributes:
        live: (L,), channels from one end of the tree to the other.
        dead: (C - L,), channels that have no overlap, ascending.
        leaves: (L,), positions in ``live`` of the leaves 0, ..., L - 1 of ``linkage``, which
            are the live channels in ascending order.
        linkage: (L - 1, 4), see ``scipy.cluster.hierarchy.linkage``; None with fewer than two
            live channels.
    """

    live: Int[np.ndarray, " L"]
    dead: Int[np.ndarray, " dead"]
    leaves: Int[np.ndarray, " L"]
    linkage: Float[np.ndarray, "merges 4"] | None


def cluster_channels(overlap: Float[ArrayLike, "C C"]) -> ChannelTree:
    """Average-linkage tree of a layer's channels by their overlap.

    Args:
        overlap: of `jnnk.measures.channel_overlap`; NaN rows and columns for dead channels.

    Returns:
        The tree.

    Raises:
        ValueError: if the overlap is not one number for every two channels.
    """
    overlap = np.asarray(overlap)
    if overlap.ndim != 2 or overlap.shape[0] != overlap.shape[1]:
        raise ValueError(f"overlap: expected (C, C), got shape {overlap.shape}")
    is_live = np.isfinite(np.diagonal(overlap))
    live, dead = np.flatnonzero(is_live), np.flatnonzero(~is_live)
    if len(live) < 2:
        return ChannelTree(live, dead, np.arange(len(live)), None)
    distance = 1 - overlap[np.ix_(live, live)].astype(np.float64)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    tree = cast(np.ndarray, hierarchy.linkage(squareform(distance, checks=False), "average"))
    order = cast(np.ndarray, hierarchy.leaves_list(tree))
    return ChannelTree(live[order], dead, np.argsort(order), tree)


def tree_lines(tree: ChannelTree) -> Float[np.ndarray, "merges 4 2"]:
    """The lines of the dendrogram, one a merge.

    Own code, because SciPy's ``dendrogram`` is recursive and fails on trees of a thousand leaves.

    Args:
        tree: with at least two live channels.

    Raises:
        ValueError: if it has fewer.

    Returns:
        (L - 1, 4, 2): four corners (height, position) each; the live channels stand at the
        positions 0, ..., L - 1 and at height 0.
    """
    if tree.linkage is None:
        raise ValueError(f"tree: expected at least two live channels, got {len(tree.live)}")
    positions, heights = list(map(float, tree.leaves)), [0.0] * len(tree.leaves)
    lines: list[list[tuple[float, float]]] = []
    for one, other, height, _ in tree.linkage.tolist():
        a, b = int(one), int(other)
        lines.append(
            [
                (heights[a], positions[a]),
                (height, positions[a]),
                (height, positions[b]),
                (heights[b], positions[b]),
            ]
        )
        positions.append((positions[a] + positions[b]) / 2)
        heights.append(height)
    return np.array(lines)
