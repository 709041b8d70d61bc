"""Exact nearest neighbours, blocked over queries, with ties broken by index."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike, is_array
from jnnk._core.precision import working_dtype
from jnnk._core.whole_numbers import to_int32, whole_number
from jnnk.graphs._search.passes import search

#: The search takes coordinates in this unit: no difference of two finite numbers then overflows.
UNIT = 4.0


def nearest_neighbors(
    queries: Float[ArrayLike, "Q D"],
    points: Float[ArrayLike, "N D"],
    *,
    num_neighbors: int,
    exclude: Int[ArrayLike, " Q"] | None = None,
    block_size: int = 256,
    method: Literal["exact", "approximate"] = "exact",
) -> tuple[Int32[Array, "Q K"], Float[Array, "Q K"]]:
    """The nearest points of each query by Euclidean distance.

    The K points of the smallest (squared distance, index), where the squared distance is the sum
    of the squares of ``query - point``, differences, squares and sums rounded to the working dtype.
    Identical points tie exactly, as do all whose sums are exact (whole numbers), and the smallest
    indices are kept, however many tie. Distances that differ by less than such sums round,
    ``2 (D + 2) eps`` relative, may change places; nothing else does, on clusters however narrow
    and wherever they lie. Where squares, or differences that are too large, leave the range of the
    dtype, the order is still right. At the other end it is not: coordinates and differences below
    four times the smallest normal number (4.7e-38 in float32, 8.9e-308 in float64) count as 0.

    Candidates come from a matrix product of centred points and are ranked by the differences
    themselves. What the product may have missed is bounded for every query, and the queries for
    which the bound proves nothing (narrow clusters far apart, ties at the K-th distance) are
    compared with all points by differences. They take two to three times as long. Memory is
    ``block_size * N`` floats in either pass; never Q x N.

    Args:
        queries: half precisions are computed in float32. Q, N and D may be 0.
        points: of the same dtype.
        num_neighbors: K, at least 1; may exceed the number of points, which costs nothing.
        exclude: for each query the index of a point to leave out (``arange(N)`` for
            a graph on the points themselves); -1, or what no point has, leaves nothing out.
        block_size: queries per block.
        method: ``"exact"``, or ``"approximate"``: ``jax.lax.approx_max_k`` with a recall target of
            0.95, meant for TPU (on CPU it is slower than the exact search), and no second pass.

    Returns:
        ``(indices, squared_distances)``, ascending. Where there are fewer than K candidates the
        rest is index -1 at distance infinity. Points with NaN or
        infinity are nobody's neighbour, and queries with them have none. Squared distances
        that leave the range of the dtype are infinity or 0; the order is still right, but for
        differences that count as 0 themselves.

    Raises:
        ValueError: on wrong shapes, dtypes or options.

    Examples:
        >>> points = jnp.array([[0.0], [1.0], [3.0]])
        >>> indices, squared_distances = nearest_neighbors(points, points, num_neighbors=2)
        >>> print(indices)
        [[0 1]
         [1 0]
         [2 1]]
        >>> print(squared_distances)
        [[0. 1.]
         [0. 1.]
         [0. 4.]]
    """
    return _nearest_neighbors(
        queries,
        points,
        # Here, since a transformation would wrap 64 bits to 32.
        exclude=to_int32(exclude, otherwise=-1),
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
    )


@typed_jax.jit(static_argnames=("num_neighbors", "block_size", "method"))
def _nearest_neighbors(
    queries: ArrayLike,
    points: ArrayLike,
    *,
    exclude: ArrayLike | None,
    num_neighbors: int,
    block_size: int,
    method: str,
) -> tuple[jax.Array, jax.Array]:
    """`nearest_neighbors` as one program."""
    _check(queries, points, exclude)
    num_neighbors, block_size = check_options(num_neighbors, block_size, method)
    dtype = working_dtype(points.dtype)
    queries, points = (
        some_coordinates(jnp.asarray(x).astype(dtype) / UNIT) for x in (queries, points)
    )
    if exclude is None:
        exclude = jnp.full(queries.shape[:1], -1, jnp.int32)
    wanted = min(num_neighbors, max(1, points.shape[0]))
    indices, distances, *_ = search(
        queries,
        points,
        jnp.asarray(to_int32(exclude, otherwise=-1)),
        num_neighbors=wanted,
        block_size=block_size,
        method=method,
    )
    missing = ((0, 0), (0, num_neighbors - wanted))
    return (
        jnp.pad(indices, missing, constant_values=-1),
        jnp.pad(distances.squares * UNIT * UNIT, missing, constant_values=np.inf),
    )


def some_coordinates(points: jax.Array) -> jax.Array:
    """Points (N, D), or (N, 1) zeros where D is 0."""
    return points if points.shape[1] else jnp.zeros((len(points), 1), points.dtype)


def check_options(num_neighbors: int, block_size: int, method: str) -> tuple[int, int]:
    """``(num_neighbors, block_size)`` as Python's own; ValueError on options that mean nothing."""
    if method not in ("exact", "approximate"):
        raise ValueError(f"method: expected 'exact' or 'approximate', got {method!r}")
    return (
        whole_number("num_neighbors", num_neighbors),
        whole_number("block_size", block_size),
    )


def check_array(name: str, value: object, *kinds: type) -> None:
    """Raises ValueError if the value is not an array, or its dtype is of none of the kinds."""
    if not is_array(value):
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}")
    if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}: expected dtype {names}, got {value.dtype}")


def check_exclude(exclude: object, num_queries: int) -> None:
    """Raises ValueError on what are not integers (Q,)."""
    if (
        not is_array(exclude)
        or exclude.shape != (num_queries,)
        or not jnp.issubdtype(exclude.dtype, jnp.integer)
    ):
        is_other = is_array(exclude)
        what = f"{exclude.shape} {exclude.dtype}" if is_other else type(exclude).__name__
        raise ValueError(f"exclude: expected an array of {(num_queries,)} integers, got {what}")


def _check(queries: ArrayLike, points: ArrayLike, exclude: ArrayLike | None) -> None:
    """Raises ValueError on misuse."""
    for name, array in (("queries", queries), ("points", points)):
        check_array(name, array, jnp.floating)
        if array.ndim != 2:
            raise ValueError(f"{name}: expected (number, D), got shape {array.shape}")
    if queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries and points: expected the same D, got {queries.shape} and {points.shape}"
        )
    if exclude is not None:
        check_exclude(exclude, queries.shape[0])
