"""Generalisation without a validation set: NNK interpolation of labels (DeepNNK, 2020).

An image's label is predicted from the labels of its NNK neighbours. On the training images, each
left out of its own neighbourhood, the error estimates the test error of the representation; on
test images it is the error of the NNK classifier itself. Both work for a single channel and for
the aggregate (the whole layer's graph, or the channels' votes together).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Integer

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._labels import integer_labels, labels_of_neighbors, labels_of_points
from jnnk.measures._neighborhoods import support_weights


def label_interpolation(
    graph: NNKGraph, labels: Integer[ArrayLike, " N"], num_classes: int
) -> Float[Array, "... Q classes"]:
    """Class probabilities by interpolation over the polytope of NNK neighbours.

    ``p_y(n) = sum_k theta_k [label_k = y] / sum_k theta_k`` over the neighbours k of image n
    (Shekkizhar and Ortega, "DeepNNK: Explaining deep models and their generalization using
    polytope interpolation", 2020). With `jnnk.measures.knn_graph` it is the (weighted) kNN
    classifier on the same candidates. Neighbours that coincide with the image share its vote
    equally; of more than K of them those of the smallest indices vote, a sample of all where the
    points come in random order. No array has both an axis of neighbours and one of classes.

    Args:
        graph: indices and weights (..., Q, K), identifiers of labelled points.
        labels: (N,), of the points, not of the queries; one outside ``[0, num_classes)`` takes its
            share of the weight but votes for no class.
        num_classes: number of classes.

    Returns:
        (..., Q, num_classes); a row of zeros where there is no neighbour: it votes for
        nothing. Within transformations, where indices are not known, a row of NaN where a neighbour
        has an index of N or more.

    Raises:
        ValueError: if labels are not one axis of integers, a neighbour's index is N or more, or
            num_classes is no whole number of at least 1.
    """
    num_classes = whole_number("num_classes", num_classes)
    return _interpolated(graph, labels_of_points(graph, labels), num_classes)


@typed_jax.jit(static_argnames="num_classes")
def _interpolated(graph: NNKGraph, labels: Array, num_classes: int) -> Array:
    def votes(one: NNKGraph) -> Array:
        return _votes(one, labels, num_classes=num_classes)

    return _of_channels(votes, graph)


def label_vote(
    graph: NNKGraph, labels: Integer[ArrayLike, " N"], num_classes: int
) -> Float[Array, "Q classes"]:
    """Class probabilities by the common vote of a layer's channels.

    `channel_vote` of `label_interpolation`, with one channel in memory at a time.

    Args:
        graph: weights (C, Q, K).
        labels: see `label_interpolation`.
        num_classes: number of classes.

    Returns:
        (Q, num_classes), see `channel_vote`.

    Raises:
        ValueError: as `label_interpolation`, or for a graph that has not three axes.
    """
    if graph.weights.ndim != 3:
        raise ValueError(f"graph: expected weights (C, Q, K), got {graph.weights.shape}")
    num_classes = whole_number("num_classes", num_classes)
    return _label_vote(graph, labels_of_points(graph, labels), num_classes)


@typed_jax.jit(static_argnames="num_classes")
def _label_vote(graph: NNKGraph, labels: Array, num_classes: int) -> Array:
    shape = (graph.weights.shape[1], num_classes)

    def add(totals: tuple[Array, Array], channel: NNKGraph) -> tuple[tuple[Array, Array], None]:
        votes = _votes(channel, labels, num_classes=num_classes)
        return (totals[0] + votes, totals[1] + _has_votes(votes)), None

    nothing = (jnp.zeros(shape, graph.weights.dtype), jnp.zeros(shape[0], graph.weights.dtype))
    (summed, voters), _ = jax.lax.scan(add, nothing, _used(graph))
    return summed / jnp.maximum(voters, 1)[:, None]


@typed_jax.jit
def channel_vote(probabilities: Float[ArrayLike, "C Q classes"]) -> Float[Array, "Q classes"]:
    """Class probabilities by a common vote: the mean over the channels that have a vote.

    Args:
        probabilities: (C, Q, num_classes) from `label_interpolation`.

    Returns:
        (Q, num_classes); a row of zeros where no channel votes. A dead channel changes nothing.
    """
    probabilities = jnp.asarray(probabilities)
    voters = _has_votes(probabilities).sum(0)
    return probabilities.sum(0) / jnp.maximum(voters, 1)[:, None]


@typed_jax.jit
def predicted_label(probabilities: Float[ArrayLike, "*Q classes"]) -> Int[Array, "*Q"]:
    """The most probable class, the lowest number among equals, and -1 for a row without a vote.

    Args:
        probabilities: (..., num_classes), not negative.

    Returns:
        int32 (...).
    """
    probabilities = jnp.asarray(probabilities)
    best = jnp.argmax(probabilities, axis=-1).astype(jnp.int32)
    return jnp.where((probabilities > 0).any(-1), best, -1)


def error_rate(
    probabilities: Float[ArrayLike, "... Q classes"], labels: Integer[ArrayLike, " Q"]
) -> Float[Array, "..."]:
    """Share of the images whose predicted label is wrong; no prediction is wrong too.

    Args:
        probabilities: (..., Q, num_classes).
        labels: (Q,), the true labels of these images.

    Returns:
        (...) in [0, 1]; exactly 1 for a dead channel. NaN where a probability is.

    Raises:
        ValueError: if the labels are not Q integers.
    """
    labels = integer_labels(labels)
    if labels.shape[0] != probabilities.shape[-2]:
        raise ValueError(
            f"labels: expected the class of each of the {probabilities.shape[-2]} images, "
            f"got {labels.shape[0]}"
        )
    return _error_rate_of_votes(jnp.asarray(probabilities), labels)


@typed_jax.jit
def _error_rate_of_votes(probabilities: Array, labels: Array) -> Array:
    unknown = jnp.isnan(probabilities).any(-1)
    return _error_rate(predicted_label(probabilities), unknown, labels, probabilities.dtype)


def loo_error(
    graph: NNKGraph, labels: Integer[ArrayLike, " N"], num_classes: int
) -> Float[Array, "..."]:
    """Leave-one-out error of the labels' NNK interpolation.

    The share of points whose own label differs from the one interpolated from their neighbours,
    `label_interpolation`; the graph leaves every point out of its own neighbourhood. For queries
    other than the points use `error_rate` with the queries' labels. No array has an axis of
    classes.

    Args:
        graph: of the points themselves, weights (..., N, K).
        labels: (N,); a point whose label is outside ``[0, num_classes)`` is an error, and
            so is one without neighbours.
        num_classes: number of classes.

    Returns:
        (...) in [0, 1], one error per channel if the graph has channels; 1 for a dead
        channel. Within transformations NaN where a neighbour has an index of N or more.

    Raises:
        ValueError: as `label_interpolation`, or if the labels are not N.
    """
    num_classes = whole_number("num_classes", num_classes)
    return _loo_error(graph, labels_of_points(graph, labels, own=True), num_classes)


@typed_jax.jit(static_argnames="num_classes")
def _loo_error(graph: NNKGraph, labels: Array, num_classes: int) -> Array:
    def error(channel: NNKGraph) -> Array:
        winner, unknown = _winner(channel, labels, num_classes=num_classes)
        return _error_rate(winner, unknown, labels, graph.weights.dtype)

    return _of_channels(error, graph)


_READ = ("indices", "weights", "num_points")  # fields that votes read


def _used(graph: NNKGraph) -> NNKGraph:
    """The graph without the fields that no vote reads."""
    others = (name for name in NNKGraph._fields if name not in _READ)
    return graph._replace(**dict.fromkeys(others))


def _of_channels(function: Callable[[NNKGraph], Array], graph: NNKGraph) -> Array:
    """``function`` of graphs (Q, K), one after the other along the leading axes of one."""
    leading = graph.weights.shape[:-2]

    def flattened(field: Array) -> Array:
        return field.reshape(math.prod(leading), *field.shape[len(leading) :])

    flat: NNKGraph = jax.tree.map(flattened, _used(graph))
    found = typed_jax.lax_map(function, flat)
    return found.reshape(*leading, *found.shape[1:])


def _votes(graph: NNKGraph, labels: Array, *, num_classes: int) -> Array:
    """`label_interpolation` of one graph (Q, K)."""
    classes, weights, known = _labelled(graph, labels, num_classes)
    queries = jnp.arange(weights.shape[1])

    def add(votes: Array, slot: tuple[Array, Array]) -> tuple[Array, None]:
        label, weight = slot
        # A query has one label in a slot: no two sums meet, and their order is that of the slots.
        place = votes.at[queries, label]
        return place.add(weight, mode="drop", unique_indices=True), None

    nothing = jnp.zeros((weights.shape[1], num_classes), weights.dtype)
    votes, _ = jax.lax.scan(add, nothing, (classes, weights))
    total = weights.sum(0)
    votes = votes / jnp.where(total > 0, total, 1)[:, None]
    return jnp.where(known[:, None], votes, jnp.nan)


def _winner(graph: NNKGraph, labels: Array, *, num_classes: int) -> tuple[Array, Array]:
    """`predicted_label` of `_votes` (Q,), and whether it is unknown, by comparing K labels."""
    classes, weights, known = _labelled(graph, labels, num_classes)
    dtype, num_queries = weights.dtype, weights.shape[1]

    def contest(best: tuple[Array, Array], label: Array) -> tuple[tuple[Array, Array], None]:
        votes, winner = best
        own = jnp.where(classes == label[None], weights, 0).sum(0)
        first = (own == votes) & (label < winner)
        wins = (label < num_classes) & (own > 0) & ((own > votes) | first)
        return (jnp.where(wins, own, votes), jnp.where(wins, label, winner)), None

    no_vote = (jnp.zeros(num_queries, dtype), jnp.full(num_queries, -1, jnp.int32))
    (_, winner), _ = jax.lax.scan(contest, no_vote, classes)
    return winner, ~known


def _labelled(graph: NNKGraph, labels: Array, num_classes: int) -> tuple[Array, Array, Array]:
    """Class and weight of each neighbour (K, Q), and which queries have labels for all of them.

    The class of what is no neighbour, or has a label out of range, is ``num_classes``.
    """
    found, known = labels_of_neighbors(graph, labels)
    classes = jnp.where((found >= 0) & (found < num_classes), found, num_classes)
    return classes.T, support_weights(graph).T, known.all(1)


def _has_votes(votes: Array) -> Array:
    """Which rows (..., Q) hold a vote, as 1 or 0."""
    return (votes > 0).any(-1).astype(votes.dtype)


def _error_rate(predicted: Array, unknown: Array, labels: Array, dtype: DTypeLike) -> Array:
    """Share of Q predictions (..., Q) that are wrong or missing (-1); NaN where one is unknown."""
    labels = labels.reshape((1,) * (predicted.ndim - 1) + (-1,))
    wrong = ((predicted != labels) | (predicted < 0)).astype(dtype)
    return jnp.where(unknown, jnp.nan, wrong).mean(-1)
