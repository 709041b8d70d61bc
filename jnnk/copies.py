"""The point that occurs most often, so that its copies cost a search nothing.

After a rectifier that is the vector of zeros: thousands of points may be the same, and all of them
tie in every neighbourhood that one of them is in.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Copies(NamedTuple):
    """The point that (by its hash) occurs most often, once where none occurs twice.

    Attributes:
        point: (D,).
        indices: int32 (M,), the first of its copies, ascending.
        exists: bool (M,), False where there are fewer.
    """

    point: jax.Array
    indices: jax.Array
    exists: jax.Array


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
    buckets = ((bits >> 7) % jnp.uint32(num_points)).astype(jnp.int32)
    counts = jnp.zeros(num_points, jnp.float32).at[buckets].add(exists.astype(jnp.float32))
    if axis_name is not None:
        counts = jax.lax.psum(counts, axis_name)
    # By top_k, which compiles in less time than an argmax.
    largest, first = jax.lax.top_k(jnp.where(exists, counts[buckets], 0), 1)
    point = points[first[0]]
    if axis_name is not None:
        device = jnp.argmax(jax.lax.all_gather(largest[0], axis_name))
        point = jax.lax.all_gather(point, axis_name)[device]
    apart = jnp.max(jnp.abs(points - point[None]), axis=1)
    nearness, indices = jax.lax.top_k(-apart, min(number, num_points))
    if axis_name is not None:
        indices += jax.lax.axis_index(axis_name).astype(jnp.int32) * share
        nearness, indices = jax.lax.all_gather((nearness, indices), axis_name, tiled=True)
        nearness, slots = jax.lax.top_k(nearness, min(number, len(nearness)))
        indices = indices[slots]
    return Copies(point, indices.astype(jnp.int32), nearness == 0)
