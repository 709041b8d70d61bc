"""Other solvers of the NNK problem, each behind the same call: ``solve(gram, cross) -> weights``.

Those on optional packages are listed only where the package is installed (extra ``bench``).
"""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize

# What factors of Gram matrices rounded to float32 need at K = 50.
_RIDGE = 1e-5


def scipy_nnls(gram, cross):
    """scipy.optimize.nnls on Cholesky factors (ridge), one problem after another, float64."""
    size = cross.shape[1]
    weights = np.zeros(cross.shape)
    for i, (matrix, vector) in enumerate(zip(gram, cross, strict=True)):
        lower = np.linalg.cholesky(matrix + _RIDGE * np.eye(size))
        right = scipy.linalg.solve_triangular(lower, vector, lower=True, check_finite=False)
        weights[i] = scipy.optimize.nnls(lower.T, right, maxiter=20 * size)[0]
    return weights


def greedy_loop(gram, cross):
    """The removal heuristic of the public NNK code, in our words: a Python loop over problems.

    Solve on the candidates left, drop those with negative weight, until none is; a candidate
    dropped never comes back, which is why the answer is often not the optimum.
    """
    weights = np.zeros(cross.shape, cross.dtype)
    for i, (matrix, vector) in enumerate(zip(gram, cross, strict=True)):
        left = np.arange(len(vector))
        matrix = matrix + 1e-6 * np.eye(len(vector), dtype=matrix.dtype)
        while left.size:
            part = np.linalg.solve(matrix[np.ix_(left, left)], vector[left])
            keep = part > 0
            if keep.all():
                weights[i, left] = part
                break
            left = left[keep]
    return weights


def optax_nnls(gram, cross):
    """optax.projections-style vmapped ``optax.nnls`` on the Cholesky factor, float32."""
    return _optax(jnp.asarray(gram), jnp.asarray(cross))


@jax.jit
def _optax(gram, cross):
    import optax

    lower = jnp.linalg.cholesky(gram + _RIDGE * jnp.eye(gram.shape[1], dtype=gram.dtype))
    right = jax.scipy.linalg.solve_triangular(lower, cross[..., None], lower=True)[..., 0]
    return jax.vmap(lambda a, b: optax.nnls(a, b, iters=200))(lower.mT, right)


def jaxopt_box_cdqp(gram, cross):
    """jaxopt.BoxCDQP, vmapped, float32, its defaults but the tolerance 1e-5."""
    return _jaxopt(jnp.asarray(gram), jnp.asarray(cross))


@jax.jit
def _jaxopt(gram, cross):
    import jaxopt

    solver = jaxopt.BoxCDQP(maxiter=500, tol=1e-5)

    def one(matrix, vector):
        bounds = (jnp.zeros_like(vector), jnp.full_like(vector, jnp.inf))
        start = jnp.zeros_like(vector)
        return solver.run(start, params_obj=(matrix, -vector), params_ineq=bounds).params

    return jax.vmap(one)(gram, cross)


def qpax_f64(gram, cross):
    """qpax (primal-dual interior point), vmapped, float64."""
    with jax.enable_x64(True):
        weights = _qpax(jnp.asarray(gram, jnp.float64), jnp.asarray(cross, jnp.float64))
        return jax.block_until_ready(weights)


@jax.jit
def _qpax(gram, cross):
    import qpax

    size = cross.shape[1]

    def one(matrix, vector):
        no_equality = jnp.zeros((0, size)), jnp.zeros((0,))
        return qpax.solve_qp(matrix, -vector, *no_equality, -jnp.eye(size), jnp.zeros(size))[0]

    return jax.vmap(one)(gram, cross)


def numba_lawson_hanson():
    """Compiled Lawson-Hanson on the Gram matrix, float64, all cores; built on first call."""
    # Its threads would spin for a while after each call, on the time of the solver timed next.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import numba

    @numba.njit(fastmath=True, inline="always")
    def forward(factor, right, count):
        """Solves L L' x = right in place."""
        for a in range(count):
            total = right[a]
            for b in range(a):
                total -= factor[a, b] * right[b]
            right[a] = total / factor[a, a]
        for a in range(count - 1, -1, -1):
            total = right[a]
            for b in range(a + 1, count):
                total -= factor[b, a] * right[b]
            right[a] = total / factor[a, a]

    @numba.njit(fastmath=True, inline="always")
    def append(factor, gram, order, count):
        """Adds row ``count`` to the factor; False where it is not positive definite."""
        row = order[count]
        for a in range(count):
            total = gram[row, order[a]]
            for b in range(a):
                total -= factor[count, b] * factor[a, b]
            factor[count, a] = total / factor[a, a]
        total = gram[row, row]
        for b in range(count):
            total -= factor[count, b] * factor[count, b]
        if total <= 1e-12:
            return False
        factor[count, count] = np.sqrt(total)
        return True

    @numba.njit(parallel=True, fastmath=True)
    def solve(gram, cross):
        num_problems, size = cross.shape
        weights = np.zeros((num_problems, size))
        for problem in numba.prange(num_problems):
            matrix, vector, x = gram[problem], cross[problem], weights[problem]
            factor = np.empty((size, size))
            order = np.empty(size, np.int64)
            inside = np.zeros(size, np.bool_)
            barred = np.zeros(size, np.bool_)
            gradient = vector.copy()
            trial = np.empty(size)
            count = 0
            for _ in range(10 * size):
                best, top = -1, 1e-10
                for j in range(size):
                    if not inside[j] and not barred[j] and gradient[j] > top:
                        best, top = j, gradient[j]
                if best < 0:
                    break
                order[count] = best
                if not append(factor, matrix, order, count):
                    barred[best] = True
                    continue
                inside[best] = True
                count += 1
                while True:
                    for a in range(count):
                        trial[a] = vector[order[a]]
                    forward(factor, trial, count)
                    step = 1.0
                    for a in range(count):
                        if trial[a] <= 0:
                            old = x[order[a]]
                            step = min(step, old / (old - trial[a]) if old > trial[a] else 0.0)
                    for a in range(count):
                        x[order[a]] += step * (trial[a] - x[order[a]])
                    if step == 1.0:
                        break
                    kept = 0
                    for a in range(count):
                        j = order[a]
                        if trial[a] <= 0 and x[j] <= 1e-14:
                            x[j] = 0.0
                            inside[j] = False
                        else:
                            order[kept] = j
                            kept += 1
                    count = kept
                    for a in range(count):
                        append(factor, matrix, order, a)
                gradient[:] = vector
                for a in range(count):
                    j, value = order[a], x[order[a]]
                    for i in range(size):
                        gradient[i] -= matrix[j, i] * value
        return weights

    return lambda gram, cross: solve(gram.astype(np.float64), cross.astype(np.float64))


def available(package: str) -> bool:
    """Whether an optional package is installed."""
    return importlib.util.find_spec(package) is not None
