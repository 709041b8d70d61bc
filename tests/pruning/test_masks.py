"""Selections against the authors' masks and by hand; masks applied, trained under, stored."""

import inspect
import math
import os
import subprocess
import sys
from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from jnnk import InputError
from jnnk.network import read
from jnnk.pruning import (
    Contribution,
    KeepRate,
    Threshold,
    apply_masks,
    authors_mode,
    cubic_schedule,
    keep_pruned_zero,
    kernel_scores,
    load_masks,
    make_masks,
    masks_from_layers,
    save_masks,
    summarize,
)
from jnnk.pruning._conv_leaves import conv_kernels
from jnnk.pruning._kept import contributes, keep_largest
from jnnk.pruning._selection import num_pruned

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "conv1": {"kernel": normal(3, 3, 3, 8), "bias": jnp.ones(8)},
        "block_0": {
            "conv1": {"kernel": 0.1 * normal(3, 3, 8, 10)},
            "down": {"kernel": normal(1, 1, 8, 10)},
        },
        "fc": {"kernel": normal(10, 4)},
    }


def kept(masks):
    return {path: np.asarray(m[0, 0], bool) for path, m in conv_kernels(masks).items()}


def shares(masks):
    return {path: keep.mean() for path, keep in kept(masks).items()}


@pytest.mark.thorough
def test_masks_of_the_authors(shared):
    kernels, reference = {}, {}
    for depth in ("20", "32"):
        tensors = load_file(shared / f"weights/resnet{depth}_cifar10.safetensors").items()
        kernels |= {f"{depth}/{k.removesuffix('.weight')}": t for k, t in tensors if t.ndim == 4}
        masks = np.load(shared / f"reference/kernel_masks_resnet{depth}.npz").items()
        reference |= {f"{depth}/{name}": packed for name, packed in masks}
    params = {k: {"kernel": jnp.asarray(t.transpose(2, 3, 1, 0))} for k, t in kernels.items()}
    for mode, number in sorted({tuple(name.split("|")[1:]) for name in reference}):
        value = float(number)
        # Their weight_contrib divides a mean by a sum, so its shares add up to 1/9.
        value = 9 * value if mode == "weight_contrib" else value
        criterion, selection = authors_mode(mode, value)
        ours = kept(make_masks(params, criterion=criterion, selection=selection))
        for layer, tensor in kernels.items():
            shape = tensor.shape[1::-1]
            packed = reference[f"{layer}|{mode}|{number}"]
            theirs = np.unpackbits(packed)[: shape[0] * shape[1]].reshape(shape).astype(bool)
            np.testing.assert_array_equal(ours[f"{layer}/kernel"], theirs)


def test_det_gram_rounds_as_the_authors_float32(shared):
    tensors = load_file(shared / "weights/resnet20_projection_dense_cifar10.safetensors").values()
    rng = np.random.default_rng(0)
    matrices = [t.reshape(-1, 3, 3) for t in tensors if t.ndim == 4 and t.shape[2] == 3]
    matrices += [rng.normal(0, scale, (6000, 3, 3)) for scale in (5e-4, 0.01, 0.2)]
    matrices = np.concatenate(matrices).astype(np.float32)
    gram = 0.0  # fused multiply-adds: a product and a sum, rounded to float32 once
    for row in np.moveaxis(matrices.astype(float), 1, 0):
        gram = (row[:, :, None] * row[:, None] + gram).astype(np.float32).astype(float)
    theirs = np.abs(np.linalg.det(gram))
    (ours,) = kernel_scores(jnp.asarray(np.moveaxis(matrices, 0, -1)[:, :, None]), "det_gram")
    for threshold in (1e-4, 1e-3, 1e-2, 5e-2):
        np.testing.assert_array_equal(ours >= threshold**6, theirs >= threshold**6)


def test_threshold_is_in_the_unit_of_the_weights(params):
    kernel = params["block_0"]["conv1"]["kernel"]
    for name, power in (("det", 3), ("det_gram", 6), ("min_eig", 1), ("weight", 1)):
        masks = make_masks(params, criterion=name, selection=Threshold(0.05))
        keep = kept(masks)["block_0/conv1/kernel"]
        np.testing.assert_array_equal(keep, kernel_scores(kernel, name) >= 0.05**power)
        assert 0 < keep.mean() < 1


