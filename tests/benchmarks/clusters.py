"""The search where groups lie far apart: recall against float64, and processor time.

``python tests/benchmarks/clusters.py [--old NEIGHBORS.PY] [--recall]``: for each kind of data the
microseconds of processor a query, against an older neighbors.py in turns if one is given, and the
share of queries that took the second pass. ``--recall`` goes through widths, numbers of clusters
and dimensions instead, and counts the neighbours that are none.
"""

import argparse
import functools
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved

from jnnk.graphs import nearest_neighbors
from jnnk.graphs._neighbors import UNIT
from jnnk.graphs._search.passes import search

K = 25


def clusters(number, dim, num_clusters, width, seed=0):
    """Float32 points around centres that lie about 1 apart, in no order."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clusters, dim)) / np.sqrt(dim)
    points = centers[rng.integers(0, num_clusters, number)]
    return (points + width * rng.normal(size=(number, dim)) / np.sqrt(dim)).astype(np.float32)


def rectified(number, dim, below=1.3):
    values = np.random.default_rng(0).normal(size=(number, dim)) - below
    return np.maximum(values, 0).astype(np.float32)


def wrong_neighbors(points, indices, *, queries, num_neighbors):
    """Neighbours that are farther in float64 than the K-th by more than float32 rounds."""
    wide, wrong = points.astype(np.float64), 0
    tolerance = 1 + 4 * np.finfo(np.float32).eps
    for query in queries:
        square = np.square(wide - wide[query]).sum(axis=1)
        square[query] = np.inf
        kth = np.partition(square, num_neighbors - 1)[num_neighbors - 1]
        found = indices[query]
        wrong += num_neighbors - len(set(found[square[found] <= kth * tolerance]))
    return wrong


@functools.partial(jax.jit, static_argnames="num_neighbors")
def share_unproven(points, *, num_neighbors):
    """The share of the points whose neighbours the first pass does not prove."""
    points = points / UNIT
    itself = jnp.arange(len(points), dtype=jnp.int32)
    first = search(points, points, itself, num_neighbors=num_neighbors, has_second=False)
    return jnp.mean(~first.proven)


def recall_table(number):
    print("| D | clusters | width | second pass | wrong neighbours |\n|---|---|---|---|---|")
    for dim, num_clusters, width in itertools.product(
        (2, 8, 64, 512), (2, 10, 100, 1000), (1.0, 1e-2, 1e-4, 1e-6)
    ):
        points = clusters(number, dim, num_clusters, width)
        itself = jnp.arange(number, dtype=jnp.int32)
        indices, _ = nearest_neighbors(points, points, num_neighbors=K, exclude=itself)
        queries = np.random.default_rng(1).choice(number, 100, replace=False)
        wrong = wrong_neighbors(points, np.asarray(indices), queries=queries, num_neighbors=K)
        share = share_unproven(points, num_neighbors=K)
        print(f"| {dim} | {num_clusters} | {width:g} | {share:.2f} | {wrong} |", flush=True)


def time_table(old):
    functions = {"new": nearest_neighbors}
    if old is not None:
        spec = importlib.util.spec_from_file_location("old_neighbors", old)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions["old"] = module.nearest_neighbors
    data = {
        "Gaussian, 2,000 x 16": (clusters(2000, 16, 1, 1.0), 2000),
        "Gaussian, 10,000 x 2": (clusters(10_000, 2, 1, 1.0), 10_000),
        "Gaussian, 10,000 x 64": (clusters(10_000, 64, 1, 1.0), 10_000),
        "Gaussian, 50,000 x 64": (clusters(50_000, 64, 1, 1.0), 512),
        "Gaussian, 10,000 x 512": (clusters(10_000, 512, 1, 1.0), 1024),
        "rectified, 10,000 x 16": (rectified(10_000, 16), 10_000),
        "10 clusters of 1e-4, 10,000 x 64": (clusters(10_000, 64, 10, 1e-4), 2048),
        "10 clusters of 1e-4, 10,000 x 512": (clusters(10_000, 512, 10, 1e-4), 1024),
        "2 clusters of 1e-6, 10,000 x 2": (clusters(10_000, 2, 2, 1e-6), 2048),
        "2 clusters of 1e-6, 10,000 x 64": (clusters(10_000, 64, 2, 1e-6), 2048),
        "100 clusters of 1e-6, 10,000 x 64": (clusters(10_000, 64, 100, 1e-6), 2048),
        "1,000 clusters of 1e-6, 50,000 x 64": (clusters(50_000, 64, 1000, 1e-6), 512),
    }
    print("| points | second pass | " + " | ".join(functions) + " | (us of processor a query)")
    print("|---|---|" + "---|" * len(functions))
    for name, (points, num_queries) in data.items():
        points = jnp.asarray(points)
        calls = {
            which: functools.partial(
                function,
                points[:num_queries],
                points,
                num_neighbors=K,
                exclude=jnp.arange(num_queries, dtype=jnp.int32),
            )
            for which, function in functions.items()
        }
        times = interleaved(calls)
        share = share_unproven(points, num_neighbors=K)
        cells = " | ".join(f"{1e6 * times[x].processor / num_queries:.1f}" for x in functions)
        print(f"| {name} | {share:.4f} | {cells} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", help="an older neighbors.py to compare with")
    parser.add_argument("--recall", action="store_true")
    parser.add_argument("--number", type=int, default=3000, help="points of the table of recall")
    chosen = parser.parse_args()
    if chosen.recall:
        recall_table(chosen.number)
    else:
        time_table(chosen.old)
