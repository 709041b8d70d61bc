"""What every criterion says of a network's kernels: the analyses of arXiv 2102.02804 as numbers.

Layers are named by the path of their convolution (``"layer1_0/conv1"``). 1x1 convolutions are left
out, as `jnnk.pruning.make_masks` leaves them whole. Results are host data, NumPy and Python.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Real, Shaped

from jnnk._core.arrays import ArrayLike
from jnnk.network import Network
from jnnk.network._names import PyTree, layer_of_leaf, named_leaves
from jnnk.pruning._conv_leaves import conv_leaves
from jnnk.pruning._kept import above_threshold
from jnnk.pruning._scores import layer_scores

Magnitudes = dict[str, dict[str, Float[np.ndarray, "_Cin _Cout"]]]
"""Criterion -> layer -> scores in the unit of the weights."""


class EigenvalueKinds(NamedTuple):
    """How many kernels of a layer have only real eigenvalues.

    Attributes:
        layer: path of the convolution.
        size: n of its n x n kernels.
        kernels: kernels in all.
        real: those whose eigenvalues are all real; the others have at least one complex pair.
        kept: kernels that the mask keeps.
        kept_real: those of them whose eigenvalues are all real.
    """

    layer: str
    size: int
    kernels: int
    real: int
    kept: int
    kept_real: int


class Intersection(NamedTuple):
    """Kernels pruned by exactly these criteria and no other: a bar of an UpSet chart.

    Attributes:
        criteria: names.
        kernels: number of kernels.
    """

    criteria: tuple[str, ...]
    kernels: int


def pruned_kernels(
    params: PyTree, *, network: Network | None = None
) -> dict[str, Float[jax.Array, "_h _w _Cin _Cout"]]:
    """The kernels of the convolutions that are not 1x1, by layer."""
    leaves = named_leaves(params)
    return {
        layer_of_leaf(path): conv.kernels(leaves[path])
        for path, conv in conv_leaves(params, network=network).items()
        if conv.kernel_shape[:2] != (1, 1)
    }


def pruned_by_layer(
    params: PyTree, masks: PyTree, *, network: Network | None = None
) -> dict[str, Bool[np.ndarray, "_Cin _Cout"]]:
    """Which kernels of the convolutions that are not 1x1 a mask prunes, by layer."""
    leaves = named_leaves(masks)
    return {
        layer_of_leaf(path): ~np.asarray(conv.keep(leaves[path]))
        for path, conv in conv_leaves(params, network=network).items()
        if conv.kernel_shape[:2] != (1, 1)
    }


def network_magnitudes(
    params: PyTree, criteria: Sequence[str], *, network: Network | None = None
) -> Magnitudes:
    """Scores of every kernel of a network by several criteria, in the unit of the weights.

    Args:
        params: pytree of parameters.
        criteria: keys of ``CRITERIA`` but ``"random"``, which says nothing of a network.
        network: as `jnnk.network.read` reads it; without it kernels are told as by
            `jnnk.pruning.make_masks`.

    Returns:
        Scores by criterion and layer; ``det`` and ``det_gram`` raised to the power that brings them
        to the unit of the weights, so that one threshold means the same to all.
    """
    kernels = pruned_kernels(params, network=network)
    return {
        criterion: jax.tree.map(np.asarray, layer_scores(kernels, criterion))
        for criterion in criteria
    }


def pruned_share(
    scores: Float[ArrayLike, "..."], thresholds: Sequence[float | np.floating]
) -> Float[np.ndarray, " T"]:
    """Share of kernels that a significance threshold prunes.

    Args:
        scores: magnitudes.
        thresholds: T thresholds in the unit of the weights.

    Returns:
        (T,), shares pruned in [0, 1].
    """
    flat = np.asarray(scores).reshape(1, -1)
    return 1 - np.mean(above_threshold(flat, np.asarray(thresholds, flat.dtype)[:, None]), axis=1)


def whole_network(
    layers: Mapping[str, Shaped[np.ndarray, "..."]],
) -> Shaped[np.ndarray, " kernels"]:
    """The scores of all layers, or whether they are pruned, in one vector."""
    return np.concatenate([scores.ravel() for scores in layers.values()])


def eigenvalue_kinds(
    params: PyTree, masks: PyTree, *, network: Network | None = None
) -> list[EigenvalueKinds]:
    """Real against complex eigenvalues, layer by layer, before and after pruning.

    Args:
        params: pytree of parameters, not yet masked.
        masks: a mask of them.
        network: as in `network_magnitudes`.

    Returns:
        A record for every layer of square kernels.
    """
    pruned = pruned_by_layer(params, masks, network=network)
    records: list[EigenvalueKinds] = []
    for layer, kernel in pruned_kernels(params, network=network).items():
        if kernel.shape[0] != kernel.shape[1]:
            continue
        is_real = has_real_eigenvalues(kernel)
        kept = ~pruned[layer]
        records.append(
            EigenvalueKinds(
                layer=layer,
                size=kernel.shape[0],
                kernels=is_real.size,
                real=int(is_real.sum()),
                kept=int(kept.sum()),
                kept_real=int((is_real & kept).sum()),
            )
        )
    return records


def has_real_eigenvalues(
    kernel: Real[ArrayLike, "n n Cin Cout"],
) -> Bool[np.ndarray, "Cin Cout"]:
    """Which square kernels have only real eigenvalues, by LAPACK in float64.

    Args:
        kernel: ``(n, n, Cin, Cout)``; entries that are not finite count as 0.
    """
    matrices = np.moveaxis(np.nan_to_num(np.asarray(kernel, np.float64)), (0, 1), (2, 3))
    return np.all(np.linalg.eigvals(matrices).imag == 0, axis=-1)


def chance_of_real(size: int) -> float:
    """Probability that an n x n matrix of independent normal entries has only real eigenvalues.

    ``2 ** (-n (n - 1) / 4)``: Edelman, "The probability that a random real Gaussian matrix has k
    real eigenvalues" (1997). A trained kernel is compared with it.

    Args:
        size: n.

    Returns:
        The probability; 0.354 for 3 x 3.
    """
    return 2.0 ** (-size * (size - 1) / 4)


def agreement(pruned: Mapping[str, Bool[np.ndarray, " kernels"]]) -> list[Intersection]:
    """Which kernels which criteria agree on: the exclusive intersections of the pruned sets.

    Args:
        pruned: criterion -> ``(kernels,)``, true where it prunes a kernel.

    Returns:
        The intersections that are not empty, largest first; kernels that no criterion prunes are
        left out. The numbers add up to the kernels that any criterion prunes.
    """
    names = list(pruned)
    if not names:
        return []
    sets = np.stack([np.asarray(pruned[name], bool).ravel() for name in names], axis=1)
    members, counts = np.unique(sets[sets.any(axis=1)], axis=0, return_counts=True)
    found = [
        Intersection(tuple(np.asarray(names)[row].tolist()), int(count))
        for row, count in zip(members, counts, strict=True)
    ]
    return sorted(found, key=lambda each: (-each.kernels, each.criteria))


def pruning_score(
    accuracy: float, accuracy_before: float, params: int, params_before: int
) -> float:
    """The paper's score of a pruned network: ``(acc / acc0) * (1 - params / params0)``.

    Args:
        accuracy: of the pruned network.
        accuracy_before: of the whole one, above 0.
        params: parameters left.
        params_before: parameters of the whole network.

    Returns:
        0 for a whole network and one always wrong, near 1 for one that loses nothing but weights.
    """
    return accuracy / accuracy_before * (1 - params / params_before)
