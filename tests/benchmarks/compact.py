"""Latency of ResNet-20 masked and compacted, half of its channels pruned, in one run.

    python tests/benchmarks/compact.py [--batch 32] [--width 1]

Once half of the channels inside its blocks go, once half of those of its streams too. ``--width 2``
takes a network of twice the channels. Weights are drawn: the time does not ask which.
"""

import argparse
from functools import partial

import jax
import numpy as np

from jnnk import models
from jnnk._core.timing import latencies
from jnnk.network import compact, read
from jnnk.pruning import apply_masks, channel_masks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=1)
    args = parser.parse_args()
    images = np.random.default_rng(0).normal(size=(args.batch, 32, 32, 3)).astype(np.float32)
    model = models.create("resnet20", num_classes=10)
    model = model.clone(stage_widths=tuple(args.width * width for width in model.stage_widths))
    variables = jax.jit(model.init)(jax.random.key(0), images)

    def whole(variables, images):
        return model.apply(variables, images)[0]

    network = read(whole, variables, images)
    for title, streams in (("inner channels", False), ("inner channels and streams", True)):
        masks = channel_masks(
            variables["params"], network, "l1_norm", keep_rate=0.5, streams=streams
        )
        masked = {**variables, "params": apply_masks(variables["params"], masks)}
        small = compact(whole, variables, masks, images)
        compare(title, {"masked": (whole, masked), "compacted": small}, images)


def compare(title, networks, images):
    calls = {name: jax.jit(f).lower(v, images).compile() for name, (f, v) in networks.items()}
    logits = {name: np.asarray(calls[name](networks[name][1], images)) for name in calls}
    medians = latencies(
        {name: partial(call, networks[name][1], images) for name, call in calls.items()},
        repeats=100,
    )
    print(f"half of the {title}, batch {len(images)}")
    for name, (function, variables) in networks.items():
        macs = sum(conv.macs for conv in read(function, variables, images).convs)
        weights = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        print(f"  {name:10s} {medians[name]:6.1f} ms, {macs:,} MACs, {weights:,} parameters")
    difference = np.abs(logits["masked"] - logits["compacted"]).max()
    speed = medians["masked"] / medians["compacted"]
    print(f"  {speed:.2f}x faster, logits differ by {difference:.1e}")


if __name__ == "__main__":
    main()
