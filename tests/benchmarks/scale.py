"""Channel-wise graphs of 50,000 images on one machine, and what the cost grows with.

    python tests/benchmarks/scale.py ../shared              64 channels x 50,000 x 64, K = 25
    python tests/benchmarks/scale.py --growth FIGURE.png    cost against N, C, K and D, as a table

The activations are those of the last layer of ResNet-20 on the training images of CIFAR-10; the
second command draws points that resemble activations. Wall clock and processor seconds (all
threads); peak memory is that of the whole process, interpreter and data set included.
"""

import argparse
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import timing

from jnnk import models
from jnnk.data import Normalization, load
from jnnk.graphs import channelwise_nnk_graph
from jnnk.measures import channel_overlap
from jnnk.measures._rates import rectified_points
from jnnk.network import capture
from jnnk.report.figures.style import panels
from jnnk.training import make_predict

LAYER = "layer3_2/conv2"  # 64 channels of 8 x 8
BASE = {"N": 4000, "C": 4, "K": 25, "D": 64}
RANGES = {
    "N": (1000, 2000, 4000, 8000, 16_000),
    "C": (2, 4, 8, 16),
    "K": (5, 10, 25, 50),
    "D": (16, 64, 256, 1024),
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # processor seconds


class Parts:
    """Prints what each part of a long run took, and the peak of the memory so far."""

    def __init__(self):
        self.mark()
        print("| part | wall s | processor s | peak GiB |\n|---|---|---|---|", flush=True)

    def mark(self):
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def done(self, name):
        wall, processor = time.perf_counter() - self.wall, time.process_time() - self.processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {name} | {wall:.1f} | {processor:.1f} | {peak:.2f} |", flush=True)
        self.mark()


def last_layer(shared, num_images, num_channels):
    """Activations (N, H, W, C) of the first training images."""
    data = load("cifar10", data_dir=shared / "tfds")
    model = models.create("resnet20", num_classes=10)
    variables = models.load_safetensors(model, shared / "weights" / "resnet20_cifar10.safetensors")
    predict = make_predict(
        model,
        normalization=Normalization(
            np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        ),
    )
    (layer,) = capture(
        predict,
        variables,
        data.train_images[:num_images],
        layers=[LAYER],
        channels={LAYER: range(num_channels)},
    )
    return layer.values


def end_to_end(shared, num_images, num_channels, num_neighbors):
    """Prints time and peak memory of one layer, from its images to the overlap of its channels."""
    parts = Parts()
    values = last_layer(shared, num_images, num_channels)
    parts.done("data and activations")
    jax.block_until_ready(channelwise_nnk_graph(values[..., :1], num_neighbors=num_neighbors))
    parts.done("one channel, compilation included")
    graph = jax.block_until_ready(channelwise_nnk_graph(values, num_neighbors=num_neighbors))
    parts.done("graphs of all channels")
    overlap = np.array(channel_overlap(graph))
    parts.done("overlap")
    np.fill_diagonal(overlap, np.nan)
    print(
        f"\n{num_images} images x {num_channels} channels x {values[0, ..., 0].size} dimensions, "
        f"K = {num_neighbors}: {100 * float(graph.converged.mean()):.4f} % converged, "
        f"mean overlap {np.nanmean(overlap):.5f}"
    )


def growth(path):
    """Prints the cost against N, C, K and D, each around one middle case, and draws it."""
    print("| N | C | K | D | wall s | processor s |\n|---|---|---|---|---|---|")
    seconds = {name: [] for name in RANGES}
    for name, values in RANGES.items():
        for value in values:
            case = {**BASE, name: value}
            points = [rectified_points(case["N"], case["D"], seed=c) for c in range(case["C"])]
            points = jnp.stack(points, axis=-1)
            run = lambda x=points, k=case["K"]: channelwise_nnk_graph(x, num_neighbors=k)  # noqa: E731
            times = timing.interleaved({"run": run}, repeats=3)["run"]
            seconds[name].append(times.processor)
            cells = [*case.values(), f"{times.wall:.3f}", f"{times.processor:.3f}"]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    draw(seconds, path)


def draw(seconds, path):
    with panels(1, 4, (13, 3), sharey=True) as (figure, axes):
        for axis, (name, values) in zip(axes[0], RANGES.items(), strict=True):
            axis.loglog(values, seconds[name], "o-")
            slope = np.polyfit(*np.log([values, seconds[name]]), 1)[0]
            axis.set(xlabel=name, title=f"mean slope {slope:.2f}")
            axis.set_xticks(values, labels=[f"{value:,}" for value in values])
            axis.set_yticks(TICKS, labels=map(str, TICKS))
            axis.minorticks_off()
        axes[0, 0].set_ylabel("processor seconds")
        figure.suptitle(", ".join(f"{name} = {value:,}" for name, value in BASE.items()))
        figure.savefig(path, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--neighbors", type=int, default=25)
    parser.add_argument("--growth", metavar="FIGURE", type=Path)
    options = parser.parse_args()
    if options.growth is not None:
        growth(options.growth)
    elif options.shared is not None:
        end_to_end(options.shared, options.images, options.channels, options.neighbors)
    else:
        parser.error("name the folder of shared data, or --growth FIGURE.png")


if __name__ == "__main__":
    main()
