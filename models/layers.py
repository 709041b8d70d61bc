"""What the networks are built of, and how their activations are returned."""

from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

#: Layer name to ``(N, H, W, C)``, in the order of the network. Ordered, because a plain dict comes
#: out of ``jax.jit`` sorted by name.
Activations = OrderedDict[str, jax.Array]


def he_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """He's normal initialisation, drawn by XLA's own generator.

    JAX's default generator takes about half a second of compilation for every kernel, a minute for
    ResNet-110. The price: draws differ between backends, and between a vmapped and a plain call.
    """
    data = jax.random.key_data(key)
    key = jax.random.wrap_key_data(jnp.resize(data, (4,)), impl="rbg")
    return nn.initializers.he_normal()(key, shape, dtype)


def conv(
    x: jax.Array,
    features: int,
    size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int = 0,
    use_bias: bool = False,
    dtype: Any,
) -> jax.Array:
    """A square conv, padded alike on all sides as in PyTorch; call it in a compact method.

    Args:
        x: ``(N, H, W, C)`` input.
        features: number of filters.
        size: side of the kernel.
        name: name of the parameters in the calling module.
        stride: stride in both directions.
        padding: zeros added on each side.
        use_bias: whether a bias is added.
        dtype: dtype of the computation.

    Returns:
        ``(N, H', W', features)``.
    """
    layer = nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=padding,
        kernel_init=he_normal,
        use_bias=use_bias,
        dtype=dtype,
        name=name,
    )
    return layer(x)
