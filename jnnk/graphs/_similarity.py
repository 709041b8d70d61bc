"""Similarities (RKHS kernels) between points: Gaussian, cosine, and the user's own.

A similarity here is a positive semi-definite function with ``k(x, x) = 1``. Gaussian and cosine are
functions of the squared distance in some embedding, which is also where neighbours are searched;
any other callable ``k(x, y)`` of two vectors is taken as it is.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jnnk._core.precision import row_sums

Bandwidth = float | Literal["kth_neighbor", "median"]


def _python_number(value):
    """Python's number for an array of no axes; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _is_positive(value) -> bool:
    """Whether it is a positive finite real number of Python or NumPy; a truth value is none."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


@dataclasses.dataclass(frozen=True)
class Gaussian:
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
                "bandwidth must be a positive finite number, 'kth_neighbor' or 'median', "
                f"got {bandwidth!r}"
            )
        if not _is_positive(factor):
            raise ValueError(f"factor must be positive and finite, got {factor!r}")
        object.__setattr__(self, "bandwidth", bandwidth if is_name else float(bandwidth))
        object.__setattr__(self, "factor", float(factor))

    def embed(self, points: jax.Array) -> jax.Array:
        """Points (N, D) as they are: neighbours are Euclidean."""
        return points

    def resolved(self, squared_distances: jax.Array, valid: jax.Array, unit: jax.Array):
        """The same similarity with the median bandwidth turned into a number.

        Arguments are those of `widths`, for all queries of a graph.
        """
        if self.bandwidth != "median":
            return self
        distances = jnp.where(valid, _safe_sqrt(squared_distances), jnp.nan)
        median = jnp.nan_to_num(jnp.nanmedian(distances))
        return _GraphGaussian(median * unit / self.factor, self.factor)

    def widths(self, squared_distances: jax.Array, valid: jax.Array, unit: jax.Array) -> jax.Array:
        """The bandwidth of each query, for a similarity that is resolved.

        Args:
            squared_distances: (Q, K) to the candidates, ascending.
            valid: (Q, K) bool, the candidates that exist (a prefix of each row).
            unit: (), length of one unit of the distances in the user's units.

        Returns:
            (Q,) bandwidths in the unit of the distances; 0 where no candidate is away from the
            query.
        """
        shape, dtype = squared_distances.shape[:1], squared_distances.dtype
        if isinstance(self.bandwidth, str):
            # By its place: the derivative of a maximum compares it with what it is the maximum of,
            # which a GPU may compute twice with different rounding: then no place is equal.
            is_last = valid & ~jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))
            farthest = jnp.sum(jnp.where(is_last, squared_distances, 0), axis=1)
            return _safe_sqrt(farthest) / self.factor
        return jnp.broadcast_to(jnp.asarray(self.bandwidth, dtype) / unit, shape)

    def of_squared_distances(self, squared_distances: jax.Array, widths: jax.Array) -> jax.Array:
        """Similarity from squared distances and widths that broadcast with them.

        At width 0, or one whose square is, it is the limit: 1 for coinciding points and 0 for all
        others.
        """
        squares = widths * widths
        positive = squares >= jnp.finfo(squares.dtype).tiny  # below, the rate would be infinite
        rate = 0.5 / jnp.where(positive, squares, 1)
        limit = (squared_distances == 0).astype(squared_distances.dtype)
        return jnp.where(positive, jnp.exp(-rate * squared_distances), limit)


class _GraphGaussian(Gaussian):
    """The `Gaussian` whose bandwidth, an array (), was computed from all queries of a graph."""

    def __post_init__(self):
        """Checks nothing: the bandwidth may be traced, and is 0 where all points coincide."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """``0.5 + 0.5 cos(x, y)``; hashable, build it with `cosine`."""

    def embed(self, points: jax.Array) -> jax.Array:
        """Unit vectors (N, D + 1) whose squared distance is ``2 - 2 cos``.

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

    def resolved(self, squared_distances: jax.Array, valid: jax.Array, unit: jax.Array):
        """Itself: nothing depends on the data."""
        del squared_distances, valid, unit
        return self

    def widths(self, squared_distances: jax.Array, valid: jax.Array, unit: jax.Array) -> jax.Array:
        """The length (Q,) of a unit vector in the unit of the distances."""
        del valid
        return jnp.broadcast_to(1 / unit, squared_distances.shape[:1])

    def of_squared_distances(self, squared_distances: jax.Array, widths: jax.Array) -> jax.Array:
        """``1 - d^2 / 4`` with the distances measured in widths."""
        return 1 - squared_distances / (4 * widths * widths)


RadialSimilarity = Gaussian | Cosine
Similarity = RadialSimilarity | Callable[[jax.Array, jax.Array], jax.Array]


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


def _safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root with derivative 0 at 0 instead of infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