def test_treedef_shapes_and_layers_left_whole(params):
    masks = make_masks(params, criterion="weight", keep_rate=0.5)
    assert jax.tree.structure(masks) == jax.tree.structure(params)
    assert masks["conv1"]["bias"].shape == masks["fc"]["kernel"].shape == ()
    assert masks["block_0"]["down"]["kernel"].shape == (1, 1, 8, 10)
    assert all(m.dtype == jnp.float32 for m in jax.tree.leaves(masks))
    assert set(np.unique(np.concatenate([np.ravel(m) for m in jax.tree.leaves(masks)]))) == {0, 1}
    assert shares(masks)["block_0/down/kernel"] == 1


def test_keep_rate_scopes(params):
    def by_det(keep_rate, scope):
        return make_masks(params, criterion="det", selection=KeepRate(keep_rate, scope))

    by_filter = kept(by_det(0.5, "filter"))
    assert (by_filter["block_0/conv1/kernel"].sum(axis=0) == 4).all()
    assert (by_filter["conv1/kernel"].sum(axis=0) == 2).all()  # int(3 * 0.5) pruned
    by_layer = shares(by_det(0.5, "layer"))
    assert by_layer["conv1/kernel"] == by_layer["block_0/conv1/kernel"] == 0.5
    # The second layer's weights are ten times smaller: over the network it goes first.
    network = shares(by_det(24 / 104, "network"))
    assert network["conv1/kernel"] > 0.9
    assert network["block_0/conv1/kernel"] < 0.05


def test_ranks_are_those_of_the_scores(params):
    keep = kept(make_masks(params, criterion="spectral_norm", selection=KeepRate(0.3, "layer")))
    for path, kernel in conv_kernels(params).items():
        if kernel.shape[0] == 3:
            scores = np.asarray(kernel_scores(kernel, "spectral_norm"))
            assert scores[keep[path]].min() > scores[~keep[path]].max()


def test_contribution(params):
    kernel = params["block_0"]["conv1"]["kernel"]
    scores = np.asarray(kernel_scores(kernel, "weight"))
    masks = make_masks(params, criterion="weight", selection=Contribution(0.12))
    keep = kept(masks)["block_0/conv1/kernel"]
    np.testing.assert_array_equal(keep, scores / scores.sum(axis=0) >= 0.12)
    assert authors_mode("weight_contrib", 0.12) == ("weight", Contribution(0.12, exact=True))


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.7, 1e-3])
@pytest.mark.parametrize("number", [*range(2, 52), 100, 511, 2048])
def test_of_n_equal_kernels_each_contributes_its_share(number, weight):
    scores = jnp.full((number, 2), weight)
    assert contributes(scores, 1 / number).all()
    assert not contributes(scores, 1.001 / number).any()


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_whole_filters_by_summed_score(params, scope):
    selection = KeepRate(0.4, scope, whole_filters=True)
    keep = kept(make_masks(params, criterion="weight", selection=selection))
    for path in ("conv1/kernel", "block_0/conv1/kernel"):
        assert (keep[path].all(axis=0) == keep[path].any(axis=0)).all()
    sums = {p: kernel_scores(k, "weight").sum(axis=0) for p, k in conv_kernels(params).items()}
    if scope == "layer":
        neurons = kept(make_masks(params, **authors_mode("weight_sorted_neurons", 0.4)._asdict()))
        for path, expected in (("conv1/kernel", 4), ("block_0/conv1/kernel", 4)):
            order = np.argsort(-sums[path])
            assert keep[path][0, order[:expected]].all()
            assert keep[path][0].sum() == expected  # int(8 * 0.6) and int(10 * 0.6) pruned
            np.testing.assert_array_equal(keep[path], neurons[path])
    else:
        both = np.concatenate([sums["block_0/conv1/kernel"], sums["conv1/kernel"]])
        chosen = np.concatenate([keep["block_0/conv1/kernel"][0], keep["conv1/kernel"][0]])
        assert chosen.sum() == 8
        assert both[chosen].min() > both[~chosen].max()


