"""The second pass of the search, for the queries whose neighbours the first one cannot prove.

They are compared by differences with every point that can be near enough. Which can, a projection
on one direction tells: it shortens distances, so points whose projection is farther from the
query's than its K-th neighbour at most is are none. In a narrow cluster few others are left.
"""

import math

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk.graphs._search.differences import power_of_two, squares_to_all
from jnnk.graphs._search.shortlists import Frame, Points, relative_error

# Squared distances that are computed at once: about what a second-level cache holds.
_TILE_FLOATS = 2**17


def units_of(guesses: jax.Array) -> jax.Array:
    """Powers of two (B,) in which the squares of the guesses are about 2**72.

    So distances down to 1e-24 of a guess keep all their digits in float32, and those of all other
    points are below `shortlists.NONE` or lie beyond the guess.
    """
    tiny = float(typed_jax.finfo(guesses.dtype).tiny)
    return jnp.maximum(power_of_two(guesses) * math.ldexp(1.0, -36), 4 * tiny)


def measured(
    queries: jax.Array,
    guesses: jax.Array,
    along: jax.Array,
    own: jax.Array,
    points: Points,
    frame: Frame,
    *,
    group: int,
) -> tuple[jax.Array, jax.Array]:
    """Squared distances to the points that can be near enough, in units of the guesses.

    Args:
        queries: (B, D).
        guesses: (B,), at least the distance of the K-th neighbour; 0 for queries without one.
        along: (B,), the projections of their places.
        own: (B,), the squared lengths of their places.
        points: P of them.
        frame: of all points.
        group: see `shortlists.by_member`.

    Returns:
        ``(squares, numbers)``: (B, P), negative, infinite where there is no such point, in the
        order of `by_member`, and int32 (P,), ascending, the points that they are of.
    """
    num_points, dim = points.rows.shape
    # Projections err by `relative_error` of the lengths, the points' at most the root of D.
    error = 4 * relative_error(queries.dtype, dim)
    reach = guesses / frame.unit * (1 + error) + error * (jnp.sqrt(own) + math.sqrt(dim))
    ends = jnp.stack([along - reach, -along - reach])
    low, high = jnp.min(jnp.where(guesses > 0, ends, jnp.inf), axis=1)
    near = (points.projections >= low) & (points.projections <= -high)
    numbers = jnp.arange(num_points, dtype=jnp.int32)
    numbers = jnp.sort(jnp.where(near, numbers, num_points - 1))
    groups = numbers.reshape(-1, group)
    width = min(max(1, _TILE_FLOATS // (len(queries) * group)), len(groups))

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, squares = carry
        tile = jax.lax.dynamic_slice_in_dim(groups, start, width).T
        rows = jnp.take(points.rows, tile.reshape(-1), axis=0, mode="clip")
        met = -squares_to_all(queries, rows, 1 / units_of(guesses)).reshape(-1, *tile.shape)
        return start + width, jax.lax.dynamic_update_slice_in_dim(squares, met, start, axis=2)

    def is_left(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        first = jnp.take(groups[:, 0], carry[0], mode="fill", fill_value=num_points - 1)
        return first < num_points - 1

    nothing = jnp.full((len(queries), group, len(groups)), -jnp.inf, queries.dtype)
    _, squares = jax.lax.while_loop(is_left, step, (jnp.int32(0), nothing))
    return squares.reshape(-1, num_points), numbers
