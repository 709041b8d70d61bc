"""Eigenvalues of badly scaled matrices, against LAPACK's in float64 and by their backward error.

The distance to the eigenvalues in exact arithmetic says little for defective matrices, which move
by the cube root of a rounding. The backward error of a number ``z`` is that of the nearest matrix
which has it as an eigenvalue: the smallest singular value of ``A - zI``, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.pruning import eigenvalues, kernel_scores
from jnnk.pruning._linalg.balancing import balance, times_power_of_two, without_couplings

pytestmark = pytest.mark.user_compile

LARGE = pytest.param(8, marks=pytest.mark.thorough)  # half a minute to compile
BATCH = 1000  # one program for each size of matrix


def computed(matrices):
    """Our eigenvalues, complex (B, n)."""
    batch = np.resize(matrices, (BATCH, *matrices.shape[1:]))
    values = jax.jit(eigenvalues)(jnp.asarray(np.moveaxis(batch, 0, -1)))
    return (np.stack(values.real, -1) + 1j * np.stack(values.imag, -1))[: len(matrices)]


def of_all_sizes(rng, size, count, low=-30, high=0):
    """Entries of either sign whose logarithms are uniform, a third of them 0 in every other."""
    entries = 10 ** rng.uniform(low, high, (count, size, size))
    entries *= rng.choice([-1, 1], entries.shape)
    entries[::2] *= rng.random(entries[::2].shape) > 0.33
    return entries.astype(np.float32)


def badly_balanced(rng, size, count, width):
    """``D R D^-1`` with ``D`` from ``10 ** -width`` to ``10 ** width``."""
    powers = 10 ** rng.uniform(-width, width, (count, size))
    normal = rng.normal(size=(count, size, size))
    return (powers[:, :, None] * normal / powers[:, None]).astype(np.float32)


def adversarial():
    """3 x 3 matrices by family, float32 (B, 3, 3)."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(100, 3, 3))
    upper = np.triu(of_all_sizes(rng, 3, 100), 1)
    defective = np.eye(3, k=1) * 10 ** rng.uniform(-20, 0, (100, 1, 1)) + 0.3 * np.eye(3)
    powers = 10 ** rng.uniform(-12, 0, (100, 3))
    return {
        "all sizes": of_all_sizes(rng, 3, 400),
        "large and small": of_all_sizes(rng, 3, 100, low=-30, high=30),
        "badly balanced": badly_balanced(rng, 3, 100, 9),
        "graded": powers[:, :, None] * normal * powers[:, None],
        "symmetric": normal + normal.swapaxes(1, 2),
        "orthogonal": np.linalg.qr(normal)[0],
        "nilpotent": upper,
        "nilpotent but for one entry": upper
        + np.eye(3, k=-2) * 10 ** rng.uniform(-30, 0, (100, 1, 1)),
        "defective": defective,
        "squares to zero": rng.normal(size=(100, 3, 1)) * np.array([[[1, 1, 1]]])
        - np.roll(rng.normal(size=(100, 3, 1)) * np.array([[[1, 1, 1]]]), 1, 1),
        "rank one": normal[:, :, :1] * normal[:, :1],
        "zero": np.zeros((1, 3, 3)),
    }


FAMILIES = adversarial()


@pytest.mark.parametrize("family", FAMILIES)
def test_backward_error_at_3x3(family):
    matrices = FAMILIES[family].astype(np.float32)
    exact = matrices.astype(np.float64)
    values = computed(matrices)
    shifted = exact[:, None] - values[:, :, None, None] * np.eye(3)
    errors = np.linalg.svd(shifted, compute_uv=False)[:, :, -1]
    norms = np.linalg.norm(exact, axis=(1, 2))
    assert (errors <= 5e-7 * norms[:, None]).all()
    # The largest modulus, where rounding does not move it by more than that.
    expected = np.abs(np.linalg.eigvals(exact)).max(1)
    moved = np.abs(np.linalg.eigvals(exact * (1 + 1e-7 * np.sign(exact)[:, ::-1]))).max(1)
    error = np.abs(np.abs(values).max(1) - expected)
    assert (error <= 5e-7 * norms + 10 * np.abs(moved - expected)).all()


