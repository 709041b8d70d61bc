"""Nearest neighbours against a sorted float64 distance matrix."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import nearest_neighbors
from jnnk.graphs._neighbors import UNIT
from jnnk.graphs._search.copies import Copies
from jnnk.graphs._search.passes import search
from jnnk.graphs._search.shortlists import (
    centred,
    estimated,
    exist,
    filled,
    frame_of,
    prepared,
    relative_error,
)

pytestmark = pytest.mark.user_compile


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
    with pytest.raises(ValueError, match="the same D"):
        nearest_neighbors(points, jnp.ones((4, 3)), num_neighbors=1)


def _clusters(number, dim, num_clusters, width, seed=0):
    """Float32 points around centres about 1 apart."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clusters, dim)) / np.sqrt(dim)
    points = centers[rng.integers(0, num_clusters, number)]
    return (points + width * rng.normal(size=(number, dim)) / np.sqrt(dim)).astype(np.float32)


def _assert_nearest(points, indices, distances, num_neighbors):
    """Of the points themselves, as far as float32 can tell two distances apart."""
    itself = np.arange(len(points))
    indices = np.asarray(indices)
    assert (np.sort(indices, axis=1)[:, 1:] > np.sort(indices, axis=1)[:, :-1]).all()
    assert (indices >= 0).all() and not (indices == itself[:, None]).any()
    wide = points.astype(np.float64)
    square = ((wide[:, None] - wide) ** 2).sum(-1)
    np.fill_diagonal(square, np.inf)
    expected = np.sort(square, axis=1)[:, :num_neighbors]
    found = np.take_along_axis(square, indices, axis=1)
    tolerance = 4 * np.finfo(np.float32).eps
    assert (found <= expected[:, -1:] * (1 + tolerance)).all()
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dim", [2, 64, pytest.param(512, marks=pytest.mark.thorough)])
def test_clusters_however_narrow(dim):
    number = 600
    find = functools.partial(nearest_neighbors, num_neighbors=10, exclude=jnp.arange(number))
    for num_clusters in (2, 30, 1000):
        for width in (1.0, 1e-3, 1e-6):
            points = _clusters(number, dim, num_clusters, width)
            _assert_nearest(points, *find(points, points), 10)


def test_float64_is_as_exact():
    points = _clusters(300, 5, 4, 1.0).astype(np.float64)
    centers = np.round(points)
    points = centers + 1e-13 * (points - centers)
    with jax.enable_x64(True):
        indices, _ = nearest_neighbors(points, points, num_neighbors=5)
    expected, _ = oracle(points, points, 5)
    np.testing.assert_array_equal(indices, expected)


def _unproven(points, num_neighbors, exclude):
    """The share of the points whose neighbours the first pass does not prove."""
    points = jnp.asarray(points) / UNIT
    first = search(points, points, exclude, num_neighbors=num_neighbors, has_second=False)
    return float((~first.proven).mean())


def test_the_first_pass_proves_what_is_not_clustered_and_no_clusters():
    itself = jnp.arange(1500)
    assert _unproven(_data("normal"), 15, itself) == 0
    assert _unproven(_data("relu"), 15, itself) < 0.01
    assert _unproven(_clusters(1500, 64, 1, 1.0), 15, itself) == 0
    assert _unproven(_clusters(1500, 64, 5, 1e-4), 15, itself) > 0.99


@pytest.mark.parametrize("dim", [3, 100, 700])
def test_estimates_are_lower_bounds(dim):
    """Of points near and far, rounded as badly as they come."""
    rng = np.random.default_rng(dim)
    points = (rng.normal(size=(400, dim)) * 10.0 ** rng.uniform(-6, 0, (400, 1))).astype(np.float32)
    rows = filled(jnp.asarray(points), num_neighbors=392)
    frame = frame_of(rows, exist(rows))
    nothing = Copies(jnp.full(dim, jnp.inf), jnp.zeros(1, jnp.int32), jnp.zeros(1, bool))
    every = prepared(rows, frame, nothing, group=1)
    bound = -np.asarray(estimated(centred(jnp.asarray(points), frame), every), np.float64)[:, :400]
    center, unit = (np.asarray(x, np.float64) for x in frame)
    wide = (points.astype(np.float64) - center) / unit
    square = ((wide[:, None] - wide) ** 2).sum(-1)
    own = (wide**2).sum(-1)
    bound += own[:, None]
    error = relative_error(np.float32, dim)
    assert (bound - 2 * error * own[:, None] <= square).all()
    # Neither are they lower than the derivation says, by far.
    assert (square - bound <= 8 * error * (own[:, None] + own)).all()


