"""The dtype in which numbers are computed."""

import jax.numpy as jnp


def working_dtype(dtype) -> jnp.dtype:
    """float32 for the half precisions, any wider floating ``dtype`` itself."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
