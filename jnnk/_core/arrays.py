"""The arrays that public functions take."""

from typing import TypeGuard

import jax
import numpy as np

#: What a public function takes where it says an array; what it returns is a ``jax.Array``.
#: With jaxtyping: ``Float[ArrayLike, "N D"]``.
ArrayLike = jax.Array | np.ndarray


def is_array(value: object) -> TypeGuard[ArrayLike]:
    """Whether it is an array of JAX or NumPy, traced ones included; a list is none."""
    return isinstance(value, jax.Array | np.ndarray)
