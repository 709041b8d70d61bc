"""Networks in Flax Linen, one for each kind of convolution and of what follows it."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from network.rows import ListedConv, linen_row, random_images

IMAGES = random_images(2, 8, 8, 3)


def itself(x):
    return x


class Transposed(nn.Module):
    """Both ways in which Flax stores a transposed kernel; the output is an image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.relu(nn.ConvTranspose(6, (3, 3), strides=(2, 2))(x))
        return nn.ConvTranspose(3, (2, 2), strides=(2, 2), transpose_kernel=True)(x)


class Grouped(nn.Module):
    """Groups of 4 and of 2 input channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3))(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2)(x))
        x = nn.relu(nn.Conv(4, (3, 3), feature_group_count=4, strides=2)(x))
        return nn.Dense(5)(x.mean((1, 2)))


class Depthwise(nn.Module):
    """One filter a channel, then two."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.relu6(nn.Conv(4, (3, 3), feature_group_count=4)(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4)(x))
        x = nn.relu(nn.Conv(5, (1, 1))(x))
        return nn.Dense(5)(x.mean((1, 2)))


class Dilated(nn.Module):
    """Without padding, and with another dilation of each axis."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), kernel_dilation=2, padding="VALID")(x))
        x = jnp.tanh(nn.Conv(5, (3, 3), kernel_dilation=(1, 2))(x))
        return nn.Dense(5)(x.mean((1, 2)))


class Pointwise(nn.Module):
    """1x1 convs alone, the last one the classifier."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (1, 1))(x))
        x = nn.relu(nn.Conv(6, (1, 1), strides=2, use_bias=False)(x))
        return nn.Conv(5, (1, 1))(x).mean((1, 2))


class NoActivation(nn.Module):
    """No nonlinearity, and a Dense layer behind the flattened map."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.Conv(4, (3, 3), strides=2, use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Conv(3, (3, 3))(x)
        return nn.Dense(5)(x.reshape(len(x), -1))


class Smooth(nn.Module):
    """Nonlinearities that are made of several operations."""

    @nn.compact
    def __call__(self, x):
        x = nn.swish(nn.Conv(4, (3, 3))(x))
        x = nn.gelu(nn.Conv(5, (3, 3))(x))
        x = nn.gelu(nn.Conv(4, (1, 1))(x), approximate=False)
        x = nn.elu(nn.Conv(5, (1, 1))(x))
        x = nn.hard_swish(nn.Conv(4, (1, 1))(x))
        x = nn.PReLU()(nn.Conv(5, (1, 1))(x))
        return nn.Dense(5)(x.mean((1, 2)))


class Conv1d(nn.Module):
    """Signals (N, L, C)."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3,))(x))
        x = nn.relu(nn.Conv(6, (5,), strides=2)(x))
        return nn.Dense(5)(x.mean(1))


