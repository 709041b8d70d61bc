"""All measures of a layer of many channels beside the graphs that they are made of.

    python tests/benchmarks/wide_layers.py --channels 64 512 2048

Activations are rectified random mixtures of 16 directions with noise, of 4 x 4 places. Graphs and
measures run in processes of their own, whose peak memory includes starting (0.3 GiB) and, of the
measures, reading the graphs. Seconds are of the second run.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from jnnk.graphs import NNKGraph
from jnnk.graphs._layer_graphs import layer_graphs
from jnnk.measures import measure_graphs

PLACES, DIRECTIONS, CLASSES = 4, 16, 10


def activations(num_images, num_channels):
    rng = np.random.default_rng(0)
    shape = (num_images, PLACES, PLACES)
    base = rng.standard_normal((*shape, DIRECTIONS), np.float32)
    mixed = base @ rng.standard_normal((DIRECTIONS, num_channels), np.float32) / 4
    mixed += rng.standard_normal(mixed.shape, np.float32) / 2
    return np.maximum(mixed, 0, out=mixed)


def seconds_of(function):
    start = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - start


def timed(function):
    """The result with the seconds of a second call, and how much longer the first one took."""
    _, first = seconds_of(function)
    result, again = seconds_of(function)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{again:.1f} s | {first - again:.1f} s | {peak:.2f} GiB", flush=True)
    return result


def graphs(path, num_images, num_channels, num_neighbors):
    values = activations(num_images, num_channels)
    channels, whole = timed(lambda: layer_graphs(values, num_neighbors=num_neighbors))
    fields = {f"channels_{name}": x for name, x in channels._asdict().items()}
    fields |= {f"whole_{name}": x for name, x in whole._asdict().items()}
    np.savez(path, **{name: x for name, x in fields.items() if x is not None})


def measures(path, num_images):
    with np.load(path) as file:
        channels, whole = (
            NNKGraph(*(jax.numpy.asarray(file[f"{part}_{name}"]) for name in NNKGraph._fields))
            for part in ("channels", "whole")
        )
    labels = np.random.default_rng(1).integers(0, CLASSES, num_images, np.int32)
    timed(lambda: measure_graphs(channels, whole, labels, num_classes=CLASSES)[0].overlap.mean)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--neighbors", type=int, default=25)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=pathlib.Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part == "graphs":
        return graphs(chosen.path, chosen.images, chosen.channels[0], chosen.neighbors)
    if chosen.part == "measures":
        return measures(chosen.path, chosen.images)
    print("| channels | part | again | compilation | peak |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for num_channels in chosen.channels:
            options = [f"--{name}={getattr(chosen, name)}" for name in ("images", "neighbors")]
            options += [f"--channels={num_channels}", f"--path={folder}/graphs.npz"]
            for part in ("graphs", "measures"):
                command = [sys.executable, __file__, *options, f"--part={part}"]
                row = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                print(f"| {num_channels:,} | {part} | {row.strip()} |", flush=True)


if __name__ == "__main__":
    main()
