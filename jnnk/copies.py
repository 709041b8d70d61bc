"""Which points are the same, so that ties of identical points cost a search nothing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Copies(NamedTuple):
    """Points grouped by place: identical ones stand side by side, ascending in index.

    Two groups may be of the same place (points are told apart by a hash first, and by each of
    several devices for its share); no group is of two places.

    Attributes:
        members: int32 (N,), the points by group.
        place: int32 (N,), where in ``members`` each point stands.
        start: int32 (N,), where in ``members`` its group begins.
        end: int32 (N,), and where it ends.
    """

    members: jax.Array
    place: jax.Array
    start: jax.Array
    end: jax.Array

    def is_first(self) -> jax.Array:
        """Bool (N,), the point of the smallest index of each group."""
        return self.place == self.start


def find_copies(points: jax.Array, exists: jax.Array) -> Copies:
    """The `Copies` of points (N, D) float32 or float64; those that do not exist are all apart.

    Args:
        points: (N, D), finite.
        exists: bool (N,).
    """
    number = points.shape[0]
    bits = jax.lax.bitcast_convert_type(jnp.where(points == 0, 0, points), jnp.uint32)
    bits = bits.reshape(number, -1)
    column = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, 1)
    hashes = jnp.sum(_mixed(bits ^ _mixed(column + jnp.uint32(1))), axis=1, dtype=jnp.uint32)
    hashes = jnp.where(exists, hashes, jnp.uint32(0xFFFFFFFF))
    position = jnp.arange(number, dtype=jnp.int32)
    ordered, members = jax.lax.sort((hashes, position), num_keys=1, is_stable=True)
    start, end = (
        jnp.searchsorted(ordered, ordered, side=side).astype(jnp.int32)
        for side in ("left", "right")
    )
    same = jnp.all(points[members] == points[members[start]], axis=1) & exists[members]
    # Different points of the same hash, and those that do not exist, are groups of their own.
    mixed = jnp.zeros(number, bool).at[start].max(~same)[start]
    start, end = jnp.where(mixed, position, start), jnp.where(mixed, position + 1, end)
    place = jnp.zeros_like(position).at[members].set(position, unique_indices=True)
    return Copies(members, place, start[place], end[place])


class Ranked(NamedTuple):
    """The K nearest of a shortlist.

    Attributes:
        indices: int32 (B, K), -1 where there are fewer.
        squares: (B, K), ascending, infinity where there are fewer.
        slots: int32 (B, K), where in the shortlist they stand, or the points that they copy.
        is_interleaved: bool (B,), where points of equal distance are not in the order of their
            indices, since they are copies of different points.
    """

    indices: jax.Array
    squares: jax.Array
    slots: jax.Array
    is_interleaved: jax.Array


def rank_with_copies(
    squares: jax.Array,
    indices: jax.Array,
    exclude: jax.Array,
    copies: Copies,
    *,
    num_neighbors: int,
) -> Ranked:
    """Ranks a shortlist of first points, each of which stands for all its copies.

    Args:
        squares: (B, W), infinity for what does not exist.
        indices: int32 (B, W), of points that have no copy before them.
        exclude: int32 (B,), a point that is left out of each row, -1 for none.
        copies: of all N points.
        num_neighbors: K, at most W.
    """
    slots = jax.lax.broadcasted_iota(jnp.int32, squares.shape, 1)

    def alone():
        there = jnp.where(indices == exclude[:, None], jnp.inf, squares)
        ranked = jax.lax.sort((there, indices, slots), num_keys=2)
        kept = (ranked[x][:, :num_neighbors] for x in (1, 0, 2))
        return Ranked(*kept, jnp.zeros(exclude.shape, bool))

    def together():
        is_point = (exclude >= 0) & (exclude < len(copies.start))
        leave_out = jnp.where(is_point, copies.start[exclude], -1)[:, None]
        first, last = copies.start[indices], copies.end[indices]
        number = jnp.where(jnp.isfinite(squares), last - first, 0)
        number = number - ((first == leave_out) & (number > 0)).astype(jnp.int32)
        there = jnp.where(number > 0, squares, jnp.inf)
        keys = (there, indices, slots, number)
        distances, points, origins, number = jax.lax.sort(keys, num_keys=2)
        before = jnp.tri(number.shape[1], dtype=bool)
        until = jnp.sum(jnp.where(before[None], number[:, None, :], 0), axis=2, dtype=jnp.int32)
        wanted = jax.lax.broadcasted_iota(jnp.int32, (1, num_neighbors, 1), 1)
        origin = jnp.sum(until[:, None, :] <= wanted, axis=2, dtype=jnp.int32)
        exists = origin < until.shape[1]
        origin = jnp.minimum(origin, until.shape[1] - 1)
        of = lambda values: jnp.take_along_axis(values, origin, axis=1)  # noqa: E731
        first = copies.start[points]
        begin, member = of(first), wanted[:, :, 0] - of(until - number)
        own = copies.place[exclude][:, None] - leave_out
        member += ((begin == leave_out) & (member >= own)).astype(jnp.int32)
        found = copies.members[begin + jnp.where(exists, member, 0)]
        # The last copy of one comes after the first one of the next, which is as far away.
        behind = copies.members[copies.end[points] - 1][:, :-1] > points[:, 1:]
        tied = (distances[:, :-1] == distances[:, 1:]) & (number[:, 1:] > 0)
        used = (until - number)[:, :-1] < num_neighbors
        return Ranked(
            jnp.where(exists, found, -1),
            jnp.where(exists, of(distances), jnp.inf),
            of(origins),
            jnp.any(behind & tied & used, axis=1),
        )

    ranked = jax.lax.cond(jnp.all(copies.is_first()), alone, together)
    return ranked._replace(indices=jnp.where(jnp.isinf(ranked.squares), -1, ranked.indices))


def _mixed(bits: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every bit depends on all (MurmurHash3's last step)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
