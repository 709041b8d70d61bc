"""Graphs over a mesh of devices: the same as on one, in one process and in two."""

import functools
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
import sharding_worker as worker

from jnnk.channels import channelwise_nnk_graph
from jnnk.errors import InputError
from jnnk.sharding import parse_mesh, sharded_nnk_graph

pytestmark = pytest.mark.quick_compile


def _start(num_devices, *arguments):
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, worker.__file__, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _finish(process):
    output, _ = process.communicate(timeout=240)
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
        worker.activations(),
        num_neighbors=worker.K,
        similarity=worker.SIMILARITIES[similarity],
        block_size=worker.BLOCK,
    )


def _assert_same(graph, expected):
    np.testing.assert_array_equal(graph["indices"], expected.indices)
    np.testing.assert_array_equal(graph["converged"], expected.converged)
    np.testing.assert_array_equal(graph["weights"] > 0, np.asarray(expected.weights) > 0)
    for field in ("weights", "errors", "kkt_residual", "squared_distances"):
        np.testing.assert_allclose(graph[field], getattr(expected, field), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", worker.CASES, ids=lambda case: worker.name(*case))
def test_the_mesh_changes_nothing(folder, case):
    with np.load(folder / f"{worker.name(*case)}.npz") as graph:
        _assert_same(graph, _on_one_device(case[-1]))
        # Ties go by index, across devices too; a point of NaN is nobody's neighbour and has none.
        if case[-1] != "cosine":
            assert (graph["indices"][1, 100] == range(worker.K)).all()
        assert not (graph["indices"] == 70).any() and (graph["indices"][:, 70] == -1).all()
        assert ((graph["weights"][::2] > 0).sum(axis=2) > 0).mean() > 0.9


def _largest(text):
    """Elements of the largest array in a program, StableHLO or HLO."""
    shapes = re.findall(r"tensor<([\dx]+)x[a-z]\w+>", text) + re.findall(r"\w\[([\d,]+)\]", text)
    return max(math.prod(map(int, re.split("[x,]", shape))) for shape in shapes)


@pytest.mark.parametrize("suffix", ["stablehlo", "hlo"])
def test_the_ring_has_no_array_of_all_pairs(folder, suffix):
    text = (folder / f"{worker.name('data=8', True, 'default')}.{suffix}").read_text()
    assert _largest(text) < worker.N**2 / 4


def test_all_pairs_would_be_seen():
    shape = jax.ShapeDtypeStruct((worker.N, 2, 2, 3), "float32")
    build = jax.jit(lambda a: channelwise_nnk_graph(a, num_neighbors=4, block_size=worker.N))
    assert _largest(build.lower(shape).as_text()) >= worker.N**2


def test_points_travel_in_a_ring_and_are_gathered_else(folder):
    ring = (folder / f"{worker.name('data=8', True, 'default')}.stablehlo").read_text()
    gathered = (folder / f"{worker.name('data=8', False, 'cosine')}.stablehlo").read_text()
    assert "collective_permute" in ring and "all_gather" not in ring
    assert "all_gather" in gathered and "collective_permute" not in gathered


def test_two_processes_build_the_same_graph(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_start(2, "process", tmp_path, port, number) for number in range(2)]
    try:
        for process in processes:
            _finish(process)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with np.load(tmp_path / f"{worker.name('data=4', True, 'default')}.npz") as graph:
        _assert_same(graph, _on_one_device("default"))


def test_one_device_lowers_for_every_platform():
    shape = jax.ShapeDtypeStruct((worker.N, 2, 2, 3), "bfloat16")
    for text in ("data=1", "data=1,channel=1"):
        jax.export.export(sharded_nnk_graph, platforms=["cpu", "cuda", "tpu"])(
            shape, mesh=parse_mesh(text), num_neighbors=4, ring=True
        )


def test_a_mesh_is_read():
    mesh = parse_mesh(" channel=1, data = 1")
    assert mesh.axis_names == ("channel", "data") and mesh.devices.shape == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model=2", "unknown axis 'model'.*data and channel"),
        ("", "unknown axis ''"),
        ("data=1,", "unknown axis ''"),
        ("data=two", "data must be a whole number of at least 1, got 'two'"),
        ("data", "data must be a whole number of at least 1, got ''"),
        ("data=0", "whole number of at least 1"),
        ("data=-1", "whole number of at least 1"),
        ("data=²", "whole number of at least 1"),
        ("data=1,data=1", "data comes twice"),
        ("data=4000,channel=2", "asks for 8000 devices, there are"),
    ],
)
def test_a_mesh_that_is_none_is_named(text, message):
    with pytest.raises(InputError, match=f"mesh: .*{message}"):
        parse_mesh(text)


def test_misuse_is_named():
    values = np.ones((8, 2, 3), np.float32)
    build = functools.partial(sharded_nnk_graph, num_neighbors=2)
    with pytest.raises(ValueError, match="activations must be"):
        build(values[0], mesh=parse_mesh("data=1"))
    with pytest.raises(ValueError, match="method must be"):
        build(values, mesh=parse_mesh("data=1"), method="exakt")
    with pytest.raises(ValueError, match="mesh must have an axis data or channel"):
        build(values, mesh=jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)))
    with pytest.raises(ValueError, match="mesh must have axes of type Auto"):
        build(
            values,
            mesh=jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,)),
        )
    with pytest.raises(TypeError, match="mesh must be a"):
        build(values, mesh="data=1")
