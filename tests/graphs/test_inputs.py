"""Awkward input and what is promised for it: one table, and random mixtures of everything at once.

All cases share one shape, so that every program is compiled once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import jnnk
from jnnk import InputError
from jnnk.measures import intrinsic_dimension, loo_error, redundancy, redundancy_curve
from jnnk.network import capture

N, D, C, K, CLASSES = 10, 4, 3, 4, 3
SILENT = K + 3  # more images than candidates
LABELS = np.arange(N) % CLASSES


def activations(seed=0):
    return np.random.default_rng(seed).normal(size=(N, 2, 2, C)).astype(np.float32)


def graph_of(values):
    return jnnk.channelwise_nnk_graph(values, num_neighbors=K)


@jax.jit
def measures(graph):
    return {
        "overlap": jnnk.channel_overlap(graph),
        "redundancy": redundancy(graph),
        "coverage": redundancy_curve(graph).coverage,
        "degree": intrinsic_dimension(graph).mean_degree,
        "error": loo_error(graph, LABELS, CLASSES),
    }


def with_nan(values):
    values[2, 0, 0, 1] = np.nan


def with_infinity(values):
    values[2, 0, 0, 1] = -np.inf


def with_duplicates(values):
    values[5] = values[4]


def with_silence(values):
    values[:SILENT, ..., 1] = 0


def with_a_constant_channel(values):
    values[..., 1] = 0.7


def with_nothing_but_nan(values):
    values[..., 1] = np.nan


def with_tiny_numbers(values):
    values[..., 1] *= 1e-30


def with_huge_numbers(values):
    values[..., 1] *= 1e30


LONE_IMAGE = {"dead": False, "unconverged": 1}  # image 2 of channel 1
TABLE = {
    with_nan: LONE_IMAGE,
    with_infinity: LONE_IMAGE,
    with_duplicates: {"dead": False, "unconverged": 0},
    with_silence: {"dead": False, "unconverged": 0},
    with_a_constant_channel: {"dead": True, "unconverged": 0},
    with_nothing_but_nan: {"dead": True, "unconverged": N},
    with_tiny_numbers: {"dead": False, "unconverged": 0},
    with_huge_numbers: {"dead": False, "unconverged": 0},
}


@pytest.mark.parametrize("spoil", TABLE)
def test_values(spoil):
    """Channel 1 is spoilt; the others keep their graphs, except where images coincide."""
    values, promised = activations(), TABLE[spoil]
    whole = graph_of(values.copy())
    spoil(values)
    graph = graph_of(values)
    assert int(np.sum(~graph.converged[1])) == promised["unconverged"]
    found = measures(graph)
    assert np.isnan(found["overlap"][1]).all() == promised["dead"]
    assert np.isfinite(np.delete(np.delete(found["overlap"], 1, 0), 1, 1)).all()
    assert (found["degree"][1] == 0) == promised["dead"]
    assert found["error"][1] == 1 or not promised["dead"]
    if spoil is not with_duplicates:
        for field, before in zip(graph, whole, strict=True):
            np.testing.assert_array_equal(field[0], before[0])


def test_images_in_one_place_explain_each_other():
    values = activations()
    with_duplicates(values)
    with_silence(values)
    graph = graph_of(values)
    weights, errors = np.asarray(graph.weights), np.asarray(graph.errors)
    assert (errors[:, 4:6] == 0).all() and (weights[::2, 4:6].max(-1) == 1).all()
    assert (errors[1, :SILENT] == 0).all() and (weights[1, :SILENT] == 1 / K).all()
    for image in range(SILENT):
        first = [other for other in range(N) if other != image][:K]
        assert graph.indices[1, image].tolist() == first


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    """Everything but float64 is computed in float32; without x64 JAX makes float64 that too."""
    values = np.round(20 * np.abs(activations()))  # whole numbers that every dtype holds
    found = graph_of(
        jnp.asarray(values).astype(dtype) if dtype != "float64" else values.astype(dtype)
    )
    assert found.weights.dtype == jnp.float32
    for field, expected in zip(found, graph_of(values.astype(np.float32)), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_arrays_that_are_not_contiguous():
    values = activations()
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(values, -1, 0)), 0, -1)[:, ::-1][:, ::-1]
    assert not strided.flags.c_contiguous
    for field, expected in zip(graph_of(strided), graph_of(values), strict=True):
        np.testing.assert_array_equal(field, expected)


def test_one_channel():
    found = measures(graph_of(activations()[..., :1]))
    assert found["overlap"].tolist() == [[1.0]]
    assert np.isnan(found["redundancy"])  # nothing to compare with
    assert found["coverage"].tolist() == [1.0]


def test_one_image():
    """No candidate: no edge, so a dead channel, and nothing that fails."""
    graph = graph_of(activations()[:1])
    assert (graph.indices == -1).all() and (graph.weights == 0).all() and graph.converged.all()
    assert np.isnan(jnnk.channel_overlap(graph)).all()


def test_as_many_candidates_as_images():
    graph = jnnk.channelwise_nnk_graph(activations(), num_neighbors=N)
    assert (graph.indices[..., -1] == -1).all() and (graph.indices[..., :-1] >= 0).all()
    assert graph.converged.all()


def test_labels_out_of_range_vote_for_nothing_and_are_errors():
    graph = graph_of(activations())
    for label in (CLASSES, -1):
        found = loo_error(graph, np.full(N, label), CLASSES)
        np.testing.assert_array_equal(found, 1)
    with pytest.raises(ValueError, match=f"each of the {N} images, got {N - 1}"):
        loo_error(graph, LABELS[:-1], CLASSES)


def test_no_layers():
    def apply(variables, images):
        return images, {"conv1": images}

    assert list(capture(apply, {}, activations(), layers=[], site="reported")) == []
    with pytest.raises(InputError, match="conv9"):
        list(capture(apply, {}, activations(), layers=["conv9"], site="reported"))


def test_masks_of_another_network():
    params = {"conv1": {"kernel": jnp.ones((3, 3, 2, 4))}}
    masks = jnnk.make_masks(params, criterion="weight", keep_rate=0.5)
    with pytest.raises(ValueError, match=r"conv1|conv2|broadcast|shape"):
        jnnk.apply_masks({"conv2": params["conv1"]}, masks)
    with pytest.raises(ValueError, match=r"broadcast|shape"):
        jnnk.apply_masks({"conv1": {"kernel": jnp.ones((3, 3, 2, 5))}}, masks)


AWKWARD = [0.0, 1.0, -1.0, 1e-38, 1e-20, 1e19, 3e38, np.inf, -np.inf, np.nan]
VALUES = arrays.arrays(
    np.float32,
    (N, 2, 2, C),
    elements=st.one_of(st.sampled_from(np.float32(AWKWARD).tolist()), st.floats(-4, 4, width=16)),
    fill=st.sampled_from(np.float32(AWKWARD).tolist()),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(VALUES)
def test_any_mixture_keeps_the_promises(values):
    graph = graph_of(values)
    weights, indices = np.asarray(graph.weights), np.asarray(graph.indices)
    is_known = np.isfinite(values).all((1, 2))  # (N, C)
    assert np.isfinite(weights).all() and (weights >= 0).all()
    assert (weights[indices < 0] == 0).all()
    assert np.isfinite(graph.errors).all() and (graph.errors >= -1e-4).all()
    same = (np.asarray(graph.distances) == 0).any(-1) & (weights > 0).any((1, 2))[:, None]
    assert (np.asarray(graph.errors)[same] == 0).all()
    np.testing.assert_allclose(weights.sum(-1)[same], 1, rtol=1e-6)
    assert not (np.asarray(graph.errors) > 1 + 1e-4).any()
    for channel in range(C):
        lost = np.flatnonzero(~is_known[:, channel])
        assert not np.isin(indices[channel], lost).any()
        assert (weights[channel, lost] == 0).all() and not graph.converged[channel, lost].any()
    found = measures(graph)
    dead = ~(weights > 0).any((1, 2))
    off = np.asarray(found["overlap"])
    assert np.isnan(off[dead]).all() and np.isfinite(off[np.ix_(~dead, ~dead)]).all()
    assert ((off >= 0) & (off <= 1 + 1e-6) | np.isnan(off)).all()
    assert np.isfinite(found["error"]).all() and (np.asarray(found["error"])[dead] == 1).all()
    assert np.isfinite(found["degree"]).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    arrays.arrays(np.float32, (3, 3, 2, 5), elements=st.sampled_from(np.float32(AWKWARD).tolist()))
)
def test_scores_of_any_kernels_are_a_number_where_the_kernel_is(kernel):
    is_known = np.isfinite(kernel).all((0, 1))
    for criterion in ("min_eig", "spectral_radius", "spectral_norm", "weight"):
        scores = np.asarray(jnnk.kernel_scores(jnp.asarray(kernel), criterion))
        assert scores.shape == (2, 5)
        assert not np.isnan(scores[is_known]).any() and (scores[is_known] >= 0).all(), criterion
