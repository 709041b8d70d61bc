"""The records that a run folder keeps as JSON; in a file more keys may be there.

Files are written by this program and read as if by anyone: a key that is missing or of another type
is an error that names the file. `jnnk.files.schema` tells how a record lies in a JSON object.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NotRequired, TypedDict

from jnnk.files.schema import BESIDE

Pair = tuple[int, int]
"""Whole, and kept by a mask."""


class Epoch(TypedDict):
    """A line of ``metrics.jsonl``."""

    epoch: int
    loss: float | None
    cross_entropy: float | None
    accuracy: float
    test_accuracy: float
    errors: NotRequired[dict[str, list[float | None]]]
    stopped: NotRequired[bool]


class DivergedEpoch(TypedDict):
    """The last line of ``metrics.jsonl`` of a training that diverged."""

    epoch: int
    loss: None
    diverged_at_step: int | None


MetricsLine = Epoch | DivergedEpoch


@dataclass(frozen=True, kw_only=True)
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
    """What `jnnk.jobs.overlap.measure_layer` measures of a layer.

    Attributes:
        channels: their number, C.
        dead_channels: those whose activation is 0 on every image.
        overlap: mean over the pairs of different live channels.
        overlap_by_chance: its expectation if neighbours were drawn at random.
        redundancy: of the layer's channels.
        channel_degree: NNK neighbours an image, mean over the live channels' graphs.
        degree: the same of the graph of the layer's whole vectors.
        mle_dimension: intrinsic dimension of the whole vectors, by maximum likelihood.
        two_nn_dimension: the same, by the two nearest neighbours.
        channel_loo_error: leave-one-out error, mean over the live channels.
        vote_loo_error: of the channels' common vote.
        loo_error: of the whole vectors.
        converged: share of the channels' NNK problems; None in records of earlier versions.
        ambiguous: share of the channels' neighbourhoods; None also where there are none.
    """

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
    converged: float | None = None
    ambiguous: float | None = None


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A JSON file of ``overlap/``: a layer at an epoch.

    Attributes:
        epoch: ``"random"`` for the control with random weights.
        depth: place of the layer in the network, from 0.
        layer: its name.
        measures: what was measured of it.
    """

    epoch: int | Literal["random"]
    depth: int
    layer: str
    measures: LayerMeasures = field(metadata=BESIDE)


class SweepPoint(TypedDict):
    """A criterion at a share."""

    share: float
    accuracy: float
    params: int
    score: float


class Sweep(TypedDict):
    """``prune/sweep.json``."""

    images: int
    accuracy: float
    criteria: dict[str, list[SweepPoint]]


class Latency(TypedDict):
    """See `jnnk.jobs.latency.latency_gain`."""

    device: str
    images: int
    whole: float
    compacted: float


class KeptLayer(TypedDict):
    """See `jnnk.pruning.LayerSummary`."""

    path: str
    kernels: Pair


class Kept(TypedDict):
    """See `jnnk.pruning.MaskSummary`."""

    layers: list[KeptLayer]
    kernels: Pair
    filters: Pair
    params: Pair
    macs: Pair | None


class Pruned(TypedDict):
    """The network in the end."""

    accuracy_before: float
    accuracy_pruned: float
    accuracy_finetuned: float
    finetune_epochs: int
    revived_weights: int


class Scores(TypedDict):
    """Quantiles of a layer's scores by a criterion."""

    layer: str
    criterion: str
    kernels: int
    quantiles: tuple[float, float, float, float, float]


class BelowThresholds(TypedDict):
    """Shares of the kernels below each threshold; of the whole network where the layer is null."""

    layer: str | None
    criterion: str
    shares: list[float]


class Agreement(TypedDict):
    """Kernels that exactly these criteria prune."""

    criteria: list[str]
    kernels: int


class Eigenvalues(TypedDict):
    """See `jnnk.pruning.EigenvalueKinds`."""

    layer: str
    size: int
    kernels: int
    real: int
    kept: int
    kept_real: int


class Pruning(TypedDict):
    """``prune/result.json``; see `jnnk.jobs.prune.prune`."""

    criterion: str
    share_requested: float
    sweep: Sweep
    pruned: Pruned
    kept: Kept
    latency: NotRequired[Latency | None]  # runs of an earlier version did not time it
    compared_share: float
    scores: list[Scores]
    thresholds: list[float]
    by_threshold: list[BelowThresholds]
    by_layer: list[dict[str, str | float]]
    agreement: list[Agreement]
    eigenvalues: list[Eigenvalues]
    history: list[dict[str, float]]


class PruneSettings(TypedDict):
    """What the report says of ``prune/settings.json``."""

    share: float | None
    tolerance: float


