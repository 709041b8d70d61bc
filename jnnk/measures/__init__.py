"""What the graphs of a layer's channels say of each other, of the whole layer and of the labels."""

from jnnk.measures._baselines import channel_cka, knn_graph, label_overlap, linear_cka
from jnnk.measures._bootstrap import OverlapInterval, overlap_interval, overlap_resamples
from jnnk.measures._chance import chance_overlap
from jnnk.measures._clustering import ChannelTree, cluster_channels, tree_lines
from jnnk.measures._consistency import AggregateConsistency, aggregate_consistency
from jnnk.measures._dimension import (
    IntrinsicDimension,
    gride,
    intrinsic_dimension,
    maximum_likelihood_dimension,
    nnk_degree,
    two_nn,
)
from jnnk.measures._interpolation import (
    channel_vote,
    error_rate,
    label_interpolation,
    label_vote,
    loo_error,
    predicted_label,
)
from jnnk.measures._layer import ChannelMeasures, LayerMeasures, measure_graphs
from jnnk.measures._overlap import channel_overlap, cross_overlap, overlap_by_image
from jnnk.measures._overlap_kinds import OVERLAP_KINDS, OverlapKind
from jnnk.measures._plan import GraphBytes, LayerPlan, Rates, plan_layer
from jnnk.measures._redundancy import (
    RedundancyCurve,
    channels_to_cover,
    redundancy,
    redundancy_by_image,
    redundancy_curve,
)
from jnnk.measures._statistics import (
    Correlation,
    MeanInterval,
    correlation,
    mean_and_std,
    mean_interval,
)

__all__ = [
    "OVERLAP_KINDS",
    "AggregateConsistency",
    "ChannelMeasures",
    "ChannelTree",
    "Correlation",
    "GraphBytes",
    "IntrinsicDimension",
    "LayerMeasures",
    "LayerPlan",
    "MeanInterval",
    "OverlapInterval",
    "OverlapKind",
    "Rates",
    "RedundancyCurve",
    "aggregate_consistency",
    "chance_overlap",
    "channel_cka",
    "channel_overlap",
    "channel_vote",
    "channels_to_cover",
    "cluster_channels",
    "correlation",
    "cross_overlap",
    "error_rate",
    "gride",
    "intrinsic_dimension",
    "knn_graph",
    "label_interpolation",
    "label_overlap",
    "label_vote",
    "linear_cka",
    "loo_error",
    "maximum_likelihood_dimension",
    "mean_and_std",
    "mean_interval",
    "measure_graphs",
    "nnk_degree",
    "overlap_by_image",
    "overlap_interval",
    "overlap_resamples",
    "plan_layer",
    "predicted_label",
    "redundancy",
    "redundancy_by_image",
    "redundancy_curve",
    "tree_lines",
    "two_nn",
]
