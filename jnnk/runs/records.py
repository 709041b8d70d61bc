"""The records that a run folder keeps as JSON; in a file more keys may be there.

Files are written by this program and read as if by anyone: a key that is missing or of another type
is an error that names the file, and so are parts that do not belong together.
`jnnk.files.schema` tells how a record lies in a JSON object.
"""

import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import numpy as np

from jnnk.files.schema import BESIDE, OPTIONAL, JsonObject, conform
from jnnk.measures import mean_and_std
from jnnk.pruning import EigenvalueKinds, Intersection, MaskSummary
from jnnk.runs.protocols import ProtocolConfig
from jnnk.runs.settings import PruneConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Key = TypeVar("Key", bound=Hashable)
Record = TypeVar("Record")
Summary = TypeVar("Summary", bound="DataclassInstance")


@dataclass(frozen=True)
class Spread:
    """A mean over repetitions and their standard deviation (n - 1); None where there are too few.

    In JSON ``NAME`` and ``NAME_std``.
    """

    mean: float | None
    std: float | None

    SUFFIXES: ClassVar = {"mean": "", "std": "_std"}


def spread(values: Sequence[float | None]) -> Spread:
    """Mean and standard deviation over repetitions, of what is not None."""
    return Spread(*mean_and_std(list(values)))


def over_seeds(
    kind: type[Summary], records: Iterable[Any], *, by: Sequence[str], summed: Sequence[str] = ()
) -> tuple[Summary, ...]:
    """A record of class ``kind`` for each combination of the fields named in ``by``.

    Its fields of class `Spread` are over the records' fields of the same names, and ``summed``
    names sums of whole numbers, such as how many are true. ``seeds`` is the number of records.
    """
    spreads = [each.name for each in fields(kind) if each.type is Spread]
    summaries: list[Summary] = []
    groups = grouped(records, lambda record: tuple(getattr(record, name) for name in by))
    for key, rows in groups.items():
        found = {name: [getattr(row, name) for row in rows] for name in (*spreads, *summed)}
        values = {name: spread(found[name]) for name in spreads}
        sums = {name: sum(found[name]) for name in summed}
        shared = dict(zip(by, key, strict=True))
        summaries.append(kind(**{"seeds": len(rows), **shared, **values, **sums}))
    return tuple(summaries)


def grouped(records: Iterable[Record], key: Callable[[Record], Key]) -> dict[Key, list[Record]]:
    """The records by what a function tells of them, in the order in which groups appear."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """A line of ``metrics.jsonl``: an epoch of training."""

    epoch: int  # from 1
    # mean over the steps; None where it was not finite and an earlier version trained on
    loss: float | None
    cross_entropy: float | None  # its first term, likewise
    accuracy: float  # in [0, 1], of the training batches
    # L1 penalty plus the regulariser's value
    penalty: float | None = field(default=None, metadata=OPTIONAL)
    test_accuracy: float  # in [0, 1], after the epoch
    seconds: float | None = field(default=None, metadata=OPTIONAL)  # wall clock
    # with early stopping, by what is watched: the errors of its channels, or one
    errors: dict[str, tuple[float | None, ...]] | None = field(default=None, metadata=OPTIONAL)
    # likewise, how many of them are out of patience
    stopped_channels: dict[str, int] | None = field(default=None, metadata=OPTIONAL)
    stopped: bool | None = field(default=None, metadata=OPTIONAL)  # whether training ended here
    # the same of a rule that is only watched
    would_stop: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class DivergedEpoch:
    """The last line of ``metrics.jsonl`` of a training that diverged."""

    epoch: int  # from 1
    loss: None = None  # by it a reader of any version sees that the training diverged
    diverged_at_step: int | None  # see `Divergence`


MetricsLine = EpochMetrics | DivergedEpoch


class Divergence(NamedTuple):
    """Where a training diverged."""

    epoch: int  # counted from 1
    # of that epoch, counted from 1; None where the loss of every step was finite and the network's
    # answers were not, or an earlier version noted no step
    step: int | None

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step} of "
        return f"{step}epoch {self.epoch}"


@dataclass(frozen=True)
class Interval:
    """A mean over images and the limits of its 95 % bootstrap interval; None where undefined.

    In JSON ``NAME``, ``NAME_lower`` and ``NAME_upper``.
    """

    mean: float | None
    lower: float | None
    upper: float | None

    SUFFIXES: ClassVar = {"mean": "", "lower": "_lower", "upper": "_upper"}


@dataclass(frozen=True, kw_only=True)
class LayerMeasures:
    """What was measured of a layer; see `jnnk.measures.LayerMeasures`. None is undefined."""

    channels: int
    dead_channels: int
    overlap: Interval
    overlap_by_chance: float | None
    redundancy: Interval
    channel_degree: Interval
    degree: Interval
    mle_dimension: Interval
    two_nn_dimension: float | None
    channel_loo_error: float | None
    vote_loo_error: float
    loo_error: float
    converged: float | None = None  # earlier versions did not note these two
    ambiguous: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A JSON file of ``overlap/``: a layer at an epoch."""

    epoch: int | Literal["random"]  # ``"random"`` for the control with random weights
    depth: int  # place of the layer in the network, from 0
    layer: str  # its name
    measures: LayerMeasures = field(metadata=BESIDE)  # what was measured of it