class ChannelPruning(TypedDict):
    """``channels/CRITERION/result.json``; see `jnnk.jobs.prune_channels.prune_channels`."""

    criterion: str
    share: float
    accuracy_before: float
    accuracy_pruned: float
    accuracy_finetuned: float
    kept: Kept
    latency: NotRequired[Latency | None]


class ProtocolSettings(TypedDict):
    """What the report says of a protocol's settings."""

    scratch: bool
    epochs: int
    retrain_epochs: int
    l1: float
    threshold: float


class Trial(TypedDict):
    """A seed and criterion of a protocol."""

    seed: int
    criterion: str
    pruned: float
    accuracy_l1: float
    accuracy_pruned: float
    accuracy_retrained: float
    score: float


class TrialSummary(TypedDict):
    """A criterion over the seeds of a protocol."""

    criterion: str
    seeds: int
    pruned: float
    pruned_std: float | None
    accuracy_l1: float
    accuracy_l1_std: float | None
    accuracy_pruned: float
    accuracy_pruned_std: float | None
    accuracy_retrained: float
    accuracy_retrained_std: float | None
    score: float
    score_std: float | None


class Protocol(TypedDict):
    """``protocol/NAME/result.json``; see `jnnk.jobs.protocol.protocol`."""

    settings: ProtocolSettings
    in_paper: bool
    trials: list[Trial]
    summary: list[TrialSummary]
    history: list[dict[str, float]]


def check_sweep(sweep: dict[str, Any], *, criteria: Sequence[str]) -> None:
    """Refuses a `Sweep` that lacks one of the criteria.

    Args:
        sweep: of that form.
        criteria: those that were asked for.

    Raises:
        ValueError: naming them.
    """
    if missing := [name for name in criteria if not sweep["criteria"].get(name)]:
        raise ValueError(f"criteria: {', '.join(missing)} missing")


def check_pruning(record: dict[str, Any]) -> None:
    """Refuses a `Pruning` whose parts do not belong together.

    Args:
        record: of that form.

    Raises:
        ValueError: naming the part.
    """
    swept, thresholds = record["sweep"]["criteria"], record["thresholds"]
    told = [row["criterion"] for row in record["scores"]]
    criterion = record["criterion"]
    _require("sweep.criteria", criterion in swept and all(swept.values()))
    for name, points in swept.items():
        shares = [point["share"] for point in points]
        _require(f"sweep.criteria.{name}", shares == sorted(shares))
    _require("by_layer", bool(record["by_layer"]))
    first = record["by_layer"][0]
    criteria = [name for name in first if name not in ("layer", "kernels")]
    for row in record["by_layer"]:
        _require("by_layer", row.keys() == first.keys() and isinstance(row.get("layer"), str))
        numbers = [value for name, value in row.items() if name != "layer"]
        _require("by_layer", "kernels" in row and not any(isinstance(v, str) for v in numbers))
    _require(
        "agreement", bool(record["agreement"]) == bool(criteria)
    )  # none of Taylor scores alone
    _require("agreement", all(set(row["criteria"]) <= set(criteria) for row in record["agreement"]))
    _require("eigenvalues", all(row["kernels"] > 0 for row in record["eigenvalues"]))
    _require_history(record["history"])
    _require("kept", all(whole >= kept >= 0 for whole, kept in _pairs(record["kept"])))
    if not told:
        return
    # These two have no scores in the unit of the weights.
    _require("scores", criterion in ("random", "taylor", *told))
    network = [row["criterion"] for row in record["by_threshold"] if row["layer"] is None]
    _require("by_threshold", sorted(network) == sorted(set(told)) and set(network) <= swept.keys())
    layered = {name: 0 for name in network}
    for row in record["by_threshold"]:
        _require("by_threshold", len(row["shares"]) == len(thresholds) > 0)
        if row["layer"] is not None:
            _require("by_threshold", row["criterion"] in layered)
            layered[row["criterion"]] += 1
    _require("by_threshold", len(set(layered.values())) == 1 and min(layered.values()) > 0)
    _require("thresholds", all(0 < a < b for a, b in itertools.pairwise(thresholds)))


def check_protocol(record: dict[str, Any]) -> None:
    """Refuses a `Protocol` whose parts do not belong together.

    Args:
        record: of that form.

    Raises:
        ValueError: naming the part.
    """
    _require("summary", bool(record["summary"]))
    _require("trials", bool(record["trials"]))
    _require_history(record["history"])


def _require_history(records: Sequence[dict]) -> None:
    _require("history", bool(records))
    for row in records:
        _require("history", {"epoch", "real"} <= row.keys() == records[0].keys())


def _pairs(kept: dict[str, Any]) -> list[Pair]:
    pairs = [kept[name] for name in ("kernels", "filters", "params", "macs")]
    return [pair for pair in (*pairs, *(row["kernels"] for row in kept["layers"])) if pair]


def _require(part: str, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{part} does not belong to the rest")
