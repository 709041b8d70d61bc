"""Exact nearest neighbours, blocked over queries, with ties broken by index."""

import functools
import operator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jnnk.copies import most_copied
from jnnk.differences import Distances, to_rows
from jnnk.precision import working_dtype
from jnnk.second_pass import (
    CHUNK,
    candidates_by_differences,
    on_a_line,
    present,
    projections_of,
    settle,
    settle_all,
)
from jnnk.shortlists import NONE, Frame, Points, Ranked, filled, others, rank, shortlists

#: The search takes coordinates in this unit: no difference of two finite numbers then overflows.
UNIT = 4.0


@functools.partial(jax.jit, static_argnames=("num_neighbors", "block_size", "method"))
def nearest_neighbors(
    queries: jax.Array,
    points: jax.Array,
    *,
    num_neighbors: int,
    exclude: jax.Array | None = None,
    block_size: int = 256,
    method: Literal["exact", "approximate"] = "exact",
) -> tuple[jax.Array, jax.Array]:
    """The nearest points of each query by Euclidean distance.

    The K points of the smallest (squared distance, index), where the squared distance is the sum
    of the squares of ``query - point``, differences, squares and sums rounded to the working dtype.
    Identical points tie exactly, as do all whose sums are exact (whole numbers), and the smallest
    indices are kept, however many tie. Distances that differ by less than such sums round,
    ``2 (D + 2) eps`` relative, may change places; nothing else does, on clusters however narrow
    and wherever they lie. Where neither squares nor differences are in the range of the dtype, the
    order is still right.

    Candidates come from a matrix product of centred points and are ranked by the differences
    themselves. What the product may have missed is bounded for every query, and the queries for
    which the bound proves nothing (narrow clusters far apart, ties at the K-th distance) are
    compared with all points by differences. They take two to three times as long. Memory is
    ``block_size * N`` floats in either pass; never Q x N.

    Args:
        queries: (Q, D) floating; half precisions are computed in float32. Q, N and D may be 0.
        points: (N, D), same dtype.
        num_neighbors: K, at least 1; may exceed the number of points, which costs nothing.
        exclude: (Q,) integer, for each query the index of a point to leave out (``arange(N)`` for
            a graph on the points themselves); -1 leaves nothing out.
        block_size: queries per block.
        method: ``"exact"``, or ``"approximate"``: ``jax.lax.approx_min_k`` with a recall target of
            0.95, meant for TPU (on CPU it is slower than the exact search), and no second pass.

    Returns:
        ``(indices, squared_distances)``: int32 (Q, K) and floating (Q, K), ascending. Where there
        are fewer than K candidates the rest is index -1 at distance infinity. Points with NaN or
        infinity are nobody's neighbour, and queries with them have none. Squared distances
        that leave the range of the dtype are infinity or 0; the order is still right.

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
    _check(queries, points, exclude)
    num_neighbors, block_size = check_options(num_neighbors, block_size, method)
    dtype = working_dtype(points.dtype)
    queries, points = (some_coordinates(x.astype(dtype) / UNIT) for x in (queries, points))
    if exclude is None:
        exclude = jnp.full(queries.shape[:1], -1, jnp.int32)
    indices, distances = search(
        queries,
        points,
        exclude.astype(jnp.int32),
        frame=Frame(*center_and_unit(points)),
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
    )
    return indices, distances.squares * UNIT * UNIT


def center_and_unit(
    points: jax.Array, *, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """A centre (D,) and a unit of length () that make the coordinates small without rounding.

    With ``axis_name`` those of the points (N, D) of all devices along that axis of a mesh.

    The unit is a power of two at least as large as any coordinate's distance from the centre, and
    the centre is the mean rounded to quarters of the unit, so that subtracting and dividing is
    exact on data like integers and keeps every tie.
    """
    finite = jnp.all(jnp.isfinite(points), axis=1, keepdims=True)
    safe = jax.lax.stop_gradient(jnp.where(finite, points, 0))
    total, largest = (lambda part: part), (lambda part: part)
    if axis_name is not None:
        total = functools.partial(jax.lax.psum, axis_name=axis_name)
        largest = functools.partial(jax.lax.pmax, axis_name=axis_name)
    count = jnp.maximum(total(jnp.sum(finite)), 1).astype(points.dtype)
    mean = total(jnp.sum(safe / count, axis=0))
    spread = largest(jnp.max(jnp.where(finite, jnp.abs(safe - mean[None]), 0), initial=0))
    _, exponent = jnp.frexp(spread)
    info = jnp.finfo(points.dtype)
    exponent = jnp.clip(exponent, info.minexp + 4, info.maxexp - 2)
    unit = jnp.where(spread > 0, jnp.ldexp(jnp.ones((), points.dtype), exponent), 1)
    return jnp.round(mean / unit * 4) / 4 * unit, unit


def search(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    frame: Frame,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
) -> tuple[jax.Array, Distances]:
    """`nearest_neighbors` on checked arrays of the working dtype, in units of `UNIT`.

    Args:
        queries: (Q, D).
        points: (N, D).
        exclude: int32 (Q,), -1 for none.
        frame: of the points, from `center_and_unit`.
        num_neighbors: K.
        block_size: see `nearest_neighbors`.
        method: see `nearest_neighbors`.

    Returns:
        ``(indices, distances)``: int32 (Q, K) and `jnnk.differences.Distances` (Q, K).
    """
    # The search is no part of any derivative; distances that are differentiated are computed
    # from the points again.
    queries, points, frame = map(jax.lax.stop_gradient, (queries, points, frame))
    wanted = min(num_neighbors, max(1, points.shape[0]))
    if queries.shape[0] == 0 or points.shape[0] == 0:
        shape, dtype = (queries.shape[0], num_neighbors), points.dtype
        never = jnp.full(shape, jnp.inf, dtype)
        return jnp.full(shape, -1, jnp.int32), Distances(never, never)
    every, ranked = first_pass(
        queries,
        points,
        exclude,
        frame=frame,
        num_neighbors=wanted,
        block_size=block_size,
        method=method,
    )
    state, unproven = (ranked.indices, ranked.distances), ranked.unproven
    if method == "exact":
        state = jax.lax.cond(
            jnp.max(unproven) > 0,
            functools.partial(
                _second_pass,
                queries=queries,
                points=every,
                exclude=exclude,
                frame=frame,
                num_neighbors=wanted,
                chunk=min(CHUNK, block_size, queries.shape[0]),
            ),
            lambda state, unproven: state,
            state,
            unproven,
        )
    indices, distances = state
    missing = ((0, 0), (0, num_neighbors - wanted))
    return (
        jnp.pad(indices, missing, constant_values=-1),
        jax.tree.map(lambda x: jnp.pad(x, missing, constant_values=np.inf), distances),
    )


def first_pass(
    queries: jax.Array,
    points: jax.Array,
    exclude: jax.Array,
    *,
    frame: Frame,
    num_neighbors: int,
    block_size: int,
    method: str = "exact",
) -> tuple[Points, Ranked]:
    """The neighbours by estimates, with what is certain of them: see `search`.

    Returns:
        ``(points, ranked)``: the points filled up, and what was found among them. Of queries with
        NaN or infinity nothing is certain.
    """
    every = filled(points, frame, num_neighbors=num_neighbors)
    copies = most_copied(every.rows, every.exists, every.projections, number=num_neighbors + 1)

    def finish(found, inputs):
        query, leave_out = inputs
        # By index, so that the first ones are kept of those that tie.
        none = len(every.rows) - 1
        indices = jnp.sort(jnp.where(found.estimates < NONE, found.indices, none), axis=1)
        copied = jnp.broadcast_to(copies.indices[:1], (len(query), 1))
        differences = to_rows(every.rows, jnp.concatenate([indices, copied], axis=1), query)
        return rank(
            indices,
            differences,
            jnp.max(found.estimates, axis=1),
            query,
            leave_out,
            copies,
            frame,
            num_neighbors=num_neighbors,
        )

    ranked = shortlists(
        queries,
        every._replace(exists=others(every, copies)),
        frame,
        num_neighbors=num_neighbors,
        block_size=block_size,
        method=method,
        finish=finish,
        beside=exclude,
    )
    return every, ranked


def some_coordinates(points: jax.Array) -> jax.Array:
    """Points (N, D), or (N, 1) zeros where D is 0."""
    return points if points.shape[1] else jnp.zeros((len(points), 1), points.dtype)


def _second_pass(state, unproven, *, queries, points, exclude, frame, num_neighbors, chunk):
    """``(indices, distances)`` with the rows that are not proven replaced."""
    line = on_a_line(points)

    def settle_rows(rows, guesses):
        query = queries[rows]
        found = candidates_by_differences(
            query, guesses, exclude[rows], line, frame, num_neighbors=num_neighbors
        )
        indices = jnp.sort(present(found, len(points.rows) - 1), axis=1)
        differences = to_rows(points.rows, indices, query)
        settled = settle(
            indices, differences, found.squares[:, -1], guesses, num_neighbors=num_neighbors
        )
        return (settled.indices, settled.distances), settled.unproven

    along = projections_of(queries, frame)
    return settle_all(state, unproven, along, settle_rows, chunk=chunk)


def check_options(num_neighbors: int, block_size: int, method: str) -> tuple[int, int]:
    """``(num_neighbors, block_size)`` as Python's own; ValueError on options that mean nothing."""
    if method not in ("exact", "approximate"):
        raise ValueError(f"method must be 'exact' or 'approximate', got {method!r}")
    return (
        _whole_number("num_neighbors", num_neighbors),
        _whole_number("block_size", block_size),
    )


