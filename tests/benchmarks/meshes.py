"""Graphs of an awkward layer on meshes of eight devices against those of one device.

    python tests/benchmarks/meshes.py --neighbors 25 --layer layer3_0/conv1
    python tests/benchmarks/meshes.py --memory          what the programs of 50,000 images hold

The layers are those of an untrained ResNet-8 on 1,300 digits, by default one of 64 channels of
2 x 2, rectified. Many images tie in such a channel, and many of its problems have more than one
solution, so that rounding decides which one is found. Eight devices are forced on the CPU.
"""

import argparse
import functools
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np

from jnnk import models
from jnnk.data import load
from jnnk.graphs import channelwise_nnk_graph, cosine, gaussian, sharded_nnk_graph
from jnnk.network import capture
from jnnk.parallel import parse_mesh
from jnnk.training import init_state, make_optimizer, make_predict

IMAGES = 1300
SIMILARITIES = {"Gaussian": gaussian(), "cosine": cosine()}
MESHES = (("data=2", False), ("data=8", False), ("data=4,channel=2", False), ("data=8", True))
HEAD = (
    "| similarity | mesh | queries | other candidates | other supports | largest difference of "
    "weights |\n|---|---|---|---|---|---|"
)


def print_memory():
    """What a device holds beside input and output, by the compiler, gathered and on a ring."""
    mesh = parse_mesh("data=8")
    place = jax.NamedSharding(mesh, jax.P("data"))
    points = jax.ShapeDtypeStruct((50_000, 64, 1), np.float32, sharding=place)
    for ring in (False, True):
        graph = functools.partial(sharded_nnk_graph, mesh=mesh, num_neighbors=25, ring=ring)
        held = jax.jit(graph).lower(points).compile().memory_analysis().temp_size_in_bytes
        print(f"ring={ring}: {held / 2**20:.0f} MiB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neighbors", type=int, default=25)
    parser.add_argument("--layer", default="layer3_0/conv1")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        print_memory()
        return
    data, model = load("digits"), models.create("resnet8", num_classes=10)
    optimizer = make_optimizer("sgd", learning_rate=0.1, num_steps=1)
    shape = data.train_images.shape[1:]
    state = init_state(model, optimizer, jax.random.key(0), image_shape=shape)
    predict = make_predict(model, normalization=data.normalization)
    (layer,) = capture(
        predict, state.variables, data.train_images[:IMAGES], layers=[arguments.layer]
    )
    print(HEAD)
    for name, similarity in SIMILARITIES.items():
        options = {"num_neighbors": arguments.neighbors, "similarity": similarity}
        one = jax.tree.map(np.asarray, channelwise_nnk_graph(layer.values, **options))
        for mesh, ring in MESHES:
            graph = sharded_nnk_graph(layer.values, mesh=parse_mesh(mesh), ring=ring, **options)
            graph = jax.tree.map(np.asarray, graph)
            alike = (graph.indices == one.indices).all(axis=-1)
            supports = ((graph.weights > 0) == (one.weights > 0)).all(axis=-1)
            cells = [
                name, mesh + ", ring" * ring, f"{alike.size:,}", f"{(~alike).sum():,}",
                f"{(~supports).sum():,}", f"{np.abs(graph.weights - one.weights).max():.2g}",
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