@pytest.mark.parametrize("number", [3, 30, 300])
def test_the_smallest_of_many_tied_indices_are_kept(number):
    """Copies of several points, out of order, between which whole numbers tie as well."""
    rng = np.random.default_rng(number)
    places = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [5, 5], [5, 6]], np.float32)
    points = places[rng.integers(0, len(places), number * len(places))]
    itself = np.arange(len(points))
    indices, square = nearest_neighbors(points, points, num_neighbors=9, exclude=itself)
    expected, distances = oracle(points, points, 9, itself)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(square, distances)
    np.testing.assert_array_equal(nearest_neighbors(points, points, num_neighbors=9)[0],
                                  oracle(points, points, 9)[0])  # fmt: skip


def test_points_far_from_all_others_disturb_nobody():
    line = np.array([[0.0], [1.0], [2.0], [1e20]], np.float32)
    indices, square = nearest_neighbors(line, line, num_neighbors=2, exclude=np.arange(4))
    assert indices.tolist() == [[1, 2], [0, 2], [1, 0], [0, 1]]  # 1e20 - 2 is 1e20
    assert square[:3].tolist() == [[1, 4], [1, 1], [1, 4]] and np.isinf(square[3]).all()
    far = np.array([[1e20], [-3e38], [0.5]], np.float32)
    assert nearest_neighbors(far, line, num_neighbors=1)[0].tolist() == [[3], [0], [0]]
    magnitudes = (10.0 ** np.arange(-18, 19, dtype=np.float64))[:, None].astype(np.float32)
    indices, _ = nearest_neighbors(magnitudes, magnitudes, num_neighbors=4)
    differences = np.abs(magnitudes - magnitudes.T)  # in float32, since there they tie
    expected = np.argsort(differences, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(indices, expected)


def test_empty_inputs_and_more_neighbors_than_points():
    points = jnp.ones((5, 2)) * jnp.arange(5.0)[:, None]
    for queries, others in ((points[:0], points), (points, points[:0]), (points[:0], points[:0])):
        indices, square = nearest_neighbors(queries, others, num_neighbors=3)
        assert indices.shape == square.shape == (len(queries), 3)
        assert (indices == -1).all() and jnp.isinf(square).all()
    indices, square = nearest_neighbors(points[:, :0], points[:, :0], num_neighbors=2)
    assert indices.tolist() == [[0, 1]] * 5 and (square == 0).all()
    many, _ = nearest_neighbors(points, points, num_neighbors=500)
    np.testing.assert_array_equal(
        many[:, :5], nearest_neighbors(points, points, num_neighbors=5)[0]
    )
    assert many.shape == (5, 500) and (many[:, 5:] == -1).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_neighbors": 3.0},
        {"num_neighbors": True},
        {"num_neighbors": 3, "block_size": 2.5},
        {"num_neighbors": 3, "exclude": [0, 1, 2, 3]},
        {"num_neighbors": 3, "exclude": np.zeros(4)},
    ],
)
def test_wrong_kinds_of_arguments_are_named(arguments):
    points = jnp.ones((4, 2))
    name = list(arguments)[-1]
    with pytest.raises(ValueError, match=name):
        nearest_neighbors(points, points, **arguments)
    for bad in (points.tolist(), np.ones((4, 2), complex), np.ones((4, 2), int)):
        with pytest.raises(ValueError, match="points"):
            nearest_neighbors(points, bad, num_neighbors=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_least_differences(dtype):
    """From four times the smallest normal number on all count, below it none does."""
    least = 4 * np.finfo(dtype).tiny
    numbers = np.random.default_rng(0).integers(-50, 50, (60, 3))
    square = np.square(numbers[:, None] - numbers[None]).sum(2)
    expected = np.argsort(square, axis=1, kind="stable")[:, :7]
    with jax.enable_x64(dtype == np.float64):
        points = (numbers * least).astype(dtype)
        indices, _ = nearest_neighbors(points, points, num_neighbors=7)
        np.testing.assert_array_equal(indices, expected)
        close = (numbers % 10 / 10 * least).astype(dtype)
        indices, found = nearest_neighbors(close, close, num_neighbors=7)
        assert indices.tolist() == [[*range(7)]] * 60 and (found == 0).all()


@pytest.mark.thorough
def test_jax_debugging_switches():
    points = _clusters(80, 3, 4, 1e-4)
    expected = oracle(points, points, 4)[0]
    with jax.numpy_rank_promotion("raise"):
        assert (nearest_neighbors(points, points, num_neighbors=4)[0] == expected).all()
    with jax.disable_jit():
        assert (nearest_neighbors(points, points, num_neighbors=4)[0] == expected).all()
