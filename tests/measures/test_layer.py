"""The measures of a layer against the functions that they are made of."""

import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.graphs import channelwise_nnk_graph, nnk_graph
from jnnk.jobs.overlap import measure_layer
from jnnk.measures import (
    channel_overlap,
    intrinsic_dimension,
    loo_error,
    measure_graphs,
    nnk_degree,
    redundancy,
)
from jnnk.runs.json_files import to_json
from jnnk.runs.settings import OverlapConfig

N, C, K = 60, 4, 5
LABELS = (np.arange(N) % 3).astype(np.int32)


def graphs_of(activations):
    channels = channelwise_nnk_graph(jnp.asarray(activations), num_neighbors=K)
    return channels, nnk_graph(jnp.asarray(activations.reshape(N, -1)), num_neighbors=K)


@pytest.fixture(scope="module")
def activations():
    values = np.random.default_rng(0).normal(size=(N, 2, 2, C)).astype(np.float32)
    values[..., 1] = 0.5  # dead
    return values


def test_a_layer_is_measured_by_the_functions_of_its_graphs(activations):
    channels, whole = graphs_of(activations)
    layer, by_channel = measure_graphs(channels, whole, LABELS, num_classes=3)
    live = np.array([0, 2, 3])
    overlap = np.asarray(channel_overlap(channels))
    np.testing.assert_allclose(by_channel.overlap, overlap, rtol=1e-6)
    pairs = overlap[np.ix_(live, live)][~np.eye(3, dtype=bool)]
    assert layer.overlap.mean == pytest.approx(pairs.mean(), rel=1e-6)
    assert layer.redundancy.mean == pytest.approx(float(redundancy(channels)), rel=1e-5)
    degrees = np.asarray(nnk_degree(channels))
    np.testing.assert_array_equal(by_channel.degree, degrees.mean(axis=1))
    assert layer.channel_degree.mean == pytest.approx(degrees[live].mean())
    dimension = intrinsic_dimension(whole)
    assert layer.degree.mean == pytest.approx(float(dimension.mean_degree))
    assert layer.mle_dimension.mean == pytest.approx(float(dimension.mle), rel=1e-5)
    assert layer.two_nn_dimension == float(dimension.two_nn)
    assert layer.channel_loo_error == pytest.approx(by_channel.loo_error[live].mean())
    assert layer.loo_error == float(loo_error(whole, LABELS, 3))
    assert (layer.channels, layer.dead_channels, layer.converged) == (C, 1, 1.0)
    for interval in (layer.overlap, layer.redundancy, layer.degree, layer.mle_dimension):
        assert interval.lower < interval.mean < interval.upper


def test_a_layer_of_dead_channels_has_no_measures_of_live_ones(activations):
    channels, whole = graphs_of(np.ones_like(activations))
    layer, _ = measure_graphs(channels, whole, LABELS, num_classes=3)
    assert layer.dead_channels == C
    assert np.isnan(layer.channel_loo_error) and np.isnan(layer.ambiguous)
    assert np.isnan([*layer.overlap, *layer.channel_degree, layer.overlap_by_chance]).all()


def test_a_record_spreads_intervals_over_three_fields(activations):
    config = OverlapConfig(images=N, neighbors=K)
    record, _ = measure_layer(activations, LABELS, num_classes=3, config=config)
    layer, _ = measure_graphs(*graphs_of(activations), LABELS, num_classes=3)
    fields = to_json(record)
    limits = (fields["overlap"], fields["overlap_lower"], fields["overlap_upper"])
    assert limits == tuple(layer.overlap) and fields["loo_error"] == layer.loo_error
