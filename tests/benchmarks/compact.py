"""Latency of ResNet-20 masked and compacted, half of its inner filters pruned, in one run.

Run: python tests/benchmarks/compact.py [batch size] (weights from JNNK_SHARED if it is set)
"""

import os
import pathlib
import statistics
import sys
import time

import jax
import numpy as np

from jnnk import models
from jnnk.compaction import compact
from jnnk.mask_summary import conv_output_sizes, summarize
from jnnk.masks import apply_masks, make_masks, masks_from_layers


def main():
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    images = np.random.default_rng(0).normal(size=(batch, 32, 32, 3)).astype(np.float32)
    model = models.create("resnet20", num_classes=10)
    if folder := os.environ.get("JNNK_SHARED"):
        path = pathlib.Path(folder) / "weights/resnet20_cifar10.safetensors"
        variables = models.load_safetensors(model, path)
    else:
        variables = jax.jit(model.init)(jax.random.key(0), images)
    masks = make_masks(
        variables["params"], criterion="weight", keep_rate=0.5, scope="layer",
        whole_filters=True, include="layer*_*/conv1/kernel",
    )  # fmt: skip
    masked = {**variables, "params": apply_masks(variables["params"], masks)}
    small, small_variables = compact(model, variables, masks)
    networks = {"masked": (model, masked), "compacted": (small, small_variables)}
    calls = {
        name: jax.jit(lambda v, x, m=m: m.apply(v, x)[0]).lower(v, images).compile()
        for name, (m, v) in networks.items()
    }
    logits = {name: np.asarray(calls[name](networks[name][1], images)) for name in calls}
    times = {name: [] for name in calls}
    for _ in range(30):
        for name, call in calls.items():
            start = time.perf_counter()
            call(networks[name][1], images).block_until_ready()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, (m, v) in networks.items():
        sizes = conv_output_sizes(m, v, images)
        counts = summarize(v["params"], masks_from_layers(v["params"], {}), output_sizes=sizes)
        size = f"{counts.macs[0]:,} MACs, {counts.params[0]:,} parameters"
        print(f"{name:10s} {medians[name]:6.1f} ms, {size}")
    print(
        f"batch {batch}: {medians['masked'] / medians['compacted']:.2f}x faster, "
        f"logits differ by {np.abs(logits['masked'] - logits['compacted']).max():.1e}"
    )


if __name__ == "__main__":
    main()
