"""The records that the studies of ``jnnk reproduce`` keep and write; see `jnnk.runs.records`.

Accuracies, errors and shares are in [0, 1]; a gap is the accuracy on training images minus that on
test images.
"""

from dataclasses import dataclass, field

from jnnk.files.schema import BESIDE, OPTIONAL
from jnnk.runs.records import LayerMeasures, Spread


@dataclass(frozen=True, kw_only=True)
class StudyLayer:
    """A layer of a network that a study measures.

    Attributes:
        depth: place of the layer in the network, from 0.
        layer: its name.
        measures: what was measured of it.
    """

    depth: int
    layer: str
    measures: LayerMeasures = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A small network that was trained and measured.

    Attributes:
        seed: of the choice of images, the start and the order.
        size: training images.
        dropout: rate.
        weight_decay: of AdamW.
        train_accuracy: on its own training images.
        test_accuracy: on the test images.
        gap: their difference.
        measures: of its last layer.
    """

    seed: int
    size: int
    dropout: float
    weight_decay: float
    train_accuracy: float
    test_accuracy: float
    gap: float
    measures: LayerMeasures = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A public network, layer by layer.

    Attributes:
        test_accuracy: on the test images.
        layers: in the network's order.
    """

    test_accuracy: float
    layers: tuple[StudyLayer, ...]


@dataclass(frozen=True, kw_only=True)
class PairLayer:
    """A layer of one of the networks that are compared.

    Attributes:
        network: its name.
        test_accuracy: of the network.
        layer: the layer.
    """

    network: str
    test_accuracy: float
    layer: StudyLayer = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class EpochErrors:
    """A public network at an epoch: errors of its labels' interpolation, and its channels.

    Attributes:
        train_error, test_error: of the network itself on all images.
        gap: test minus training error.
        knn_error, nnk_error: on all test images with the training images as points.
        knn_loo_error, loo_error: the same, leaving out training images one by one.
        overlap, redundancy, mle_dimension: of the last layer.
        layers: in the network's order.
    """

    train_error: float
    test_error: float
    gap: float
    knn_error: float
    nnk_error: float
    knn_loo_error: float
    loo_error: float
    overlap: float | None
    redundancy: float | None
    mle_dimension: float | None
    layers: tuple[StudyLayer, ...]


@dataclass(frozen=True, kw_only=True)
class NetworkEpoch:
    """A public network at an epoch of its training.

    Attributes:
        network: its name.
        epoch: from 1.
        errors: what was measured.
    """

    network: str
    epoch: int
    errors: EpochErrors = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class CorrelationRow:
    """Correlation of the last layer's overlap with another quantity, plain or partial.

    Attributes:
        group: of records.
        quantity: name.
        method: ``"pearson"`` or ``"spearman"``.
        given: what was held fixed, in words.
        correlation: None where undefined.
        lower, upper: its 95 % limits.
        number: of records.
    """

    group: str
    quantity: str
    method: str
    given: str
    correlation: float | None
    lower: float | None
    upper: float | None
    number: int


TableRow = dict[str, str | float | None]
"""A row of a table whose columns have headings in words."""


