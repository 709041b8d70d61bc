"""The overview of a run, and the report's sections on its training and on whole channels."""

from collections.abc import Mapping

from jnnk.network._names import layer_of_leaf
from jnnk.report.figures import overview as figures
from jnnk.report.headline import PruningHeadline, costs, why_time_differs
from jnnk.report.output import draw, percent
from jnnk.report.page import Drawing, Section
from jnnk.runs.folder import Run
from jnnk.runs.overlap_files import last_epoch
from jnnk.runs.records import ChannelPruningResult, EpochMetrics, Results


def overview(run: Run, results: Results, pruning: PruningHeadline | None) -> Section | None:
    """Redundancy and pruning layer by layer, and before and after in numbers."""
    drawings = _by_layer(run, results) if results.overlap else []
    if pruning is not None:
        table = (["", "before", "after"], costs(pruning))
        return Section("", why_time_differs(pruning), drawings, table)
    return Section("", "", drawings) if drawings else None


def _by_layer(run: Run, results: Results) -> list[Drawing]:
    counts = {
        layer_of_leaf(layer.path.removeprefix("params/")): layer.kernels
        for layer in (results.pruning.kept.layers if results.pruning else ())
    }
    rows = [
        figures.LayerOverview(
            record.layer, record.measures.redundancy.mean, *counts.get(record.layer, (None, None))
        )
        for record in last_epoch(results.overlap)
    ]
    caption = "Redundancy of every layer's channels"
    caption += ", and the share of its kernels that were pruned." if counts else "."
    return [draw(run, "overview", figures.redundancy_and_pruning(rows), caption, rows)]


def training_sections(run: Run, training: tuple[EpochMetrics, ...]) -> list[Section]:
    """Loss and accuracy by epoch, of a network that was trained."""
    if not training:
        return []
    last = training[-1]
    text = (
        f"After epoch {last.epoch}: {percent(last.test_accuracy)} of the test images, "
        f"{percent(last.accuracy)} of the (augmented) training batches."
    )
    figure, caption = figures.training_curves(training), "Training loss and accuracy by epoch."
    drawing = draw(run, "training", figure, caption, training)
    return [Section("How well does the network classify?", text, [drawing])]


def channels_sections(channels: Mapping[str, ChannelPruningResult]) -> list[Section]:
    """A row for every pruning of whole channels."""
    if not channels:
        return []
    header = [
        "chosen by", "share removed", "accuracy before", "at once", "fine-tuned", "MACs before",
        "after", "ms a batch before", "after",
    ]  # fmt: skip
    rows = []
    for name, result in channels.items():
        pruned, times = result.pruned, result.latency
        accuracies = (pruned.accuracy_before, pruned.accuracy_pruned, pruned.accuracy_finetuned)
        macs = result.kept.macs or (None, None)
        latency = (times.whole, times.compacted) if times else (None, None)
        rows.append([name, *map(percent, (result.share, *accuracies)), *macs, *latency])
    text = "Whole channels, removed from the arrays, after fine-tuning."
    return [Section("What if whole channels go?", text, table=(header, rows))]
