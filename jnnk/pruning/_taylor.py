"""First-order Taylor scores: what the loss would change by without a kernel or a channel.

Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance Estimation for Neural Network Pruning"
(CVPR 2019, arXiv 1906.10771), equation 8 for a group of weights: the square of the sum of gradient
times weight, which is the derivative by a gate of 1 on the group's output, squared; averaged over
batches.

Take the loss of the network as it answers, with BatchNorm's running statistics: where BatchNorm
normalises by the batch, no scaling of a filter changes the loss, and the sum over its weights is 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk.network import Network
from jnnk.network._names import PyTree, leaf_path, leaves_by_path, named_leaves
from jnnk.pruning._conv_leaves import conv_leaves, find_path, path_in


def taylor_scores(
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    batches: PyTree,
    *,
    network: Network | None = None,
) -> dict[str, Float[Array, "_Cin _Cout"]]:
    """Taylor scores of every conv kernel: its summed gradient times weight, squared.

    Args:
        loss: ``loss(params, batch)``, a scalar, differentiable.
        params: pytree of parameters.
        batches: pytree whose leaves have a leading axis B: B batches, of each of which one gradient
            is taken, one after the other.
        network: as `jnnk.network.read` reads it; without it kernels are told as by
            `jnnk.pruning.make_masks`.

    Returns:
        Path of a conv kernel -> float32 ``(Cin, Cout)``, the mean over the batches; the
        ``criterion`` of `jnnk.pruning.make_masks`.
    """

    def of_kernels(products: dict[str, Array]) -> dict[str, Array]:
        return {path: conv.kernels(products[path]).sum((0, 1)) for path, conv in convs.items()}

    convs = conv_leaves(params, network=network)

    return _mean_squares(loss, params, batches, of_kernels)


def taylor_channel_scores(
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    batches: PyTree,
    *,
    network: Network | None = None,
) -> dict[str, Float[Array, " _Cout"]]:
    """Taylor scores of every filter: the squared derivative by a gate on its channel.

    The gate stands behind the BatchNorm that follows the conv, where ``network`` tells one (the
    paper's choice): its scale and shift are the weights summed over. Else they are those of the
    filter and its bias.

    Args:
        loss: as in `taylor_scores`.
        params: as in `taylor_scores`.
        batches: as in `taylor_scores`.
        network: as in `taylor_scores`; without it no BatchNorm is known.

    Returns:
        Path of a conv kernel -> float32 ``(Cout,)``, the mean over the batches; the ``criterion``
        of `jnnk.pruning.channel_masks`, or of `jnnk.pruning.make_masks` with
        ``whole_filters``.
    """
    convs = conv_leaves(params, network=network)
    gates = {path: _gate(path, params, network) for path in convs}

    def of_channels(products: dict[str, Array]) -> dict[str, Array]:
        sums: dict[str, Array] = {}
        for path, conv in convs.items():
            gate = gates[path]
            found = [_over_others(products[name], axis) for name, axis in gate.vectors]
            if gate.has_kernel:
                found.insert(0, conv.kernels(products[path]).sum((0, 1, 2)))
            sums[path] = jnp.asarray(sum(found))
        return sums

    return _mean_squares(loss, params, batches, of_channels)


class _Gate(NamedTuple):
    """The weights that scale with a channel's output where its gate stands."""

    has_kernel: bool  # the filter's, where no norm is behind it
    vectors: list[tuple[str, int]]  # names of leaves with a number for each channel, their axes


def _gate(path: str, params: PyTree, network: Network | None) -> _Gate:
    """The gate behind the convolution whose kernel lies at a path."""
    leaves = leaves_by_path(params)
    if network is None:
        bias = f"{path.removesuffix('kernel')}bias"
        return _Gate(True, [(bias, 0)] if bias in map(leaf_path, leaves) else [])
    conv = next(each for each in network.convs if leaf_path(path_in(leaves, each.path)) == path)
    found = [
        (leaf_path(place), leaf.axis, leaf.role)
        for leaf in conv.channel_leaves
        if leaf.role != "statistic" and (place := find_path(leaves, leaf.path)) is not None
    ]
    scales = [place for place, (_, _, role) in enumerate(found) if role == "scale"]
    return _Gate(
        not scales, [(name, axis) for name, axis, _ in found[scales[-1] if scales else 0 :]]
    )


def _over_others(product: Array, axis: int) -> Array:
    """The sums for each index of an axis."""
    return product.sum([each for each in range(product.ndim) if each != axis])


def _mean_squares(
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    batches: PyTree,
    sums: Callable[[dict[str, Array]], dict[str, Array]],
) -> dict[str, Array]:
    """The mean over batches of the squares of what ``sums`` makes of gradient times weight."""

    def product(weight: Array, gradient: Array) -> Array:
        return weight.astype(jnp.float32) * gradient.astype(jnp.float32)

    def squares(batch: PyTree) -> dict[str, Array]:
        products = jax.tree.map(product, params, jax.grad(loss)(params, batch))
        return jax.tree.map(jnp.square, sums(named_leaves(products)))

    def over_batches(each: Array) -> Array:
        return each.mean(0)

    return jax.tree.map(over_batches, typed_jax.lax_map(squares, batches))