@dataclass(frozen=True, kw_only=True)
class OverlapStudy:
    """``results.json`` of ``jnnk reproduce overlap``; None for what is not measured yet.

    Attributes:
        runs: networks trained here.
        run_correlations: over them.
        pair: two public networks, layer by layer.
        pair_means: means over the layers.
        epochs: public networks epoch by epoch.
        epoch_correlations: over them.
        last_errors: in percent after the last epoch.
    """

    runs: tuple[TrainedNetwork, ...]
    run_correlations: tuple[CorrelationRow, ...]
    pair: tuple[PairLayer, ...] | None = field(default=None, metadata=OPTIONAL)
    pair_means: list[TableRow] | None = field(default=None, metadata=OPTIONAL)
    epochs: tuple[NetworkEpoch, ...] | None = field(default=None, metadata=OPTIONAL)
    epoch_correlations: tuple[CorrelationRow, ...] | None = field(default=None, metadata=OPTIONAL)
    last_errors: list[TableRow] | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class RegularizedNetwork:
    """A network trained with a penalty on its channels.

    Attributes:
        penalty: name, or ``"none"``.
        strength: of the penalty.
        seed: of initialisation and order.
        overlap, channel_loo_error, redundancy: means over the penalised layers; None where all
            their channels are dead.
        accuracy: on test images.
        gap: training minus test accuracy.
        prunable: share of its kernels that can be pruned.
        layers: the penalised layers, by name.
    """

    penalty: str
    strength: float
    seed: int
    overlap: float | None
    channel_loo_error: float | None
    redundancy: float | None
    accuracy: float
    gap: float
    prunable: float
    layers: dict[str, LayerMeasures]


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
    """A training that ended by a rule.

    Attributes:
        rule: name.
        seed: of initialisation and order.
        epochs: how many.
        accuracy: on test images after the last.
        best_accuracy: after any.
        images: share of the images trained on.
        passes: images seen, in passes over all.
        stopped_early: whether the rule ended it.
        accuracies: after every epoch.
        stopped_channels: after every epoch, by layer; None where no channels are watched.
    """

    rule: str
    seed: int
    epochs: int
    accuracy: float
    best_accuracy: float
    images: float
    passes: float
    stopped_early: bool
    accuracies: tuple[float, ...]
    stopped_channels: tuple[dict[str, int] | None, ...]


@dataclass(frozen=True, kw_only=True)
class StoppingSummary:
    """A rule over the seeds; see `StoppedTraining`.

    Attributes:
        rule: name.
        seeds: their number.
        stopped_early: how many trainings the rule ended.
        epochs, accuracy, images, passes: means.
    """

    rule: str
    seeds: int
    stopped_early: int
    epochs: Spread
    accuracy: Spread
    images: Spread
    passes: Spread


@dataclass(frozen=True, kw_only=True)
class CompactCost:
    """What a network without its pruned channels costs, as shares of the whole one.

    Attributes:
        macs: of an image.
        latency: of a batch.
    """

    macs: float
    latency: float


@dataclass(frozen=True, kw_only=True)
class ChannelCase:
    """A network that lost inner channels.

    Attributes:
        network: its name.
        keep_rate: share of the inner channels kept.
        criterion: by which they were chosen.
        accuracy_before: of the whole network.
        cost: of the compacted one.
        stage: ``"one-shot"`` or ``"fine-tuned"``.
        seed: of fine-tuning, and of a random choice.
        accuracy: at that stage.
    """

    network: str
    keep_rate: float
    criterion: str
    accuracy_before: float
    cost: CompactCost = field(metadata=BESIDE)
    stage: str
    seed: int
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class ChannelSummary:
    """A network, share and criterion over the seeds; see `ChannelCase`.

    Attributes:
        network, keep_rate, criterion, accuracy_before: of the case.
        cost: of the compacted network.
        one_shot, fine_tuned: accuracy; None where not measured.
    """

    network: str
    keep_rate: float
    criterion: str
    cost: CompactCost = field(metadata=BESIDE)
    accuracy_before: float
    one_shot: Spread
    fine_tuned: Spread


@dataclass(frozen=True, kw_only=True)
class PrunableShare:
    """The largest share of its kernels that a network can lose by a criterion.

    Attributes:
        criterion: name.
        share: of the kernels.
        accuracy: at it, on all test images.
        accuracy_before: of the whole network.
        next_share, next_accuracy: of the next larger share tried, which loses too much.
        params: share of the parameters kept.
        score: `jnnk.pruning.pruning_score`.
    """

    criterion: str
    share: float
    accuracy: float
    accuracy_before: float
    next_share: float
    next_accuracy: float
    params: float
    score: float


@dataclass(frozen=True, kw_only=True)
class PruningCase:
    """A network pruned from a start.

    Attributes:
        network: its name.
        start: ``"one-shot"`` or ``"L1 fine-tune"``.
        prunable: what it can lose.
    """

    network: str
    start: str
    prunable: PrunableShare = field(metadata=BESIDE)
