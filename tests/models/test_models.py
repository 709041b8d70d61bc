"""Models: published parameter counts, an oracle in numpy, training, dtypes, export."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict, unflatten_dict
from scipy.signal import correlate

from jnnk import models

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def shapes(model, image_shape=(32, 32, 3)):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(model.init, KEY, images)


def random_variables(model, image_shape, seed=0):
    """Variables with no special value anywhere: biases, means and variances are random too."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1] in ("scale", "var"):
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 10
        return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)

    flat = flatten_dict(shapes(model, image_shape))
    return unflatten_dict({path: draw(path, leaf) for path, leaf in flat.items()})


@pytest.mark.parametrize(
    ("name", "num_classes", "count"),
    [
        ("resnet20", 10, 269_722),
        ("resnet32", 10, 464_154),
        ("resnet44", 10, 658_586),
        ("resnet56", 10, 853_018),
        ("resnet110", 10, 1_727_962),
        ("resnet18", 1000, 11_689_512),
        ("resnet50", 1000, 25_557_032),
    ],
)
def test_parameter_counts_are_the_published_ones(name, num_classes, count):
    params = shapes(models.create(name, num_classes=num_classes))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_projection_shortcuts_add_two_convs_with_norm():
    params = [
        shapes(models.create("resnet20", num_classes=10, shortcut=shortcut))["params"]
        for shortcut in "AB"
    ]
    extra = flatten_dict(params[1], sep="/").keys() - flatten_dict(params[0], sep="/").keys()
    assert sorted(extra) == [
        f"layer{stage}_0/downsample_{leaf}"
        for stage in (2, 3)
        for leaf in ("bn/bias", "bn/scale", "conv/kernel")
    ]


def test_parameter_paths_are_stable():
    params = flatten_dict(shapes(models.create("resnet8", num_classes=10))["params"], sep="/")
    block = ["bn1/bias", "bn1/scale", "bn2/bias", "bn2/scale", "conv1/kernel", "conv2/kernel"]
    assert sorted(params) == [
        *("bn1/bias", "bn1/scale", "conv1/kernel", "fc/bias", "fc/kernel"),
        *(f"layer{stage}_0/{leaf}" for stage in (1, 2, 3) for leaf in block),
    ]
    assert params["conv1/kernel"].shape == (3, 3, 3, 16)
    params = flatten_dict(shapes(models.create("convnet5", num_classes=2))["params"], sep="/")
    assert {path: leaf.shape for path, leaf in params.items() if path.endswith("kernel")} == {
        "conv0/kernel": (5, 5, 3, 5),
        "conv1/kernel": (5, 5, 5, 5),
        "conv2/kernel": (5, 5, 5, 5),
        "conv3/kernel": (3, 3, 5, 5),
        "fc/kernel": (3 * 3 * 5, 2),
    }


@pytest.mark.parametrize("name", models.names())
def test_every_model_gives_the_activations_of_its_convs_in_order(name):
    model = models.create(name, num_classes=7)
    variables = shapes(model)
    logits, activations = jax.eval_shape(
        jax.jit(model.apply), variables, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    )
    assert logits.shape == (2, 7)
    # jit sorts the keys of a plain dict; ours must come out in the order of the network.
    assert isinstance(activations, OrderedDict)
    params = flatten_dict(variables["params"], sep="/")
    kernels = {
        path.removesuffix("/kernel"): leaf.shape for path, leaf in params.items() if leaf.ndim == 4
    }
    kernels = {path: shape for path, shape in kernels.items() if "downsample" not in path}
    assert set(activations) == set(kernels)
    for layer, shape in kernels.items():
        assert activations[layer].shape[-1] == shape[-1]


@pytest.mark.parametrize(
    ("name", "image_shape", "options"),
    [
        ("resnet8", (8, 8, 1), {}),
        ("resnet8", (7, 5, 1), {"shortcut": "B"}),
        ("resnet18", (64, 64, 3), {"stem": "small"}),
        ("resnet50", (8, 8, 1), {}),
        ("convnet6", (8, 8, 1), {"channels": 4}),
        ("convnet5", (24, 28, 1), {}),
    ],
)
def test_images_of_other_sizes(name, image_shape, options):
    model = models.create(name, num_classes=10, **options)
    logits, activations = jax.eval_shape(
        model.apply,
        shapes(model, image_shape),
        jax.ShapeDtypeStruct((2, *image_shape), jnp.float32),
    )
    assert logits.shape == (2, 10)
    assert all(0 not in activation.shape for activation in activations.values())


