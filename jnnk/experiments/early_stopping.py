"""``jnnk reproduce early-stopping``: stopping channel by channel against a validation set.

The experiment of arXiv 2107.12972: a small ConvNet on two classes of CIFAR-10, by Adam at a
constant rate, without augmentation. For every seed it is trained to the end, with channel-wise
stopping, and with a fifth of the images held out. Stopping by the last layer's error changes
nothing before it ends a training, so it is read off the one to the end. Every training has a folder
of its own, so the command goes on where it was stopped.
"""

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from jnnk.data import Dataset, first_images
from jnnk.jobs.fit import Monitor, Watched, fit
from jnnk.jobs.stopping import stopping
from jnnk.measures import mean_and_std
from jnnk.report.figures.levers import stopping_rules
from jnnk.report.output import save_study
from jnnk.runs.divergence import read_metrics
from jnnk.runs.folder import require_settings
from jnnk.runs.progress import Progress, Silent
from jnnk.runs.records import EpochMetrics
from jnnk.training import (
    Model,
    TrainState,
    freezable,
    init_state,
    make_evaluate,
    make_optimizer,
    make_train_step,
)

CLASSES = ("airplane", "ship")
RULES = ("none", "channel-nnk", "nnk", "validation")
MEASURES = ("epochs", "accuracy", "images", "passes")


class Settings(NamedTuple):
    """What is trained; two folders with the same settings hold the same numbers.

    Attributes:
        seeds: of initialisation and order.
        epochs: at most, passes over the training images.
        patience: epochs without a smaller error.
        train_images: first training images of the two classes.
        batch_size: images a step.
        learning_rate: of Adam, constant.
    """

    seeds: tuple[int, ...] = tuple(range(10))
    epochs: int = 20
    patience: int = 2
    train_images: int = 10_000
    batch_size: int = 50
    learning_rate: float = 1e-3


def reproduce_early_stopping(
    folder: pathlib.Path,
    model: Model,
    dataset: Dataset,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains what is not trained yet; tables and figure are made of all.

    Args:
        folder: gets ``results.json`` (a record for each rule and seed), ``summary`` as CSV, LaTeX
            and Markdown, the figure, and a folder for each training.
        model: the network; tells its ``convs()``.
        dataset: of the two classes, see :func:`jnnk.data.only_classes`.
        settings: those of the published figures by default.
        progress: shows how far it is.

    Returns:
        The summary: mean and standard deviation over seeds for each rule.

    Raises:
        InputError: if the folder holds results made with other settings.
    """
    settings = settings or Settings()
    progress = progress or Silent()
    require_settings(folder, settings, free=("seeds",))
    dataset = first_images(dataset, train=settings.train_images)
    # Frozen or not, one program; over so many steps the schedule is constant.
    optimizer = freezable(
        make_optimizer("adam", learning_rate=settings.learning_rate, num_steps=10**7)
    )
    step = make_train_step(model, optimizer, mean=dataset.mean, std=dataset.std, augment=False)
    evaluate = make_evaluate(model, mean=dataset.mean, std=dataset.std)
    rules = {name: stopping(name, model, dataset, patience=settings.patience) for name in RULES[1:]}
    rules["none"] = (dataset, _only_watched(rules.pop("nnk")[1]))
    records = []
    total = len(rules) * len(settings.seeds)
    with progress.task("reproduce early-stopping", total=total, unit="training") as task:
        for seed in settings.seeds:
            for name, (data, monitor) in rules.items():
                part = folder / name / f"seed{seed}"
                start = partial(
                    init_state, model, optimizer, jax.random.key(seed),
                    image_shape=data.train_images.shape[1:],
                )  # fmt: skip
                fit(
                    start, step, data, evaluate=evaluate, epochs=settings.epochs,
                    batch_size=settings.batch_size, seed=seed, folder=part,
                    progress=progress.unseen(), description="", monitor=monitor,
                )  # fmt: skip
                epochs = read_metrics(part)
                records.append(_record(name, seed, epochs, data, dataset))
                if name == "none":
                    ended = next((n for n, e in enumerate(epochs, 1) if e.would_stop), None)
                    records.append(_record("nnk", seed, epochs[:ended], data, dataset))
                task.advance(accuracy=records[-1]["accuracy"])
    summary = summarize_rules(records)
    caption = f"Early stopping on {' and '.join(dataset.class_names)}; means over seeds."
    figure = ("early_stopping", stopping_rules(records))
    save_study(folder, records, summary, caption=caption, figure=figure)
    return summary


def summarize_rules(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, a record for each rule in the order of ``RULES``.

    Args:
        records: of single trainings, with ``rule`` and ``MEASURES``.

    Returns:
        Records with ``rule``, ``seeds`` (their number), ``stopped_early`` (how many ended before
        the last epoch) and, for each of ``MEASURES``, its mean and under ``NAME_std`` its
        standard deviation (n - 1; None for one seed).
    """
    summary = []
    for rule in RULES:
        rows = [record for record in records if record["rule"] == rule]
        early = sum(row["stopped_early"] for row in rows)
        record: dict[str, Any] = {"rule": rule, "seeds": len(rows), "stopped_early": early}
        for name in MEASURES:
            values = [row[name] for row in rows]
            record[name], record[f"{name}_std"] = mean_and_std(values)
        summary.append(record)
    return summary


def _only_watched(monitor: Monitor) -> Monitor:
    """The monitor without its say: whether it would stop is noted instead."""

    def watch(state: TrainState, epochs: Sequence[EpochMetrics]) -> tuple[TrainState, Watched]:
        state, watched = monitor(state, epochs)
        return state, watched._replace(stopped=False, would_stop=watched.stopped)

    return watch


def _record(
    rule: str, seed: int, epochs: Sequence[EpochMetrics], data: Dataset, whole: Dataset
) -> dict[str, Any]:
    """One training that ended after these epochs.

    ``images`` is the share of the images trained on, ``passes`` the number of images seen, in
    passes over all images.
    """
    share = len(data.train_images) / len(whole.train_images)
    return {
        "rule": rule,
        "seed": seed,
        "epochs": len(epochs),
        "accuracy": epochs[-1].test_accuracy,
        "best_accuracy": max(epoch.test_accuracy for epoch in epochs),
        "images": share,
        "passes": share * len(epochs),
        "stopped_early": bool(epochs[-1].stopped or epochs[-1].would_stop) and rule != "none",
        "accuracies": [epoch.test_accuracy for epoch in epochs],
        "stopped_channels": [epoch.stopped_channels for epoch in epochs],
    }
