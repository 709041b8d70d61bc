"""The epoch loop that training and fine-tuning share: resumable, deterministic, atomic."""

import math
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jnnk.data import Dataset, epoch_order
from jnnk.parallel import local_rows, one_device, replicate, shard_batch
from jnnk.runs.checkpoints import Checkpoints
from jnnk.runs.divergence import (
    Diverged,
    divergence,
    first_not_finite,
    read_metrics,
    refuse_diverged,
    write_metrics,
)
from jnnk.runs.progress import Progress, Task
from jnnk.runs.records import DivergedEpoch, Divergence, EpochMetrics
from jnnk.runs.signals import Stopped
from jnnk.runs.tensorboard import scalars
from jnnk.runs.unfinished import discard_unfinished, load_unfinished, save_unfinished
from jnnk.training import Batch, Metrics, TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""From :func:`jnnk.training.make_train_step`."""
Evaluate = Callable[[dict, np.ndarray, np.ndarray], float]
"""``(variables, images, labels) -> accuracy``, from :func:`jnnk.training.make_evaluate`."""


class Watched(NamedTuple):
    """What a monitor notes of an epoch."""

    # what is watched (a channel's layer, or a name) to its errors, as `EpochMetrics.errors`
    errors: dict[str, tuple[float | None, ...]]
    stopped_channels: dict[str, int]  # the same to how many of them have stopped
    stopped: bool  # whether all have, which ends the training
    # whether a monitor that is only watched would end it; None for others
    would_stop: bool | None = None


Monitor = Callable[[TrainState, Sequence[EpochMetrics]], tuple[TrainState, Watched]]
"""``(state, the epochs before) -> (state, what it notes)``; ``stopped`` ends the training. What a
monitor needs to remember it finds in the epochs before.
"""

_SHOW_EVERY = 5  # steps; reading a metric waits for the device


def fit(
    start: Callable[[], TrainState],
    step: Step,
    dataset: Dataset,
    *,
    evaluate: Evaluate,
    epochs: int,
    batch_size: int,
    seed: int,
    folder: pathlib.Path,
    keep: Collection[int] = (),
    progress: Progress,
    description: str,
    remedy: str = "a smaller learning rate",
    monitor: Monitor | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains to the end of ``epochs``, going on from the last checkpoint in ``folder``.

    Order and randomness depend on (seed, epoch, step) alone and a checkpoint holds the whole
    state, so a run that was killed and started again ends in the same bits as one that was not;
    one that is stopped (`jnnk.runs.signals.Stopped`) keeps its unfinished epoch, too.
    The ragged last batch of an epoch is left out; the next epoch's order brings its images back.

    A fresh run begins with the state that ``start`` makes. The folder gets ``checkpoints/``, of
    which those of the epochs in ``keep`` stay, ``metrics.jsonl``, and ``tensorboard/`` where
    ``tensorboardX`` is installed. The monitor looks at the state after every epoch; it may change
    it, and end the training. The devices of a mesh share the batches over its axis ``"data"``; by
    default the first one works alone. Of several processes each reads its own rows.

    Returns:
        The state after the last epoch, on all devices of the mesh.

    Raises:
        InputError: if the mesh has no axis ``"data"`` or it does not divide the batch.
        Diverged: at a loss that is not finite, seen within a few steps, or where the network's
            answers are not; the checkpoints before stay. It tells the remedy.
    """
    _check_fit(len(dataset.train_images), epochs=epochs, batch_size=batch_size)
    mesh = mesh or one_device()
    own = local_rows(batch_size, mesh)
    trainer = _EpochTrainer(step, dataset, seed, folder, mesh, batch_size, own)
    with Checkpoints(folder / "checkpoints", keep=keep) as checkpoints:
        done, state = _newest_state(checkpoints, start, mesh)
        records = _records_until(done, folder)
        total = epochs * trainer.num_batches
        with (
            scalars(folder / "tensorboard", after=done) as show,
            progress.task(description, total=total, unit="batch") as task,
        ):
            task.advance(done * trainer.num_batches)
            for epoch in range(done + 1, epochs + 1):
                if records and records[-1].stopped:
                    break
                try:
                    state, mean, seconds = trainer.train(state, epoch, task)
                    test_accuracy = _test_accuracy(evaluate, state, dataset)
                except _NotFiniteError as found:
                    last = DivergedEpoch(epoch=epoch, diverged_at_step=found.step)
                    write_metrics(folder, [*records, last])
                    raise Diverged(
                        f"{description or folder}: {found} at {Divergence(epoch, found.step)}; try "
                        f"{remedy} ({folder} keeps what was before: epoch {epoch - 1})"
                    ) from None
                measured = {**mean._asdict(), "test_accuracy": test_accuracy, "seconds": seconds}
                if monitor is not None:
                    state, watched = monitor(state, records)
                    measured |= watched._asdict()
                records.append(EpochMetrics(epoch=epoch, **measured))
                write_metrics(folder, records)
                checkpoints.save(epoch, state)
                discard_unfinished(folder)
                show(records[-1])
    return state


