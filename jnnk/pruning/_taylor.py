"""First-order Taylor scores: what the loss would change by without a kernel or a channel.

Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance Estimation for Neural Network Pruning"
(CVPR 2019, arXiv 1906.10771), equation 8 for a group of weights: the square of the sum of gradient
times weight, which is the derivative by a gate of 1 on the group's output, squared; averaged over
batches.

Take the loss of the network as it answers, with BatchNorm's running statistics: where BatchNorm
normalises by the batch, no scaling of a filter changes the loss, and the sum over its weights is 0.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jnnk._core import typed_jax
from jnnk.network import Network
from jnnk.network._names import PyTree, named_leaves
from jnnk.pruning._conv_leaves import conv_leaves


@runtime_checkable
class Conv(Protocol):
    """What `taylor_channel_scores` asks of a conv, as ``model.convs()`` tells it."""

    conv: str
    norm: str | None


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
    convs: Iterable[Conv] = (),
) -> dict[str, Float[Array, " _Cout"]]:
    """Taylor scores of every filter: the squared derivative by a gate on its channel.

    The gate stands behind the BatchNorm that follows the conv, where ``convs`` names one (the
    paper's choice): its scale and shift are the weights summed over. Else they are those of the
    filter and its bias.

    Args:
        loss: as in `taylor_scores`.
        params: as in `taylor_scores`.
        batches: as in `taylor_scores`.
        convs: the network's convs, ``model.convs()``.

    Returns:
        Path of a conv kernel -> float32 ``(Cout,)``, the mean over the batches; the ``criterion``
        of `jnnk.pruning.channel_masks`, or of `jnnk.pruning.make_masks` with
        ``whole_filters``.
    """
    norms = {f"{info.conv}/kernel": info.norm for info in convs}

    def of_channels(products: dict[str, Array]) -> dict[str, Array]:
        sums: dict[str, Array] = {}
        for path in conv_leaves(params):
            norm, layer = norms.get(path), path.removesuffix("kernel")
            if norm is not None:
                gated = (f"{norm}/scale", f"{norm}/bias")
            else:
                gated = (path, f"{layer}bias")
            found = [products[name] for name in gated if name in products]
            by_leaf = (each.sum(tuple(range(each.ndim - 1))) for each in found)
            sums[path] = jnp.asarray(sum(by_leaf))
        return sums

    return _mean_squares(loss, params, batches, of_channels)


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
