"""Networks with concatenations: DenseNet, Inception, U-Net."""

import jax.numpy as jnp
from flax import linen as nn
from network.rows import ListedConv, avg_pool, linen_row, random_images, sow

IMAGES = random_images(2, 8, 8, 3)


def norm(x):
    return nn.relu(nn.BatchNorm(use_running_average=True)(x))


class DenseNet(nn.Module):
    """Huang et al. 2017: norm and ReLU before the convs, whose outputs are joined as they are."""

    @nn.compact
    def __call__(self, x):
        x = norm(nn.Conv(4, (3, 3), name="stem")(x))
        sow(self, "stem", x)
        for block in range(2):
            for number in range(2):
                name = f"block{block}_{number}"
                y = norm(nn.Conv(6, (1, 1), use_bias=False, name=f"{name}_narrow")(norm(x)))
                sow(self, f"{name}_narrow", y)
                y = nn.Conv(3, (3, 3), use_bias=False, name=f"{name}_wide")(y)
                sow(self, f"{name}_wide", y)
                x = jnp.concatenate([x, y], axis=-1)
            if block == 0:
                x = nn.Conv(5, (1, 1), name="transition")(norm(x))
                sow(self, "transition", x)
                x = avg_pool(x)
        return nn.Dense(5)(norm(x).mean((1, 2)))


class Inception(nn.Module):
    """Szegedy et al. 2015: four branches side by side, one of them with pooling."""

    @nn.compact
    def __call__(self, x):
        def conv(name, features, size, x):
            x = norm(nn.Conv(features, (size, size), use_bias=False, name=name)(x))
            sow(self, name, x)
            return x

        x = conv("stem", 4, 3, x)
        branches = [
            conv("one", 3, 1, x),
            conv("three", 4, 3, conv("three_narrow", 2, 1, x)),
            conv("five", 3, 5, conv("five_narrow", 2, 1, x)),
            conv("pooled", 2, 1, nn.max_pool(x, (3, 3), padding="SAME")),
        ]
        x = conv("after", 5, 3, jnp.concatenate(branches, axis=-1))
        return nn.Dense(5)(x.mean((1, 2)))


class UNet(nn.Module):
    """Ronneberger et al. 2015: skips joined to upsampled maps; the output is an image."""

    @nn.compact
    def __call__(self, x):
        def conv(name, features, x):
            x = nn.relu(nn.Conv(features, (3, 3), name=name)(x))
            sow(self, name, x)
            return x

        skips = []
        for level, features in enumerate((4, 5)):
            x = conv(f"down{level}", features, x)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = conv("bottom", 6, x)
        for level, features in ((1, 5), (0, 4)):
            x = nn.ConvTranspose(features, (2, 2), strides=(2, 2), name=f"up{level}")(x)
            sow(self, f"up{level}", x)
            x = conv(f"join{level}", features, jnp.concatenate([skips.pop(), x], axis=-1))
        x = nn.Conv(2, (1, 1), name="image")(x)
        sow(self, "image", x)
        return x


ROWS = (
    linen_row(
        "densenet",
        DenseNet(),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("block0_0_narrow", (1, 1, 4, 6), 1, (8, 8, 6), 8 * 8 * 4 * 6),
            ListedConv("block0_0_wide", (3, 3, 6, 3), 1, (8, 8, 3), 8 * 8 * 9 * 6 * 3),
            ListedConv("block0_1_narrow", (1, 1, 7, 6), 1, (8, 8, 6), 8 * 8 * 7 * 6),
            ListedConv("block0_1_wide", (3, 3, 6, 3), 1, (8, 8, 3), 8 * 8 * 9 * 6 * 3),
            ListedConv("transition", (1, 1, 10, 5), 1, (8, 8, 5), 8 * 8 * 10 * 5),
            ListedConv("block1_0_narrow", (1, 1, 5, 6), 1, (4, 4, 6), 4 * 4 * 5 * 6),
            ListedConv("block1_0_wide", (3, 3, 6, 3), 1, (4, 4, 3), 4 * 4 * 9 * 6 * 3),
            ListedConv("block1_1_narrow", (1, 1, 8, 6), 1, (4, 4, 6), 4 * 4 * 8 * 6),
            ListedConv("block1_1_wide", (3, 3, 6, 3), 1, (4, 4, 3), 4 * 4 * 9 * 6 * 3),
        ),
    ),
    linen_row(
        "inception",
        Inception(),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("one", (1, 1, 4, 3), 1, (8, 8, 3), 8 * 8 * 4 * 3),
            ListedConv("three_narrow", (1, 1, 4, 2), 1, (8, 8, 2), 8 * 8 * 4 * 2),
            ListedConv("three", (3, 3, 2, 4), 1, (8, 8, 4), 8 * 8 * 9 * 2 * 4),
            ListedConv("five_narrow", (1, 1, 4, 2), 1, (8, 8, 2), 8 * 8 * 4 * 2),
            ListedConv("five", (5, 5, 2, 3), 1, (8, 8, 3), 8 * 8 * 25 * 2 * 3),
            ListedConv("pooled", (1, 1, 4, 2), 1, (8, 8, 2), 8 * 8 * 4 * 2),
            ListedConv("after", (3, 3, 12, 5), 1, (8, 8, 5), 8 * 8 * 9 * 12 * 5),
        ),
    ),
    linen_row(
        "unet",
        UNet(),
        IMAGES,
        (
            ListedConv("down0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("down1", (3, 3, 4, 5), 1, (4, 4, 5), 4 * 4 * 9 * 4 * 5),
            ListedConv("bottom", (3, 3, 5, 6), 1, (2, 2, 6), 2 * 2 * 9 * 5 * 6),
            ListedConv("up1", (2, 2, 6, 5), 1, (4, 4, 5), 2 * 2 * 4 * 6 * 5),
            ListedConv("join1", (3, 3, 10, 5), 1, (4, 4, 5), 4 * 4 * 9 * 10 * 5),
            ListedConv("up0", (2, 2, 5, 4), 1, (8, 8, 4), 4 * 4 * 4 * 5 * 4),
            ListedConv("join0", (3, 3, 8, 4), 1, (8, 8, 4), 8 * 8 * 9 * 8 * 4),
            ListedConv("image", (1, 1, 4, 2), 1, (8, 8, 2), 8 * 8 * 4 * 2),
        ),
    ),
)
