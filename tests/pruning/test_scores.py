"""Criteria against numpy in float64, on any input and every platform."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jnnk.pruning import (
    CRITERIA,
    Contribution,
    KeepRate,
    Threshold,
    authors_mode,
    eigenvalues,
    kernel_scores,
)
from jnnk.pruning._scores import kernel_magnitudes, score_degree

pytestmark = pytest.mark.user_compile

KEY = jax.random.key(0)
NETWORKS = [
    "resnet20_cifar10",
    "resnet32_cifar10",
    "resnet20_projection_dense_cifar10",
    "resnet20_projection_channel_regularized_cifar10",
]
MEASURED = [name for name in CRITERIA if name != "random"]


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def key_of(name):
    """The key for ``random`` only, so that all tests share the other criteria's programs."""
    return KEY if name == "random" else None


def oracle(kernel, name):
    """float64 scores (Cin, Cout) by numpy."""
    matrices = np.asarray(kernel, np.float64).transpose(2, 3, 0, 1)
    singular = np.linalg.svd(matrices, compute_uv=False)
    square = matrices.shape[2] == matrices.shape[3]
    values = np.linalg.eigvals(matrices) if square else singular
    return {
        "det": np.abs(np.prod(singular, axis=-1)),
        "det_gram": np.prod(singular, axis=-1) ** 2,
        "min_eig": np.abs(values).min(axis=-1),
        "min_eig_real": np.abs(values.real).min(axis=-1),
        "spectral_radius": np.abs(values).max(axis=-1),
        "spectral_radius_real": np.abs(values.real).max(axis=-1),
        "spectral_norm": singular.max(axis=-1),
        "weight": np.abs(matrices).mean(axis=(-2, -1)),
    }[name]


def special_kernel(size, rng):
    """Random, then one: random, zero, identity, nilpotent, defective, reversed, constant, tiny."""
    kernel = rng.normal(size=(size, size, 2, 8)).astype(np.float32)
    kernel[..., 0, 1] = 0
    kernel[..., 0, 2] = np.eye(size)
    kernel[..., 0, 3] = np.eye(size, k=1)
    kernel[..., 0, 4] = 0.3 * np.eye(size) + np.eye(size, k=1)
    kernel[..., 0, 5] = np.eye(size)[::-1]
    kernel[..., 0, 6] = 1
    kernel[..., 0, 7] *= 1e-15
    return jnp.asarray(kernel)


@jax.jit
def measured(kernel):
    """Scores and magnitudes by every criterion, in one program: they share their eigenvalues."""
    functions = kernel_scores, kernel_magnitudes
    return {name: [function(kernel, name) for function in functions] for name in MEASURED}


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (2, 2), (3, 3), pytest.param((5, 5), marks=pytest.mark.thorough), (1, 7), (5, 3)],
)
def test_scores_are_those_of_numpy(shape):
    kernel = np.random.default_rng(0).normal(size=(*shape, 3, 20)).astype(np.float32)
    for name, (scores, magnitudes) in measured(kernel).items():
        assert scores.shape == (3, 20)
        assert scores.dtype == jnp.float32
        degree = score_degree(name, shape)
        tolerance = 5e-6 * np.linalg.norm(kernel, axis=(0, 1)) ** degree
        assert (np.abs(scores - oracle(kernel, name)) <= tolerance).all(), name
        np.testing.assert_allclose(
            magnitudes, np.asarray(scores) ** (1 / degree), rtol=1e-5, err_msg=name
        )


def test_eigenvalues_of_the_shared_networks(shared):
    kernels = []
    for network in NETWORKS:
        tensors = load_file(shared / f"weights/{network}.safetensors").values()
        kernels += [t.reshape(-1, 3, 3) for t in tensors if t.ndim == 4 and t.shape[2] == 3]
    matrices = np.concatenate(kernels)
    # As kernel_scores does: a power of two brings the weights near 1.
    matrices = np.ldexp(matrices, -np.frexp(np.abs(matrices).max(axis=(1, 2), keepdims=True))[1])
    values = jax.jit(eigenvalues)(jnp.asarray(np.moveaxis(matrices, 0, -1)))
    ours = np.stack(values.real, -1) + 1j * np.stack(values.imag, -1)
    expected = np.linalg.eigvals(matrices.astype(float))
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    errors = np.min([np.abs(ours[:, p] - expected).max(axis=1) for p in orders], axis=0)
    assert (errors <= 5e-6 * np.linalg.norm(matrices, axis=(1, 2))).all()


