"""What ``jnnk overlap --plan`` says: time and memory in words."""

from typing import TYPE_CHECKING

from jnnk.cli.answers import Answer
from jnnk.files.schema import TableRow
from jnnk.runs.folder import Run

if TYPE_CHECKING:
    from jnnk.jobs.overlap_plan import OverlapPlan
    from jnnk.measures import LayerPlan


def plan_answer(run: Run, plan: "OverlapPlan") -> Answer:
    """A row per layer, and time and memory in all.

    Args:
        run: that would be measured.
        plan: of what that would take.
    """
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in plan.seconds.items())
    device, host = (f"{size / 2**30:.2f} GiB" for size in (plan.device_bytes, plan.host_bytes))
    facts = [
        ("images", str(plan.num_images)),
        ("devices", f"{plan.num_devices}; MiB of one, the graph's of the layer's whole vectors"),
        ("time", f"about {sum(plan.seconds.values()):.0f} s ({parts}), figures not counted"),
        ("memory", f"{device} a device, {host} the process"),
    ]
    return Answer({"run": run.path, "plan": plan}, facts, [_row(layer) for layer in plan.layers])


def _row(layer: "LayerPlan") -> TableRow:
    """MiB of a layer on a device, seconds of an epoch."""
    sizes = {
        "activations MiB": layer.activations,
        # Of the graph of the layer's whole vectors, the largest.
        "points": layer.whole.points,
        "distances": layer.whole.distances,
        "Gram": layer.whole.gram,
        "solver": layer.whole.solver,
        "answers": layer.graphs,
        "overlap": layer.overlap,
        "votes": layer.votes,
        "peak": layer.peak,
    }
    return {
        "layer": layer.name,
        "H x W x C": " x ".join(map(str, layer.shape)),
        **{name: f"{size / 2**20:,.1f}" for name, size in sizes.items()},
        "seconds": f"{layer.seconds:.1f}",
    }
