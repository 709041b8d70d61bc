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

The copies of the point that occurs most often take no part, since they are known (`copies`).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jnnk._core import typed_jax
from jnnk._core.precision import WHOLE, contract
from jnnk.graphs._search.copies import Copies, nearness
from jnnk.graphs._search.differences import are_finite, power_of_two, sums_of_squares
from jnnk.graphs._search.ring import Ring

# Columns of the estimates that share one maximum in the first selection (see `select`); a
# divisor of WHOLE.
_GROUP = 16
# Candidates kept beyond the asked ones: what comes after them bounds what is left out.
_MARGIN = 7
# Squared distance of a point that does not exist. Finite, since a product in several bfloat16
# passes turns infinity into NaN; coordinates are scaled to at most 1 before.
_FAR = 1e30
#: Estimates from this on are of points that do not exist.
NONE = _FAR / 2
#: Centred queries farther out than this have no estimates.
REACH = 1024.0


class Frame(NamedTuple):
    """Where and how large the points are, from `frame_of`.

    Attributes:
        center: (D,), which estimates are made about.
        unit: (), a power of two that the points' coordinates about it do not exceed.
    """

    center: jax.Array
    unit: jax.Array


class Points(NamedTuple):
    """Points as both passes of the search compare queries with them.

    Attributes:
        rows: (P, D), from `filled`.
        columns: (D + 1, P), the factors of the estimates of those that are no copies, in the order
            of `by_member`.
        projections: (P,), of the places on one direction.
    """

    rows: jax.Array
    columns: jax.Array
    projections: jax.Array


def frame_of(rows: jax.Array, exists: jax.Array, *, ring: Ring = Ring()) -> Frame:  # noqa: B008
    """The `Frame` of the points (N, D) that exist (N,), all finite.

    The unit is a power of two at least as large as any coordinate's distance from the centre, and
    the centre is the mean rounded to quarters of the unit, so that subtracting and dividing is
    exact on data like integers and keeps every tie.
    """
    safe = jax.lax.stop_gradient(jnp.where(exists[:, None], rows, 0))
    count = jnp.maximum(ring.total(jnp.sum(exists.astype(rows.dtype))), 1)
    mean = ring.total(jnp.sum(safe / count, axis=0))
    far = jnp.where(exists[:, None], jnp.abs(safe - mean[None]), 0)
    spread = ring.largest(jnp.max(far, initial=0))
    least = math.ldexp(1.0, int(typed_jax.finfo(rows.dtype).minexp) + 4)
    unit = jnp.where(spread > 0, jnp.maximum(2 * power_of_two(spread), least), 1)
    return Frame(jnp.round(mean / unit * 4) / 4 * unit, unit)


def shortlist_length(num_neighbors: int) -> int:
    """W, from which the K nearest are ranked: the query itself and a margin come on top."""
    return num_neighbors + 1 + _MARGIN