def test_transposed_depthwise_and_grouped_shapes():
    kernel = normal(3, 3, 1, 12)  # depthwise: one input channel a group
    assert kernel_scores(kernel, "spectral_norm").shape == (1, 12)


@pytest.mark.parametrize("name", MEASURED)
def test_scale_does_not_matter(name):
    kernel = normal(3, 3, 2, 5)
    expected = kernel_magnitudes(kernel, name)
    for factor in (2.0**-60, 2.0**60):
        # The determinants' powers leave the range of float32; magnitudes do not.
        np.testing.assert_allclose(kernel_magnitudes(kernel * factor, name), expected * factor)


def test_tiny_determinants_keep_their_order():
    kernel = jnp.eye(7)[:, :, None, None] * jnp.asarray([1e-9, 2e-9])
    assert (kernel_scores(kernel, "det_gram") == 0).all()
    np.testing.assert_allclose(kernel_magnitudes(kernel, "det_gram"), [[1e-9, 2e-9]], rtol=1e-5)


@pytest.mark.parametrize("name", CRITERIA)
def test_not_finite_scores_nan(name):
    kernel = np.ones((3, 3, 2, 5), np.float32)
    kernel[1, 1, 0, 1], kernel[0, 0, 1, 2] = np.nan, np.inf
    expected = np.zeros((2, 5), bool)
    expected[0, 1] = expected[1, 2] = True
    for score_fn in (kernel_scores, kernel_magnitudes):
        scores = score_fn(jnp.asarray(kernel), name, key=key_of(name))
        np.testing.assert_array_equal(np.isnan(scores), expected)


def gradients(kernel, names):
    """By each criterion, of the sum of the scores; for determinants of the magnitudes too."""
    wanted = [(kernel_scores, name) for name in names]
    wanted += [(kernel_magnitudes, name) for name in names if name.startswith("det")]
    return {
        (function.__name__, name): jax.grad(lambda k, f=function, n=name: f(k, n, key=KEY).sum())(
            kernel
        )
        for function, name in wanted
    }


@pytest.mark.parametrize("size", [2, pytest.param(5, marks=pytest.mark.thorough)])
def test_gradients_are_finite_everywhere(size):
    # Beyond 3x3 all criteria of eigenvalues take the same way.
    names = tuple(CRITERIA) if size <= 3 else ("min_eig", "det", "spectral_norm")
    kernel = special_kernel(size, np.random.default_rng(0))
    for name, slope in jax.jit(gradients, static_argnums=1)(kernel, names).items():
        assert np.isfinite(slope).all(), name


@pytest.mark.thorough
def test_gradients_are_finite_and_the_slopes_under_x64_too():
    rng = np.random.default_rng(3)
    special = np.asarray(special_kernel(3, np.random.default_rng(0))).reshape(3, 3, 1, 16)
    kernel = rng.normal(size=(3, 3, 1, 30))
    direction = rng.normal(size=kernel.shape)
    step = 1e-5
    both = np.concatenate([special, kernel], axis=3).astype(np.float32)
    found = jax.jit(gradients, static_argnums=1)(both, tuple(CRITERIA))
    for name, slope in found.items():
        assert np.isfinite(slope).all(), name
    for name in MEASURED:
        ahead, behind = (oracle(kernel + s * direction, name) for s in (step, -step))
        slope, centre = (ahead - behind) / (2 * step), oracle(kernel, name)
        smooth = np.abs(ahead + behind - 2 * centre) < 1e-7  # no kink or near-defect in between
        assert smooth.sum() > 15
        ours = (np.asarray(found["kernel_scores", name])[..., 16:] * direction).sum((0, 1))
        np.testing.assert_allclose(ours[smooth], slope[smooth], rtol=2e-3, atol=2e-3, err_msg=name)
    # The kernel in float64 and in float32, in one program; moduli for the real parts, which go the
    # same way.
    names = [name for name in MEASURED if not name.endswith("_real")]
    with jax.enable_x64(True):
        wide = jax.jit(lambda k: [gradients(x, names) for x in (k, k.astype(jnp.float32))])(
            jnp.asarray(both, jnp.float64)
        )
    for again, dtype in zip(wide, ("float64", "float32"), strict=True):
        for name, slope in again.items():
            assert slope.dtype == dtype
            slope, known = np.asarray(slope), np.asarray(found[name])
            np.testing.assert_allclose(slope, known, rtol=1e-5, atol=1e-6, err_msg=str(name))


