"""Sets of neighbours as rows of a table, whose products count what two of them share.

For layers of many channels: a product of two rows of N ones and zeros takes N multiplications
where comparing K neighbours with K others takes K^2 comparisons, but on units made for products of
matrices.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jnnk._core.precision import exact_counts
from jnnk.measures._comparison import Comparison
from jnnk.measures._neighborhoods import Neighborhoods
from jnnk.measures._overlap_kinds import OverlapKind

# Identifiers of one table.
_WIDTH = 1024
#: With identifiers from this one on comparing takes less time than tables, about.
LARGEST = 3 * _WIDTH
#: With fewer channels comparing takes less time.
FEWEST_CHANNELS = 256


def table_comparison(kind: OverlapKind) -> Comparison:
    """The `Comparison` of sets by tables, of the same values as `comparison`."""

    def values(block: Neighborhoods, others: Neighborhoods) -> tuple[Array, Array]:
        sizes, other_sizes = (each.strengths.sum(1) for each in (block, others))  # (C, B)
        size, other = sizes.T[:, :, None], other_sizes.T[:, None, :]
        shared = _shared(block, others).astype(sizes.dtype)
        return kind.similarity(shared, other, size), (other > 0) | (size > 0)

    return Comparison(values, axes="bcd")


def _shared(block: Neighborhoods, others: Neighborhoods) -> Array:
    """How many neighbours two channels share, float32 (B, C, C')."""
    identifiers, other_identifiers = (_identifiers(each) for each in (block, others))
    largest = jnp.maximum(*(jnp.max(x, initial=-1) for x in (identifiers, other_identifiers)))
    # Under vmap this runs, and is not used, with larger ones too.
    largest = jnp.minimum(largest, LARGEST - 1)

    def is_left(carry: tuple[Array, Array]) -> Array:
        return carry[0] * _WIDTH <= largest

    def count(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        number, shared = carry
        rows, columns = (
            _table(each - number * _WIDTH) for each in (identifiers, other_identifiers)
        )
        return number + 1, shared + exact_counts("bcn,bdn->bcd", rows, columns)

    shape = (len(identifiers), identifiers.shape[1], other_identifiers.shape[1])
    return jax.lax.while_loop(is_left, count, (jnp.int32(0), jnp.zeros(shape, jnp.float32)))[1]


def _identifiers(block: Neighborhoods) -> Array:
    """The neighbours, int32 (B, C, K), -1 for what is none."""
    return jnp.where(block.strengths > 0, block.indices, -1).transpose(2, 0, 1)


def _table(identifiers: Array) -> Array:
    """Which identifiers below the width there are, (B, C, width) of (B, C, K), as ones and zeros.

    Half precision holds these, and sums of their products are made in float32: nothing is rounded.
    """
    every = jnp.arange(_WIDTH, dtype=jnp.int32).reshape(1, 1, 1, -1)
    return (identifiers[..., None] == every).any(2).astype(jnp.bfloat16)
