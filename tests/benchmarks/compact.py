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
from jnnk.network import compact, read
from jnnk.pruning import (
    KeepRate,
    apply_masks,
    make_masks,
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

    def whole(variables, images):
        return model.apply(variables, images)[0]

    networks = {
        "masked": (whole, masked),
        "compacted": compact(whole, variables, masks, images),
    }
    calls = {name: jax.jit(f).lower(v, images).compile() for name, (f, v) in networks.items()}
    logits = {name: np.asarray(calls[name](networks[name][1], images)) for name in calls}
    medians = latencies(
        {name: partial(call, networks[name][1], images) for name, call in calls.items()},
        repeats=100,
    )
    for name, (function, variables) in networks.items():
        macs = sum(conv.macs for conv in read(function, variables, images).convs)
        weights = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        print(f"{name:10s} {medians[name]:6.1f} ms, {macs:,} MACs, {weights:,} parameters")
    print(
        f"batch {args.batch}: {medians['masked'] / medians['compacted']:.2f}x faster, "
        f"logits differ by {np.abs(logits['masked'] - logits['compacted']).max():.1e}"
    )


if __name__ == "__main__":
    main()
