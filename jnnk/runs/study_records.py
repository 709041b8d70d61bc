"""The records that the studies of ``jnnk reproduce`` keep and write; see `jnnk.runs.records`.

Accuracies, errors and shares are in [0, 1]; a gap is the accuracy on training images minus that on
test images.
"""

from dataclasses import dataclass, field

from jnnk.files.schema import BESIDE, OPTIONAL
from jnnk.runs.records import LayerMeasures, Spread


@dataclass(frozen=True, kw_only=True)
class StudyLayer:
    """A layer of a network that a study measures."""

    depth: int  # place of the layer in the network, from 0
    layer: str  # its name
    measures: LayerMeasures = field(metadata=BESIDE)  # what was measured of it


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A small network that was trained and measured."""

    seed: int  # of the choice of images, the start and the order
    size: int  # training images
    dropout: float  # rate
    weight_decay: float  # of AdamW
    train_accuracy: float  # on its own training images
    test_accuracy: float  # on the test images
    gap: float  # their difference
    measures: LayerMeasures = field(metadata=BESIDE)  # of its last layer


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A public network, layer by layer."""

    test_accuracy: float  # on the test images
    layers: tuple[StudyLayer, ...]  # in the network's order


@dataclass(frozen=True, kw_only=True)
class PairLayer:
    """A layer of one of the networks that are compared."""

    network: str  # its name
    test_accuracy: float  # of the network
    layer: StudyLayer = field(metadata=BESIDE)  # the layer


@dataclass(frozen=True, kw_only=True)
class EpochErrors:
    """A public network at an epoch: errors of its labels' interpolation, and its channels."""

    train_error: float  # of the network itself on all images
    test_error: float  # of the network itself on all images
    gap: float  # test minus training error
    knn_error: float  # on all test images with the training images as points
    nnk_error: float  # on all test images with the training images as points
    knn_loo_error: float  # the same, leaving out training images one by one
    loo_error: float  # the same, leaving out training images one by one
    overlap: float | None  # of the last layer
    redundancy: float | None  # of the last layer
    mle_dimension: float | None  # of the last layer
    layers: tuple[StudyLayer, ...]  # in the network's order


@dataclass(frozen=True, kw_only=True)
class NetworkEpoch:
    """A public network at an epoch of its training."""

    network: str  # its name
    epoch: int  # from 1
    errors: EpochErrors = field(metadata=BESIDE)  # what was measured


@dataclass(frozen=True, kw_only=True)
class CorrelationRow:
    """Correlation of the last layer's overlap with another quantity, plain or partial."""

    group: str  # of records
    quantity: str  # name
    method: str  # `"pearson"` or `"spearman"`
    given: str  # what was held fixed, in words
    correlation: float | None  # None where undefined
    lower: float | None  # the first of its 95 % limits
    upper: float | None  # the other one
    number: int  # of records


@dataclass(frozen=True, kw_only=True)
class PairMeans:
    """Means over the layers of one of the networks that are compared; see `LayerMeasures`.

    None where undefined.
    """

    network: str  # its name
    test_accuracy: float  # of the network
    dead_channels: int  # of all layers together
    overlap: float | None  # means over the layers, from here on
    overlap_by_chance: float | None  # likewise
    redundancy: float | None  # likewise
    channel_degree: float | None  # likewise
    mle_dimension: float | None  # likewise


@dataclass(frozen=True, kw_only=True)
class LastErrors:
    """Errors of a public network after its last epoch; see `EpochErrors`."""

    network: str  # its name
    test_error: float
    knn_error: float
    nnk_error: float
    train_error: float
    knn_loo_error: float
    loo_error: float


