"""Channel-wise graphs: each channel as if alone, dead channels, two streams, every platform."""

import concurrent.futures
import inspect

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jnnk.graphs._channels
import jnnk.graphs._graph
import jnnk.graphs._neighbors
import jnnk.graphs._qp.solve
from jnnk.graphs import channelwise_nnk_graph, cosine, nnk_graph


def _activations(channels=3):
    rng = np.random.default_rng(0)
    return np.maximum(rng.normal(size=(80, 3, 2, channels)), 0).astype(np.float32)


def test_every_channel_is_as_if_alone():
    activations = _activations()
    streams = channelwise_nnk_graph(activations, num_neighbors=6)
    jitted = jax.jit(lambda a: channelwise_nnk_graph(a, num_neighbors=6))(activations)
    flat = channelwise_nnk_graph(activations.reshape(80, 6, 3), num_neighbors=6)
    for channel in range(3):
        alone = nnk_graph(activations[..., channel].reshape(80, 6), num_neighbors=6)
        for graph in (streams, jitted, flat):
            np.testing.assert_array_equal(graph.indices[channel], alone.indices)
            np.testing.assert_allclose(graph.weights[channel], alone.weights, atol=1e-5)
    assert streams.errors.shape == streams.converged.shape == (3, 80)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_dead_channel_has_no_edges(value):
    activations = _activations()
    activations[..., 1] = value
    for similarity in (None, cosine()):
        options = {} if similarity is None else {"similarity": similarity}
        graph = channelwise_nnk_graph(activations, num_neighbors=6, **options)
        assert (graph.weights[1] == 0).all() and (graph.errors[1] == 1).all()
        assert ((np.asarray(graph.weights[::2]) > 0).sum(2) > 0).all()
        assert graph.converged.all()


def test_gradient_through_channels():
    gradient = jax.grad(lambda a: channelwise_nnk_graph(a, num_neighbors=6).errors.sum())
    values = gradient(jnp.asarray(_activations()))
    assert jnp.isfinite(values).all() and (values != 0).any()


def test_concurrent_programs_end():
    """LAPACK calls in two programs at once deadlock (JAX 0.10.2): nothing here may make any."""
    activations = jnp.asarray(_activations(channels=6))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(channelwise_nnk_graph, activations, num_neighbors=6) for _ in range(12)
        ]
        graphs = [run.result(timeout=120) for run in runs]
    assert all((graph.weights == graphs[0].weights).all() for graph in graphs)
    text = jax.jit(lambda a: channelwise_nnk_graph(a, num_neighbors=6)).lower(activations)
    assert "lapack" not in text.as_text().lower()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="activations: expected"):
        channelwise_nnk_graph(jnp.ones((8, 4)), num_neighbors=2)


@pytest.mark.parametrize(
    "function",
    [
        jnnk.graphs.solve_nnk,
        jnnk.graphs.nearest_neighbors,
        jnnk.graphs.nnk_graph,
        jnnk.graphs.channelwise_nnk_graph,
    ],
)
def test_options_are_keyword_only(function):
    parameters = inspect.signature(function).parameters.values()
    optional = [p for p in parameters if p.default is not p.empty]
    assert optional and all(p.kind is p.KEYWORD_ONLY for p in optional)


def test_double_precision_reaches_the_threads():
    with jax.enable_x64(True):
        points = jnp.asarray(np.random.default_rng(0).normal(size=(20, 4, 2)))
        graph = jnnk.channelwise_nnk_graph(points, num_neighbors=5)
        assert graph.weights.dtype == jnp.float64
        alone = jnnk.nnk_graph(points[:, :, 1], num_neighbors=5)
        np.testing.assert_allclose(graph.weights[1], alone.weights, rtol=1e-12, atol=1e-14)


def test_arrays_that_a_transformation_closes_over():
    activations = jnp.asarray(_activations(channels=2))
    gram, cross = jnp.broadcast_to(jnp.eye(2), (5000, 2, 2)), jnp.ones((5000, 2))
    graph = channelwise_nnk_graph(activations, num_neighbors=6)

    @jax.jit
    def closed(scale):
        weights = channelwise_nnk_graph(activations, num_neighbors=6).weights
        return scale * weights, scale * jnnk.graphs.solve_nnk(gram, cross, tol=scale).weights

    weights, ones = closed(1.0)
    np.testing.assert_allclose(weights, graph.weights, atol=1e-5)
    np.testing.assert_allclose(ones, 1, atol=1e-6)
    assert jnnk.graphs.solve_nnk(gram[:, :0, :0], cross[:, :0]).weights.shape == (5000, 0)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (5, 2, 2, 0), (5, 0, 2, 3), (0, 2, 0)])
def test_empty_inputs(shape):
    graph = channelwise_nnk_graph(jnp.zeros(shape), num_neighbors=2)
    assert graph.indices.shape == graph.weights.shape == (shape[-1], shape[0], 2)
    assert graph.errors.shape == graph.converged.shape == (shape[-1], shape[0])


def test_wrong_kinds_of_arguments_are_named():
    values = _activations()
    with pytest.raises(ValueError, match="activations: expected an array, got list"):
        channelwise_nnk_graph(values.tolist(), num_neighbors=2)
    with pytest.raises(ValueError, match="num_neighbors: expected a whole number"):
        channelwise_nnk_graph(values, num_neighbors=3.0)


@pytest.mark.thorough
def test_without_jit():
    values = _activations()[:12]
    expected = channelwise_nnk_graph(values, num_neighbors=3)
    with jax.disable_jit():
        graph = channelwise_nnk_graph(values, num_neighbors=3)
    np.testing.assert_array_equal(graph.indices, expected.indices)
    np.testing.assert_allclose(graph.weights, expected.weights, atol=1e-5)
