"""How a network is trained, as a value, and the programs that do it, made once for all starts."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jnnk.data import Dataset
from jnnk.jobs.fit import Evaluate, fit
from jnnk.jobs.networks import network_of
from jnnk.penalties import Regularizer
from jnnk.pruning import apply_masks
from jnnk.runs.records import FineTuned
from jnnk.training import (
    Model,
    TrainState,
    freezable,
    make_evaluate,
    make_optimizer,
    make_train_step,
    start_state,
)

# Mirroring teaches nothing where left and right differ in meaning.
_NEVER_MIRRORED = ("digits", "mnist", "emnist", "kmnist", "svhn_cropped")


class Recipe(NamedTuple):
    """How a network is trained, whatever it starts from."""

    epochs: int  # passes over the training images
    batch_size: int  # images per step
    learning_rate: float  # peak rate, falling to 0 by a cosine
    optimizer: str = "sgd"  # or "adam"
    weight_decay: float = 0.0  # on kernels only
    augment: bool = True  # pad-crop-flip, without the flip where a mirrored image is another class
    l1: float = 0.0  # strength of the L1 penalty on conv kernels
    freezes: bool = False  # whether single weights can stop training, see `freezable`

    @classmethod
    def of(cls, settings: Any, **changes: Any) -> "Recipe":
        """The recipe whose fields are the settings of the same names, but for the changes."""
        found = {name: getattr(settings, name) for name in cls._fields if hasattr(settings, name)}
        return cls(**(found | changes))

    def make_optimizer(self, dataset: Dataset) -> optax.GradientTransformationExtraArgs:
        """The optimiser whose schedule ends with the last epoch over a data set."""
        optimizer = make_optimizer(
            self.optimizer,
            learning_rate=self.learning_rate,
            num_steps=self.epochs * (len(dataset.train_images) // self.batch_size),
            weight_decay=self.weight_decay,
        )
        return freezable(optimizer) if self.freezes else optimizer


class Trainer:
    """Trains a network by a recipe from any start; a new start or mask never recompiles.

    Args:
        model: the network.
        dataset: trained and evaluated on.
        recipe: how it is trained.
        evaluate: by default with batches of the usual size.
        regularizer: added to the loss, see :func:`jnnk.training.make_train_step`.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        recipe: Recipe,
        *,
        evaluate: Evaluate | None = None,
        regularizer: Regularizer | None = None,
    ):
        self._dataset, self._recipe = dataset, recipe
        self._evaluate = evaluate or make_evaluate(model, normalization=dataset.normalization)
        self.optimizer = recipe.make_optimizer(dataset)
        self._step = make_train_step(
            model,
            self.optimizer,
            normalization=dataset.normalization,
            augment=recipe.augment,
            flip=dataset.name not in _NEVER_MIRRORED,
            l1=recipe.l1,
            network=network_of(model, dataset) if recipe.l1 else None,
            regularizer=regularizer,
        )

    def fit(self, start: Callable[[], TrainState], **options: Any) -> TrainState:
        """The state after the last epoch; ``options`` are those of :func:`jnnk.jobs.fit.fit`."""
        epochs, batch_size = self._recipe.epochs, self._recipe.batch_size
        return fit(
            start, self._step, self._dataset, evaluate=self._evaluate, epochs=epochs,
            batch_size=batch_size, **options,
        )  # fmt: skip

    def finetune(
        self, variables: dict, masks: Any, key: jax.Array, **options: Any
    ) -> tuple[TrainState, FineTuned]:
        """The state after a training under a mask, and how good the network was on the way.

        ``options`` are those of :func:`jnnk.jobs.fit.fit`.
        """
        before, at_once = self.accuracy(variables), self.accuracy(masked(variables, masks))
        start = partial(start_state, self.optimizer, key, variables, masks=masks)
        state = self.fit(start, **options)
        return state, FineTuned(
            accuracy_before=before,
            accuracy_pruned=at_once,
            accuracy_finetuned=self.accuracy(state.variables),
            finetune_epochs=self._recipe.epochs,
            revived_weights=_count_revived(state.params, state.masks),
        )

    def accuracy(self, variables: dict) -> float:
        """The accuracy on all test images."""
        return self._evaluate(variables, self._dataset.test_images, self._dataset.test_labels)


def masked(variables: dict, masks: Any) -> dict:
    """A network's variables whose pruned weights are zero."""
    return {**variables, "params": apply_masks(variables["params"], masks)}


def _count_revived(params: Any, masks: Any) -> int:
    """How many pruned weights are not exactly zero; 0 unless something is wrong."""
    params, masks = jax.tree.map(np.asarray, (params, masks))  # they may lie on different devices
    revived = jax.tree.map(lambda leaf, mask: ((leaf != 0) & (mask == 0)).sum(), params, masks)
    return int(sum(jax.tree.leaves(revived)))
