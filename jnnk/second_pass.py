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
    rates = 1 / power_of_two(guesses)
    # Projections err by `relative_error` of the lengths, the points' at most the root of D.
    places = centred(queries, frame)
    along, own = projected(places), jnp.max(jnp.abs(places), axis=1)
    error = 4 * relative_error(queries.dtype, dim)
    reach = guesses / frame.unit * (1 + error) + error * (own + 1) * np.sqrt(dim)
    near = jnp.isfinite(along)
    lowest = jnp.min(jnp.where(near, along - reach, -jnp.inf))
    highest = jnp.max(jnp.where(near, along + reach, jnp.inf))
    first = jnp.sum(line.projections < lowest, dtype=jnp.int32)
    stop = jnp.sum(line.projections <= highest, dtype=jnp.int32)
    order = jnp.pad(line.order, (0, tile), constant_values=num_points - 1)

    def step(carry):
        start, found = carry
        # By index, so that the first ones are kept of those that tie.
        ids = jnp.sort(jax.lax.dynamic_slice_in_dim(order, start, tile))
        laid = by_member(ids, group)
        squares = squares_to_all(queries, line.rows[laid], rates)
        squares = jnp.where(laid[None, :] == exclude[:, None], jnp.inf, squares)
        squares, slots = select(squares, group, length)
        both = (
            jnp.concatenate([found.squares, squares], axis=1),
            jnp.concatenate([found.indices, ids.at[slots].get(mode="promise_in_bounds", wrap_negative_indices=False)], axis=1),
        )
        both = (x[:, :length] for x in jax.lax.sort(both, num_keys=2))
        return start + tile, Candidates(*both)

    never = jnp.full((queries.shape[0], length), jnp.inf, queries.dtype)
    nothing = Candidates(never, jnp.full(never.shape, num_points - 1, jnp.int32))
    return jax.lax.while_loop(lambda carry: carry[0] < stop, step, (first, nothing))[1]


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
    along: jax.Array,
    settle_rows: Callable[[jax.Array, Any], tuple[Any, jax.Array]],
    *,
    chunk: int,
    anywhere: Callable[[jax.Array], jax.Array] = lambda flag: flag,
) -> Any:
    """The state with its rows to do replaced, a chunk at a time, until none is left to do.

    Args:
        state: pytree of arrays of Q rows.
        todo: bool (Q,).
        along: (Q,), finite numbers; rows of the smallest ones are taken first.
        settle_rows: from the numbers int32 (B,) of rows, and the rows, to new ones and bool (B,),
            which of them are to do again.
        chunk: B, at most Q.
        anywhere: whether a flag is set on any of several devices that go on together.
    """

    def step(carry):
        state, todo, _ = carry
        waiting, rows = jax.lax.top_k(jnp.where(todo, -along, -jnp.inf), chunk)
        is_todo = waiting > -jnp.inf
        settled, again = settle_rows(rows, jax.tree.map(lambda x: x[rows], state))
        place = jnp.where(is_todo, rows, todo.shape[0])
        write = lambda x, new: x.at[place].set(new, mode="drop")  # noqa: E731
        todo = write(todo, again)
        return jax.tree.map(write, state, settled), todo, anywhere(jnp.any(todo))

    start = (state, todo, anywhere(jnp.any(todo)))
    return jax.lax.while_loop(lambda carry: carry[2], step, start)[0]