def test_random(params):
    one = make_masks(params, criterion="random", keep_rate=0.5, key=KEY)
    same = make_masks(params, criterion="random", keep_rate=0.5, key=KEY)
    other = make_masks(params, criterion="random", keep_rate=0.5, key=jax.random.key(1))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, same)))
    assert not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))
    neurons = kept(make_masks(params, **authors_mode("random_neurons", 0.5)._asdict(), key=KEY))
    assert neurons["conv1/kernel"].all(axis=0).sum() == 4


def test_include_exclude_pointwise(params):
    chosen = shares(make_masks(params, criterion="weight", keep_rate=0.0, include="block_*"))
    assert chosen == {"conv1/kernel": 1, "block_0/conv1/kernel": 0, "block_0/down/kernel": 1}
    rest = shares(
        make_masks(params, criterion="weight", keep_rate=0.0, exclude=["block_0/conv1/*"])
    )
    assert rest == {"conv1/kernel": 0, "block_0/conv1/kernel": 1, "block_0/down/kernel": 1}
    every = shares(make_masks(params, criterion="weight", keep_rate=0.0, pointwise=True))
    assert set(every.values()) == {0}


def test_earlier_masks_compose(params):
    first = make_masks(params, criterion="random", keep_rate=0.6, key=KEY)
    pruned = apply_masks(params, first)
    for selection in (KeepRate(0.3), KeepRate(0.3, "layer"), Threshold(0.05)):
        second = make_masks(pruned, criterion="weight", selection=selection, previous=first)
        both = kept(first), kept(second)
        assert all((both[1][path] <= both[0][path]).all() for path in both[0])
    # The rate is of all kernels: what is pruned already counts.
    assert sum(k.sum() for k in kept(make_masks(
        params, criterion="weight", keep_rate=0.25, previous=first, exclude="*down*"
    )).values()) == 26 + 80  # fmt: skip
    same = make_masks(params, criterion="weight", keep_rate=1.0, previous=first)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, same)))


def test_not_finite_kernels_go_first(params):
    kernel = params["conv1"]["kernel"].at[0, 0, 1, 2].set(jnp.nan)
    broken = {**params, "conv1": {**params["conv1"], "kernel": kernel}}
    for selection in (Threshold(1e-6), KeepRate(0.99), Contribution(1e-6)):
        masks = make_masks(broken, criterion="spectral_radius", selection=selection)
        assert masks["conv1"]["kernel"][0, 0, 1, 2] == 0
        assert jnp.isfinite(apply_masks(broken, masks)["conv1"]["kernel"]).all()
    masks = make_masks(broken, criterion="weight", selection=Contribution(1e-6))
    assert kept(masks)["conv1/kernel"].sum() == 23


def test_schedules():
    gradual = cubic_schedule(0.2, start=10, stop=20)
    assert [gradual(step) for step in (0, 10, 20, 99)] == [1, 1, 0.2, 0.2]
    assert gradual(15) == pytest.approx(0.2 + 0.8 * 0.5**3)
    with pytest.raises(ValueError, match="stop"):
        cubic_schedule(0.2, start=10, stop=10)
    for wrong in (-0.1, 1.1, np.nan, True):
        with pytest.raises(ValueError, match="keep_rate: expected a share"):
            cubic_schedule(wrong, start=0, stop=1)
        with pytest.raises(ValueError, match="initial: expected a share"):
            cubic_schedule(0.2, start=0, stop=1, initial=wrong)
    for keep in np.linspace(0, 1, 41):  # rounding leaves no share above 1
        assert 0 <= max(map(cubic_schedule(keep, start=0, stop=7), range(9))) <= 1


def test_number_pruned_is_that_of_the_decimal():
    counts = (*range(130), 470, 2304, 268_336, 23_000_000)
    for text in [f"{n / 100:.2f}" for n in range(101)] + ["0.9375", "0.001", "0.123456789"]:
        rate = Fraction(text)
        for number in (float(text), 1 - float(1 - rate)):  # as typed, and from the share pruned
            found = [num_pruned(count, number) for count in counts]
            assert found == [math.floor(count * (1 - rate)) for count in counts]
        single = [num_pruned(count, np.float32(text)) for count in counts[:-2]]
        assert single == [math.floor(count * (1 - rate)) for count in counts[:-2]]
    for count in range(1, 60):  # quotients that no decimal holds
        assert [num_pruned(count, kept / count) for kept in range(count + 1)] == [
            count - kept for kept in range(count + 1)
        ]
        assert num_pruned(count, Fraction(1, 3)) == math.floor(Fraction(2 * count, 3))
    assert num_pruned(10, jnp.float32(0.9)) == 1
    assert num_pruned(7, jnp.bfloat16(0.5)) == 3


