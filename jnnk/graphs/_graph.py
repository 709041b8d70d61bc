"""What an NNK graph is."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int32, Shaped

from jnnk._core.arrays import ArrayLike

if TYPE_CHECKING:
    import scipy.sparse


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
        indices: candidates by increasing distance, ties by index; -1 for none.
        weights: at least 0, exactly 0 for candidates that are not neighbours.
        errors: squared error ``1 - 2 w'g + w'G w`` of reconstructing the query, between 0 and
            1 up to rounding; 1 without neighbours.
        kkt_residual: see `jnnk.graphs.QPSolution`; infinity for queries with NaN or infinity.
        converged: see `jnnk.graphs.QPSolution`; False for queries with NaN or infinity.
        distances: to the candidates, in the units of the space where they were searched (for
            the cosine similarity that of unit vectors: ``sqrt(2 - 2 cos)``); infinity for none. No
            derivative goes through them.
        ambiguous: queries whose neighbours are not the only ones that explain them as
            well, or hang on rounding, see `jnnk.QPSolution`; False without neighbours, and where
            candidates coincide with the query, for then the rule above decides.
        num_points: N, how many points the candidates of each query were searched among. What takes
            labels beside a graph asks it how many there must be; None where that is not known.
    """

    indices: Int32[Array, "... Q K"]
    weights: Float[Array, "... Q K"]
    errors: Float[Array, "... Q"]
    kkt_residual: Float[Array, "... Q"]
    converged: Bool[Array, "... Q"]
    distances: Float[Array, "... Q K"]
    ambiguous: Bool[Array, "... Q"]
    num_points: Int32[Array, "... Q"] | None = None

    def __repr__(self) -> str:
        """One line that sums the graph up: sizes, mean degree, share of converged queries.

        Of arrays whose values are not at hand (traced, deleted, or on devices of other processes)
        the sizes alone.
        """
        shape = getattr(self.weights, "shape", ())
        if len(shape) < 2:  # no graph, such as a tree of specifications in its place
            return f"NNKGraph{tuple(self)!r}"
        *leading, num_queries, num_neighbors = shape
        channels = f"{' x '.join(map(str, leading))} channels, " if leading else ""
        sizes = f"NNKGraph: {channels}{num_queries} queries, {num_neighbors} candidates each"
        if not (_is_known(self.weights) and _is_known(self.converged)) or 0 in shape[:-1]:
            return sizes
        weights, converged = jax.device_get((self.weights, self.converged))
        degree = np.count_nonzero(weights > 0) / converged.size
        # Rounded down, so that 100% are all.
        percent = 10_000 * np.count_nonzero(converged) // converged.size / 100
        return f"{sizes}; mean degree {degree:.2f}, {percent:g}% converged"

    @property
    def squared_distances(self) -> Float[Array, "... Q K"]:
        """The squares of ``distances``, which may leave the dtype's range, to 0 or infinity."""
        return self.distances * self.distances

    def channel(self, number: int) -> "NNKGraph":
        """The graph of one channel of a channel-wise graph: every field without its leading axis.

        Raises:
            ValueError: if the graph has no leading axis.
        """
        if self.weights.ndim != 3:
            raise ValueError(
                f"graph: expected channel({number}) of a channel-wise one with weights (C, Q, K), "
                f"got {self.weights.shape}"
            )

        def of_channel(field: jax.Array) -> jax.Array:
            return field[number]

        return jax.tree.map(of_channel, self)

    def to_scipy(
        self, *, num_points: int | None = None, values: Shaped[ArrayLike, "Q K"] | None = None
    ) -> "scipy.sparse.csr_array":
        """The graph as a sparse matrix (Q, N): row i holds the neighbours of query i.

        A channel-wise graph is C such matrices: ``graph.channel(c).to_scipy()`` is one of them.

        Args:
            num_points: N; by default the number of queries (a graph on the points themselves).
            values: what the edges hold; by default the weights.

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
                f"graph: expected weights (Q, K) for to_scipy, got {weights.shape}; "
                "graph.channel(c) is that of channel c"
            )
        edge_values = weights if values is None else np.asarray(values)
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
        matrix = scipy.sparse.csr_array(
            (edge_values[rows, slots], (rows.astype(index), columns.astype(index))),
            shape=(num_queries, num_points),
        )
        matrix.sort_indices()  # as SciPy before 1.15 does not
        return matrix


def _is_known(array: object) -> bool:
    """Whether the values of an array can be looked at here."""
    if isinstance(array, jax.Array):
        is_tracer = isinstance(array, Tracer)
        return not is_tracer and not array.is_deleted() and array.is_fully_addressable
    return isinstance(array, np.ndarray)


def pad_candidates(graph: NNKGraph, *, num_neighbors: int) -> NNKGraph:
    """The graph with K = ``num_neighbors`` candidates a query: those added do not exist."""
    missing = num_neighbors - graph.indices.shape[-1]

    def pad(field: jax.Array, value: float) -> jax.Array:
        widths = [(0, 0)] * (field.ndim - 1) + [(0, missing)]
        return jnp.pad(field, widths, constant_values=value)

    return graph._replace(
        indices=pad(graph.indices, -1),
        weights=pad(graph.weights, 0),
        distances=pad(graph.distances, jnp.inf),
    )
