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

from jnnk.graphs import solve_nnk
from jnnk.graphs._qp.chunks import chunk_size, queries_of_device

pytestmark = pytest.mark.user_compile

#: Problems and candidates of the tests in float32 that need no shape of their own: one program.
COUNT, SIZE = 50, 8
IN_DOUBLE = pytest.param("float64", marks=pytest.mark.thorough)
_REFERENCE = [(kernel, size) for kernel in ("gaussian", "cosine") for size in (15, 25, 50)]


def oracle(gram, cross):
    """One problem by scipy's NNLS on a factor of the Gram matrix, float64."""
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 0))
    factor = root[:, None] * vectors.T
    with np.errstate(divide="ignore", invalid="ignore"):
        right = np.where(root > 1e-9, (vectors.T @ cross) / root, 0)
    return scipy.optimize.nnls(factor, right, maxiter=1000)[0]


def least_residual(matrix, right):
    """``min |A theta - b|``, ``theta >= 0``, float64; before SciPy 1.17 ``nnls`` cycles or errs."""
    best = scipy.optimize.lsq_linear(matrix, right, (0, np.inf), method="bvls", tol=1e-14)
    return np.sqrt(2 * best.cost)


def residual(gram, cross, weights, unit=1):
    """Largest violation of the optimality conditions, each in its unit, float64."""
    gradient = (cross - np.einsum("...ij,...j->...i", gram, weights)) / unit
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
@pytest.mark.parametrize("dtype", ["float32", IN_DOUBLE])
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
    # Claimed is the violation in the numbers that the solver had, and its own rounding beside it.
    given = (np.asarray(x, dtype).astype(np.float64) for x in (gram, cross))
    excess = np.asarray(solution.kkt_residual) - residual(*given, weights)
    assert excess.min() >= -1e-12 and excess.max() < 1e-5

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


def test_the_size_of_chunks_elsewhere_changes_no_support(monkeypatch):
    """Without a cache of which they must be the size, chunks are larger."""
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(300, SIZE, seed=5))
    here, size = solve_nnk(gram, cross), chunk_size(SIZE)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    there = solve_nnk(gram, cross)
    jax.clear_caches()
    assert size < 300 < chunk_size(SIZE)
    np.testing.assert_array_equal(there.weights > 0, here.weights > 0)
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-5)


def test_no_device_idles_where_chunks_are_long(monkeypatch):
    shares = {"num_queries": 10_000, "num_devices": 8, "num_neighbors": 25}
    assert queries_of_device(**shares) == 1344  # seven chunks of 192
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert queries_of_device(**shares) == 1250 < chunk_size(25)


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


@pytest.mark.thorough
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
    relative = np.asarray(stopped.kkt_residual / scale)
    told = np.abs(relative - 1e-6) > 1e-9  # at the very tolerance rounding tells
    np.testing.assert_array_equal(stopped.converged[told], relative[told] <= 1e-6)
    assert told.mean() > 0.9
    assert stopped.ambiguous[~stopped.converged].all()
    assert not stopped.converged.all()
    assert (stopped.num_steps <= 100).all()  # the first phase alone


def independent(gram, weights):
    """Whether the candidates of positive weight are, problem by problem."""
    return [
        np.linalg.matrix_rank(matrix[np.ix_(on, on)], hermitian=True) == on.sum()
        for matrix, on in zip(gram, weights > 0, strict=True)
    ]


def rank_deficient(count, rank, size, *, seed=0):
    """Least squares problems of entries of both signs, float64: matrices, right sides, G and g."""
    rng = np.random.default_rng(seed)
    matrix, right = rng.normal(size=(count, rank, size)), rng.normal(size=(count, rank))
    gram = np.einsum("bri,brj->bij", matrix, matrix)
    return matrix, right, gram, np.einsum("bri,br->bi", matrix, right)