def gram_slope(matrices):
    """Of ``det(A'A)`` in float64, by cofactors: ``2 det(A) cof(A)``, for (B, 5, 5)."""
    cofactors = np.empty_like(matrices)
    for i in range(5):
        for j in range(5):
            minors = np.delete(np.delete(matrices, i, 1), j, 2)
            cofactors[:, i, j] = (-1) ** (i + j) * np.linalg.det(minors)
    return 2 * np.linalg.det(matrices)[:, None, None] * cofactors


def test_slope_of_det_gram_at_5x5():
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(60, 5, 5))
    matrices[20:40, :, 4] = matrices[20:40, :, 0] + 1e-3 * matrices[20:40, :, 4]  # near singular
    matrices[40:50, :, 4] = 0
    matrices[50:] *= rng.uniform(0.1, 1, (10, 1, 5)) ** 4
    matrices = matrices.astype(np.float32)
    kernel = jnp.asarray(np.moveaxis(matrices, 0, -1)[:, :, None])
    ours = jax.jit(jax.grad(lambda k: kernel_scores(k, "det_gram").sum()))(kernel)
    error = np.abs(np.moveaxis(ours[:, :, 0], -1, 0) - gram_slope(matrices.astype(float)))
    norms = np.linalg.norm(matrices, axis=(1, 2))
    # The slope's own size is at most that of norm ** 9 / 5 ** 4: relative errors of about 1e-6.
    assert (error.max((1, 2)) <= 1e-6 * norms**9 / 5**4).all()
    ordinary = error[:20].max((1, 2)) / np.abs(gram_slope(matrices[:20].astype(float))).max((1, 2))
    assert ordinary.max() < 1e-4


def test_slope_of_det_gram_of_tall_kernels():
    matrices = np.random.default_rng(0).normal(size=(30, 5, 4)).astype(np.float32)
    kernel = jnp.asarray(np.moveaxis(matrices, 0, -1)[:, :, None])
    ours = jax.jit(jax.grad(lambda k: kernel_scores(k, "det_gram").sum()))(kernel)
    exact = matrices.astype(float)
    gram = exact.swapaxes(1, 2) @ exact
    expected = 2 * np.linalg.det(gram)[:, None, None] * (exact @ np.linalg.inv(gram))
    scale = np.abs(expected).max((1, 2), keepdims=True)
    np.testing.assert_allclose(
        np.moveaxis(ours[:, :, 0], -1, 0) / scale, expected / scale, rtol=1e-4, atol=1e-5
    )


def test_jit_and_vmap_change_nothing():
    kernels = normal(4, 3, 3, 2, 5)

    def all_scores(kernel):
        return {name: kernel_scores(kernel, name, key=KEY) for name in CRITERIA}

    together = jax.jit(jax.vmap(all_scores))(kernels)
    for name, scores in together.items():
        one = kernel_scores(kernels[1], name, key=key_of(name))
        np.testing.assert_allclose(scores[1], one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("det", ("det", Threshold(0.5))),
        ("det_corr", ("det_gram", Threshold(0.5))),
        ("det_contrib", ("det", Contribution(0.5, exact=True))),
        ("min_eig_real_contrib", ("min_eig_real", Contribution(0.5, exact=True))),
        ("spectral_norm_sorted_kernels", ("spectral_norm", KeepRate(0.5, "filter"))),
        ("weight_sorted_neurons", ("weight", KeepRate(0.5, "layer", whole_filters=True))),
        ("random_kernels", ("random", KeepRate(0.5, "filter"))),
        ("random_neurons", ("random", KeepRate(0.5, "layer", whole_filters=True))),
    ],
)
def test_modes_of_the_authors(mode, expected):
    found = authors_mode(mode, 0.5)
    criterion, selection = expected
    assert found.criterion == criterion
    assert isinstance(found.selection, type(selection))
    assert dataclasses.astuple(found.selection) == dataclasses.astuple(selection)


def test_misuse_is_refused():
    kernel = jnp.ones((3, 3, 2, 2))
    with pytest.raises(ValueError, match=r"criterion: .*spectral_norm.*got 'norm'"):
        kernel_scores(kernel, "norm")
    with pytest.raises(ValueError, match=r"key: .*random"):
        kernel_scores(kernel, "random")
    with pytest.raises(ValueError, match=r"kernel: expected shape \(h, w, Cin, Cout\)"):
        kernel_scores(kernel[0], "det")


def test_options_are_keyword_only():
    for function in (kernel_scores, kernel_magnitudes):
        parameters = inspect.signature(function).parameters.values()
        kinds = {p.name: p.kind for p in parameters}
        assert kinds["key"] is inspect.Parameter.KEYWORD_ONLY