@dataclass(frozen=True, kw_only=True)
class OverlapStudy:
    """``results.json`` of ``jnnk reproduce overlap``; None for what is not measured yet."""

    runs: tuple[TrainedNetwork, ...]  # networks trained here
    run_correlations: tuple[CorrelationRow, ...]  # over them
    # two public networks, layer by layer
    pair: tuple[PairLayer, ...] | None = field(default=None, metadata=OPTIONAL)
    # their means over the layers
    pair_means: tuple[PairMeans, ...] | None = field(default=None, metadata=OPTIONAL)
    # public networks epoch by epoch
    epochs: tuple[NetworkEpoch, ...] | None = field(default=None, metadata=OPTIONAL)
    # over these
    epoch_correlations: tuple[CorrelationRow, ...] | None = field(default=None, metadata=OPTIONAL)
    # of these after the last one
    last_errors: tuple[LastErrors, ...] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class RegularizedNetwork:
    """A network trained with a penalty on its channels."""

    penalty: str  # name, or `"none"`
    strength: float  # of the penalty
    seed: int  # of initialisation and order
    # means over the penalised layers; None where all their channels are dead
    overlap: float | None
    channel_loo_error: float | None  # likewise
    redundancy: float | None  # likewise
    accuracy: float  # on test images
    gap: float  # training minus test accuracy
    prunable: float  # share of its kernels that can be pruned
    layers: dict[str, LayerMeasures]  # the penalised layers, by name


@dataclass(frozen=True, kw_only=True)
class RegularizerSummary:
    """A penalty and strength over the seeds; see `RegularizedNetwork`."""

    penalty: str
    strength: float
    seeds: int
    overlap: Spread
    accuracy: Spread
    gap: Spread
    prunable: Spread
    channel_loo_error: Spread
    redundancy: Spread


@dataclass(frozen=True, kw_only=True)
class StoppedTraining:
    """A training that ended by a rule."""

    rule: str  # name
    seed: int  # of initialisation and order
    epochs: int  # how many
    accuracy: float  # on test images after the last
    best_accuracy: float  # after any
    images: float  # share of the images trained on
    passes: float  # images seen, in passes over all
    stopped_early: bool  # whether the rule ended it
    accuracies: tuple[float, ...]  # after every epoch
    # after every epoch, by layer; None where no channels are watched
    stopped_channels: tuple[dict[str, int] | None, ...]


@dataclass(frozen=True, kw_only=True)
class StoppingSummary:
    """A rule over the seeds, whose number is `seeds`; see `StoppedTraining`."""

    rule: str
    seeds: int
    stopped_early: int  # how many trainings the rule ended
    epochs: Spread
    accuracy: Spread
    images: Spread
    passes: Spread


@dataclass(frozen=True, kw_only=True)
class CompactCost:
    """What a network without its pruned channels costs, as shares of the whole one."""

    macs: float  # of an image
    latency: float  # of a batch


@dataclass(frozen=True, kw_only=True)
class ChannelCase:
    """A network that lost channels."""

    network: str  # its name
    keep_rate: float  # share of the channels kept
    streams: bool = False  # whether the residual streams lost as many, not the inner convs alone
    criterion: str  # by which they were chosen
    accuracy_before: float  # of the whole network
    cost: CompactCost = field(metadata=BESIDE)  # of the compacted one
    stage: str  # `"one-shot"` or `"fine-tuned"`
    seed: int  # of fine-tuning, and of a random choice
    accuracy: float  # at that stage


@dataclass(frozen=True, kw_only=True)
class ChannelSummary:
    """A network, share and criterion over the seeds; see `ChannelCase`."""

    network: str
    keep_rate: float
    streams: bool = False
    criterion: str
    cost: CompactCost = field(metadata=BESIDE)
    accuracy_before: float
    one_shot: Spread  # accuracy; None where not measured
    fine_tuned: Spread  # accuracy; None where not measured


@dataclass(frozen=True, kw_only=True)
class PrunableShare:
    """The largest share of its kernels that a network can lose by a criterion."""

    criterion: str  # name
    share: float  # of the kernels
    accuracy: float  # at it, on all test images
    accuracy_before: float  # of the whole network
    next_share: float  # of the next larger share tried, which loses too much
    next_accuracy: float  # of the next larger share tried, which loses too much
    params: float  # share of the parameters kept
    score: float  # `jnnk.pruning.pruning_score`


@dataclass(frozen=True, kw_only=True)
class PruningCase:
    """A network pruned from a start."""

    network: str  # its name
    start: str  # `"one-shot"` or `"L1 fine-tune"`
    prunable: PrunableShare = field(metadata=BESIDE)  # what it can lose
