"""Channels of a layer put in order, so that those that say the same stand together."""

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform


class ChannelTree(NamedTuple):
    """Average-linkage clustering of a layer's live channels on 1 - overlap.

    Attributes:
        live: (L,) int, channels from one end of the tree to the other.
        dead: (C - L,) int, channels that have no overlap, ascending.
        leaves: (L,) int, positions in ``live`` of the leaves 0, ..., L - 1 of ``linkage``, which
            are the live channels in ascending order.
        linkage: (L - 1, 4), see ``scipy.cluster.hierarchy.linkage``; None with fewer than two
            live channels.
    """

    live: np.ndarray
    dead: np.ndarray
    leaves: np.ndarray
    linkage: np.ndarray | None


def cluster_channels(overlap: np.ndarray) -> ChannelTree:
    """Clusters channels by their overlap.

    Args:
        overlap: (C, C), NaN rows and columns for dead channels.

    Returns:
        The tree.
    """
    is_live = np.isfinite(np.diagonal(overlap))
    live, dead = np.flatnonzero(is_live), np.flatnonzero(~is_live)
    if len(live) < 2:
        return ChannelTree(live, dead, np.arange(len(live)), None)
    distance = 1 - overlap[np.ix_(live, live)].astype(np.float64)
    distance = (distance + distance.T) / 2
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    order = leaves_list(tree)
    return ChannelTree(live[order], dead, np.argsort(order), tree)


def tree_lines(tree: ChannelTree) -> np.ndarray:
    """The lines of the dendrogram, one a merge.

    Own code, because SciPy's ``dendrogram`` is recursive and fails on trees of a thousand leaves.

    Args:
        tree: with at least two live channels.

    Returns:
        (L - 1, 4, 2): four corners (height, position) each; the live channels stand at the
        positions 0, ..., L - 1 and at height 0.
    """
    positions, heights = list(map(float, tree.leaves)), [0.0] * len(tree.leaves)
    lines = []
    for one, other, height, _ in tree.linkage:
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
