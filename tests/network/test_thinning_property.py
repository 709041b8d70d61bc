"""Thinning of random small architectures under random masks."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from network.thinned import check_same, random_like

IMAGES = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
WIDTH = 4


def conv(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


def same(x, v, name):
    return conv(x, v[f"{name}.kernel"], window_strides=(1, 1), padding="SAME") + v[f"{name}.shift"]


def residual(x, v, name):
    return x + same(jax.nn.relu(same(x, v, f"{name}.one")), v, f"{name}.two")


def joined(x, v, name):
    both = jnp.concatenate([same(x, v, f"{name}.one"), x], axis=-1)
    return conv(both, v[f"{name}.join"], window_strides=(1, 1), padding="VALID")


def depthwise(x, v, name):
    options = {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": WIDTH}
    return conv(x, v[f"{name}.depthwise"], **options) + v[f"{name}.shift"]


def gated(x, v, name):
    gate = jax.nn.relu(x.mean((1, 2)) @ v[f"{name}.squeeze"])
    return x * jax.nn.sigmoid(gate @ v[f"{name}.excite"])[:, None, None]


def scaled(x, v, name):
    return (x - v[f"{name}.mean"]) * v[f"{name}.scale"] + v[f"{name}.shift"]


def pooled(x, v, name):
    del v, name
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def shuffled(x, v, name):
    del v, name
    n, h, w, _ = x.shape
    return jnp.moveaxis(x.reshape(n, h, w, 2, 2), 3, 4).reshape(n, h, w, WIDTH)[..., ::-1]


def normed(x, v, name):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-2) * v[f"{name}.scale"]


def activated(x, v, name):
    del v, name
    return jax.nn.relu(x)


def smoothed(x, v, name):
    del v, name
    return jax.nn.softplus(x) - 0.5


_CONV, _VECTOR = (3, 3, WIDTH, WIDTH), (WIDTH,)
_PARTS = {"kernel": _CONV, "shift": _VECTOR}
BLOCKS = {
    same: _PARTS,
    residual: {f"{n}.{part}": s for n in ("one", "two") for part, s in _PARTS.items()},
    joined: {"one.kernel": _CONV, "one.shift": _VECTOR, "join": (1, 1, 2 * WIDTH, WIDTH)},
    depthwise: {"depthwise": (3, 3, 1, WIDTH), "shift": _VECTOR},
    gated: {"squeeze": (WIDTH, 2), "excite": (2, WIDTH)},
    scaled: {"mean": _VECTOR, "scale": _VECTOR, "shift": _VECTOR},
    pooled: {},
    shuffled: {},
    normed: {"scale": _VECTOR},
    activated: {},
    smoothed: {},
}  # fmt: skip
NAMES = {block.__name__: block for block in BLOCKS}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.integers(0, 2**16),
)
def test_random_architectures_under_random_masks(blocks, flattens, rate, seed):
    shapes = {"stem.kernel": (3, 3, 3, WIDTH), "stem.shift": _VECTOR}
    for number, block in enumerate(blocks):
        shapes |= {f"{number}.{name}": shape for name, shape in BLOCKS[NAMES[block]].items()}
    shapes["head"] = (36 * WIDTH if flattens else WIDTH, 3)
    variables = random_like({name: jnp.zeros(shape) for name, shape in shapes.items()}, seed)
    rng = np.random.default_rng(seed)

    def mask(leaf):
        """Single kernels, whole filters or whole inputs of a matrix; single entries of a vector."""
        shape = [size if axis >= leaf.ndim - 2 else 1 for axis, size in enumerate(leaf.shape)]
        if leaf.ndim > 1 and (whole := rng.integers(3)) < 2:
            shape[leaf.ndim - 2 + whole] = 1
        return (rng.random(shape) < (rate if leaf.ndim > 1 else 0.9)).astype(np.float32)

    def apply_fn(variables, images):
        x = same(images, variables, "stem")
        for number, block in enumerate(blocks):
            x = NAMES[block](x, variables, number)
        x = x.reshape(x.shape[0], -1) if flattens else x.max((1, 2))
        return x @ variables["head"]

    check_same(apply_fn, variables, jax.tree.map(mask, variables), IMAGES)
