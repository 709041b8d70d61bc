"""The two statements on pairs, solved by the engine, and the measures beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jnnk.graphs import nnk_graph, solve_nnk
from jnnk.measures import aggregate_consistency


@pytest.fixture(scope="module")
def real(shared):
    """(150, 64, 4) post-ReLU activations of ResNet-20's last stage."""
    with np.load(shared / "reference" / "nnk_resnet20_layer3.npz") as archive:
        return archive["activations"][:150].astype(np.float32)


@pytest.fixture(scope="module")
def graphs(real):
    return graphs_of(real)


def graphs_of(activations, num_neighbors=10):
    """Of the channels, and of the aggregate: one compilation, channels are padded with zeros."""
    num_channels = activations.shape[-1]
    wide = [np.where(np.arange(num_channels) == c, activations, 0) for c in range(num_channels)]
    *channels, aggregate = (
        nnk_graph(jnp.asarray(points.reshape(len(points), -1)), num_neighbors=num_neighbors)
        for points in (*wide, activations)
    )
    return jax.tree.map(lambda *x: jnp.stack(x), *channels), aggregate


def pair_problems(points, queries, first, second, bandwidth):
    """Gram matrices (P, C + 1, 2, 2) and vectors (P, C + 1, 2) per channel, the aggregate last."""
    points = points.astype(np.float64)
    i, j, k = points[queries], points[first], points[second]

    def similarity(x, y):
        squared = ((x - y) ** 2).sum(1)
        squared = np.concatenate([squared, squared.sum(1, keepdims=True)], 1)
        return np.exp(-squared / (2 * bandwidth**2))

    ratio = similarity(j, k)
    gram = np.stack([np.ones_like(ratio), ratio, ratio, np.ones_like(ratio)], -1)
    cross = np.stack([similarity(i, j), similarity(i, k)], -1)
    return gram.reshape(*ratio.shape, 2, 2), cross


def check_statements(points, seed, scale):
    """Solves the two-candidate problems of random triples in every channel and the aggregate."""
    rng = np.random.default_rng(seed)
    triples = rng.integers(0, len(points), (3, 512))
    distances = np.linalg.norm(points[triples[0]] - points[triples[1]], axis=(1, 2))
    gram, cross = pair_problems(points, *triples, scale * np.median(distances[distances > 0]))
    # Exact product of the channels' similarities: the premise of both statements.
    np.testing.assert_allclose(gram[:, :-1].prod(1), gram[:, -1], rtol=1e-12)
    with jax.enable_x64(True):
        solution = solve_nnk(jnp.asarray(gram), jnp.asarray(cross), tol=1e-9)
        assert np.asarray(solution.converged).mean() > 0.99
        kept = np.asarray(solution.weights) > 1e-9
    # The rule itself, away from ties: both kept iff G_jk < g_j / g_k < 1 / G_jk.
    ratio, similar = cross[..., 0] / cross[..., 1], gram[..., 0, 1]
    margin = np.minimum(np.abs(ratio - similar), np.abs(1 / ratio - similar))
    clear = (margin > 1e-5) & (similar < 1 - 1e-5)
    inside = (similar < ratio) & (ratio < 1 / similar)
    np.testing.assert_array_equal(kept.all(-1)[clear], inside[clear])

    clear = clear.all(1)
    everywhere = kept[:, :-1].all((1, 2)) & clear
    assert kept[everywhere, -1].all()
    for side in (0, 1):
        gone = (~kept[:, :-1, side]).all(1) & clear
        assert not kept[gone, -1, side].any()
    return everywhere.sum(), gone.sum()


@pytest.mark.parametrize("pooled", [False, True])
def test_statements_hold_on_real_activations(real, pooled):
    """Maps of 64 positions rarely eliminate in every channel; pooled to their mean they do."""
    points = real.mean(1, keepdims=True) if pooled else real
    counts = np.sum([check_statements(points, seed, 1.0) for seed in range(4)], 0)
    assert counts[1 if pooled else 0] > 20


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.5, 2), st.sampled_from([1, 4]))
def test_statements_hold_on_any_points(seed, scale, num_channels):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(512, 3, num_channels))
    check_statements(points, seed, scale)


@pytest.mark.thorough
def test_every_pair_of_a_layer(real, graphs):
    result = aggregate_consistency(jnp.asarray(real), *graphs)
    assert result.num_pairs == 150 * 45
    assert result.kept_violations == 0 and result.eliminated_violations == 0
    assert 0 < result.kept_everywhere < result.kept
    assert 0 < result.union_share < 1
    # The same pairs by the means of the maps, where elimination is common.
    pooled = jnp.asarray(real.mean(1, keepdims=True))
    result = aggregate_consistency(pooled, *graphs)
    assert result.kept_violations == 0 and result.eliminated_violations == 0
    assert result.eliminated_everywhere > 0.01


