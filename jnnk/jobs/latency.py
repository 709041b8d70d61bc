"""What a pruning gains in time: the whole network against the compacted one."""

from typing import Any

import jax

from jnnk._core.timing import latencies
from jnnk.data import Dataset
from jnnk.pruning import compact
from jnnk.runs.records import Latency
from jnnk.training import Model, make_predict


def latency_gain(
    model: Model, variables: dict, masks: Any, dataset: Dataset, *, batch_size: int = 64
) -> Latency | None:
    """Times logits of a batch of test images, before and after compaction, in one run.

    The weights that the mask prunes are zero. Kernels alone save no time: only filters without a
    kernel left go.

    Returns:
        Both latencies; None where the network does not tell its wiring.
    """
    if not hasattr(model, "convs"):
        return None
    images = jax.device_put(dataset.test_images[:batch_size])
    networks = {"whole": (model, variables), "compacted": compact(model, variables, masks)}

    def caller(network: Model, variables: dict):
        predict = make_predict(network, normalization=dataset.normalization)
        logits = jax.jit(lambda variables, images: predict(variables, images)[0])
        variables = jax.device_put(variables)
        return lambda: logits(variables, images)

    times = latencies({name: caller(*network) for name, network in networks.items()})
    return Latency(device=jax.devices()[0].device_kind, images=len(images), **times)
