"""Speed of the NNK engine beside other solvers.

    python tests/benchmarks/nnk_solvers.py [ACTIVATIONS.npz]       table of solvers
    python tests/benchmarks/nnk_solvers.py --end-to-end            64 channels x 10,000 x 64

Problems are built from real activations, by default those of a ResNet-20 in the shared data.
"""

import argparse
import functools
import os
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import peers
import timing

from jnnk.graphs import channelwise_nnk_graph, cosine, gaussian, nearest_neighbors, solve_nnk

_SIMILARITIES = {"gaussian": gaussian(), "cosine": cosine()}
# Problems per timed call of the Python loops; rates are per problem.
_FEW = 500
# And of the vmapped peers, each of whose calls lasts as long as its slowest problem.
_SOME = 2000


def problems(points, kernel, num_neighbors):
    """Gram matrices (N, K, K) and cross vectors (N, K) in float32, computed in float64."""
    points = np.asarray(points, np.float64)
    if kernel == "cosine":
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        # Zero vectors are orthogonal to all others, as in `jnnk.graphs.cosine`.
        points = np.hstack([points / np.where(norms > 0, norms, 1), norms == 0])
    searched = jnp.asarray(points, jnp.float32)
    indices = np.asarray(
        nearest_neighbors(
            searched, searched, num_neighbors=num_neighbors, exclude=jnp.arange(len(points))
        )[0]
    )
    near = points[indices] - points[:, None]
    norms = (near**2).sum(2)
    inner = np.einsum("bkd,bjd->bkj", near, near, optimize=True)
    square = np.maximum(norms[:, :, None] + norms[:, None] - 2 * inner, 0)
    if kernel == "cosine":
        gram, cross = 1 - square / 4, 1 - norms / 4
    else:
        width = np.maximum(norms[:, -1] / 9, 1e-12)
        gram = np.exp(-square / (2 * width[:, None, None]))
        cross = np.exp(-norms / (2 * width[:, None]))
    gram[:, np.arange(num_neighbors), np.arange(num_neighbors)] = 1
    return gram.astype(np.float32), cross.astype(np.float32)


def residual(gram, cross, weights):
    """Largest violation of the optimality conditions (N,), float64."""
    gram, cross, weights = (np.asarray(x, np.float64) for x in (gram, cross, weights))
    gradient = cross - np.einsum("bij,bj->bi", gram, weights, optimize=True)
    return np.where(weights > 0, np.abs(gradient), np.maximum(gradient, 0)).max(1)


def _fast(gram, cross):
    """Solvers that are timed on all problems."""
    device = jnp.asarray(gram), jnp.asarray(cross)
    jitted = jax.jit(solve_nnk)
    solvers = {
        "jnnk": lambda: solve_nnk(*device).weights,
        "jnnk, inside jit": lambda: jitted(*device).weights,
    }
    if peers.available("numba"):
        compiled = peers.numba_lawson_hanson()
        wide = gram.astype(np.float64), cross.astype(np.float64)
        solvers["Lawson-Hanson, numba f64, all cores"] = lambda: compiled(*wide)
    return solvers


def _loops(gram, cross):
    """Python loops, timed on the first problems only: each problem costs the same again."""
    return {
        "greedy removal loop": lambda: peers.greedy_loop(gram, cross),
        "scipy.optimize.nnls loop": lambda: peers.scipy_nnls(gram, cross),
    }


def _vmapped(gram, cross):
    """Vmapped JAX solvers, timed on a part of the problems: they are slow."""
    solvers = {"optax.nnls, vmapped": lambda: peers.optax_nnls(gram, cross)}
    if peers.available("jaxopt"):
        solvers["jaxopt.BoxCDQP, vmapped"] = lambda: peers.jaxopt_box_cdqp(gram, cross)
    if peers.available("qpax"):
        solvers["qpax f64, vmapped"] = lambda: peers.qpax_f64(gram, cross)
    return solvers


def table(points, sizes):
    """Prints one markdown table per set of problems."""
    peak = timing.matmul_peak()
    print(f"measured float32 matmul peak: {peak / 1e9:.0f} GFLOP/s a core")
    for size in sizes:
        for kernel in _SIMILARITIES:
            gram, cross = problems(points, kernel, size)
            few, some = ((gram[:n], cross[:n]) for n in (_FEW, _SOME))
            print(f"\n### {kernel}, K = {size}\n")
            print(
                "| solver | problems/s | processor s per 10,000 | first call s | KKT < 1e-5 "
                "| worst KKT |"
            )
            print("|---|---|---|---|---|---|")
            for solvers, part, repeats in (
                (_fast(gram, cross), (gram, cross), 7),
                (_loops(*few), few, 3),
                (_vmapped(*some), some, 1),
            ):
                times = timing.interleaved(solvers, repeats=repeats)
                for name, solve in solvers.items():
                    first, wall, processor = times[name]
                    violation = residual(*part, solve())
                    print(
                        f"| {name} | {len(part[1]) / wall:,.0f} "
                        f"| {processor / len(part[1]) * 1e4:.3f} | {first:.1f} "
                        f"| {100 * np.mean(violation < 1e-5):.2f} % | {violation.max():.0e} |",
                        flush=True,
                    )
                    if name == "jnnk, inside jit":
                        rate = len(cross) / processor
            steps = float(np.mean(solve_nnk(gram, cross).num_steps))
            flops = rate * steps * 2 * size**2
            print(
                f"\njnnk: {steps:.1f} products with G a problem, "
                f"{flops / 1e9:.1f} GFLOP/s a core in them, {100 * flops / peak:.0f} % of the peak"
            )