def check_array(name: str, value: Any, *kinds: type) -> None:
    """Raises ValueError on what is no array (lists are none), or of none of the kinds of dtype."""
    if not isinstance(value, jax.Array | np.ndarray):
        raise ValueError(f"{name} must be an array, got {type(value).__name__}")
    if not any(jnp.issubdtype(value.dtype, kind) for kind in kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} must be {names}, got {value.dtype}")


def check_exclude(exclude: Any, num_queries: int) -> None:
    """Raises ValueError on what are not integers (Q,)."""
    if (
        not isinstance(exclude, jax.Array | np.ndarray)
        or exclude.shape != (num_queries,)
        or not jnp.issubdtype(exclude.dtype, jnp.integer)
    ):
        what = (
            f"{exclude.shape} {exclude.dtype}"
            if isinstance(exclude, jax.Array | np.ndarray)
            else type(exclude).__name__
        )
        raise ValueError(f"exclude must be an array of {(num_queries,)} integers, got {what}")


def _whole_number(name: str, value: Any) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def _check(queries, points, exclude):
    """Raises ValueError on misuse."""
    for name, array in (("queries", queries), ("points", points)):
        check_array(name, array, jnp.floating)
        if array.ndim != 2:
            raise ValueError(f"{name} must be (number, D), got shape {array.shape}")
    if queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"queries and points must agree in D, got {queries.shape} and {points.shape}"
        )
    if exclude is not None:
        check_exclude(exclude, queries.shape[0])
