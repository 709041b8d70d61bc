"""Time of every criterion on the 94,256 kernels of ResNet-56, beside numpy, in one run.

Run: python tests/benchmarks/conv_scores.py
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.pruning import CRITERIA, kernel_scores

NUM_KERNELS = 94_256
EIGENVALUE_CRITERIA = ("min_eig", "min_eig_real", "spectral_radius", "spectral_radius_real")


def median_ms(function, *, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def numpy_scores(matrices):
    """Of the eigenvalue criteria, from one call."""
    values = np.linalg.eigvals(matrices)
    moduli, real = np.abs(values), np.abs(values.real)
    return moduli.min(-1), real.min(-1), moduli.max(-1), real.max(-1)


def numpy_loop(matrices):
    """As the authors' code goes: one kernel at a time, eigenvalues once for each."""
    return [numpy_scores(matrix) for matrix in matrices]


def main():
    matrices = np.random.default_rng(0).normal(size=(NUM_KERNELS, 3, 3)).astype(np.float32)
    kernel = jnp.asarray(matrices.transpose(1, 2, 0)[:, :, None])
    key = jax.random.key(0)

    def scored(names):
        return jax.jit(lambda k: [kernel_scores(k, name, key=key) for name in names])

    batched = median_ms(lambda: numpy_scores(matrices), repeats=3)
    loop = median_ms(lambda: numpy_loop(matrices), repeats=1)
    print(f"numpy, one batched eigvals call: {batched:.0f} ms; a loop over kernels: {loop:.0f} ms")
    rows = {name: (name,) for name in CRITERIA}
    rows |= {"the four eigenvalue criteria": EIGENVALUE_CRITERIA, "all nine": tuple(CRITERIA)}
    for label, names in rows.items():
        function = scored(names)
        start = time.perf_counter()
        jax.block_until_ready(function(kernel))
        first = time.perf_counter() - start
        ours = median_ms(lambda f=function: f(kernel), repeats=31)
        line = f"{label:30s} {ours:6.1f} ms (first call {first:.1f} s)"
        if set(names) <= set(EIGENVALUE_CRITERIA):
            line += f", {batched / ours:.0f}x batched numpy, {loop / ours:.0f}x the loop"
        print(line)


if __name__ == "__main__":
    main()
