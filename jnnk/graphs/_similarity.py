"""Similarities (RKHS kernels) between points: Gaussian, cosine, and the user's own.

A similarity here is a positive semi-definite function with ``k(x, x) = 1``. Gaussian and cosine are
functions of the squared distance in some embedding, which is also where neighbours are searched, as
is what users derive from `RadialSimilarity`; any other callable ``k(x, y)`` of two vectors is taken
as it is.
"""

import abc
import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jnnk._core import typed_jax
from jnnk._core.precision import row_sums

Bandwidth = float | Literal["kth_neighbor", "median"]


def _python_number(value: Any) -> Any:
    """Python's number for an array of no axes; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _is_positive(value: object) -> bool:
    """Whether it is a positive finite real number of Python or NumPy; a truth value is none."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and float(value) > 0
    )


@runtime_checkable
class RadialSimilarity(Protocol):
    """A similarity that is a function of a distance: what `Gaussian` and `Cosine` are, and yours.

    Points are embedded; neighbours are searched there, and similarities are values of the squared
    distances there. Memory and time are those of the Gaussian, while a callable ``k(x, y)`` is
    called for every pair of candidates.

    Make your own as a frozen dataclass, since it has to be hashable, that inherits from this class
    and defines ``of_squared_distances``; the other methods have defaults: the points as they are,
    and widths of 1. A class that has all these methods need not inherit. As a function of two
    points a similarity has to be positive semi-definite, with value 1 at distance 0. Gradients need
    it to have a derivative there with respect to the squared distance.

    Examples:
        The rational quadratic similarity ``1 / (1 + d^2 / length^2)``:

        >>> import dataclasses
        >>> from jnnk.graphs import RadialSimilarity, nnk_graph
        >>> @dataclasses.dataclass(frozen=True)
        ... class RationalQuadratic(RadialSimilarity):
        ...     length: float
        ...
        ...     def of_squared_distances(self, squared_distances, widths):
        ...         return 1 / (1 + squared_distances / (self.length * widths) ** 2)
        >>> line = jnp.array([[0.0], [1.0], [2.0], [4.0]])
        >>> graph = nnk_graph(line, num_neighbors=3, similarity=RationalQuadratic(2.0))
        >>> print(graph.weights > 0)
        [[ True False False]
         [ True  True False]
         [ True False  True]
         [ True False False]]
    """

    @property
    def needs_all_distances(self) -> bool:
        """Whether ``resolved`` has to see the distances of all queries of a graph first."""
        return False

    def embed(self, points: Float[Array, "N D"]) -> Float[Array, "N E"]:
        """Where the points lie for the search and for the distances."""
        return points

    def resolved(
        self,
        squared_distances: Float[Array, "Q K"],
        valid: Bool[Array, "Q K"],
        unit: Float[Array, ""],
    ) -> "RadialSimilarity":
        """The similarity that the graph is made with, where ``needs_all_distances``.

        Args:
            squared_distances: of all queries to their candidates, ascending.
            valid: the candidates that exist (a prefix of each row).
            unit: length of one unit of the distances in the units of the embedding.
        """
        del squared_distances, valid, unit
        return self

    def widths(
        self,
        squared_distances: Float[Array, "Q K"],
        valid: Bool[Array, "Q K"],
        unit: Float[Array, "..."],
    ) -> Float[Array, " Q"]:
        """A length for each query, in the unit of the distances, by default that of the embedding.

        Distances come in units in which their squares neither overflow nor vanish; a similarity is
        therefore a function of ``squared_distances / widths**2``.

        Args:
            squared_distances: to the candidates, ascending.
            valid: the candidates that exist (a prefix of each row).
            unit: () or (Q,), length of one unit of the distances in the units of the embedding.
        """
        del valid
        return jnp.broadcast_to(1 / unit, squared_distances.shape[:1])

    @abc.abstractmethod
    def of_squared_distances(
        self, squared_distances: Float[Array, "..."], widths: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Similarities from squared distances, and widths that broadcast with them."""
        ...


@dataclasses.dataclass(frozen=True)
class Gaussian(RadialSimilarity):
    """``exp(-|x - y|^2 / (2 bandwidth^2))``; hashable. `gaussian` builds it with defaults.

    Attributes:
        bandwidth: see `gaussian`.
        factor: see `gaussian`.

    Raises:
        ValueError: as `gaussian`, however it is built.
    """

    bandwidth: Bandwidth
    factor: float

    def __post_init__(self):
        bandwidth, factor = _python_number(self.bandwidth), _python_number(self.factor)
        is_name = isinstance(bandwidth, str) and bandwidth in ("kth_neighbor", "median")
        if not (is_name or _is_positive(bandwidth)):
            raise ValueError(
                "bandwidth: expected a positive finite number, 'kth_neighbor' or 'median', "
                f"got {bandwidth!r}"
            )
        if not _is_positive(factor):
            raise ValueError(f"factor: expected a positive finite number, got {factor!r}")
        object.__setattr__(self, "bandwidth", bandwidth if is_name else float(bandwidth))
        object.__setattr__(self, "factor", float(factor))

    @property
    def needs_all_distances(self) -> bool:
        """Whether the bandwidth is the median."""
        return self.bandwidth == "median"

    def resolved(
        self,
        squared_distances: Float[Array, "Q K"],
        valid: Bool[Array, "Q K"],
        unit: Float[Array, ""],
    ) -> RadialSimilarity:
        """The same similarity with the median bandwidth turned into a number."""
        if not self.needs_all_distances:
            return self
        if squared_distances.size == 0:
            return _GraphGaussian(jnp.zeros_like(unit))
        distances = jnp.where(valid, _safe_sqrt(squared_distances), jnp.nan)
        median = jnp.nan_to_num(jnp.nanmedian(distances))
        return _GraphGaussian(median * unit / self.factor)

    def widths(
        self,
        squared_distances: Float[Array, "Q K"],
        valid: Bool[Array, "Q K"],
        unit: Float[Array, "..."],
    ) -> Float[Array, " Q"]:
        """The bandwidth of each query; 0 where no candidate is away from the query."""
        shape, dtype = squared_distances.shape[:1], squared_distances.dtype
        if isinstance(self.bandwidth, str):
            # By its place: the derivative of a maximum compares it with what it is the maximum of,
            # which a GPU may compute twice with different rounding: then no place is equal.
            is_last = valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))
            farthest = jnp.sum(jnp.where(is_last, squared_distances, 0), axis=1)
            return _safe_sqrt(farthest) / self.factor
        return jnp.broadcast_to(jnp.asarray(self.bandwidth, dtype) / unit, shape)

    def of_squared_distances(
        self, squared_distances: Float[Array, "..."], widths: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """``exp(-d^2 / (2 width^2))``; at width 0, or one whose square is, its limit.

        That is 1 for coinciding points and 0 for all others.
        """
        return _gaussian_values(squared_distances, widths)


@dataclasses.dataclass(frozen=True)
class _GraphGaussian(RadialSimilarity):
    """The Gaussian of one bandwidth (), computed from all queries; 0 where all points coincide."""

    bandwidth: jax.Array

    def widths(self, squared_distances: jax.Array, valid: jax.Array, unit: jax.Array) -> jax.Array:
        """The bandwidth in the unit of the distances."""
        del valid
        bandwidth = jnp.asarray(self.bandwidth, squared_distances.dtype)
        return jnp.broadcast_to(bandwidth / unit, squared_distances.shape[:1])

    def of_squared_distances(self, squared_distances: jax.Array, widths: jax.Array) -> jax.Array:
        """See `Gaussian`."""
        return _gaussian_values(squared_distances, widths)


@dataclasses.dataclass(frozen=True)
class Cosine(RadialSimilarity):
    """``0.5 + 0.5 cos(x, y)``; hashable, build it with `cosine`."""

    def embed(self, points: Float[Array, "N D"]) -> Float[Array, "N E"]:
        """Unit vectors (E = D + 1) whose squared distance is ``2 - 2 cos``.

        The extra coordinate is 1 for zero vectors alone: they coincide with each other and are
        orthogonal to everything else.
        """
        # The scale cancels: there is no derivative through it.
        sizes = jax.lax.stop_gradient(jnp.abs(points))
        largest = jnp.max(sizes, axis=1, keepdims=True, initial=0)
        zero = largest == 0
        scaled = points / jnp.where(zero, 1, largest)
        norm = jnp.sqrt(row_sums(jnp.where(zero, 1, scaled) ** 2))[:, None]
        # It is at least 1, but a plain division by a root becomes an estimate of its reciprocal,
        # whose last bit depends on the number of points.
        unit = scaled / jnp.where(norm > 0, norm, 1)
        return jnp.concatenate([unit, zero.astype(points.dtype)], axis=1)

    def of_squared_distances(
        self, squared_distances: Float[Array, "..."], widths: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """``1 - d^2 / 4``; the widths are the length of a unit vector."""
        return 1 - squared_distances / (4 * widths * widths)


Similarity = RadialSimilarity | Callable[[jax.Array, jax.Array], jax.Array]


def check_similarity(similarity: object) -> None:
    """Raises ValueError on what is no `Similarity`, such as a name or a class."""
    is_known = isinstance(similarity, RadialSimilarity) or callable(similarity)
    if not is_known or isinstance(similarity, type):
        raise ValueError(
            "similarity: expected a RadialSimilarity, such as gaussian(), or a function k(x, y), "
            f"got {similarity!r}"
        )


def gaussian(bandwidth: Bandwidth = "kth_neighbor", *, factor: float = 3.0) -> Gaussian:
    """The Gaussian similarity ``exp(-d^2 / (2 bandwidth^2))``.

    Args:
        bandwidth: a positive number, in the units of the points; ``"kth_neighbor"``, for each query
            its distance to the K-th neighbour divided by ``factor`` (arXiv 1910.09383 uses 3:
            the K-th neighbour then has similarity ``exp(-4.5)``); or ``"median"``, the median
            distance over all queries and candidates divided by ``factor``, one for the graph.
        factor: divisor of the two relative bandwidths, positive.

    Returns:
        A hashable object for the ``similarity`` argument; usable as a static argument of jit.

    Raises:
        ValueError: if a number is not positive and finite, or the name is not known.
    """
    return Gaussian(bandwidth, factor)


def cosine() -> Cosine:
    """The similarity ``0.5 + 0.5 cos(x, y)`` of arXiv 2110.11400.

    Zero vectors have similarity 1 with each other and 0.5 with all others (cosine 0). Neighbours
    are the candidates of largest cosine.

    Returns:
        A hashable object for the ``similarity`` argument; usable as a static argument of jit.
    """
    return Cosine()


# The authors' choice (arXiv 1910.09383): scale-free, and well conditioned.
DEFAULT = gaussian()


def _gaussian_values(squared_distances: jax.Array, widths: jax.Array) -> jax.Array:
    """See `Gaussian.of_squared_distances`."""
    squares = widths * widths
    # Below the smallest normal number the rate would be infinite.
    positive = squares >= typed_jax.finfo(squares.dtype).tiny
    rate = 0.5 / jnp.where(positive, squares, 1)
    limit = (squared_distances == 0).astype(squared_distances.dtype)
    return jnp.where(positive, jnp.exp(-rate * squared_distances), limit)


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with derivative 0 at 0 instead of infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
