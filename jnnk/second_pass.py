"""The second pass of the search, for the queries whose neighbours the first one cannot prove."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jnnk.differences import (
    TILE_POINTS,
    Distances,
    farness,
    least_square,
    power_of_two,
    squares_to_all,
    tiled,
)
from jnnk.shortlists import by_member, group_size, select, shortlist_length


class Candidates(NamedTuple):
    """The nearest points of each query by their differences, W of them.

    Attributes:
        squares: (B, W), ascending, squared distances in a unit of the query; infinity where there
            are fewer, or they are out of the range.
        indices: int32 (B, W).
    """

    squares: jax.Array
    indices: jax.Array


def laid_out(points: jax.Array, *, num_neighbors: int) -> jax.Array:
    """Points (N, D), finite, as `candidates_by_differences` takes them."""
    group = group_size(len(points), num_neighbors)
    whole = jnp.pad(points, ((0, -len(points) % TILE_POINTS), (0, 0)))
    return tiled(by_member(whole, group))


def candidates_by_differences(
    queries: jax.Array,
    guesses: jax.Array,
    exclude: jax.Array,
    tiles: jax.Array,
    exists: jax.Array,
    *,
    num_neighbors: int,
) -> Candidates:
    """The nearest of all points, ties by index; those of parts can be joined to those of all.

    Args:
        queries: (B, D), finite.
        guesses: (B,), at least the distance of the K-th neighbour, which becomes the unit.
        exclude: int32 (B,), a point to leave out; any number that is none for none.
        tiles: the points, from `laid_out`.
        exists: bool (N,).
        num_neighbors: K.
    """
    length, num_points = shortlist_length(num_neighbors), len(exists)
    group, wanted = group_size(num_points, num_neighbors), min(length, num_points)
    squares = squares_to_all(queries, 1 / power_of_two(guesses), tiles)
    exists = by_member(jnp.pad(exists, (0, squares.shape[1] - num_points)), group)
    number = by_member(jnp.arange(squares.shape[1], dtype=jnp.int32), group)
    there = exists[None, :] & (number[None, :] != exclude[:, None])
    squares, indices = select(jnp.where(there, squares, jnp.inf), group, wanted)
    missing = ((0, 0), (0, length - wanted))
    return Candidates(
        jnp.pad(squares, missing, constant_values=jnp.inf),
        jnp.pad(indices, missing, constant_values=0),
    )


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
    exists = jnp.isfinite(found.squares)
    far = farness(differences, exists)
    slots = jax.lax.broadcasted_iota(jnp.int32, found.indices.shape, 1)
    keys = (*far, found.indices, slots)
    exponent, mantissa, indices, slots = (
        x[:, :num_neighbors] for x in jax.lax.sort(keys, num_keys=3)
    )
    distances = type(far)(exponent, mantissa).measured()
    there = jnp.isfinite(distances.distances)
    last = distances.distances[:, -1]
    dim = differences.shape[-1]
    near = found.squares[:, -1] < least_square(guesses.dtype, dim)
    again = near & (last > 0) & (last < guesses)
    return Settled(
        jnp.where(there, indices, -1),
        distances,
        slots,
        jnp.where(again, last, guesses),
        again,
    )


def in_chunks_of_rows(
    state: Any,
    todo: jax.Array,
    solve: Callable[[jax.Array, Any], tuple[Any, jax.Array]],
    *,
    chunk: int,
    anywhere: Callable[[jax.Array], jax.Array] = lambda flag: flag,
) -> Any:
    """The state with its rows to do replaced, a chunk at a time, until none is left to do.

    Args:
        state: pytree of arrays of Q rows.
        todo: bool (Q,).
        solve: from the numbers int32 (B,) of rows, and the rows, to new ones and bool (B,), which
            of them are to do again.
        chunk: B, at most Q.
        anywhere: whether a flag is set on any of several devices that go on together.
    """

    def step(carry):
        state, todo, _ = carry
        # The first ones: of equal values those of the smallest index come first.
        is_todo, rows = jax.lax.top_k(todo.astype(jnp.float32), chunk)
        rows = rows.astype(jnp.int32)
        solved, again = solve(rows, jax.tree.map(lambda x: x[rows], state))
        # Rows beyond the last one to do stay as they are.
        place = jnp.where(is_todo > 0, rows, todo.shape[0])
        write = lambda x, new: x.at[place].set(new, mode="drop")  # noqa: E731
        state = jax.tree.map(write, state, solved)
        todo = write(todo, again)
        return state, todo, anywhere(jnp.any(todo))

    start = (state, todo, anywhere(jnp.any(todo)))
    return jax.lax.while_loop(lambda carry: carry[2], step, start)[0]
