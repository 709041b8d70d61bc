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

The copies of the point that occurs most often take no part, since they are known (`jnnk.copies`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.blocks import map_blocks
from jnnk.copies import Copies
from jnnk.differences import Distances, are_finite, least_square, sums_of_squares
from jnnk.precision import WHOLE, contract

# Columns of the distance matrix that share one minimum in the first selection (see `select`); a
# divisor of WHOLE.
_GROUP = 16
# Candidates kept beyond the asked ones: what comes after them bounds what is left out.
_MARGIN = 7
# Squared distance of a point that does not exist. Finite, since a product in several bfloat16
# passes turns infinity into NaN; coordinates are scaled to at most 1 before.
_FAR = 1e30
#: Estimates from this on are of points that do not exist.
NONE = _FAR / 2
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
            query. At least `NONE` where there are fewer than W points.
        indices: int32 (Q, W).
    """

    estimates: jax.Array
    indices: jax.Array


class Points(NamedTuple):
    """Points as the search takes them, filled up with points that do not exist.

    Attributes:
        rows: (P, D), infinite where there is none, as in the last row.
        places: (P, D), centred, in units of the `Frame`; 0 where there is none.
        exists: bool (P,).
        projections: (P,), of the places on one direction.
    """

    rows: jax.Array
    places: jax.Array
    exists: jax.Array
    projections: jax.Array


def shortlist_length(num_neighbors: int) -> int:
    """W, from which the K nearest are ranked: the query itself and a margin come on top."""
    return num_neighbors + 1 + _MARGIN


def filled_size(num_points: int, *, num_neighbors: int) -> int:
    """P, a multiple of `jnnk.precision.WHOLE` of at least W and more than N."""
    return -(-max(num_points + 1, shortlist_length(num_neighbors)) // WHOLE) * WHOLE


def filled(points: jax.Array, frame: Frame, *, num_neighbors: int) -> Points:
    """The `Points` of points (N, D); those with NaN or infinity do not exist."""
    missing = filled_size(len(points), num_neighbors=num_neighbors) - len(points)
    rows = jnp.pad(points, ((0, missing), (0, 0)), constant_values=np.inf)
    exists = are_finite(rows)
    rows = jnp.where(exists[:, None], rows, jnp.inf)
    places = jnp.where(exists[:, None], centred(rows, frame), 0)
    return Points(rows, places, exists, projected(places))


def others(points: Points, copies: Copies) -> jax.Array:
    """Which points (P,) are not of the copies."""
    return points.exists & (jnp.max(jnp.abs(points.rows - copies.point[None]), axis=1) > 0)


def projected(places: jax.Array) -> jax.Array:
    """Projections (N,) of (N, D) on a direction like no other.

    Where N is a multiple of WHOLE, those of the same places are the same numbers.
    """
    direction = np.random.default_rng(0).normal(size=(places.shape[1], 1))
    direction /= np.linalg.norm(direction)
    return contract("nd,do->no", places, jnp.asarray(direction, places.dtype))[:, 0]


def shortlists(
    queries: jax.Array,
    points: Points,
    frame: Frame,
    *,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
    finish: Callable[[Shortlist, Any], Any] = lambda found, inputs: found,
    beside: Any = (),
) -> Any:
    """What ``finish`` makes of the shortlists of blocks of queries; by default these themselves.

    The shortlist of all points are the W smallest estimates, ties by index, of the shortlists of
    parts of the points.

    Args:
        queries: (Q, D); those with NaN or infinity have any candidates.
        points: those that take part exist.
        frame: of all points.
        num_neighbors: K.
        block_size: queries whose estimates to all points are held at once.
        method: see `jnnk.neighbors.nearest_neighbors`.
        finish: from the `Shortlist` of a block and its rows of ``(queries, beside)``.
        beside: pytree of arrays of Q rows.
    """
    length, (num_points, dim) = shortlist_length(num_neighbors), points.rows.shape
    group = group_size(num_points, num_neighbors) if method == "exact" else 1
    norms = sums_of_squares(points.places)
    norms = jnp.where(points.exists, norms * (1 - 3 * relative_error(norms.dtype, dim)), _FAR)
    columns = by_member(jnp.concatenate([points.places, norms[:, None]], axis=1), group).T

    def block(inputs):
        rows, _ = _within_reach(centred(inputs[0], frame))
        rows = jnp.concatenate([-2 * rows, jnp.ones_like(rows[:, :1])], axis=1)
        partial = jnp.matmul(rows, columns, precision=jax.lax.Precision.HIGHEST)
        return finish(Shortlist(*select(partial, group, length, method=method)), inputs)

    return map_blocks(block, (queries, beside), block_size=block_size)


class Ranked(NamedTuple):
    """The K nearest of a shortlist.

    Attributes:
        indices: int32 (B, K), -1 where there are fewer.
        distances: `jnnk.differences.Distances` (B, K), ascending, infinity where there are fewer.
        unproven: (B,), 0 where no other point is proven to be as near as the K-th, else what the
            K-th distance is at most.
    """

    indices: jax.Array
    distances: Distances
    unproven: jax.Array


def rank(
    indices: jax.Array,
    differences: jax.Array,
    last: jax.Array,
    queries: jax.Array,
    exclude: jax.Array,
    copies: Copies,
    frame: Frame,
    *,
    num_neighbors: int,
) -> Ranked:
    """Ranks the shortlists of all points by the differences: the estimates cancel.

    Args:
        indices: int32 (B, W), ascending.
        differences: (B, W + 1, D) of the queries to them, and to the point of the copies; infinite
            or NaN where there are fewer.
        last: (B,), the largest estimate of each shortlist.
        queries: (B, D).
        exclude: int32 (B,), the index of a point to leave out, -1 for none.
        copies: of all points.
        frame: of all points.
        num_neighbors: K.
    """
    dtype, dim, length = queries.dtype, queries.shape[1], indices.shape[1]
    error, least, info = relative_error(dtype, dim), least_square(dtype, dim), jnp.finfo(dtype)
    squares = sums_of_squares(differences / frame.unit)
    of_copies = squares[:, length:]
    ids = jnp.broadcast_to(copies.indices[None], (len(queries), len(copies.indices)))
    ids = jnp.concatenate([ids, indices], axis=1)
    keys = jnp.where(copies.exists[None], of_copies, jnp.inf)
    keys = jnp.concatenate([keys, squares[:, :length]], axis=1)
    is_candidate = (ids != exclude[:, None]) & (keys < jnp.inf)  # neither is NaN
    kept, slots = jax.lax.top_k(jnp.where(is_candidate, -keys, -jnp.inf), num_neighbors)
    kept = -kept
    farthest = jnp.max(kept, axis=1)  # of a slice XLA would make a sort of the top_k
    places, reached = _within_reach(centred(queries, frame))
    own = sums_of_squares(places)
    # Computed distances err too; `least` is more than what is lost below the range of the dtype.
    bound = (last + own * (1 - 2 * error)) * (1 - error) - least
    # Squares that lost something below the range: there order and ties are those of what is left.
    doubtful = (squares < least) & (jnp.max(jnp.abs(differences), axis=2) > 0)
    # Copies come first, so that they are in the wrong order where they tie with others.
    of_others = jnp.arange(length + 1) < length
    doubtful |= (squares == of_copies) & (squares < jnp.inf) & of_others[None]
    proven = reached & ((last >= NONE) | (farthest < bound))
    proven &= jnp.sum(doubtful.astype(dtype), axis=1) == 0
    proven |= ~are_finite(queries)
    at_most = jnp.maximum(jnp.sqrt(jnp.maximum(farthest, least)) * frame.unit, info.tiny)
    at_most = jnp.where(farthest < jnp.inf, at_most, info.max / 8)
    return Ranked(
        jnp.where(kept < jnp.inf, taken(ids, slots), -1),
        Distances(jnp.sqrt(kept) * frame.unit, kept * frame.unit * frame.unit),
        jnp.where(proven, 0, at_most),
    )


def relative_error(dtype, dim: int) -> float:
    """The g above."""
    error = (dim + 16) * float(jnp.finfo(dtype).eps) / 2
    return error / (1 - min(4 * error, 0.5))


def centred(points: jax.Array, frame: Frame) -> jax.Array:
    """Points (N, D) about the centre, in the unit of the frame."""
    return (points - frame.center[None]) / frame.unit


def _within_reach(places: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Places (Q, D) with zeros for those so far out that products overflow, and which are not."""
    reached = sums_of_squares(places) <= _REACH**2
    return jnp.where(reached[:, None], places, 0), reached


def taken(rows: jax.Array, slots: jax.Array) -> jax.Array:
    """Of rows (B, W, ...) what stands in the slots (B, K)."""
    slots = slots.reshape(*slots.shape, *[1] * (rows.ndim - 2))
    return jnp.take_along_axis(rows, slots, axis=1, mode="promise_in_bounds")


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
    distances: jax.Array, group: int, wanted: int, *, method: str = "exact"
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
    values = jnp.take_along_axis(members, groups[:, None, :], axis=2, mode="promise_in_bounds")
    values = values.transpose(0, 2, 1).reshape(num_queries, wanted * group)
    largest, position = jax.lax.top_k(-values, wanted)
    chosen = taken(groups, position // group)
    columns = (chosen * group + position % group).astype(jnp.int32)
    return -largest, columns