@pytest.mark.parametrize("dtype", ["float32", IN_DOUBLE])
def test_rank_deficient_problems_have_basic_solutions(dtype):
    matrix, right, gram, cross = rank_deficient(100, 4, SIZE)
    with jax.enable_x64(True):
        solution = solve_nnk(jnp.asarray(gram, dtype), jnp.asarray(cross, dtype))
        half = solve_nnk(jnp.asarray(gram[37:], dtype), jnp.asarray(cross[37:], dtype))
        # Rounded to float32 some problems have no solution: there float64 finds none either.
        given = (jnp.asarray(np.asarray(x, dtype), jnp.float64) for x in (gram, cross))
        best = solve_nnk(*given).converged.mean()
    weights = np.asarray(solution.weights, np.float64)
    assert np.mean(np.asarray(solution.converged)) >= best >= (1 if dtype == "float64" else 0.95)
    assert all(independent(gram, weights)) and (weights > 0).sum(1).max() <= 4
    np.testing.assert_array_equal(np.asarray(half.weights) > 0, weights[37:] > 0)
    for i in np.flatnonzero(np.asarray(solution.converged)):
        least = least_residual(matrix[i], right[i])
        found = np.linalg.norm(matrix[i] @ weights[i] - right[i])
        assert found - least < (1e-8 if dtype == "float64" else 5e-3) * np.linalg.norm(right[i])
    # Where the right side is inside the cone, others of the eight span it as well.
    exact = np.array([least_residual(*each) < 1e-9 for each in zip(matrix, right, strict=True)])
    assert np.asarray(solution.ambiguous)[exact].all()
    assert not np.asarray(solution.ambiguous)[~exact].any() or dtype == "float32"


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", IN_DOUBLE])
@pytest.mark.parametrize(("rank", "size"), [(12, 25), (25, 50)])
def test_supports_never_exceed_the_rank(dtype, rank, size):
    """And but for a hundredth, float32 solves what the optimum of the unrounded problem solves.

    A problem rounded to float32 need not have a solution.
    """
    matrix, right, gram, cross = rank_deficient(1000, rank, size, seed=14)
    root = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    unit = np.max(np.abs(cross) / root, axis=1, keepdims=True)
    with jax.enable_x64(True):
        solution = solve_nnk(jnp.asarray(gram, dtype), jnp.asarray(cross, dtype))
    assert all(independent(gram, np.asarray(solution.weights)))
    assert np.max(np.sum(np.asarray(solution.weights) > 0, axis=1)) <= rank
    converged = np.asarray(solution.converged)
    if dtype == "float64":
        assert converged.all()
        return
    optima = np.stack([scipy.optimize.nnls(*each)[0] for each in zip(matrix, right, strict=True)])
    rounded = (np.asarray(np.asarray(x, dtype), np.float64) for x in (gram, cross, optima))
    assert converged.mean() >= np.mean(residual(*rounded, root * unit) <= 1e-5) - 0.01


def test_a_dependent_candidate_takes_the_place_of_one_it_is_the_sum_of():
    """Its pivot is rounding, 1e-8, its pull is not, 1e-4 of the largest."""
    matrix = np.array([[1, 0, 0.5**0.5], [0, 1, 0.5**0.5], [0, 0, 1e-4]])
    right = np.array([1, 0.4, 1])
    solution = solve_nnk(
        jnp.asarray(matrix.T @ matrix, jnp.float32), jnp.asarray(matrix.T @ right, jnp.float32)
    )
    assert solution.converged
    np.testing.assert_allclose(solution.weights, scipy.optimize.nnls(matrix, right)[0], atol=1e-6)
    assert (np.asarray(solution.weights) > 0).tolist() == [True, False, True]


def test_ambiguous_says_where_another_support_would_do():
    """Two alike candidates in the support, one too many, a weight of nothing; not two far ones."""
    near = np.array([[1, 0.2, 0.2], [0.2, 1, 1], [0.2, 1, 1]])
    far = np.array([[1, 0.2, 0.2], [0.2, 1, 0.5], [0.2, 0.5, 1]])
    gram = np.stack([near, far, near, far, np.eye(3)])
    cross = np.array(
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.9, 0.1, 0.1], [0.9, 0.18, 0.1], [1.0, 0.0, 0.0]]
    )
    solution = solve_nnk(jnp.asarray(gram, jnp.float32), jnp.asarray(cross, jnp.float32))
    assert solution.ambiguous.tolist() == [True, False, False, True, False]
    np.testing.assert_array_equal(solution.weights[0] > 0, [True, True, False])


