"""Time of masks of a network as large as ResNet-50 with its 1x1 convolutions, by scope of the rank.

python tests/benchmarks/masks.py
"""

import time

import jax
import numpy as np

from jnnk import models
from jnnk.pruning import KeepRate, make_masks

SELECTIONS = {
    "kernels over the network": KeepRate(0.5),
    "kernels by layer": KeepRate(0.5, scope="layer"),
    "kernels by filter": KeepRate(0.5, scope="filter"),
    "filters over the network": KeepRate(0.5, whole_filters=True),
}


def main():
    model = models.create("resnet50", num_classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    params = jax.device_put(params)
    for name, selection in SELECTIONS.items():
        times = []
        for _ in range(4):
            start = time.perf_counter()
            masks = make_masks(params, criterion="weight", selection=selection, pointwise=True)
            jax.block_until_ready(masks)
            times.append(time.perf_counter() - start)
        again = sorted(times[1:])[1]
        print(f"{name}: {again:.2f} s, compilation {times[0] - again:.1f} s", flush=True)
    kernels = sum(mask.size for mask in jax.tree.leaves(masks) if mask.ndim)
    print(f"{kernels:,} kernels")


if __name__ == "__main__":
    main()
