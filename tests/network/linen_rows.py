"""Networks in Flax Linen, one for each kind of convolution and each way of writing layers."""

from flax import linen as nn
from network.rows import ListedConv, avg_pool, linen_row, random_images, sow

IMAGES = random_images(2, 8, 8, 3)


class WithBatchNorm(nn.Module):
    """Max pooling, a stride, and a Dense layer behind a mean."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.Conv(6, (3, 3), strides=2)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(5)(x.mean((1, 2)))


class WithGroupNorm(nn.Module):
    """GroupNorm, LayerNorm and RMSNorm, whose means mix channels."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(num_groups=2)(nn.Conv(8, (3, 3))(x)))
        x = nn.gelu(nn.LayerNorm()(nn.Conv(6, (3, 3))(x)))
        x = nn.silu(nn.RMSNorm()(nn.Conv(4, (1, 1))(x)))
        return nn.Dense(5)(x.mean((1, 2)))


class ConvBlock(nn.Module):
    """Sows its activation."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.features, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        sow(self, "conv", x)
        return x


class WithRemat(nn.Module):
    """Blocks whose values the backward pass computes again."""

    @nn.compact
    def __call__(self, x, train=True):
        block = nn.remat(ConvBlock, static_argnums=(2,))
        for number in range(2):
            x = block(4 + number, name=f"block_{number}")(x, train)
        return nn.Dense(5)(x.mean((1, 2)))


class ScanBlock(nn.Module):
    """A step of a scan."""

    train: bool

    @nn.compact
    def __call__(self, x, _):
        return x + ConvBlock(4, name="inner")(x, self.train), None


class WithScan(nn.Module):
    """Three blocks whose kernels are one leaf."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.Conv(4, (3, 3), name="stem")(x))
        sow(self, "stem", x)
        scanned = nn.scan(
            ScanBlock,
            variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = scanned(train, name="blocks")(x, None)
        x = nn.relu(nn.Conv(5, (1, 1), name="head")(x))
        sow(self, "head", x)
        return x.mean((1, 2))


class Shared(nn.Module):
    """One module called twice, at two sizes."""

    @nn.compact
    def __call__(self, x):
        shared = nn.Conv(3, (3, 3), name="shared")
        for _ in range(2):
            x = nn.relu(shared(x))
            sow(self, "shared", x)
            x = avg_pool(x)
        return nn.Dense(5)(x.reshape(len(x), -1))


class ReturnsDict(nn.Module):
    """Logits, feature maps and a number."""

    @nn.compact
    def __call__(self, x):
        early = nn.relu(nn.Conv(4, (3, 3))(x))
        late = nn.relu(nn.Conv(6, (3, 3), strides=2)(early))
        logits = nn.Dense(5)(late.mean((1, 2)))
        return {"logits": logits, "maps": [early, late], "norm": (logits**2).sum()}


ROWS = (
    linen_row(
        "linen_batch_norm",
        WithBatchNorm(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 4, 6), 1, (2, 2, 6), 2 * 2 * 9 * 4 * 6),
        ),
        sites={"Conv_0": ("BatchNorm_0", nn.relu), "Conv_1": ("BatchNorm_1", nn.relu)},
        train=False,
    ),
    linen_row(
        "linen_group_norm",
        WithGroupNorm(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 8), 1, (8, 8, 8), 8 * 8 * 9 * 3 * 8),
            ListedConv("Conv_1", (3, 3, 8, 6), 1, (8, 8, 6), 8 * 8 * 9 * 8 * 6),
            ListedConv("Conv_2", (1, 1, 6, 4), 1, (8, 8, 4), 8 * 8 * 6 * 4),
        ),
        sites={
            "Conv_0": ("GroupNorm_0", nn.relu),
            "Conv_1": ("LayerNorm_0", nn.gelu),
            "Conv_2": ("RMSNorm_0", nn.silu),
        },
    ),
    linen_row(
        "linen_remat",
        WithRemat(),
        IMAGES,
        (
            ListedConv("block_0/conv", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("block_1/conv", (3, 3, 4, 5), 1, (8, 8, 5), 8 * 8 * 9 * 4 * 5),
        ),
        train=False,
    ),
    linen_row(
        "linen_scan",
        WithScan(),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv(
                "blocks/inner/conv", (3, 3, 3, 4, 4), 1, (8, 8, 4), 3 * 8 * 8 * 9 * 4 * 4, steps=3
            ),
            ListedConv("head", (1, 1, 4, 5), 1, (8, 8, 5), 8 * 8 * 4 * 5),
        ),
        train=False,
    ),
    linen_row(
        "linen_shared",
        Shared(),
        IMAGES,
        (
            ListedConv("shared", (3, 3, 3, 3), 1, (8, 8, 3), 8 * 8 * 9 * 3 * 3),
            ListedConv("shared@2", (3, 3, 3, 3), 1, (4, 4, 3), 4 * 4 * 9 * 3 * 3),
        ),
    ),
    linen_row(
        "linen_dict",
        ReturnsDict(),
        IMAGES,
        (
            ListedConv("Conv_0", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("Conv_1", (3, 3, 4, 6), 1, (4, 4, 6), 4 * 4 * 9 * 4 * 6),
        ),
        sites={"Conv_0": ("Conv_0", nn.relu), "Conv_1": ("Conv_1", nn.relu)},
    ),
)
