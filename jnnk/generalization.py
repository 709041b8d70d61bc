"""Generalisation without a validation set: NNK interpolation of labels (DeepNNK, 2020).

An image's label is predicted from the labels of its NNK neighbours. On the training images, each
left out of its own neighbourhood, the error estimates the test error of the representation; on
test images it is the error of the NNK classifier itself. Both work for a single channel and for
the aggregate (the whole layer's graph, or the channels' votes together).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jnnk.graph import NNKGraph


@partial(jax.jit, static_argnames="num_classes")
def label_interpolation(graph: NNKGraph, labels: Array, num_classes: int) -> Array:
    """Class probabilities by interpolation over the polytope of NNK neighbours.

    ``p_y(n) = sum_k theta_k [label_k = y] / sum_k theta_k`` over the neighbours k of image n
    (Shekkizhar and Ortega, "DeepNNK: Explaining deep models and their generalization using
    polytope interpolation", 2020). With `jnnk.baselines.knn_graph` it is the (weighted) kNN
    classifier on the same candidates.

    Args:
        graph: indices and weights (..., Q, K), identifiers of labelled points.
        labels: (N,) integer labels of the points; one outside ``[0, num_classes)`` takes its
            share of the weight but votes for no class.
        num_classes: number of classes.

    Returns:
        (..., Q, num_classes) floating; a row of zeros where there is no neighbour: it votes for
        nothing.

    Raises:
        ValueError: if labels are not one axis of integers.
    """
    labels = _integer_labels(labels)
    support = graph.weights > 0
    neighbor_labels = labels[jnp.where(support, graph.indices, 0)]
    weights = jnp.where(support, graph.weights, 0)
    of_class = neighbor_labels[..., None] == jnp.arange(num_classes, dtype=neighbor_labels.dtype)
    votes = jnp.where(of_class, weights[..., None], 0).sum(-2)
    total = weights.sum(-1, keepdims=True)
    return votes / jnp.where(total > 0, total, 1)


@jax.jit
def channel_vote(probabilities: Array) -> Array:
    """The aggregate of the channels: the mean of the votes of those that have one.

    Args:
        probabilities: (C, Q, num_classes) from `label_interpolation`.

    Returns:
        (Q, num_classes); a row of zeros where no channel votes. A dead channel changes nothing.
    """
    voters = (probabilities.sum(-1) > 0).sum(0).astype(probabilities.dtype)
    return probabilities.sum(0) / jnp.maximum(voters, 1)[:, None]


@jax.jit
def predicted_label(probabilities: Array) -> Array:
    """The most probable class, the lowest number among equals, and -1 for a row without a vote.

    Args:
        probabilities: (..., num_classes), not negative.

    Returns:
        (...) int32.
    """
    best = jnp.argmax(probabilities, axis=-1).astype(jnp.int32)
    return jnp.where((probabilities > 0).any(-1), best, -1)


@jax.jit
def error_rate(probabilities: Array, labels: Array) -> Array:
    """Share of the images whose predicted label is wrong; no prediction is wrong too.

    Args:
        probabilities: (..., Q, num_classes).
        labels: (Q,) integer true labels of these images.

    Returns:
        (...) floating in [0, 1]; exactly 1 for a dead channel.

    Raises:
        ValueError: if the labels are not Q integers.
    """
    labels = _integer_labels(labels)
    if labels.shape[0] != probabilities.shape[-2]:
        raise ValueError(
            f"labels must name the class of each of the {probabilities.shape[-2]} images; "
            f"got {labels.shape[0]}"
        )
    wrong = predicted_label(probabilities) != labels
    return wrong.astype(probabilities.dtype).mean(-1)


@partial(jax.jit, static_argnames="num_classes")
def loo_error(graph: NNKGraph, labels: Array, num_classes: int) -> Array:
    """Leave-one-out error of the labels' NNK interpolation.

    The share of points whose own label differs from the one interpolated from their neighbours,
    `label_interpolation`; the graph leaves every point out of its own neighbourhood. For queries
    other than the points use `error_rate` with the queries' labels.

    Args:
        graph: of the points themselves, weights (..., N, K).
        labels: (N,) integers in ``[0, num_classes)``.
        num_classes: number of classes.

    Returns:
        (...) floating in [0, 1], one error per channel if the graph has channels. A point
        without neighbours counts as an error, so a dead channel has 1.

    Raises:
        ValueError: if the labels are not N integers.
    """
    return error_rate(label_interpolation(graph, labels, num_classes), labels)


def _integer_labels(labels: Array) -> Array:
    labels = jnp.asarray(labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be one axis of integers; got shape {labels.shape} of {labels.dtype}"
        )
    return labels.astype(jnp.int32)
