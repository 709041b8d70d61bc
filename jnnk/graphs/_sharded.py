"""Channel-wise NNK graphs over a mesh of devices: channels over one axis, queries over the other.

The same functions as on one device, each on its share; what differs is how a query meets all points
(all gathered, or passed round a ring) and that no number is taken from one device's share alone.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, PartitionSpec

from jnnk._core.blocks import map_blocks
from jnnk._core.precision import working_dtype
from jnnk.graphs._channels import flat_channels
from jnnk.graphs._graph import (
    NNKGraph,
    Vectors,
    all_coincide,
    embed,
    resolved,
    weigh,
    with_no_others,
)
from jnnk.graphs._neighbors import check_array, check_options
from jnnk.graphs._qp.chunks import in_chunks, queries_of_device
from jnnk.graphs._search.passes import search
from jnnk.graphs._search.ring import Ring
from jnnk.graphs._search.shortlists import shortlist_length
from jnnk.graphs._similarity import DEFAULT, Gaussian, RadialSimilarity, Similarity
from jnnk.parallel._mesh import AXES

# Vectors of the candidates of the queries of one trip of the ring, in floats.
_TRIP_FLOATS = 2**22


@functools.partial(
    jax.jit,
    static_argnames=(
        "mesh", "num_neighbors", "similarity", "max_steps", "block_size", "method", "ring"
    ),
)  # fmt: skip
def sharded_nnk_graph(
    activations: jax.Array,
    *,
    mesh: Mesh,
    num_neighbors: int,
    similarity: Similarity = DEFAULT,
    tol: float = 1e-5,
    max_steps: int = 500,
    block_size: int = 256,
    method: str = "exact",
    ring: bool = False,
) -> NNKGraph:
    """`jnnk.graphs.channelwise_nnk_graph` on many devices: the same graph.

    A mesh of c x d devices gives each one C / c channels, one after the other, and of each channel
    N / d queries, rounded up to whole chunks of the solver (192 queries, fewer from K = 29 on);
    both are padded where they do not divide (points of NaN are nobody's neighbour) and cut again.
    So every operation has the shape that it has on one device, or rounds alike in its own, and
    where the compiler makes the same of it, as it did on a CPU in all that was tried, the graph is
    the same to the bit, even where problems have several solutions. With W = 4 bytes, or 8 for
    float64, per channel:

    - ``ring=False``: each device receives all points, ``N D W`` bytes, once, and holds them,
      beside ``block_size N W`` bytes of distances. The faster way where that fits.
    - ``ring=True``: each device holds the ``N / d`` points that are its own and as many that pass
      by; the distances are ``block_size N W / d`` bytes. Its queries, in blocks of B, keep the
      numbers of the ``K + 8`` best candidates met so far, whose vectors are then collected: B is
      ``block_size``, or ``2**22 / ((K + 8) D)`` (16 MiB, of which there are a few copies) if that
      is more. Each block sends the points round three times, to choose, to rank and to weigh:
      ``N D W`` bytes received, ``3 N / (d B)`` times, against ``2 N D B`` multiplications and
      additions, and twice more for every B queries whose neighbours the first pass does not prove
      (`jnnk.graphs.nearest_neighbors`). For N D too
      large for one device: at N = 50,000, D = 64, K = 25, d = 8 the program needs 49 MiB beside
      its input and output, against 110 MiB for ``ring=False``.

    No array of N x N elements exists either way. Works under jit and differentiation, and in many
    processes if all call it with the same mesh.

    Args:
        activations: (N, H, W, C), or (N, D, C) already flattened; floating; any size may be
            0. On one process any array; on several a global `jax.Array` over the devices of the
            mesh, or the same NumPy array in all of them. Best placed already: N over ``"data"``,
            C over ``"channel"``.
        mesh: with an axis ``"channel"``, an axis ``"data"`` or both, of type Auto, as from
            `parse_mesh`. An axis that is not there counts as 1.
        num_neighbors: K, candidates of each image; more than N - 1 cost nothing.
        similarity: see `jnnk.graphs.nnk_graph`. The median bandwidth needs the distances of all
            queries, ``N K W`` bytes that are gathered too; a ring over several devices has none.
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
    """
    check_array("activations", activations, jnp.floating)
    points = flat_channels(activations)
    wanted, block_size = check_options(num_neighbors, block_size, method)
    sizes = _axis_sizes(mesh)
    is_ring = ring and sizes["data"] > 1
    if is_ring and _is_median(similarity):
        raise ValueError(
            "similarity: the median bandwidth needs the distances of all queries before the first "
            "is weighed, which a ring does not have; use ring=False or another bandwidth"
        )
    data, channel = (name if sizes[name] > 1 else None for name in AXES)
    num_points, _, num_channels = points.shape
    num_neighbors = max(1, min(wanted, num_points - 1))
    vectors = shortlist_length(num_neighbors) * max(1, points.shape[1])
    trip = in_chunks(max(block_size, _TRIP_FLOATS // vectors), num_neighbors=num_neighbors)
    one_channel = functools.partial(
        _channel_graph,
        axis=data,
        num_points=num_points,
        ring=Ring(data, mesh.axis_names) if is_ring else Ring(),
        similarity=similarity,
        find=functools.partial(
            search, num_neighbors=num_neighbors, block_size=block_size, method=method
        ),
        weigh=functools.partial(weigh, tol=tol, max_steps=max_steps),
        trip_size=trip,
    )
    graphs = jax.shard_map(
        lambda own: jax.lax.map(one_channel, jnp.moveaxis(own, -1, 0)),
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
    graph = jax.tree.map(lambda field: field[:num_channels, :num_points], graphs(points))
    return with_no_others(graph, num_neighbors=wanted)


def _channel_graph(
    points, *, axis, num_points, ring, similarity, find, weigh, trip_size
) -> NNKGraph:
    """The graph (S, K) of this device's share (S, D) of one channel's N points, against all.

    What the devices hold beyond ``num_points`` is padding. ``axis`` is None where this device has
    all points. ``find`` and ``weigh`` are `search` and `weigh` with their options.
    """
    points = points.astype(working_dtype(points.dtype))
    radial = isinstance(similarity, RadialSimilarity)
    share = points.shape[0]
    number = jnp.arange(share, dtype=jnp.int32)
    is_ring = ring.axis is not None
    if axis is not None:
        number += jax.lax.axis_index(axis) * share
        if not is_ring:
            # Gathered first, so that all that follows is of one device's shapes and rounds alike.
            points = jax.lax.all_gather(points, axis, tiled=True)[:num_points]
    embedded = embed(points, similarity)
    vectors = Vectors(embedded, None if radial else points)
    weigh = functools.partial(weigh, dead=all_coincide(embedded, axis_name=ring.axis))
    if is_ring:
        indices, distances, _ = find(embedded, embedded, number, ring=ring, trip_size=trip_size)

        def trip(inputs):
            indices, distances, queries = inputs
            return weigh(
                indices,
                distances,
                queries,
                rows=ring.rows(indices, vectors, share=share),
                candidates_of=lambda rows: rows,
                similarity=similarity,
            )

        inputs = indices, distances.distances, vectors
        return map_blocks(trip, inputs, block_size=trip_size)

    own = vectors
    if axis is not None:
        own = jax.tree.map(lambda rows: rows.at[number].get(mode="fill", fill_value=jnp.nan), own)
    indices, distances, _ = find(own.embedded, embedded, number)
    distances = distances.distances
    every = lambda part: part  # noqa: E731
    if axis is not None and _is_median(similarity):
        every = functools.partial(jax.lax.all_gather, axis_name=axis, tiled=True)
    return weigh(
        indices,
        distances,
        own,
        rows=indices,
        candidates_of=lambda index: jax.tree.map(lambda rows: rows[index], vectors),
        similarity=resolved(similarity, every(distances), every(indices >= 0)),
    )


def _axis_sizes(mesh: Mesh) -> dict[str, int]:
    """The size of each of `AXES` in the mesh, 1 where it is not there."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    if not set(AXES) & set(mesh.axis_names):
        raise ValueError(f"mesh must have an axis data or channel, got {mesh.axis_names}")
    if any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"mesh must have axes of type Auto, got {mesh.axis_types}")
    return {name: mesh.shape.get(name, 1) for name in AXES}


def _is_median(similarity: Similarity) -> bool:
    return isinstance(similarity, Gaussian) and similarity.bandwidth == "median"
