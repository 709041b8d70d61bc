"""Graphs and training over a mesh of devices: the same as on one, in one process and in two.

Run as a program, it builds graphs and trains on devices that the test's own process does not have,
and saves what comes out: ``test_sharding.py devices FOLDER`` on eight devices of one process,
``ties FOLDER`` on as many, and ``process FOLDER`` as one of two processes with two devices each,
which find each other by their environment.
"""

import functools
import itertools
import math
import os
import pathlib
import re
import socket
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
import scipy.optimize
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jnnk.graphs._sharded
from jnnk.data import Normalization
from jnnk.graphs import channelwise_nnk_graph, cosine, gaussian, nnk_graph, sharded_nnk_graph
from jnnk.graphs._layer_graphs import layer_graphs
from jnnk.network import capture
from jnnk.parallel import (
    gather,
    is_first,
    join_processes,
    local_rows,
    on_first,
    parse_mesh,
    replicate,
    shard_batch,
)
from jnnk.parallel._mesh import shared_apply
from jnnk.training import Batch, init_state, make_evaluate, make_optimizer, make_train_step

# Which operations are fused decides the last bits, and these some supports.
pytestmark = pytest.mark.user_compile

# Eight devices have a chunk of the solver's each, the last one not a whole one.
N, K, BLOCK = 1404, 5, 16
SHAPE = (N, 4, 3, 5)


def laplacian(x, y):
    """A similarity of the user's own."""
    return jax.numpy.exp(-jax.numpy.abs(x - y).sum() / 8)


SIMILARITIES = {
    "default": gaussian(),
    "cosine": cosine(),
    "median": gaussian("median"),
    "laplacian": laplacian,
}
# Mesh, ring, similarity. 1,404 images are not a multiple of 8, five channels of neither 2 nor 8.
RING = ("data=8", True, "default")
GATHERED = ("data=2", False, "median")
CASES = (RING, ("channel=8", False, "default"), ("data=4,channel=2", True, "cosine"), GATHERED)
IN_TWO_PROCESSES = ("data=4", True, "laplacian")
TRAINED_ON = ("data=2", "channel=1,data=8")
BATCH, STEPS = 16, 4
NORMALIZATION = Normalization(np.float32([0.5]), np.float32([0.25]))


def _activations() -> np.ndarray:
    """Five channels, with an image of NaN, a channel in which all images tie, and a rectified one
    of three dimensions in which many are the same: it has problems of many solutions. All images of
    the first two of eight devices are the same there.
    """
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    values[:, :, :, 1] = 0.5
    values[:, :, :, 3] = np.maximum(np.round(4 * values[:, :, :, 3]) / 4, 0)
    values[:, 1:, :, 3] = 0
    values[:400, :, :, 3] = 0
    values[70] = np.nan
    return values


def _options(mesh, ring, similarity):
    return {
        "mesh": parse_mesh(mesh),
        "ring": ring,
        "similarity": SIMILARITIES[similarity],
        "num_neighbors": K,
        "block_size": BLOCK,
    }


def _name(mesh, ring, similarity):
    return f"{mesh} {'ring' if ring else 'gathered'} {similarity}"


def _save(folder, case, graph):
    fields = {field: np.asarray(value) for field, value in graph._asdict().items()}
    np.savez(folder / f"{_name(*case)}.npz", **fields)


