"""What becomes of problems whose Gram matrix is singular.

    python tests/benchmarks/rank_deficient.py

Random least squares problems of rank r in K candidates, entries of both signs, given as
``G = A'A`` and ``g = A'b``, rounded to float32. Rounded, G is not semi-definite any more. In the
last column the optimum of the unrounded problem, by SciPy, is judged by the rounded one.
"""

import argparse

import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jnnk.graphs import solve_nnk

_TOLERANCE = 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=4000)
    count = parser.parse_args().problems
    print(
        "| rank, K | converged | ambiguous | supports over the rank | SciPy's optimum converged |"
    )
    print("|---|---|---|---|---|")
    for rank, size in [(4, 12), (12, 25), (15, 30), (25, 50), (50, 100), (5, 25), (20, 25)]:
        rng = np.random.default_rng(1)
        matrix, right = rng.normal(size=(count, rank, size)), rng.normal(size=(count, rank))
        gram = np.einsum("bri,brj->bij", matrix, matrix).astype(np.float32)
        cross = np.einsum("bri,br->bi", matrix, right).astype(np.float32)
        solution = solve_nnk(gram, cross, tol=_TOLERANCE)
        over = jnp.sum(solution.weights > 0, axis=1) > rank
        optima = [scipy.optimize.nnls(*each)[0] for each in zip(matrix, right, strict=True)]
        shares = solution.converged, solution.ambiguous, over, attained(gram, cross, optima)
        print(f"| {rank}, {size} | " + " | ".join(f"{100 * x.mean():.2f} %" for x in shares) + " |")


def attained(gram, cross, optima):
    """Whether weights, rounded to float32, meet the conditions within the tolerance."""
    gram, cross = gram.astype(np.float64), cross.astype(np.float64)
    weights = np.asarray(optima, np.float32).astype(np.float64)
    root = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    gradient = (cross - np.einsum("bij,bj->bi", gram, weights)) / root
    violation = np.where(weights > 0, abs(gradient), np.maximum(gradient, 0)).max(1)
    return violation <= _TOLERANCE * np.max(abs(cross) / root, axis=1)


if __name__ == "__main__":
    main()
