"""Points, NNK problems and networks that are made where they are used."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jnnk._core.precision import contract

DIM = 64
_CLUSTERS, _SPAN = 50, 8
# How far queries made from one searched query lie from it, in units of the noise about a cluster.
_NOISE, _NEARBY = 0.1, 0.5


@functools.partial(jax.jit, static_argnames="count")
def features(key: jax.Array, *, count: int) -> jax.Array:
    """Points (count, 64) of 50 clusters, each spread over 8 directions of its own, and noise."""
    keys = jax.random.split(key, 5)
    centers = jax.random.normal(keys[0], (_CLUSTERS, DIM))
    spans = 0.3 * jax.random.normal(keys[1], (_CLUSTERS, _SPAN, DIM))
    labels = jax.random.randint(keys[2], (count,), 0, _CLUSTERS)
    places = jax.random.normal(keys[3], (count, _SPAN))
    noise = _NOISE * jax.random.normal(keys[4], (count, DIM))
    return centers[labels] + contract("ns,nsd->nd", places, spans[labels]) + noise


class Searched(NamedTuple):
    """Queries (Q, D) among points (N, D), and the indices (Q, K) of their nearest points."""

    points: jax.Array
    queries: jax.Array
    indices: jax.Array


@functools.partial(jax.jit, static_argnames=("num_points", "num_queries", "num_neighbors"))
def searched(key, *, num_points: int, num_queries: int, num_neighbors: int) -> Searched:
    """Clustered points and queries, of one draw; searched without the library."""
    both = features(key, count=num_points + num_queries)
    points, queries = both[:num_points], both[num_points:]
    norms = jnp.sum(points**2, axis=1)

    def nearest(query):
        return jax.lax.top_k(2 * contract("nd,d->n", points, query) - norms, num_neighbors)[1]

    return Searched(points, queries, jax.lax.map(nearest, queries, batch_size=500))


@functools.partial(jax.jit, static_argnames=("count", "size"))
def problems(found: Searched, key: jax.Array, *, count: int, size: int):
    """Gram matrices (count, K, K) and cross vectors (count, K) of the default similarity.

    Of more problems than there are queries the further ones are those of queries nearby, which keep
    the candidates.
    """
    rows = jnp.arange(count) % len(found.queries)
    is_further = jnp.arange(count) >= len(found.queries)

    def problem(row, is_further, key):
        query = found.queries[row]
        query += _NEARBY * _NOISE * is_further * jax.random.normal(key, query.shape)
        near = found.points[found.indices[row, :size]] - query
        norms = jnp.sum(near**2, axis=1)
        inner = contract("id,jd->ij", near, near)
        squares = jnp.maximum(norms[:, None] + norms[None] - 2 * inner, 0)
        squares = jnp.where(jnp.eye(size, dtype=bool), 0, squares)
        rate = 4.5 / jnp.max(norms)  # the width is a third of the largest distance
        return jnp.exp(-rate * squares), jnp.exp(-rate * norms)

    inputs = rows, is_further.astype(jnp.float32), jax.random.split(key, count)
    return jax.lax.map(lambda row: problem(*row), inputs, batch_size=min(count, 10_000))


def variables_of(model, *, seed: int = 0) -> dict:
    """Variables of a network as He et al. draw them, made without compiling its ``init``."""
    rng = np.random.default_rng(seed)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = flatten_dict(jax.eval_shape(model.init, jax.random.key(0), images))

    def draw(path, leaf):
        if path[-1] == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return scale * rng.standard_normal(leaf.shape, np.float32)
        return np.full(leaf.shape, path[-1] in ("scale", "var"), np.float32)

    drawn = {path: jnp.asarray(draw(path, leaf), leaf.dtype) for path, leaf in shapes.items()}
    return unflatten_dict(drawn)


def images_of(batch: int, side: int, *, num_classes: int, seed: int = 0):
    """uint8 images (batch, side, side, 3) and labels (batch,)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(batch, side, side, 3), dtype=np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(num_classes, size=batch), jnp.int32)