class Net(nn.Module):
    """A small ConvNet whose BatchNorm sees the batch of all devices, or trains another network."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(4, (3, 3), name="conv1")(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
        return nn.Dense(3, name="fc")(x.mean((1, 2))), {"conv1": x}


def _trained(mesh):
    """Parameters and batch statistics after a few augmented steps, each process with its rows."""
    mesh = parse_mesh(mesh)
    rows = local_rows(BATCH, mesh)
    assert len(rows) == BATCH // jax.process_count()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS, BATCH, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 3, (STEPS, BATCH), dtype=np.int32)
    model, optimizer = Net(), make_optimizer("sgd", learning_rate=0.1, num_steps=STEPS)
    step = make_train_step(model, optimizer, normalization=NORMALIZATION)
    with jax.numpy_dtype_promotion("standard"):  # of Optax
        state = init_state(model, optimizer, jax.random.key(0), image_shape=(8, 8, 1))
        state = replicate(state, mesh)
        for number in range(STEPS):
            share = Batch(images[number, rows], labels[number, rows])
            state, metrics = step(state, shard_batch(share, mesh))
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state.variables))
    evaluate = make_evaluate(model, normalization=NORMALIZATION, batch_size=9, mesh=mesh)
    accuracy = evaluate(state.variables, images[0], labels[0])
    leaves = jax.tree_util.tree_leaves_with_path((state.variables, metrics._asdict(), accuracy))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _apply(variables, images):
    """A network of one layer."""
    values = jax.lax.conv(images, variables, (1, 1), "SAME")
    return values.sum((1, 2, 3)), {"conv": values.transpose(0, 2, 3, 1)}


def _answers(apply_fn, place=lambda variables: variables):
    kernel = np.random.default_rng(1).normal(size=(5, 4, 3, 3)).astype(np.float32)
    images = np.nan_to_num(_activations())
    (layer,) = capture(apply_fn, place(jax.numpy.asarray(kernel)), images, batch_size=40)
    return layer.values


def _start(num_devices, *arguments, **environment):
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
        **environment,
    }
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(process):
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """What eight devices of one process made."""
    folder = tmp_path_factory.mktemp("devices")
    _finish(_start(8, "devices", folder))
    return folder


@functools.cache
def _on_one_device(similarity):
    return channelwise_nnk_graph(
        _activations(), num_neighbors=K, similarity=SIMILARITIES[similarity], block_size=BLOCK
    )


def _assert_same(graph, similarity):
    """The fields of a graph are those of one device, or solve the problem in float64.

    A program less to compile: neighbours are the Euclidean ones for all similarities but cosine.
    """
    compiled = similarity in ("default", "cosine")
    expected = _on_one_device(similarity if compiled else "default")
    for field in ("indices", "converged"):
        np.testing.assert_array_equal(graph[field], getattr(expected, field))
    np.testing.assert_allclose(graph["distances"], expected.distances, rtol=1e-6)
    if compiled:
        np.testing.assert_array_equal(graph["weights"] > 0, np.asarray(expected.weights) > 0)
        for field in ("weights", "errors", "kkt_residual"):
            np.testing.assert_allclose(graph[field], getattr(expected, field), atol=1e-5)
        return
    for channel, query in itertools.product((0, 2), range(0, N, 60)):
        points = _activations().reshape(N, -1, SHAPE[-1])[:, :, channel].astype(np.float64)
        near = points[[query, *graph["indices"][channel, query]]]
        difference = near[:, None] - near
        if similarity == "laplacian":
            every = np.exp(-np.abs(difference).sum(axis=2) / 8)
        else:
            distances = graph["distances"][channel]
            width = np.median(distances[np.isfinite(distances)]) / 3
            every = np.exp(-np.square(difference).sum(axis=2) / (2 * width**2))
        lower = np.linalg.cholesky(every[1:, 1:])
        weights, _ = scipy.optimize.nnls(lower.T, np.linalg.solve(lower, every[0, 1:]))
        np.testing.assert_allclose(graph["weights"][channel, query], weights, atol=1e-5)
        assert weights.any()


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES, ids=[_name(*case) for case in CASES])
def test_the_mesh_changes_nothing(folder, case):
    with np.load(folder / f"{_name(*case)}.npz") as graph:
        _assert_same(graph, case[-1])
        # Ties go by index, across devices too; a point of NaN is nobody's neighbour and has none.
        assert (graph["indices"][1, 100] == range(K)).all()
        # Points in one place explain each other, in a channel that is not dead all over the mesh.
        assert (graph["weights"][1] == 0).all() and (graph["indices"][3, 100] == range(K)).all()
        assert (graph["weights"][3, :70] == np.float32(1 / K)).all()
        assert (graph["errors"][3, :70] == 0).all()
        assert not (graph["indices"] == 70).any() and (graph["indices"][:, 70] == -1).all()
        assert ((graph["weights"][::2] > 0).sum(axis=2) > 0).mean() > 0.9


def _largest(text):
    """Elements of the largest array in a program, StableHLO or HLO."""
    shapes = re.findall(r"tensor<([\dx]+)x[a-z]\w+>", text) + re.findall(r"\w\[([\d,]+)\]", text)
    return max(math.prod(map(int, re.split("[x,]", shape))) for shape in shapes)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", ["stablehlo", "hlo"])
def test_the_ring_has_no_array_of_all_pairs(folder, suffix):
    text = (folder / f"{_name(*RING)}.{suffix}").read_text()
    assert _largest(text) < N**2 / 4


def test_all_pairs_would_be_seen():
    shape = jax.ShapeDtypeStruct(SHAPE, "float32")
    build = jax.jit(lambda a: channelwise_nnk_graph(a, num_neighbors=4, block_size=N))
    assert _largest(build.lower(shape).as_text()) >= N**2


@pytest.mark.thorough
def test_points_travel_in_a_ring_and_are_gathered_else(folder):
    ring = (folder / f"{_name(*RING)}.stablehlo").read_text()
    gathered = (folder / f"{_name(*GATHERED)}.stablehlo").read_text()
    assert "collective_permute" in ring
    # All that the devices of a ring tell each other at once is about one point of each, or few.
    gathered_sizes = re.findall(r"all_gather.*-> tensor<([\dx]+)x[if]\d+>", ring)
    share = len(_activations()) // 8
    assert all(math.prod(map(int, size.split("x"))) < 8 * share for size in gathered_sizes)
    assert "all_gather" in gathered and "collective_permute" not in gathered


def _clustered() -> np.ndarray:
    """Two channels of narrow clusters, with copies in every share, that need the second pass."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(9, 2, 2, 2))[rng.integers(0, 9, 700)]
    values += 1e-5 * rng.normal(size=values.shape)
    values[::7] = values[0]
    return values.astype(np.float32)


def _tied() -> np.ndarray:
    """Two rectified channels of 2 x 2, where directions tie up to rounding by the dozen and more
    candidates than dimensions make problems of many solutions.
    """
    values = np.random.default_rng(2).normal(size=(700, 2, 2, 2)).astype(np.float32)
    return np.maximum(np.round(2 * values - 0.5) * np.float32(0.3), 0)


@pytest.mark.thorough
def test_rounding_decides_alike_on_every_mesh(tmp_path):
    """Ties, and problems of many solutions."""
    _finish(_start(8, "ties", tmp_path))
    with np.load(tmp_path / "ties.npz") as found:
        for name in ("gathered", "ring"):
            np.testing.assert_array_equal(found[f"{name} indices"], found["one indices"])
            np.testing.assert_array_equal(found[name] > 0, found["one"] > 0)
            np.testing.assert_allclose(found[name], found["one"], atol=1e-5)
            clustered = found[f"{name} of clusters"]
            np.testing.assert_array_equal(clustered, found["one of clusters"])
    values = _clustered().reshape(700, 4, 2).astype(np.float64)
    for channel in range(2):
        points = values[:, :, channel]  # the cosine's unit vectors
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        square = ((points[:, None] - points) ** 2).sum(-1)
        np.fill_diagonal(square, np.inf)
        kth = np.sort(square, axis=1)[:, 39:40]
        near = np.take_along_axis(square, clustered[channel], axis=1)
        # Unit vectors round in float32, by a few hundredths of the clusters' width.
        assert (np.sqrt(near) <= np.sqrt(kth) + 1e-6).all()


@functools.cache
def _trained_on_one_device():
    return _trained("data=1")


def _assert_trained_alike(folder, mesh):
    expected = _trained_on_one_device()
    with np.load(folder / f"trained {mesh}.npz") as found:
        assert set(found) == set(expected) and len(expected) > 8
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.thorough
def test_the_mesh_changes_no_layer(folder):
    """Of ``jnnk overlap``: what the network answers, and both kinds of graph of it."""
    with np.load(folder / "layer.npz") as found:
        np.testing.assert_allclose(found["answers"], _answers(_apply), atol=1e-6)
        whole = nnk_graph(_activations().reshape(N, -1), num_neighbors=K)
        for name, graph in (("channels", _on_one_device("default")), ("whole", whole)):
            np.testing.assert_array_equal(found[f"{name} indices"], graph.indices)
            weights = found[f"{name} weights"]
            np.testing.assert_allclose(weights, graph.weights, atol=1e-5)
            np.testing.assert_array_equal(weights > 0, np.asarray(graph.weights) > 0)


@pytest.mark.thorough
@pytest.mark.parametrize("mesh", TRAINED_ON)
def test_the_mesh_changes_no_training(folder, mesh):
    _assert_trained_alike(folder, mesh)