def test_spectral_radius_far_below_the_norm():
    for entries in (
        [[0, 1, 0], [3e-14, 0, 0], [0, 0, 3e-25]],
        [[0, 1e20, 0], [0, 0, 1], [1e-29, 0, 0]],
        [[0, 1e-30, 0], [1e30, 0, 0], [1, 1, 1e-3]],
    ):
        matrix = np.array(entries, np.float32)
        score = kernel_scores(jnp.asarray(matrix)[:, :, None, None], "spectral_radius")
        expected = np.abs(np.linalg.eigvals(matrix.astype(float))).max()
        np.testing.assert_allclose(score, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [2, 3, 5, LARGE])
@pytest.mark.parametrize("width", [4, 9])
def test_spectral_radius_of_badly_balanced_matrices(size, width):
    matrices = badly_balanced(np.random.default_rng(size), size, 200, width)
    expected = np.linalg.eigvals(matrices.astype(float))
    ours = computed(matrices)
    radius = np.abs(expected).max(1)
    np.testing.assert_allclose(np.abs(ours).max(1), radius, rtol=1e-5)
    for power in (1, 2):  # whatever the order
        error = np.abs((ours**power).sum(1) - (expected**power).sum(1))
        assert (error <= 1e-5 * radius**power).all()


@pytest.mark.parametrize("size", [5, LARGE])
def test_spectral_radius_of_entries_of_all_sizes(size):
    matrices = of_all_sizes(np.random.default_rng(size), size, 200)
    expected = np.abs(np.linalg.eigvals(matrices.astype(float))).max(1)
    np.testing.assert_allclose(np.abs(computed(matrices)).max(1), expected, rtol=1e-4)


def test_block_triangular_matrices():
    """A coupling of 1e8 between blocks near 1 is in no eigenvalue."""
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(50, 5, 5))
    matrices[:, :2, 2:] *= 1e8
    matrices[:, 2:, :2] = 0
    order = rng.permutation(5)
    matrices = matrices[:, order][:, :, order].astype(np.float32)
    expected = np.linalg.eigvals(matrices.astype(float))
    np.testing.assert_allclose(
        np.abs(computed(matrices)).max(1), np.abs(expected).max(1), rtol=1e-5
    )
    arrays = jnp.asarray(np.moveaxis(matrices, 0, -1))
    blocks = np.asarray(without_couplings(arrays))[:, :, 0]
    assert (blocks != 0).sum() == 4 + 9
    assert np.abs(blocks).max() < 10


@pytest.mark.parametrize("size", [3, 8])
def test_balanced_matrices_are_similar_and_even(size):
    matrices = badly_balanced(np.random.default_rng(1), size, 50, 9)
    result = jax.jit(balance)(jnp.asarray(np.moveaxis(matrices, 0, -1)))
    exponents = np.asarray(result.exponents, float)
    shifts = np.asarray(result.scale) + exponents[:, None] - exponents[None]
    restored = np.asarray(result.matrix, float) * 2.0**shifts
    np.testing.assert_array_equal(restored, np.moveaxis(matrices, 0, -1))  # no rounding at all
    off = np.abs(result.matrix) * (1 - np.eye(size))[:, :, None]
    ratios = off.max(0) / off.max(1)
    assert ((ratios >= 1 / 8) & (ratios <= 8)).all()
    assert ((np.abs(result.matrix).max((0, 1)) >= 1) & (np.abs(result.matrix) < 2)).all()


def test_powers_of_two_beyond_float32():
    x = jnp.float32([1e-30, 1e30, 3, 0])
    exponents = jnp.int32([200, -200, -(2**20), 2**20])
    expected = [1e-30 * 2.0**200, 1e30 * 2.0**-200, 0, 0]
    np.testing.assert_allclose(times_power_of_two(x, exponents), expected, rtol=1e-7)