@pytest.mark.parametrize("rate", [-1e-9, 1.01, math.nan, True, np.True_, "0.5", None, [0.5]])
def test_what_is_no_share_is_refused(rate):
    with pytest.raises(ValueError, match="keep_rate: expected a share"):
        num_pruned(10, rate)


def test_thresholds_and_contributions_may_be_traced(params):
    for selection, value in ((Threshold, 0.05), (Contribution, 0.1)):

        def masks(value, selection=selection):
            return make_masks(params, criterion="weight", selection=selection(value))

        for traced, known in zip(
            jax.tree.leaves(jax.jit(masks)(value)), jax.tree.leaves(masks(value)), strict=True
        ):
            np.testing.assert_array_equal(traced, known)


def test_a_traced_keep_rate_is_refused(params):
    with pytest.raises(ValueError, match="keep_rate: expected a number"):
        jax.jit(lambda rate: make_masks(params, criterion="weight", keep_rate=rate))(0.5)


def test_masks_of_a_decimal_keep_that_share_and_the_authors_modes_their_count():
    kernel = {"a": {"kernel": jax.random.normal(KEY, (3, 3, 10, 10))}}
    for scope, number in (("network", 90), ("layer", 90), ("filter", 90)):
        masks = make_masks(kernel, criterion="weight", selection=KeepRate(0.9, scope))
        assert kept(masks)["a/kernel"].sum() == number
    theirs = kept(make_masks(kernel, **authors_mode("weight_sorted_kernels", 0.9)._asdict()))
    assert theirs["a/kernel"].all()  # int(10 * (1.0 - 0.9)) is 0
    filters = KeepRate(0.9, whole_filters=True)
    whole = make_masks(kernel, criterion="weight", selection=filters)
    assert kept(whole)["a/kernel"].all(axis=0).sum() == 9


def test_masks_need_no_promotion_of_ranks(params):
    scores = {path: jnp.ones(kernel.shape[2:]) for path, kernel in conv_kernels(params).items()}
    with jax.numpy_rank_promotion("raise"):
        first = make_masks(params, criterion=scores, selection=Contribution(0.01))
        filters = KeepRate(0.5, "layer", whole_filters=True)
        masks = make_masks(params, criterion=scores, selection=filters, previous=first)
        optimizer = keep_pruned_zero(optax.sgd(0.1, momentum=0.9))
        optimizer.update(params, optimizer.init(params), params, masks=masks)
    assert (apply_masks(params, masks)["conv1"]["kernel"] == 0).mean() == 0.5


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="broadcast"):
        apply_masks({"a": jnp.ones((3, 1))}, {"a": jnp.ones((3, 2))})


def test_apply_gives_exact_positive_zeros():
    weights = {"a": jnp.asarray([jnp.nan, jnp.inf, -0.0, -1.0, 2.0])}
    out = apply_masks(weights, {"a": jnp.asarray([0.0, 0, 0, 0, 1])})["a"]
    np.testing.assert_array_equal(out, [0, 0, 0, 0, 2])
    assert not np.signbit(out).any()


def test_contribution_keeps_no_filter_of_zeros():
    kernel = jnp.ones((3, 3, 2, 3)).at[..., 0].set(0).at[..., 0, 1].set(0)
    params = {"a": {"kernel": kernel}}
    masks = make_masks(params, criterion="weight", selection=Contribution(0.0))
    np.testing.assert_array_equal(masks["a"]["kernel"][0, 0], [[0, 1, 1], [0, 1, 1]])