# An oracle in float64 numpy, written from the papers' description and not from Flax.


def numpy_conv(x, kernel, stride):
    size = kernel.shape[0]
    x = np.pad(x, [(0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)])
    maps = [
        correlate(image, kernel[..., filter], "valid")[::stride, ::stride, 0]
        for image in x
        for filter in range(kernel.shape[-1])
    ]
    return np.moveaxis(np.reshape(maps, (len(x), -1, *maps[0].shape)), 1, -1)


def numpy_resnet(variables, x, *, bottleneck, shortcut, imagenet):
    flat = {
        path: np.asarray(leaf, np.float64)
        for tree in variables.values()
        for path, leaf in flatten_dict(tree, sep="/").items()
    }

    def conv_norm(x, conv, norm, stride):
        x = numpy_conv(x, flat[f"{conv}/kernel"], stride)
        x = (x - flat[f"{norm}/mean"]) / np.sqrt(flat[f"{norm}/var"] + 1e-5)
        return x * flat[f"{norm}/scale"] + flat[f"{norm}/bias"]

    x = np.maximum(conv_norm(x, "conv1", "bn1", 2 if imagenet else 1), 0)
    if imagenet:
        x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])  # not negative: zeros never win
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        x = windows.max(axis=(-1, -2))[:, ::2, ::2]
    for stage in (1, 2):
        block = f"layer{stage}_0"
        strides = [1, stage, 1] if bottleneck else [stage, 1]
        out = x
        for number, stride in enumerate(strides, 1):
            out = conv_norm(out, f"{block}/conv{number}", f"{block}/bn{number}", stride)
            out = np.maximum(out, 0) if number < len(strides) else out
        if out.shape != x.shape and shortcut == "A":
            new = out.shape[-1] - x.shape[-1]
            x = np.pad(x[:, ::stage, ::stage], [(0, 0)] * 3 + [(new // 2, new - new // 2)])
        elif out.shape != x.shape:
            x = conv_norm(x, f"{block}/downsample_conv", f"{block}/downsample_bn", stage)
        x = np.maximum(out + x, 0)
    return x.mean(axis=(1, 2)) @ flat["fc/kernel"] + flat["fc/bias"]


@pytest.mark.parametrize(
    ("bottleneck", "shortcut", "stem"),
    [(False, "A", "small"), (False, "B", "small"), (True, "B", "imagenet")],
)
def test_resnets_equal_a_numpy_oracle(bottleneck, shortcut, stem):
    model = models.ResNet(
        num_classes=3,
        stage_sizes=(1, 1),
        stage_widths=(4, 6),
        bottleneck=bottleneck,
        shortcut=shortcut,
        stem=stem,
    )
    # An odd size tells symmetric padding from Flax's SAME, and so does an even one.
    for size in (13, 12):
        images = RNG.normal(size=(2, size, size + 2, 3)).astype(np.float32)
        variables = random_variables(model, images.shape[1:])
        logits, _ = jax.jit(model.apply)(variables, images)
        expected = numpy_resnet(
            variables,
            images,
            bottleneck=bottleneck,
            shortcut=shortcut,
            imagenet=stem == "imagenet",
        )
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_training_uses_the_batch_and_updates_the_running_statistics():
    model = models.create("resnet8", num_classes=10)
    images = RNG.normal(2, 3, size=(16, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, (8, 8, 1))
    apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
    (logits, activations), updates = apply(variables, images, train=True, mutable=("batch_stats",))
    before, after = variables["batch_stats"]["bn1"], updates["batch_stats"]["bn1"]
    conv = numpy_conv(
        images.astype(np.float64), np.float64(variables["params"]["conv1"]["kernel"]), 1
    )
    mean, var = conv.mean(axis=(0, 1, 2)), conv.var(axis=(0, 1, 2))
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * var, rtol=1e-4)
    norm = variables["params"]["bn1"]
    expected = (conv - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(activations["conv1"], np.maximum(expected, 0), atol=1e-4)
    assert float(jnp.abs(logits - apply(variables, images)[0]).max()) > 1e-2


def test_initial_kernels_are_he_normal_and_independent():
    model = models.ResNet(num_classes=10, stage_sizes=(1,), stage_widths=(16,))
    images = jnp.zeros((1, 8, 8, 1))
    params = flatten_dict(jax.jit(model.init)(KEY, images)["params"], sep="/")
    kernels = {path: np.asarray(leaf) for path, leaf in params.items() if leaf.ndim > 1}
    for kernel in kernels.values():
        spread = kernel.std() * np.sqrt(np.prod(kernel.shape[:-1]) / 2)
        assert abs(spread - 1) < 4 / np.sqrt(kernel.size)
    first, second = (kernels[f"layer1_0/conv{number}/kernel"].ravel() for number in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    again = jax.jit(model.init)(jax.random.key(1), images)["params"]["conv1"]["kernel"]
    assert not np.allclose(again, kernels["conv1/kernel"])


def test_dropout_needs_its_key_and_acts_only_in_training():
    # One layer, because every drawn mask takes half a second to compile.
    options = {"num_classes": 10, "channels": 4, "layers": models.convnet.FIVE[3:]}
    model = models.ConvNet(dropout=0.5, **options)
    images = RNG.normal(size=(4, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, (8, 8, 1))
    assert set(variables) == {"params"}
    apply = jax.jit(model.apply, static_argnames="train")
    still, _ = apply(variables, images)
    plain = jax.jit(partial(models.ConvNet(**options).apply, train=True))
    np.testing.assert_allclose(still, plain(variables, images)[0], rtol=1e-6)
    with pytest.raises(InvalidRngError, match="dropout"):
        apply(variables, images, train=True)
    first, second = (
        apply(variables, images, train=True, rngs={"dropout": jax.random.key(seed)})[0]
        for seed in (0, 1)
    )
    assert not np.allclose(first, second)


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_statistics_and_logits_in_float32():
    options = {"num_classes": 10, "dtype": jnp.bfloat16}
    images = RNG.normal(size=(8, 16, 16, 3)).astype(np.float32)
    for name in ("resnet8", "convnet6"):
        model = models.create(name, **options)
        variables = random_variables(model, (16, 16, 3))
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes(model))} == {jnp.dtype("float32")}
        apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
        (logits, activations), updates = apply(
            variables, images, train=True, mutable=("batch_stats",)
        )
        assert logits.dtype == jnp.float32
        assert {value.dtype for value in activations.values()} == {jnp.dtype("bfloat16")}
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updates))
        full = jax.jit(models.create(name, num_classes=10).apply)(variables, images)[0]
        half = apply(variables, images)[0]
        assert float(jnp.abs(half - full).max()) < 0.05 * float(jnp.abs(full).max())


def test_the_gradient_is_the_slope_of_the_loss():
    model = models.create("resnet8", num_classes=10)
    images = RNG.normal(size=(4, 8, 8, 1)).astype(np.float32)
    variables = random_variables(model, (8, 8, 1))

    def loss(params):
        return jnp.mean(model.apply({**variables, "params": params}, images)[0] ** 2)

    params = variables["params"]
    direction = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), params)
    slope = jax.jit(lambda p, d: jax.jvp(loss, (p,), (d,))[1])(params, direction)
    gradient = jax.jit(jax.grad(loss))(params)
    product = jax.tree.map(lambda a, b: jnp.sum(a * b), gradient, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(product)), slope, rtol=1e-3)


def test_what_create_refuses():
    with pytest.raises(ValueError, match=r"name: expected one of resnet8, resnet20.* got .resnet9"):
        models.create("resnet9", num_classes=10)
    with pytest.raises(ValueError, match="resnet20 has no option 'stem'"):
        models.create("resnet20", num_classes=10, stem="small")
    with pytest.raises(ValueError, match="shortcut: expected 'A' or 'B', got 'C'"):
        models.create("resnet20", num_classes=10, shortcut="C")
    with pytest.raises(ValueError, match="stem: expected"):
        models.create("resnet18", num_classes=10, stem="large")
    for number in (0, True, 2.5, 2**20):
        with pytest.raises(ValueError, match="num_classes: expected a whole number of 1 or more"):
            models.create("resnet18", num_classes=number)


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match="at least 24x24 pixels for this network, got 8x8"):
        shapes(models.create("convnet5", num_classes=10), (8, 8, 1))
    with pytest.raises(ValueError, match=r"expected \(N, H, W, C\)"):
        shapes(models.create("resnet8", num_classes=10), (8, 8))
