"""Whole numbers of users: options of every wrong kind, and integers beyond int32."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jnnk
from jnnk import graphs, measures, parallel, penalties, pruning, training
from jnnk._core.whole_numbers import to_int32
from jnnk.measures import aggregate_consistency
from jnnk.measures._labels import integer_labels
from jnnk.measures._overlap import weighted_overlap
from jnnk.penalties import _channel_pairs as channel_pairs
from jnnk.penalties import soft_channel_overlap

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3)).astype(np.float32)
LAYER = POINTS.reshape(40, 1, 3)
LABELS = np.arange(40) % 3
GRAPH = jnnk.nnk_graph(POINTS, num_neighbors=4)
CHANNELS = jax.tree.map(lambda field: field[None], GRAPH)
GRAPH_SIZES = {"num_neighbors": 4, "max_steps": 9, "block_size": 8}

# Calls, and those of their options that are whole numbers.
CALLS = {
    "nearest_neighbors": (
        partial(jnnk.nearest_neighbors, POINTS, POINTS), {"num_neighbors": 2, "block_size": 8}
    ),
    "solve_nnk": (partial(jnnk.solve_nnk, jnp.ones((2, 1, 1)), jnp.ones((2, 1))), {"max_steps": 9}),
    "nnk_graph": (partial(jnnk.nnk_graph, POINTS), GRAPH_SIZES),
    "channelwise_nnk_graph": (partial(jnnk.channelwise_nnk_graph, LAYER), GRAPH_SIZES),
    "sharded_nnk_graph": (
        partial(graphs.sharded_nnk_graph, LAYER, mesh=parallel.parse_mesh("data=1")), GRAPH_SIZES
    ),
    "overlap_by_image": (partial(measures.overlap_by_image, CHANNELS), {"block_size": 8}),
    "channel_overlap": (partial(jnnk.channel_overlap, CHANNELS), {"block_size": 8}),
    "cross_overlap": (partial(jnnk.cross_overlap, CHANNELS, CHANNELS), {"block_size": 8}),
    "weighted_overlap": (
        partial(weighted_overlap, CHANNELS, CHANNELS, jnp.ones((1, 40))), {"block_size": 8}
    ),
    "chance_overlap": (
        partial(measures.chance_overlap, CHANNELS), {"num_candidates": 39, "block_size": 8}
    ),
    "overlap_resamples": (
        partial(measures.overlap_resamples, CHANNELS, KEY),
        {"num_resamples": 3, "block_size": 8},
    ),
    "overlap_interval": (
        partial(measures.overlap_interval, CHANNELS, KEY),
        {"num_resamples": 3, "block_size": 8},
    ),
    "aggregate_consistency": (
        partial(aggregate_consistency, POINTS[:, :, None], CHANNELS, GRAPH), {"block_size": 8}
    ),
    "gride": (partial(measures.gride, GRAPH.distances), {"nearer": 2}),
    "label_interpolation": (
        partial(measures.label_interpolation, GRAPH, LABELS), {"num_classes": 3}
    ),
    "label_vote": (partial(measures.label_vote, CHANNELS, LABELS), {"num_classes": 3}),
    "loo_error": (partial(measures.loo_error, GRAPH, LABELS), {"num_classes": 3}),
    "overlap_penalty": (
        partial(jnnk.overlap_penalty, LAYER, key=KEY), {"num_neighbors": 3, "num_channels": 2}
    ),
    "soft_channel_overlap": (
        partial(soft_channel_overlap, LAYER, key=KEY),
        {"num_neighbors": 3, "num_channels": 2},
    ),
    "decorrelation_penalty": (
        partial(penalties.decorrelation_penalty, LAYER, key=KEY), {"num_channels": 2}
    ),
    "cka_penalty": (partial(penalties.cka_penalty, LAYER, key=KEY), {"num_channels": 2}),
    "channel_points": (partial(channel_pairs.channel_points, LAYER, key=KEY), {"num_channels": 2}),
    "cubic_schedule": (partial(pruning.cubic_schedule, 0.5), {"start": 2, "stop": 4}),
    "update_patience": (
        partial(training.update_patience, training.start_patience(()), jnp.ones(())),
        {"patience": 2},
    ),
    "pad_crop_flip": (partial(training.pad_crop_flip, KEY, LAYER[..., None]), {"padding": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_options_of_a_wrong_kind_are_named(name):
    call, options = CALLS[name]
    for option, value in options.items():
        for wrong in (float(value), value + 0.5, True, np.bool_(True), str(value), 1j, -1):
            with pytest.raises(ValueError, match=rf"\b{option}: expected a whole number.*got "):
                call(**{**options, option: wrong})


def test_whole_numbers_of_every_kind_are_taken():
    for kind in (int, np.int64, np.uint8):
        found = measures.gride(GRAPH.distances, nearer=kind(2))
        assert found == measures.gride(GRAPH.distances)
        indices, _ = jnnk.nearest_neighbors(POINTS, POINTS, num_neighbors=kind(2))
        assert indices.shape == (40, 2)
        assert pruning.cubic_schedule(0.5, start=kind(2), stop=kind(4))(4) == 0.5


def test_no_option_is_forgotten():
    """Every whole-number option of the public numerical functions is in the table above."""
    inner = {"weighted_overlap", "channel_points"}
    # Commands and training loops call these with numbers of their own.
    not_numerical = {
        "channel_masks", "make_evaluate", "make_optimizer", "mean_interval", "measure_graphs",
        "plan_layer",
    }  # fmt: skip
    positions = {"label_interpolation", "label_vote", "loo_error"}
    seen = set()
    for package in (graphs, measures, penalties, pruning, training):
        for name in set(package.__all__) - not_numerical:
            function = getattr(package, name)
            function = inspect.unwrap(function) if callable(function) else None
            if not inspect.isfunction(function):
                continue
            options = {
                parameter.name
                for parameter in inspect.signature(function).parameters.values()
                if parameter.annotation in (int, int | None, int | jax.Array)
                and (name in positions or parameter.kind is parameter.KEYWORD_ONLY)
            }
            assert options == set(CALLS.get(name, (None, ()))[1]), name
            seen |= {name} if options else set()
    assert seen | inner == set(CALLS)


BEYOND = [2**31, 2**32, 2**32 + 1, 2**40, -(2**31) - 1, -(2**63)]


def test_integers_beyond_int32_are_replaced():
    values = np.array([0, -5, 2**31 - 1, -(2**31), *BEYOND])
    expected = [0, -5, 2**31 - 1, -(2**31)] + [-1] * len(BEYOND)
    assert to_int32(values, otherwise=-1).tolist() == expected
    assert integer_labels(values).tolist() == integer_labels(values.tolist()).tolist() == expected
    assert integer_labels(np.array([2**31, 2**40])).tolist() == [-1, -1]
    for dtype, largest in ((np.uint32, 2**32 - 1), (np.uint64, 2**64 - 1)):
        unsigned = np.array([7, 2**31 - 1, 2**31, largest], dtype)
        assert to_int32(unsigned, otherwise=-1).tolist() == [7, 2**31 - 1, -1, -1]
        assert to_int32(unsigned, otherwise=9).tolist() == [7, 2**31 - 1, 9, 9]
    found = to_int32(jnp.array([7, 2**31, 2**32 - 1], jnp.uint32), otherwise=-1)
    assert isinstance(found, jax.Array) and found.tolist() == [7, -1, -1]
    with jax.enable_x64(True):
        assert to_int32(jnp.asarray(values), otherwise=-1).tolist() == expected
        assert jax.jit(partial(to_int32, otherwise=-1))(values).tolist() == expected
    for dtype in (np.int8, np.uint16, jnp.int4):
        assert integer_labels(np.array([3, 1], dtype)).tolist() == [3, 1]


@pytest.mark.parametrize("offset", [2**32, -(2**32), 2**40])
def test_labels_beyond_int32_are_those_of_no_class(offset):
    beyond = LABELS.astype(np.int64) + offset
    assert measures.loo_error(GRAPH, LABELS, 3) < 1
    assert measures.loo_error(GRAPH, beyond, 3) == 1
    assert (measures.label_interpolation(GRAPH, beyond, 3) == 0).all()
    assert (measures.label_vote(CHANNELS, beyond, 3) == 0).all()
    votes = measures.label_interpolation(GRAPH, LABELS, 3)
    assert measures.error_rate(votes, LABELS) < 1
    assert measures.error_rate(votes, beyond) == 1
    assert measures.label_overlap(GRAPH, beyond) == 0


def test_unlabelled_images_agree_with_nobody():
    assert measures.label_overlap(GRAPH, np.zeros(40, int)) == 1
    assert measures.label_overlap(GRAPH, jnp.full(40, -1)) == 0
    labels = np.where(np.arange(40) % 4 == 0, -1, LABELS)
    weights, indices = np.asarray(GRAPH.weights), np.asarray(GRAPH.indices)
    shares = [
        0 if labels[image] < 0 else np.mean(labels[indices[image][weights[image] > 0]] == own)
        for image, own in enumerate(labels)
    ]
    found = measures.label_overlap(GRAPH, labels)
    assert found == pytest.approx(np.mean(shares), rel=1e-6) and 0 < found < 1


@pytest.mark.parametrize("beyond", [2**32, 2**32 + 1, -(2**32) + 3, 2**40])
def test_to_leave_out_what_no_point_is_leaves_nothing_out(beyond):
    exclude = np.full(40, beyond)
    indices, _ = jnnk.nearest_neighbors(POINTS, POINTS, num_neighbors=2, exclude=exclude)
    assert (indices[:, 0] == jnp.arange(40)).all()
    graph = jnnk.nnk_graph(POINTS, queries=POINTS, num_neighbors=2, exclude=exclude)
    assert (graph.indices[:, 0] == jnp.arange(40)).all()


def test_neighbours_beyond_int32_are_too_far_for_any_labels():
    indices = np.asarray(GRAPH.indices).astype(np.int64) + 2**32
    graph = jax.tree.map(np.asarray, GRAPH)._replace(indices=indices)
    for measure in (
        partial(measures.loo_error, num_classes=3),
        partial(measures.label_interpolation, num_classes=3),
        measures.label_overlap,
    ):
        with pytest.raises(ValueError, match="labels: expected one of each point"):
            measure(graph, LABELS)