def test_scores_in_place_of_a_criterion(params):
    scores = {
        path: jax.random.uniform(jax.random.fold_in(KEY, n), kernel.shape[2:])
        for n, (path, kernel) in enumerate(conv_kernels(params).items())
    }
    flat = np.concatenate([np.ravel(s) for p, s in scores.items() if "down" not in p])
    keep = kept(make_masks(params, criterion=scores, keep_rate=0.25))
    cut = np.sort(flat)[78]  # of 104 kernels
    for path in ("conv1/kernel", "block_0/conv1/kernel"):
        np.testing.assert_array_equal(keep[path], scores[path] >= cut)
        above = kept(make_masks(params, criterion=scores, selection=Threshold(0.5)))[path]
        np.testing.assert_array_equal(above, scores[path] >= 0.5)
    of_filters = {path: np.asarray(s).mean(axis=0) for path, s in scores.items()}
    filters = KeepRate(0.5, "layer", whole_filters=True)
    same = make_masks(params, criterion=of_filters, selection=filters)
    for a, b in zip(
        jax.tree.leaves(same),
        jax.tree.leaves(make_masks(params, criterion=scores, selection=filters)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert kept(same)["conv1/kernel"].all(axis=0).sum() == 4
    with pytest.raises(ValueError, match="expected scores of 'block_0/conv1/kernel'"):
        make_masks(params, criterion={"conv1/kernel": scores["conv1/kernel"]}, keep_rate=0.5)
    with pytest.raises(ValueError, match=r"expected scores \(8, 10\) at 'block_0/conv1/kernel'"):
        make_masks(params, criterion=of_filters, keep_rate=0.5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(1e-2, weight_decay=0.1),
        optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9, nesterov=True)),
    ],
    ids=["adamw", "sgd"],
)
def test_pruned_weights_stay_zero(params, optimizer):
    optimizer = keep_pruned_zero(optimizer)
    traces = []

    @jax.jit
    def step(params, state, masks):
        traces.append(None)
        gradients = jax.tree.map(lambda p: jnp.sin(3 * p) + 1, params)
        updates, state = optimizer.update(gradients, state, params, masks=masks)
        return optax.apply_updates(params, updates), state

    with jax.numpy_dtype_promotion("standard"):  # Optax promotes its step count
        weights, state = params, optimizer.init(params)
        masks = make_masks(params, criterion="weight", keep_rate=0.7)
        for new_rate in (0.7, 0.4):
            masks = make_masks(weights, criterion="weight", keep_rate=new_rate, previous=masks)
            for _ in range(3):
                weights, state = step(weights, state, masks)
    assert len(traces) == 1
    pruned = jax.tree.map(lambda p, m: np.broadcast_to(m == 0, p.shape), params, masks)
    moments = [s for s in jax.tree.leaves(state) if s.shape == params["conv1"]["kernel"].shape]
    assert moments
    for tree in (weights["conv1"]["kernel"], *moments):
        np.testing.assert_array_equal(np.asarray(tree)[pruned["conv1"]["kernel"]], 0)
        assert (np.asarray(tree)[~pruned["conv1"]["kernel"]] != 0).all()
    assert np.asarray(pruned["block_0"]["conv1"]["kernel"]).any()


def test_optimizer_needs_params(params):
    optimizer = keep_pruned_zero(optax.sgd(0.1))
    with pytest.raises(ValueError, match="params: expected the current parameters"):
        optimizer.update(params, optimizer.init(params), masks=params)


def test_selection_is_a_jittable_function(params):
    function = jax.jit(lambda p: make_masks(p, criterion="min_eig", keep_rate=0.5))
    expected = make_masks(params, criterion="min_eig", keep_rate=0.5)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), function(params), expected)
    assert all(jax.tree.leaves(same))


@pytest.mark.thorough
def test_masks_and_weights_may_lie_on_different_devices():
    """On one device, on another, or on both: run in a process that has two."""
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


