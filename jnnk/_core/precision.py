"""The dtype in which numbers are computed, and sums that round alike in every share of rows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

#: Rows or columns of products are filled up to multiples of this, here and in the search: on a CPU
#: every row then goes the same way, however many there are, and rounds alike.
WHOLE = 64


def working_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """float32 for the half precisions, integers and booleans; wider floating dtypes themselves.

    float64 only where JAX has it (x64).
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    is_wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
    return dtype if is_wide else jnp.dtype(jnp.float32)


def contract(formula: str, *arrays: jax.Array) -> jax.Array:
    """``jnp.einsum`` in the full precision of its arrays: the one way in which jnnk multiplies.

    Left to itself, XLA multiplies float32 in bfloat16 on a TPU and in TensorFloat-32 on a GPU.
    """
    return jnp.einsum(formula, *arrays, precision=jax.lax.Precision.HIGHEST)


def exact_counts(formula: str, *tables: jax.Array) -> jax.Array:
    """`contract` of tables of ones and zeros in bfloat16, float32: exact where sums are < 2^24."""
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum(formula, *tables, precision=precision, preferred_element_type=jnp.float32)


def row_sums(rows: jax.Array) -> jax.Array:
    """The sum (N,) of each row of (N, D), the same numbers in a part of the rows as in all.

    As a product with ones: how a reduction rounds depends on the number of rows.
    """
    ones = jnp.ones((rows.shape[1], 1), rows.dtype)  # a matrix: products with vectors are fused
    whole = jnp.pad(rows, ((0, -len(rows) % WHOLE), (0, 0)))
    return contract("nd,do->no", whole, ones)[: len(rows), 0]
