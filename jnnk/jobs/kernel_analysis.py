"""The record of what the criteria say of a network's kernels; see :mod:`jnnk.pruning`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jnnk import pruning
from jnnk.network import Network
from jnnk.runs.records import (
    BelowThresholds,
    KernelAnalysis,
    KernelHistory,
    PrunedLayer,
    ScoreQuantiles,
)

THRESHOLDS = tuple(np.geomspace(1e-6, 1, 61).tolist())


def analyse(
    params: Any,
    masks_by_criterion: Mapping[str, Any],
    masks: Any,
    *,
    network: Network | None = None,
) -> KernelAnalysis:
    """Everything the paper looks at in one network, whose parameters are not yet masked.

    The masks by criterion are comparable: all of one share or threshold. The network is pruned by
    ``masks``. ``random`` is left out: it says nothing of the network. ``network`` tells which
    parameters are kernels.
    """
    masks_by_criterion = {k: v for k, v in masks_by_criterion.items() if k != "random"}
    magnitudes = pruning.network_magnitudes(params, tuple(masks_by_criterion), network=network)
    of_layers = [
        (criterion, layer, scores)
        for criterion, layers in magnitudes.items()
        for layer, scores in layers.items()
    ]
    below = [
        (criterion, layer, pruning.pruned_share(scores, THRESHOLDS))
        for criterion, layers in magnitudes.items()
        for layer, scores in {None: pruning.whole_network(layers), **layers}.items()
    ]
    pruned = {
        name: pruning.pruned_by_layer(params, found, network=network)
        for name, found in masks_by_criterion.items()
    }
    together = {name: pruning.whole_network(found) for name, found in pruned.items()}
    return KernelAnalysis(
        scores=tuple(
            ScoreQuantiles(
                layer=layer,
                criterion=criterion,
                kernels=scores.size,
                quantiles=tuple(np.quantile(scores, [0, 0.25, 0.5, 0.75, 1]).tolist()),
            )
            for criterion, layer, scores in of_layers
        ),
        thresholds=THRESHOLDS,
        by_threshold=tuple(
            BelowThresholds(criterion=criterion, layer=layer, shares=tuple(shares.tolist()))
            for criterion, layer, shares in below
        ),
        by_layer=tuple(
            PrunedLayer(
                layer=layer,
                kernels=kernel.shape[2] * kernel.shape[3],
                shares={criterion: float(each[layer].mean()) for criterion, each in pruned.items()},
            )
            for layer, kernel in pruning.pruned_kernels(params, network=network).items()
        ),
        agreement=tuple(pruning.agreement(together)),
        eigenvalues=tuple(pruning.eigenvalue_kinds(params, masks, network=network)),
    )


def history(
    params_by_epoch: Mapping[int, Any],
    criteria: Sequence[str],
    *,
    network: Network | None = None,
    threshold: float | None = None,
) -> tuple[KernelHistory, ...]:
    """How kernels weaken in training: a record for each epoch, whose parameters come ascending.

    The threshold is that of every criterion; by default it is each criterion's median over the
    kernels of the last epoch. ``random`` is left out.
    """
    criteria = tuple(name for name in criteria if name != "random")
    flat = {}
    for epoch, params in params_by_epoch.items():
        magnitudes = pruning.network_magnitudes(params, criteria, network=network)
        flat[epoch] = {name: pruning.whole_network(layers) for name, layers in magnitudes.items()}
    last = flat[max(flat)]
    thresholds = {
        name: np.median(scores) if threshold is None else threshold for name, scores in last.items()
    }
    return tuple(
        KernelHistory(
            epoch=epoch,
            real=_real_share(params_by_epoch[epoch], network),
            shares={
                name: float(pruning.pruned_share(scores[name], [thresholds[name]])[0])
                for name in criteria
            },
        )
        for epoch, scores in flat.items()
    )


def _real_share(params: Any, network: Network | None) -> float:
    kernels = pruning.pruned_kernels(params, network=network).values()
    real = [pruning.has_real_eigenvalues(k).ravel() for k in kernels if k.shape[0] == k.shape[1]]
    return float(np.concatenate(real).mean()) if real else 0.0