@pytest.mark.parametrize(("kernel", "size", "most"), [("gaussian", 25, 0.05), ("cosine", 25, 0.1)])
def test_real_problems_are_rarely_ambiguous(shared, kernel, size, most):
    gram, cross, _ = reference(shared, kernel, size)
    padded = [np.resize(x, (240, *x.shape[1:])).astype(np.float32) for x in (gram, cross)]
    ambiguous = np.asarray(solve_nnk(*padded).ambiguous)[: len(cross)]
    regular = np.linalg.cond(gram) < 1e6
    assert ambiguous[regular].mean() <= most


def test_scales_of_candidates_change_nothing():
    """Diagonal scales of 1e-4 to 1e4: the optimum of the unscaled problem, or not converged."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        matrix, right = rng.normal(size=(20, SIZE)), rng.normal(size=20)
        scale = 10.0 ** rng.uniform(-4, 4, size=SIZE)
        gram, cross = scale[:, None] * (matrix.T @ matrix) * scale, scale * (matrix.T @ right)
        solution = solve_nnk(*(np.tile(x, (COUNT, *[1] * x.ndim)).astype(np.float32)
                               for x in (gram, cross)))  # fmt: skip
        assert solution.converged.all()
        best = scipy.optimize.nnls(matrix, right)[0]
        found = np.asarray(solution.weights[0], np.float64) * scale
        np.testing.assert_allclose(found, best, atol=1e-4)
        violation = cross - gram @ np.asarray(solution.weights[0], np.float64)
        violation = np.where(found > 0, abs(violation), np.maximum(violation, 0))
        assert (violation / np.sqrt(np.diag(gram))).max() <= solution.kkt_residual[0]


def test_diagonals_that_are_not_positive_have_a_defined_outcome():
    gram, cross = (np.asarray(x, np.float32) for x in problems(COUNT, SIZE))
    gram[:4, 2], gram[:4, :, 2] = 0, 0
    gram[2:4, 2, 2] = -1
    cross[0, 2], cross[1, 2], cross[2:4, 2] = -1, 1, -1
    solution = solve_nnk(gram, cross)
    assert (solution.weights[:4, 2] == 0).all()
    assert solution.converged.tolist() == [True, False, False, False] + [True] * (COUNT - 4)
    rest = np.arange(SIZE) != 2
    expected = oracle(gram[0][np.ix_(rest, rest)].astype(float), cross[0][rest].astype(float))
    np.testing.assert_allclose(solution.weights[0][rest], expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 1e-36])
def test_certificates_are_not_below_the_true_residual(scale):
    rng = np.random.default_rng(0)
    count = 5000
    gap, side = 10.0 ** rng.uniform(-7, -1, count), np.exp(rng.uniform(-1, 1, count))
    gram = np.empty((count, 2, 2))
    gram[:, 0, 0], gram[:, 1, 1], gram[:, 0, 1] = side, 1 / side, gap - 1
    gram[:, 1, 0] = gram[:, 0, 1]
    gram, cross = gram.astype(np.float32), (rng.normal(size=(count, 2)) * scale).astype(np.float32)
    solution = jax.jit(solve_nnk)(gram, cross)
    weights = np.asarray(solution.weights, np.float64)
    gradient = cross - np.einsum("bij,bj->bi", gram.astype(float), weights)
    violation = np.where(weights > 0, abs(gradient), np.maximum(gradient, 0))
    violation = (violation / np.sqrt(np.diagonal(gram, axis1=1, axis2=2))).max(1)
    psd = np.linalg.eigvalsh(gram.astype(float))[:, 0] > 0
    assert (violation[psd] <= solution.kkt_residual[psd]).all()
    assert solution.converged[psd & (gap > 1e-2)].mean() > 0.95


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e30, 1e37])
def test_scale_of_cross_alone_changes_nothing(scale):
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(COUNT, SIZE))
    plain, scaled = solve_nnk(gram, cross), solve_nnk(gram, cross * scale)
    assert scaled.converged.all()
    np.testing.assert_allclose(scaled.weights / scale, plain.weights, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e36])
def test_scale_of_gram_and_cross_changes_nothing(scale):
    gram, cross = (jnp.asarray(x, jnp.float32) for x in problems(COUNT, SIZE))
    plain, scaled = solve_nnk(gram, cross), solve_nnk(gram * scale, cross * scale)
    assert scaled.converged.all()
    np.testing.assert_allclose(scaled.weights, plain.weights, atol=1e-5)


def test_numbers_at_the_ends_of_the_range_are_not_lost():
    eye = jnp.eye(2, dtype=jnp.float32)
    large = solve_nnk(eye, jnp.array([3e38, 1e36], jnp.float32))
    assert large.converged
    np.testing.assert_allclose(large.weights, [3e38, 1e36], rtol=1e-5)
    # The second weight, 5e-39, is below the range: without it the second condition is violated.
    lost = solve_nnk(1e37 * eye, jnp.array([1, 0.05], jnp.float32))
    assert not lost.converged and lost.kkt_residual >= 0.05 / 10**18.5


@pytest.mark.parametrize("dtype", ["float32", IN_DOUBLE])
def test_a_problem_alone_has_the_support_that_it_has_among_others(dtype):
    _, _, gram, cross = rank_deficient(24, 25, 50)
    with jax.enable_x64(True):
        gram, cross = jnp.asarray(gram, dtype), jnp.asarray(cross, dtype)
        support = np.asarray(solve_nnk(gram, cross).weights > 0)
        alone = [solve_nnk(*each).weights > 0 for each in zip(gram, cross, strict=True)]
        compiled = jax.jit(solve_nnk)
        inside = [compiled(*each).weights > 0 for each in zip(gram, cross, strict=True)]
        mapped = jax.vmap(solve_nnk)(gram, cross).weights > 0
    for found in (alone, inside, mapped):
        np.testing.assert_array_equal(found, support)


def test_no_weights_are_worse_than_none():
    """Of low rank and badly conditioned: float32 cannot tell small directions from rounding."""
    matrix, right, *_ = rank_deficient(200, 12, 25)
    matrix = matrix * 10.0 ** np.random.default_rng(1).uniform(-3, 0, (200, 12, 1))
    gram = np.einsum("bri,brj->bij", matrix, matrix).astype(np.float32)
    cross = np.einsum("bri,br->bi", matrix, right).astype(np.float32)
    solution = solve_nnk(gram, cross)
    weights = np.asarray(solution.weights, np.float64)
    quadratic = np.einsum("bi,bij,bj->b", weights, gram.astype(np.float64), weights)
    assert (quadratic / 2 - (weights * cross).sum(1)).max() <= 1e-5


def test_of_a_gram_that_is_not_symmetric_the_symmetric_part_counts():
    gram, cross = problems(COUNT, SIZE)
    skew = np.random.default_rng(1).normal(size=gram.shape) * 0.1
    skew = skew - skew.swapaxes(1, 2)
    solution = solve_nnk(*(jnp.asarray(x, jnp.float32) for x in (gram + skew, cross)))
    expected = np.stack([oracle(*problem) for problem in zip(gram, cross, strict=True)])
    assert solution.converged.all()
    np.testing.assert_allclose(solution.weights, expected, atol=1e-4)


def test_half_precisions_are_computed_in_float32():
    gram, cross = (jnp.asarray(x, jnp.bfloat16) for x in problems(COUNT, SIZE))
    solution = solve_nnk(gram, cross)
    assert solution.weights.dtype == jnp.float32
    wide = solve_nnk(gram.astype(jnp.float32), cross.astype(jnp.float32))
    np.testing.assert_allclose(solution.weights, wide.weights, atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"gram": jnp.ones((3, 4)), "cross": jnp.ones(4)}, "gram and cross: expected"),
        ({"gram": jnp.ones((4, 4), int), "cross": jnp.ones(4, int)}, "floating"),
        ({"gram": jnp.ones((4, 4)), "cross": jnp.ones(4), "mask": jnp.ones(3, bool)}, "mask"),
    ],
)
def test_misuse_raises(arguments, match):
    with pytest.raises(ValueError, match=match):
        solve_nnk(**arguments)