def test_counts_are_those_of_a_loop(real):
    """Against the definition with similarities in float64, image by image."""
    points = real.copy()
    points[:, :, 3] = 0  # a dead channel says nothing
    channels, whole = graphs_of(points)
    result = aggregate_consistency(jnp.asarray(points), channels, whole, block_size=50)
    points = points.astype(np.float64)
    everywhere = common = scattered = scattered_gone = nowhere = nowhere_gone = union = 0
    support = np.asarray(whole.weights) > 0
    neighbors = [
        [set(ids[keep]) for ids, keep in zip(*graph, strict=True)]
        for graph in zip(
            np.asarray(channels.indices), np.asarray(channels.weights) > 0, strict=True
        )
    ]
    for i, candidates in enumerate(np.asarray(whole.indices)):
        # squared[c, j, k] with the query as last point; the aggregate is the last channel
        here = points[[*candidates, i]]
        squared = ((here[:, None] - here[None]) ** 2).sum(2)
        squared = np.concatenate([squared, squared.sum(-1, keepdims=True)], -1).transpose(2, 0, 1)
        own = squared[:, -1, :-1]
        gone = own[:, None, :] + 1e-9 >= own[:, :, None] + squared[:, :-1, :-1]
        gone[:, range(10), range(10)] = False
        speaks = (own[:, :, None] > 0) | (own[:, None, :] > 0)
        kept = ~gone & ~gone.swapaxes(1, 2) & speaks
        different = ~np.eye(10, dtype=bool)
        everywhere += np.triu((kept | ~speaks)[:-1].all(0) & different).sum()
        shared_gone = (gone | ~speaks)[:-1].all(0) & different
        common += np.triu(shared_gone | shared_gone.T).sum()
        silent = ~(speaks & different).any(1)
        lonely = (gone.any(1) | silent)[:-1].all(0) & ~shared_gone.any(0)
        scattered += lonely.sum()
        scattered_gone += (lonely & gone[-1].any(0)).sum()
        somewhere = np.array([any(j in c[i] for c in neighbors) for j in candidates])
        nowhere += (~somewhere).sum()
        nowhere_gone += (~somewhere & ~support[i]).sum()
        union += (somewhere & support[i]).sum()
    pairs = 150 * 45
    assert int(result.num_pairs) == pairs
    assert float(result.kept_everywhere) * pairs == pytest.approx(everywhere, abs=0.1)
    assert float(result.eliminated_everywhere) * pairs == pytest.approx(common, abs=0.1)
    assert float(result.scattered) * 1500 == pytest.approx(scattered, abs=0.1)
    assert float(result.scattered_eliminated) == pytest.approx(scattered_gone / scattered)
    assert float(result.neighbors_nowhere) * 1500 == pytest.approx(nowhere, abs=0.1)
    assert float(result.neighbors_nowhere_dropped) == pytest.approx(nowhere_gone / nowhere)
    assert float(result.union_share) == pytest.approx(union / support.sum(), rel=1e-5)


def test_copied_channels_agree_with_the_aggregate(real):
    """With copies of one channel the relative bandwidth makes all graphs the same."""
    copies = np.repeat(real[:, :, :1], 4, axis=2)
    result = aggregate_consistency(jnp.asarray(copies), *graphs_of(copies))
    assert result.scattered == 0
    for name in ("union_share", "neighbors_everywhere_kept", "neighbors_nowhere_dropped"):
        assert getattr(result, name) > 0.99, name
    assert result.kept_everywhere == pytest.approx(float(result.kept), abs=1e-3)


def test_vmap(real, graphs):
    points = jnp.asarray(real)
    alone = aggregate_consistency(points, *graphs)
    both = jax.vmap(aggregate_consistency, in_axes=(0, None, None))(
        jnp.stack([2 * points, points]), *graphs
    )
    jax.tree.map(lambda b, a: np.testing.assert_allclose(b[1], a, rtol=1e-6), both, alone)


def test_misuse_is_named(real, graphs):
    channels, whole = graphs
    with pytest.raises(ValueError, match="channels: expected a graph of 3 channels and 150 images"):
        aggregate_consistency(jnp.asarray(real[..., :3]), channels, whole)
    with pytest.raises(ValueError, match="aggregate: expected a graph of 150 images"):
        aggregate_consistency(jnp.asarray(real), channels, channels)
