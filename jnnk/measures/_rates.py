"""How long this machine takes for the parts of a layer's measures, tried on random data."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.timing import seconds_of
from jnnk.graphs import NNKGraph, nnk_graph
from jnnk.measures._bootstrap import layer_overlap
from jnnk.measures._plan import line_through
from jnnk.parallel._streams import STREAMS, map_streams

_QUERIES = 1024  # of a timed graph
_IMAGES = 1024  # whose overlap is timed
_RANK = 16  # directions that the random points of a timed graph have most in


def query_seconds(num_points: int, dims: Sequence[int], **options: object) -> tuple[float, float]:
    """Seconds a query of a graph takes at any dimension, and for every dimension on top.

    Timed are graphs of the smallest and the largest dimension, as many in flight as there will be.

    Args:
        num_points: N.
        dims: the dimensions D that there will be.
        **options: of `jnnk.graphs.nnk_graph`, but for its arrays.
    """
    ends = sorted({min(dims), max(dims)})
    times = [_query_seconds(num_points, dim, options) for dim in ends]
    return line_through((ends[0], ends[-1]), (times[0], times[-1]))


def _query_seconds(num_points: int, dim: int, options: Mapping[str, object]) -> float:
    """Seconds a query of a graph of N points of dimension D."""
    queries = min(_QUERIES, num_points)
    points = rectified_points(num_points, dim)
    shared = {
        "queries": points[:queries],
        "exclude": jnp.arange(queries, dtype=jnp.int32),
        "tol": jnp.float32(1e-5),
    }

    def build() -> None:
        map_streams(nnk_graph, [(points,)] * STREAMS, static=options, shared=shared)

    build()  # compiles
    return seconds_of(build) / (STREAMS * queries)


def pair_seconds(num_channels: int, num_neighbors: int, *, num_images: int) -> float:
    """Seconds an image and pair of channels of the overlap and the interval of its mean.

    Args:
        num_channels: C.
        num_neighbors: K.
        num_images: N, which the identifiers of neighbours are below.
    """
    rng = np.random.default_rng(0)
    shape = (num_channels, _IMAGES, num_neighbors)
    weights = jnp.asarray(rng.random(shape, np.float32))
    graph = NNKGraph(
        indices=jnp.asarray(rng.integers(0, num_images, shape, np.int32)),
        weights=weights,
        errors=weights[..., 0],
        kkt_residual=weights[..., 0],
        converged=weights[..., 0] > 0,
        distances=weights,
        ambiguous=weights[..., 0] <= 0,
    )

    def compare() -> None:
        layer_overlap(graph, jax.random.key(0))

    compare()  # compiles
    return seconds_of(compare) / (_IMAGES * num_channels**2)


def rectified_points(num_points: int, dim: int, *, seed: int = 0) -> jax.Array:
    """Points like activations, (N, D) float32: a few directions, noise, and nothing below zero."""
    draw = functools.partial(np.random.default_rng(seed).standard_normal, dtype=np.float32)
    values = draw((num_points, _RANK)) @ draw((_RANK, dim))
    values += draw(values.shape)
    return jnp.asarray(np.maximum(values, 0, out=values))
