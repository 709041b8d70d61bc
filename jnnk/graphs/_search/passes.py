"""The two passes of the search, which are one loop over blocks of queries.

The first steps go through all queries and choose candidates by estimates (`shortlists`), the
others through those whose neighbours are not proven then and choose by differences
(`second_pass`). What follows is the same: candidates are ranked by differences (`ranking`).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core import typed_jax
from jnnk._core.blocks import map_blocks
from jnnk.graphs._search.copies import most_copied
from jnnk.graphs._search.differences import Distances, are_finite, sums_of_squares
from jnnk.graphs._search.ranking import Contenders, Ranked, rank
from jnnk.graphs._search.ring import Ring, Shortlist
from jnnk.graphs._search.second_pass import measured
from jnnk.graphs._search.shortlists import (
    NONE,
    Frame,
    Points,
    centred,
    estimated,
    exist,
    filled,
    frame_of,
    group_size,
    placed,
    prepared,
    projected,
    select,
    shortlist_length,
)

# The index of what does not exist, after all others.
_NO_INDEX = np.iinfo(np.int32).max


class Asked(NamedTuple):
    """Queries that are compared with the points together.

    Attributes:
        rows: (B, D), as they came.
        places: (B, D), centred.
        own: (B,), the squared lengths of the places.
        along: (B,), their projections, minus infinity for rows that are not to do.
        guesses: (B,), in the second pass at least the distance of the K-th neighbour, 0 for rows
            that are not to do.
    """

    rows: jax.Array
    places: jax.Array
    own: jax.Array
    along: jax.Array
    guesses: jax.Array


class _Walk(NamedTuple):
    """The search between two steps of its loop.

    Attributes:
        found: `Ranked` (Q, K), as far as it is known.
        number: int32 (), steps made.
        is_left: bool (), whether there is something left to do.
    """

    found: Ranked
    number: jax.Array
    is_left: jax.Array


def search(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    num_neighbors: int,
    block_size: int = 256,
    method: str = "exact",
    ring: Ring = Ring(),  # noqa: B008
    trip_size: int | None = None,
    has_second: bool = True,
) -> Ranked:
    """`jnnk.graphs.nearest_neighbors` on checked arrays of the working dtype.

    The neighbours are the same, ties and near ties too, whether one device has all points or they
    go round a ring: twice for every ``trip_size`` queries, and twice more for every ``trip_size``
    of those that the first pass does not prove.

    Args:
        queries: (Q, D), D at least 1, in units of `_neighbors.UNIT`.
        points: (N, D); of a ring this device's share, NaN for none.
        exclude: int32 (Q,), the number among all points of one to leave out, -1 for none.
        num_neighbors: K, at most the number of all points, or 1.
        block_size: queries that are compared with all points of a device at once.
        method: see `jnnk.graphs.nearest_neighbors`.
        ring: the devices that share the points.
        trip_size: queries of one step of the loop, by default a block.
        has_second: False leaves out the second pass.

    Returns:
        `Ranked` (Q, K), where without a second pass some may be unproven.
    """
    # The search is no part of any derivative; distances that are differentiated are computed
    # from the points again.
    queries, points = map(jax.lax.stop_gradient, (queries, points))
    num_queries, share = len(queries), len(points)
    never = jnp.full((num_queries, num_neighbors), jnp.inf, points.dtype)
    start = Ranked(
        jnp.full(never.shape, -1, jnp.int32),
        Distances(never, never),
        # Infinite for queries that the first pass is still to come to.
        jnp.where(are_finite(queries), jnp.inf, 0).astype(points.dtype),
    )
    if num_queries == 0:
        return start
    has_second = has_second and method == "exact"
    size = min(trip_size or block_size, num_queries)
    num_first = -(-num_queries // size)
    rows = filled(points, num_neighbors=num_neighbors)
    group = group_size(len(rows), num_neighbors) if method == "exact" else 1
    frame = frame_of(rows, exist(rows), ring=ring)
    along = projected(placed(rows, frame))
    copies = most_copied(
        rows, exist(rows), along, number=num_neighbors + 1, axis_name=ring.axis, share=share
    )
    prepare = functools.partial(prepared, frame=frame, copies=copies, group=group)
    every = prepare(rows)
    along = projected(centred(queries, frame))
    along = jnp.where(jnp.isfinite(along), along, 0)

    def is_left(walk: _Walk) -> jax.Array:
        return walk.is_left

    def step(walk: _Walk) -> _Walk:
        state, number, _ = walk
        is_first = number < num_first
        todo = jnp.where(is_first, state.unproven == jnp.inf, state.unproven > 0)
        place, numbers = jax.lax.top_k(jnp.where(todo, along, -jnp.inf), size)
        is_todo = place > -jnp.inf
        row, leave_out, guess = (
            jnp.take(x, numbers, axis=0, mode="clip") for x in (queries, exclude, state.unproven)
        )
        guess = jnp.where(is_todo & ~is_first, guess, 0)
        places = centred(row, frame)
        asked = Asked(row, places, sums_of_squares(places), place, guess)
        list_of = functools.partial(
            _shortlist,
            asked,
            is_first=is_first if has_second else None,
            frame=frame,
            group=group,
            length=shortlist_length(num_neighbors),
            block_size=block_size,
            method=method,
        )
        if ring.axis is None:
            found = list_of(every, 0)
        else:

            def list_of_share(rows: jax.Array, start: jax.Array) -> Shortlist:
                return list_of(prepare(rows), start)

            found = ring.shortlist(list_of_share, rows, share=share)
        # By index, so that the first ones are kept of those that tie.
        indices = jnp.sort(jnp.where(found.nearness > -NONE, found.indices, _NO_INDEX), axis=1)
        copied = jnp.broadcast_to(copies.indices[:1], (size, 1))
        listed = jnp.concatenate([indices, copied], axis=1)
        # Gathered first: XLA would otherwise look up every coordinate by itself.
        listed = jax.lax.optimization_barrier(ring.rows(listed, rows, share=share, none=np.inf))
        last = -jnp.min(found.nearness, axis=1)
        rank_block = functools.partial(
            rank, is_first=is_first, copies=copies, frame=frame, num_neighbors=num_neighbors
        )
        differences = listed - row[:, None]
        ranked = map_blocks(
            rank_block,
            Contenders(indices, differences, last, asked.own, leave_out, guess),
            # In a ring too: how sums round depends on how many there are.
            block_size=block_size,
        )
        # Unsigned: JAX would wrap negative ones. What is out of range is dropped.
        written = jnp.where(is_todo, numbers, num_queries).astype(jnp.uint32)

        def write(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[written].set(new, mode="drop")

        state: Ranked = jax.tree.map(write, state, ranked)
        number = number + 1
        goes_on = ring.most(jnp.max(state.unproven)) > 0 if has_second else number < num_first
        return _Walk(state, number, goes_on)

    walk = _Walk(start, jnp.int32(0), jnp.bool_(True))
    return jax.lax.while_loop(is_left, step, walk).found


def _shortlist(
    asked: Asked,
    points: Points,
    start: jax.Array | int,
    *,
    is_first: jax.Array | None,
    frame: Frame,
    group: int,
    length: int,
    block_size: int,
    method: str,
) -> Shortlist:
    """The candidates among a share of the points, of which the first one has number ``start``.

    By estimates where ``is_first`` is None.
    """
    numbers = jnp.arange(len(points.rows), dtype=jnp.int32)

    def block(asked: Asked) -> Shortlist:
        def first() -> tuple[jax.Array, jax.Array]:
            return estimated(asked.places, points), numbers

        def second() -> tuple[jax.Array, jax.Array]:
            return measured(
                asked.rows,
                asked.guesses,
                asked.along,
                asked.own,
                points,
                frame,
                group=group,
            )

        values, listed = first() if is_first is None else typed_jax.cond(is_first, first, second)
        values, slots = select(values, group, length, method=method)
        return Shortlist(values, listed[slots] + start)

    return map_blocks(block, asked, block_size=block_size)
