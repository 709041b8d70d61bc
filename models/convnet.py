"""Plain ConvNets of the NNK papers: convs with bias and ReLU, max pooling, one dense layer.

Parameter paths: ``conv0/{kernel,bias}``, ``conv1/...``, ``fc/{kernel,bias}``. Kernels are HWIO; the
dense layer reads the last activation flattened in the order height, width, channel.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from .layers import Activations, conv, he_normal


class LayerSpec(NamedTuple):
    """One conv.

    Attributes:
        size: side of its kernel.
        padding: zeros added on each side.
        pool: whether 2x2 max pooling follows.
    """

    size: int
    padding: int
    pool: bool


#: Conv 3x3 SAME six times, pooling behind every second (DeepNNK, arXiv 2007.10505).
SIX = (LayerSpec(3, 1, False), LayerSpec(3, 1, True)) * 3
#: The five-channel network of arXiv 2107.12972 and 2110.11400: images of 24 pixels or more.
FIVE = (
    LayerSpec(5, 0, False),
    LayerSpec(5, 0, True),
    LayerSpec(5, 0, False),
    LayerSpec(3, 0, True),
)


class ConvNet(nn.Module):
    """Convs with ReLU, then a dense layer.

    The activations are named after their convs, ``conv0``, ``conv1``, ..., and taken behind ReLU,
    before pooling and dropout.

    Attributes:
        num_classes: number of logits.
        layers: the convs in order.
        channels: filters of every conv.
        dropout: share of values dropped behind every conv (and its pooling) when training.
        dtype: dtype of the computation and of the activations. Parameters and logits are
            float32.
    """

    num_classes: int
    layers: tuple[LayerSpec, ...]
    channels: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Classifies images.

        Args:
            images: ``(N, H, W, C)``.
            train: apply dropout; with ``dropout`` above 0 this needs the rng ``"dropout"``.

        Returns:
            ``(N, num_classes)`` float32 logits and the activations ``(N, H, W, C)`` by name, in
            the order of the network.

        Raises:
            ValueError: the images are not 4-D, or too small for the convs and poolings.
        """
        if images.ndim != 4:
            raise ValueError(f"images: expected (N, H, W, C), got shape {images.shape}")
        self._check_size((images.shape[1], images.shape[2]))
        x = images.astype(self.dtype)
        activations: Activations = OrderedDict()
        for number, layer in enumerate(self.layers):
            name = f"conv{number}"
            x = conv(
                x,
                self.channels,
                layer.size,
                padding=layer.padding,
                use_bias=True,
                dtype=self.dtype,
                name=name,
            )
            x = activations[name] = nn.relu(x)
            if layer.pool:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        dense = nn.Dense(self.num_classes, kernel_init=he_normal, dtype=self.dtype, name="fc")
        logits = dense(x)
        return logits.astype(jnp.float32), activations

    def _check_size(self, size: tuple[int, int]) -> None:
        """Raises where the images leave nothing for the dense layer."""
        needed = 1
        for layer in reversed(self.layers):
            needed = (2 * needed if layer.pool else needed) + layer.size - 1 - 2 * layer.padding
        if min(size) < needed:
            raise ValueError(
                f"images: expected at least {needed}x{needed} pixels for this network, "
                f"got {size[0]}x{size[1]}"
            )
