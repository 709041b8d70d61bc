"""Models: published parameter counts, an oracle in numpy, training, dtypes, export, thinning."""

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
from jnnk.models.vector_conv import vector_conv

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
def test_every_model_gives_activations_in_order_and_says_what_reads_them(name):
    model = models.create(name, num_classes=7)
    variables = shapes(model)
    logits, activations = jax.eval_shape(
        jax.jit(model.apply), variables, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    )
    assert logits.shape == (2, 7)
    # jit sorts the keys of a plain dict; ours must come out in the order of the network.
    assert isinstance(activations, OrderedDict)
    infos = model.convs()
    assert list(activations) == [
        info.conv for info in infos if not info.conv.endswith("downsample_conv")
    ]
    params = flatten_dict(variables["params"], sep="/")
    kernels = {info.conv: params.pop(f"{info.conv}/kernel").shape for info in infos}
    assert [path for path in params if path.endswith("kernel")] == ["fc/kernel"]
    for info in infos:
        if info.conv.endswith("downsample_conv"):
            assert info.activation.startswith(info.conv.removesuffix("downsample_conv") + "conv")
        else:
            assert info.activation == info.conv
        filters = kernels[info.conv][-1]
        if info.norm is not None:
            assert params[f"{info.norm}/scale"].shape == (filters,)
        if info.conv in activations:
            assert activations[info.conv].shape[-1] == filters
        for reader in info.readers:
            if reader == "fc":
                assert params["fc/kernel"].shape[0] % filters == 0
            else:
                assert kernels[reader][2] == filters


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
    with pytest.raises(ValueError, match=r"resnet9.*known: resnet8, resnet20"):
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
    with pytest.raises(ValueError, match="at least 24x24 pixels, got 8x8"):
        shapes(models.create("convnet5", num_classes=10), (8, 8, 1))
    with pytest.raises(ValueError, match=r"expected \(N, H, W, C\)"):
        shapes(models.create("resnet8", num_classes=10), (8, 8))


# Thinning: the logits of a network whose dead parts were cut out by hand.


def sliced(flat, path, axis, keep):
    flat[path] = np.take(flat[path], keep, axis)


def fold(flat, info, removed, constants):
    """Hands on what removed channels still gave their readers: a kernel on ones, or a bias."""
    for reader in info.readers:
        kernel = flat[f"params/{reader}/kernel"]
        if reader == "fc":
            by_channel = kernel.reshape(-1, len(constants), kernel.shape[-1])
            total = np.einsum("c,pco->o", constants[removed], by_channel[:, removed])
            flat["params/fc/bias"] = flat["params/fc/bias"] + total
            kept = np.delete(by_channel, removed, 1)
            flat["params/fc/kernel"] = kept.reshape(-1, kernel.shape[-1])
        else:
            ones = np.einsum("c,hwco->hwo", constants[removed], kernel[:, :, removed])
            flat[f"params/{reader}/kernel"] = np.delete(kernel, removed, 2)
            flat[f"params/{reader}_constant/kernel"] = ones[:, :, None]


def norm_of_zero(flat, norm):
    """What BatchNorm makes of a filter that is all zero."""
    mean, var = (flat[f"batch_stats/{norm}/{leaf}"] for leaf in ("mean", "var"))
    scale, bias = (flat[f"params/{norm}/{leaf}"] for leaf in ("scale", "bias"))
    return bias - mean * scale / np.sqrt(var + 1e-5)