def filled_size(num_points: int, *, num_neighbors: int) -> int:
    """P, a multiple of `jnnk._core.precision.WHOLE` of at least W and more than N."""
    return -(-max(num_points + 1, shortlist_length(num_neighbors)) // WHOLE) * WHOLE


def filled(points: jax.Array, *, num_neighbors: int) -> jax.Array:
    """Points (P, D), infinite where there is none or one with NaN or infinity; so is the last."""
    missing = filled_size(len(points), num_neighbors=num_neighbors) - len(points)
    rows = jnp.pad(points, ((0, missing), (0, 0)), constant_values=np.inf)
    return jnp.where(are_finite(rows)[:, None], rows, jnp.inf)


def exist(rows: jax.Array) -> jax.Array:
    """Which of the points (P, D) from `filled` there are."""
    return rows[:, 0] < jnp.inf


def placed(rows: jax.Array, frame: Frame) -> jax.Array:
    """The places (P, D) of points from `filled`: centred, 0 where there is none."""
    return jnp.where(exist(rows)[:, None], centred(rows, frame), 0)


def prepared(rows: jax.Array, frame: Frame, copies: Copies, *, group: int) -> Points:
    """The `Points` of rows (P, D) from `filled`."""
    places, dim = placed(rows, frame), rows.shape[1]
    norms = sums_of_squares(places) * (1 - 3 * relative_error(rows.dtype, dim))
    others = exist(rows) & (nearness(rows, copies.point) < 0)
    columns = jnp.concatenate([places, jnp.where(others, norms, _FAR)[:, None]], axis=1)
    columns = by_member(columns, group).T
    return Points(rows, columns, projected(places))


def projected(places: jax.Array) -> jax.Array:
    """Projections (N,) of (N, D) on a direction like no other.

    Where N is a multiple of WHOLE, those of the same places are the same numbers.
    """
    direction = np.random.default_rng(0).normal(size=(1, places.shape[1]))
    direction /= np.linalg.norm(direction)
    return jnp.sum(places * direction.astype(places.dtype), axis=1)


def estimated(places: jax.Array, points: Points) -> jax.Array:
    """Estimates (B, P) of the squared distances of centred queries (B, D), but for their own term.

    Negative, in the order of `by_member`. Those of queries beyond `REACH` mean nothing.
    """
    places = jnp.clip(places, -REACH, REACH)
    rows = jnp.concatenate([2 * places, -jnp.ones_like(places[:, :1])], axis=1)
    return contract("bd,dp->bp", rows, points.columns)


def relative_error(dtype: DTypeLike, dim: int) -> float:
    """The g above."""
    error = (dim + 16) * float(typed_jax.finfo(dtype).eps) / 2
    return error / (1 - min(4 * error, 0.5))


def centred(points: jax.Array, frame: Frame) -> jax.Array:
    """Points (N, D) about the centre, in the unit of the frame."""
    return (points - frame.center[None]) / frame.unit


def taken(rows: jax.Array, slots: jax.Array) -> jax.Array:
    """Of rows (B, W, ...) what stands in the slots (B, K)."""
    slots = slots.reshape(*slots.shape, *[1] * (rows.ndim - 2))
    return jnp.take_along_axis(rows, slots, axis=1, mode="promise_in_bounds")


def group_size(num_points: int, num_neighbors: int) -> int:
    """Consecutive points that share one maximum in `select`, 1 where there are too few."""
    wanted = min(shortlist_length(num_neighbors), num_points)
    return _GROUP if num_points > _GROUP * wanted else 1


def by_member(rows: jax.Array, group: int) -> jax.Array:
    """Rows (N, ...), N a multiple of WHOLE, as `select` takes their distances.

    Member s of all groups, then member s + 1: groups of consecutive points lie strided, so that
    maxima over groups are maxima of whole rows.
    """
    return rows.reshape(-1, group, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def select(
    values: jax.Array, group: int, wanted: int, *, method: str = "exact"
) -> tuple[jax.Array, jax.Array]:
    """The largest values (Q, wanted) of each row and their columns in the order of points.

    The rows lie as `by_member` lays them.
    The ``wanted`` groups with the largest maxima hold the ``wanted`` largest elements. Groups
    are runs of consecutive points, so this stays true when ties are broken by index.
    """
    if method == "approximate":
        largest, columns = jax.lax.approx_max_k(values, wanted, recall_target=0.95)
        return largest, columns.astype(jnp.int32)
    if group == 1:
        return jax.lax.top_k(values, wanted)
    num_queries = values.shape[0]
    members = values.reshape(num_queries, group, -1)
    groups = jax.lax.top_k(jnp.max(members, axis=1), wanted)[1]
    groups = jnp.sort(groups, axis=1)
    values = jnp.take_along_axis(members, groups[:, None, :], axis=2, mode="promise_in_bounds")
    values = values.transpose(0, 2, 1).reshape(num_queries, wanted * group)
    largest, position = jax.lax.top_k(values, wanted)
    return largest, taken(groups, position // group) * group + position % group
