"""Training of any network (`jnnk.network.as_model`): step, augmentation, freezing."""

from jnnk.training._augment import pad_crop_flip
from jnnk.training._early_stopping import (
    Patience,
    freezable,
    freeze,
    start_freezing,
    start_patience,
    trainable_masks,
    update_patience,
)
from jnnk.training._evaluate import make_evaluate, make_predict
from jnnk.training._optimizer import OPTIMIZERS, make_optimizer
from jnnk.training._state import Model, TrainState, init_state, start_state
from jnnk.training._step import Batch, Metrics, l1_penalty, make_train_step

__all__ = [
    "OPTIMIZERS",
    "Batch",
    "Metrics",
    "Model",
    "Patience",
    "TrainState",
    "freezable",
    "freeze",
    "init_state",
    "l1_penalty",
    "make_evaluate",
    "make_optimizer",
    "make_predict",
    "make_train_step",
    "pad_crop_flip",
    "start_freezing",
    "start_patience",
    "start_state",
    "trainable_masks",
    "update_patience",
]
