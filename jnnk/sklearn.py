"""NNK graphs as scikit-learn estimators.

Shapes that differ a little share one compiled program: points are padded with NaN, which is
nobody's neighbour, and with columns of zeros, which change no distance.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from jnnk._core.errors import InputError
from jnnk._core.whole_numbers import is_whole_number
from jnnk.graphs import NNKGraph, Similarity, cosine, gaussian, nnk_graph
from jnnk.measures import label_interpolation

__all__ = ["NNKClassifier", "NNKTransformer"]

_validate: Callable[..., Any] = validate_data  # scikit-learn has no annotations

_Mode = Literal["weights", "connectivity", "distance"]
_SIMILARITIES = {"gaussian": gaussian(), "cosine": cosine()}
# What an edge of a sparse graph holds, from the graph's fields.
_MODES = {
    "weights": lambda graph: graph.weights,
    "connectivity": lambda graph: jnp.ones_like(graph.weights),
    "distance": lambda graph: graph.distances,
}
# Shapes are padded to at least this many points and columns.
_LEAST_POINTS, _LEAST_COLUMNS = 128, 16


class _Neighborhoods(BaseEstimator):
    """Points that were fitted, and NNK graphs on them."""

    def __init__(self, n_neighbors: int = 25, *, similarity: str | Similarity = "gaussian"):
        self.n_neighbors = n_neighbors
        self.similarity = similarity

    def nnk_graph(self, X: ArrayLike | None = None) -> NNKGraph:
        """The NNK graph behind everything that this estimator says.

        Args:
            X: (Q, D) queries against the points that were fitted; None for those points
                themselves, each left out of its own neighbourhood.

        Returns:
            An `NNKGraph` of Q queries, with no more candidates than there are.
        """
        check_is_fitted(self)
        exclude = np.arange(self.n_samples_fit_)
        queries = self._points
        if X is not None:
            queries: np.ndarray = _validate(self, X, reset=False, dtype=self._points.dtype)
            exclude = np.full(len(queries), -1)
        available = self.n_samples_fit_ - (X is None)
        points, padded = _padded(self._points), _padded(queries)
        missing = len(padded) - len(queries)
        graph = nnk_graph(
            jnp.asarray(points),
            queries=jnp.asarray(padded),
            exclude=jnp.asarray(np.pad(exclude, (0, missing), constant_values=-1), jnp.int32),
            num_neighbors=max(1, min(self.n_neighbors, available)),
            similarity=self._similarity(),
        )
        # By NumPy: JAX would compile a program for every number of queries.
        return jax.tree.map(lambda field: jnp.asarray(np.asarray(field)[: len(queries)]), graph)

    def _fit_points(self, points: np.ndarray) -> None:
        self._similarity()  # a wrong name should not wait for the first graph
        if not is_whole_number(self.n_neighbors):
            raise InputError(
                f"n_neighbors: expected a whole number of at least 1, got {self.n_neighbors!r}"
            )
        self._points = points
        self.n_samples_fit_ = len(points)

    def _similarity(self) -> Similarity:
        if isinstance(self.similarity, str):
            if self.similarity not in _SIMILARITIES:
                known = ", ".join(map(repr, _SIMILARITIES))
                raise InputError(
                    f"similarity: expected {known} or one of jnnk.graphs, got {self.similarity!r}"
                )
            return _SIMILARITIES[self.similarity]
        return self.similarity


class NNKTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Neighborhoods):
    """Points to the sparse graph of their NNK neighbours.

    Takes the place of `sklearn.neighbors.KNeighborsTransformer` where the number of neighbours
    should follow the geometry instead of being K for every point (arXiv 1910.09383).
    ``fit_transform`` gives the graph on the points themselves, each left out of its own
    neighbourhood; ``transform`` takes all points it is given as new, so a fitted point given again
    has itself as its one neighbour, or shares the weight with those that coincide with it.

    Args:
        n_neighbors: K, the candidates of each point; where there are fewer, those.
        similarity: ``"gaussian"`` (bandwidth a third of the distance to the K-th candidate),
            ``"cosine"``, or what `jnnk.graphs.nnk_graph` takes.
        mode: what the edges hold: NNK ``"weights"``, ones (``"connectivity"``), or the
            ``"distance"`` (for ``"cosine"`` that of unit vectors).

    Attributes:
        n_samples_fit_: N, the number of points fitted, and of columns of the graph.
        n_features_in_: D.

    Examples:
        >>> import numpy as np
        >>> line = np.array([[0.0], [1.0], [2.0], [4.0]])
        >>> NNKTransformer(n_neighbors=3, mode="distance").fit_transform(line).toarray()
        array([[0., 1., 0., 0.],
               [1., 0., 1., 0.],
               [0., 1., 0., 2.],
               [0., 0., 2., 0.]], dtype=float32)
    """

    def __init__(
        self,
        n_neighbors: int = 25,
        *,
        similarity: str | Similarity = "gaussian",
        mode: _Mode = "weights",
    ):
        super().__init__(n_neighbors, similarity=similarity)
        self.mode: _Mode = mode

    def fit(self, X: ArrayLike, y: None = None) -> "NNKTransformer":
        """Keeps the points (N, D).

        Raises:
            ValueError: on NaN or infinity, wrong shapes or options.
        """
        _check_mode(self.mode)
        self._fit_points(_validated(self, X))
        return self

    def transform(self, X: ArrayLike) -> scipy.sparse.csr_array:
        """The graph (Q, N) of new points X (Q, D) against those fitted."""
        check_is_fitted(self)
        return self.kneighbors_graph(X, mode=self.mode)

    def fit_transform(self, X: ArrayLike, y: None = None) -> scipy.sparse.csr_array:
        """The graph (N, N) on the points X (N, D) themselves."""
        return self.fit(X).kneighbors_graph(mode=self.mode)

    def kneighbors_graph(
        self,
        X: ArrayLike | None = None,
        *,
        mode: _Mode = "connectivity",
    ) -> scipy.sparse.csr_array:
        """As that of `sklearn.neighbors.NearestNeighbors`, with NNK neighbours.

        Args:
            X: (Q, D) queries, or None for the points fitted.
            mode: what the edges hold, see the class.

        Returns:
            (Q, N) CSR; a neighbour at distance 0 is an explicit zero.
        """
        _check_mode(mode)
        graph = self.nnk_graph(X)
        return graph.to_scipy(num_points=self.n_samples_fit_, values=_MODES[mode](graph))

    @property
    def _n_features_out(self) -> int:
        return self.n_samples_fit_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class NNKClassifier(ClassifierMixin, _Neighborhoods):
    """Labels interpolated over the polytope of NNK neighbours (DeepNNK, 2020).

    ``p_y = sum_k theta_k [label_k = y] / sum_k theta_k`` over the neighbours k of a query,
    `jnnk.measures.label_interpolation`. Points that coincide with a query vote alone and
    equally; of more than K of them those that were fitted first. A query without neighbours, as
    where all points and queries coincide, gets the shares of the classes among the points fitted.

    Args:
        n_neighbors: K, the candidates of each query; where there are fewer, those.
        similarity: see `NNKTransformer`.

    Attributes:
        classes_: the C labels, sorted.
        class_prior_: (C,) their shares among the points fitted.
        n_samples_fit_: N.
        n_features_in_: D.

    Examples:
        >>> import numpy as np
        >>> points = np.array([[0.0], [1.0], [4.0], [5.0]])
        >>> model = NNKClassifier(n_neighbors=3).fit(points, ["low", "low", "high", "high"])
        >>> print(*model.predict([[0.4], [4.2]]))
        low high
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> "NNKClassifier":
        """Keeps the points (N, D) and their labels (N,).

        Raises:
            ValueError: on NaN or infinity, wrong shapes, options or targets.
        """
        points, y = _validated(self, X, y)
        check_classification_targets(y)
        encoder = LabelEncoder()
        self._labels: np.ndarray = np.asarray(encoder.fit_transform(y), np.int32)
        self.classes_: np.ndarray = np.asarray(encoder.classes_)
        self.class_prior_ = np.bincount(self._labels) / len(self._labels)
        self._fit_points(points)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities (Q, C) of the points X (Q, D), in the order of ``classes_``."""
        graph = self.nnk_graph(X)
        missing = _shared_size(self.n_samples_fit_, _LEAST_POINTS) - self.n_samples_fit_
        labels = jnp.asarray(np.pad(self._labels, (0, missing)))
        votes = np.asarray(label_interpolation(graph, labels, len(self.classes_)), np.float64)
        total = votes.sum(axis=1, keepdims=True)
        return np.where(total > 0, votes / np.where(total > 0, total, 1), self.class_prior_)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable label (Q,) of each point, the first of ``classes_`` among equals."""
        probabilities = self.predict_proba(X)
        return self.classes_[np.argmax(probabilities, axis=1)]


def _check_mode(mode: str) -> None:
    if mode not in _MODES:
        raise InputError(f"mode: expected one of {', '.join(_MODES)}, got {mode!r}")


def _validated(estimator: BaseEstimator, X: ArrayLike, *y: ArrayLike) -> Any:
    """X as float32 or float64, what JAX computes in, and y if there is one."""
    dtype = jnp.zeros(()).dtype
    return _validate(estimator, X, *y, dtype=dtype)


def _shared_size(size: int, least: int) -> int:
    """The next of few sizes: at most an eighth larger than ``size``, unless that is tiny."""
    step = 2 ** max((max(size, least) - 1).bit_length() - 4, 0)
    return -(-max(size, least) // step) * step


def _padded(points: np.ndarray) -> np.ndarray:
    """Points (N, D) of a shape that many share: NaN below, zeros on the right."""
    rows, columns = points.shape
    missing = (
        _shared_size(rows, _LEAST_POINTS) - rows,
        _shared_size(columns, _LEAST_COLUMNS) - columns,
    )
    wide = np.pad(points, ((0, 0), (0, missing[1])))
    return np.pad(wide, ((0, missing[0]), (0, 0)), constant_values=np.nan)
