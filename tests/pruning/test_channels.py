"""Channels chosen, masked and dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import NNKGraph
from jnnk.measures import redundancy_curve
from jnnk.models import create
from jnnk.network import compact, read
from jnnk.pruning import (
    CHANNEL_CRITERIA,
    ChannelView,
    apply_masks,
    channel_masks,
    prunable_groups,
)
from jnnk.pruning._conv_leaves import conv_kernels


def _graph(supports):
    """A graph of one image per entry, from each channel's neighbours."""
    size = max(len(each) for each in supports)
    indices = np.full((len(supports), 1, size), -1, np.int32)
    for channel, each in enumerate(supports):
        indices[channel, 0, : len(each)] = each
    weights = jnp.asarray(indices >= 0, jnp.float32)
    nothing = jnp.zeros(weights.shape[:2])
    return NNKGraph(
        jnp.asarray(indices), weights, nothing, nothing, nothing == 0, weights, nothing > 0
    )


def logits_of(model):
    return lambda variables, images: model.apply(variables, images)[0]


def network_of(model):
    images = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return read(logits_of(model), variables, images)


def _view(**fields):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    return ChannelView(
        **{"kernel": kernel, "scale": None, "graph": None, "key": jax.random.key(0)} | fields
    )


def test_redundancy_keeps_what_the_kept_do_not_cover():
    graph = _graph([[1, 2], [1, 2, 3], [4, 5], [1]])
    scores = np.asarray(CHANNEL_CRITERIA["redundancy"](_view(graph=graph)))
    assert scores.tolist() == [2, 4, 3, 1]
    # A weight can bring a channel forward, coverage stays that of the neighbours.
    curve = redundancy_curve(graph, weights=np.float32([1, 1, 1, 9]))
    assert curve.order.tolist()[:2] == [3, 1] or curve.order.tolist()[:2] == [3, 2]
    np.testing.assert_allclose(curve.coverage[0], 1 / 5)


