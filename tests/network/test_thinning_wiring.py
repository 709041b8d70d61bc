"""Thinning through joins, groups, reshapes and layouts of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network.thinned import check_same, count, random_like, random_masks

IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def conv(x, kernel, *, stride=1, groups=1, padding="SAME", layout="NHWC", **options):
    kernels = "HWIO" if layout == "NHWC" else "OIHW"
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=(layout, kernels, layout),
        feature_group_count=groups,
        **options,
    )


def kernels(**shapes):
    return random_like({name: jnp.zeros(shape) for name, shape in shapes.items()})


def masks_without(variables, name, filters, *, axis=-1):
    """Masks that remove whole filters of one kernel."""
    masks = {key: np.ones((1,) * leaf.ndim) for key, leaf in variables.items()}
    kept = np.ones(variables[name].shape[axis])
    kept[filters] = 0
    shape = [1] * variables[name].ndim
    shape[axis] = -1
    return {**masks, name: kept.reshape(shape)}


def nchw(v, images):
    x = jnp.moveaxis(images, -1, 1)
    x = jax.nn.relu(conv(x, v["a"], layout="NCHW") + v["shift"][:, None, None])
    y = jax.nn.relu(conv(x, v["b"], layout="NCHW"))
    x = jax.nn.relu(x + conv(y, v["c"], layout="NCHW"))
    return x.mean((2, 3)) @ v["fc"]


def flattened(v, images):
    x = jax.nn.relu(conv(images, v["a"], stride=2) + v["shift"])
    return x.reshape(x.shape[0], -1) @ v["fc"]


def flattened_nchw(v, images):
    x = jax.nn.relu(conv(images, v["a"], stride=2) + v["shift"])
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1) @ v["fc"]


def dense_block(v, images):
    x = conv(images, v["a"])
    x = jnp.concatenate([x, conv(jax.nn.relu(x + v["shift"]), v["b"])], axis=-1)
    x = jnp.concatenate([conv(jax.nn.relu(x), v["c"]), x], axis=-1)
    return jax.nn.relu(x).mean((1, 2)) @ v["fc"]


def mobile(v, images):
    x = jax.nn.relu6(conv(images, v["a"]) + v["shift"])
    x = jax.nn.silu(conv(x, v["depthwise"], groups=8, stride=2) + v["shift"])
    gate = jax.nn.relu(x.mean((1, 2)) @ v["squeeze"])
    gate = jax.nn.sigmoid(gate @ v["excite"] + v["shift"])
    return conv(x * gate[:, None, None], v["project"])


def multiplied(v, images):
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    return conv(conv(x, v["depthwise"], groups=4, stride=2), v["project"])


def grouped(v, images):
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    x = jax.nn.relu(conv(x, v["grouped"], groups=4))
    return conv(x, v["project"])


def shuffled(v, images):
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, c // 2).swapaxes(3, 4).reshape(n, h, w, c)
    left, right = jnp.split(x, 2, axis=-1)
    x = jnp.concatenate([conv(left, v["b"]), right[..., ::-1]], axis=-1)
    return conv(x[..., np.array([1, 0, 5, 3, 2])], v["c"])


def group_normed(v, images):
    x = conv(images, v["a"])
    n, h, w, c = x.shape
    groups = x.reshape(n, h, w, 4, c // 4)
    mean = groups.mean((1, 2, 4), keepdims=True)
    variance = ((groups - mean) ** 2).mean((1, 2, 4), keepdims=True)
    x = ((groups - mean) / jnp.sqrt(variance + 1e-5)).reshape(n, h, w, c)
    return conv(jax.nn.relu(x * v["scale"] + v["shift"]), v["b"])


def u_net(v, images):
    skip = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    x = jax.lax.reduce_window(skip, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    x = jax.nn.relu(conv(x, v["b"]) + v["shift"])
    x = conv(x, v["up"], padding=((1, 1), (1, 1)), lhs_dilation=(2, 2))
    x = jnp.concatenate([skip, jax.nn.relu(x + v["shift"])], axis=-1)
    return conv(x, v["c"])


def padded(v, images):
    """Explicit padding, a crop and an average of neighbours."""
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    x = jnp.pad(x, ((0, 0), (1, 1), (2, 0), (0, 0)))
    x = conv(jax.nn.relu(x), v["b"], padding="VALID")
    x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    return conv(x[:, 1:-1, 1:-1], v["c"], rhs_dilation=(2, 2))


def standardised(v, images):
    """Kernels that are normalised over their inputs, or rounded."""
    kernel = v["a"] - v["a"].mean((0, 1, 2))
    x = jax.nn.relu(conv(images, kernel) + v["shift"])
    return conv(x, v["b"].astype(jnp.bfloat16).astype(jnp.float32) * v["scale"])


def along_channels(v, images):
    """A softmax, a cumulative sum and a sort of channels."""
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    x = jax.nn.softmax(x) + jnp.cumsum(x, axis=-1)
    return conv(jnp.sort(x, axis=-1), v["b"])


def looped(v, images):
    """A scan, which has no rule."""
    x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
    x, _ = jax.lax.scan(lambda x, _: (conv(x, v["b"]), None), x, None, length=2)
    return conv(x, v["c"])


def vmapped(v, images):
    def one(image):
        x = conv(jnp.moveaxis(image, -1, 0)[None], v["a"], layout="NCHW")[0]
        x = jax.nn.relu(x + v["shift"][:, None, None])
        x = conv(x[None], v["b"], layout="NCHW")[0]
        return v["fc"] @ x.mean((1, 2))

    return jax.vmap(one)(images)


def dilated_1d(v, images):
    x = images.reshape(images.shape[0], -1, 3)
    numbers = ("NWC", "WIO", "NWC")
    x = jax.lax.conv_general_dilated(x, v["one"], (1,), "SAME", dimension_numbers=numbers)
    x = jax.nn.relu(x + v["shift"])
    options = {"rhs_dilation": (2,), "dimension_numbers": numbers}
    return jax.lax.conv_general_dilated(x, v["two"], (1,), "SAME", **options)


NETWORKS = {
    nchw: (
        {"a": (8, 3, 3, 3), "b": (6, 8, 3, 3), "c": (8, 6, 3, 3), "shift": (8,), "fc": (8, 5)},
        0,
    ),
    flattened: ({"a": (3, 3, 3, 8), "shift": (8,), "fc": (128, 5)}, -1),
    flattened_nchw: ({"a": (3, 3, 3, 8), "shift": (8,), "fc": (128, 5)}, -1),
    dense_block: (
        {"a": (3, 3, 3, 4), "shift": (4,), "b": (3, 3, 4, 4), "c": (3, 3, 8, 4), "fc": (12, 5)},
        -1,
    ),
    mobile: (
        {
            "a": (1, 1, 3, 8), "shift": (8,), "depthwise": (3, 3, 1, 8), "squeeze": (8, 3),
            "excite": (3, 8), "project": (1, 1, 8, 4),
        },
        -1,
    ),
    multiplied: (
        {"a": (1, 1, 3, 4), "shift": (4,), "depthwise": (3, 3, 1, 8), "project": (1, 1, 8, 4)},
        -1,
    ),
    grouped: (
        {"a": (1, 1, 3, 8), "shift": (8,), "grouped": (3, 3, 2, 12), "project": (1, 1, 12, 4)},
        -1,
    ),
    shuffled: ({"a": (3, 3, 3, 8), "shift": (8,), "b": (3, 3, 4, 4), "c": (1, 1, 5, 4)}, -1),
    group_normed: ({"a": (3, 3, 3, 8), "scale": (8,), "shift": (8,), "b": (3, 3, 8, 4)}, -1),
    u_net: (
        {
            "a": (3, 3, 3, 4), "shift": (4,), "b": (3, 3, 4, 4), "up": (2, 2, 4, 4),
            "c": (3, 3, 8, 3),
        },
        -1,
    ),
    padded: ({"a": (3, 3, 3, 6), "shift": (6,), "b": (3, 3, 6, 6), "c": (3, 3, 6, 4)}, -1),
    standardised: (
        {"a": (3, 3, 3, 6), "shift": (6,), "b": (3, 3, 6, 4), "scale": (1,)},
        -1,
    ),
    along_channels: ({"a": (3, 3, 3, 6), "shift": (6,), "b": (3, 3, 6, 4)}, -1),
    looped: ({"a": (3, 3, 3, 6), "shift": (6,), "b": (3, 3, 6, 6), "c": (3, 3, 6, 4)}, -1),
    vmapped: ({"a": (8, 3, 3, 3), "shift": (8,), "b": (4, 8, 3, 3), "fc": (5, 4)}, 0),
    dilated_1d: ({"one": (3, 3, 8), "shift": (8,), "two": (3, 8, 4)}, -1),
}  # fmt: skip
names = pytest.mark.parametrize("network", NETWORKS, ids=[f.__name__ for f in NETWORKS])


def test_a_shuffle_leaves_any_channels_out():
    def network(v, images):
        x = jax.nn.relu(conv(images, v["a"]) + v["shift"])
        n, h, w, c = x.shape
        return conv(x.reshape(n, h, w, 2, c // 2).swapaxes(3, 4).reshape(n, h, w, c), v["b"])

    variables = kernels(a=(3, 3, 3, 8), shift=(8,), b=(3, 3, 8, 4))
    masks = masks_without(variables, "a", [0, 2, 7])
    _, small = check_same(network, variables, masks, IMAGES)
    assert small["a"].shape == (3, 3, 3, 5)
    assert small["b"].shape == (3, 3, 5, 4)


@names
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_random_kernels(network, rate):
    shapes, axis = NETWORKS[network]
    variables = kernels(**shapes)
    axes = (-2, -1) if axis == -1 else (-4, -3)
    check_same(network, variables, random_masks(variables, rate, axes=axes), IMAGES)


@names
def test_dead_filters_go_and_their_shifts_are_carried(network):
    shapes, axis = NETWORKS[network]
    variables = kernels(**shapes)
    first = next(iter(shapes))
    masks = masks_without(variables, first, [0, 2], axis=axis)
    _, small = check_same(network, variables, masks, IMAGES)
    assert small[first].shape[axis] <= shapes[first][axis] - 2
    assert count(small) < count(variables)
