"""The second half of an NNK graph: from candidates to their weights.

Similarities of the candidates of each query make its NNK problem, whose solution is the weights.
Queries go through in blocks, since their Gram matrices are the largest arrays there are.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp

from jnnk._core import typed_jax
from jnnk._core.blocks import map_blocks
from jnnk.graphs._graph import NNKGraph
from jnnk.graphs._neighbors import UNIT, some_coordinates
from jnnk.graphs._qp.chunks import chunk_size, gram_queries, in_chunks
from jnnk.graphs._qp.solve import solve_nnk
from jnnk.graphs._search.differences import power_of_two
from jnnk.graphs._similarity import RadialSimilarity, Similarity

#: Queries whose differences to their candidates are held at once.
LOCAL_QUERIES = 128


class Vectors(NamedTuple):
    """The same points as the search and as the user's similarity see them.

    Attributes:
        embedded: (..., D'), where the similarity searches its candidates, in units of
            `_neighbors.UNIT`; a coordinate of zeros where there is none.
        raw: (..., D), as they came; None for radial similarities, which do not read them.
    """

    embedded: jax.Array
    raw: jax.Array | None


class Candidates(NamedTuple):
    """The candidates of Q queries.

    Attributes:
        indices: int32 (Q, K), by increasing distance, -1 for none.
        distances: (Q, K), in units of `_neighbors.UNIT`, infinity for none.
        vectors: `Vectors` (Q, K, D), anything finite or not where the index is -1; None where they
            are still to be looked up by their indices.
    """

    indices: jax.Array
    distances: jax.Array
    vectors: Vectors | None = None


class _Queries(NamedTuple):
    """Queries of a block and their candidates.

    Attributes:
        indices: int32 (B, K), see `Candidates`.
        vectors: `Vectors` (B, D) of the queries.
        candidates: `Vectors` (B, K, D), or None, see `Candidates`.
        units: (B,), powers of two in which the squares of the distances are in the dtype's range.
        coincident: bool (B, K), candidates at distance 0.
        exists: bool (B,), False for what fills up the last chunk.
    """

    indices: jax.Array
    vectors: Vectors
    candidates: Vectors | None
    units: jax.Array
    coincident: jax.Array
    exists: jax.Array


class _Problems(NamedTuple):
    """NNK problems of B queries.

    Attributes:
        gram: (B, K, K), similarities of candidates.
        cross: (B, K), those of candidates and their query.
        mask: bool (B, K), candidates that take part. The others are problems of their own whose
            answer is 0.
    """

    gram: jax.Array
    cross: jax.Array
    mask: jax.Array


class _Weighed(NamedTuple):
    """What an `NNKGraph` says of B queries, as solved, without coincident candidates."""

    weights: jax.Array
    errors: jax.Array
    kkt_residual: jax.Array
    converged: jax.Array
    ambiguous: jax.Array


def vectors_of(points: jax.Array, similarity: Similarity) -> Vectors:
    """The `Vectors` of points (N, D) for a similarity."""
    if isinstance(similarity, RadialSimilarity):
        return Vectors(some_coordinates(similarity.embed(points) / UNIT), None)
    return Vectors(some_coordinates(points / UNIT), points)


def needs_all_distances(similarity: Similarity) -> TypeGuard[RadialSimilarity]:
    """Whether no query can be weighed before the distances of all are known."""
    return isinstance(similarity, RadialSimilarity) and similarity.needs_all_distances


def resolved(similarity: Similarity, distances: jax.Array, valid: jax.Array) -> Similarity:
    """The similarity with what it needs from all distances, such as the median bandwidth.

    Args:
        similarity: see `nnk_graph`.
        distances: (Q, K) of all queries to their candidates, in units of `UNIT`.
        valid: bool (Q, K), which candidates exist.
    """
    if not needs_all_distances(similarity):
        return similarity
    unit = power_of_two(jnp.max(jnp.where(valid, distances, 0), initial=0))
    return similarity.resolved(jnp.square(distances / unit), valid, unit * UNIT)


def all_coincide(*vectors: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Whether all finite rows of arrays (N, D), (Q, D), ... are the same: bool ().

    With ``axis_name`` those of all devices along that axis of a mesh. Compared as they came: a mean
    rounds, and so does what is left after subtracting one.
    """
    lowest: list[jax.Array] = []
    highest: list[jax.Array] = []
    for rows in map(jax.lax.stop_gradient, vectors):
        finite = jnp.all(jnp.isfinite(rows), axis=1, keepdims=True)
        lowest.append(jnp.min(jnp.where(finite, rows, jnp.inf), axis=0, initial=jnp.inf))
        highest.append(jnp.max(jnp.where(finite, rows, -jnp.inf), axis=0, initial=-jnp.inf))
    low, high = functools.reduce(jnp.minimum, lowest), functools.reduce(jnp.maximum, highest)
    if axis_name is not None:
        low, high = typed_jax.pmin(low, axis_name), typed_jax.pmax(high, axis_name)
    return ~jnp.any(high > low)


def weigh(
    candidates: Candidates,
    queries: Vectors,
    *,
    points: Vectors | None,
    dead: jax.Array,
    similarity: Similarity,
    tol: float | jax.Array,
    max_steps: int,
    num_points: int,
) -> NNKGraph:
    """The NNK graph of queries whose candidates are known.

    Args:
        candidates: `Candidates` (Q, K).
        queries: `Vectors` (Q, D).
        points: `Vectors` (N, D) that the indices are of; None where the candidates have theirs.
        dead: bool (), from `all_coincide` of all points and queries.
        similarity: with the median bandwidth resolved.
        tol: see `jnnk.graphs.solve_nnk`.
        max_steps: see `jnnk.graphs.solve_nnk`.
        num_points: N, of all devices together.

    Returns:
        An `NNKGraph`.
    """
    indices, distances, candidate_vectors = candidates
    (num_queries, num_neighbors), dtype = indices.shape, queries.embedded.dtype
    finite = jnp.all(jnp.isfinite(queries.embedded), axis=1)
    coincident = (indices >= 0) & (distances == 0)
    units = power_of_two(jnp.max(jnp.where(indices >= 0, distances, 0), axis=1))
    solve_block = functools.partial(
        _solve_block, points=points, similarity=similarity, tol=tol, max_steps=max_steps
    )
    weighed = map_blocks(
        solve_block,
        _in_whole_chunks(indices, queries, candidate_vectors, units, coincident),
        block_size=gram_queries(num_neighbors),
    )
    weights, errors, residual, converged, ambiguous = (x[:num_queries] for x in weighed)
    # What coincides with the query was no part of a problem: it explains the query by itself. In a
    # dead channel all coincides and nothing is explained.
    coincident &= ~dead
    number = jnp.sum(coincident, axis=1, keepdims=True).astype(dtype)
    weights = jnp.where(coincident, 1 / jnp.maximum(number, 1), weights)
    errors = jnp.where(number[:, 0] > 0, 0, errors)
    return NNKGraph(
        indices=indices,
        weights=weights,
        errors=errors,
        kkt_residual=jnp.where(finite, residual, jnp.inf),
        converged=converged & finite,
        distances=distances * UNIT,
        ambiguous=ambiguous & finite,
        num_points=jnp.full(num_queries, num_points, jnp.int32),
    )


def _in_whole_chunks(
    indices: jax.Array,
    queries: Vectors,
    candidates: Vectors | None,
    units: jax.Array,
    coincident: jax.Array,
) -> _Queries:
    """The queries filled up to whole chunks of the solver by repeating the last one.

    So no chunk depends on where a block or a device's share of the queries ends, and neither does
    the rounding.
    """
    num_queries, num_neighbors = indices.shape
    is_one_chunk = num_queries <= chunk_size(num_neighbors)
    whole = num_queries if is_one_chunk else in_chunks(num_queries, num_neighbors=num_neighbors)
    exists = jnp.arange(whole) < num_queries

    def padded(x: jax.Array) -> jax.Array:
        widths = [(0, whole - num_queries), *[(0, 0)] * (x.ndim - 1)]
        return jnp.pad(x, widths, mode="edge") if whole > num_queries else x

    unpadded = indices, queries, candidates, units, coincident
    parts: tuple[jax.Array, Vectors, Vectors | None, jax.Array, jax.Array]
    parts = jax.tree.map(padded, unpadded)
    return _Queries(*parts, exists)


def _solve_block(
    queries: _Queries,
    *,
    points: Vectors | None,
    similarity: Similarity,
    tol: float | jax.Array,
    max_steps: int,
) -> _Weighed:
    """The weights of a block of queries."""
    # Similarities in smaller blocks, whose differences fit the caches.
    problems_of = functools.partial(_problems, points=points, similarity=similarity)
    gram, cross, mask = map_blocks(problems_of, queries, block_size=LOCAL_QUERIES)
    solution = solve_nnk(gram, cross, tol=tol, max_steps=max_steps)
    weights = jnp.where(mask, solution.weights, 0)
    if not isinstance(similarity, RadialSimilarity):
        # Where a user's similarity is NaN, weights are 0 but must not be multiplied by it.
        sound = jnp.isfinite(solution.kkt_residual)
        gram = jnp.where(sound[:, None, None], gram, 0)
        cross = jnp.where(sound[:, None], cross, 0)
    applied = jnp.einsum("bij,bj->bi", gram, weights, precision=jax.lax.Precision.HIGHEST)
    quadratic = jnp.sum(weights * applied, axis=1)
    linear = jnp.sum(weights * cross, axis=1)
    ambiguous = solution.ambiguous & jnp.any(weights > 0, axis=1)
    errors = 1 - 2 * linear + quadratic
    return _Weighed(weights, errors, solution.kkt_residual, solution.converged, ambiguous)


def _problems(queries: _Queries, *, points: Vectors | None, similarity: Similarity) -> _Problems:
    """The NNK problems of a block of queries, without candidates that coincide with them."""
    valid = (queries.indices >= 0) & queries.exists[:, None]

    def candidates_of(rows: jax.Array) -> jax.Array:
        return rows[queries.indices]

    candidates = queries.candidates
    if candidates is None:
        looked_up: Vectors = jax.tree.map(candidates_of, points)
        candidates = looked_up
    near = jnp.where(valid[:, :, None], candidates.embedded - queries.vectors.embedded[:, None], 0)
    near = near / queries.units[:, None, None]
    norms = jnp.sum(near * near, axis=2)
    mask = valid & ~jnp.any(queries.coincident, axis=1, keepdims=True)
    if isinstance(similarity, RadialSimilarity):
        gram, cross = _radial(similarity, near, norms, valid, queries.units * UNIT)
    else:
        gram, cross = _pairwise(similarity, candidates, queries.vectors, valid)
    both = mask[:, :, None] & mask[:, None, :]
    identity = jnp.eye(mask.shape[1], dtype=near.dtype)
    return _Problems(jnp.where(both, gram, identity[None]), jnp.where(mask, cross, 0), mask)


def _radial(
    similarity: RadialSimilarity,
    near: jax.Array,
    norms: jax.Array,
    valid: jax.Array,
    unit: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Gram (B, K, K) and cross (B, K) from candidates (B, K, D) relative to their query.

    ``norms`` (B, K) are their squared lengths, in the units (B,).
    """
    inner = jnp.einsum("bkd,bjd->bkj", near, near, precision=jax.lax.Precision.HIGHEST)
    between = norms[:, :, None] + norms[:, None, :] - 2 * inner
    different = ~jnp.eye(near.shape[1], dtype=bool)
    between = jnp.where(different[None] & (between > 0), between, 0)
    widths = similarity.widths(norms, valid, unit)
    return (
        similarity.of_squared_distances(between, widths[:, None, None]),
        similarity.of_squared_distances(norms, widths[:, None]),
    )


def _pairwise(
    similarity: Callable[[jax.Array, jax.Array], jax.Array],
    candidates: Vectors,
    queries: Vectors,
    valid: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Gram (B, K, K) and cross (B, K) of a callable on vectors as they came."""
    near, query = candidates.raw, queries.raw
    assert near is not None and query is not None  # radial similarities do not come here
    row = jax.vmap(similarity, in_axes=(None, 0))
    gram = jax.vmap(jax.vmap(row, in_axes=(0, None)))(near, near)
    both = valid[:, :, None] & valid[:, None, :]
    return jnp.where(both, gram, 0), jnp.where(valid, jax.vmap(row)(query, near), 0)
