"""Residual networks: the nonlinearity behind the sum, before the convs, none; both shortcuts."""

import jax.numpy as jnp
from flax import linen as nn
from network.rows import ListedConv, linen_row, random_images, sow

IMAGES = random_images(2, 8, 8, 3)


class Norm(nn.Module):
    """BatchNorm in evaluation."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="bn")(x)


class ResNet(nn.Module):
    """He et al. 2016: ReLU behind the sum; an identity, a padded and a projected shortcut."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(Norm()(nn.Conv(4, (3, 3), use_bias=False, name="stem")(x)))
        sow(self, "stem", x)
        for number, (features, stride) in enumerate(((4, 1), (6, 2), (8, 1))):
            shortcut = x
            if stride != 1:
                shortcut = jnp.pad(x[:, ::2, ::2], [(0, 0)] * 3 + [(1, 1)])
            elif features != x.shape[-1]:
                shortcut = nn.Conv(features, (1, 1), use_bias=False, name=f"shortcut{number}")(x)
                shortcut = Norm()(shortcut)
            y = nn.Conv(5, (3, 3), strides=stride, use_bias=False, name=f"first{number}")(x)
            y = nn.relu(Norm()(y))
            sow(self, f"first{number}", y)
            y = Norm()(nn.Conv(features, (3, 3), use_bias=False, name=f"second{number}")(y))
            x = nn.relu(y + shortcut)
            sow(self, f"second{number}", x)
        # The projection meets the last block's second conv in a sum.
        sow(self, "shortcut2", x)
        return nn.Dense(5)(x.mean((1, 2)))


class PreActivation(nn.Module):
    """He et al. 2016b: norm and ReLU before the convs; an identity and a projected shortcut."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        writers = ["stem"]
        for number, (features, stride) in enumerate(((4, 1), (6, 2))):
            y = nn.relu(Norm()(x))
            for writer in writers:
                sow(self, writer, y)
            writers = [f"second{number}"]
            if features != x.shape[-1]:
                x = nn.Conv(features, (1, 1), strides=stride, name=f"shortcut{number}")(y)
                writers.append(f"shortcut{number}")
            y = nn.Conv(5, (3, 3), strides=stride, name=f"first{number}")(y)
            y = nn.relu(Norm()(y))
            sow(self, f"first{number}", y)
            x = x + nn.Conv(features, (3, 3), name=f"second{number}")(y)
        x = nn.relu(Norm()(x))
        for writer in writers:
            sow(self, writer, x)
        return nn.Dense(5)(x.mean((1, 2)))


class Bottleneck(nn.Module):
    """ResNet-50's block, on a stem with max pooling as for ImageNet."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(Norm()(nn.Conv(4, (7, 7), strides=2, padding=3, name="stem")(x)))
        sow(self, "stem", x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        shortcut = Norm()(nn.Conv(8, (1, 1), name="shortcut")(x))
        for name, features, size in (("reduce", 2, 1), ("middle", 2, 3)):
            x = nn.relu(Norm()(nn.Conv(features, (size, size), name=name)(x)))
            sow(self, name, x)
        x = nn.relu(Norm()(nn.Conv(8, (1, 1), name="expand")(x)) + shortcut)
        for name in ("shortcut", "expand"):
            sow(self, name, x)
        return nn.Dense(5)(x.mean((1, 2)))


ROWS = (
    linen_row(
        "resnet",
        ResNet(),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("first0", (3, 3, 4, 5), 1, (8, 8, 5), 8 * 8 * 9 * 4 * 5),
            ListedConv("second0", (3, 3, 5, 4), 1, (8, 8, 4), 8 * 8 * 9 * 5 * 4),
            ListedConv("first1", (3, 3, 4, 5), 1, (4, 4, 5), 4 * 4 * 9 * 4 * 5),
            ListedConv("second1", (3, 3, 5, 6), 1, (4, 4, 6), 4 * 4 * 9 * 5 * 6),
            ListedConv("shortcut2", (1, 1, 6, 8), 1, (4, 4, 8), 4 * 4 * 6 * 8),
            ListedConv("first2", (3, 3, 6, 5), 1, (4, 4, 5), 4 * 4 * 9 * 6 * 5),
            ListedConv("second2", (3, 3, 5, 8), 1, (4, 4, 8), 4 * 4 * 9 * 5 * 8),
        ),
    ),
    linen_row(
        "resnet_pre_activation",
        PreActivation(),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("first0", (3, 3, 4, 5), 1, (8, 8, 5), 8 * 8 * 9 * 4 * 5),
            ListedConv("second0", (3, 3, 5, 4), 1, (8, 8, 4), 8 * 8 * 9 * 5 * 4),
            ListedConv("shortcut1", (1, 1, 4, 6), 1, (4, 4, 6), 4 * 4 * 4 * 6),
            ListedConv("first1", (3, 3, 4, 5), 1, (4, 4, 5), 4 * 4 * 9 * 4 * 5),
            ListedConv("second1", (3, 3, 5, 6), 1, (4, 4, 6), 4 * 4 * 9 * 5 * 6),
        ),
    ),
    linen_row(
        "resnet_bottleneck",
        Bottleneck(),
        random_images(2, 16, 16, 3),
        (
            ListedConv("stem", (7, 7, 3, 4), 1, (8, 8, 4), 8 * 8 * 49 * 3 * 4),
            ListedConv("shortcut", (1, 1, 4, 8), 1, (4, 4, 8), 4 * 4 * 4 * 8),
            ListedConv("reduce", (1, 1, 4, 2), 1, (4, 4, 2), 4 * 4 * 4 * 2),
            ListedConv("middle", (3, 3, 2, 2), 1, (4, 4, 2), 4 * 4 * 9 * 2 * 2),
            ListedConv("expand", (1, 1, 2, 8), 1, (4, 4, 8), 4 * 4 * 2 * 8),
        ),
    ),
)
