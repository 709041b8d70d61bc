"""The second pass of the search, for the queries whose neighbours the first one cannot prove.

They are compared by differences with every point that can be near enough. Which can, a projection
on one direction tells: it shortens distances, so points whose projection is farther from the
query's than its K-th neighbour at most is are none. In a narrow cluster few others are left.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk.differences import (
    Distances,
    least_square,
    power_of_two,
    squares_to_all,
    sums_of_squares,
)
from jnnk.precision import WHOLE
from jnnk.shortlists import (
    Frame,
    Points,
    by_member,
    centred,
    group_size,
    projected,
    relative_error,
    select,
    shortlist_length,
    taken,
)

#: Queries that are compared with points together.
CHUNK = 64
# Points that they are compared with at once: so many coordinates, and within these bounds, that
# joining the nearest of two tiles takes less time than comparing.
_TILE_FLOATS, _LEAST_TILE, _LARGEST_TILE = 2**17, 1024, 8192


class Line(NamedTuple):
    """Points in the order of their projections.

    Attributes:
        rows: (P, D), see `jnnk.shortlists.Points`.
        order: int32 (P,), points of ascending projection.
        projections: (P,), ascending, of the points of ``order``.
    """

    rows: jax.Array
    order: jax.Array
    projections: jax.Array


def on_a_line(points: Points) -> Line:
    """The `Line` of all points."""
    numbers = jnp.arange(len(points.rows), dtype=jnp.int32)
    projections, order = jax.lax.sort((points.projections, numbers), num_keys=1)
    return Line(points.rows, order, projections)


def projections_of(queries: jax.Array, frame: Frame) -> jax.Array:
    """The projections (Q,) of queries (Q, D), any number where they are not in range."""
    along = projected(centred(queries, frame))
    return jnp.where(jnp.isfinite(along), along, 0)


class Candidates(NamedTuple):
    """The nearest points of each query by their differences, W of them.

    Attributes:
        squares: (B, W), ascending, squared distances in a unit of the query; infinity where there
            are fewer, or they are out of the range.
        indices: int32 (B, W).
    """

    squares: jax.Array
    indices: jax.Array


def candidates_by_differences(
    queries: jax.Array,
    guesses: jax.Array,
    exclude: jax.Array,
    line: Line,
    frame: Frame,
    *,
    num_neighbors: int,
) -> Candidates:
    """The nearest of all points, ties by index; those of parts can be joined to those of all.

    Args:
        queries: (B, D), finite.
        guesses: (B,), at least the distance of the K-th neighbour, which becomes the unit.
        exclude: int32 (B,), a point to leave out; any number that is none for none.
        line: the points.
        frame: of all points.
        num_neighbors: K.
    """
    num_points, dim = line.rows.shape
    length = shortlist_length(num_neighbors)
    tile = max(_LEAST_TILE, min(_LARGEST_TILE, _TILE_FLOATS // dim // WHOLE * WHOLE))
    tile = min(max(tile, -(-length // WHOLE) * WHOLE), num_points)
    group = group_size(tile, num_neighbors)
    # Projections err by `relative_error` of the lengths, the points' at most the root of D.
    places = centred(queries, frame)
    error, own = 4 * relative_error(queries.dtype, dim), jnp.sqrt(sums_of_squares(places))
    reach = guesses / frame.unit * (1 + error) + error * (own + math.sqrt(dim))
    along = jnp.where(reach < jnp.inf, projected(places), 0)
    window = jnp.stack([jnp.min(along - reach), jnp.max(along + reach)])
    first, stop = jnp.sum(line.projections[None] < window[:, None], axis=1, dtype=jnp.int32)
    units = _units(guesses)
    order = jnp.pad(line.order, (0, tile), constant_values=num_points - 1)

    def step(carry):
        start, found = carry
        # By index, so that the first ones are kept of those that tie.
        ids = jnp.sort(jax.lax.dynamic_slice_in_dim(order, start, tile))
        laid = by_member(ids, group)
        squares = squares_to_all(queries, line.rows[laid], 1 / units)
        squares = jnp.where(laid[None, :] == exclude[:, None], jnp.inf, squares)
        squares, slots = select(squares, group, length)
        met = Candidates(squares, ids.at[slots].get(mode="promise_in_bounds"))
        both = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), found, met)
        both = jax.lax.sort(tuple(both), num_keys=2)
        return start + tile, Candidates(*(x[:, :length] for x in both))

    never = jnp.full((queries.shape[0], length), jnp.inf, queries.dtype)
    nothing = Candidates(never, jnp.full(never.shape, num_points - 1, jnp.int32))
    return jax.lax.while_loop(lambda carry: carry[0] < stop, step, (first, nothing))[1]


def present(found: Candidates, none: int) -> jax.Array:
    """The indices (B, W) of candidates, ``none`` where there are fewer."""
    return jnp.where(found.squares < jnp.inf, found.indices, none)


class Settled(NamedTuple):
    """What the second pass says of a chunk of queries.

    Attributes:
        indices: int32 (B, K), -1 where there are fewer.
        distances: `jnnk.differences.Distances` (B, K), infinity where there are fewer.
        unproven: (B,), 0, or a better bound on the distance of the K-th neighbour where the one
            that came was so bad that all candidates were too near to be told apart.
    """

    indices: jax.Array
    distances: Distances
    unproven: jax.Array


def settle(
    indices: jax.Array,
    differences: jax.Array,
    last: jax.Array,
    guesses: jax.Array,
    *,
    num_neighbors: int,
) -> Settled:
    """Ranks candidates by their differences.

    Args:
        indices: int32 (B, W), ascending.
        differences: (B, W, D).
        last: (B,), the largest of the candidates' squares.
        guesses: (B,), see `candidates_by_differences`.
        num_neighbors: K.
    """
    units, least = _units(guesses), least_square(guesses.dtype, differences.shape[-1])
    squares = sums_of_squares(differences / units[:, None, None])
    kept, slots = jax.lax.top_k(-squares, num_neighbors)
    again = (last < least) & (jnp.max(jnp.abs(differences), axis=(1, 2)) > 0)
    kept, units = -kept, units[:, None]
    return Settled(
        jnp.where(kept < jnp.inf, taken(indices, slots), -1),
        Distances(jnp.sqrt(kept) * units, kept * units * units),
        jnp.where(again, units[:, 0] * math.sqrt(least), 0),
    )


def settle_all(
    state: Any,
    unproven: jax.Array,
    along: jax.Array,
    settle_rows: Callable[[jax.Array, jax.Array], tuple[Any, jax.Array]],
    *,
    chunk: int,
    most: Callable[[jax.Array], jax.Array] = lambda value: value,
) -> Any:
    """The state with its rows to do replaced, a chunk at a time, until none is left to do.

    Args:
        state: pytree of arrays of Q rows.
        unproven: (Q,), positive for the rows to do.
        along: (Q,), finite numbers; rows of the smallest ones are taken first.
        settle_rows: from the numbers int32 (B,) of rows and what is unproven of them to new rows
            of the state, and what is unproven then.
        chunk: B, at most Q.
        most: the largest value of several devices that go on together.
    """

    def step(carry):
        state, unproven, _ = carry
        waiting, rows = jax.lax.top_k(jnp.where(unproven > 0, -along, -jnp.inf), chunk)
        is_todo = waiting > -jnp.inf
        # In the place of what is not to do another one once more, which is dropped.
        rows = jnp.where(is_todo, rows, jnp.max(jnp.where(is_todo, rows, 0)))
        settled, again = settle_rows(rows, unproven[rows])
        place = jnp.where(is_todo, rows, len(unproven))
        write = lambda x, new: x.at[place].set(new, mode="drop")  # noqa: E731
        state, unproven = jax.tree.map(write, (state, unproven), (settled, again))
        return state, unproven, most(jnp.max(unproven))

    start = (state, unproven, most(jnp.max(unproven)))
    return jax.lax.while_loop(lambda carry: carry[-1] > 0, step, start)[0]


def _units(guesses: jax.Array) -> jax.Array:
    """Powers of two in which squares up to those of the guesses are in the upper half of the range.

    Distances down to 1e-28 of a guess then keep all their digits, in float32.
    """
    info = jnp.finfo(guesses.dtype)
    small = math.ldexp(1.0, 14 - int(info.maxexp) // 2)
    return jnp.maximum(power_of_two(guesses) * small, 4 * float(info.tiny))
