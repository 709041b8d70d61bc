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
from jnnk.graphs._search.copies import Copies, most_copied
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
            that are not to do and in the first pass.
        exclude: int32 (B,), the index of a point to leave out, -1 for none.
    """

    rows: jax.Array
    places: jax.Array
    own: jax.Array
    along: jax.Array
    guesses: jax.Array
    exclude: jax.Array


class _Field(NamedTuple):
    """The points that all steps of a search compare queries with.

    Attributes:
        rows: (P, D) from `filled`; of a ring this device's share.
        points: `Points` of these rows.
        frame: of all points.
        copies: of all points.
        share: points of each device of a ring.
        ring: the devices.
    """

    rows: jax.Array
    points: Points
    frame: Frame
    copies: Copies
    share: int
    ring: Ring


class _Options(NamedTuple):
    """How a search goes; see `search`."""

    num_neighbors: int
    block_size: int
    method: str
    has_second: bool
    group: int  # points that share one maximum, see `shortlists.select`


class _Walk(NamedTuple):
    """The search between two steps of its loop.

    Attributes:
        found: `Ranked` (Q, K), as far as it is known.
        reached: bool (Q,), whether the first pass is done with a query.
        number: int32 (), steps made.
        is_left: bool (), whether there is something left to do.
    """

    found: Ranked
    reached: jax.Array
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
        `Ranked` (Q, K), where without a second pass some may not be proven.
    """
    # The search is no part of any derivative; distances that are differentiated are computed
    # from the points again.
    queries, points = map(jax.lax.stop_gradient, (queries, points))
    num_queries, share = len(queries), len(points)
    never = jnp.full((num_queries, num_neighbors), jnp.inf, points.dtype)
    start = Ranked(
        jnp.full(never.shape, -1, jnp.int32),
        Distances(never, never),
        # What is not finite has no neighbours, and needs no pass.
        ~are_finite(queries),
        jnp.zeros(num_queries, points.dtype),
    )
    if num_queries == 0:
        return start
    has_second = has_second and method == "exact"
    size = min(trip_size or block_size, num_queries)
    num_first = -(-num_queries // size)
    rows = filled(points, num_neighbors=num_neighbors)
    group = group_size(len(rows), num_neighbors) if method == "exact" else 1
    options = _Options(num_neighbors, block_size, method, has_second, group)
    field = _field_of(rows, options, ring=ring, share=share)
    along = projected(centred(queries, field.frame))
    along = jnp.where(jnp.isfinite(along), along, 0)

    def is_left(walk: _Walk) -> jax.Array:
        return walk.is_left

    def step(walk: _Walk) -> _Walk:
        state, reached, number, _ = walk
        is_first = number < num_first
        todo = ~state.proven & ~(reached & is_first)
        # Those of the largest projections lie side by side: the second pass looks at few points.
        projections, chosen = jax.lax.top_k(jnp.where(todo, along, -jnp.inf), size)
        is_todo = projections > -jnp.inf
        row, leave_out, guess = (
            jnp.take(x, chosen, axis=0, mode="clip") for x in (queries, exclude, state.at_most)
        )
        guess = jnp.where(is_todo & ~is_first, guess, 0)
        places = centred(row, field.frame)
        asked = Asked(row, places, sums_of_squares(places), projections, guess, leave_out)
        found = _candidates(asked, field, options, is_first)
        ranked = _ranked(asked, found, field, options, is_first)
        # Unsigned, so that JAX adds no code for negative ones; what is out of range is dropped.
        written = jnp.where(is_todo, chosen, num_queries).astype(jnp.uint32)

        def write(old: jax.Array, new: jax.Array) -> jax.Array:
            return old.at[written].set(new, mode="drop")

        state: Ranked = jax.tree.map(write, state, ranked)
        reached = write(reached, is_todo)
        number = number + 1
        goes_on = ring.any(~jnp.all(state.proven)) if has_second else number < num_first
        return _Walk(state, reached, number, goes_on)

    walk = _Walk(start, start.proven, jnp.int32(0), jnp.bool_(True))
    return jax.lax.while_loop(is_left, step, walk).found


def _field_of(rows: jax.Array, options: _Options, *, ring: Ring, share: int) -> _Field:
    """The `_Field` of rows (P, D) from `filled`."""
    frame = frame_of(rows, exist(rows), ring=ring)
    along = projected(placed(rows, frame))
    number = options.num_neighbors + 1
    copies = most_copied(rows, exist(rows), along, number=number, axis_name=ring.axis, share=share)
    points = prepared(rows, frame, copies, group=options.group)
    return _Field(rows, points, frame, copies, share, ring)


def _candidates(asked: Asked, field: _Field, options: _Options, is_first: jax.Array) -> Shortlist:
    """The shortlists of the queries among all points of the ring."""
    list_of = functools.partial(
        _shortlist, asked, field.frame, options, is_first if options.has_second else None
    )
    if field.ring.axis is None:
        return list_of(field.points, 0)

    def list_of_share(rows: jax.Array, start: jax.Array) -> Shortlist:
        points = prepared(rows, field.frame, field.copies, group=options.group)
        return list_of(points, start)

    return field.ring.shortlist(list_of_share, field.rows, share=field.share)


def _ranked(
    asked: Asked, found: Shortlist, field: _Field, options: _Options, is_first: jax.Array
) -> Ranked:
    """The nearest of the shortlists and the copies, by the differences to these points."""
    indices = jnp.where(found.nearness > -NONE, found.indices, _NO_INDEX)
    copied = jnp.broadcast_to(field.copies.indices[:1], (len(indices), 1))
    listed = jnp.concatenate([indices, copied], axis=1)
    listed = field.ring.rows(listed, field.rows, share=field.share, none=np.inf)
    # Gathered first: XLA would otherwise look up every coordinate by itself.
    differences = jax.lax.optimization_barrier(listed) - asked.rows[:, None]
    last = -jnp.min(found.nearness, axis=1)
    rank_block = functools.partial(
        rank,
        is_first=is_first,
        copies=field.copies,
        frame=field.frame,
        num_neighbors=options.num_neighbors,
    )
    contenders = Contenders(indices, differences, last, asked.own, asked.exclude, asked.guesses)
    # In blocks in a ring too: how sums round depends on how many there are.
    return map_blocks(rank_block, contenders, block_size=options.block_size)


def _shortlist(
    asked: Asked,
    frame: Frame,
    options: _Options,
    is_first: jax.Array | None,
    points: Points,
    start: jax.Array | int,
) -> Shortlist:
    """The candidates among a share of the points, of which the first one has number ``start``.

    By estimates in the first pass, by differences in the second; ``is_first`` is None where there
    is no second.
    """
    numbers = jnp.arange(len(points.rows), dtype=jnp.int32)
    length = shortlist_length(options.num_neighbors)

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
                group=options.group,
            )

        values, listed = first() if is_first is None else typed_jax.cond(is_first, first, second)
        values, slots = select(values, options.group, length, method=options.method)
        return Shortlist(values, listed[slots] + start)

    return map_blocks(block, asked, block_size=options.block_size)