@pytest.mark.thorough
def test_two_processes_do_the_same(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    processes = [
        _start(2, "process", tmp_path, JAX_PROCESS_ID=str(number), **together)
        for number in range(2)
    ]
    try:
        for process in processes:
            _finish(process)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with np.load(tmp_path / f"{_name(*IN_TWO_PROCESSES)}.npz") as graph:
        _assert_same(graph, "laplacian")
    _assert_trained_alike(tmp_path, "data=4")
    assert (tmp_path / "turns").read_text() == "first\n"


def test_misuse_is_named():
    values = np.ones((8, 2, 3), np.float32)
    build = functools.partial(sharded_nnk_graph, num_neighbors=2)
    with pytest.raises(ValueError, match="activations: expected"):
        build(values[0], mesh=parse_mesh("data=1"))
    with pytest.raises(ValueError, match="method: expected"):
        build(values, mesh=parse_mesh("data=1"), method="exakt")
    with pytest.raises(ValueError, match="mesh: expected an axis data or channel"):
        build(values, mesh=jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,)))
    with pytest.raises(ValueError, match="mesh: expected axes of type Auto"):
        build(
            values,
            mesh=jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,)),
        )
    more = build(np.ones((3, 2, 1), np.float32), mesh=parse_mesh("data=1"), num_neighbors=5)
    assert more.indices.tolist() == [[[1, 2, -1, -1, -1], [0, 2, -1, -1, -1], [0, 1, -1, -1, -1]]]
    for shape in ((0, 2, 3), (4, 2, 0)):
        empty = build(np.ones(shape, np.float32), mesh=parse_mesh("data=1"))
        assert empty.weights.shape == (shape[2], shape[0], 2)
    with pytest.raises(ValueError, match="activations: expected dtype floating, got uint8"):
        build(values.astype(np.uint8), mesh=parse_mesh("data=1"))
    with pytest.raises(ValueError, match="num_neighbors: expected"):
        sharded_nnk_graph(values, mesh=parse_mesh("data=1"), num_neighbors=0)
    with pytest.raises(TypeError, match="mesh: expected a"):
        build(values, mesh="data=1")


def _on_eight_devices(folder):
    with pytest.raises(
        ValueError, match="similarity: expected one that needs no distances of all queries"
    ):
        sharded_nnk_graph(_activations(), **_options("data=8", True, "median"))
    for case in CASES:
        lowered = sharded_nnk_graph.lower(_activations(), **_options(*case))
        compiled = lowered.compile()
        (folder / f"{_name(*case)}.stablehlo").write_text(lowered.as_text())
        (folder / f"{_name(*case)}.hlo").write_text(compiled.as_text())
        _save(folder, case, compiled(_activations()))
    mesh = parse_mesh("data=4,channel=2")
    channels, whole = layer_graphs(_activations(), mesh=mesh, num_neighbors=K)
    fields = {
        f"{name} {field}": getattr(graph, field)
        for name, graph in (("channels", channels), ("whole", whole))
        for field in ("indices", "weights")
    }
    answers = _answers(shared_apply(_apply, mesh), functools.partial(replicate, mesh=mesh))
    np.savez(folder / "layer.npz", answers=answers, **fields)
    for mesh in TRAINED_ON:
        np.savez(folder / f"trained {mesh}.npz", **_trained(mesh))
    for case in (RING, GATHERED):

        def error(values, case=case):
            return sharded_nnk_graph(values, **_options(*case)).errors.sum()

        jax.export.export(jax.jit(jax.value_and_grad(error)), platforms=["cuda", "tpu"])(
            jax.ShapeDtypeStruct(SHAPE, "bfloat16")
        )


def _on_eight_devices_with_ties(folder):
    options = {"num_neighbors": 40, "similarity": cosine()}
    graphs = {"one": channelwise_nnk_graph(_tied(), **options)}
    for name, ring in (("gathered", False), ("ring", True)):
        graphs[name] = sharded_nnk_graph(_tied(), mesh=parse_mesh("data=8"), ring=ring, **options)
    indices = {f"{name} indices": graph.indices for name, graph in graphs.items()}
    of_clusters = {"one": channelwise_nnk_graph(_clustered(), **options)}
    for name, ring in (("gathered", False), ("ring", True)):
        graph = sharded_nnk_graph(_clustered(), mesh=parse_mesh("data=8"), ring=ring, **options)
        of_clusters[name] = graph
    indices |= {f"{name} of clusters": graph.indices for name, graph in of_clusters.items()}
    weights = {name: graph.weights for name, graph in graphs.items()}
    np.savez(folder / "ties.npz", **indices, **weights)


def _as_one_of_two(folder):
    join_processes()
    chosen = _options(*IN_TWO_PROCESSES)
    placed = jax.make_array_from_callback(
        _activations().shape,
        NamedSharding(chosen["mesh"], PartitionSpec("data")),
        lambda index: _activations()[index],
    )
    assert not placed.is_fully_addressable
    whole = gather(sharded_nnk_graph(placed, **chosen))
    trained = _trained("data=4")
    turns = folder / "turns"

    def save():
        turns.write_text("first\n" if is_first() else "second\n")
        _save(folder, IN_TWO_PROCESSES, whole)
        np.savez(folder / "trained data=4.npz", **trained)

    on_first(save, name="saving")
    assert turns.exists()
    jax.distributed.shutdown()


if __name__ == "__main__":
    jnnk.graphs._sharded._TRIP_FLOATS = 1  # several trips of the ring on so few images
    mode, where = sys.argv[1:]
    {
        "devices": _on_eight_devices,
        "ties": _on_eight_devices_with_ties,
        "process": _as_one_of_two,
    }[mode](pathlib.Path(where))
