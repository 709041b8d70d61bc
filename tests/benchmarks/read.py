"""Seconds to read networks, to compact one, and to trace what is left at another batch size.

    python tests/benchmarks/read.py

Nothing is compiled but small constants. Each number is that of the first call in the process, the
trace of the network by JAX included, but the last: the median of nine batch sizes.
"""

import statistics
import time

import jax
import jax.numpy as jnp

from jnnk import models
from jnnk.network import compact, read
from jnnk.pruning import channel_masks


def seconds(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def main():
    images = {"resnet110": (1, 32, 32, 3), "resnet50": (1, 224, 224, 3)}
    for name, shape in images.items():
        model = models.create(name, num_classes=10)

        def apply_fn(variables, images, model=model):
            return model.apply(variables, images)[0]

        batch = jax.ShapeDtypeStruct(shape, "float32")
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        network, taken = seconds(read, apply_fn, shapes, batch)
        print(f"read {name}: {taken:.2f} s, {len(network.convs)} convolutions")
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    masks, taken = seconds(
        lambda: channel_masks(variables, network, "l1_norm", keep_rate=0.5, streams=True)
    )
    print(f"masks of half of the channels of {name}: {taken:.2f} s")
    (small, small_variables), taken = seconds(compact, apply_fn, variables, masks, batch)
    print(f"compact {name}: {taken:.2f} s")
    times = {"the network": [], "what is left of it": []}
    for number in range(2, 12):
        batch = jax.ShapeDtypeStruct((number, *shape[1:]), "float32")
        for key, function, given in (
            ("the network", apply_fn, variables),
            ("what is left of it", small, small_variables),
        ):
            times[key].append(seconds(jax.make_jaxpr(function), given, batch)[1])
    for key, taken in times.items():
        print(f"trace {key} at another batch size: {statistics.median(taken[1:]):.2f} s")


if __name__ == "__main__":
    main()
