"""The two passes of the search, which are one loop over blocks of queries.

The first steps go through all queries and choose candidates by estimates (`jnnk.shortlists`), the
others through those whose neighbours are not proven then and choose by differences
(`jnnk.second_pass`). What follows is the same: candidates are ranked by differences.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.blocks import map_blocks
from jnnk.copies import most_copied
from jnnk.differences import Distances, are_finite, sums_of_squares
from jnnk.ranking import Ranked, rank
from jnnk.ring import Ring, Shortlist
from jnnk.second_pass import measured
from jnnk.shortlists import (
    NONE,
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
_NONE = np.iinfo(np.int32).max


def search(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
    ring: Ring = Ring(),  # noqa: B008
    trip_size: int | None = None,
) -> tuple[jax.Array, Distances]:
    """`jnnk.neighbors.nearest_neighbors` on checked arrays of the working dtype.

    The neighbours are the same, ties and near ties too, whether one device has all points or they
    go round a ring: once and once more for every ``trip_size`` queries of each pass.

    Args:
        queries: (Q, D), D at least 1, in units of `jnnk.neighbors.UNIT`.
        points: (N, D), N at least 1; of a ring this device's share, NaN for none.
        exclude: int32 (Q,), the number among all points of one to leave out, -1 for none.
        num_neighbors: K, at most the number of all points.
        block_size: queries that are compared with all points of this device at once.
        method: see `jnnk.neighbors.nearest_neighbors`.
        ring: the devices that share the points.
        trip_size: queries that are ranked together, by default those of a block.

    Returns:
        ``(indices, distances)``: int32 (Q, K) and `Distances` (Q, K).
    """
    found = passes(
        queries,
        points,
        exclude,
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
        ring=ring,
        trip_size=trip_size,
    )
    return found.indices, found.distances


def passes(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    num_neighbors: int,
    block_size: int = 256,
    method: str = "exact",
    has_second: bool = True,
    ring: Ring = Ring(),  # noqa: B008
    trip_size: int | None = None,
) -> Ranked:
    """`search`, by the first pass alone if it need not be exact, and what is unproven."""
    # The search is no part of any derivative; distances that are differentiated are computed
    # from the points again.
    queries, points = map(jax.lax.stop_gradient, (queries, points))
    (num_queries, dim), share = queries.shape, len(points)
    never = jnp.full((num_queries, num_neighbors), jnp.inf, points.dtype)
    nothing = jnp.full(never.shape, -1, jnp.int32), Distances(never, never)
    # Infinite for queries that the first pass is still to come to.
    start = Ranked(*nothing, jnp.where(are_finite(queries), jnp.inf, 0).astype(points.dtype))
    if num_queries == 0:
        return start
    trip_size, length = min(trip_size or block_size, num_queries), shortlist_length(num_neighbors)
    has_second = has_second and method == "exact"
    rows = filled(points, num_neighbors=num_neighbors)
    group = group_size(len(rows), num_neighbors) if method == "exact" else 1
    frame = frame_of(rows, exist(rows), ring=ring)
    copies = most_copied(
        rows,
        exist(rows),
        projected(placed(rows, frame)),
        number=num_neighbors + 1,
        axis_name=ring.axis,
        share=share,
    )
    along = projected(centred(queries, frame))
    along = jnp.where(jnp.isfinite(along), along, 0)
    every = prepared(rows, frame, copies, group=group)

    def step(carry):
        state, number, _ = carry
        is_first = number < -(-num_queries // trip_size)
        todo = jnp.where(is_first, state.unproven == jnp.inf, state.unproven > 0)
        place, numbers = jax.lax.top_k(jnp.where(todo, along, -jnp.inf), trip_size)
        is_todo = place > -jnp.inf
        query, leave_out, guesses = (
            jnp.take(x, numbers, axis=0, mode="clip") for x in (queries, exclude, state.unproven)
        )
        guesses = jnp.where(is_todo & ~is_first, guesses, 0)
        places = centred(query, frame)
        own = sums_of_squares(places)

        def list_of(points, start):
            def block(inputs):
                query, places, own, guesses, along = inputs
                numbers = jnp.arange(len(rows), dtype=jnp.int32)

                def first():
                    return estimated(places, points), numbers

                def second():
                    return measured(query, guesses, along, own, points, frame, group=group)

                squares, numbers = jax.lax.cond(is_first, first, second) if has_second else first()
                squares, slots = select(squares, group, length, method=method)
                return Shortlist(squares, numbers[slots] + start)

            inputs = query, places, own, guesses, place
            return map_blocks(block, inputs, block_size=block_size)

        if ring.axis is None:
            found = list_of(every, 0)
        else:
            found = ring.shortlist(
                lambda met, start: list_of(prepared(met, frame, copies, group=group), start),
                rows,
                share=share,
            )
        # By index, so that the first ones are kept of those that tie.
        indices = jnp.sort(jnp.where(found.nearness > -NONE, found.indices, _NONE), axis=1)
        copied = jnp.broadcast_to(copies.indices[:1], (trip_size, 1))
        listed = jnp.concatenate([indices, copied], axis=1)
        # Gathered first: XLA would otherwise look up every coordinate by itself.
        listed = jax.lax.optimization_barrier(
            ring.rows(listed, rows, share=share, none=np.inf)
        )

        def rank_block(inputs):
            return rank(
                *inputs,
                is_first=is_first,
                copies=copies,
                frame=frame,
                num_neighbors=num_neighbors,
            )

        last = -jnp.min(found.nearness, axis=1)
        inputs = indices, listed - query[:, None], last, own, leave_out, guesses
        ranked = map_blocks(rank_block, inputs, block_size=block_size)
        written = jnp.where(is_todo, numbers, num_queries).astype(jnp.uint32)
        state = jax.tree.map(lambda old, new: old.at[written].set(new, mode="drop"), state, ranked)
        number = number + 1
        if not has_second:
            return state, number, number < -(-num_queries // trip_size)
        return state, number, ring.most(jnp.max(state.unproven)) > 0

    carry = (start, jnp.int32(0), jnp.bool_(True))
    return jax.lax.while_loop(lambda carry: carry[2], step, carry)[0]
