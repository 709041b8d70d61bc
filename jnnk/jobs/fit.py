"""The epoch loop that training and fine-tuning share: resumable, deterministic, atomic."""

import math
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, NoReturn

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
)
from jnnk.runs.folder import write_json_lines
from jnnk.runs.progress import Progress
from jnnk.runs.records import DivergedEpoch, Divergence, EpochMetrics
from jnnk.runs.signals import Stopped
from jnnk.runs.tensorboard import scalars
from jnnk.runs.unfinished import discard_unfinished, load_unfinished, save_unfinished
from jnnk.training import Batch, Metrics, TrainState


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
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    dataset: Dataset,
    *,
    evaluate: Callable[[dict, np.ndarray, np.ndarray], float],
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
    num_batches = len(dataset.train_images) // batch_size
    mesh = mesh or one_device()
    own = local_rows(batch_size, mesh)
    metrics_path = folder / "metrics.jsonl"
    with Checkpoints(folder / "checkpoints", keep=keep) as checkpoints:
        done = checkpoints.latest()
        if done is None:
            state = replicate(start(), mesh)
            checkpoints.save(0, state)
            done = 0
        else:
            state = replicate(checkpoints.restore(done, jax.eval_shape(start)), mesh)
        # A line may have been written for an epoch whose checkpoint was not.
        lines = [line for line in read_metrics(folder) if line.epoch <= done]
        if divergence(lines) is not None:  # an earlier version trained on
            refuse_diverged(folder)
        records = [line for line in lines if isinstance(line, EpochMetrics)]

        def stop(epoch: int, step: int | None, what: str) -> NoReturn:
            last = DivergedEpoch(epoch=epoch, diverged_at_step=step)
            write_json_lines(metrics_path, [*records, last])
            raise Diverged(
                f"{description or folder}: {what} at {Divergence(epoch, step)}; try {remedy} "
                f"({folder} keeps what was before: epoch {epoch - 1})"
            )

        with (
            scalars(folder / "tensorboard", after=done) as show,
            progress.task(description, total=epochs * num_batches, unit="batch") as task,
        ):
            task.advance(done * num_batches)
            for epoch in range(done + 1, epochs + 1):
                if records and records[-1].stopped:
                    break
                started = time.perf_counter()
                order = epoch_order(len(dataset.train_images), seed=seed, epoch=epoch)
                before = (epoch - 1) * num_batches
                state, history, seconds = load_unfinished(
                    folder, state, steps_before=before, num_batches=num_batches
                )
                state, started, resumed = replicate(state, mesh), started - seconds, len(history)
                try:
                    task.advance(resumed)
                    for index in range(resumed, num_batches):
                        rows = order[index * batch_size : (index + 1) * batch_size][own]
                        # NumPy's arrays until the mesh has them.
                        batch: Any = (dataset.train_images[rows], dataset.train_labels[rows])
                        state, metrics = step(state, shard_batch(Batch(*batch), mesh))
                        history.append(metrics)
                        shown = {}
                        if index % _SHOW_EVERY == 0:
                            rate = (index + 1) * batch_size / (time.perf_counter() - started)
                            loss, accuracy = float(metrics.loss), float(metrics.accuracy)
                            if not math.isfinite(loss):
                                break
                            shown = {"loss": loss, "accuracy": accuracy, "images/s": rate}
                        task.advance(1, **shown)
                except Stopped:
                    if len(history) > resumed:
                        seconds = time.perf_counter() - started
                        save_unfinished(
                            folder, state, history, seconds=seconds, steps_before=before
                        )
                    raise
                history = jax.device_get(history)
                if broken := first_not_finite([metrics.loss for metrics in history]):
                    stop(epoch, broken[0], f"the loss is {broken[1]}")
                mean = Metrics(*np.asarray(history).mean(axis=0, dtype=np.float64).tolist())
                seconds = time.perf_counter() - started
                test_accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
                if math.isnan(test_accuracy):
                    stop(epoch, None, "the network's answers to test images are not finite")
                measured: dict[str, Any] = mean._asdict()
                if monitor is not None:
                    state, watched = monitor(state, records)
                    measured |= watched._asdict()
                measured |= {"test_accuracy": test_accuracy, "seconds": seconds}
                records.append(EpochMetrics(epoch=epoch, **measured))
                write_json_lines(metrics_path, records)
                checkpoints.save(epoch, state)
                discard_unfinished(folder)
                show(records[-1])
    return state


def _check_fit(num_images: int, *, epochs: int, batch_size: int) -> None:
    if epochs < 0:
        raise ValueError(f"epochs: expected 0 or more, got {epochs}")
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size: expected 1 to {num_images}, the number of training images, "
            f"got {batch_size}"
        )
