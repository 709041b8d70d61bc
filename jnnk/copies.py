"""The point that occurs most often, so that its copies cost a search nothing.

After a rectifier that is the vector of zeros: thousands of points may be the same, and all of them
tie in every neighbourhood that one of them is in.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Copies(NamedTuple):
    """The point that (by its hash) occurs most often, once where none occurs twice.

    Attributes:
        point: (D,).
        vectors: pytree, what belongs to the first of its copies.
        indices: int32 (M,), the first of its copies, ascending.
        exists: bool (M,), False where there are fewer.
    """

    point: jax.Array
    vectors: Any
    indices: jax.Array
    exists: jax.Array


def most_copied(
    points: jax.Array,
    exists: jax.Array,
    projections: jax.Array,
    *,
    number: int,
    vectors: Any = (),
    axis_name: str | None = None,
    shard_size: int | None = None,
) -> Copies:
    """The `Copies` of the most frequent point.

    Args:
        points: (N, D); with ``axis_name`` this device's share of them.
        exists: bool (N,).
        projections: (N,), any numbers that are the same for points that are.
        number: M.
        vectors: pytree of N rows.
        axis_name: the axis of a mesh along which the points are shared.
        shard_size: and how many each device numbers.
    """
    num_points = points.shape[0]
    bits = jax.lax.bitcast_convert_type(projections.astype(jnp.float32), jnp.uint32)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x9E3779B1)
    buckets = ((bits >> 7) % jnp.uint32(num_points)).astype(jnp.int32)
    counts = jnp.zeros(num_points, jnp.int32).at[buckets].add(exists.astype(jnp.int32))
    if axis_name is not None:
        counts = jax.lax.psum(counts, axis_name)
    # By top_k, which compiles in less time than an argmax.
    fullest = jax.lax.top_k(counts.astype(jnp.float32), 1)[1].astype(jnp.int32)
    there, first = _first(exists & (buckets == fullest), 1)
    point, vectors = jax.tree.map(lambda rows: rows[first[0]], (points, vectors))
    if axis_name is not None:
        device = jnp.argmax(jax.lax.all_gather(there[0], axis_name))
        point, vectors = jax.tree.map(
            lambda row: jax.lax.all_gather(row, axis_name)[device], (point, vectors)
        )
    same = exists & (jnp.max(jnp.abs(points - point[None]), axis=1) == 0)
    there, indices = _first(same, number)
    if axis_name is not None:
        indices += jax.lax.axis_index(axis_name).astype(jnp.int32) * shard_size
        there, indices = jax.lax.all_gather((there, indices), axis_name, tiled=True)
        there, slots = _first(there, number)
        indices = indices[slots]
    return Copies(point, vectors, indices, there)


def _first(flags: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """The first of the flags that are set, as ``(flags, indices)``, then others."""
    values, indices = jax.lax.top_k(flags.astype(jnp.float32), min(number, len(flags)))
    return values > 0, indices.astype(jnp.int32)
