"""Eigenvalues, determinants and singular values against float64 and against exact answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.pruning import determinant, eigenvalues, singular_values

pytestmark = pytest.mark.user_compile

BOUND = 5e-6  # of the Frobenius norm
# Batches are filled up to this many matrices: one compilation for each size of matrix. Large, since
# XLA compiles some reductions of large arrays differently, and jaxlib 0.10.2 some of them wrongly.
BATCH = 20_011


def as_arrays(matrices):
    """(B, n, n) of any dtype to the library's (n, n, B) in float32."""
    return jnp.asarray(np.moveaxis(np.asarray(matrices), 0, -1), jnp.float32)


def computed(matrices):
    """Our eigenvalues, complex (B, n)."""
    batch = np.resize(matrices, (BATCH, *np.shape(matrices)[1:]))
    values = jax.jit(eigenvalues)(as_arrays(batch))
    return (np.stack(values.real, -1) + 1j * np.stack(values.imag, -1))[: len(matrices)]


def eigenvalue_errors(matrices, expected):
    """Largest distance over the best pairing, relative to the Frobenius norm, by matrix."""
    ours = computed(matrices)
    pairings = itertools.permutations(range(ours.shape[1]))
    errors = np.min([np.abs(ours[:, p] - expected).max(axis=1) for p in pairings], axis=0)
    norms = np.linalg.norm(np.asarray(matrices, float), axis=(1, 2))
    return errors / np.where(norms > 0, norms, 1)


def float64_eigenvalues(matrices):
    return np.linalg.eigvals(np.asarray(matrices, np.float32).astype(np.float64))


def unimodular(rng, size, count):
    """Integer matrices with an integer inverse, and the inverses."""
    matrices = rng.integers(-1, 2, size=(20 * count, size, size))
    matrices = matrices[np.abs(np.round(np.linalg.det(matrices))) == 1][:count]
    return matrices, np.round(np.linalg.inv(matrices))


@pytest.mark.parametrize("size", [1, 2, 3, 4, pytest.param(5, marks=pytest.mark.thorough)])
def test_ordinary_matrices(size):
    rng = np.random.default_rng(size)
    matrices = rng.normal(size=(500, size, size))
    orthogonal = np.linalg.qr(matrices)[0]
    scaled = orthogonal * rng.normal(size=(500, 1, 1))
    families = [
        matrices + np.swapaxes(matrices, 1, 2),
        matrices - np.swapaxes(matrices, 1, 2),
        orthogonal,
        scaled,
        np.zeros((1, size, size)),
        np.eye(size)[None] * 0.1,
        np.roll(np.eye(size), 1, axis=0)[None],
    ]
    if size <= 3:
        families.append(matrices)
    batch = np.concatenate(families).astype(np.float32)
    assert eigenvalue_errors(batch, float64_eigenvalues(batch)).max() <= BOUND
    # Backward stable but conditioned: of 4x4 and beyond, almost all are that accurate.
    errors = eigenvalue_errors(matrices, float64_eigenvalues(matrices))
    assert np.median(errors) < 5e-7
    assert errors.max() < 1e-4


@pytest.mark.parametrize("size", [2, 3])
def test_defective_matrices_are_exact(size):
    rng = np.random.default_rng(0)
    basis, inverse = unimodular(rng, size, 200)
    triple = np.eye(size) + np.eye(size, k=1)
    double = np.diag([1.0, 1.0, -2.0][:size])
    double[0, 1] = 1
    for jordan in (triple, double, np.eye(size, k=1)):
        matrices = basis @ jordan @ inverse
        assert (matrices == matrices.astype(np.float32)).all()
        expected = np.broadcast_to(np.diag(jordan), (len(matrices), size))
        assert eigenvalue_errors(matrices, expected).max() < 2e-7
    jordan_blocks = np.eye(size) * rng.normal(size=(200, 1, 1)).astype(np.float32) + np.eye(
        size, k=1
    )
    expected = np.diagonal(jordan_blocks, axis1=1, axis2=2)
    assert eigenvalue_errors(jordan_blocks, expected).max() < 2e-7


def test_rounded_triple_eigenvalue():
    """A triple eigenvalue with all 24 bits is the hardest case: see the bound."""
    basis, inverse = unimodular(np.random.default_rng(1), 3, 200)
    factor = np.random.default_rng(2).normal(size=(len(basis), 1, 1)).astype(np.float32)
    matrices = factor.astype(np.float64) * (basis @ (np.eye(3) + np.eye(3, k=1)) @ inverse)
    exact = (matrices == matrices.astype(np.float32)).all(axis=(1, 2))
    matrices, expected = matrices[exact], np.repeat(factor[exact, 0], 3, axis=1)
    assert len(matrices) > 20
    errors = eigenvalue_errors(matrices, expected)
    assert errors.max() < 2e-5
    assert np.mean(errors <= BOUND) > 0.7


