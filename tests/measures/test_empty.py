"""No images, no channels: measures have their shapes, and NaN for what is not known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jnnk
from jnnk import measures, penalties

SHAPES = [(0, 2, 2, 3), (6, 2, 2, 0), (0, 2, 2, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_measures(shape):
    num_images, *_, width = shape
    graph = jnnk.channelwise_nnk_graph(jnp.zeros(shape), num_neighbors=3)
    labels = jnp.zeros(num_images, jnp.int32)
    curve = measures.redundancy_curve(graph)
    found = {
        "pairs": [
            measures.channel_overlap(graph),
            measures.cross_overlap(graph, graph),
            measures.chance_overlap(graph, num_candidates=5),
            measures.channel_cka(jnp.zeros(shape)),
            measures.overlap_interval(graph, jax.random.key(0)).pairs,
            measures.overlap_resamples(graph, jax.random.key(0))[3],
        ],
        "channels": [
            curve.coverage,
            measures.label_overlap(graph, labels),
            measures.loo_error(graph, labels, 3),
        ],
        "images": [measures.redundancy_by_image(graph)],
        "nothing": [measures.redundancy(graph)],
        "images and pairs": [measures.overlap_by_image(graph)],
    }
    shapes = {
        "pairs": (width, width), "channels": (width,), "images": (num_images,), "nothing": (),
        "images and pairs": (num_images, width, width),
    }  # fmt: skip
    for what, values in found.items():
        for value in values:
            assert value.shape == shapes[what], what
            assert np.isnan(value).all()
    assert curve.order.shape == (width,)
    assert measures.channels_to_cover(curve, [0.5, 0.9]).tolist() == [0, 0]


def test_measures_of_a_layer():
    whole = jnnk.nnk_graph(jnp.zeros((6, 4)), num_neighbors=3)
    none = jnnk.channelwise_nnk_graph(jnp.zeros((6, 2, 2, 0)), num_neighbors=3)
    layer, channels = measures.measure_graphs(none, whole, np.zeros(6, np.int32), num_classes=2)
    assert layer.channels == 0 and np.isnan(layer.converged) and channels.overlap.shape == (0, 0)
    with pytest.raises(ValueError, match="labels: expected those of at least one image, got none"):
        measures.measure_graphs(none, whole, np.zeros(0, np.int32), num_classes=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_penalties(shape):
    for penalty in (penalties.decorrelation_penalty, penalties.cka_penalty):
        assert penalty(jnp.zeros(shape)) == 0
    if shape[0]:
        assert penalties.overlap_penalty(jnp.zeros(shape)) == 0
    else:
        with pytest.raises(ValueError, match=r"activations: expected .* 2 images, got 0"):
            penalties.overlap_penalty(jnp.zeros(shape))
