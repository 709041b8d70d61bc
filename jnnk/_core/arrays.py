"""The arrays that public functions take."""

import jax
import numpy as np

#: What a public function takes where it says an array; what it returns is a ``jax.Array``.
#: With jaxtyping: ``Float[ArrayLike, "N D"]``.
ArrayLike = jax.Array | np.ndarray