ON_TWO_DEVICES = """
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jnnk import apply_masks, make_masks

first, second = jax.devices()
both = NamedSharding(Mesh(np.array([first, second]), "data"), PartitionSpec())
kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype(np.float32)
params = {"a": {"kernel": kernel, "bias": np.ones(8, np.float32)}}
sizes = np.abs(kernel).mean((0, 1))
expected = kernel * (sizes > np.sort(sizes, None)[15])
placed = [jax.device_put(params, place) for place in (first, second, both)]
for one in placed:
    masks = make_masks(one, criterion="weight", keep_rate=0.5)
    for other in placed:
        result = apply_masks(other, masks)["a"]["kernel"]
        np.testing.assert_array_equal(result, expected)
        assert result.sharding.device_set == other["a"]["kernel"].sharding.device_set
        scores = {"a/kernel": abs(one["a"]["kernel"][0, 0])}
        more = make_masks(other, criterion=scores, keep_rate=0.25, previous=masks)
        assert more["a"]["kernel"].sum() == 8
"""


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), name="conv1")(x))
        x = nn.Conv(4, (3, 3), strides=2, use_bias=False, name="conv2")(x)
        return nn.Dense(5)(x.mean(axis=(1, 2)))


def test_summary():
    images = jax.ShapeDtypeStruct((2, 12, 10, 3), jnp.float32)
    model = Net()
    variables = jax.tree.map(jnp.ones_like, jax.eval_shape(model.init, KEY, images))
    weights = variables["params"]
    network = read(model.apply, variables, images)
    keep = np.zeros((8, 4), bool)
    keep[:3, 1] = True
    masks = masks_from_layers(weights, {"conv2/kernel": keep})
    summary = summarize(weights, masks, network=network)
    first, second = summary.layers
    assert (first.path, first.kernels, first.filters) == ("conv1/kernel", (24, 24), (8, 8))
    assert (second.kernels, second.filters, second.params) == ((32, 3), (4, 1), (288, 27))
    assert second.macs == (30 * 288, 30 * 27)
    assert summary.params == (216 + 8 + 288 + 25, 216 + 8 + 27 + 25)
    assert summary.macs == (120 * 216 + 30 * 288, 120 * 216 + 30 * 27)
    assert summarize(weights, masks).macs is None


class Shared(nn.Module):
    """A conv of 81 weights called on maps of 8 x 8 and 4 x 4, in one of several ways."""

    how: str

    @nn.compact
    def __call__(self, x):
        conv = nn.Conv(3, (3, 3), name="conv", use_bias=False)
        small = x[:, ::2, ::2]
        if self.how == "twice":
            return conv(x), conv(conv(x)[:, ::2, ::2])
        if self.how == "two batches":
            return conv(jnp.concatenate([x, x[:, ::-1]])), conv(small)
        if self.how == "rematerialised":
            body = nn.remat(lambda module, x: module(x))
            return body(conv, x), body(conv, x), body(conv, small)
        body = nn.scan(
            lambda module, x, _: (module(x), None),
            variable_broadcast="params", split_rngs={"params": False}, length=5,
        )  # fmt: skip
        return body(conv, x, None)


@pytest.mark.parametrize("how", ["twice", "two batches", "rematerialised", "loop"])
def test_macs_of_every_call_count(how):
    model, images = Shared(how), jnp.ones((2, 8, 8, 3))
    variables = model.init(KEY, images)
    masks = masks_from_layers(variables["params"], {"conv/kernel": np.eye(3)})
    summary = summarize(variables["params"], masks, network=read(model.apply, variables, images))
    positions = 5 * 64 if how == "loop" else 64 + 64 + 16
    assert summary.macs == (81 * positions, 27 * positions)


def test_a_tree_without_leaves():
    assert apply_masks({}, {}) == masks_from_layers({}, {}) == {}
    summary = summarize({}, {}, network=read(lambda variables, images: images, {}, jnp.ones(1)))
    assert summary.params == summary.kernels == summary.macs == (0, 0) and summary.layers == ()


