"""Work in blocks of rows, to bound memory."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")


def map_blocks(
    function: Callable[[Inputs], Outputs], inputs: Inputs, *, block_size: int
) -> Outputs:
    """``function`` over blocks of rows, one block in memory at a time.

    Args:
        function: from a pytree of ``block_size`` rows to one of as many rows; row by row
            independent.
        inputs: pytree of arrays with the same number of rows.
        block_size: rows per block.

    Returns:
        The pytree that ``function(inputs)`` would return.
    """
    num_rows = jax.tree.leaves(inputs)[0].shape[0]
    block_size = max(1, min(block_size, num_rows))
    num_blocks = -(-num_rows // block_size)
    if num_blocks <= 1:
        return function(inputs)

    def block(start: jax.Array) -> Outputs:
        def take(rows: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(rows, start, block_size)

        return function(jax.tree.map(take, inputs))

    # The last block overlaps the one before: padding would copy all inputs.
    starts = jnp.minimum(jnp.arange(num_blocks) * block_size, num_rows - block_size)
    outputs = jax.lax.map(block, starts)
    remainder = num_rows - (num_blocks - 1) * block_size

    def join(blocks: jax.Array) -> jax.Array:
        whole = blocks[:-1].reshape(-1, *blocks.shape[2:])
        return jnp.concatenate([whole, blocks[-1, block_size - remainder :]])

    return jax.tree.map(join, outputs)
