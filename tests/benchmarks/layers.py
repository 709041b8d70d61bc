"""Every measure on every layer of ResNet-20: seconds, what they go into, and peak memory.

10,000 training images of CIFAR-10, K = 25, Gaussian similarity. Layers are mean-pooled to at most
8 x 8 positions (``--size 32`` keeps the full maps). Compilation is timed apart; shares of the graph
are measured on four channels, each part alone.

    python tests/benchmarks/layers.py ../shared
"""

import argparse
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jnnk import models
from jnnk.data import load, normalize
from jnnk.graphs import channelwise_nnk_graph, gaussian, nearest_neighbors, solve_nnk
from jnnk.measures import channel_overlap, intrinsic_dimension, loo_error, redundancy
from jnnk.network import capture


def peak_gib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Stopwatch:
    """Seconds of calls, and apart those of compilation, once per function and shape."""

    def __init__(self):
        self.compiled = {}

    def __call__(self, name, function, *arguments):
        shapes = tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(arguments))
        start = time.perf_counter()
        if (name, shapes) not in self.compiled:
            self.compiled[name, shapes] = jax.jit(function).lower(*arguments).compile()
        compiled = time.perf_counter()
        result = jax.block_until_ready(self.compiled[name, shapes](*arguments))
        return result, time.perf_counter() - compiled, compiled - start


def gram_matrices(points, indices):
    """Similarities (N, K, K) and (N, K) of the candidates, as the graph computes them."""
    near = points[indices] - points[:, None]
    squares = jnp.sum(near * near, axis=2)
    inner = jnp.einsum("bkd,bjd->bkj", near, near, precision=jax.lax.Precision.HIGHEST)
    between = jnp.maximum(squares[:, :, None] + squares[:, None, :] - 2 * inner, 0)
    similarity = gaussian()
    widths = similarity.widths(squares, indices >= 0, jnp.ones(()))
    return (
        similarity.of_squared_distances(between, widths[:, None, None]),
        similarity.of_squared_distances(squares, widths[:, None]),
    )


def shares(watch, points, num_neighbors):
    """Seconds in neighbours, Gram and solve for some channels, (C, N, D)."""

    def search(points):
        return nearest_neighbors(
            points, points, num_neighbors=num_neighbors, exclude=jnp.arange(points.shape[0])
        )[0]

    def gram(points, indices):
        return gram_matrices(points, indices)

    def solve(gram, cross):
        return solve_nnk(gram, cross).weights

    seconds = np.zeros(3)
    for channel in points:
        indices, spent, _ = watch("search", search, channel)
        seconds[0] += spent
        matrices, spent, _ = watch("gram", gram, channel, indices)
        seconds[1] += spent
        _, spent, _ = watch("solve", solve, *matrices)
        seconds[2] += spent
    return seconds / seconds.sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path)
    parser.add_argument("--num-images", type=int, default=10_000)
    parser.add_argument("--num-neighbors", type=int, default=25)
    parser.add_argument("--size", type=int, default=8)
    parser.add_argument("--layers", nargs="*", help="default: all")
    arguments = parser.parse_args()
    data = load("cifar10", data_dir=arguments.shared / "tfds")
    images = data.train_images[: arguments.num_images]
    labels = jnp.asarray(data.train_labels[: arguments.num_images])
    model = models.create("resnet20", num_classes=10)
    variables = models.load_safetensors(
        model, arguments.shared / "weights" / "resnet20_cifar10.safetensors"
    )

    def apply_fn(variables, images):
        return model.apply(variables, normalize(images, data.normalization), train=False)

    num_neighbors = arguments.num_neighbors
    functions = {
        "overlap": channel_overlap,
        "redundancy": redundancy,
        "dimension": intrinsic_dimension,
        "loo": lambda graph: loo_error(graph, labels, 10),
    }
    watch = Stopwatch()
    print(
        f"{'layer':16s}   C   D capture compile   graph " + " ".join(f"{n:>10s}" for n in functions)
    )
    begin = start = time.perf_counter()
    for layer in capture(
        apply_fn,
        variables,
        images,
        layers=arguments.layers,
        pooling="mean",
        size=arguments.size,
        batch_size=500,
    ):
        captured = time.perf_counter() - start
        points = jnp.asarray(layer.values.reshape(len(images), -1, len(layer.channels)))
        graph, spent, compiling = watch(
            "graph", lambda x: channelwise_nnk_graph(x, num_neighbors=num_neighbors), points
        )
        row, values = [spent], {}
        for name, function in functions.items():
            values[name], spent, compiled = watch(name, function, graph)
            compiling += compiled
            row.append(spent)
        converged = float(graph.converged.mean())
        some = jnp.moveaxis(points[:, :, :: max(1, points.shape[2] // 4)][:, :, :4], 2, 0)
        del graph
        parts = shares(watch, some, num_neighbors)
        overlap = np.asarray(values["overlap"])
        overlap = np.nanmean(np.where(np.eye(len(overlap), dtype=bool), np.nan, overlap))
        print(
            f"{layer.name:16s} {points.shape[2]:3d} {points.shape[1]:4d} {captured:6.1f} "
            f"{compiling:7.1f} {row[0]:7.1f} " + " ".join(f"{s:10.2f}" for s in row[1:]) + "  "
            f"neighbours/Gram/solve {'/'.join(f'{100 * p:.0f}' for p in parts)} %, "
            f"converged {100 * converged:.3f} %, overlap {overlap:.4f}, "
            f"redundancy {values['redundancy']:.4f}, "
            f"degree {values['dimension'].mean_degree.mean():.2f}, loo {values['loo'].mean():.3f}, "
            f"peak {peak_gib():.2f} GiB",
            flush=True,
        )
        start = time.perf_counter()
    print(f"in all {time.perf_counter() - begin:.0f} s, peak memory {peak_gib():.2f} GiB")


if __name__ == "__main__":
    main()
