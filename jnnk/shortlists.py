"""The first pass of the search: candidates by estimated distances, and how far those can err.

With x and y the query and the point, centred, in units of the `Frame` and so rounded, the squared
distance is ``|x|^2 + (-2 x, 1) . (y, |y|^2)``: one matrix product estimates it for all pairs but
for the first term, which does not change the order. It cancels where the distance is small against
x and y. How far it can err: with u the unit roundoff of the dtype and ``g = (D + 16) u`` (a little
more, for terms of second order), and whatever the order of its D + 1 products and sums,

- the product errs by at most ``g (2 |x| |y| + |y|^2) <= g (|x|^2 + 2 |y|^2)``, also where products
  are made of several of half precision (`jax.lax.Precision.HIGHEST` on a TPU: to 4 u each, in the
  16), if sums are of the working dtype;
- ``|y|^2`` as computed errs by at most ``g |y|^2``;
- x and y err by u |x| and u |y|, hence ``|x - y|^2`` by ``4 u (|x|^2 + |y|^2)``.

So ``3 g |y|^2`` is taken off the norm in the product beforehand: then the estimate plus
``(1 - 2 g) |x|^2`` is a lower bound of the squared distance, and by it the points are sorted. All
that are not in the list have at least the bound of the last one that is.

Of points that are the same only the first takes part (`jnnk.copies`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.blocks import map_blocks
from jnnk.differences import least_square, sums_of_squares, to_rows
from jnnk.precision import WHOLE, row_sums

# Columns of the distance matrix that share one minimum in the first selection (see `select`); a
# divisor of WHOLE.
_GROUP = 16
# Candidates kept beyond the asked ones: what comes after them bounds what is left out.
_MARGIN = 7
# Squared distance of a point that does not exist. Finite, since a product in several bfloat16
# passes turns infinity into NaN; coordinates are scaled to at most 1 before.
_FAR = 1e30
# Centred queries farther out than this have no estimates.
_REACH = 1024.0


class Frame(NamedTuple):
    """Where and how large the points are, from `jnnk.neighbors.center_and_unit`.

    Attributes:
        center: (D,), which estimates are made about.
        unit: (), a power of two that the points' coordinates about it do not exceed.
    """

    center: jax.Array
    unit: jax.Array


class Shortlist(NamedTuple):
    """Candidates picked by estimated distances, W of them for each query, still to be ranked.

    Attributes:
        estimates: (Q, W), ascending: lower bounds of the squared distances, but for a term of the
            query. Infinity where there are fewer than W points.
        indices: int32 (Q, W), the first of each set of identical points.
        squares: (Q, W), squared distances from the differences. Infinity for what is no candidate:
            not finite, or none at all.
    """

    estimates: jax.Array
    indices: jax.Array
    squares: jax.Array


def shortlist_length(num_neighbors: int) -> int:
    """W, from which the K nearest are ranked: the query itself and a margin come on top."""
    return num_neighbors + 1 + _MARGIN


def shortlists(
    queries: jax.Array,
    points: jax.Array,
    is_first: jax.Array,
    frame: Frame,
    *,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
    finish: Callable[[Shortlist, Any], Any] = lambda found, beside: found,
    beside: Any = (),
) -> Any:
    """What ``finish`` makes of the shortlists of blocks of queries; by default these themselves.

    The shortlist of all points are the W smallest estimates, ties by index, of the shortlists of
    parts of the points.

    Args:
        queries: (Q, D); those with NaN or infinity have no candidates.
        points: (N, D), N at least 1.
        is_first: bool (N,), which points have no copy before them.
        frame: of all points.
        num_neighbors: K.
        block_size: queries whose estimates to all points are held at once.
        method: see `jnnk.neighbors.nearest_neighbors`.
        finish: from the `Shortlist` of a block and its rows of ``(queries, beside)``.
        beside: pytree of arrays of Q rows.
    """
    length, (num_points, dim) = shortlist_length(num_neighbors), points.shape
    wanted = min(length, num_points)
    group = group_size(num_points, num_neighbors) if method == "exact" else 1
    exists = jnp.all(jnp.isfinite(points), axis=1)
    points = jnp.where(exists[:, None], points, 0)
    centred = (points - frame.center[None]) / frame.unit
    norms = row_sums(centred * centred) * (1 - 3 * relative_error(points.dtype, dim))
    exists &= is_first
    norms = jnp.where(exists, norms, _FAR)
    columns = jnp.concatenate([centred, norms[:, None]], axis=1)
    padding = jnp.zeros((-num_points % WHOLE, dim + 1), points.dtype).at[:, -1].set(_FAR)
    columns = jnp.concatenate([columns, padding])
    columns = by_member(columns, group).T
    missing = ((0, 0), (0, length - wanted))

    def block(inputs):
        query = inputs[0]
        real = jnp.all(jnp.isfinite(query), axis=1)
        rows = jnp.where(_in_reach(query, frame)[:, None], _centred(query, frame), 0)
        rows = jnp.concatenate([-2 * rows, jnp.ones_like(rows[:, :1])], axis=1)
        partial = jnp.matmul(rows, columns, precision=jax.lax.Precision.HIGHEST)
        estimates, candidates = select(partial, group, wanted, method)
        gone = (candidates >= num_points) | ~real[:, None]
        candidates = jnp.minimum(candidates, num_points - 1)
        gone |= ~exists[candidates]
        # Ranked by the differences themselves: the product above cancels.
        differences = to_rows(points, candidates, jnp.where(real[:, None], query, 0))
        squares = jnp.where(gone, jnp.inf, sums_of_squares(differences / frame.unit))
        # Zero is for identical points alone, not for squares below the range: `is_certain` sees it.
        nearest = jnp.argmin(squares, axis=1)[:, None]
        same = points[jnp.take_along_axis(candidates, nearest, axis=1)[:, 0]] == query
        lost = (squares == 0) & ~jnp.all(same, axis=1, keepdims=True)
        squares = jnp.where(lost, jnp.finfo(squares.dtype).tiny, squares)
        found = Shortlist(
            jnp.pad(estimates, missing, constant_values=np.inf),
            jnp.pad(candidates, missing, constant_values=-1),
            jnp.pad(squares, missing, constant_values=np.inf),
        )
        return finish(found, inputs)

    return map_blocks(block, (queries, beside), block_size=block_size)


def is_certain(
    found: Shortlist, queries: jax.Array, farthest: jax.Array, frame: Frame
) -> jax.Array:
    """Whether no point outside of a query's shortlist is as near as its K-th neighbour: bool (Q,).

    Args:
        found: the shortlists (Q, W) of all points.
        queries: (Q, D).
        farthest: (Q,), the squared distance of the K-th neighbour in it; infinity if there are
            fewer.
        frame: of all points.

    Returns:
        True where it is proven, for all of finite distance that are computed as here; and where
        nothing was left out.
    """
    dtype, dim = queries.dtype, queries.shape[1]
    error, least = relative_error(dtype, dim), least_square(dtype, dim)
    rows = _centred(queries, frame)
    reached = _in_reach(queries, frame)
    own = row_sums(jnp.where(reached[:, None], rows * rows, 0))
    last = found.estimates[:, -1]
    # Computed distances err too; `least` is more than what is lost below the range of the dtype.
    bound = (last + own * (1 - 2 * error)) * (1 - error) - least
    complete = last >= _FAR / 2
    real = jnp.all(jnp.isfinite(queries), axis=1)
    # Squares that lost something below the range: there order and ties are those of what is left.
    small = jnp.any((found.squares < least) & (found.squares > 0), axis=1)
    small |= jnp.sum(found.squares == 0, axis=1) > 1
    overflown = jnp.any(jnp.isinf(found.squares) & (found.estimates < _FAR / 2), axis=1)
    return ~real | (reached & ~small & ~overflown & (complete | (farthest < bound)))


def relative_error(dtype, dim: int) -> float:
    """The g above."""
    error = (dim + 16) * float(jnp.finfo(dtype).eps) / 2
    return error / (1 - min(4 * error, 0.5))


def _centred(queries: jax.Array, frame: Frame) -> jax.Array:
    return (queries - frame.center[None]) / frame.unit


def _in_reach(queries: jax.Array, frame: Frame) -> jax.Array:
    """Queries (Q,) that are not so far out that their products overflow."""
    return jnp.all(jnp.abs(_centred(queries, frame)) <= _REACH, axis=1)


def group_size(num_points: int, num_neighbors: int) -> int:
    """Consecutive points that share one minimum in `select`, 1 where there are too few."""
    wanted = min(shortlist_length(num_neighbors), num_points)
    return _GROUP if num_points > _GROUP * wanted else 1


def by_member(rows: jax.Array, group: int) -> jax.Array:
    """Rows (N, ...), N a multiple of WHOLE, as `select` takes their distances.

    Member s of all groups, then member s + 1: groups of consecutive points lie strided, so that
    minima over groups are minima of whole rows.
    """
    return rows.reshape(-1, group, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def select(
    distances: jax.Array, group: int, wanted: int, method: str = "exact"
) -> tuple[jax.Array, jax.Array]:
    """The smallest distances (Q, wanted) of each row and their columns in the order of points.

    The rows lie as `by_member` lays them.
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
