"""Plain functions of arrays: (N, C, H, W), a scan by hand, kernels that are made of leaves."""

import jax
import jax.numpy as jnp
from network.rows import ListedConv, Row, random_images, random_like

from jnnk.network._as_function import as_function

CHANNELS_FIRST = random_images(2, 3, 8, 8)
IMAGES = random_images(2, 8, 8, 3)


def arrays(**shapes):
    """Random arrays of these shapes."""
    return random_like(
        {name: jax.ShapeDtypeStruct(each, "float32") for name, each in shapes.items()}
    )


def conv(x, kernel, layout, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=layout
    )


NCHW = ("NCHW", "OIHW", "NCHW")
NHWC = ("NHWC", "HWIO", "NHWC")


def nchw_variables():
    return {
        "first": arrays(w=(4, 3, 3, 3), b=(4,)),
        "second": arrays(w=(6, 4, 3, 3), b=(6,)),
        "norm": arrays(scale=(6,), shift=(6,), mean=(6,), var=(6,)),
        "dense": arrays(matrix=(6 * 4 * 4, 5)),
    }


def nchw_maps(variables, images):
    first, second = variables["first"], variables["second"]
    norm = {name: each[:, None, None] for name, each in variables["norm"].items()}
    x = jax.nn.relu(conv(images, first["w"], NCHW) + first["b"][:, None, None])
    y = conv(x, second["w"], NCHW, stride=2) + second["b"][:, None, None]
    y = (y - norm["mean"]) * jax.lax.rsqrt(norm["var"] + 1e-5) * norm["scale"] + norm["shift"]
    return x, jax.nn.relu(y)


def nchw(variables, images):
    _, x = nchw_maps(variables, images)
    return x.reshape(len(x), -1) @ variables["dense"]["matrix"]


def nchw_activations(variables, images):
    first, second = (jnp.moveaxis(x, 1, -1) for x in nchw_maps(variables, images))
    return {"first": first, "second": second}


def scan_variables():
    return {"stem": arrays(w=(3, 3, 3, 4)), "blocks": arrays(w=(3, 3, 3, 4, 4), b=(3, 4))}


def scan_step(x, block):
    """One step of a post-activation residual network."""
    return jax.nn.relu(x + conv(x, block["w"], NHWC) + block["b"])


def scan(variables, images):
    x = jax.nn.relu(conv(images, variables["stem"]["w"], NHWC))
    x, _ = jax.lax.scan(lambda x, block: (scan_step(x, block), None), x, variables["blocks"])
    return x.mean((1, 2))


def scan_activations(variables, images):
    stem = x = jax.nn.relu(conv(images, variables["stem"]["w"], NHWC))
    steps = []
    for number in range(3):
        x = scan_step(x, jax.tree.map(lambda leaf, at=number: leaf[at], variables["blocks"]))
        steps.append(x)
    return {"stem": stem, "blocks": jnp.stack(steps)}


def made_variables():
    return {
        "half": {"kernel": random_like(jax.ShapeDtypeStruct((3, 3, 3, 4), "bfloat16"))},
        "standard": arrays(kernel=(3, 3, 4, 6), gain=(6,)),
        "torch": arrays(weight=(5, 6, 3, 3), bias=(5,)),
    }


@jax.custom_vjp
def bounded(x):
    """A nonlinearity with a derivative of its own."""
    return jnp.clip(x, 0.0, 2.0)


bounded.defvjp(lambda x: (bounded(x), None), lambda _, gradient: (gradient,))


@jax.jit
def standardised(kernel, gain):
    """Weight standardisation (Qiao et al. 2019): each filter has mean 0 and variance 1."""
    mean = kernel.mean((0, 1, 2), keepdims=True)
    return gain * (kernel - mean) / (kernel.std((0, 1, 2), keepdims=True) + 1e-5) / 6.0


def made_maps(variables, images):
    half, standard, torch = variables["half"], variables["standard"], variables["torch"]
    x = bounded(conv(images, half["kernel"].astype("float32"), NHWC))
    y = bounded(conv(x, standardised(standard["kernel"], standard["gain"]), NHWC))
    z = conv(y, torch["weight"].transpose(2, 3, 1, 0), NHWC, stride=2) + torch["bias"]
    return {"half": x, "standard": y, "torch": bounded(z)}


def made(variables, images):
    return made_maps(variables, images)["torch"].mean((1, 2))


ROWS = (
    Row(
        "plain_nchw",
        lambda: as_function(nchw, nchw_variables()),
        CHANNELS_FIRST,
        (
            ListedConv("first", (4, 3, 3, 3), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("second", (6, 4, 3, 3), 1, (4, 4, 6), 4 * 4 * 9 * 4 * 6),
        ),
        nchw_activations,
    ),
    Row(
        "plain_scan",
        lambda: as_function(scan, scan_variables()),
        IMAGES,
        (
            ListedConv("stem", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("blocks", (3, 3, 3, 4, 4), 1, (8, 8, 4), 3 * 8 * 8 * 9 * 4 * 4, steps=3),
        ),
        scan_activations,
    ),
    Row(
        "plain_made_kernels",
        lambda: as_function(made, made_variables()),
        IMAGES,
        (
            ListedConv("half", (3, 3, 3, 4), 1, (8, 8, 4), 8 * 8 * 9 * 3 * 4),
            ListedConv("standard", (3, 3, 4, 6), 1, (8, 8, 6), 8 * 8 * 9 * 4 * 6),
            ListedConv("torch", (5, 6, 3, 3), 1, (4, 4, 5), 4 * 4 * 9 * 6 * 5),
        ),
        made_maps,
    ),
)
