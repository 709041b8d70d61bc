"""All measures of one layer, from the graphs of its channels and the graph of its whole vectors."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer

from jnnk._core.arrays import ArrayLike
from jnnk.graphs import NNKGraph
from jnnk.measures._bootstrap import layer_overlap
from jnnk.measures._chance import chance_overlap
from jnnk.measures._dimension import intrinsic_dimension, inverse_dimensions, nnk_degree
from jnnk.measures._interpolation import error_rate, label_vote, loo_error
from jnnk.measures._redundancy import redundancy_by_image
from jnnk.measures._statistics import MeanInterval, mean_interval


class ChannelMeasures(NamedTuple):
    """The measures of a layer by channel.

    Attributes:
        overlap: (C, C), see `jnnk.channel_overlap`; NaN for dead channels.
        degree: (C,), mean over images of the NNK degree.
        loo_error: (C,), see `jnnk.measures.loo_error`.
    """

    overlap: Float[np.ndarray, "C C"]
    degree: Float[np.ndarray, " C"]
    loo_error: Float[np.ndarray, " C"]


class LayerMeasures(NamedTuple):
    """The measures of a layer, with 95 % bootstrap intervals over images where it says so.

    Attributes:
        channels: C.
        dead_channels: how many of them tell no two images apart.
        overlap: `MeanInterval` of the overlap, mean over the pairs of different live channels.
        overlap_by_chance: mean of `jnnk.measures.chance_overlap` over the same pairs.
        redundancy: `MeanInterval` of `jnnk.measures.redundancy`.
        channel_degree: `MeanInterval` of the NNK degree, mean over the live channels.
        degree: `MeanInterval` of the NNK degree in the graph of the whole vectors.
        mle_dimension: `MeanInterval` of the intrinsic dimension of the whole vectors, by maximum
            likelihood.
        two_nn_dimension: intrinsic dimension of the whole vectors by TwoNN, without an interval.
        channel_loo_error: leave-one-out error, mean over the live channels; NaN without any.
        vote_loo_error: of the channels' common vote.
        loo_error: of the graph of the whole vectors.
        converged: share of the channels' NNK problems that converged.
        ambiguous: share of the channels' neighbourhoods that are ambiguous, see
            `jnnk.graphs.QPSolution`; NaN where there are none.
    """

    channels: int
    dead_channels: int
    overlap: MeanInterval
    overlap_by_chance: float
    redundancy: MeanInterval
    channel_degree: MeanInterval
    degree: MeanInterval
    mle_dimension: MeanInterval
    two_nn_dimension: float
    channel_loo_error: float
    vote_loo_error: float
    loo_error: float
    converged: float
    ambiguous: float


def measure_graphs(
    channels: NNKGraph, whole: NNKGraph, labels: Integer[ArrayLike, " N"], *, num_classes: int
) -> tuple[LayerMeasures, ChannelMeasures]:
    """Overlap, redundancy, degrees, dimensions and label errors of one layer.

    Args:
        channels: of `jnnk.graphs.channelwise_nnk_graph`, weights (C, N, K).
        whole: of `jnnk.graphs.nnk_graph` of the layer's flattened vectors, weights (N, K).
        labels: (N,), of the images.
        num_classes: number of classes.

    Returns:
        The measures of the layer, and those by channel.

    Raises:
        ValueError: if the graphs and the labels are not of the same images, there are none,
            ``channels`` has no axis of channels or ``whole`` a single candidate.
    """
    if not len(labels):
        raise ValueError("labels: expected those of at least one image, got none")
    overlap, mean_overlap = layer_overlap(channels, jax.random.key(0))
    live = np.isfinite(np.diagonal(overlap))
    chance = np.asarray(chance_overlap(channels, num_candidates=len(labels) - 1))
    degrees = np.asarray(nnk_degree(channels))
    errors = np.asarray(loo_error(channels, labels, num_classes))
    votes = label_vote(channels, labels, num_classes)
    dimension = intrinsic_dimension(whole)
    measures = LayerMeasures(
        channels=len(live),
        dead_channels=int((~live).sum()),
        overlap=mean_overlap,
        overlap_by_chance=_mean_of_pairs(chance, live),
        redundancy=mean_interval(np.asarray(redundancy_by_image(channels))),
        channel_degree=_channel_degree(degrees, live),
        degree=mean_interval(np.asarray(dimension.degree)),
        mle_dimension=_dimension_interval(whole),
        two_nn_dimension=float(dimension.two_nn),
        channel_loo_error=_mean(errors[live]),
        vote_loo_error=float(error_rate(votes, labels)),
        loo_error=float(loo_error(whole, labels, num_classes)),
        converged=_mean(np.asarray(channels.converged)),
        ambiguous=_ambiguous_share(channels),
    )
    return measures, ChannelMeasures(overlap, degrees.mean(axis=-1), errors)


def _mean_of_pairs(matrix: np.ndarray, live: np.ndarray) -> float:
    """Mean over the pairs of two different live channels, of (C, C)."""
    return _mean(matrix[~np.eye(len(live), dtype=bool) & live & live[:, None]])


def _channel_degree(degrees: np.ndarray, live: np.ndarray) -> MeanInterval:
    """The mean degree of live channels, from those of all channels and images, (C, Q)."""
    if not live.any():
        return MeanInterval(np.nan, np.nan, np.nan)
    return mean_interval(degrees[live].astype(np.float64).mean(axis=0))


def _dimension_interval(whole: NNKGraph) -> MeanInterval:
    """The maximum-likelihood dimension: the inverse of the mean of the images' inverse ones."""
    inverse = mean_interval(np.asarray(inverse_dimensions(whole)))
    mean, upper, lower = (1 / value if value else np.inf for value in inverse)
    return MeanInterval(mean, lower, upper)


def _mean(values: np.ndarray) -> float:
    """The mean, NaN of nothing."""
    return float(values.mean()) if values.size else np.nan


def _ambiguous_share(graph: NNKGraph) -> float:
    """The share of the neighbourhoods that are ambiguous; NaN where there are none."""
    exists = np.asarray(graph.weights > 0).any(axis=-1)
    return _mean(np.asarray(graph.ambiguous)[exists])
