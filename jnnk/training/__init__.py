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
from jnnk.training._step import (
    OPTIMIZERS,
    Batch,
    Metrics,
    Model,
    TrainState,
    init_state,
    l1_penalty,
    make_evaluate,
    make_optimizer,
    make_predict,
    make_train_step,
    start_state,
)

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
