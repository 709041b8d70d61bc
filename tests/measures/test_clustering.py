"""The order of channels and their dendrogram, on groups that are known and against SciPy's."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import dendrogram

from jnnk.measures import cluster_channels, tree_lines
from jnnk.report.figures.overview import overlap_heat_maps


def groups():
    """Channels 0 and 3 alike, 1 and 4 a little less, 2 dead."""
    overlap = np.full((5, 5), 0.1)
    np.fill_diagonal(overlap, 1)
    overlap[0, 3] = overlap[3, 0] = 0.9
    overlap[1, 4] = overlap[4, 1] = 0.6
    overlap[2], overlap[:, 2] = np.nan, np.nan
    return overlap


def test_like_channels_stand_together_and_dead_ones_apart():
    tree = cluster_channels(groups())
    assert tree.dead.tolist() == [2]
    assert {frozenset(tree.live[:2].tolist()), frozenset(tree.live[2:].tolist())} == {
        frozenset({0, 3}),
        frozenset({1, 4}),
    }
    np.testing.assert_allclose(tree.linkage[:, 2], [0.1, 0.4, 0.9])
    lines = tree_lines(tree)
    np.testing.assert_allclose(lines[:, 1:3, 0], np.array([[0.1, 0.4, 0.9]] * 2).T)
    # Two neighbouring leaves a pair, and the last merge between the middles of the pairs.
    np.testing.assert_allclose(np.sort(lines[2, :, 1]), [0.5, 0.5, 2.5, 2.5])


def test_the_dendrogram_is_scipys():
    values = np.random.default_rng(0).uniform(0, 1, (12, 12))
    tree = cluster_channels((values + values.T) / 2)
    expected = dendrogram(tree.linkage, no_plot=True)
    assert tree.live.tolist() == expected["leaves"]
    corners = np.stack([expected["dcoord"], (np.array(expected["icoord"]) - 5) / 10], axis=-1)
    ours = tree_lines(tree)
    for merge in corners:  # SciPy lists the merges from the left
        assert np.isclose(ours, merge).all((1, 2)).sum() == 1


def test_a_tree_as_deep_as_a_layer_is_wide():
    # Every channel joins the group of those before it: SciPy's dendrogram would recurse 1500 deep.
    number = np.arange(1500)
    tree = cluster_channels(1 - 1e-4 * np.maximum.outer(number, number))
    assert tree_lines(tree).shape == (1499, 4, 2)


def test_too_few_channels_for_a_tree():
    overlap = np.full((2, 2), np.nan)
    assert cluster_channels(overlap).linkage is None
    overlap[1, 1] = 1
    tree = cluster_channels(overlap)
    assert (tree.live.tolist(), tree.dead.tolist(), tree.linkage) == ([1], [0], None)
    overlap_heat_maps({"all": np.full((2, 2), np.nan), "one": overlap}).canvas.draw()


def test_what_is_no_matrix_or_no_tree_is_refused():
    with pytest.raises(ValueError, match=r"overlap: expected \(C, C\), got shape \(2, 3\)"):
        cluster_channels(np.ones((2, 3)))
    with pytest.raises(ValueError, match="tree: expected at least two live channels, got 0"):
        tree_lines(cluster_channels(np.full((2, 2), np.nan)))


def test_the_heat_map_names_dead_channels_and_shows_them_last():
    figure = overlap_heat_maps({"layer": groups()})
    axis = figure.axes[0]
    assert axis.get_xlabel().endswith("1 dead at the end, grey:\n2")
    shown = axis.images[0].get_array()
    assert shown.mask[-1].all() and shown.mask[:, -1].all()
    assert shown.mask.sum() == 13  # and the diagonal
    assert sorted([shown[0, 1], shown[2, 3]]) == [0.6, 0.9]
    (beside,) = axis.child_axes
    assert len(beside.collections[0].get_segments()) == 3
    assert beside.get_ylim() == axis.get_ylim()
