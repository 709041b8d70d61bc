"""Networks of cheap convs: inverted residuals with squeeze-and-excitation, shuffles, ConvNeXt."""

import jax.numpy as jnp
from flax import linen as nn
from network.rows import ListedConv, avg_pool, linen_row, random_images, sow

IMAGES = random_images(2, 8, 8, 3)


class ConvNorm(nn.Module):
    """conv - BatchNorm, and a nonlinearity if there is one."""

    features: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    function: object = None

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features,
            (self.size, self.size),
            strides=self.stride,
            feature_group_count=self.groups,
            use_bias=False,
            name="conv",
        )(x)
        x = nn.BatchNorm(use_running_average=True, name="bn")(x)
        return x if self.function is None else self.function(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excitation, a linear projection (Sandler et al. 2018)."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        shortcut = x
        x = ConvNorm(8, function=nn.relu6, name="expand")(x)
        sow(self, "expand/conv", x)
        x = ConvNorm(8, 3, self.stride, groups=8, function=nn.relu6, name="depthwise")(x)
        sow(self, "depthwise/conv", x)
        gate = nn.relu(nn.Conv(3, (1, 1), name="squeeze")(x.mean((1, 2), keepdims=True)))
        sow(self, "squeeze", gate)
        gate = nn.sigmoid(nn.Conv(8, (1, 1), name="excite")(gate))
        sow(self, "excite", gate)
        x = ConvNorm(self.features, name="project")(x * gate)
        sow(self, "project/conv", x)
        return x + shortcut if x.shape == shortcut.shape else x


class MobileNet(nn.Module):
    """A strided block and two with shortcuts, no nonlinearity between one sum and the next."""

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(4, 3, function=nn.relu6, name="stem")(x)
        sow(self, "stem/conv", x)
        for number, stride in enumerate((2, 1, 1)):
            x = InvertedResidual(5, stride, name=f"block{number}")(x)
        x = ConvNorm(6, function=nn.hard_swish, name="head")(x)
        sow(self, "head/conv", x)
        return nn.Dense(5)(x.mean((1, 2)))


def block_convs(name, inputs, side):
    """The convs of an inverted residual whose input has sides of 8 or `side` pixels."""
    before = 8 if inputs == 4 else side
    return (
        ListedConv(
            f"{name}/expand/conv", (1, 1, inputs, 8), 1, (before, before, 8), before**2 * inputs * 8
        ),
        ListedConv(f"{name}/depthwise/conv", (3, 3, 1, 8), 8, (side, side, 8), side**2 * 9 * 8),
        ListedConv(f"{name}/squeeze", (1, 1, 8, 3), 1, (1, 1, 3), 8 * 3),
        ListedConv(f"{name}/excite", (1, 1, 3, 8), 1, (1, 1, 8), 3 * 8),
        ListedConv(f"{name}/project/conv", (1, 1, 8, 5), 1, (side, side, 5), side**2 * 8 * 5),
    )


def shuffle(x, groups):
    """Zhang et al. 2018: channel c of group g becomes channel g of group c."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, groups, channels // groups)
    return x.swapaxes(3, 4).reshape(count, height, width, channels)


class ShuffleNet(nn.Module):
    """Grouped 1x1 convs with a shuffle between them, one block with a sum, one with a join."""

    @nn.compact
    def __call__(self, x):
        x = ConvNorm(8, 3, function=nn.relu, name="stem")(x)
        sow(self, "stem/conv", x)
        for number, stride in enumerate((1, 2)):
            shortcut = x
            x = ConvNorm(4, groups=2, function=nn.relu, name=f"first{number}")(x)
            sow(self, f"first{number}/conv", x)
            x = ConvNorm(4, 3, stride, groups=4, name=f"depthwise{number}")(shuffle(x, 2))
            sow(self, f"depthwise{number}/conv", x)
            x = ConvNorm(8, groups=2, name=f"second{number}")(x)
            if stride == 1:
                x = nn.relu(x + shortcut)
                sow(self, f"second{number}/conv", x)
            else:
                sow(self, f"second{number}/conv", x)
                x = nn.relu(jnp.concatenate([avg_pool(shortcut), x], axis=-1))
        return nn.Dense(5)(x.mean((1, 2)))


class ConvNeXt(nn.Module):
    """Liu et al. 2022: a patch stem, LayerNorm, Dense layers on pixels, a scale before the sum."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(4, (2, 2), strides=2, name="stem")(x))
        sow(self, "stem", x)
        for number in range(2):
            y = nn.Conv(4, (3, 3), feature_group_count=4, name=f"depthwise{number}")(x)
            y = nn.LayerNorm()(y)
            sow(self, f"depthwise{number}", y)
            y = nn.Dense(4)(nn.gelu(nn.Dense(8)(y)))
            x = x + y * self.param(f"gamma{number}", nn.initializers.ones, (4,))
        return nn.Dense(5)(nn.LayerNorm()(x.mean((1, 2))))


ROWS = (
    linen_row(
        "mobilenet",
        MobileNet(),
        IMAGES,
        (
            ListedConv("stem/conv", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            *block_convs("block0", 4, 4),
            *block_convs("block1", 5, 4),
            *block_convs("block2", 5, 4),
            ListedConv("head/conv", (1, 1, 5, 6), 1, (4, 4, 6), 4 * 4 * 5 * 6),
        ),
    ),
    linen_row(
        "shufflenet",
        ShuffleNet(),
        IMAGES,
        (
            ListedConv("stem/conv", (3, 3, 3, 8), 1, (8, 8, 8), 8 * 8 * 9 * 3 * 8),
            ListedConv("first0/conv", (1, 1, 4, 4), 2, (8, 8, 4), 8 * 8 * 4 * 4),
            ListedConv("depthwise0/conv", (3, 3, 1, 4), 4, (8, 8, 4), 8 * 8 * 9 * 4),
            ListedConv("second0/conv", (1, 1, 2, 8), 2, (8, 8, 8), 8 * 8 * 2 * 8),
            ListedConv("first1/conv", (1, 1, 4, 4), 2, (8, 8, 4), 8 * 8 * 4 * 4),
            ListedConv("depthwise1/conv", (3, 3, 1, 4), 4, (4, 4, 4), 4 * 4 * 9 * 4),
            ListedConv("second1/conv", (1, 1, 2, 8), 2, (4, 4, 8), 4 * 4 * 2 * 8),
        ),
    ),
    linen_row(
        "convnext",
        ConvNeXt(),
        IMAGES,
        (
            ListedConv("stem", (2, 2, 3, 4), 1, (4, 4, 4), 4 * 4 * 4 * 3 * 4),
            ListedConv("depthwise0", (3, 3, 1, 4), 4, (4, 4, 4), 4 * 4 * 9 * 4),
            ListedConv("depthwise1", (3, 3, 1, 4), 4, (4, 4, 4), 4 * 4 * 9 * 4),
        ),
    ),
)
