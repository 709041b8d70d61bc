"""Builds graphs on devices that the test's own process does not have, and saves them.

``sharding_worker.py devices FOLDER`` on eight devices of one process, or ``process FOLDER PORT
NUMBER`` as one of two processes with two devices each.
"""

import pathlib
import sys

import jax
import jax.export
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

import jnnk.sharding
from jnnk.sharding import parse_mesh, sharded_nnk_graph
from jnnk.similarity import cosine, gaussian

N, K, BLOCK = 204, 5, 16


def laplacian(x, y):
    """A similarity of the user's own."""
    return jax.numpy.exp(-jax.numpy.abs(x - y).sum())


SIMILARITIES = {
    "default": gaussian(),
    "cosine": cosine(),
    "median": gaussian("median"),
    "laplacian": laplacian,
}
# Mesh, ring, similarity. 204 images are not a multiple of 8, three channels of neither 2 nor 8.
CASES = (
    ("data=1", False, "default"),
    ("data=2", True, "laplacian"),
    ("data=8", False, "cosine"),
    ("data=8", True, "default"),
    ("channel=8", False, "default"),
    ("data=4,channel=2", False, "median"),
    ("data=4,channel=2", True, "cosine"),
)


def activations() -> np.ndarray:
    """(N, 2, 2, 3), with an image of NaN and a channel in which all images tie."""
    values = np.random.default_rng(0).normal(size=(N, 2, 2, 3)).astype(np.float32)
    values[:, :, :, 1] = 0.5
    values[70] = np.nan
    return values


def options(mesh, ring, similarity):
    return {
        "mesh": parse_mesh(mesh),
        "ring": ring,
        "similarity": SIMILARITIES[similarity],
        "num_neighbors": K,
        "block_size": BLOCK,
    }


def name(mesh, ring, similarity):
    return f"{mesh} {'ring' if ring else 'gathered'} {similarity}"


def save(folder, case, graph):
    fields = {field: np.asarray(value) for field, value in graph._asdict().items()}
    np.savez(folder / f"{name(*case)}.npz", **fields)


def on_eight_devices(folder):
    for case in CASES:
        lowered = sharded_nnk_graph.lower(activations(), **options(*case))
        compiled = lowered.compile()
        (folder / f"{name(*case)}.stablehlo").write_text(lowered.as_text())
        (folder / f"{name(*case)}.hlo").write_text(compiled.as_text())
        save(folder, case, compiled(activations()))
    for ring in (False, True):
        jax.export.export(sharded_nnk_graph, platforms=["cpu", "cuda", "tpu"])(
            jax.ShapeDtypeStruct((N, 2, 2, 3), "float32"), **options("data=8", ring, "default")
        )


def as_one_of_two(folder, port, number):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, number, initialization_timeout=60)
    case = ("data=4", True, "default")
    chosen = options(*case)
    placed = jax.make_array_from_callback(
        activations().shape,
        NamedSharding(chosen["mesh"], PartitionSpec("data")),
        lambda index: activations()[index],
    )
    assert not placed.is_fully_addressable
    graph = sharded_nnk_graph(placed, **chosen)
    whole = multihost_utils.process_allgather(graph, tiled=True)
    if number == 0:
        save(folder, case, whole)
    jax.distributed.shutdown()


if __name__ == "__main__":
    # Programs that run once; and several trips of the ring on so few images.
    jax.config.update("jax_disable_most_optimizations", True)
    jnnk.sharding._TRIP_FLOATS = 1
    mode, where, *rest = sys.argv[1:]
    if mode == "devices":
        on_eight_devices(pathlib.Path(where))
    else:
        as_one_of_two(pathlib.Path(where), *map(int, rest))
