"""Latency of ResNet-20 masked and compacted, half of its inner filters pruned, in one run.

    python tests/benchmarks/compact.py [--batch 32] [--width 1]

``--width 2`` takes a network of twice the channels. Weights are drawn: the time does not ask which.
"""

import argparse
from functools import partial

import jax
import numpy as np

from jnnk import models
from jnnk._core.timing import latencies
from jnnk.network import read
from jnnk.pruning import (
    KeepRate,
    apply_masks,
    compact,
    make_masks,
    masks_from_layers,
    summarize,
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=1)
    args = parser.parse_args()
    images = np.random.default_rng(0).normal(size=(args.batch, 32, 32, 3)).astype(np.float32)
    model = models.create("resnet20", num_classes=10)
    model = model.clone(stage_widths=tuple(args.width * width for width in model.stage_widths))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    masks = make_masks(
        variables["params"],
        criterion="weight",
        selection=KeepRate(0.5, "layer", whole_filters=True),
        include="layer*_*/conv1/kernel",
    )
    masked = {**variables, "params": apply_masks(variables["params"], masks)}
    small, small_variables = compact(model, variables, masks)
    networks = {"masked": (model, masked), "compacted": (small, small_variables)}
    calls = {
        name: jax.jit(lambda v, x, m=m: m.apply(v, x)[0]).lower(v, images).compile()
        for name, (m, v) in networks.items()
    }
    logits = {name: np.asarray(calls[name](networks[name][1], images)) for name in calls}
    medians = latencies(
        {name: partial(call, networks[name][1], images) for name, call in calls.items()},
        repeats=100,
    )
    for name, (m, v) in networks.items():
        everything = masks_from_layers(v["params"], {})
        counts = summarize(v["params"], everything, network=read(m.apply, v, images))
        size = f"{counts.macs[0]:,} MACs, {counts.params[0]:,} parameters"
        print(f"{name:10s} {medians[name]:6.1f} ms, {size}")
    print(
        f"batch {args.batch}: {medians['masked'] / medians['compacted']:.2f}x faster, "
        f"logits differ by {np.abs(logits['masked'] - logits['compacted']).max():.1e}"
    )


if __name__ == "__main__":
    main()
