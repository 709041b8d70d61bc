"""What channel-wise graphs of a layer take: bytes by arithmetic, seconds from measured rates.

Bytes are those of the arrays that `jnnk.graphs.nnk_graph`, `jnnk.measures.channel_overlap` and
`jnnk.measures.label_vote` hold at their largest, in terms of the constants they themselves go
by. Nothing here measures anything.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jnnk.graphs._qp.chunks import gram_queries, queries_of_device
from jnnk.graphs._search.shortlists import shortlist_length
from jnnk.graphs._weights import LOCAL_QUERIES
from jnnk.measures._neighborhoods import FEW
from jnnk.measures._overlap import images_at_once
from jnnk.parallel._streams import STREAMS

_WORD = 4  # bytes of a float32 or int32
_QUERY_BLOCK = 256  # default of the graph's block_size
_RESAMPLES = 201  # those of the bootstrap, and the sample itself
_MATRICES = 6  # of all pairs of channels that the overlap holds, counts and sums


class GraphBytes(NamedTuple):
    """What one graph holds on a device beside its input and its answer, in bytes.

    Attributes:
        points: all points as they came, centred, and once more as columns of the product.
        distances: from a block of queries to all points, and the differences to their candidates.
        gram: the similarity matrices held at once.
        solver: its copy of them, and the differences that the next ones come from.
    """

    points: int
    distances: int
    gram: int
    solver: int

    @property
    def peak(self) -> int:
        """Distances and matrices follow each other, the points stay."""
        return self.points + max(self.distances, self.gram + self.solver)


class LayerPlan(NamedTuple):
    """Memory and time that the measures of one layer take.

    Attributes:
        name: the layer.
        shape: (H, W, C) of one image's activations.
        activations: bytes of its share of all images' activations on a device.
        channel: `GraphBytes` of one channel's graph.
        whole: `GraphBytes` of the graph over the layer's whole vectors.
        graphs: bytes of all graphs' answers, on one device.
        overlap: bytes of comparing them.
        votes: bytes of their votes for the labels.
        peak: bytes on a device at the largest moment.
        seconds: without compilation and without the network's answers.
    """

    name: str
    shape: tuple[int, int, int]
    activations: int
    channel: GraphBytes
    whole: GraphBytes
    graphs: int
    overlap: int
    votes: int
    peak: int
    seconds: float


class Rates(NamedTuple):
    """Times that the machine was measured to take.

    Attributes:
        query: seconds per query of one graph at this N and K, whatever the dimension D.
        query_dimension: and for every dimension on top.
        pair: seconds per image and pair of channels, for the overlap and its bootstrap.
        image: seconds per image in a pass through the network.
        network: seconds to compile a pass.
        layer: seconds to compile what measures a layer, once per shape.
    """

    query: float
    query_dimension: float
    pair: float
    image: float
    network: float
    layer: float


def graph_bytes(
    num_points: int, dim: int, *, num_neighbors: int, num_queries: int | None = None
) -> GraphBytes:
    """The bytes of one `jnnk.graphs.nnk_graph` in float32 with its default blocks.

    Args:
        num_points: N.
        dim: D.
        num_neighbors: K.
        num_queries: those of one device; by default all N.
    """
    num_queries = num_points if num_queries is None else num_queries
    block = min(_QUERY_BLOCK, num_queries)
    gram = min(num_queries, gram_queries(num_neighbors)) * num_neighbors**2
    candidates = block * min(num_points, shortlist_length(num_neighbors)) * dim
    return GraphBytes(
        points=3 * num_points * dim * _WORD,
        distances=(2 * block * num_points + candidates) * _WORD,
        gram=gram * _WORD,
        solver=(gram + min(LOCAL_QUERIES, num_queries) * num_neighbors * dim) * _WORD,
    )


def overlap_bytes(num_images: int, num_channels: int, *, num_neighbors: int) -> int:
    """The bytes of one `jnnk.measures.channel_overlap`.

    The interval of its mean takes no more, unless live channels have images without neighbours.

    Args:
        num_images: N.
        num_channels: C.
        num_neighbors: K.
    """
    filled = FEW.stop if num_neighbors in FEW else num_neighbors
    neighbors = 3 * num_channels * num_images * filled  # identifiers, strengths, in blocks
    samples = 2 * _RESAMPLES * num_images
    num_pairs = num_channels**2
    # Values, contributions, and what counts as numbers.
    values = 3 * num_pairs * images_at_once(max(num_pairs, 1))
    return (neighbors + samples + _MATRICES * num_pairs + values) * _WORD


def vote_bytes(num_images: int, num_classes: int, *, num_neighbors: int) -> int:
    """The bytes of one `jnnk.measures.label_vote`, whatever the number of channels.

    Args:
        num_images: N.
        num_classes: number of classes.
        num_neighbors: K.
    """
    sums = 2 * num_classes  # of all channels so far, and of the one in work
    neighbors = 3 * num_neighbors  # labels and weights, in the order of slots
    return (sums + neighbors) * num_images * _WORD


def plan_layer(
    name: str,
    shape: tuple[int, int, int],
    *,
    num_images: int,
    num_neighbors: int,
    num_classes: int,
    rates: Rates,
    shards: tuple[int, int] | None = None,
    speedup: float = 1.0,
) -> LayerPlan:
    """Memory and time that the graphs and measures of one layer take.

    Args:
        name: the layer.
        shape: (H, W, C).
        num_images: N.
        num_neighbors: K.
        num_classes: of the labels.
        rates: measured for these N and K.
        shards: number of devices along "data" and along "channel"; None for one device without a
            mesh, which has several graphs in flight.
        speedup: how much faster all devices are than what the rates were measured on.
    """
    height, width, num_channels = shape
    dim = height * width
    data, channel = shards or (1, 1)
    queries = queries_of_device(num_images, data, num_neighbors=num_neighbors)
    one = graph_bytes(num_images, dim, num_neighbors=num_neighbors, num_queries=queries)
    whole = graph_bytes(
        num_images, dim * num_channels, num_neighbors=num_neighbors, num_queries=queries
    )
    every = num_images * dim * num_channels * _WORD
    graphs = (num_channels + 1) * num_images * (3 * num_neighbors + 3) * _WORD
    comparison = overlap_bytes(num_images, num_channels, num_neighbors=num_neighbors)
    votes = vote_bytes(num_images, num_classes, num_neighbors=num_neighbors)
    if shards is None:  # channels in flight, beside them the whole layer's vectors
        activations = 2 * every
        building = activations + STREAMS * (one.peak + 2 * num_images * dim * _WORD) + whole.peak
    else:
        activations = every // data
        building = max(activations // channel + one.peak, activations + whole.peak)
    of_queries = num_channels * (rates.query + rates.query_dimension * dim)
    of_queries += rates.query + rates.query_dimension * dim * num_channels
    padded = queries * data
    seconds = padded * of_queries / speedup + num_images * num_channels**2 * rates.pair
    return LayerPlan(
        name=name,
        shape=shape,
        activations=activations,
        channel=one,
        whole=whole,
        graphs=graphs,
        overlap=comparison,
        votes=votes,
        peak=graphs + max(building, comparison, votes),
        seconds=seconds,
    )


def line_through(dims: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Seconds at D = 0 and for each dimension, neither negative, from two measurements.

    All that a query does with the dimension (the product, gathering candidates, their inner
    products) is linear in it, at fixed N and K.

    Args:
        dims: two dimensions; where they are equal the time is all taken as proportional to 1.
        seconds: of a query at each.
    """
    (low, high), (at_low, at_high) = dims, seconds
    slope = max(at_high - at_low, 0.0) / (high - low) if high > low else 0.0
    return max(at_low - slope * low, 0.0), slope
