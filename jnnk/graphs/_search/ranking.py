"""The candidates of a query ranked by their distances, and whether these are proven the nearest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core import typed_jax
from jnnk.graphs._search.copies import Copies
from jnnk.graphs._search.differences import Distances, least_square, sums_of_squares
from jnnk.graphs._search.second_pass import units_of
from jnnk.graphs._search.shortlists import NONE, REACH, Frame, relative_error, taken


class Ranked(NamedTuple):
    """The K nearest of a shortlist.

    Attributes:
        indices: int32 (B, K), -1 where there are fewer.
        distances: `Distances` (B, K), ascending, infinity where there are fewer.
        proven: bool (B,), whether these are known to be the K nearest, ties broken by index.
        at_most: (B,), what the distance to the K-th nearest point is at most, positive and finite.
    """

    indices: jax.Array
    distances: Distances
    proven: jax.Array
    at_most: jax.Array


class Contenders(NamedTuple):
    """The shortlists of B queries and what ranks them.

    Attributes:
        indices: int32 (B, W), ascending.
        differences: (B, W + 1, D) of the queries to the points of these indices and, in the last
            column, to the point of the copies; infinite where there are fewer.
        last: (B,), the largest estimate of each shortlist in the first pass.
        own: (B,), the squared lengths of the queries' places.
        exclude: int32 (B,), the index of a point to leave out, -1 for none.
        guesses: (B,), of which `units_of` makes the units of the squares in the second pass.
    """

    indices: jax.Array
    differences: jax.Array
    last: jax.Array
    own: jax.Array
    exclude: jax.Array
    guesses: jax.Array


def rank(
    contenders: Contenders,
    *,
    is_first: jax.Array,
    copies: Copies,
    frame: Frame,
    num_neighbors: int,
) -> Ranked:
    """The K nearest of each shortlist by the differences, and whether they are proven.

    The estimates of the first pass lose digits to cancellation.

    Args:
        contenders: the candidates.
        is_first: bool (), whether candidates are from the first pass, and without the copies.
        copies: of all points.
        frame: of all points.
        num_neighbors: K.

    Returns:
        `Ranked` (B, K).
    """
    indices, differences, last, own, exclude, guesses = contenders
    dtype, (_, length, dim) = differences.dtype, differences.shape
    error, least = relative_error(dtype, dim), least_square(dtype, dim)
    info = typed_jax.finfo(dtype)
    units = jnp.where(is_first, frame.unit, units_of(guesses))[:, None]
    squares = sums_of_squares(differences / units[:, :, None])
    of_copies = squares[:, -1:]
    is_copy = (copies.nearness == 0) & is_first
    is_copy = is_copy[None] & (copies.indices[None] != exclude[:, None])
    is_candidate = indices != exclude[:, None]
    keys = jnp.where(is_candidate, -squares[:, :-1], -jnp.inf)
    # The copies, then the shortlist.
    keys = jnp.concatenate([jnp.where(is_copy, -of_copies, -jnp.inf), keys], axis=1)
    kept, slots = jax.lax.top_k(keys, num_neighbors)
    nearest, num_copies = -kept, len(copies.indices)
    chosen = jnp.take(copies.indices, slots, mode="clip")
    listed = taken(indices, jnp.maximum(slots - num_copies, 0))
    chosen = jnp.where(slots < num_copies, chosen, listed)
    farthest = jnp.max(nearest, axis=1)  # of a slice, XLA would make the top_k a full sort
    # Of the squares of all points outside the shortlist, from below. Computed distances err too;
    # `least` is more than what is lost below the range of the dtype.
    bound = (last + own * (1 - 2 * error)) * (1 - error) - least
    # Squares with terms below the range of the dtype: their order is not certain.
    doubtful = (squares < least) & (jnp.max(jnp.abs(differences), axis=2) > 0)
    # Copies come before the shortlist, so that those of equal squares may be in the wrong order.
    is_listed = np.arange(length)[None] < length - 1
    doubtful |= (squares == of_copies) & (squares < jnp.inf) & is_listed & is_first
    is_clear = jnp.sum(doubtful.astype(dtype), axis=1) == 0
    proven = jnp.where(
        is_first,
        is_clear & (own <= REACH**2) & ((last >= NONE) | (farthest < bound)),
        # All points near enough were compared. Doubt remains only where the guess was so large that
        # the nearest squares fall below the range.
        is_clear | (farthest >= least),
    )
    at_most = jnp.maximum(jnp.sqrt(jnp.maximum(farthest, least)) * units[:, 0], float(info.tiny))
    at_most = jnp.where(farthest < jnp.inf, at_most, float(info.max) / 8)
    return Ranked(
        jnp.where(nearest < jnp.inf, chosen, -1),
        Distances(jnp.sqrt(nearest) * units, nearest * units * units),
        proven,
        at_most,
    )
