"""NNK graphs: neighbours, similarities and weights of every query in one call."""

import jax
import jax.numpy as jnp
from jaxtyping import Int, Shaped

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import working_dtype
from jnnk._core.whole_numbers import to_int32
from jnnk.graphs._graph import NNKGraph, pad_candidates
from jnnk.graphs._neighbors import check_array, check_exclude, check_options
from jnnk.graphs._search.passes import search
from jnnk.graphs._similarity import DEFAULT, Similarity, check_similarity
from jnnk.graphs._weights import Candidates, all_coincide, resolved, vectors_of, weigh


def nnk_graph(
    points: Shaped[ArrayLike, "N D"],
    *,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    queries: Shaped[ArrayLike, "Q D"] | None = None,
    exclude: Int[ArrayLike, " Q"] | None = None,
    tol: float | jax.Array = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
) -> NNKGraph:
    """The NNK graph of points, or of queries against points.

    Differentiable in ``points`` and ``queries`` with the candidates held fixed.

    Args:
        points: half precisions and integers are computed in float32. N, D and Q may be 0;
            without coordinates all points coincide.
        num_neighbors: K, the candidates of each query; may exceed the number of points, which costs
            nothing: the problems are those of the candidates that there are.
        similarity: `jnnk.graphs.gaussian`, `jnnk.graphs.cosine`, your own
            `jnnk.graphs.RadialSimilarity`, or a hashable callable ``k(x, y)`` of two (D,) vectors,
            positive semi-definite with ``k(x, x) = 1``, whose candidates are the Euclidean
            neighbours; a query for which it gives NaN or infinity is one with NaN itself. By
            default the Gaussian with a third of the distance to the K-th neighbour, the authors'
            choice, which no scaling changes.
        queries: None means the points themselves, each left out of its own candidates.
        exclude: with ``queries``: the index of a point to leave out, -1 for none.
        tol: see `jnnk.graphs.solve_nnk`.
        max_steps: see `jnnk.graphs.solve_nnk`.
        block_size: queries whose distances to all points are held at once.
        method: see `jnnk.graphs.nearest_neighbors`.

    Returns:
        An `NNKGraph`.

    Raises:
        ValueError: on wrong shapes, dtypes or options, and on lists.

    Examples:
        On a line a point's neighbours are the next one on either side; the candidates behind them
        get no weight:

        >>> line = jnp.array([[0.0], [1.0], [2.0], [4.0]])
        >>> graph = nnk_graph(line, num_neighbors=3)
        >>> print(graph.indices)
        [[1 2 3]
         [0 2 3]
         [1 0 3]
         [2 1 0]]
        >>> print(graph.weights > 0)
        [[ True False False]
         [ True  True False]
         [ True False  True]
         [ True False False]]
    """
    return _nnk_graph(
        points,
        num_neighbors=num_neighbors,
        similarity=similarity,
        queries=queries,
        # Here, since a transformation would wrap 64 bits to 32.
        exclude=to_int32(exclude, otherwise=-1),
        tol=tol,
        max_steps=max_steps,
        block_size=block_size,
        method=method,
    )


@typed_jax.jit(static_argnames=("num_neighbors", "similarity", "block_size", "method", "max_steps"))
def _nnk_graph(
    points: ArrayLike,
    *,
    num_neighbors: int,
    similarity: Similarity,
    queries: ArrayLike | None,
    exclude: ArrayLike | None,
    tol: float | jax.Array,
    max_steps: int,
    block_size: int,
    method: str,
) -> NNKGraph:
    """`nnk_graph` as one program."""
    check_similarity(similarity)
    check_array("points", points, jnp.floating, jnp.integer, jnp.bool_)
    if points.ndim != 2:
        raise ValueError(f"points: expected (N, D), got shape {points.shape}")
    num_points = points.shape[0]
    if queries is None:
        if exclude is not None:
            raise ValueError(
                "exclude: expected with queries alone, got none; points leave themselves out"
            )
        exclude = jnp.arange(num_points, dtype=jnp.int32)
        queries = points
        num_candidates = num_points - 1
    else:
        check_array("queries", queries, jnp.floating, jnp.integer, jnp.bool_)
        if queries.ndim != 2 or queries.shape[1] != points.shape[1]:
            raise ValueError(f"queries: expected (Q, {points.shape[1]}), got shape {queries.shape}")
        num_candidates = num_points
    if exclude is None:
        exclude = jnp.full(queries.shape[:1], -1, jnp.int32)
    check_exclude(exclude, queries.shape[0])
    num_neighbors, block_size = check_options(num_neighbors, block_size, method)
    dtype = working_dtype(points.dtype)
    points, queries = jnp.asarray(points).astype(dtype), jnp.asarray(queries).astype(dtype)
    if num_points == 0:  # a point that is nobody's neighbour, for none
        points = jnp.full((1, points.shape[1]), jnp.nan, dtype)
    every, asked = vectors_of(points, similarity), vectors_of(queries, similarity)
    dead = all_coincide(every.embedded, asked.embedded)
    indices, distances, *_ = search(
        asked.embedded,
        every.embedded,
        jnp.asarray(to_int32(exclude, otherwise=-1)),
        num_neighbors=max(1, min(num_neighbors, num_candidates)),
        block_size=block_size,
        method=method,
    )
    graph = weigh(
        Candidates(indices, distances.distances),
        asked,
        points=every,
        dead=dead,
        similarity=resolved(similarity, distances.distances, indices >= 0),
        tol=tol,
        max_steps=max_steps,
        num_points=num_points,
    )
    return pad_candidates(graph, num_neighbors=num_neighbors)