def test_files(params, tmp_path):
    path = tmp_path / "masks.safetensors"
    masks = make_masks(params, criterion="weight", keep_rate=0.5)
    save_masks(path, masks)
    loaded = load_masks(path, params)
    assert jax.tree.structure(loaded) == jax.tree.structure(masks)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), loaded, masks)))

    other = {**params, "conv1": {"kernel": jnp.ones((3, 3, 3, 9))}}
    with pytest.raises(InputError, match=r"another network: at 'conv1/kernel'.*\(3, 9\).*\(3, 8\)"):
        load_masks(path, other)
    with pytest.raises(InputError, match="'extra/kernel'"):
        load_masks(path, {**params, "extra": {"kernel": jnp.ones((3, 3, 1, 1))}})
    with pytest.raises(InputError, match="absent"):
        load_masks(tmp_path / "absent", params)
    layers = {p: np.ones(m.shape[2:], np.float32) for p, m in conv_kernels(masks).items()}
    save_file(layers, path)
    with pytest.raises(InputError, match="expected booleans"):
        load_masks(path, params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one"),
        ({"selection": Threshold(0.1), "keep_rate": 0.5}, "exactly one"),
        ({"selection": 0.5}, "selection: expected Threshold, Contribution or KeepRate, got 0.5"),
        ({"keep_rate": 1.5}, "keep_rate: expected a share"),
        ({"keep_rate": True}, "keep_rate: expected a share"),
        ({"keep_rate": 0.5, "criterion": "det_sorted_kernels"}, "criterion: expected one of"),
        ({"keep_rate": 0.5, "include": "layer9*"}, "include: expected patterns of conv kernels"),
        ({"keep_rate": 0.5, "criterion": "random"}, "key"),
    ],
)
def test_misuse_is_refused(params, options, message):
    with pytest.raises(ValueError, match=message):
        make_masks(params, **{"criterion": "weight", **options})


@pytest.mark.parametrize(
    ("selection", "options", "message"),
    [
        (Contribution, (-0.1,), "contribution: expected a share"),
        (Contribution, (np.nan,), "contribution: expected a share"),
        (Threshold, (np.nan,), "threshold: expected a finite"),
        (Threshold, (np.inf,), "threshold: expected a finite"),
        (Threshold, (-0.1,), "threshold: expected a finite"),
        (Threshold, ("0.1",), "threshold: expected a finite"),
        (KeepRate, (1.5,), "keep_rate: expected a share"),
        (KeepRate, (0.5, "global"), "scope: expected one of"),
        (KeepRate, (0.5, "filter", True), "scope: expected .* for whole filters"),
        (authors_mode, ("det_sorted_kernels", 1.5), "keep_rate: expected a share"),
        (authors_mode, ("det_sorted", 0.5), "mode: expected one of .*, got 'det_sorted'"),
    ],
)
def test_selections_check_themselves(selection, options, message):
    with pytest.raises(ValueError, match=message):
        selection(*options)


def test_layers_of_another_shape_are_refused(params):
    with pytest.raises(ValueError, match=r"'conv1/kernel': expected shape \(3, 8\)"):
        masks_from_layers(params, {"conv1/kernel": np.ones((8, 3))})
    with pytest.raises(ValueError, match="'nowhere'"):
        masks_from_layers(params, {"nowhere": np.ones((8, 3))})


def test_options_are_keyword_only():
    parameters = inspect.signature(make_masks).parameters
    kinds = {name: p.kind for name, p in parameters.items() if name != "params"}
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("dtype", ["int32", "uint8", "uint32", "bool"])
def test_whole_numbers_are_ranked_too(dtype):
    scores = jnp.asarray(np.random.default_rng(0).integers(0, 9, 50), dtype)
    order = np.argsort(np.argsort(np.asarray(scores), kind="stable"))
    np.testing.assert_array_equal(keep_largest(scores, 20), order >= 20)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(0, 2), (1, 1), (37, 1), (200, 3), (64,)])
def test_the_smallest_go_in_the_order_of_a_stable_sort(shape, dtype):
    """With many ties, zeros of either sign, NaN below all scores and -inf below that."""
    rng = np.random.default_rng(0)
    values = np.round(np.abs(rng.normal(size=shape)), 1) * rng.choice([0, -0.0, 1, 1, 1e-3], shape)
    values = np.abs(values, where=values != 0, out=values)
    values = np.where(rng.random(shape) < 0.1, np.nan, values)
    values = np.where(rng.random(shape) < 0.1, -np.inf, values)
    scores = jnp.asarray(values, dtype)
    ranked = np.where(np.isnan(values), -1, np.asarray(scores, np.float32))
    order = np.argsort(np.argsort(ranked, axis=0, kind="stable"), axis=0)
    for number in {0, 1, shape[0] // 3, shape[0]}:
        kept = keep_largest(scores, number)
        np.testing.assert_array_equal(kept, order >= number)
        np.testing.assert_array_equal(jax.jit(keep_largest)(scores, number), kept)