class Conv3d(nn.Module):
    """Volumes (N, D, H, W, C)."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(3, (3, 3, 3))(x))
        x = nn.relu(nn.Conv(4, (1, 3, 3), strides=(1, 2, 2))(x))
        return nn.Dense(5)(x.mean((1, 2, 3)))


def sites(*functions):
    """The convs in order, each followed by a function."""
    return {f"Conv_{number}": (f"Conv_{number}", each) for number, each in enumerate(functions)}


ROWS = (
    linen_row(
        "linen_transposed",
        Transposed(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (4, 4, 4), 4 * 4 * 9 * 3 * 4),
            ListedConv("ConvTranspose_0", (3, 3, 4, 6), 1, (8, 8, 6), 4 * 4 * 9 * 4 * 6),
            ListedConv("ConvTranspose_1", (2, 2, 3, 6), 1, (16, 16, 3), 8 * 8 * 4 * 6 * 3),
        ),
        sites={
            "Conv_0": ("Conv_0", nn.relu),
            "ConvTranspose_0": ("ConvTranspose_0", nn.relu),
            "ConvTranspose_1": ("ConvTranspose_1", itself),
        },
    ),
    linen_row(
        "linen_grouped",
        Grouped(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 8), 1, (8, 8, 8), 8 * 8 * 9 * 3 * 8),
            ListedConv("Conv_1", (3, 3, 4, 8), 2, (8, 8, 8), 8 * 8 * 9 * 4 * 8),
            ListedConv("Conv_2", (3, 3, 2, 4), 4, (4, 4, 4), 4 * 4 * 9 * 2 * 4),
        ),
        sites=sites(nn.relu, nn.relu, nn.relu),
    ),
    linen_row(
        "linen_depthwise",
        Depthwise(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 1, 4), 4, (8, 8, 4), 8 * 8 * 9 * 4),
            ListedConv("Conv_2", (3, 3, 1, 8), 4, (8, 8, 8), 8 * 8 * 9 * 8),
            ListedConv("Conv_3", (1, 1, 8, 5), 1, (8, 8, 5), 8 * 8 * 8 * 5),
        ),
        sites=sites(nn.relu, nn.relu6, nn.relu, nn.relu),
    ),
    linen_row(
        "linen_dilated",
        Dilated(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (4, 4, 4), 4 * 4 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 4, 5), 1, (4, 4, 5), 4 * 4 * 9 * 4 * 5),
        ),
        sites=sites(nn.relu, jnp.tanh),
    ),
    linen_row(
        "linen_pointwise",
        Pointwise(),
        IMAGES,
        (
            ListedConv("Conv_0", (1, 1, 3, 4), 1, (8, 8, 4), 8 * 8 * 3 * 4),
            ListedConv("Conv_1", (1, 1, 4, 6), 1, (4, 4, 6), 4 * 4 * 4 * 6),
            ListedConv("Conv_2", (1, 1, 6, 5), 1, (4, 4, 5), 4 * 4 * 6 * 5),
        ),
        sites=sites(nn.relu, nn.relu, itself),
    ),
    linen_row(
        "linen_no_activation",
        NoActivation(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 4, 4), 1, (4, 4, 4), 4 * 4 * 9 * 4 * 4),
            ListedConv("Conv_2", (3, 3, 4, 3), 1, (4, 4, 3), 4 * 4 * 9 * 4 * 3),
        ),
        sites={**sites(itself, itself, itself), "Conv_1": ("BatchNorm_0", itself)},
        train=False,
    ),
    linen_row(
        "linen_smooth",
        Smooth(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 4, 5), 1, (8, 8, 5), 8 * 8 * 9 * 4 * 5),
            ListedConv("Conv_2", (1, 1, 5, 4), 1, (8, 8, 4), 8 * 8 * 5 * 4),
            ListedConv("Conv_3", (1, 1, 4, 5), 1, (8, 8, 5), 8 * 8 * 4 * 5),
            ListedConv("Conv_4", (1, 1, 5, 4), 1, (8, 8, 4), 8 * 8 * 5 * 4),
            ListedConv("Conv_5", (1, 1, 4, 5), 1, (8, 8, 5), 8 * 8 * 4 * 5),
        ),
        sites={
            **sites(
                jax.nn.swish,
                nn.gelu,
                functools.partial(nn.gelu, approximate=False),
                nn.elu,
                nn.hard_swish,
            ),
            "Conv_5": ("PReLU_0", itself),
        },
    ),
    linen_row(
        "linen_1d",
        Conv1d(),
        random_images(2, 16, 3),
        (
            ListedConv("Conv_0", (3, 3, 4), 1, (16, 4), 16 * 3 * 3 * 4),
            ListedConv("Conv_1", (5, 4, 6), 1, (8, 6), 8 * 5 * 4 * 6),
        ),
        sites=sites(nn.relu, nn.relu),
    ),
    linen_row(
        "linen_3d",
        Conv3d(),
        random_images(2, 4, 4, 4, 2),
        (
            ListedConv("Conv_0", (3, 3, 3, 2, 3), 1, (4, 4, 4, 3), 4 * 4 * 4 * 27 * 2 * 3),
            ListedConv("Conv_1", (1, 3, 3, 3, 4), 1, (4, 2, 2, 4), 4 * 2 * 2 * 9 * 3 * 4),
        ),
        sites=sites(nn.relu, nn.relu),
    ),
)
