"""Channel-wise NNK graphs over a mesh of devices: channels over one axis, queries over the other.

The same functions as on one device, each on its share; what differs is how a query meets all points
(all gathered, or passed round a ring) and that no number is taken from one device's share alone.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.blocks import map_blocks
from jnnk._core.precision import working_dtype
from jnnk.graphs._channels import flat_channels
from jnnk.graphs._graph import NNKGraph, pad_candidates
from jnnk.graphs._neighbors import check_array, check_options
from jnnk.graphs._qp.chunks import in_chunks, queries_of_device
from jnnk.graphs._search.passes import search
from jnnk.graphs._search.ring import Ring
from jnnk.graphs._search.shortlists import shortlist_length
from jnnk.graphs._similarity import DEFAULT, Similarity, check_similarity
from jnnk.graphs._weights import (
    Candidates,
    Vectors,
    all_coincide,
    needs_all_distances,
    resolved,
    vectors_of,
    weigh,
)
from jnnk.parallel._mesh import AXES

# Vectors of the candidates of the queries of one trip of the ring, in floats.
_TRIP_FLOATS = 2**22


@typed_jax.jit(
    static_argnames=(
        "mesh", "num_neighbors", "similarity", "max_steps", "block_size", "method", "ring"
    )
)  # fmt: skip
def sharded_nnk_graph(
    activations: Float[ArrayLike, "N *D C"],
    *,
    mesh: Mesh,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    tol: float | jax.Array = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
    ring: bool = False,
) -> NNKGraph:
    """NNK graphs of all channels of a layer on many devices, as of `channelwise_nnk_graph` on one.

    A mesh of c x d devices gives each one C / c channels, one after the other, and of each channel
    N / d queries; both are padded where they do not divide (points of NaN are nobody's neighbour)
    and cut again. On CPUs the queries are rounded up to whole chunks of the solver (192, fewer from
    K = 29 on). So every operation has the shape that it has on one device, or rounds alike in its
    own, and where the compiler makes the same of it, as it did in all that was tried, the graph is
    the same to the bit, even where problems have several solutions. On accelerators, whose chunks
    are longer, queries are shared evenly, and rounding may choose another of several solutions.

    With ``ring=False`` each device receives all points of a channel and holds them, which is faster
    where it fits. With ``ring=True`` it holds the ``N / d`` points that are its own and as many
    that pass by. The points go round three times for each trip of queries (whole chunks of the
    solver, at least ``block_size``): to choose candidates, to rank and to weigh them; and twice
    more for each trip of queries whose neighbours the first pass does not prove
    (`nearest_neighbors`). No array of N x N elements exists either way. The page on meshes gives
    the bytes.

    Works under jit and differentiation, and in many processes if all call it with the same mesh.

    Args:
        activations: (N, H, W, C), or (N, D, C) already flattened; floating; any size may be
            0. On one process any array; on several a global `jax.Array` over the devices of the
            mesh, or the same NumPy array in all of them. Best placed already: N over ``"data"``,
            C over ``"channel"``.
        mesh: with an axis ``"channel"``, an axis ``"data"`` or both, of type Auto, as from
            `parse_mesh`. An axis that is not there counts as 1.
        num_neighbors: K, candidates of each image; more than N - 1 cost nothing.
        similarity: see `jnnk.graphs.nnk_graph`. The median bandwidth needs the distances of all
            queries, N K numbers that are gathered too; a ring over several devices has none.
        tol: see `jnnk.graphs.solve_nnk`.
        max_steps: see `jnnk.graphs.solve_nnk`.
        block_size: see `jnnk.graphs.nnk_graph`.
        method: see `jnnk.graphs.nearest_neighbors`.
        ring: whether points travel instead of being gathered; no difference where the axis
            ``"data"`` is 1.

    Returns:
        An `NNKGraph` whose fields have a leading axis C, sharded over the mesh where C and N
        divide. On several processes gather it with
        ``jax.experimental.multihost_utils.process_allgather(graph, tiled=True)``.

    Raises:
        ValueError: on wrong shapes or options.
        TypeError: if ``mesh`` is no mesh.
    """
    check_similarity(similarity)
    check_array("activations", activations, jnp.floating)
    points = jnp.asarray(flat_channels(activations))
    wanted, block_size = check_options(num_neighbors, block_size, method)
    sizes = _axis_sizes(mesh)
    data, channel = (name if sizes[name] > 1 else None for name in AXES)
    ring_axis = data if ring else None
    if ring_axis is not None and needs_all_distances(similarity):
        raise ValueError(
            "similarity: expected one that needs no distances of all queries, as the median "
            "bandwidth does, since a ring never has them; use ring=False or another similarity"
        )
    num_points, dim, num_channels = points.shape
    num_neighbors = max(1, min(wanted, num_points - 1))
    options = _Options(similarity, num_neighbors, block_size, method, tol, max_steps, num_points)
    if ring_axis is not None:
        one_channel = functools.partial(
            _ring_graph,
            options,
            Ring(ring_axis, mesh.axis_names),
            trip_size=_trip_size(dim, num_neighbors=num_neighbors, block_size=block_size),
        )
    else:
        one_channel = functools.partial(_gathered_graph, options, axis=data)

    def graphs_of(own: jax.Array) -> NNKGraph:
        return typed_jax.lax_map(one_channel, jnp.moveaxis(own, -1, 0))

    graphs = jax.shard_map(
        graphs_of,
        mesh=mesh,
        in_specs=PartitionSpec(data, None, channel),
        out_specs=PartitionSpec(channel, data),
        check_vma=False,  # the loops of the solver start from constants, the same everywhere
    )
    share = queries_of_device(num_points, sizes["data"], num_neighbors=num_neighbors)
    # At least one of each, which is cut off again.
    missing = (
        (0, max(1, share) * sizes["data"] - num_points),
        (0, 0),
        (0, -max(1, num_channels) % sizes["channel"] + (num_channels == 0)),
    )
    if any(number for _, number in missing):
        points = jnp.pad(points, missing, constant_values=jnp.nan)

    def without_padding(field: jax.Array) -> jax.Array:
        return field[:num_channels, :num_points]

    graph: NNKGraph = jax.tree.map(without_padding, graphs(points))
    return pad_candidates(graph, num_neighbors=wanted)


class _Options(NamedTuple):
    """The options of the graph of one channel, see `sharded_nnk_graph`."""

    similarity: Similarity
    num_neighbors: int
    block_size: int
    method: str
    tol: float | jax.Array
    max_steps: int
    num_points: int  # N; what the devices hold beyond is padding


def _gathered_graph(options: _Options, points: jax.Array, *, axis: str | None) -> NNKGraph:
    """The graph (S, K) of this device's share of one channel's points, against all, gathered.

    Args:
        options: of the graph.
        points: (S, D), this device's share.
        axis: of the mesh along which the points are shared; None where this device has all.
    """
    points = points.astype(working_dtype(points.dtype))
    numbers = jnp.arange(len(points), dtype=jnp.int32)
    if axis is not None:
        numbers += jax.lax.axis_index(axis) * len(points)
        # Gathered first, so that all that follows is of one device's shapes and rounds alike.
        points = typed_jax.all_gather(points, axis, tiled=True)[: options.num_points]
    every = vectors_of(points, options.similarity)
    dead = all_coincide(every.embedded)
    own = every
    if axis is not None:

        def own_rows(rows: jax.Array) -> jax.Array:
            return rows.at[numbers].get(mode="fill", fill_value=jnp.nan)

        own: Vectors = jax.tree.map(own_rows, every)
    indices, distances, *_ = search(
        own.embedded,
        every.embedded,
        numbers,
        num_neighbors=options.num_neighbors,
        block_size=options.block_size,
        method=options.method,
    )
    return weigh(
        Candidates(indices, distances.distances),
        own,
        points=every,
        dead=dead,
        similarity=_resolved(options.similarity, indices, distances.distances, axis=axis),
        tol=options.tol,
        max_steps=options.max_steps,
        num_points=options.num_points,
    )


def _resolved(
    similarity: Similarity, indices: jax.Array, distances: jax.Array, *, axis: str | None
) -> Similarity:
    """The similarity, with what it needs from the distances of all devices' queries."""
    if axis is None or not needs_all_distances(similarity):
        return resolved(similarity, distances, indices >= 0)
    gather = functools.partial(typed_jax.all_gather, axis_name=axis, tiled=True)
    return resolved(similarity, gather(distances), gather(indices >= 0))


def _ring_graph(options: _Options, ring: Ring, points: jax.Array, *, trip_size: int) -> NNKGraph:
    """The graph (S, K) of this device's share of one channel's points, against all, by a ring.

    Args:
        options: of the graph.
        ring: the devices that share the points.
        points: (S, D), this device's share; NaN for padding.
        trip_size: queries whose candidates are collected at once.
    """
    points = points.astype(working_dtype(points.dtype))
    share = len(points)
    numbers = jnp.arange(share, dtype=jnp.int32)
    numbers += jax.lax.axis_index(ring.axis) * share
    own = vectors_of(points, options.similarity)
    dead = all_coincide(own.embedded, axis_name=ring.axis)
    indices, distances, *_ = search(
        own.embedded,
        own.embedded,
        numbers,
        num_neighbors=options.num_neighbors,
        block_size=options.block_size,
        method=options.method,
        ring=ring,
        trip_size=trip_size,
    )

    def trip(inputs: tuple[jax.Array, jax.Array, Vectors]) -> NNKGraph:
        indices, distances, queries = inputs
        candidates = Candidates(indices, distances, ring.rows(indices, own, share=share))
        return weigh(
            candidates,
            queries,
            points=None,
            dead=dead,
            similarity=options.similarity,
            tol=options.tol,
            max_steps=options.max_steps,
            num_points=options.num_points,
        )

    return map_blocks(trip, (indices, distances.distances, own), block_size=trip_size)


def _trip_size(dim: int, *, num_neighbors: int, block_size: int) -> int:
    """Queries of one trip of the ring: whole chunks of the solver, at least a block."""
    floats_of_query = shortlist_length(num_neighbors) * max(1, dim)
    return in_chunks(max(block_size, _TRIP_FLOATS // floats_of_query), num_neighbors=num_neighbors)


def _axis_sizes(mesh: Mesh) -> dict[str, int]:
    """The size of each of `AXES` in the mesh, 1 where it is not there."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}")
    if not set(AXES) & set(mesh.axis_names):
        raise ValueError(f"mesh: expected an axis data or channel, got {mesh.axis_names}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"mesh: expected axes of type Auto, got {mesh.axis_types}")
    return {name: mesh.shape.get(name, 1) for name in AXES}
