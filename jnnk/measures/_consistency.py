"""What the channels' neighbourhoods say about the aggregate's, and what they do not.

With one Gaussian bandwidth s for all, squared distances add over channels and so similarities
multiply: ``G = prod_c G_c``. For image i and two candidates j, k alone, NNK keeps both exactly
when ``G_jk < g_j / g_k < 1 / G_jk`` (kernel ratio interval, arXiv 1910.09383); k is eliminated by
j when ``g_k <= G_jk g_j``, which in distances is ``d_ik^2 >= d_ij^2 + d_jk^2``, or

``(x_k - x_i) . (x_j - x_i) >= |x_j - x_i|^2``,

whatever the bandwidth. Both sides add over channels, hence two statements without exception:
a pair kept in every channel is kept in the aggregate, and a candidate that one and the same other
eliminates in every channel is eliminated by it in the aggregate. Neither follows for whole
neighbourhoods, nor for different eliminators; how often they hold there is measured.
"""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jnnk._core import typed_jax
from jnnk._core.arrays import ArrayLike
from jnnk._core.precision import contract
from jnnk._core.whole_numbers import whole_number
from jnnk.graphs import NNKGraph
from jnnk.measures._neighborhoods import Neighborhoods, check_channels, strengths_of


class AggregateConsistency(NamedTuple):
    """How often the channels' neighbourhoods agree with the whole layer's, case by case.

    Shares are NaN where their base is empty.

    "Every channel" means every channel that says something: where the images in question all
    coincide (dead channels, maps that are zero for all of them) a channel takes no side.

    Attributes:
        num_pairs: pairs of candidates of one image, over all images.
        kept: share of pairs that the aggregate keeps.
        kept_by_channel: share of pairs that a channel keeps, averaged over channels.
        kept_everywhere: share of pairs kept in every channel.
        kept_violations: pairs among those which the aggregate does not keep, by more than
            the tolerance. Zero by the first statement.
        eliminated_everywhere: share of pairs one and the same side of which is eliminated in
            every channel.
        eliminated_violations: those which the aggregate keeps, by more than the
            tolerance. Zero by the second statement.
        scattered: share of candidates eliminated in every channel, but by no common other.
        scattered_eliminated: share of those which some other eliminates in the aggregate.
        neighbors_everywhere: share of candidates that are NNK neighbours in every channel.
        neighbors_everywhere_kept: share of those that are neighbours in the aggregate.
        neighbors_nowhere: share of candidates that are NNK neighbours in no channel.
        neighbors_nowhere_dropped: share of those that are no neighbours in the aggregate.
        union_share: share of the aggregate's neighbours found in the union of the channels'.
    """

    num_pairs: Int[Array, ""]
    kept: Float[Array, ""]
    kept_by_channel: Float[Array, ""]
    kept_everywhere: Float[Array, ""]
    kept_violations: Int[Array, ""]
    eliminated_everywhere: Float[Array, ""]
    eliminated_violations: Int[Array, ""]
    scattered: Float[Array, ""]
    scattered_eliminated: Float[Array, ""]
    neighbors_everywhere: Float[Array, ""]
    neighbors_everywhere_kept: Float[Array, ""]
    neighbors_nowhere: Float[Array, ""]
    neighbors_nowhere_dropped: Float[Array, ""]
    union_share: Float[Array, ""]


@typed_jax.jit(static_argnames=("tol", "block_size"))
def aggregate_consistency(
    activations: Float[ArrayLike, "N ... C"],
    channels: NNKGraph,
    aggregate: NNKGraph,
    *,
    tol: float = 1e-5,
    block_size: int = 16,
) -> AggregateConsistency:
    """How often the channels' neighbourhoods decide those of the whole layer.

    Pairs and candidates are those of the aggregate's graph. Memory is
    ``block_size * C * K * (K + D)`` floats beside the input.

    Args:
        activations: (N, H, W, C), or (N, D, C).
        channels: their channel-wise graph with Gaussian similarity, weights (C, N, K').
        aggregate: the graph of the flattened layer, (N, D C), weights (N, K).
        tol: by how much a statement must fail to count, relative to
            ``|x_j - x_i|^2 + |x_k - x_i|^2``; float32 rounding stays below 1e-5.
        block_size: images at once.

    Returns:
        See `AggregateConsistency`.

    Raises:
        ValueError: if the three do not belong together by their shapes.
    """
    check_channels(channels)
    block_size = whole_number("block_size", block_size)
    num_images, num_channels = activations.shape[0], activations.shape[-1]
    if channels.weights.shape[:2] != (num_channels, num_images):
        raise ValueError(
            f"channels: expected a graph of {num_channels} channels and {num_images} images, "
            f"got weights of shape {channels.weights.shape}"
        )
    if aggregate.weights.ndim != 2 or aggregate.weights.shape[0] != num_images:
        raise ValueError(
            f"aggregate: expected a graph of {num_images} images without channels, "
            f"got weights of shape {aggregate.weights.shape}"
        )
    points = jnp.moveaxis(jnp.asarray(activations).reshape(num_images, -1, num_channels), 2, 1)
    points = points.astype(jnp.promote_types(points.dtype, jnp.float32))

    def image(i: Array) -> dict[str, Array]:
        candidates = aggregate.indices[i]
        return {
            **_pair_counts(points[candidates] - points[i][None], candidates >= 0, tol),
            **_neighbor_counts(
                candidates,
                aggregate.weights[i] > 0,
                channels.indices[:, i],
                channels.weights[:, i] > 0,
                (channels.distances[:, i] > 0) & (channels.indices[:, i] >= 0),
            ),
        }

    images = jnp.arange(num_images)
    counts = cast(dict[str, Array], jax.lax.map(image, images, batch_size=block_size))
    by_channel = counts.pop("kept_by_channel").mean(where=counts["pairs"] > 0)
    total = {name: count.sum(0) for name, count in counts.items()}

    def share(part: str, whole: str) -> Array:
        number = total[whole].astype(points.dtype)
        return jnp.where(number > 0, total[part].astype(points.dtype) / number, jnp.nan)

    return AggregateConsistency(
        num_pairs=total["pairs"],
        kept=share("kept", "pairs"),
        kept_by_channel=by_channel,
        kept_everywhere=share("kept_everywhere", "pairs"),
        kept_violations=total["kept_violations"],
        eliminated_everywhere=share("eliminated_everywhere", "pairs"),
        eliminated_violations=total["eliminated_violations"],
        scattered=share("scattered", "candidates"),
        scattered_eliminated=share("scattered_eliminated", "scattered"),
        neighbors_everywhere=share("everywhere", "candidates"),
        neighbors_everywhere_kept=share("everywhere_kept", "everywhere"),
        neighbors_nowhere=share("nowhere", "candidates"),
        neighbors_nowhere_dropped=share("nowhere_dropped", "nowhere"),
        union_share=share("found", "neighbors"),
    )