@dataclass(frozen=True, kw_only=True)
class OverlapSettings:
    """What the report says of ``overlap/settings.json``; see `jnnk.runs.settings.OverlapConfig`."""

    images: int
    neighbors: int
    similarity: str


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """A network pruned by a criterion, without fine-tuning."""

    share: float  # of the conv kernels pruned
    accuracy: float  # in [0, 1]
    params: int  # parameters left
    score: float  # `jnnk.pruning.pruning_score`


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """``prune/sweep.json``: accuracy by criterion and share."""

    images: int  # number of test images
    accuracy: float  # of the whole network on them
    criteria: dict[str, tuple[SweepPoint, ...]]  # name to points of ascending share, one or more

    def __post_init__(self) -> None:
        for name, points in self.criteria.items():
            shares = [point.share for point in points]
            _require(f"criteria.{name}", bool(shares) and shares == sorted(shares))

    def largest_share(self, criterion: str, *, tolerance: float) -> float:
        """The largest share up to which no more accuracy is lost than the tolerance.

        Args:
            criterion: one that was swept.
            tolerance: in percentage points.

        Returns:
            The share, 0 where the first one already loses more.
        """
        chosen = 0.0
        for point in self.criteria[criterion]:
            if 100 * (self.accuracy - point.accuracy) > tolerance + 1e-9:
                break
            chosen = point.share
        return chosen


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What a pruning gains in time."""

    device: str  # its kind
    images: int  # a batch
    whole: float  # milliseconds a batch of the whole network
    compacted: float  # the same of the compacted one


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A network before and after it was pruned and fine-tuned, on all test images."""

    accuracy_before: float  # in [0, 1], of the whole network
    accuracy_pruned: float  # without fine-tuning
    accuracy_finetuned: float  # after fine-tuning under the mask
    finetune_epochs: int  # its epochs
    revived_weights: int  # pruned weights that are not zero after it; 0 unless something is wrong