@pytest.mark.parametrize("size", [4, 5, pytest.param(7, marks=pytest.mark.thorough)])
def test_qr_steps_converge(size):
    rng = np.random.default_rng(0)
    basis, inverse = unimodular(rng, size, 50)
    batch = np.concatenate(
        [
            rng.normal(size=(2000, size, size)),
            rng.integers(-2, 3, size=(1000, size, size)),
            basis @ (np.eye(size) + np.eye(size, k=1)) @ inverse,
            np.eye(size, k=-1)[None],
            np.linalg.qr(rng.normal(size=(500, size, size)))[0],
            rng.normal(size=(500, size, 1)) * rng.normal(size=(500, 1, size)),
            [np.eye(size)[rng.permutation(size)] for _ in range(50)],
        ]
    )
    ours = np.sort_complex(computed(batch))
    assert np.isfinite(ours).all()
    # Sums of powers do not suffer from defects.
    norms = np.linalg.norm(batch, axis=(1, 2))
    for power in (1, 2):
        expected = np.trace(np.linalg.matrix_power(batch, power), axis1=1, axis2=2)
        assert (np.abs((ours**power).sum(axis=1) - expected) <= 1e-5 * norms**power).all()


def test_not_finite_is_nan():
    assert np.isnan(computed(np.full((1, 5, 5), np.nan)).real).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_derivative(size):
    """Against y' dA x / y'x with the eigenvectors of numpy."""
    rng = np.random.default_rng(size)
    matrices = rng.normal(size=(50, size, size)).astype(np.float32)
    directions = rng.normal(size=(50, size, size)).astype(np.float32)
    values, tangents = jax.jit(lambda p, t: jax.jvp(eigenvalues, (p,), (t,)))(
        as_arrays(matrices), as_arrays(directions)
    )
    ours = np.stack(values.real, -1) + 1j * np.stack(values.imag, -1)
    change = np.stack(tangents.real, -1) + 1j * np.stack(tangents.imag, -1)
    expected, right = np.linalg.eig(matrices.astype(float))
    slopes = np.einsum("bij,bjk,bki->bi", np.linalg.inv(right), directions, right)
    nearest = np.abs(ours[:, :, None] - expected[:, None]).argmin(axis=2)
    slopes = np.take_along_axis(slopes, nearest, axis=1)
    gaps = np.abs(expected[:, :, None] - expected[:, None]) + 10 * np.eye(size)
    simple = gaps.min(axis=(1, 2)) > 0.1
    assert simple.sum() > 10
    np.testing.assert_allclose(change[simple], slopes[simple], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_determinant(size):
    rng = np.random.default_rng(size)
    matrices = rng.normal(size=(200, size, size)).astype(np.float32)
    expected = np.linalg.det(matrices.astype(float))
    ours = jax.jit(determinant)(as_arrays(matrices))
    scale = np.linalg.norm(matrices, axis=(1, 2)) ** size
    assert (np.abs(ours - expected) <= 1e-7 * scale).all()
    if size <= 3:  # digits survive cancellation
        np.testing.assert_allclose(ours, expected, rtol=2e-7)
    gradient = jax.jit(jax.grad(lambda m: determinant(m).sum()))(as_arrays(matrices))
    adjugate = expected[:, None, None] * np.linalg.inv(matrices.astype(float))
    np.testing.assert_allclose(
        np.moveaxis(gradient, -1, 0), np.swapaxes(adjugate, 1, 2), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (5, 5), (1, 7), (7, 1), (3, 5)])
def test_singular_values(shape):
    rng = np.random.default_rng(0)
    matrices = np.concatenate(
        [
            rng.normal(size=(200, *shape)),
            np.zeros((1, *shape)),
            np.ones((1, *shape)),
            np.eye(*shape)[None],
            rng.normal(size=(50, shape[0], 1)) * rng.normal(size=(50, 1, shape[1])),
        ]
    ).astype(np.float32)

    def total(arrays):
        values = singular_values(arrays)
        return sum(s.sum() for s in values), values

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(as_arrays(matrices))
    ours = np.sort(np.stack(values, -1))[:, ::-1]
    expected = np.linalg.svd(matrices.astype(float), compute_uv=False)
    norms = np.linalg.norm(matrices, axis=(1, 2))[:, None]
    assert (np.abs(ours - expected) <= 1e-6 * norms).all()

    assert np.isfinite(gradient).all()
    left, _, right = np.linalg.svd(matrices[:200].astype(float), full_matrices=False)
    np.testing.assert_allclose(
        np.moveaxis(gradient, -1, 0)[:200], left @ right, rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("function", [eigenvalues, determinant])
def test_matrices_that_are_not_square_are_refused(function):
    with pytest.raises(ValueError, match=r"matrix: expected shape \(n, n, ...\), got \(3, 2, 5\)"):
        function(jnp.ones((3, 2, 5)))
