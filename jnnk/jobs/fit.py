"""The epoch loop that training and fine-tuning share: resumable, deterministic, atomic."""

import pathlib
import time
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jnnk.checkpoints import Checkpoints
from jnnk.data import Dataset, epoch_order
from jnnk.jobs.progress import Progress
from jnnk.jobs.tensorboard import scalars
from jnnk.jobs.unfinished import discard_unfinished, load_unfinished, save_unfinished
from jnnk.placement import local_rows, one_device, replicate, shard_batch
from jnnk.runs import read_json_lines, write_json_lines
from jnnk.signals import Stopped
from jnnk.training import Batch, Metrics, TrainState

# (state, records of the epochs before) -> (state, values for this epoch's record); a true value
# "stopped" ends the training. What it needs to remember it finds in those records.
Monitor = Callable[[TrainState, list[dict]], tuple[TrainState, dict[str, Any]]]

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
    monitor: Monitor | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """Trains to the end of ``epochs``, going on from the last checkpoint in ``folder``.

    Order and randomness depend on (seed, epoch, step) alone and a checkpoint holds the whole
    state, so a run that was killed and started again ends in the same bits as one that was not;
    one that is stopped (`jnnk.signals.Stopped`) keeps its unfinished epoch, too.
    The ragged last batch of an epoch is left out; the next epoch's order brings its images back.

    Args:
        start: makes the state where a fresh run starts.
        step: from :func:`jnnk.training.make_train_step`.
        dataset: trained on its training images, evaluated on its test images.
        evaluate: from :func:`jnnk.training.make_evaluate`.
        epochs: passes over the training images.
        batch_size: images a step, over all devices.
        seed: of the order.
        folder: gets ``checkpoints/`` and ``metrics.jsonl``; ``tensorboard/`` too where
            ``tensorboardX`` is installed.
        keep: epochs whose checkpoints are kept.
        progress: shows a bar over all steps.
        description: names the bar.
        monitor: looks at the state after every epoch; may change it, and end the training.
        mesh: devices that share the batches over its axis ``"data"``; by default the first one
            alone. Of several processes each reads its own rows.

    Returns:
        The state after the last epoch, on all devices of the mesh.

    Raises:
        InputError: if the mesh has no axis ``"data"`` or it does not divide the batch.
    """
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
        records = [line for line in read_json_lines(metrics_path) if line["epoch"] <= done]
        with (
            scalars(folder / "tensorboard", after=done) as show,
            progress.task(description, total=epochs * num_batches, unit="batch") as task,
        ):
            task.advance(done * num_batches)
            for epoch in range(done + 1, epochs + 1):
                if records and records[-1].get("stopped", False):
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
                        batch = Batch(dataset.train_images[rows], dataset.train_labels[rows])
                        state, metrics = step(state, shard_batch(batch, mesh))
                        history.append(metrics)
                        shown = {}
                        if index % _SHOW_EVERY == 0:
                            rate = (index + 1) * batch_size / (time.perf_counter() - started)
                            shown = {
                                "loss": float(metrics.loss),
                                "accuracy": float(metrics.accuracy),
                                "images/s": rate,
                            }
                        task.advance(**shown)
                except Stopped:
                    if len(history) > resumed:
                        seconds = time.perf_counter() - started
                        save_unfinished(
                            folder, state, history, seconds=seconds, steps_before=before
                        )
                    raise
                mean = Metrics(*np.mean(jax.device_get(history), axis=0, dtype=np.float64).tolist())
                seconds = time.perf_counter() - started
                test_accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
                values = {}
                if monitor is not None:
                    state, values = monitor(state, records)
                records.append(
                    {
                        "epoch": epoch,
                        **mean._asdict(),
                        "test_accuracy": test_accuracy,
                        "seconds": seconds,
                        **values,
                    }
                )
                write_json_lines(metrics_path, records)
                checkpoints.save(epoch, state)
                discard_unfinished(folder)
                show(records[-1])
    return state
