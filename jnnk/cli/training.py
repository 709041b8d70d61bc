"""The commands that make a run folder: ``study``, ``train`` and ``import-weights``."""

import argparse
import math
import pathlib

from jnnk.cli import configs
from jnnk.cli.answers import Answer, headline_of
from jnnk.cli.run_folders import chosen_mesh, fit_graphs, made_run, prepare_training, tell
from jnnk.data import Dataset
from jnnk.runs.divergence import Diverged
from jnnk.runs.part_settings import note_or_check_settings
from jnnk.runs.progress import Progress
from jnnk.training import make_evaluate


def study(args: argparse.Namespace, progress: Progress) -> Answer:
    """Trains, measures overlap, prunes, and writes the report."""
    from jnnk.jobs.checks import check_layers
    from jnnk.jobs.study import study

    train_config = configs.train_config(args)
    overlap_config = configs.overlap_config(args, args.out)
    prune_config = configs.prune_config(args, args.out)
    prepared = prepare_training(args, train_config, progress)
    model, dataset, variables = prepared.model, prepared.dataset, prepared.variables
    folder = args.out / "overlap"
    overlap_config, more = fit_graphs(overlap_config, args, folder, dataset)
    check_layers(overlap_config.layers, model, dataset)
    with made_run(args, prepared, progress) as run:
        tell(more, progress)
        note_or_check_settings(run.path / "overlap", overlap_config)
        note_or_check_settings(run.path / "prune", prune_config)
        path = study(
            run,
            model,
            dataset,
            overlap_config=overlap_config,
            prune_config=prune_config,
            variables=variables,
            progress=progress,
        )
        answer = headline_of(run, path)
        return answer._replace(facts=[*_test_images(dataset), *answer.facts])


def train(args: argparse.Namespace, progress: Progress) -> Answer:
    """Trains a network into a run folder."""
    from jnnk.jobs.train import train
    from jnnk.report.output import percent

    mesh = chosen_mesh(args)
    config = configs.train_config(args)
    prepared = prepare_training(args, config, progress, mesh=mesh)
    model, dataset, variables = prepared.model, prepared.dataset, prepared.variables
    with made_run(args, prepared, progress) as run:
        state = train(run, model, dataset, variables=variables, progress=progress, mesh=mesh)
        evaluate = make_evaluate(model, normalization=dataset.normalization, mesh=mesh)
        accuracy = evaluate(state.variables, dataset.test_images, dataset.test_labels)
        if math.isnan(accuracy):
            raise Diverged(f"{run.path}: the network's answers to test images are not finite")
    path = run.path.absolute()
    return Answer(
        {"run": path, "test_accuracy": accuracy, "test_split": dataset.test_split},
        [("test accuracy", percent(accuracy)), *_test_images(dataset), ("run folder", str(path))],
    )


def import_weights(args: argparse.Namespace, progress: Progress) -> Answer:
    """Puts given weights into a run folder: a training of zero epochs that starts from them."""
    args.epochs, args.measure_epochs, args.resume = 0, (0,), False
    args.mesh, args.distributed = None, False
    args.weights = str(pathlib.Path(args.weights).absolute())
    return train(args, progress)


def _test_images(dataset: Dataset) -> list[tuple[str, str]]:
    """The line of the answer that says what the test images are, where that was chosen."""
    return [("test images", dataset.test_split)] if dataset.test_split else []
