"""What one wants to know of a run first: what is redundant, what can go, what does it cost."""

from typing import Any

from jnnk.pruning import largest_share
from jnnk.report.output import percent, points
from jnnk.report.page import Answer
from jnnk.runs.divergence import TRAINING, Divergence
from jnnk.runs.overlap_files import last_epoch


def headline(results: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run that are told first, and compared between runs.

    Args:
        results: of :func:`jnnk.jobs.report.collect`.

    Returns:
        By name; what has not run is left out, and of a training that diverged all but
        ``diverged``, part to epoch and step. Accuracies, errors and shares are in [0, 1];
        ``kernels``, ``filters``, ``params`` and ``macs`` are pairs (whole, kept), ``latency`` is
        the record of :func:`jnnk.jobs.latency.latency_gain`. ``best_criterion`` is the one of the
        sweep that spares most within the tolerance, ``best_share`` what it spares.
    """
    found = {name: results["config"][name] for name in ("model", "dataset")}
    if results["diverged"]:
        found["diverged"] = {name: at._asdict() for name, at in results["diverged"].items()}
    if TRAINING in results["diverged"]:
        return found
    if results["training"]:
        found["test_accuracy"] = results["training"][-1]["test_accuracy"]
    if results["overlap"]:
        last = last_epoch(results["overlap"])
        most = max(last, key=lambda record: record.measures.redundancy.mean or 0.0)
        found |= {
            "most_redundant_layer": most.layer,
            "redundancy": most.measures.redundancy.mean,
            "deepest_layer": last[-1].layer,
            "overlap": last[-1].measures.overlap.mean,
            "loo_error": last[-1].measures.loo_error,
            "dead_channels": sum(record.measures.dead_channels for record in last),
        }
    if results["pruning"]:
        found |= _of_pruning(results["pruning"], results["pruning_settings"])
    return found


def answers(numbers: dict[str, Any]) -> list[Answer]:
    """The headline in words, a question each.

    Args:
        numbers: of :func:`headline`.
    """
    told = []
    if "diverged" in numbers:
        told.append(_what_diverged(numbers["diverged"]))
    if "test_accuracy" in numbers:
        text = f"of the test images of {numbers['dataset']} classified right by {numbers['model']}"
        told.append(Answer("How good is it?", percent(numbers["test_accuracy"]), text))
    if "redundancy" in numbers:
        text = (
            f"redundancy of {numbers['most_redundant_layer']}, the highest of all layers (0: no "
            f"two channels share neighbours, 1: all say the same); {numbers['dead_channels']} "
            "channels are dead"
        )
        told.append(Answer("What is redundant?", f"{numbers['redundancy'] or 0:.2f}", text))
    if "share" in numbers:
        told += [_what_can_go(numbers), _what_it_costs(numbers)]
    return told


def _what_diverged(parts: dict[str, dict[str, Any]]) -> Answer:
    where = "; ".join(f"{name}: no finite loss at {Divergence(**at)}" for name, at in parts.items())
    if TRAINING in parts:
        text = "this network is no result, and nothing measured on it is shown"
    else:
        text = "these parts are no results and are left out"
    return Answer("What went wrong?", "diverged", f"{where}; {text}. Try a smaller learning rate")


def _of_pruning(pruning: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    sweep, tolerance = pruning["sweep"], settings["tolerance"]
    spared = {
        name: largest_share(points, sweep["accuracy"], tolerance=tolerance)
        for name, points in sweep["criteria"].items()
    }
    best = max(spared, key=spared.get)
    if spared[best] == spared[pruning["criterion"]]:
        best = pruning["criterion"]
    return {
        "criterion": pruning["criterion"],
        "share": pruning["share_requested"],
        "is_share_given": settings["share"] is not None,
        "tolerance": tolerance,
        "best_criterion": best,
        "best_share": spared[best],
        **{name: pruning["pruned"][f"accuracy_{name}"] for name in ("before", "pruned")},
        "finetuned": pruning["pruned"]["accuracy_finetuned"],
        **{name: pruning["kept"][name] for name in ("kernels", "filters", "params", "macs")},
        "latency": pruning.get("latency"),  # runs of an earlier version did not time it
    }


def _what_can_go(numbers: dict[str, Any]) -> Answer:
    whole, kept = numbers["kernels"]
    within = f"at most {points(numbers['tolerance'])} lost"
    why = "the share asked for" if numbers["is_share_given"] else within
    text = f"of the conv kernels, {whole - kept:,} of {whole:,}, by {numbers['criterion']} ({why})"
    if not numbers["is_share_given"] and numbers["best_share"] > numbers["share"]:
        text += f"; {numbers['best_criterion']} would spare {percent(numbers['best_share'])}"
    return Answer("What can go?", percent(numbers["share"]), text)


def _what_it_costs(numbers: dict[str, Any]) -> Answer:
    change = 100 * (numbers["finetuned"] - numbers["before"])
    text = (
        f"points of test accuracy after fine-tuning, {percent(numbers['before'])} to "
        f"{percent(numbers['finetuned'])} ({percent(numbers['pruned'])} without)"
    )
    return Answer("What does it cost?", f"{change:+.2f}", text)


def costs(numbers: dict[str, Any]) -> list[list[str]]:
    """Before and after the pruning: rows of a name and two values in words.

    Args:
        numbers: of :func:`headline`, with a pruning.
    """
    rows = [
        ["test accuracy, pruned", percent(numbers["before"]), percent(numbers["pruned"])],
        ["test accuracy, fine-tuned", percent(numbers["before"]), percent(numbers["finetuned"])],
    ]
    for name, what in (
        ("kernels", "conv kernels"), ("filters", "filters with a kernel"),
        ("params", "parameters"), ("macs", "MACs an image"),
    ):  # fmt: skip
        if numbers[name] is not None:
            rows.append([what, *(f"{count:,}" for count in numbers[name])])
    if times := numbers["latency"]:
        what = f"latency of {times['images']} images ({times['device']})"
        rows.append([what, *(f"{times[name]:.2f} ms" for name in ("whole", "compacted"))])
    return rows


def why_time_differs(numbers: dict[str, Any]) -> str:
    """Why fewer kernels need not mean less time.

    Args:
        numbers: of :func:`headline`, with a pruning.
    """
    whole, kept = numbers["filters"]
    if whole == kept:
        return (
            "Every filter has kernels left, so nothing can be removed from the arrays: the fewer "
            "MACs need sparse hardware, and the two latencies differ by chance alone."
        )
    return (
        f"{whole - kept} of {whole} filters have no kernel left and are removed from the arrays "
        "(jnnk.compact); latency is that of the network without them, MACs count kernels."
    )
