"""What one wants to know of a run first: what is redundant, what can go, what does it cost."""

from dataclasses import dataclass, field

from jnnk.files.schema import BESIDE, OPTIONAL
from jnnk.report.output import percent, points
from jnnk.report.page import Answer
from jnnk.runs.divergence import TRAINING
from jnnk.runs.overlap_files import by_redundancy, last_epoch
from jnnk.runs.records import Divergence, Latency, PruningResult, Results
from jnnk.runs.settings import PruneConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class OverlapHeadline:
    """Channels at the last epoch measured.

    Attributes:
        most_redundant_layer: name of the layer of highest redundancy.
        redundancy: its redundancy, in [0, 1]; None where undefined in every layer.
        deepest_layer: name of the last layer measured.
        overlap: its mean overlap, in [0, 1].
        loo_error: its leave-one-out error, in [0, 1].
        dead_channels: of all layers.
    """

    most_redundant_layer: str
    redundancy: float | None
    deepest_layer: str
    overlap: float | None
    loo_error: float
    dead_channels: int

    @property
    def redundancy_in_words(self) -> str:
        """Two digits; 0 where no layer has two live channels."""
        return f"{self.redundancy or 0:.2f}"


@dataclass(frozen=True, kw_only=True)
class PruningHeadline:
    """The kernels pruned, and what that cost.

    Attributes:
        criterion: by which the network was pruned.
        share: of its conv kernels, in [0, 1].
        is_share_given: whether that share was asked for.
        tolerance: accuracy that may be lost otherwise, in points.
        best_criterion: the one of the sweep that spares most within the tolerance.
        best_share: what it spares.
        before, pruned, finetuned: test accuracy, in [0, 1].
        kernels, filters, params, macs: whole, and kept by the mask; MACs None where not known.
        latency: None where not timed.
    """

    criterion: str
    share: float
    is_share_given: bool
    tolerance: float
    best_criterion: str
    best_share: float
    before: float
    pruned: float
    finetuned: float
    kernels: tuple[int, int]
    filters: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int] | None
    latency: Latency | None


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The numbers of a run that are told first and compared; None for what has not run.

    Attributes:
        model: the network's name.
        dataset: the data set's.
        diverged: part to place of the trainings that diverged. If the run's own did, all of the
            following are None.
        test_accuracy: after the last epoch of training, in [0, 1].
        overlap: of the channels.
        pruning: of the kernels.
    """

    model: str
    dataset: str
    diverged: dict[str, Divergence] | None = field(default=None, metadata=OPTIONAL)
    test_accuracy: float | None = field(default=None, metadata=OPTIONAL)
    overlap: OverlapHeadline | None = field(default=None, metadata=BESIDE)
    pruning: PruningHeadline | None = field(default=None, metadata=BESIDE)


def headline(config: TrainConfig, results: Results) -> Headline:
    """The numbers of a run that are told first.

    Args:
        config: how the run was trained.
        results: of :func:`jnnk.runs.contents.collect`.
    """
    pruning, settings = results.pruning, results.pruning_settings
    return Headline(
        model=config.model,
        dataset=config.dataset,
        diverged=results.diverged or None,
        test_accuracy=results.training[-1].test_accuracy
        if results.training and TRAINING not in results.diverged
        else None,
        overlap=_of_overlap(results) if results.overlap else None,
        pruning=None if pruning is None or settings is None else _of_pruning(pruning, settings),
    )


def answers(numbers: Headline) -> list[Answer]:
    """The headline in words, a question each.

    Args:
        numbers: of a run.
    """
    told = []
    if numbers.diverged:
        told.append(_what_diverged(numbers.diverged))
    if numbers.test_accuracy is not None:
        text = f"of the test images of {numbers.dataset} classified right by {numbers.model}"
        told.append(Answer("How good is it?", percent(numbers.test_accuracy), text))
    if (overlap := numbers.overlap) is not None:
        text = (
            f"redundancy of {overlap.most_redundant_layer}, the highest of all layers (0: no "
            f"two channels share neighbours, 1: all say the same); {overlap.dead_channels} "
            "channels are dead"
        )
        told.append(Answer("What is redundant?", overlap.redundancy_in_words, text))
    if numbers.pruning is not None:
        told += [_what_can_go(numbers.pruning), _what_it_costs(numbers.pruning)]
    return told


def _what_diverged(parts: dict[str, Divergence]) -> Answer:
    """Which trainings diverged, and what is therefore left out."""
    where = "; ".join(f"{name}: no finite loss at {at}" for name, at in parts.items())
    if TRAINING in parts:
        text = "this network is no result, and nothing measured on it is shown"
    else:
        text = "these parts are no results and are left out"
    return Answer("What went wrong?", "diverged", f"{where}; {text}. Try a smaller learning rate")


def _of_overlap(results: Results) -> OverlapHeadline:
    """The most redundant and the last layer, at the last epoch measured."""
    last = last_epoch(results.overlap)
    most, deepest = by_redundancy(last)[0], last[-1]
    return OverlapHeadline(
        most_redundant_layer=most.layer,
        redundancy=most.measures.redundancy.mean,
        deepest_layer=deepest.layer,
        overlap=deepest.measures.overlap.mean,
        loo_error=deepest.measures.loo_error,
        dead_channels=sum(record.measures.dead_channels for record in last),
    )


def _of_pruning(result: PruningResult, settings: PruneConfig) -> PruningHeadline:
    """What was pruned and at which accuracy, and the criterion that would spare most."""
    sweep = result.sweep
    spared = {
        name: sweep.largest_share(name, tolerance=settings.tolerance) for name in sweep.criteria
    }
    best = max(spared, key=spared.__getitem__)
    if spared[best] == spared[result.criterion]:
        best = result.criterion
    return PruningHeadline(
        criterion=result.criterion,
        share=result.share_requested,
        is_share_given=settings.share is not None,
        tolerance=settings.tolerance,
        best_criterion=best,
        best_share=spared[best],
        before=result.pruned.accuracy_before,
        pruned=result.pruned.accuracy_pruned,
        finetuned=result.pruned.accuracy_finetuned,
        kernels=result.kept.kernels,
        filters=result.kept.filters,
        params=result.kept.params,
        macs=result.kept.macs,
        latency=result.latency,
    )


def _what_can_go(numbers: PruningHeadline) -> Answer:
    """The share of kernels pruned, and why that one."""
    whole, kept = numbers.kernels
    within = f"at most {points(numbers.tolerance)} lost"
    why = "the share asked for" if numbers.is_share_given else within
    text = f"of the conv kernels, {whole - kept:,} of {whole:,}, by {numbers.criterion} ({why})"
    if not numbers.is_share_given and numbers.best_share > numbers.share:
        text += f"; {numbers.best_criterion} would spare {percent(numbers.best_share)}"
    return Answer("What can go?", percent(numbers.share), text)


def _what_it_costs(numbers: PruningHeadline) -> Answer:
    """The change of test accuracy after fine-tuning, in points."""
    change = 100 * (numbers.finetuned - numbers.before)
    text = (
        f"points of test accuracy after fine-tuning, {percent(numbers.before)} to "
        f"{percent(numbers.finetuned)} ({percent(numbers.pruned)} without)"
    )
    return Answer("What does it cost?", f"{change:+.2f}", text)


def costs(numbers: PruningHeadline) -> list[list[str]]:
    """Before and after the pruning: rows of a name and two values in words.

    Args:
        numbers: of the pruning.
    """
    rows = [
        ["test accuracy, pruned", percent(numbers.before), percent(numbers.pruned)],
        ["test accuracy, fine-tuned", percent(numbers.before), percent(numbers.finetuned)],
    ]
    for what, counts in (
        ("conv kernels", numbers.kernels), ("filters with a kernel", numbers.filters),
        ("parameters", numbers.params), ("MACs an image", numbers.macs),
    ):  # fmt: skip
        if counts is not None:
            rows.append([what, *(f"{count:,}" for count in counts)])
    if times := numbers.latency:
        what = f"latency of {times.images} images ({times.device})"
        rows.append([what, *(f"{ms:.2f} ms" for ms in (times.whole, times.compacted))])
    return rows


def why_time_differs(numbers: PruningHeadline) -> str:
    """Why fewer kernels need not mean less time.

    Args:
        numbers: of the pruning.
    """
    whole, kept = numbers.filters
    if whole == kept:
        return (
            "Every filter has kernels left: only filters that no kept kernel reads can be removed "
            "from the arrays. The fewer MACs need sparse hardware; the two latencies may hardly "
            "differ."
        )
    return (
        f"{whole - kept} of {whole} filters have no kernel left and are removed from the arrays "
        "(jnnk.compact); latency is that of the network without them, MACs count kernels."
    )
