"""NNK graphs: neighbours, similarities and weights of every query in one call."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jnnk._core.blocks import map_blocks
from jnnk._core.precision import working_dtype
from jnnk._core.whole_numbers import to_int32
from jnnk.graphs._neighbors import UNIT, check_array, check_exclude, check_options, some_coordinates
from jnnk.graphs._qp.chunks import chunk_size, gram_queries, in_chunks
from jnnk.graphs._qp.solve import solve_nnk
from jnnk.graphs._search.differences import power_of_two
from jnnk.graphs._search.passes import search
from jnnk.graphs._similarity import DEFAULT, RadialSimilarity, Similarity

if TYPE_CHECKING:
    import scipy.sparse

#: Queries whose differences to their candidates are held at once.
LOCAL_QUERIES = 128


class NNKGraph(NamedTuple):
    """An NNK graph: for each query its candidates and their weights.

    The neighbours of a query are the candidates of positive weight. Every field may carry a leading
    axis C (channels). Candidates that do not exist (K larger than the number of other points,
    queries or points with NaN or infinity) have index -1 and weight 0; mask by ``weights > 0``
    before indexing with them.

    Candidates that coincide with their query explain it entirely, whatever the similarity: all m of
    them get weight 1/m, all others 0, and the error is 0. m may be all K: of a set of more than K
    points in one place each has the K others of the smallest indices. Only a dead channel, all of
    whose finite points (and queries) coincide, has no edges: nothing tells one point from another.
    "Coincide" means distance exactly 0 in the space of the search, where points are centred, so
    that differences below the rounding of the largest coordinate vanish. For the cosine similarity
    that is the space of unit vectors: zero vectors coincide with each other, and so do parallel
    ones as far as their unit vectors round alike (copies and multiples by powers of two always do).

    Attributes:
        indices: int32 (Q, K), candidates by increasing distance, ties by index; -1 for none.
        weights: (Q, K), at least 0, exactly 0 for candidates that are not neighbours.
        errors: (Q,), squared error ``1 - 2 w'g + w'G w`` of reconstructing the query, between 0 and
            1 up to rounding; 1 without neighbours.
        kkt_residual: (Q,), see `jnnk.graphs.QPSolution`; infinity for queries with NaN or infinity.
        converged: bool (Q,), see `jnnk.graphs.QPSolution`; False for queries with NaN or infinity.
        distances: (Q, K) to the candidates, in the units of the space where they were searched (for
            the cosine similarity that of unit vectors: ``sqrt(2 - 2 cos)``); infinity for none. No
            derivative goes through them.
        ambiguous: bool (Q,), queries whose neighbours are not the only ones that explain them as
            well, or hang on rounding, see `jnnk.QPSolution`; False without neighbours, and where
            candidates coincide with the query, for then the rule above decides.
    """

    indices: jax.Array
    weights: jax.Array
    errors: jax.Array
    kkt_residual: jax.Array
    converged: jax.Array
    distances: jax.Array
    ambiguous: jax.Array

    @property
    def squared_distances(self) -> jax.Array:
        """The squares of ``distances``, which may leave the dtype's range, to 0 or infinity."""
        return self.distances * self.distances

    def channel(self, number: int) -> "NNKGraph":
        """The graph of one channel of a channel-wise graph: every field without its leading axis.

        Raises:
            ValueError: if the graph has no leading axis.
        """
        if self.weights.ndim != 3:
            raise ValueError(
                f"channel({number}) needs a channel-wise graph with weights (C, Q, K), "
                f"got {self.weights.shape}"
            )
        return jax.tree.map(lambda field: field[number], self)

    def to_scipy(
        self, *, num_points: int | None = None, values: jax.Array | None = None
    ) -> "scipy.sparse.csr_array":
        """The graph as a sparse matrix (Q, N): row i holds the neighbours of query i.

        A channel-wise graph is C such matrices: ``graph.channel(c).to_scipy()`` is one of them.

        Args:
            num_points: N; by default the number of queries (a graph on the points themselves).
            values: (Q, K), what the edges hold; by default the weights.

        Returns:
            CSR, of the dtype of the values, columns ascending in every row; an entry for each
            neighbour and no other. Its own indices are int32 where they fit, which much of
            scikit-learn asks for.

        Raises:
            ValueError: if the graph has a leading axis, or an index of N or more.
        """
        import scipy.sparse  # slow to import

        weights, indices = np.asarray(self.weights), np.asarray(self.indices)
        if weights.ndim != 2:
            raise ValueError(
                f"to_scipy takes one graph with weights (Q, K), got {weights.shape}; "
                "graph.channel(c) is that of channel c"
            )
        values = weights if values is None else np.asarray(values)
        num_queries = len(weights)
        num_points = num_queries if num_points is None else num_points
        rows, slots = np.nonzero(weights > 0)
        columns = indices[rows, slots]
        if columns.size and columns.max() >= num_points:
            raise ValueError(
                f"num_points is {num_points}, but a neighbour has index {columns.max()}"
            )
        largest = max(num_queries, num_points, len(rows))
        index = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
        return scipy.sparse.csr_array(
            (values[rows, slots], (rows.astype(index), columns.astype(index))),
            shape=(num_queries, num_points),
        )


