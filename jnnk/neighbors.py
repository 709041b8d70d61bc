"""Exact nearest neighbours, blocked over queries, with ties broken by index."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.blocks import map_blocks
from jnnk.precision import WHOLE, row_sums, working_dtype

# Columns of the distance matrix that share one minimum in the first selection (see `_select`); a
# divisor of WHOLE.
_GROUP = 16
# Candidates kept beyond the asked ones, so that re-ranking by exact distances can correct
# the rounding of the matrix product at the boundary.
_MARGIN = 7
# Squared distance of a point that does not exist. Finite, since a product in several bfloat16
# passes turns infinity into NaN; coordinates are scaled to at most 1 before.
_FAR = 1e30


@functools.partial(jax.jit, static_argnames=("num_neighbors", "block_size", "method"))
def nearest_neighbors(
    queries: jax.Array,
    points: jax.Array,
    *,
    num_neighbors: int,
    exclude: jax.Array | None = None,
    block_size: int = 256,
    method: Literal["exact", "approximate"] = "exact",
) -> tuple[jax.Array, jax.Array]:
    """The nearest points of each query by Euclidean distance.

    Memory is ``block_size * N`` floats; never Q x N. Candidates come from a matrix product of
    centred points and are then ranked by the distance of the differences, ties by the smaller
    index. The set is exact up to float32 rounding of the product: a point can be missed only where
    more than seven others lie within about ``1e-6 * max |p - mean|^2`` of the K-th squared
    distance (or tie there exactly, when the smallest indices are kept).

    Args:
        queries: (Q, D) floating; half precisions are computed in float32.
        points: (N, D), same dtype.
        num_neighbors: K, at least 1; may exceed the number of points.
        exclude: (Q,) integer, for each query the index of a point to leave out (``arange(N)`` for
            a graph on the points themselves); -1 leaves nothing out.
        block_size: queries per block.
        method: ``"exact"``, or ``"approximate"``: ``jax.lax.approx_min_k`` with a recall target of
            0.95, meant for TPU (on CPU it is slower than the exact search).

    Returns:
        ``(indices, squared_distances)``: int32 (Q, K) and floating (Q, K), ascending. Where there
        are fewer than K candidates the rest is index -1 at distance infinity. Points with NaN or
        infinity are nobody's neighbour, and queries with them have none. Squared distances
        that leave the range of the dtype are infinity or 0; the order is still right.

    Raises:
        ValueError: on wrong shapes or options.

    Examples:
        >>> points = jnp.array([[0.0], [1.0], [3.0]])
        >>> indices, squared_distances = nearest_neighbors(points, points, num_neighbors=2)
        >>> print(indices)
        [[0 1]
         [1 0]
         [2 1]]
        >>> print(squared_distances)
        [[0. 1.]
         [0. 1.]
         [0. 4.]]
    """
    _check(queries, points, num_neighbors, exclude, block_size, method)
    dtype = working_dtype(points.dtype)
    queries, points = queries.astype(dtype), points.astype(dtype)
    center, unit = center_and_unit(points)
    if exclude is None:
        exclude = jnp.full(queries.shape[:1], -1, jnp.int32)
    indices, squared_distances = search(
        (queries - center) / unit,
        (points - center) / unit,
        exclude.astype(jnp.int32),
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
    )
    # In two factors: the square of the unit alone may overflow.
    return indices, squared_distances * unit * unit


def center_and_unit(
    points: jax.Array, *, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """A centre (D,) and a unit of length () that make the coordinates small without rounding.

    With ``axis_name`` those of the points (N, D) of all devices along that axis of a mesh.

    The unit is a power of two at least as large as any coordinate's distance from the centre, and
    the centre is the mean rounded to quarters of the unit, so that subtracting and dividing is
    exact on data like integers and keeps every tie.
    """
    finite = jnp.all(jnp.isfinite(points), axis=1, keepdims=True)
    safe = jax.lax.stop_gradient(jnp.where(finite, points, 0))
    total, largest = (lambda part: part), (lambda part: part)
    if axis_name is not None:
        total = functools.partial(jax.lax.psum, axis_name=axis_name)
        largest = functools.partial(jax.lax.pmax, axis_name=axis_name)
    count = jnp.maximum(total(jnp.sum(finite)), 1).astype(points.dtype)
    mean = total(jnp.sum(safe / count, axis=0))
    spread = largest(jnp.max(jnp.where(finite, jnp.abs(safe - mean), 0), initial=0))
    _, exponent = jnp.frexp(spread)
    info = jnp.finfo(points.dtype)
    exponent = jnp.clip(exponent, info.minexp + 4, info.maxexp - 2)
    unit = jnp.where(spread > 0, jnp.ldexp(jnp.ones((), points.dtype), exponent), 1)
    return jnp.round(mean / unit * 4) / 4 * unit, unit


def search(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
) -> tuple[jax.Array, jax.Array]:
    """`nearest_neighbors` on checked float arrays with coordinates of about 1 or less."""

    def nearest(found):
        keys = (found.squared_distances, found.indices)
        distances, indices = (x[:, :num_neighbors] for x in jax.lax.sort(keys, num_keys=2))
        return jnp.where(jnp.isinf(distances), -1, indices), distances

    return _in_blocks(nearest, queries, points, exclude, num_neighbors, block_size, method)


class Shortlist(NamedTuple):
    """Candidates picked by estimated distances, W of them for each query, still to be ranked.

    Attributes:
        estimates: (Q, W), ascending: squared distances by a matrix product, up to a term of the
            query. Infinity where there are fewer than W points.
        indices: int32 (Q, W).
        squared_distances: (Q, W), from the differences. Infinity for what is no candidate: left
            out by the query, not finite, or none at all.
    """

    estimates: jax.Array
    indices: jax.Array
    squared_distances: jax.Array


def shortlist_length(num_neighbors: int) -> int:
    """W, from which the K nearest are ranked: the query itself and a margin come on top."""
    return num_neighbors + 1 + _MARGIN


def shortlist(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
) -> Shortlist:
    """The first half of `search`, which can be joined from parts of the points.

    The shortlist of all points are the W smallest estimates, ties by index, of their shortlists.
    """
    keep = lambda found: found  # noqa: E731
    return _in_blocks(keep, queries, points, exclude, num_neighbors, block_size, method)


def _in_blocks(finish, queries, points, exclude, num_neighbors, block_size, method):
    """``finish`` of the shortlists of blocks of queries."""
    length = shortlist_length(num_neighbors)
    num_queries, (num_points, dim) = queries.shape[0], points.shape
    query_ok = jnp.all(jnp.isfinite(queries), axis=1)
    point_ok = jnp.all(jnp.isfinite(points), axis=1)
    queries = jnp.where(query_ok[:, None], queries, 0)
    points = jnp.where(point_ok[:, None], points, 0)
    if num_queries == 0 or num_points == 0:
        nothing = jnp.full((num_queries, length), jnp.inf, points.dtype)
        return finish(Shortlist(nothing, jnp.full(nothing.shape, -1, jnp.int32), nothing))

    wanted = min(length, num_points)
    group = _GROUP if method == "exact" and num_points > _GROUP * wanted else 1
    # |q - p|^2 = |q|^2 + (-2 q, 1) . (p, |p|^2): one product, the first term is left out since it
    # does not change the order.
    norms = jnp.where(point_ok, row_sums(points * points), _FAR)
    columns = jnp.concatenate([points, norms[:, None]], axis=1)
    padding = jnp.zeros((-num_points % WHOLE, dim + 1), points.dtype).at[:, -1].set(_FAR)
    columns = jnp.concatenate([columns, padding])
    # Member s of all groups, then member s + 1: groups of consecutive points lie strided, so that
    # minima over groups are minima of whole rows.
    columns = columns.reshape(-1, group, dim + 1).transpose(2, 1, 0).reshape(dim + 1, -1)
    missing = ((0, 0), (0, length - wanted))

    def block(inputs):
        query, leave_out, ok = inputs
        rows = jnp.concatenate([-2 * query, jnp.ones_like(query[:, :1])], axis=1)
        partial = jnp.matmul(rows, columns, precision=jax.lax.Precision.HIGHEST)
        estimates, candidates = _select(partial, group, wanted, method)
        gone = (candidates >= num_points) | (candidates == leave_out[:, None]) | ~ok[:, None]
        candidates = jnp.minimum(candidates, num_points - 1)
        gone |= ~point_ok[candidates]
        # Ranked by the differences themselves: the product above cancels.
        difference = points[candidates] - query[:, None]
        exact = jnp.where(gone, jnp.inf, jnp.sum(difference * difference, axis=2))
        return finish(
            Shortlist(
                jnp.pad(estimates, missing, constant_values=np.inf),
                jnp.pad(candidates, missing, constant_values=-1),
                jnp.pad(exact, missing, constant_values=np.inf),
            )
        )

    # The search is no part of any derivative; distances that are differentiated are computed
    # from the points again.
    return jax.tree.map(
        jax.lax.stop_gradient,
        map_blocks(block, (queries, exclude, query_ok), block_size=block_size),
    )


def _select(
    distances: jax.Array, group: int, wanted: int, method: str
) -> tuple[jax.Array, jax.Array]:
    """The smallest distances (Q, wanted) of each row and their columns in the order of points.

    The ``wanted`` groups with the smallest minima hold the ``wanted`` smallest elements. Groups
    are runs of consecutive points, so this stays true when ties are broken by index.
    """
    if method == "approximate":
        smallest, columns = jax.lax.approx_min_k(distances, wanted, recall_target=0.95)
        return smallest, columns.astype(jnp.int32)
    if group == 1:
        largest, columns = jax.lax.top_k(-distances, wanted)
        return -largest, columns.astype(jnp.int32)
    num_queries = distances.shape[0]
    members = distances.reshape(num_queries, group, -1)
    groups = jax.lax.top_k(-jnp.min(members, axis=1), wanted)[1]
    groups = jnp.sort(groups, axis=1)
    values = jnp.take_along_axis(members, groups[:, None, :], axis=2)
    values = values.transpose(0, 2, 1).reshape(num_queries, wanted * group)
    largest, position = jax.lax.top_k(-values, wanted)
    chosen = jnp.take_along_axis(groups, position // group, axis=1)
    columns = (chosen * group + position % group).astype(jnp.int32)
    return -largest, columns


def check_options(num_neighbors: int, block_size: int, method: str) -> None:
    """Raises ValueError on options of a search that mean nothing."""
    if num_neighbors < 1:
        raise ValueError(f"num_neighbors must be at least 1, got {num_neighbors}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    if method not in ("exact", "approximate"):
        raise ValueError(f"method must be 'exact' or 'approximate', got {method!r}")


def _check(queries, points, num_neighbors, exclude, block_size, method):
    """Raises ValueError on misuse."""
    for name, array in (("queries", queries), ("points", points)):
        if array.ndim != 2:
            raise ValueError(f"{name} must be (number, D), got shape {array.shape}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating, got {array.dtype}")
    if queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries and points must agree in D, got {queries.shape} and {points.shape}"
        )
    check_options(num_neighbors, block_size, method)
    if exclude is not None and (
        exclude.shape != queries.shape[:1] or not jnp.issubdtype(exclude.dtype, jnp.integer)
    ):
        raise ValueError(
            f"exclude must be {queries.shape[:1]} integers, got {exclude.shape} {exclude.dtype}"
        )
