"""The dtype in which numbers are computed."""

import jax
import jax.numpy as jnp


def working_dtype(dtype) -> jnp.dtype:
    """float32 for the half precisions, integers and booleans; wider floating dtypes themselves.

    float64 only where JAX has it (x64).
    """
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    is_wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
    return dtype if is_wide else jnp.dtype(jnp.float32)