@pytest.mark.parametrize(
    ("channels", "size", "padding", "width"),
    [
        ((8, 16), 3, 1, 8),
        ((16, 4), 5, 0, 8),
        ((3, 2), 1, 0, 6),
        ((5, 9), 3, 1, 7),
        ((17, 30), 3, 1, 5),
    ],
)
def test_fitted_convs_are_convs(channels, size, padding, width):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 6, width, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)
    options = {
        "window_strides": (1, 1),
        "padding": ((padding, padding),) * 2,
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }

    def loss(function, images, kernel):
        return jnp.sum(jnp.sin(function(images, kernel, **options)))

    for fitted, plain in zip(
        *(
            [function(images, kernel, **options),
             *jax.jit(jax.grad(partial(loss, function), (0, 1)))(images, kernel)]
            for function in (vector_conv, jax.lax.conv_general_dilated)
        ),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(fitted, plain, rtol=1e-4, atol=1e-4)


def test_convs_are_fitted_on_a_cpu_alone():
    conv = partial(
        vector_conv,
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    shapes = (jax.ShapeDtypeStruct((1, 8, 8, 8), jnp.float32),
              jax.ShapeDtypeStruct((3, 3, 8, 16), jnp.float32))  # fmt: skip
    for platform, packed in (("cpu", True), ("cuda", False), ("tpu", False)):
        text = jax.export.export(jax.jit(conv), platforms=[platform])(*shapes).mlir_module()
        assert ("tensor<3x4x8x32xf32>" in text) == packed


@pytest.mark.parametrize(
    ("name", "shortcut"), [("resnet8", "A"), ("resnet8", "B"), ("convnet6", "A")]
)
def test_a_thinned_network_gives_the_logits_of_the_masked_one(name, shortcut):
    model = models.create(name, num_classes=5, shortcut=shortcut)
    images = RNG.normal(size=(3, 16, 16, 3)).astype(np.float32)
    flat = flatten_dict(random_variables(model, images.shape[1:]), sep="/")
    masked = dict(flat)
    thin = {}
    for info in model.convs():
        filters = flat[f"params/{info.conv}/kernel"].shape[-1]
        dead = np.sort(RNG.choice(filters, filters // 3, replace=False))
        kernel = masked[f"params/{info.conv}/kernel"].copy()
        kernel[..., dead] = 0
        fed = info.conv in {reader for other in model.convs() for reader in other.readers}
        if not fed and info.conv not in ("conv0", "conv1"):
            unread = np.arange(0, kernel.shape[2], 4)
            kernel[:, :, unread] = 0
            reads = np.setdiff1d(np.arange(kernel.shape[2]), unread)
            thin[info.conv] = {"reads": reads}
        masked[f"params/{info.conv}/kernel"] = kernel
        thin.setdefault(info.conv, {})["constant"] = fed
        if info.readers:
            thin[info.conv]["width"] = filters - len(dead)
        else:
            thin[info.conv]["writes"] = np.setdiff1d(np.arange(filters), dead)

    cut = dict(masked)
    for info in model.convs():
        full = masked[f"params/{info.conv}/kernel"]
        dead = np.flatnonzero(~full.any(axis=(0, 1, 2)))
        keep = np.flatnonzero(full.any(axis=(0, 1, 2)))
        if info.norm is not None:
            constants = norm_of_zero(cut, info.norm)
            for leaf in ("params/{}/scale", "params/{}/bias", "batch_stats/{}/mean"):
                sliced(cut, leaf.format(info.norm), 0, keep)
            sliced(cut, f"batch_stats/{info.norm}/var", 0, keep)
        else:
            constants = cut[f"params/{info.conv}/bias"]
            sliced(cut, f"params/{info.conv}/bias", 0, keep)
        for kernel in (f"params/{info.conv}/kernel", f"params/{info.conv}_constant/kernel"):
            if kernel in cut:
                sliced(cut, kernel, 3, keep)
        if "reads" in thin[info.conv]:
            sliced(cut, f"params/{info.conv}/kernel", 2, thin[info.conv]["reads"])
        if info.readers:
            fold(cut, info, dead, np.maximum(constants, 0))
        else:
            cut[f"params/{info.conv}_rest"] = constants[dead]
    thinned = model.with_thin(thin)
    cut = unflatten_dict(cut, sep="/")
    expected_shapes = jax.tree.map(lambda leaf: leaf.shape, shapes(thinned, (16, 16, 3)))
    assert jax.tree.map(lambda leaf: leaf.shape, cut) == expected_shapes
    expected = jax.jit(model.apply)(unflatten_dict(masked, sep="/"), images)[0]
    logits, _ = jax.jit(thinned.apply)(cut, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (cut, flat)]
    assert sizes[0] < 0.7 * sizes[1]
    assert hash(thinned) == hash(model.with_thin(thin))


def test_what_thinning_refuses():
    model = models.create("resnet8", num_classes=5)
    with pytest.raises(ValueError, match="no conv 'layer9_0/conv1'"):
        model.with_thin({"layer9_0/conv1": {"width": 1}})
    with pytest.raises(ValueError, match="feeds a residual stream"):
        model.with_thin({"layer1_0/conv2": {"width": 1}})
    with pytest.raises(ValueError, match="feeds no residual stream"):
        model.with_thin({"layer1_0/conv1": {"writes": (0,)}})
    with pytest.raises(ValueError, match="reads another conv"):
        model.with_thin({"layer1_0/conv2": {"reads": (0,)}})
    with pytest.raises(ValueError, match="expected increasing channels"):
        model.with_thin({"layer1_0/conv2": {"writes": (1, 1)}})
    with pytest.raises(TypeError, match="depth"):
        model.with_thin({"layer1_0/conv2": {"depth": 3}})
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        model.with_thin({"layer1_0/conv1": {"width": 0}})
    with pytest.raises(ValueError, match="writes: expected at least one channel"):
        model.with_thin({"layer1_0/conv2": {"writes": ()}})