def _pair_counts(differences: Array, valid: Array, tol: float) -> dict[str, Array]:
    """Counts over the pairs of one image's candidates from ``x_j - x_i``, (K, C, D)."""
    products = _products("jcd,kcd->cjk", differences)
    squares = typed_jax.diagonals(products)
    # [c, j, k]: j eliminates k. The diagonal, which would be a tie, is no pair.
    distinct = valid[:, None] & valid[None, :] & ~jnp.eye(len(valid), dtype=bool)
    eliminates = (products >= squares[:, :, None]) & distinct[None]
    informative = ((squares[:, :, None] > 0) | (squares[:, None, :] > 0)) & distinct[None]
    kept = ~eliminates & ~jnp.swapaxes(eliminates, 1, 2) & informative

    # The aggregate anew from whole vectors, not as the sum that the statements are proved by.
    whole = differences.reshape(differences.shape[0], -1)
    margins = _products("jd,kd->jk", whole)
    sizes = cast(Array, jnp.diagonal(margins))
    margins = margins - sizes[:, None]
    excess = tol * (sizes[:, None] + sizes[None, :])
    eliminates_whole = (margins >= 0) & distinct
    kept_whole = ~eliminates_whole & ~eliminates_whole.T & distinct

    some_informative = informative.any(0)
    kept_everywhere = (kept | ~informative).all(0) & some_informative
    common = (eliminates | ~informative).all(
        0
    ) & some_informative  # [j, k]: j eliminates k in every channel
    # A channel that sees candidate k and all its rivals in one place takes no side about k.
    uninformative = ~informative.any(1)
    by_any = (eliminates.any(1) | uninformative).all(0) & some_informative.any(0)
    scattered = by_any & ~common.any(0)
    dropped = margins > excess
    either = eliminates_whole.any(0)

    def pairs(mask: Array) -> Array:
        return jnp.triu(mask).sum(dtype=jnp.int32)

    num_informative = jnp.triu(informative).sum((1, 2))
    shares = jnp.triu(kept).sum((1, 2)) / jnp.maximum(num_informative, 1)
    return {
        "pairs": pairs(distinct),
        "candidates": valid.sum(dtype=jnp.int32),
        "kept": pairs(kept_whole),
        "kept_by_channel": jnp.mean(shares.astype(differences.dtype), where=num_informative > 0),
        "kept_everywhere": pairs(kept_everywhere),
        "kept_violations": pairs(kept_everywhere & (dropped | dropped.T)),
        "eliminated_everywhere": pairs(common | common.T),
        "eliminated_violations": (common & (margins < -excess)).sum(dtype=jnp.int32),
        "scattered": scattered.sum(dtype=jnp.int32),
        "scattered_eliminated": (scattered & either).sum(dtype=jnp.int32),
    }


def _neighbor_counts(
    candidates: Array,
    neighbors: Array,
    channel_indices: Array,
    channel_support: Array,
    channel_apart: Array,
) -> dict[str, Array]:
    """Counts over one image's candidates (K,) from the channels' supports, (C, K').

    A channel where none of its candidates lies apart from the image takes no side.
    """
    strengths = channel_support.astype(jnp.int8)[..., None]

    def in_channel(indices: Array, strengths: Array) -> Array:
        identifiers, channel = candidates[:, None], Neighborhoods(indices[:, None], strengths)
        return strengths_of(identifiers, channel)[:, 0] > 0

    found = jax.vmap(in_channel)(channel_indices, strengths)
    valid = candidates >= 0
    informative = channel_support.any(1) & channel_apart.any(1)
    found &= informative[:, None]
    everywhere = (found | ~informative[:, None]).all(0) & informative.any() & valid
    somewhere = found.any(0) & valid
    nowhere = ~somewhere & valid & informative.any()
    masks = {
        "everywhere": everywhere,
        "everywhere_kept": everywhere & neighbors,
        "nowhere": nowhere,
        "nowhere_dropped": nowhere & ~neighbors,
        "neighbors": neighbors,
        "found": neighbors & somewhere,
    }
    return {name: mask.sum(dtype=jnp.int32) for name, mask in masks.items()}


def _products(formula: str, differences: Array) -> Array:
    return contract(formula, differences, differences)