def test_scores_of_the_others():
    view = _view(scale=np.float32([1, -3, 2, 0]))
    kernel = np.asarray(view.kernel, np.float64)
    expected = np.abs(kernel).sum((0, 1, 2))
    np.testing.assert_allclose(CHANNEL_CRITERIA["l1_norm"](view), expected, rtol=1e-5)
    assert CHANNEL_CRITERIA["bn_scale"](view).tolist() == [1, 3, 2, 0]
    radii = np.abs(np.linalg.eigvals(np.moveaxis(kernel, (0, 1), (2, 3)))).max(-1).sum(0)
    np.testing.assert_allclose(CHANNEL_CRITERIA["spectral_radius"](view), radii, rtol=1e-4)
    filters = kernel.reshape(-1, 4).T
    distances = np.linalg.norm(filters[:, None] - filters, axis=-1).sum(1)
    np.testing.assert_allclose(CHANNEL_CRITERIA["geometric_median"](view), distances, rtol=1e-4)
    draws = [CHANNEL_CRITERIA["random"](_view(key=jax.random.key(n))).tolist() for n in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("criterion", ["bn_scale", "random"])
def test_masked_channels_are_dropped_whole(criterion):
    model = create("resnet8", num_classes=3)
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    params = variables["params"]
    for block in ("layer1_0", "layer2_0", "layer3_0"):  # shifts that ReLU does not silence
        norm = params[block]["bn1"]
        norm["bias"] = np.random.default_rng(2).uniform(0.1, 1, norm["bias"].shape).astype("f4")
        norm["scale"] = norm["bias"]
    masks = channel_masks(
        params, network_of(model), criterion, keep_rate=0.25, key=jax.random.key(3)
    )
    inner = list(prunable_groups(network_of(model)))
    assert inner == ["layer1_0/conv1", "layer2_0/conv1", "layer3_0/conv1"]
    keep = {path: np.asarray(leaf[0, 0]) != 0 for path, leaf in conv_kernels(masks).items()}
    for conv, width in zip(inner, (4, 8, 16), strict=True):
        kept = keep[f"{conv}/kernel"]
        assert (kept == kept[0]).all() and kept[0].sum() == width
        readers = keep[f"{conv[:-1]}2/kernel"]
        np.testing.assert_array_equal(readers, np.repeat(kept[0][:, None], readers.shape[1], 1))
        if criterion == "bn_scale":
            scale = params[conv.split("/")[0]]["bn1"]["scale"]
            assert scale[kept[0]].min() >= scale[~kept[0]].max()
    logits = logits_of(model)
    small, small_variables = compact(logits, variables, masks, images)
    shapes = [
        small_variables["params"][conv.split("/")[0]]["conv1"]["kernel"].shape for conv in inner
    ]
    assert [shape[3] for shape in shapes] == [4, 8, 16]
    masked = {**variables, "params": apply_masks(params, masks)}
    np.testing.assert_allclose(small(small_variables, images), logits(masked, images), atol=1e-4)


WIDTHS = {"layer1_0/conv1": 16, "layer2_0/conv1": 32, "layer3_0/conv1": 64}


@pytest.fixture(scope="module")
def resnet8():
    model = create("resnet8", num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes["params"])
    return model, params


def kept_of(model, params, criterion="l1_norm", **options):
    """The numbers of channels kept of the inner convs, and which."""
    masks = channel_masks(params, network_of(model), criterion, **options)
    keep = {path: np.asarray(leaf[0, 0]) != 0 for path, leaf in conv_kernels(masks).items()}
    chosen = {conv: keep[f"{conv}/kernel"][0] for conv in WIDTHS}
    for conv, channels in chosen.items():
        np.testing.assert_array_equal(keep[f"{conv[:-1]}2/kernel"][:, 0], channels)
    return {conv: int(channels.sum()) for conv, channels in chosen.items()}, chosen


@pytest.mark.parametrize(
    ("rate", "round_to", "expected"),
    [
        (0.9, 1, (15, 29, 58)),  # 16 - int(1.6), 32 - int(3.2), 64 - int(6.4)
        (0.9, 8, (16, 32, 64)),
        (0.7, 8, (16, 24, 48)),  # 12, 23, 45 rounded up
        (0.5, 8, (8, 16, 32)),
        (0.01, 3, (3, 3, 3)),  # one kept
        (0.0, 8, (0, 0, 0)),
        (0.5, 100, (16, 32, 64)),
    ],
)
def test_numbers_kept_are_round(resnet8, rate, round_to, expected):
    kept, _ = kept_of(*resnet8, keep_rate=rate, round_to=round_to)
    assert kept == dict(zip(WIDTHS, expected, strict=True))


def test_layers_have_their_own_rates(resnet8):
    kept, _ = kept_of(*resnet8, keep_rate={"layer1*": 0.5, "layer3*": 0.25})
    assert tuple(kept.values()) == (8, 32, 16)
    kept, _ = kept_of(*resnet8, keep_rate={"layer1*": 0.75, "*": 0.5, "layer2*": 0.0}, round_to=5)
    assert tuple(kept.values()) == (15, 20, 35)  # 12, 16, 32 rounded up; the first match counts
    with pytest.raises(
        ValueError, match=r"patterns of prunable convs \(layer1_0.*, got 'layer9\*'"
    ):
        kept_of(*resnet8, keep_rate={"layer9*": 0.5})
    with pytest.raises(ValueError, match="keep_rate: expected a share"):
        kept_of(*resnet8, keep_rate={"layer1*": 1.5})
    for wrong in (0, -8, 2.0, True):
        with pytest.raises(ValueError, match="round_to: expected a whole number"):
            kept_of(*resnet8, keep_rate=0.5, round_to=wrong)


def test_scores_in_place_of_a_criterion(resnet8):
    rng = np.random.default_rng(3)
    scores = {f"{conv}/kernel": rng.uniform(size=width) for conv, width in WIDTHS.items()}
    _, chosen = kept_of(*resnet8, criterion=scores, keep_rate=0.25)
    for conv, channels in chosen.items():
        given = scores[f"{conv}/kernel"]
        np.testing.assert_array_equal(channels, given >= np.sort(given)[len(given) * 3 // 4])
    for wrong in ({}, {**scores, "layer2_0/conv1/kernel": np.ones(5)}):
        with pytest.raises(ValueError, match=r"criterion: expected scores \(\d+,\) of 'layer"):
            kept_of(*resnet8, criterion=wrong, keep_rate=0.25)


def test_misuse_raises():
    model = create("resnet8", num_classes=3)
    params = {}
    with pytest.raises(ValueError, match="expected one of redundancy"):
        channel_masks(params, network_of(model), "l2", keep_rate=0.5)
    with pytest.raises(ValueError, match="keep_rate"):
        channel_masks(params, network_of(model), "l1_norm", keep_rate=1.5)
    with pytest.raises(ValueError, match="graphs"):
        CHANNEL_CRITERIA["redundancy"](_view())
    with pytest.raises(ValueError, match="BatchNorm"):
        CHANNEL_CRITERIA["bn_scale"](_view())
    with pytest.raises(ValueError, match="key"):
        CHANNEL_CRITERIA["random"](_view(key=None))


def test_streams_are_scored_by_all_that_make_them():
    """A channel of a stream scores the sum of its filters' L1 norms, and goes everywhere."""
    model = create("resnet8", num_classes=3, shortcut="B")
    images = np.zeros((1, 8, 8, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes["params"])
    network = network_of(model)
    groups = prunable_groups(network, streams=True)
    assert list(groups) == [
        "conv1", "layer1_0/conv1", "layer2_0/downsample_conv", "layer2_0/conv1",
        "layer3_0/downsample_conv", "layer3_0/conv1",
    ]  # fmt: skip
    masks = channel_masks(params, network, "l1_norm", keep_rate=0.5, streams=True)
    block = params["layer2_0"]
    norms = sum(
        np.abs(block[name]["kernel"]).sum((0, 1, 2)) for name in ("downsample_conv", "conv2")
    )
    kept = norms >= np.sort(norms)[16]
    found = masks["layer2_0"]
    np.testing.assert_array_equal(found["conv2"]["kernel"][0, 0].any(0), kept)
    np.testing.assert_array_equal(found["downsample_conv"]["kernel"][0, 0].any(0), kept)
    np.testing.assert_array_equal(masks["layer3_0"]["conv1"]["kernel"][0, 0].any(1), kept)
    assert masks["conv1"]["kernel"].sum() == 3 * 8


def test_any_layout_and_library():
    """Filters first, and a norm whose scale is found by what is done with it."""

    def apply_fn(variables, images):
        maps = jax.lax.conv(images, variables["a"], (1, 1), "SAME")
        maps = jax.nn.relu(
            maps * variables["gain"][:, None, None] + variables["shift"][:, None, None]
        )
        return jax.lax.conv(maps, variables["b"], (1, 1), "SAME").mean((2, 3)) @ variables["head"]

    rng = np.random.default_rng(1)
    variables = {
        "a": rng.normal(size=(6, 3, 3, 3)), "gain": np.array([1, -5, 2, 0.1, 3, -4]),
        "shift": rng.normal(size=6), "b": rng.normal(size=(4, 6, 3, 3)),
        "head": rng.normal(size=(4, 2)),
    }  # fmt: skip
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)
    images = jnp.asarray(rng.normal(size=(2, 3, 5, 5)), jnp.float32)
    network = read(apply_fn, variables, images)
    masks = channel_masks(variables, network, "bn_scale", keep_rate={"a": 0.5})
    kept = np.isin(np.arange(6), [1, 4, 5])
    np.testing.assert_array_equal(masks["a"][:, 0, 0, 0], kept)
    np.testing.assert_array_equal(masks["b"][0, :, 0, 0], kept)
    small, small_variables = compact(apply_fn, variables, masks, images)
    assert small_variables["a"].shape[0] == small_variables["b"].shape[1] == 3
    expected = apply_fn(apply_masks(variables, masks), images)
    np.testing.assert_allclose(small(small_variables, images), expected, rtol=1e-4, atol=1e-4)