class _NotFiniteError(Exception):
    """A loss, or answers, that are not finite; ``step`` counts from 1 in the epoch."""

    def __init__(self, what: str, step: int | None):
        super().__init__(what)
        self.step = step


@dataclass(frozen=True)
class _EpochTrainer:
    """What all epochs of a training have in common."""

    step: Step
    dataset: Dataset
    seed: int
    folder: pathlib.Path
    mesh: Mesh
    batch_size: int
    own: np.ndarray  # this process' rows of a batch

    @property
    def num_batches(self) -> int:
        """Those of an epoch, without a ragged last one."""
        return len(self.dataset.train_images) // self.batch_size

    def train(self, state: TrainState, epoch: int, task: Task) -> tuple[TrainState, Metrics, float]:
        """The state after an epoch, the mean of its steps' metrics, and its seconds.

        An epoch that was stopped goes on where it was; one that is stopped now is kept.
        """
        order = epoch_order(len(self.dataset.train_images), seed=self.seed, epoch=epoch)
        before, started = (epoch - 1) * self.num_batches, time.perf_counter()
        state, history, seconds = load_unfinished(
            self.folder, state, steps_before=before, num_batches=self.num_batches
        )
        state, started, resumed = replicate(state, self.mesh), started - seconds, len(history)
        try:
            task.advance(resumed)
            for index in range(resumed, self.num_batches):
                state, metrics = self.step(state, self._batch(order, index))
                history.append(metrics)
                shown = {}
                if index % _SHOW_EVERY == 0:
                    loss, accuracy = float(metrics.loss), float(metrics.accuracy)
                    if not math.isfinite(loss):
                        break
                    rate = (index + 1) * self.batch_size / (time.perf_counter() - started)
                    shown = {"loss": loss, "accuracy": accuracy, "images/s": rate}
                task.advance(1, **shown)
        except Stopped:
            if len(history) > resumed:
                seconds = time.perf_counter() - started
                save_unfinished(self.folder, state, history, seconds=seconds, steps_before=before)
            raise
        return state, _mean(jax.device_get(history)), time.perf_counter() - started

    def _batch(self, order: np.ndarray, index: int) -> Batch:
        """The images and labels of one step, on the mesh."""
        rows = order[index * self.batch_size : (index + 1) * self.batch_size][self.own]
        # NumPy's arrays until the mesh has them.
        batch: Any = (self.dataset.train_images[rows], self.dataset.train_labels[rows])
        return shard_batch(Batch(*batch), self.mesh)


def _newest_state(
    checkpoints: Checkpoints, start: Callable[[], TrainState], mesh: Mesh
) -> tuple[int, TrainState]:
    """The last epoch that has a checkpoint, and its state; 0 and the start, kept, without any."""
    done = checkpoints.latest()
    if done is not None:
        return done, replicate(checkpoints.restore(done, jax.eval_shape(start)), mesh)
    state = replicate(start(), mesh)
    checkpoints.save(0, state)
    return 0, state


def _records_until(done: int, folder: pathlib.Path) -> list[EpochMetrics]:
    """The lines of the epochs done; one more may have been written before its checkpoint."""
    lines = [line for line in read_metrics(folder) if line.epoch <= done]
    if divergence(lines) is not None:  # an earlier version trained on
        refuse_diverged(folder)
    return [line for line in lines if isinstance(line, EpochMetrics)]


def _mean(history: Sequence[Metrics]) -> Metrics:
    """The means over the steps of an epoch, whose losses must be finite."""
    if broken := first_not_finite([float(metrics.loss) for metrics in history]):
        raise _NotFiniteError(f"the loss is {broken[1]}", broken[0])
    return Metrics(*np.asarray(history).mean(axis=0, dtype=np.float64).tolist())


def _test_accuracy(evaluate: Evaluate, state: TrainState, dataset: Dataset) -> float:
    accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
    if math.isnan(accuracy):
        raise _NotFiniteError("the network's answers to test images are not finite", None)
    return accuracy


def _check_fit(num_images: int, *, epochs: int, batch_size: int) -> None:
    if epochs < 0:
        raise ValueError(f"epochs: expected 0 or more, got {epochs}")
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size: expected 1 to {num_images}, the number of training images, "
            f"got {batch_size}"
        )
