"""Labels beside a graph: that they are those of its points, and the labels of its neighbours."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.whole_numbers import to_int32
from jnnk.graphs import NNKGraph


def integer_labels(labels: ArrayLike) -> Array:
    """Labels (N,) as int32, -1 for those beyond its range.

    Raises:
        ValueError: unless they are one axis of integers.
    """
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels: expected one axis of integers, got shape {labels.shape} of {labels.dtype}"
        )
    return jnp.asarray(to_int32(labels, otherwise=-1))


def labels_of_points(graph: NNKGraph, labels: ArrayLike, *, own: bool = False) -> Array:
    """The labels as int32 (N,), checked to be those of the points of a graph.

    Args:
        graph: weights (..., Q, K).
        labels: (N,) integers.
        own: whether the graph must be one on the points themselves, N = Q.

    Raises:
        ValueError: if the labels are not integers, are not Q with ``own``, or are not N. The last
            can be seen where the graph is no argument of a transformation; there
            `labels_of_neighbors` tells it.
    """
    labels = integer_labels(labels)
    num_labels, num_queries = labels.shape[0], graph.weights.shape[-2]
    if own and num_labels != num_queries:
        raise ValueError(
            f"labels: expected the class of each of the {num_queries} images, got {num_labels}"
        )
    num_points = _num_points(graph)
    if num_points is not None and num_labels != num_points:
        raise ValueError(
            f"labels: expected one of each of the {num_points} points, got {num_labels}"
        )
    if _is_known(graph.indices) and _is_known(graph.weights):
        with jax.ensure_compile_time_eval():  # a transformation may close over the graph
            indices = to_int32(graph.indices, otherwise=np.iinfo(np.int32).max)
            largest = int(_largest_index(indices, graph.weights))
        if largest >= num_labels:
            raise ValueError(
                f"labels: expected one of each point, got {num_labels}, but a neighbour "
                f"has index {largest}"
            )
    return labels


def labels_of_neighbors(graph: NNKGraph, labels: Array) -> tuple[Array, Array]:
    """The label of every neighbour, and whether it has one.

    Args:
        graph: weights (..., Q, K).
        labels: int32 (N,).

    Returns:
        ``(labels, known)``, int32 and bool (..., Q, K): -1 for candidates that are no neighbours,
        which count as known, and for neighbours whose index is N or more, which are not. Nothing
        is known of a graph that has another number of points than N.
    """
    support = graph.weights > 0
    known = ~support | (graph.indices < labels.shape[0])
    if graph.num_points is not None:
        known &= (graph.num_points == labels.shape[0])[..., None]
    index = jnp.where(support, graph.indices, labels.shape[0])
    return labels.at[index].get(mode="fill", fill_value=-1), known


def _num_points(graph: NNKGraph) -> int | None:
    """N, where the graph has noted it and its values can be looked at."""
    if graph.num_points is None or not graph.num_points.size or not _is_known(graph.num_points):
        return None
    with jax.ensure_compile_time_eval():
        return int(graph.num_points.ravel()[0])


@typed_jax.jit
def _largest_index(indices: ArrayLike, weights: Array) -> Array:
    """The largest index of a neighbour, -1 without any."""
    return jnp.max(jnp.where(weights > 0, indices, -1), initial=-1)


def _is_known(array: Array) -> bool:
    """Whether its values can be looked at: no tracer, and all on this process."""
    if isinstance(array, Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable
