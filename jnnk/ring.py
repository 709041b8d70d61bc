"""The search where no device holds all points: they are passed round a ring of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jnnk.copies import Copies, find_copies
from jnnk.differences import Distances
from jnnk.graph import Vectors
from jnnk.neighbors import finite_rows, rank_shortlist
from jnnk.second_pass import (
    CHUNK,
    Candidates,
    candidates_by_differences,
    on_a_line,
    settle,
    settle_all,
)
from jnnk.shortlists import Frame, Shortlist, shortlists


def round_trip(
    queries: Vectors,
    exclude: jax.Array,
    own: Vectors,
    *,
    frame: Frame,
    axis: str,
    num_neighbors: int,
    block_size: int,
    method: str,
) -> tuple[jax.Array, Distances, Vectors]:
    """`jnnk.neighbors.search` while the points go round, inside `jax.shard_map`.

    The shortlists from the shares of all devices are joined to that of all points, which is then
    ranked: the neighbours are the same, ties and near ties too, as where one device has all points.
    The points go round once, and once more for every ``jnnk.second_pass.CHUNK`` queries of the
    device with most whose neighbours that does not prove.

    Args:
        queries: `Vectors` (B, D) of this device.
        exclude: int32 (B,), the number among all points of one to leave out.
        own: `Vectors` (S, D), this device's share of the points, NaN for none.
        frame: of all points.
        axis: the axis of the mesh along which the points are shared, in the order of the devices.
        num_neighbors: K.
        block_size: see `jnnk.neighbors.nearest_neighbors`.
        method: see `jnnk.neighbors.nearest_neighbors`.

    Returns:
        ``(indices, distances, vectors)``: int32 (B, K), `Distances` (B, K) and the `Vectors`
        (B, K, D) of the neighbours; where there are fewer, index -1 at distance infinity and any
        vectors.
    """
    shard_size = own.embedded.shape[0]
    searched, points, frame = jax.lax.stop_gradient((queries.embedded, own.embedded, frame))
    copies = find_copies(*finite_rows(points))
    start = jax.lax.axis_index(axis).astype(jnp.int32) * shard_size
    # Every device's, numbered as all points are: identical points of two shares stay two groups.
    every = Copies(*(jax.lax.all_gather(numbers + start, axis, tiled=True) for numbers in copies))

    def of_estimates(shard, start):
        vectors, is_first = shard
        found = shortlists(
            searched,
            jax.lax.stop_gradient(vectors.embedded),
            is_first,
            frame,
            num_neighbors=num_neighbors,
            block_size=block_size,
            method=method,
        )
        kept = jax.tree.map(lambda rows: rows[found.indices], vectors)
        return found._replace(indices=found.indices + start), kept

    found, vectors = _join_all(of_estimates, (own, copies.is_first()), axis)
    indices, distances, slots, guesses, certain = rank_shortlist(
        found, searched, exclude, copies=every, frame=frame, num_neighbors=num_neighbors
    )
    state = indices, distances, guesses, _taken(vectors, slots)
    if method != "exact":
        return state[0], state[1], state[3]
    of_queries = on_a_line(searched, frame)

    def settle_rows(rows, state):
        guesses, query = state[2], of_queries.points[rows]

        def of_differences(shard, start):
            line = on_a_line(jax.lax.stop_gradient(shard.embedded), frame)
            found = candidates_by_differences(
                query, guesses, exclude[rows] - start, line, frame, num_neighbors=num_neighbors
            )
            kept = jax.tree.map(lambda points: points[found.indices], shard)
            return found._replace(indices=found.indices + start), kept

        found, vectors = _join_all(of_differences, own, axis)
        differences = jax.lax.stop_gradient(vectors.embedded) - query[:, None]
        settled = settle(found, differences, guesses, num_neighbors=num_neighbors)
        kept = _taken(vectors, settled.slots)
        return (settled.indices, settled.distances, settled.guesses, kept), settled.again

    state = settle_all(
        state,
        ~certain,
        of_queries.order,
        settle_rows,
        chunk=min(CHUNK, block_size, len(searched)),
        anywhere=lambda flag: jax.lax.pmax(flag.astype(jnp.int32), axis) > 0,
    )
    return state[0], state[1], state[3]


def _join_all(list_of: Callable[[Any, jax.Array], tuple[Any, Vectors]], own: Any, axis: str):
    """The best candidates of all shards, which go round once, with their vectors.

    ``list_of`` a shard and the number of its first point gives a `Shortlist` or `Candidates`, whose
    first field is what they are sorted by, ties by index, and their vectors.
    """
    num_devices, shard_size = jax.lax.axis_size(axis), jax.tree.leaves(own)[0].shape[0]
    onwards = [(device, (device + 1) % num_devices) for device in range(num_devices)]

    def step(carry, number):
        shard, kept = carry
        # Sent before it is searched, so that the two can go on at the same time.
        following = jax.lax.ppermute(shard, axis, onwards)
        owner = (jax.lax.axis_index(axis) - number) % num_devices
        met = list_of(shard, owner.astype(jnp.int32) * shard_size)
        both = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), kept, met)
        return (following, _first(both)), None

    like = jax.eval_shape(list_of, own, jnp.int32(0))
    found, vectors = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    never = jnp.full_like(found[0], jnp.inf)
    nothing = jax.tree.map(lambda x: never if x.dtype == never.dtype else x, found)
    steps = jnp.arange(num_devices, dtype=jnp.int32)
    (_, kept), _ = jax.lax.scan(step, (own, (nothing, vectors)), steps)
    return kept


def _first(listed: tuple[Shortlist | Candidates, Vectors]):
    """The half of the smallest keys (B, 2 W), ties by index, with their vectors."""
    keys = listed[0][0]
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    *_, order = jax.lax.sort((keys, listed[0].indices, place), num_keys=2)
    return _taken(listed, order[:, : keys.shape[1] // 2])


def _taken(rows: Any, slots: jax.Array) -> Any:
    """Of a pytree of (B, W, ...) what stands in the slots (B, K)."""

    def take(values):
        index = slots.reshape(*slots.shape, *[1] * (values.ndim - 2))
        return jnp.take_along_axis(values, index, axis=1)

    return jax.tree.map(take, rows)
