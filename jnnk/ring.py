"""The search where no device holds all points: they are passed round a ring of devices."""

import jax
import jax.numpy as jnp

from jnnk.graph import Vectors
from jnnk.neighbors import Shortlist, shortlist


def round_trip(
    queries: Vectors,
    exclude: jax.Array,
    own: Vectors,
    *,
    axis: str,
    num_neighbors: int,
    block_size: int,
    method: str,
) -> tuple[jax.Array, jax.Array, Vectors]:
    """`jnnk.neighbors.search` while the points go round once, inside `jax.shard_map`.

    The shortlists from the shares of all devices are joined to that of all points, which is then
    ranked: the neighbours are the same, ties and near ties too, as where one device has all points.

    Args:
        queries: `Vectors` (B, D) of this device.
        exclude: int32 (B,), the number among all points of one to leave out.
        own: `Vectors` (S, D), this device's share of the points, NaN for none.
        axis: the axis of the mesh along which the points are shared, in the order of the devices.
        num_neighbors: K.
        block_size: see `jnnk.neighbors.nearest_neighbors`.
        method: see `jnnk.neighbors.nearest_neighbors`.

    Returns:
        ``(indices, squared_distances, vectors)``: int32 (B, K), (B, K) and the `Vectors` (B, K, D)
        of the neighbours; where there are fewer, index -1 at distance infinity and any vectors.
    """
    num_devices, shard_size = jax.lax.axis_size(axis), own.embedded.shape[0]
    onwards = [(device, (device + 1) % num_devices) for device in range(num_devices)]

    def list_of(shard, owner):
        start = owner * shard_size
        found = shortlist(
            jax.lax.stop_gradient(queries.embedded),
            jax.lax.stop_gradient(shard.embedded),
            exclude - start,
            num_neighbors=num_neighbors,
            block_size=block_size,
            method=method,
        )
        vectors = jax.tree.map(lambda rows: rows[found.indices], shard)
        return found._replace(indices=found.indices + start), vectors

    def step(carry, number):
        shard, kept = carry
        # Sent before it is searched, so that the two can go on at the same time.
        following = jax.lax.ppermute(shard, axis, onwards)
        met = list_of(shard, (jax.lax.axis_index(axis) - number) % num_devices)
        both = jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), kept, met)
        length = both[0].indices.shape[1] // 2
        return (following, _first(length, both[0].estimates, both)), None

    like = jax.eval_shape(list_of, own, jnp.int32(0))
    found, vectors = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    never = jnp.full_like(found.estimates, jnp.inf)
    nothing = Shortlist(never, found.indices - 1, never)
    steps = jnp.arange(num_devices, dtype=jnp.int32)
    (_, kept), _ = jax.lax.scan(step, (own, (nothing, vectors)), steps)
    found, vectors = _first(num_neighbors, kept[0].squared_distances, kept)
    distances = found.squared_distances
    return jnp.where(jnp.isinf(distances), -1, found.indices), distances, vectors


def _first(number: int, keys: jax.Array, listed: tuple[Shortlist, Vectors]):
    """The candidates of the smallest keys (B, W), ties by index, with their vectors."""
    place = jax.lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    *_, order = jax.lax.sort((keys, listed[0].indices, place), num_keys=2)
    first = order[:, :number]

    def take(rows):
        return jnp.take_along_axis(rows, first if rows.ndim == 2 else first[:, :, None], axis=1)

    return jax.tree.map(take, listed)
