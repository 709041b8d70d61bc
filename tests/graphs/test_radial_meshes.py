"""A radial similarity of the user's own gives the same graphs on every mesh, to the bit.

Run as a program, ``test_radial_meshes.py FILE`` builds them on eight devices, which the test's own
process does not have, and saves what comes out.
"""

import dataclasses
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jnnk.graphs._sharded
from jnnk.graphs import RadialSimilarity, channelwise_nnk_graph, sharded_nnk_graph
from jnnk.parallel import parse_mesh

# Which operations are fused decides the last bits.
pytestmark = [pytest.mark.user_compile, pytest.mark.thorough]

# Eight devices have a chunk of the solver's each, the last one not a whole one; two devices do not
# share three channels evenly.
N = 1404
TIED = np.arange(99, 104)
# Mesh, ring.
CASES = (("data=2", False), ("data=8", False), ("data=4,channel=2", False), ("data=8", True))


@dataclasses.dataclass(frozen=True)
class RationalQuadratic(RadialSimilarity):
    """``1 / (1 + d^2 / length^2)``, whose length is a share of the distance to the last candidate.

    It sees all that the library hands to a similarity: distances, which candidates exist, units.
    """

    share: float

    def widths(self, squared_distances, valid, unit):
        farthest = jnp.max(jnp.where(valid, squared_distances, 0), axis=1)
        return self.share * jnp.sqrt(farthest)

    def of_squared_distances(self, squared_distances, widths):
        return 1 / (1 + squared_distances / widths**2)


def _activations() -> np.ndarray:
    """Three channels of 2 x 2."""
    values = np.random.default_rng(5).normal(size=(N, 2, 2, 3)).astype(np.float32)
    values[70] = np.nan  # nobody's neighbour
    values[TIED] = values[99]
    return values


def _save(file: str) -> None:
    options = {"num_neighbors": 8, "similarity": RationalQuadratic(0.5)}
    graphs = {"one device": channelwise_nnk_graph(_activations(), **options)}
    for mesh, ring in CASES:
        graphs[f"{mesh} {ring}"] = sharded_nnk_graph(
            _activations(), mesh=parse_mesh(mesh), ring=ring, **options
        )
    fields = {
        f"{name} {field}": np.asarray(getattr(graph, field))
        for name, graph in graphs.items()
        for field in ("indices", "weights")
    }
    np.savez(file, **fields)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What eight devices made."""
    file = tmp_path_factory.mktemp("devices") / "graphs.npz"
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | {
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(file) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("mesh", "ring"), CASES)
def test_every_mesh_gives_the_graphs_of_one_device(found, mesh, ring):
    for field in ("indices", "weights"):
        np.testing.assert_array_equal(found[f"{mesh} {ring} {field}"], found[f"one device {field}"])


def test_weights_are_as_scipy_says(found):
    """Those of one device, and so, by the other test, those of all meshes."""
    indices, weights = found["one device indices"], found["one device weights"]
    for channel in range(3):
        points = _activations()[:, :, :, channel].reshape(N, -1).astype(np.float64)
        for query in range(0, N, 60):
            if np.isin(indices[channel, query], TIED).sum() > 1:
                continue  # has many solutions
            near = points[[query, *indices[channel, query]]]
            squares = ((near[:, None] - near) ** 2).sum(axis=2)
            similar = 1 / (1 + squares / (0.25 * squares[0].max()))
            lower = np.linalg.cholesky(similar[1:, 1:])
            cross = np.linalg.solve(lower, similar[0, 1:])
            expected, _ = scipy.optimize.nnls(lower.T, cross)
            np.testing.assert_allclose(weights[channel, query], expected, atol=1e-5)
            assert expected.any()


if __name__ == "__main__":
    jnnk.graphs._sharded._TRIP_FLOATS = 1  # several trips of the ring on so few images
    _save(sys.argv[1])