@dataclass(frozen=True, kw_only=True)
class ScoreQuantiles:
    """The scores of a layer's kernels by a criterion, in the unit of the weights."""

    layer: str  # path of the convolution
    criterion: str  # name
    kernels: int  # their number
    # least, first quartile, median, third quartile, largest
    quantiles: tuple[float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class BelowThresholds:
    """Shares of the kernels whose score by a criterion is below each threshold."""

    criterion: str  # name
    layer: str | None  # path of the convolution; None for the whole network
    shares: tuple[float, ...]  # (T,) in [0, 1]


@dataclass(frozen=True, kw_only=True)
class PrunedLayer:
    """A layer when all criteria prune the same share of the network."""

    layer: str  # path of the convolution
    kernels: int  # their number
    # criterion to the share of them that it prunes; each an entry of its own in JSON
    shares: dict[str, float] = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class KernelHistory:
    """The kernels of a network at an epoch of training."""

    epoch: int  # from 0
    real: float  # share of the kernels that have real eigenvalues only
    # criterion to the share of the kernels below its threshold; each an entry of its own in JSON
    shares: dict[str, float] = field(metadata=BESIDE)


@dataclass(frozen=True, kw_only=True)
class KernelAnalysis:
    """What the criteria say of a network's kernels."""

    # a row per criterion and layer. `random` and `taylor` are in none of these: they have no
    # scores in the unit of the weights.
    scores: tuple[ScoreQuantiles, ...]
    thresholds: tuple[float, ...]  # (T,) ascending
    # for each criterion the network's row and one for each layer
    by_threshold: tuple[BelowThresholds, ...]
    by_layer: tuple[PrunedLayer, ...]  # a row per layer
    # kernels that exactly these criteria prune, those of most kernels first
    agreement: tuple[Intersection, ...]
    eigenvalues: tuple[EigenvalueKinds, ...]  # a row for each layer of square kernels

    @staticmethod
    def nest(value: JsonObject) -> JsonObject:
        """The shares by criterion in an object of their own; ``scores`` name the criteria."""
        return _nest_shares(value, "by_layer", _criteria_of(value, "scores", ScoreQuantiles))

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria compared, none where the network was pruned by others alone."""
        return tuple(dict.fromkeys(row.criterion for row in self.scores))

    @property
    def of_network(self) -> dict[str, np.ndarray]:
        """Criterion to the shares (T,) of the whole network's kernels below each threshold."""
        return {r.criterion: np.array(r.shares) for r in self.by_threshold if r.layer is None}

    def __post_init__(self) -> None:
        criteria = set(self.criteria)
        _require("by_layer", bool(self.by_layer))
        _require("by_layer", all(row.shares.keys() == criteria for row in self.by_layer))
        _require("agreement", bool(self.agreement) == bool(criteria))
        _require("agreement", all(set(row.criteria) <= criteria for row in self.agreement))
        _require("eigenvalues", all(row.kernels > 0 for row in self.eigenvalues))
        if not criteria:
            return
        of_network = [row.criterion for row in self.by_threshold if row.layer is None]
        _require("by_threshold", sorted(of_network) == sorted(criteria))
        layers = {
            name: [r for r in self.by_threshold if r.criterion == name and r.layer is not None]
            for name in criteria
        }
        _require("by_threshold", len({len(rows) for rows in layers.values()}) == 1)
        _require("by_threshold", all(layers.values()))
        _require("by_threshold", all(row.criterion in criteria for row in self.by_threshold))
        lengths = {len(row.shares) for row in self.by_threshold}
        _require("by_threshold", lengths == {len(self.thresholds)} and bool(self.thresholds))
        _require("thresholds", all(0 < a < b for a, b in itertools.pairwise(self.thresholds)))


@dataclass(frozen=True, kw_only=True)
class PruningResult:
    """``prune/result.json``; see `jnnk.jobs.prune.prune`."""

    criterion: str  # by which the network was pruned
    share_requested: float  # of its conv kernels
    sweep: Sweep  # accuracy by criterion and share, without fine-tuning
    pruned: FineTuned  # the network in the end
    kept: MaskSummary  # what the mask keeps
    # None in records of earlier versions
    latency: Latency | None = None
    compared_share: float  # of the network's kernels, at which the criteria are compared
    analysis: KernelAnalysis = field(metadata=BESIDE)  # what they say
    history: tuple[KernelHistory, ...]  # the kernels of the epochs kept, ascending

    @staticmethod
    def nest(value: JsonObject) -> JsonObject:
        """The shares by criterion in an object of their own; ``scores`` name the criteria."""
        return _nest_shares(value, "history", _criteria_of(value, "scores", ScoreQuantiles))

    def __post_init__(self) -> None:
        criteria = self.analysis.criteria
        _require("sweep.criteria", {self.criterion, *criteria} <= self.sweep.criteria.keys())
        _require("scores", not criteria or self.criterion in ("random", "taylor", *criteria))
        _require_history(self.history, criteria)
        _require_kept(self.kept)


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """A network whose pruned channels were removed from its arrays."""

    largest_difference_of_logits: float  # between it and the masked one


@dataclass(frozen=True, kw_only=True)
class ChannelPruningResult:
    """``channels/CRITERION/result.json``; see `jnnk.jobs.prune_channels.prune_channels`."""

    criterion: str  # by which channels were chosen
    share: float  # of the channels of every group that were removed, without shares of their own
    pruned: FineTuned = field(metadata=BESIDE)  # the network before and after
    kept: MaskSummary  # what the mask keeps
    # None in records of earlier versions
    latency: Latency | None = None
    compacted: Compacted  # the network without these channels

    def __post_init__(self) -> None:
        _require_kept(self.kept)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A seed and criterion of a protocol; accuracies are in [0, 1]."""

    seed: int  # of initialisation and order
    criterion: str  # name
    pruned: float  # share of the conv kernels pruned
    params: float  # share of the parameters kept
    accuracy_l1: float  # after the L1 training
    accuracy_pruned: float  # without retraining
    accuracy_retrained: float  # after retraining under the mask
    score: float  # `jnnk.pruning.pruning_score`
    revived_weights: int  # pruned weights that are not zero in the end


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """A criterion over the seeds of a protocol; see `Trial`."""

    criterion: str
    seeds: int
    pruned: Spread
    accuracy_l1: Spread
    accuracy_pruned: Spread
    accuracy_retrained: Spread
    score: Spread


@dataclass(frozen=True, kw_only=True)
class ProtocolResult:
    """``protocol/NAME/result.json``; see `jnnk.jobs.protocol.protocol`."""

    settings: ProtocolConfig  # of the protocol
    in_paper: bool  # whether the paper tried this network so
    trials: tuple[Trial, ...]  # a row per seed and criterion
    summary: tuple[TrialSummary, ...]  # a row per criterion
    history: tuple[KernelHistory, ...]  # the kernels of the first seed's L1 training

    @staticmethod
    def nest(value: JsonObject) -> JsonObject:
        """The shares by criterion in an object of their own; ``summary`` names the criteria."""
        return _nest_shares(value, "history", _criteria_of(value, "summary", TrialSummary))

    def __post_init__(self) -> None:
        _require("trials", bool(self.trials))
        _require("summary", bool(self.summary))
        _require_history(self.history, [row.criterion for row in self.summary])


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a run folder knows, as ``results.json`` holds it beside ``config``."""

    # the trainings that diverged, by part; their results are left out, and all that was made of
    # their networks
    diverged: dict[str, Divergence]
    training: tuple[EpochMetrics, ...]  # lines of metrics.jsonl
    # the layers measured, `"random"` first, then by epoch and depth
    overlap: tuple[LayerRecord, ...]
    overlap_matrices: dict[str, np.ndarray]  # layer to (C, C) of the last epoch measured
    pruning: PruningResult | None  # None where the network was not pruned
    pruning_settings: PruneConfig | None  # likewise
    finetuning: tuple[EpochMetrics, ...]  # lines of metrics.jsonl of that pruning
    channels: dict[str, ChannelPruningResult]  # criterion to the pruning of whole channels
    protocols: dict[str, ProtocolResult]  # by name


def _criteria_of(value: JsonObject, key: str, kind: type) -> tuple[str, ...]:
    """The criteria that the rows under a key of a JSON object name."""
    rows = conform(value.get(key, []), tuple[kind, ...], where=key)
    return tuple(dict.fromkeys(row.criterion for row in rows))


def _nest_shares(value: JsonObject, key: str, criteria: Sequence[str]) -> JsonObject:
    """The JSON object with the shares of each row under a key in ``shares``, by criterion."""
    found = value.get(key)
    rows = cast(list[JsonObject], found)
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in rows):
        return value  # refused by its type
    shares = [{name: row[name] for name in criteria if name in row} for row in rows]
    return {
        **value,
        key: [{**row, "shares": each} for row, each in zip(rows, shares, strict=True)],
    }


def _require_history(rows: Sequence[KernelHistory], criteria: Sequence[str]) -> None:
    _require("history", bool(rows) and all(row.shares.keys() == set(criteria) for row in rows))


def _require_kept(kept: MaskSummary) -> None:
    pairs = [kept.kernels, kept.filters, kept.params, kept.macs]
    pairs += [layer.kernels for layer in kept.layers]
    _require("kept", all(whole >= left >= 0 for whole, left in filter(None, pairs)))


def _require(part: str, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{part} does not belong to the rest")
