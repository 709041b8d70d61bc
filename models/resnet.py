"""ResNets: the CIFAR family (He et al. 2016, section 4.2) and the ImageNet one.

Parameter paths are PyTorch's names with ``/`` for ``.``, the number of a block joined to its stage:
``conv1/kernel``, ``bn1/{scale,bias}``, ``layer1_0/conv1/kernel``,
``layer2_0/downsample_{conv,bn}``, ``fc/{kernel,bias}``. Kernels are HWIO.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from .channels import WHOLE, Activations, ConvInfo, Thin, Thinned, conv, he_normal, spread


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
    module: nn.Module,
    names: tuple[str, str],
    train: bool,
    dtype: Any,
    thin: Mapping[str, Thin],
) -> jax.Array:
    """Conv and BatchNorm with PyTorch's constants, named ``names`` in the calling ``module``."""
    entry = thin.get(names[0], WHOLE)
    x = conv(
        x,
        spec.features,
        spec.size,
        stride=spec.stride,
        padding=spec.size // 2,
        thin=entry,
        thinned=bool(thin),
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
    x = norm(x.astype(jnp.float32)).astype(dtype)
    if entry.writes is None:
        return x
    missing = spec.features - len(entry.writes)
    rest = module.param(f"{names[0]}_rest", nn.initializers.zeros, (missing,))
    return spread(x, rest, entry.writes)


class Block(nn.Module):
    """A residual block: convs with ReLU between, the shortcut added, ReLU.

    Attributes:
        convs: the convs in order; the last one's filters are the block's output channels.
        shortcut: "A" or "B", see `ResNet`; applied only where the shape changes.
        dtype: dtype of the computation.
        thin: what is left of the convs, by their names in the block.
    """

    convs: tuple[ConvSpec, ...]
    shortcut: str
    dtype: Any
    thin: Mapping[str, Thin]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, Activations]:
        """Maps ``(N, H, W, C)`` to the block's output and the convs' activations by name."""
        options = {"module": self, "train": train, "dtype": self.dtype, "thin": self.thin}
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


class ResNet(Thinned, nn.Module):
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
        thin: what is left of each conv, by its path; see `with_thin`.
    """

    num_classes: int
    stage_sizes: tuple[int, ...]
    stage_widths: tuple[int, ...]
    bottleneck: bool = False
    shortcut: str = "B"
    stem: str = "small"
    dtype: Any = jnp.float32
    thin: Mapping[str, Thin] = FrozenDict()

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
            module=self,
            names=("conv1", "bn1"),
            train=train,
            dtype=self.dtype,
            thin={path: entry for path, entry in self.thin.items() if path == "conv1"},
        )
        x = nn.relu(x)
        activations: Activations = OrderedDict(conv1=x)
        if imagenet:
            # Flax's annotation has the names of paddings alone.
            padding: Any = ((1, 1), (1, 1))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for name, convs in self._blocks():
            thin = {
                path.removeprefix(f"{name}/"): entry
                for path, entry in self.thin.items()
                if path.startswith(f"{name}/")
            }
            block = Block(convs, self.shortcut, self.dtype, FrozenDict(thin), name=name)
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

    def convs(self) -> tuple[ConvInfo, ...]:
        """Tells where every conv's output goes, in the order of the network."""
        infos = [ConvInfo("conv1", "bn1", (), "conv1")]
        width = self.stage_widths[0]
        for name, specs in self._blocks():
            for number in range(1, len(specs) + 1):
                readers = (f"{name}/conv{number + 1}",) if number < len(specs) else ()
                conv = f"{name}/conv{number}"
                infos.append(ConvInfo(conv, f"{name}/bn{number}", readers, conv))
            changes = width != specs[-1].features or any(spec.stride != 1 for spec in specs)
            if changes and self.shortcut == "B":
                paths = (f"{name}/downsample_conv", f"{name}/downsample_bn")
                infos.append(ConvInfo(*paths, (), f"{name}/conv{len(specs)}"))
            width = specs[-1].features
        return tuple(infos)
