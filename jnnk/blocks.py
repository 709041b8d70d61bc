"""Work in blocks of rows, to bound memory."""

import jax
import jax.numpy as jnp


def map_blocks(function, inputs, *, block_size: int):
    """``function`` over blocks of rows of a pytree, one block in memory at a time."""
    num_rows = jax.tree.leaves(inputs)[0].shape[0]
    block_size = max(1, min(block_size, num_rows))
    num_blocks = -(-num_rows // block_size)
    if num_blocks == 1:
        return function(inputs)

    def split(rows):
        extra = [(0, num_blocks * block_size - num_rows)] + [(0, 0)] * (rows.ndim - 1)
        return jnp.pad(rows, extra).reshape(num_blocks, block_size, *rows.shape[1:])

    outputs = jax.lax.map(function, jax.tree.map(split, inputs))
    return jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:])[:num_rows], outputs)
