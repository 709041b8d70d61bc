"""Nearest neighbours against a sorted float64 distance matrix."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.neighbors import nearest_neighbors


def oracle(queries, points, num_neighbors, exclude=None):
    """Indices and squared distances by (distance, index), float64."""
    queries, points = np.asarray(queries, np.float64), np.asarray(points, np.float64)
    square = ((queries[:, None] - points) ** 2).sum(-1)
    if exclude is not None:
        square[np.arange(len(queries)), exclude] = np.inf
    order = np.argsort(square, axis=1, kind="stable")[:, :num_neighbors]
    return order, np.take_along_axis(square, order, axis=1)


def _data(kind, number=1500):
    rng = np.random.default_rng(0)
    if kind == "integers":  # ties everywhere
        return rng.integers(0, 3, (number, 6)).astype(np.float32)
    if kind == "relu":  # many zero vectors
        return np.maximum(rng.normal(size=(number, 6)) - 1, 0).astype(np.float32)
    if kind == "offset":  # |x|^2 is 1e6 times larger than the distances
        return (rng.normal(size=(number, 6)) + 1000).astype(np.float32)
    return rng.normal(size=(number, 6)).astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "integers", "relu", "offset"])
def test_exact_with_ties_by_index_and_self_left_out(kind):
    points = _data(kind)
    itself = np.arange(len(points))
    indices, distances = nearest_neighbors(
        points, points, num_neighbors=15, exclude=jnp.asarray(itself)
    )
    expected, square = oracle(points, points, 15, itself)
    assert indices.dtype == jnp.int32
    assert not (np.asarray(indices) == itself[:, None]).any()
    np.testing.assert_allclose(distances, square, rtol=1e-5, atol=1e-12)
    if kind == "normal":  # rounding may order two distances that differ in the last digit
        assert (np.asarray(indices) == expected).mean() > 0.999
    else:
        np.testing.assert_array_equal(indices, expected)


def test_float64_and_the_block_size_change_nothing():
    points = _data("normal", 300)
    expected, square = oracle(points[:100], points, 7)
    with jax.enable_x64(True):
        wide = jnp.asarray(points, jnp.float64)
        indices, distances = nearest_neighbors(wide[:100], wide, num_neighbors=7, block_size=33)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, square, rtol=1e-12)


def test_missing_neighbors_are_minus_one_at_infinity():
    points = np.array([[0.0], [1.0], [np.nan], [3.0], [np.inf]], np.float32)
    indices, distances = nearest_neighbors(points, points, num_neighbors=6, exclude=jnp.arange(5))
    assert indices.tolist() == [
        [1, 3, -1, -1, -1, -1],
        [0, 3, -1, -1, -1, -1],
        [-1] * 6,
        [1, 0, -1, -1, -1, -1],
        [-1] * 6,
    ]
    assert (np.isinf(distances) == (np.asarray(indices) < 0)).all()
    alone = nearest_neighbors(points[:1], points[:1], num_neighbors=1, exclude=jnp.arange(1))
    assert alone[0].tolist() == [[-1]]
    assert nearest_neighbors(points[:0], points, num_neighbors=2)[0].shape == (0, 2)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_order_survives_huge_and_tiny_scales(scale):
    points = _data("normal", 100)
    plain = nearest_neighbors(points, points, num_neighbors=5)[0]
    scaled = nearest_neighbors(*(np.float32(scale) * points,) * 2, num_neighbors=5)[0]
    np.testing.assert_array_equal(plain, scaled)


def test_half_precision_in_and_vmap():
    points = jnp.asarray(_data("normal", 100))
    indices, distances = nearest_neighbors(
        points.astype(jnp.bfloat16), points.astype(jnp.bfloat16), num_neighbors=5
    )
    assert distances.dtype == jnp.float32 and (indices[:, 0] == jnp.arange(100)).all()
    stacked = jnp.stack([points, -points])
    mapped = jax.vmap(lambda p: nearest_neighbors(p, p, num_neighbors=5))(stacked)
    np.testing.assert_array_equal(mapped[0][0], mapped[0][1])


def test_approximate_search_finds_most():
    points = _data("normal", 400)
    found = np.asarray(nearest_neighbors(points, points, num_neighbors=5, method="approximate")[0])
    expected = oracle(points, points, 5)[0]
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(found, expected, strict=True)])
    assert recall >= 0.9


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"num_neighbors": 1, "block_size": 0}, "block_size"),
        ({"num_neighbors": 1, "method": "guess"}, "method"),
        ({"num_neighbors": 1, "exclude": jnp.ones(3, jnp.int32)}, "exclude"),
    ],
)
def test_misuse_raises(arguments, match):
    points = jnp.ones((4, 2))
    with pytest.raises(ValueError, match=match):
        nearest_neighbors(points, points, **arguments)
    with pytest.raises(ValueError, match="agree in D"):
        nearest_neighbors(points, jnp.ones((4, 3)), num_neighbors=1)
