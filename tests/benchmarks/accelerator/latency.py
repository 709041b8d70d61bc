"""One forward pass of a network whole, masked, and compacted, half of its inner filters pruned."""

import functools

import jax
import jax.numpy as jnp

from accelerator import data
from accelerator.measure import compiled_together, side_by_side
from jnnk import apply_masks, compact, make_masks, models
from jnnk.network import read
from jnnk.pruning import KeepRate, prunable_groups

FULL = ("resnet50", 224, (1, 64, 256))
SMALL = ("resnet8", 16, (1, 8))


def run(report):
    name, side, batches = SMALL if report.small else FULL
    networks, reads = _networks(name)
    images = {batch: jnp.ones((batch, side, side, 3)) for batch in batches}
    # A masked network is the whole one's program, with other weights.
    programs = compiled_together(
        {
            (which, batch): (*networks[which], images[batch])
            for batch in batches
            for which in ("whole", "compacted")
        }
    )
    for batch in batches:
        case = f"{name}, {side} pixels, batch {batch}"
        if not report.has_time(case, 5):
            break
        images[batch] = jax.random.normal(jax.random.key(4), images[batch].shape)
        calls, compiling = {}, {}
        for which, (_, variables) in networks.items():
            program = programs["compacted" if which == "compacted" else "whole", batch]
            calls[which] = functools.partial(program, variables, images[batch])
            compiling[which] = program.seconds
        times = side_by_side(calls, repeats=5 if report.small else 50)
        for which, seconds in times.items():
            remarks = f"{batch / seconds:,.0f} images/s, {reads[which]:,} weights"
            remarks += f", {times['whole'] / seconds:.2f} times as fast as whole"
            report.row(case, which, 1e3 * seconds, "ms", compiled=compiling[which], remarks=remarks)


def _networks(name):
    """Function and variables by name, and how many weights each holds."""
    model = models.create(name, num_classes=1000)
    variables = data.variables_of(model)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    logits = _logits(model)
    inner = [f"{conv}/kernel" for conv in prunable_groups(read(logits, variables, image))]
    masks = make_masks(
        variables["params"],
        criterion="weight",
        selection=KeepRate(0.5, "layer", whole_filters=True),
        pointwise=True,
        include=inner,
    )
    masked = {**variables, "params": apply_masks(variables["params"], masks)}
    networks = {
        "whole": (logits, variables),
        "masked": (logits, masked),
        "compacted": compact(logits, variables, masks, image),
    }
    counts = {
        which: sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        for which, (_, variables) in networks.items()
    }
    return networks, counts


def _logits(model):
    return lambda variables, images: model.apply(variables, images)[0]
