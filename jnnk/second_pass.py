"""The second pass of the search, for the queries whose neighbours the first one cannot prove.

They are compared by differences with every point that can be near enough. Which can, a projection
on one direction tells: it shortens distances, so points whose projection is farther from the
query's than its K-th neighbour at most is are none. In a narrow cluster few others are left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.differences import (
    Distances,
    least_square,
    lengths,
    power_of_two,
    squares_to_all,
    sums_of_squares,
)
from jnnk.precision import WHOLE, row_sums
from jnnk.shortlists import (
    Frame,
    by_member,
    group_size,
    relative_error,
    select,
    shortlist_length,
)

#: Queries that are compared with points together.
CHUNK = 64
# Points that they are compared with at once: so many coordinates, and within these bounds, that
# joining the nearest of two tiles takes less time than comparing.
_TILE_FLOATS, _LEAST_TILE, _LARGEST_TILE = 2**17, 1024, 8192


class Line(NamedTuple):
    """Points in the order of their projections.

    Attributes:
        points: (N, D), finite.
        exists: bool (N,).
        order: int32 (N,), points of ascending projection.
        projections: (N,), ascending, of the points of ``order``.
    """

    points: jax.Array
    exists: jax.Array
    order: jax.Array
    projections: jax.Array


def on_a_line(points: jax.Array, frame: Frame) -> Line:
    """The `Line` of points (N, D); those with NaN or infinity do not exist."""
    exists = jnp.all(jnp.isfinite(points), axis=1)
    points = jnp.where(exists[:, None], points, 0)
    projections, order = jax.lax.sort(
        (_projections(points, frame), jnp.arange(len(points), dtype=jnp.int32)), num_keys=1
    )
    return Line(points, exists, order, projections)


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
    num_points, dim = line.points.shape
    length = shortlist_length(num_neighbors)
    tile = max(_LEAST_TILE, min(_LARGEST_TILE, _TILE_FLOATS // max(1, dim) // WHOLE * WHOLE))
    tile = min(max(tile, _whole(length)), _whole(num_points))
    group, wanted = group_size(tile, num_neighbors), min(length, tile)
    rates = 1 / power_of_two(guesses)
    # Projections err by `relative_error` of the lengths, the points' at most the root of D.
    centred = (queries - frame.center[None]) / frame.unit
    own = jnp.max(jnp.abs(centred), axis=1, initial=0)
    error = 4 * relative_error(queries.dtype, dim)
    reach = guesses / frame.unit * (1 + error) + error * (own + 1) * np.sqrt(max(dim, 1))
    projections = _projections(queries, frame)
    near = jnp.isfinite(projections)
    lowest = jnp.min(jnp.where(near, projections - reach, -jnp.inf))
    highest = jnp.max(jnp.where(near, projections + reach, jnp.inf))
    first = jnp.searchsorted(line.projections, lowest, side="left").astype(jnp.int32)
    stop = jnp.searchsorted(line.projections, highest, side="right").astype(jnp.int32)
    order = jnp.pad(line.order, (0, tile), constant_values=num_points)

    def step(carry):
        start, found = carry
        # By index, so that the first ones are kept of those that tie.
        ids = jnp.sort(jax.lax.dynamic_slice_in_dim(order, start, tile))
        laid = by_member(ids, group)
        members = jnp.minimum(laid, num_points - 1)
        squares = squares_to_all(queries, line.points[members], rates)
        there = (laid < num_points) & line.exists[members]
        there = there[None, :] & (members[None, :] != exclude[:, None])
        squares, slots = select(jnp.where(there, squares, jnp.inf), group, wanted)
        met = Candidates(squares, jnp.minimum(ids, num_points - 1)[slots])
        both = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), found, met)
        return start + tile, first_candidates(both, length)

    never = jnp.full((queries.shape[0], length), jnp.inf, queries.dtype)
    nothing = Candidates(never, jnp.full(never.shape, num_points - 1, jnp.int32))
    return jax.lax.while_loop(lambda carry: carry[0] < stop, step, (first, nothing))[1]


def _whole(number: int) -> int:
    return -(-number // WHOLE) * WHOLE


def first_candidates(found: Candidates, length: int) -> Candidates:
    """The nearest of candidates, ties by index."""
    return Candidates(*(x[:, :length] for x in jax.lax.sort(tuple(found), num_keys=2)))


def _projections(points: jax.Array, frame: Frame) -> jax.Array:
    """Of (N, D), in units of the frame, on a direction like no other."""
    direction = np.random.default_rng(0).normal(size=points.shape[1])
    direction /= max(np.linalg.norm(direction), 1e-30)
    centred = (points - frame.center[None]) / frame.unit
    return row_sums(centred * jnp.asarray(direction, points.dtype)[None])


class Settled(NamedTuple):
    """What the second pass says of a chunk of queries.

    Attributes:
        indices: int32 (B, K), -1 where there are fewer.
        distances: `jnnk.differences.Distances` (B, K), infinity where there are fewer.
        slots: int32 (B, K), where among the candidates they stand.
        guesses: (B,), distances of the K-th neighbours, better than those that came.
        again: bool (B,), where the guess was so bad that all candidates were too near to be told
            apart.
    """

    indices: jax.Array
    distances: Distances
    slots: jax.Array
    guesses: jax.Array
    again: jax.Array


def settle(
    found: Candidates, differences: jax.Array, guesses: jax.Array, *, num_neighbors: int
) -> Settled:
    """Ranks candidates (B, W) by their differences (B, W, D), in the whole range of the dtype."""
    exists, unit = jnp.isfinite(found.squares), power_of_two(guesses)[:, None]
    distances = jnp.where(exists, lengths(differences), jnp.inf)
    # What tells those apart whose roots are rounded to the same.
    squares = jnp.where(exists, sums_of_squares(differences / unit[:, :, None]), jnp.inf)
    slots = jax.lax.broadcasted_iota(jnp.int32, squares.shape, 1)
    keys = (distances, squares, found.indices, slots)
    distances, squares, indices, slots = (
        x[:, :num_neighbors] for x in jax.lax.sort(keys, num_keys=3)
    )
    least = least_square(guesses.dtype, differences.shape[-1])
    squares = jnp.where(squares < least, distances * distances, squares * unit * unit)
    last = distances[:, -1]
    again = (found.squares[:, -1] < least) & (last > 0) & (last < guesses)
    return Settled(
        jnp.where(jnp.isfinite(distances), indices, -1),
        Distances(distances, squares),
        slots,
        jnp.where(again, last, guesses),
        again,
    )


def settle_all(
    state: Any,
    todo: jax.Array,
    order: jax.Array,
    settle_rows: Callable[[jax.Array, Any], tuple[Any, jax.Array]],
    *,
    chunk: int,
    anywhere: Callable[[jax.Array], jax.Array] = lambda flag: flag,
) -> Any:
    """The state with its rows to do replaced, a chunk at a time, until none is left to do.

    Args:
        state: pytree of arrays of Q rows.
        todo: bool (Q,).
        order: int32 (Q,), the rows in the order in which they are taken.
        settle_rows: from the numbers int32 (B,) of rows, and the rows, to new ones and bool (B,),
            which of them are to do again.
        chunk: B, at most Q.
        anywhere: whether a flag is set on any of several devices that go on together.
    """

    def step(carry):
        state, todo, _ = carry
        # The first ones: of equal values those of the smallest index come first.
        is_todo, places = jax.lax.top_k(todo[order].astype(jnp.float32), chunk)
        # In the place of what is not to do the first one once more, which is dropped.
        rows = order[jnp.where(is_todo > 0, places, places[0])]
        settled, again = settle_rows(rows, jax.tree.map(lambda x: x[rows], state))
        place = jnp.where(is_todo > 0, rows, todo.shape[0])
        write = lambda x, new: x.at[place].set(new, mode="drop")  # noqa: E731
        todo = write(todo, again)
        return jax.tree.map(write, state, settled), todo, anywhere(jnp.any(todo))

    start = (state, todo, anywhere(jnp.any(todo)))
    return jax.lax.while_loop(lambda carry: carry[2], step, start)[0]
