"""The search where no device holds all points: they are passed round a ring of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.copies import most_copied
from jnnk.differences import Distances
from jnnk.graph import Vectors
from jnnk.second_pass import (
    CHUNK,
    Candidates,
    candidates_by_differences,
    on_a_line,
    present,
    projections_of,
    settle,
    settle_all,
)
from jnnk.shortlists import (
    NONE,
    Frame,
    Points,
    Shortlist,
    filled,
    others,
    rank,
    shortlists,
    taken,
)

# The index of what does not exist, after all others.
_NONE = np.iinfo(np.int32).max


def round_trip(
    queries: Vectors,
    exclude: jax.Array,
    own: Vectors,
    *,
    frame: Frame,
    axis: str,
    mesh_axes: tuple[str, ...],
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
        mesh_axes: all axes of the mesh. Its devices take as many trips: on a CPU each waits for all
            others whenever points are passed on, also for those of other rings.
        num_neighbors: K.
        block_size: see `jnnk.neighbors.nearest_neighbors`.
        method: see `jnnk.neighbors.nearest_neighbors`.

    Returns:
        ``(indices, distances, vectors)``: int32 (B, K), `Distances` (B, K) and the `Vectors`
        (B, K, D) of the neighbours; where there are fewer, index -1 at distance infinity and any
        vectors.
    """
    shard_size = own.embedded.shape[0]
    indices, distances = _found(
        *jax.lax.stop_gradient((queries.embedded, exclude, own._replace(raw=None), frame)),
        axis=axis,
        mesh_axes=mesh_axes,
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
    )
    return indices, distances, _collected(indices, own, axis, shard_size)


def _found(
    searched, exclude, own, frame, *, axis, mesh_axes, num_neighbors, block_size, method
) -> tuple[jax.Array, Distances]:
    """`round_trip` without the vectors; nothing of it is differentiated."""
    shard_size = own.embedded.shape[0]
    share = filled(own.embedded, frame, num_neighbors=num_neighbors)
    missing = len(share.rows) - shard_size
    own = jax.tree.map(
        lambda rows: jnp.pad(rows, ((0, missing), (0, 0)), constant_values=jnp.inf), own
    )
    copies = most_copied(
        share.rows,
        share.exists,
        share.projections,
        number=num_neighbors + 1,
        vectors=own,
        shard_size=shard_size,
        axis_name=axis,
    )

    def of_estimates(shard, start):
        points = _points(shard, frame, num_neighbors)
        found = shortlists(
            searched,
            points._replace(exists=others(points, copies)),
            frame,
            num_neighbors=num_neighbors,
            block_size=block_size,
            method=method,
        )
        kept = jax.tree.map(lambda rows: rows[found.indices], shard)
        return found._replace(indices=found.indices + start), kept

    found, vectors = _join_all(of_estimates, own, axis, shard_size)
    indices, order = _by_index(jnp.where(found.estimates < NONE, found.indices, _NONE))
    vectors = jax.tree.map(
        lambda rows, copy: jnp.concatenate(
            [taken(rows, order), jnp.broadcast_to(copy, (len(rows), 1, *copy.shape))], axis=1
        ),
        vectors,
        copies.vectors,
    )
    differences = _differences(vectors, searched, indices)
    ranked = rank(
        indices,
        differences,
        jnp.max(found.estimates, axis=1),
        searched,
        exclude,
        copies,
        frame,
        num_neighbors=num_neighbors,
    )
    state = ranked.indices, ranked.distances
    if method != "exact":
        return state

    def settle_rows(rows, guesses):
        query = searched[rows]

        def of_differences(shard, start):
            line = on_a_line(_points(shard, frame, num_neighbors))
            found = candidates_by_differences(
                query, guesses, exclude[rows] - start, line, frame, num_neighbors=num_neighbors
            )
            kept = jax.tree.map(lambda points: points[found.indices], shard)
            return found._replace(indices=found.indices + start), kept

        found, vectors = _join_all(of_differences, own, axis, shard_size)
        indices, order = _by_index(present(found, _NONE))
        vectors = _taken(vectors, order)
        settled = settle(
            indices,
            _differences(vectors, query, indices),
            found.squares[:, -1],
            guesses,
            num_neighbors=num_neighbors,
        )
        return (settled.indices, settled.distances), settled.unproven

    return settle_all(
        state,
        ranked.unproven,
        projections_of(searched, frame),
        settle_rows,
        chunk=min(CHUNK, block_size, len(searched)),
        most=lambda value: jax.lax.pmax(value, mesh_axes),
    )


