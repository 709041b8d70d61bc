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
        indices: int32 (B, W), no two the same but those of points that do not exist.
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


class Keys(NamedTuple):
    """Points by which `_largest` ranks them, minus infinity for those that are not to be chosen.

    Attributes:
        of_copies: (B, M), all the same, of the copies.
        copies: int32 (M,), their indices, ascending.
        of_listed: (B, W), of the shortlists.
        listed: int32 (B, W), their indices, in any order.
    """

    of_copies: jax.Array
    copies: jax.Array
    of_listed: jax.Array
    listed: jax.Array


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
    keys_of_copies = jnp.where(is_copy, -of_copies, -jnp.inf)
    keys = jnp.where(is_candidate, -squares[:, :-1], -jnp.inf)
    kept, chosen = _largest(Keys(keys_of_copies, copies.indices, keys, indices), num_neighbors)
    nearest = -kept
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


def _largest(keys: Keys, number: int) -> tuple[jax.Array, jax.Array]:
    """The largest keys (B, number), descending, and the indices of their points.

    Of listed points that tie, those of lower index; copies come before listed points.
    """
    # A sort by index beforehand would settle all ties, but they are rare: estimates come nearly in
    # the order of the distances, in which a top_k takes a third of the time.
    kept, chosen, num_listed = jax.lax.optimization_barrier(_first_largest(keys, number))
    exist = kept[:, 1:] > -jnp.inf
    is_swapped = (kept[:, 1:] == kept[:, :-1]) & (chosen[:, 1:] < chosen[:, :-1]) & exist
    level = jnp.min(kept, axis=1)[:, None]
    is_rival = (keys.of_listed >= level) & (keys.of_listed > -jnp.inf)
    num_rivals = jnp.sum(is_rival.astype(kept.dtype), axis=1) - num_listed
    in_doubt = jnp.sum(is_swapped.astype(kept.dtype)) + jnp.sum(jnp.maximum(num_rivals, 0))

    def by_index() -> tuple[jax.Array, jax.Array]:
        listed, of_listed = jax.lax.sort((keys.listed, keys.of_listed), num_keys=1)
        sorted_keys = keys._replace(listed=listed, of_listed=of_listed)
        return _first_largest(sorted_keys, number)[:2]

    return typed_jax.cond(in_doubt > 0, by_index, lambda: (kept, chosen))


def _first_largest(keys: Keys, number: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_largest`, of points that tie the first ones, and how many (B,) of them are listed."""
    every = jnp.concatenate([keys.of_copies, keys.of_listed], axis=1)
    kept, slots = jax.lax.top_k(every, number)
    num_copies = len(keys.copies)
    is_listed = slots >= num_copies
    listed = taken(keys.listed, jnp.maximum(slots - num_copies, 0))
    chosen = jnp.where(is_listed, listed, jnp.take(keys.copies, slots, mode="clip"))
    return kept, chosen, jnp.sum((is_listed & (kept > -jnp.inf)).astype(kept.dtype), axis=1)
