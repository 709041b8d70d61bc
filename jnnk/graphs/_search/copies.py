"""The point that occurs most often, so that its copies cost a search nothing.

After a rectifier that is the vector of zeros: thousands of points may be the same, and all of them
tie in every neighbourhood that one of them is in.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax


class Copies(NamedTuple):
    """The point that (by its hash) occurs most often, once where none occurs twice.

    Attributes:
        point: (D,).
        indices: int32 (M,), the first of its copies, ascending.
        nearness: (M,), 0 for copies, less where there are fewer.
    """

    point: jax.Array
    indices: jax.Array
    nearness: jax.Array


def most_copied(
    points: jax.Array,
    exists: jax.Array,
    projections: jax.Array,
    *,
    number: int,
    axis_name: str | None = None,
    share: int = 0,
) -> Copies:
    """The `Copies` of the most frequent point.

    Args:
        points: (N, D); with ``axis_name`` this device's share of them; infinite where none exists.
        exists: bool (N,).
        projections: (N,), any numbers that are the same for points that are.
        number: M.
        axis_name: the axis of a mesh along which the points are shared.
        share: and how many each device numbers.
    """
    num_points = points.shape[0]
    bits = jax.lax.bitcast_convert_type(projections.astype(jnp.float32), jnp.uint32)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x9E3779B1)
    buckets = jnp.where(exists, (bits >> 7) % jnp.uint32(num_points), num_points)
    counts = jnp.zeros(num_points, jnp.float32).at[buckets].add(1, mode="drop")
    if axis_name is not None:
        counts = typed_jax.psum(counts, axis_name)
    # By top_k, which compiles in less time than an argmax.
    largest, first = jax.lax.top_k(jnp.where(exists, counts[buckets], 0), 1)
    point = points[first[0]]
    if axis_name is not None:
        device = jnp.argmax(typed_jax.all_gather(largest[0], axis_name))
        point = typed_jax.all_gather(point, axis_name)[device]
    found, indices = jax.lax.top_k(nearness(points, point), min(number, num_points))
    if axis_name is not None:
        indices += jax.lax.axis_index(axis_name).astype(jnp.int32) * share
        found, indices = typed_jax.all_gather((found, indices), axis_name, tiled=True)
        found, slots = jax.lax.top_k(found, min(number, len(found)))
        indices = indices[slots]
    return Copies(point, indices.astype(jnp.int32), found)


def nearness(points: jax.Array, point: jax.Array) -> jax.Array:
    """How near points (N, D) are to one (D,): (N,), 0 for the same, less for others."""
    return jnp.min(-jnp.abs(points - point[None]), axis=1)
