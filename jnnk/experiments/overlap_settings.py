"""What ``jnnk reproduce overlap`` measures, and what its three studies share."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jnnk.data import Dataset, epoch_order
from jnnk.experiments.runner import measure_layers
from jnnk.runs.settings import OverlapConfig
from jnnk.runs.study_records import StudyLayer


class Settings(NamedTuple):
    """What is measured; two folders with the same settings hold the same numbers."""

    neighbors: int = 25  # candidates K where channels are measured, Gaussian similarity
    images: int = 2000  # training images on which the channels of the public networks are measured
    # their layers are averaged over windows down to at most this many positions a side
    side: int = 8
    label_neighbors: int = 50  # candidates where labels are interpolated, cosine similarity
    label_queries: int = 10_000  # training images left out one by one there
    # the last layer is pooled (max) to this many positions a side for it, which is what the
    # networks' dense layer reads
    label_side: int = 4
    classes: tuple[str, str] = ("airplane", "ship")  # told apart by the networks trained here
    # training images of those; the first many measure the channels
    sizes: tuple[int, ...] = (1000, 3000, 10_000)
    dropouts: tuple[float, ...] = (0.0, 0.2)  # rates
    weight_decays: tuple[float, ...] = (0.0, 1.0)  # of AdamW, decoupled
    # trainings of every combination of size, rate and decay, each with a seed of its own: few seeds
    # shared by all would make clusters of networks with the same start
    repeats: int = 4
    steps: int = 1200  # of every training
    batch_size: int = 50  # images per step
    learning_rate: float = 1e-3  # peak rate, falling to 0 by a cosine

    @property
    def overlap_config(self) -> OverlapConfig:
        """How a layer is measured."""
        return OverlapConfig(images=self.images, neighbors=self.neighbors)


def study_layers(
    predict: Callable, variables: dict, dataset: Dataset, settings: Settings
) -> tuple[StudyLayer, ...]:
    """All measures of all layers on a fixed choice of training images, in the network's order."""
    rows = np.sort(epoch_order(len(dataset.train_images), seed=0, epoch=0)[: settings.images])
    chosen = dataset._replace(
        train_images=dataset.train_images[rows], train_labels=dataset.train_labels[rows]
    )
    options = {"pooling": "mean", "size": settings.side}
    found = measure_layers(predict, variables, chosen, settings.overlap_config, **options)
    return tuple(
        StudyLayer(depth=depth, layer=layer, measures=measures)
        for depth, (layer, measures) in enumerate(found.items())
    )