def _collected(indices: jax.Array, own: Vectors, axis: str, shard_size: int) -> Vectors:
    """The `Vectors` (B, K, D) of points (B, K), zeros for those of -1, picked as all go round."""

    def pick(kept, shard, start):
        places = indices - start
        here = ((indices >= 0) & (places >= 0) & (places < shard_size))[:, :, None]
        places = jnp.clip(places, 0, shard_size - 1)
        return jax.tree.map(lambda rows, old: jnp.where(here, rows[places], old), shard, kept)

    nothing = jax.tree.map(lambda rows: jnp.zeros((*indices.shape, rows.shape[1]), rows.dtype), own)
    return _passed_round(pick, nothing, own, axis, shard_size)


def _passed_round(
    visit: Callable[[Any, Any, jax.Array], Any], kept: Any, own: Any, axis: str, shard_size: int
) -> Any:
    """What ``visit(kept, shard, number of its first point)`` makes of all shards, one by one."""
    num_devices = jax.lax.axis_size(axis)
    onwards = [(device, (device + 1) % num_devices) for device in range(num_devices)]

    def step(carry, number):
        shard, kept = carry
        # Sent before it is visited, so that the two can go on at the same time.
        following = jax.lax.ppermute(shard, axis, onwards)
        owner = (jax.lax.axis_index(axis) - number) % num_devices
        return (following, visit(kept, shard, owner.astype(jnp.int32) * shard_size)), None

    steps = jnp.arange(num_devices, dtype=jnp.int32)
    (_, kept), _ = jax.lax.scan(step, (own, kept), steps)
    return kept


def _points(shard: Vectors, frame: Frame, num_neighbors: int) -> Points:
    """The `Points` of a share that is filled up already."""
    rows = jax.lax.stop_gradient(shard.embedded)
    return filled(rows[:-1], frame, num_neighbors=num_neighbors)


def _by_index(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Indices (B, W) in ascending order, and the slots that they come from."""
    slots = jax.lax.broadcasted_iota(jnp.int32, indices.shape, 1)
    return jax.lax.sort((indices, slots), num_keys=1)


def _differences(vectors: Vectors, queries: jax.Array, indices: jax.Array) -> jax.Array:
    """Of the candidates (B, W or more, D), infinite where their index (B, W) is `_NONE`."""
    rows = jax.lax.stop_gradient(vectors.embedded)
    none = jnp.pad(indices == _NONE, ((0, 0), (0, rows.shape[1] - indices.shape[1])))
    return jnp.where(none[:, :, None], jnp.inf, rows - queries[:, None])


def _join_all(
    list_of: Callable[[Any, jax.Array], tuple[Any, Vectors]], own: Any, axis: str, shard_size: int
):
    """The best candidates of all shards, which go round once, with their vectors.

    ``list_of`` a shard and the number of its first point gives a `Shortlist` or `Candidates`, whose
    first field is what they are sorted by, ties by index, and their vectors.
    """

    def join(kept, shard, start):
        met = list_of(shard, start)
        return _first(jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), kept, met))

    like = jax.eval_shape(list_of, own, jnp.int32(0))
    found, vectors = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    never = jnp.full_like(found[0], jnp.inf)
    nothing = jax.tree.map(lambda x: never if x.dtype == never.dtype else x, found)
    return _passed_round(join, (nothing, vectors), own, axis, shard_size)


def _first(listed: tuple[Shortlist | Candidates, Vectors]):
    """The half of the smallest keys (B, 2 W), ties by index, with their vectors."""
    keys = listed[0][0]
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    *_, order = jax.lax.sort((keys, listed[0].indices, place), num_keys=2)
    return _taken(listed, order[:, : keys.shape[1] // 2])


def _taken(rows: Any, slots: jax.Array) -> Any:
    """Of a pytree of (B, W, ...) what stands in the slots (B, K)."""
    return jax.tree.map(lambda values: taken(values, slots), rows)
