"""ResNets: the CIFAR family (He et al. 2016, section 4.2) and the ImageNet one.

Parameter paths are PyTorch's names with ``/`` for ``.``, the number of a block joined to its stage:
``conv1/kernel``, ``bn1/{scale,bias}``, ``layer1_0/conv1/kernel``,
``layer2_0/downsample_{conv,bn}``, ``fc/{kernel,bias}``. Kernels are HWIO.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from .layers import Activations, conv, he_normal


class ConvSpec(NamedTuple):
    """One conv of a block.

    Attributes:
        features: number of filters.
        size: side of its kernel.
        stride: of both axes.
    """

    features: int
    size: int
    stride: int


def _conv_norm(
    x: jax.Array,
    spec: ConvSpec,
    *,
    names: tuple[str, str],
    train: bool,
    dtype: Any,
) -> jax.Array:
    """Conv and BatchNorm with PyTorch's constants, named ``names`` in the calling module."""
    x = conv(
        x,
        spec.features,
        spec.size,
        stride=spec.stride,
        padding=spec.size // 2,
        dtype=dtype,
        name=names[0],
    )
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=jnp.float32,
        name=names[1],
    )
    return norm(x.astype(jnp.float32)).astype(dtype)


class Block(nn.Module):
    """A residual block: convs with ReLU between, the shortcut added, ReLU.

    Attributes:
        convs: the convs in order; the last one's filters are the block's output channels.
        shortcut: "A" or "B", see `ResNet`; applied only where the shape changes.
        dtype: dtype of the computation.
    """

    convs: tuple[ConvSpec, ...]
    shortcut: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, Activations]:
        """Maps ``(N, H, W, C)`` to the block's output and the convs' activations by name."""
        options = {"train": train, "dtype": self.dtype}
        stride = max(spec.stride for spec in self.convs)
        features = self.convs[-1].features
        shortcut = x
        if stride != 1 or x.shape[-1] != features:
            if self.shortcut == "A":
                # Every second pixel, and zero channels on both sides of the old ones.
                side = (features - x.shape[-1]) // 2
                shortcut = jnp.pad(
                    x[:, ::stride, ::stride], [(0, 0)] * 3 + [(side, features - x.shape[-1] - side)]
                )
            else:
                names = ("downsample_conv", "downsample_bn")
                shortcut = _conv_norm(x, ConvSpec(features, 1, stride), names=names, **options)
        activations: Activations = OrderedDict()
        for number, spec in enumerate(self.convs, 1):
            x = _conv_norm(x, spec, names=(f"conv{number}", f"bn{number}"), **options)
            x = nn.relu(x if number < len(self.convs) else x + shortcut)
            activations[f"conv{number}"] = x
        return x, activations


class ResNet(nn.Module):
    """A residual network for images of any size.

    The activations' names are paths of convs: ``conv1`` (behind BatchNorm and ReLU, before any
    max pooling), ``layer1_0/conv1``, ..., a block's last conv standing for the block's output.

    Attributes:
        num_classes: number of logits.
        stage_sizes: blocks in each stage.
        stage_widths: channels of each stage (a quarter of its output with ``bottleneck``).
        bottleneck: blocks of 1x1, 3x3 (with the stride: version 1.5), 1x1 convs, in place of two
            3x3 ones.
        shortcut: where a block changes the shape, "A": subsampling and zero channels, no
            parameters; "B": a strided 1x1 conv with BatchNorm.
        stem: "small": a 3x3 conv, for images of 64 pixels or fewer; "imagenet": a 7x7 conv of
            stride 2 and 3x3 max pooling of stride 2.
        dtype: dtype of the convs, the dense layer and the activations. Parameters, logits and all
            of BatchNorm are float32.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    stage_widths: tuple[int, ...]
    bottleneck: bool = False
    shortcut: str = "B"
    stem: str = "small"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, Activations]:
        """Classifies images.

        Args:
            images: ``(N, H, W, C)``, normalised.
            train: normalise by the batch's statistics and update the running ones (apply with
                ``mutable=["batch_stats"]``). Unlike PyTorch's, the running variance is the
                biased one.

        Returns:
            ``(N, num_classes)`` float32 logits and the activations ``(N, H, W, C)`` by name, in
            the order of the network.
        """
        if images.ndim != 4:
            raise ValueError(f"images: expected (N, H, W, C), got shape {images.shape}")
        imagenet = self.stem == "imagenet"
        x = _conv_norm(
            images.astype(self.dtype),
            ConvSpec(self.stage_widths[0], 7, 2)
            if imagenet
            else ConvSpec(self.stage_widths[0], 3, 1),
            names=("conv1", "bn1"),
            train=train,
            dtype=self.dtype,
        )
        x = nn.relu(x)
        activations: Activations = OrderedDict(conv1=x)
        if imagenet:
            # Flax's annotation has the names of paddings alone.
            padding: Any = ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for name, convs in self._blocks():
            block = Block(convs, self.shortcut, self.dtype, name=name)
            x, inside = block(x, train)
            activations.update((f"{name}/{path}", value) for path, value in inside.items())
        x = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(self.num_classes, kernel_init=he_normal, dtype=self.dtype, name="fc")
        logits = dense(x)
        return logits.astype(jnp.float32), activations

    def _blocks(self) -> Iterator[tuple[str, tuple[ConvSpec, ...]]]:
        """Names and convs of the blocks in order."""
        for stage, (size, width) in enumerate(
            zip(self.stage_sizes, self.stage_widths, strict=True)
        ):
            for number in range(size):
                stride = 2 if stage > 0 and number == 0 else 1
                if self.bottleneck:
                    convs = ((width, 1, 1), (width, 3, stride), (4 * width, 1, 1))
                else:
                    convs = ((width, 3, stride), (width, 3, 1))
                yield f"layer{stage + 1}_{number}", tuple(ConvSpec(*spec) for spec in convs)