def _layer(points, channels, num_points=None):
    """Activations (N, D, channels): the stored channels, and mixtures of them made anew.

    Points beyond the stored ones are means of two stored ones.
    """
    stored = points.shape[2]
    rng = np.random.default_rng(0)
    mixed = [
        points[:, :, c % stored] if c < stored else _mixture(points, rng) for c in range(channels)
    ]
    layer = np.stack(mixed, axis=2).astype(np.float32)
    more = max(0, (num_points or 0) - len(layer))
    pairs = rng.integers(len(layer), size=(2, more))
    return np.concatenate([layer, (layer[pairs[0]] + layer[pairs[1]]) / 2])[:num_points]


def _mixture(points, rng):
    weights = rng.dirichlet(np.ones(points.shape[2]))
    return np.maximum((points * weights).sum(2) - 0.05 * points.mean(), 0)


def end_to_end(points, channels, size, num_points):
    """Times the whole pipeline, neighbours included, and the reference on a part of it."""
    activations = jnp.asarray(_layer(points, channels, num_points))
    print(
        f"{channels} channels x {activations.shape[0]} points x {activations.shape[1]}, K = {size}"
    )
    for kernel, similarity in _SIMILARITIES.items():
        run = functools.partial(channelwise_nnk_graph, num_neighbors=size, similarity=similarity)
        first = timing.once(lambda: run(activations[:, :, :1]))  # noqa: B023
        start, processor = time.perf_counter(), time.process_time()
        graph = jax.block_until_ready(run(activations))
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{kernel}: {seconds:.1f} s, {processor:.1f} processor s (first call on one channel "
            f"{first:.1f} s, apart), KKT < 1e-5 "
            f"{100 * float(jnp.mean(graph.kkt_residual < 1e-5)):.2f} %, "
            f"peak memory so far {peak / 2**20:.2f} GiB",
            flush=True,
        )
        reference, share = _reference(np.asarray(activations[:, :, 0]), kernel, size)
        total = reference * channels
        print(
            f"reference pipeline {total:.0f} processor s (one channel, its loop on {share} points, "
            f"scaled): {total / processor:.0f} times as many",
            flush=True,
        )


def _reference(points, kernel, size, part=500):
    """Processor seconds of neighbours and a Python loop, scaled up from a part, for one channel."""
    start = time.process_time()
    if kernel == "cosine":
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    points = np.ascontiguousarray(points, np.float32)
    if peers.available("faiss"):
        import faiss

        index = faiss.IndexFlatL2(points.shape[1])
        index.add(points)
        indices = index.search(points, size + 1)[1]
    else:
        indices = np.asarray(nearest_neighbors(points, points, num_neighbors=size + 1)[0])
    search = time.process_time() - start
    start = time.process_time()
    for i in range(part):
        near = indices[i][indices[i] != i][:size]
        x = points[near]
        if kernel == "cosine":
            gram, cross = 0.5 + 0.5 * x @ x.T, 0.5 + 0.5 * x @ points[i]
        else:
            # The distance matrix entry by entry, as the public code computes it.
            every = np.concatenate([points[i : i + 1], x])
            square = np.array([[((a - b) ** 2).sum() for b in every] for a in every])
            width = max(np.sqrt(square[0, -1]) / 3, 1e-12)
            similar = np.exp(-square / (2 * width**2))
            gram, cross = similar[1:, 1:], similar[0, 1:]
        peers.greedy_loop(gram[None], cross[None])
    return search + (time.process_time() - start) * len(points) / part, part


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.path.join(os.environ.get("JNNK_SHARED", ""), "reference/nnk_resnet20_layer3.npz")
    parser.add_argument("activations", nargs="?", default=default)
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50], metavar="K")
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--points", type=int, metavar="N", help="points end to end")
    options = parser.parse_args()
    with np.load(options.activations) as stored:
        points = stored["activations"]
    if options.end_to_end:
        end_to_end(points, options.channels, options.sizes[0], options.points)
    else:
        table(points[:, :, 0], options.sizes)


if __name__ == "__main__":
    main()
