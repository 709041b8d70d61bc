"""The channel-wise graphs by which inner channels are chosen."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jnnk.activations import capture
from jnnk.data import Dataset
from jnnk.graphs import NNKGraph, channelwise_nnk_graph
from jnnk.pruning import inner_convs
from jnnk.training import Model, make_predict

_SIZE = 8  # maps are averaged to at most so many positions a side


def inner_graphs(
    model: Model, variables: dict[str, Any], dataset: Dataset, *, images: int, neighbors: int
) -> dict[str, NNKGraph]:
    """A channel-wise NNK graph of every inner conv's activations on the first training images.

    Maps are averaged to at most 8 x 8, and there are at most as many neighbours as other images.

    Returns:
        Path of the conv -> graph with a leading axis C.
    """
    layers = [info.conv for info in inner_convs(model.convs())]
    predict = make_predict(model, normalization=dataset.normalization)
    chosen = np.asarray(dataset.train_images[:images])
    neighbors = min(neighbors, len(chosen) - 1)
    return {
        captured.name: channelwise_nnk_graph(jnp.asarray(captured.values), num_neighbors=neighbors)
        for captured in capture(
            predict, variables, chosen, layers=layers, pooling="mean", size=_SIZE
        )
    }