class Vectors(NamedTuple):
    """The same points as the search and as the user's similarity see them.

    Attributes:
        embedded: (..., D'), from `embed`, in units of `_neighbors.UNIT`.
        raw: (..., D), as they came; read for a similarity that is a callable alone, else it may be
            None.
    """

    embedded: jax.Array
    raw: jax.Array | None


def nnk_graph(
    points: jax.Array,
    *,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    queries: jax.Array | None = None,
    exclude: jax.Array | None = None,
    tol: float = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
) -> NNKGraph:
    """The NNK graph of points, or of queries against points.

    Differentiable in ``points`` and ``queries`` with the candidates held fixed.

    Args:
        points: (N, D); half precisions and integers are computed in float32. N, D and Q may be 0;
            without coordinates all points coincide.
        num_neighbors: K, the candidates of each query; may exceed the number of points, which costs
            nothing: the problems are those of the candidates that there are.
        similarity: `jnnk.graphs.gaussian`, `jnnk.graphs.cosine`, or a hashable callable
            ``k(x, y)`` of two (D,) vectors, positive semi-definite with ``k(x, x) = 1``, whose
            candidates are the Euclidean neighbours; a query for which it gives NaN or infinity is
            one with NaN itself. By default the Gaussian with a third of the distance to the K-th
            neighbour, the authors' choice, which no scaling changes.
        queries: (Q, D); None means the points themselves, each left out of its own candidates.
        exclude: (Q,) integer, with ``queries``: the index of a point to leave out, -1 for none.
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


@functools.partial(
    jax.jit, static_argnames=("num_neighbors", "similarity", "block_size", "method", "max_steps")
)
def _nnk_graph(
    points, *, num_neighbors, similarity, queries, exclude, tol, max_steps, block_size, method
) -> NNKGraph:
    """`nnk_graph` as one program."""
    check_array("points", points, jnp.floating, jnp.integer, jnp.bool_)
    if points.ndim != 2:
        raise ValueError(f"points must be (N, D), got shape {points.shape}")
    num_points = points.shape[0]
    if queries is None:
        if exclude is not None:
            raise ValueError("exclude goes with queries; points leave themselves out")
        exclude = jnp.arange(num_points, dtype=jnp.int32)
        queries = points
        num_candidates = num_points - 1
    else:
        check_array("queries", queries, jnp.floating, jnp.integer, jnp.bool_)
        if queries.ndim != 2 or queries.shape[1] != points.shape[1]:
            raise ValueError(f"queries must be (Q, {points.shape[1]}), got shape {queries.shape}")
        num_candidates = num_points
    if exclude is None:
        exclude = jnp.full(queries.shape[:1], -1, jnp.int32)
    check_exclude(exclude, queries.shape[0])
    num_neighbors, block_size = check_options(num_neighbors, block_size, method)
    dtype = working_dtype(points.dtype)
    points, queries = points.astype(dtype), queries.astype(dtype)
    if num_points == 0:  # a point that is nobody's neighbour, for none
        points = jnp.full((1, points.shape[1]), jnp.nan, dtype)
    embedded, embedded_queries = embed(points, similarity), embed(queries, similarity)
    dead = all_coincide(embedded, embedded_queries)
    indices, distances, _ = search(
        embedded_queries,
        embedded,
        to_int32(exclude, otherwise=-1),
        num_neighbors=max(1, min(num_neighbors, num_candidates)),
        block_size=block_size,
        method=method,
    )
    graph = weigh(
        indices,
        distances.distances,
        Vectors(embedded_queries, queries),
        rows=indices,
        candidates_of=lambda index: Vectors(embedded[index], points[index]),
        dead=dead,
        similarity=resolved(similarity, distances.distances, indices >= 0),
        tol=tol,
        max_steps=max_steps,
    )
    return with_no_others(graph, num_neighbors=num_neighbors)


def embed(points: jax.Array, similarity: Similarity) -> jax.Array:
    """Points (N, D) in the space (N, D') where the similarity searches its candidates.

    In units of `_neighbors.UNIT`, with a coordinate of zeros where there is none.
    """
    embedded = similarity.embed(points) if isinstance(similarity, RadialSimilarity) else points
    return some_coordinates(embedded / UNIT)


def resolved(similarity: Similarity, distances: jax.Array, valid: jax.Array) -> Similarity:
    """The similarity with the median bandwidth turned into a number.

    Args:
        similarity: see `nnk_graph`.
        distances: (Q, K) of all queries to their candidates, in units of `UNIT`.
        valid: bool (Q, K), which candidates exist.
    """
    if not isinstance(similarity, RadialSimilarity):
        return similarity
    unit = power_of_two(jnp.max(jnp.where(valid, distances, 0), initial=0))
    return similarity.resolved(jnp.square(distances / unit), valid, unit * UNIT)


def with_no_others(graph: NNKGraph, *, num_neighbors: int) -> NNKGraph:
    """The graph with as many candidates a query, of which the further ones do not exist."""
    missing = num_neighbors - graph.indices.shape[-1]

    def pad(field, value):
        widths = [(0, 0)] * (field.ndim - 1) + [(0, missing)]
        return jnp.pad(field, widths, constant_values=value)

    return graph._replace(
        indices=pad(graph.indices, -1),
        weights=pad(graph.weights, 0),
        distances=pad(graph.distances, jnp.inf),
    )


def all_coincide(*vectors: jax.Array, axis_name: str | None = None) -> jax.Array:
    """Whether all finite rows of arrays (N, D), (Q, D), ... are the same: bool ().

    With ``axis_name`` those of all devices along that axis of a mesh. Compared as they came, for a
    mean, and what is left after subtracting one, rounds.
    """
    lowest, highest = [], []
    for rows in map(jax.lax.stop_gradient, vectors):
        finite = jnp.all(jnp.isfinite(rows), axis=1, keepdims=True)
        lowest.append(jnp.min(jnp.where(finite, rows, jnp.inf), axis=0, initial=jnp.inf))
        highest.append(jnp.max(jnp.where(finite, rows, -jnp.inf), axis=0, initial=-jnp.inf))
    low, high = functools.reduce(jnp.minimum, lowest), functools.reduce(jnp.maximum, highest)
    if axis_name is not None:
        low, high = jax.lax.pmin(low, axis_name), jax.lax.pmax(high, axis_name)
    return ~jnp.any(high > low)


def weigh(
    indices: jax.Array,
    distances: jax.Array,
    queries: Vectors,
    *,
    rows: Any,
    candidates_of: Callable[[Any], Vectors],
    dead: jax.Array,
    similarity: Similarity,
    tol: float | jax.Array,
    max_steps: int,
) -> NNKGraph:
    """The graph of queries whose candidates are known: the second half of `nnk_graph`.

    Args:
        indices: int32 (Q, K), candidates by increasing distance, -1 for none.
        distances: (Q, K), their distances in units of `UNIT`, infinity for none.
        queries: `Vectors` (Q, D).
        rows: pytree of Q rows, of which a block goes to ``candidates_of`` at a time.
        candidates_of: from a block of B such rows to the `Vectors` (B, K, D) of its candidates,
            anything finite or not where the index is -1.
        dead: bool (), from `all_coincide` of all points and queries.
        similarity: with the median bandwidth resolved.
        tol: see `jnnk.graphs.solve_nnk`.
        max_steps: see `jnnk.graphs.solve_nnk`.

    Returns:
        An `NNKGraph`.
    """
    (num_queries, num_neighbors), dtype = indices.shape, queries.embedded.dtype
    radial = isinstance(similarity, RadialSimilarity)
    finite = jnp.all(jnp.isfinite(queries.embedded), axis=1)
    same = (indices >= 0) & (distances == 0)
    # A unit for each query, in which the squares of its distances are in the range of the dtype.
    units = power_of_two(jnp.max(jnp.where(indices >= 0, distances, 0), axis=1))
    # Whole chunks, by repeating the last query: so no chunk depends on where a block or a device's
    # share of the queries ends, and neither does the rounding.
    is_one_chunk = num_queries <= chunk_size(num_neighbors)
    whole = num_queries if is_one_chunk else in_chunks(num_queries, num_neighbors=num_neighbors)
    exists = jnp.arange(whole) < num_queries

    def padded(x):
        widths = [(0, whole - num_queries), *[(0, 0)] * (x.ndim - 1)]
        return jnp.pad(x, widths, mode="edge") if whole > num_queries else x

    def local(inputs):
        index, query, row, unit, same, exists = inputs
        valid = (index >= 0) & exists[:, None]
        candidates = candidates_of(row)
        near = jnp.where(valid[:, :, None], candidates.embedded - query.embedded[:, None], 0)
        near = near / unit[:, None, None]
        norms = jnp.sum(near * near, axis=2)
        mask = valid & ~jnp.any(same, axis=1, keepdims=True)
        if radial:
            gram, cross = _radial(similarity, near, norms, valid, unit * UNIT)
        else:
            gram, cross = _pairwise(similarity, candidates.raw, query.raw, valid)
        # A masked candidate is a problem of its own whose answer is 0.
        both = mask[:, :, None] & mask[:, None, :]
        identity = jnp.eye(num_neighbors, dtype=dtype)
        return jnp.where(both, gram, identity[None]), jnp.where(mask, cross, 0), mask

    def block(inputs):
        # Similarities in smaller blocks, whose differences fit the caches.
        gram, cross, mask = map_blocks(local, inputs, block_size=LOCAL_QUERIES)
        solution = solve_nnk(gram, cross, tol=tol, max_steps=max_steps)
        weights = jnp.where(mask, solution.weights, 0)
        if not radial:
            # Where a user's similarity is NaN, weights are 0 but must not be multiplied by it.
            sound = jnp.isfinite(solution.kkt_residual)
            gram = jnp.where(sound[:, None, None], gram, 0)
            cross = jnp.where(sound[:, None], cross, 0)
        applied = jnp.einsum("bij,bj->bi", gram, weights, precision=jax.lax.Precision.HIGHEST)
        quadratic = jnp.sum(weights * applied, axis=1)
        linear = jnp.sum(weights * cross, axis=1)
        ambiguous = solution.ambiguous & jnp.any(weights > 0, axis=1)
        errors = 1 - 2 * linear + quadratic
        return weights, errors, solution.kkt_residual, solution.converged, ambiguous

    outputs = map_blocks(
        block,
        (*jax.tree.map(padded, (indices, queries, rows, units, same)), exists),
        block_size=gram_queries(num_neighbors),
    )
    weights, errors, residual, converged, ambiguous = (x[:num_queries] for x in outputs)
    # What coincides with the query was no part of a problem: it explains the query by itself.
    same &= ~dead
    number = jnp.sum(same, axis=1, keepdims=True).astype(dtype)
    weights = jnp.where(same, 1 / jnp.maximum(number, 1), weights)
    errors = jnp.where(number[:, 0] > 0, 0, errors)
    return NNKGraph(
        indices,
        weights,
        errors,
        jnp.where(finite, residual, jnp.inf),
        converged & finite,
        distances * UNIT,
        ambiguous & finite,
    )


def _radial(similarity, near, norms, valid, unit):
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


def _pairwise(similarity, near, query, valid):
    """Gram (B, K, K) and cross (B, K) of a callable on vectors."""
    row = jax.vmap(similarity, in_axes=(None, 0))
    gram = jax.vmap(jax.vmap(row, in_axes=(0, None)))(near, near)
    both = valid[:, :, None] & valid[:, None, :]
    return jnp.where(both, gram, 0), jnp.where(valid, jax.vmap(row)(query, near), 0)
