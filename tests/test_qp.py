"""The NNK solver against scipy in float64, the reference problems, transforms and robustness."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from jnnk.qp import solve_nnk

#: Problems and candidates of the tests in float32 that need no shape of their own: one program.
COUNT, SIZE = 50, 8
_REFERENCE = [(kernel, size) for kernel in ("gaussian", "cosine") for size in (15, 25, 50)]


def oracle(gram, cross):
    """One problem by scipy's NNLS on a factor of the Gram matrix, float64."""
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 0))
    factor = root[:, None] * vectors.T
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(root > 1e-9, (vectors.T @ cross) / root, 0)
    return scipy.optimize.nnls(factor, right, maxiter=1000)[0]


def residual(gram, cross, weights):
    """Largest violation of the optimality conditions, float64."""
    gradient = cross - np.einsum("...ij,...j->...i", gram, weights)
    return np.where(weights > 0, np.abs(gradient), np.maximum(gradient, 0)).max(-1)


def problems(count, size, *, dim=6, width=1.0, seed=0):
    """Gaussian problems of random points, float64."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, size, dim)) * width
    square = ((points[:, :, None] - points[:, None]) ** 2).sum(-1)
    return np.exp(-square / 2), np.exp(-(points**2).sum(-1) / 2)


@functools.cache
def reference(shared, kernel, size):
    """Gram matrices, cross vectors and exact weights of one set, float64."""
    with np.load(shared / "reference" / "nnk_resnet20_layer3.npz") as stored:
        prefix = f"{kernel}_K{size}_"
        query, neighbors = stored[prefix + "query"], stored[prefix + "neighbors"]
        cross, theta = stored[prefix + "g"], stored[prefix + "theta"]
        activations = stored["activations"].astype(np.float64)
        position = {channel: i for i, channel in enumerate(stored["channels"])}
    channel = np.array([position[c] for c in query[:, 0]])
    near = activations[neighbors, :, channel[:, None]]
    if kernel == "gaussian":
        near = near - activations[query[:, 1], :, channel][:, None]
        width = np.linalg.norm(near[:, -1], axis=1) / 3
        square = ((near[:, :, None] - near[:, None]) ** 2).sum(-1)
        gram = np.exp(-square / (2 * width[:, None, None] ** 2))
    else:
        near = near / np.linalg.norm(near, axis=2, keepdims=True)
        gram = 0.5 + 0.5 * np.einsum("bkd,bjd->bkj", near, near)
    gram[:, np.arange(size), np.arange(size)] = 1
    return gram, cross, theta


@pytest.mark.parametrize(("kernel", "size"), _REFERENCE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reference_problems(shared, kernel, size, dtype):
    gram, cross, theta = reference(shared, kernel, size)
    number = len(cross)
    # The sets differ by a few problems; repeating some lets both kernels share one compilation.
    padded = [np.resize(x, (240, *x.shape[1:])) for x in (gram, cross)]
    with jax.enable_x64(dtype == "float64"):
        solution = solve_nnk(*(jnp.asarray(x, dtype) for x in padded))
    solution = jax.tree.map(lambda x: x[:number], solution)
    weights = np.asarray(solution.weights, np.float64)
    violation = residual(gram, cross, weights)
    assert np.mean(violation < 1e-5) >= 0.999
    assert violation.max() < 2e-4
    np.testing.assert_allclose(solution.kkt_residual, violation, atol=2e-6)

    def objective(w):
        return np.einsum("bi,bij,bj->b", w, gram, w) / 2 - (w * cross).sum(1)

    assert np.mean(objective(weights) - objective(theta) <= 1e-6) >= 0.999
    regular = np.linalg.cond(gram) < 1e6
    found, true = weights[regular] > 1e-7, theta[regular] > 1e-7
    overlap = 2 * (found & true).sum(1) / (found.sum(1) + true.sum(1))
    assert overlap.mean() >= 0.999
    if dtype == "float64":
        assert (found == true).all()
        np.testing.assert_allclose(weights[regular], theta[regular], atol=1e-8)
    assert solution.converged.all()
    assert (solution.num_steps <= 600).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    width=st.floats(0.05, 2),
    dim=st.integers(1, 12),
    scale=st.sampled_from([1e-20, 1.0, 1e20]),
)
def test_agrees_with_scipy(seed, width, dim, scale):
    gram, cross = problems(4, 9, dim=dim, width=width, seed=seed)
    with jax.enable_x64(True):
        solution = solve_nnk(jnp.asarray(gram), jnp.asarray(cross))
        scaled = solve_nnk(jnp.asarray(gram * scale), jnp.asarray(cross * scale))
    assert residual(gram, cross, np.asarray(solution.weights)).max() < 1e-8
    assert solution.converged.all() and scaled.converged.all()
    for matrix, vector, found in zip(gram, cross, solution.weights, strict=True):
        expected = oracle(matrix, vector)
        value = lambda w: w @ matrix @ w / 2 - vector @ w  # noqa: B023, E731
        assert value(np.asarray(found)) <= value(expected) + 1e-9
        if np.linalg.cond(matrix) < 1e6:
            np.testing.assert_allclose(found, expected, atol=1e-6)
    if np.linalg.cond(gram).max() < 1e6:
        np.testing.assert_allclose(scaled.weights, solution.weights, atol=1e-6)


@pytest.mark.quick_compile
def test_masked_candidates_are_as_if_absent():
    gram, cross = problems(20, 12)
    mask = np.random.default_rng(1).random((20, 12)) < 0.6
    dirty = np.where(mask[:, :, None] & mask[:, None], gram, np.nan).astype(np.float32)
    infinite = np.where(mask, cross, np.inf).astype(np.float32)
    solution = solve_nnk(dirty, infinite, mask=jnp.asarray(mask))
    assert (np.asarray(solution.weights)[~mask] == 0).all()
    for i in range(20):
        keep = np.flatnonzero(mask[i])
        expected = oracle(gram[i][np.ix_(keep, keep)], cross[i][keep])
        np.testing.assert_allclose(solution.weights[i][keep], expected, atol=2e-5)
    assert solution.converged.all()


@pytest.mark.quick_compile
def test_batch_shapes_jit_and_vmap_agree():
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(COUNT, SIZE))
    flat = solve_nnk(gram, cross)
    nested = jax.jit(solve_nnk)(gram.reshape(2, 25, SIZE, SIZE), cross.reshape(2, 25, SIZE))
    mapped = jax.vmap(solve_nnk)(gram, cross)
    assert nested.weights.shape == (2, 25, SIZE) and nested.converged.shape == (2, 25)
    np.testing.assert_allclose(nested.weights.reshape(flat.weights.shape), flat.weights, atol=1e-6)
    np.testing.assert_allclose(mapped.weights, flat.weights, atol=1e-6)
    assert solve_nnk(gram[:0], cross[:0]).weights.shape == (0, SIZE)


def test_more_problems_than_a_chunk_are_all_solved():
    gram, cross = problems(600, 8, width=0.3)
    solution = solve_nnk(jnp.asarray(gram, jnp.float32), jnp.asarray(cross, jnp.float32))
    assert residual(gram, cross, np.asarray(solution.weights, np.float64)).max() < 1e-5
    assert solution.converged.all()


def test_large_problems_with_few_and_with_many_neighbors():
    """Those that are cut down to the most promising candidates, and those beside them that lose."""
    few, many = problems(120, 40, dim=2, width=0.4), problems(6, 40, dim=12, width=1.0)
    gram, cross = (np.concatenate(x) for x in zip(few, many, strict=True))
    gram[-1, 0, 1] = np.nan
    solution = solve_nnk(jnp.asarray(gram, jnp.float32), jnp.asarray(cross, jnp.float32))
    weights = np.asarray(solution.weights, np.float64)
    assert (weights[:100] > 0).sum(1).max() <= 24 < (weights[120:-1] > 0).sum(1).min()
    assert residual(gram[:-1], cross[:-1], weights[:-1]).max() < 1e-5
    assert solution.converged[:-1].all() and not solution.converged[-1]
    assert (weights[-1] == 0).all()


def _strict_problems(count):
    """Problems whose support is strictly complementary by a margin of 3e-4."""
    gram, cross = problems(count, 8, width=0.6, seed=3)
    weights = np.stack([oracle(*problem) for problem in zip(gram, cross, strict=True)])
    gradient = cross - np.einsum("bij,bj->bi", gram, weights)
    margin = np.where(weights > 0, weights, -gradient).min(1)
    chosen = margin > 3e-4
    assert chosen.sum() >= 10
    return gram[chosen], cross[chosen]


@pytest.mark.quick_compile
@pytest.mark.parametrize("double", [False, True])
def test_large_batches_are_solved_in_halves_that_join(double):
    gram, cross = problems(4201, 5)
    mask = np.random.default_rng(1).random(cross.shape) < 0.8
    with jax.enable_x64(double):
        arguments = jnp.asarray(gram), jnp.asarray(cross)
        halves = solve_nnk(*arguments, mask=mask, max_steps=90)
        one = jax.jit(functools.partial(solve_nnk, max_steps=90))(*arguments, mask=mask)
        nested = solve_nnk(
            *(np.asarray(x)[None, 1:] for x in arguments), mask=mask[None, 1:], max_steps=90
        )
    assert halves.weights.dtype == nested.weights.dtype == arguments[0].dtype
    atol = 1e-12 if double else 2e-5
    np.testing.assert_allclose(halves.weights, one.weights, atol=atol)
    np.testing.assert_allclose(nested.weights[0], one.weights[1:], atol=atol)
    assert halves.converged.all() and nested.converged.shape == (1, 4200)


@pytest.mark.quick_compile
def test_derivatives_agree_with_finite_differences():
    gram, cross = _strict_problems(60)
    rng = np.random.default_rng(0)
    gram_dot, cross_dot = rng.normal(size=gram.shape), rng.normal(size=cross.shape)
    gram_dot = gram_dot + gram_dot.swapaxes(1, 2)
    cotangent = rng.normal(size=cross.shape)
    with jax.enable_x64(True):
        arguments = jnp.asarray(gram), jnp.asarray(cross)

        def weights(gram, cross):
            return solve_nnk(gram, cross).weights

        _, forward = jax.jit(lambda p, t: jax.jvp(weights, p, t))(
            arguments, (jnp.asarray(gram_dot), jnp.asarray(cross_dot))
        )
        mapped = jax.vmap(jax.grad(lambda g, c, t: weights(g, c) @ t, (0, 1)))
        gram_bar, cross_bar = jax.jit(mapped)(*arguments, jnp.asarray(cotangent))
        step = 1e-6
        plus, minus = (
            weights(arguments[0] + s * gram_dot, arguments[1] + s * cross_dot)
            for s in (step, -step)
        )
    difference = (np.asarray(plus) - np.asarray(minus)) / (2 * step)
    np.testing.assert_allclose(forward, difference, atol=1e-6)
    reverse = (np.asarray(gram_bar) * gram_dot).sum((1, 2))
    reverse += (np.asarray(cross_bar) * cross_dot).sum(1)
    np.testing.assert_allclose(reverse, (cotangent * difference).sum(1), atol=1e-6)


def test_derivatives_are_finite_where_the_problem_is_degenerate():
    gram = jnp.ones((3, 4, 4))
    cross = jnp.stack([jnp.ones(4), -jnp.ones(4), jnp.zeros(4)])
    derivative = jax.jit(jax.grad(lambda g, c: solve_nnk(g, c).weights.sum(), (0, 1)))
    gram_bar, cross_bar = derivative(gram, cross)
    assert jnp.isfinite(gram_bar).all() and jnp.isfinite(cross_bar).all()
    assert (gram_bar[1] == 0).all() and (cross_bar[1] == 0).all()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_scale_changes_nothing_in_float32(scale):
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(COUNT, SIZE))
    plain = solve_nnk(gram, cross)
    scaled = solve_nnk(gram * scale, cross * scale)
    assert scaled.converged.all()
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=1e-5)
    small = solve_nnk(gram, cross * scale)
    assert small.converged.all()
    np.testing.assert_allclose(small.weights / scale, plain.weights, atol=1e-5)


def test_bad_numbers_stay_in_their_problem():
    gram, cross = (np.asarray(x, np.float32) for x in problems(COUNT, SIZE))
    gram[1, 2, 3], cross[2, 0], cross[3] = np.nan, np.inf, -1
    gram[4], cross[4] = 1, 1
    solution = solve_nnk(gram, cross)
    assert np.isfinite(solution.weights).all()
    assert (solution.weights[1:4] == 0).all()
    assert (~solution.converged).nonzero()[0].tolist() == [1, 2]
    assert np.isinf(solution.kkt_residual[1:3]).all()
    np.testing.assert_allclose(solution.weights[4].sum(), 1, atol=1e-5)


def test_duplicates_have_an_optimum_too():
    gram, cross = problems(COUNT, SIZE // 2, width=0.4, seed=5)
    twice = np.repeat(np.arange(SIZE // 2), 2)
    gram, cross = gram[:, twice][:, :, twice], cross[:, twice]
    solution = solve_nnk(jnp.asarray(gram, jnp.float32), jnp.asarray(cross, jnp.float32))
    assert residual(gram, cross, np.asarray(solution.weights, np.float64)).max() < 1e-5
    assert solution.converged.all()


def test_converged_is_honest_when_stopped_early():
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(200, 12, dim=3, width=0.1))
    stopped = solve_nnk(gram, cross, max_steps=0, tol=1e-6)
    scale = jnp.abs(cross).max(1)
    np.testing.assert_array_equal(stopped.converged, stopped.kkt_residual <= 1e-6 * scale)
    assert not stopped.converged.all()
    assert (stopped.num_steps <= 60).all()


def test_half_precisions_are_computed_in_float32():
    gram, cross = (jnp.asarray(x, jnp.bfloat16) for x in problems(COUNT, SIZE))
    solution = solve_nnk(gram, cross)
    assert solution.weights.dtype == jnp.float32
    wide = solve_nnk(gram.astype(jnp.float32), cross.astype(jnp.float32))
    np.testing.assert_allclose(solution.weights, wide.weights, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"gram": jnp.ones((3, 4)), "cross": jnp.ones(4)}, "gram must be"),
        ({"gram": jnp.ones((4, 4), int), "cross": jnp.ones(4, int)}, "floating"),
        ({"gram": jnp.ones((4, 4)), "cross": jnp.ones(4), "mask": jnp.ones(3, bool)}, "mask"),
    ],
)
def test_misuse_raises(arguments, match):
    with pytest.raises(ValueError, match=match):
        solve_nnk(**arguments)
