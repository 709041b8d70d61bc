"""Whole training steps beside PyTorch's, and what the overlap penalty adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from accelerator import data, torch_peers
from accelerator.measure import (
    compiled_together,
    free_torch,
    on_torch,
    side_by_side,
    to_torch,
    torch,
)
from jnnk import models
from jnnk.data import Normalization
from jnnk.penalties import make_regularizer
from jnnk.training import Batch, make_optimizer, make_train_step, start_state

# (network, side of the images, batch, classes)
FULL = (("resnet20", 32, 128, 10), ("resnet56", 32, 128, 10), ("resnet50", 224, 64, 1000))
SMALL = (("resnet8", 16, 16, 10),)
# Steps between two looks at the clock: a card is given the next step while it computes.
_STEPS = 10


def run(report):
    cases = SMALL if report.small else FULL
    setups = {case: _setups(*case, report.small) for case in cases}
    programs = compiled_together(
        {
            (case, contender): (step, jax.eval_shape(start), batch)
            for case, (batch, contenders) in setups.items()
            for contender, (step, start) in contenders.items()
        }
    )
    for case, (batch, contenders) in setups.items():
        name = "{}, {} pixels, batch {}".format(*case)
        if not report.has_time(name, 15):
            break
        steps = {
            contender: _repeated(programs[case, contender], start, batch)
            for contender, (_, start) in contenders.items()
        }
        if torch is not None:
            steps |= _torch_steps(case, batch)
        seconds = side_by_side(steps, repeats=5, at_most=4)
        for contender, each in seconds.items():
            milliseconds = 1e3 * each / _STEPS
            remarks = f"{milliseconds:.3g} ms a step"
            if contender.endswith("penalty"):
                plain = seconds["jnnk, float32"]
                remarks += f", of which the penalty {100 * (1 - plain / each):.0f} %"
            program = programs.get((case, contender))
            report.row(
                name,
                contender,
                case[2] * _STEPS / each,
                "images/s",
                compiled=program and program.seconds,
                remarks=remarks,
                milliseconds=milliseconds,
            )
        del steps
        free_torch()


def _setups(name, side, size, classes, small):
    """The batch, and for each contender its step and how its first state is made."""
    batch = Batch(*data.images_of(size, side, num_classes=classes))
    optimizer = make_optimizer("sgd", learning_rate=1e-3, num_steps=10_000, weight_decay=1e-4)
    variables = data.variables_of(models.create(name, num_classes=classes))
    start = functools.partial(
        jax.jit(functools.partial(start_state, optimizer)), jax.random.key(0), variables
    )

    def step(dtype, regularizer=None):
        model = models.create(name, num_classes=classes, dtype=dtype)
        figures = Normalization(np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32))
        return make_train_step(model, optimizer, normalization=figures, regularizer=regularizer)

    contenders = {"jnnk, float32": (step(jnp.float32), start)}
    if not small:
        contenders["jnnk, bfloat16"] = (step(jnp.bfloat16), start)
    if name in ("resnet20", "resnet8"):
        last = f"layer3_{(int(name[6:]) - 2) // 6 - 1}/conv2"
        penalty = make_regularizer("overlap", strength=0.1, layers=(last,))
        contenders["jnnk, float32, overlap penalty"] = (step(jnp.float32, penalty), start)
    return batch, contenders


def _repeated(step, start, batch):
    state = start()

    def call():
        nonlocal state
        for _ in range(_STEPS):
            state, metrics = step(state, batch)
        return metrics

    return call


def _torch_steps(case, batch):
    name, _, _, classes = case
    images = to_torch(jnp.moveaxis(batch.images, -1, 1))
    labels = to_torch(batch.labels).long()
    steps = {}
    for contender, half in (("eager, float32", False), ("eager, bfloat16 by autocast", True)):
        step = torch_peers.stepper(name, images, labels, num_classes=classes, half=half)
        steps[f"PyTorch {contender}"] = on_torch(
            lambda step=step: [step() for _ in range(_STEPS)] and None
        )
    return steps
