"""The command that measures published claims anew, ``reproduce``, and the claims it knows."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jnnk.cli import networks
from jnnk.cli.answers import Answer
from jnnk.data import Dataset, only_classes
from jnnk.files.safe_files import resolved
from jnnk.runs.data_record import record_study_data
from jnnk.runs.folder import locked, refuse_foreign
from jnnk.runs.json_files import to_json
from jnnk.runs.progress import Progress
from jnnk.runs.settings import TrainConfig


class Reproduction(NamedTuple):
    """A study that is ready to run.

    Attributes:
        job: ``(progress) -> rows``: does what is left of it and returns the table to show, dicts or
            records.
        dataset: what it is of.
    """

    job: Callable[[Progress], Sequence[Any]]
    dataset: Dataset


class Study(NamedTuple):
    """A published claim that can be measured anew.

    Attributes:
        claim: what it is about, in words.
        prepare: ``(args) -> reproduction``: reads data and weights.
    """

    claim: str
    prepare: Callable[[argparse.Namespace], Reproduction]


def reproduce(args: argparse.Namespace, progress: Progress) -> Answer:
    """Measures a published claim anew on the shared data."""
    args.out = resolved(args.out)
    refuse_foreign(args.out)
    study = STUDIES[args.claim].prepare(args)  # before the folder: bad input should leave none
    with locked(args.out, say=progress.note):
        record_study_data(args.out, study.dataset, command=f"reproduce {args.claim}")
        rows = to_json(study.job(progress))
    return Answer({"out": args.out, "rows": rows}, [("results", str(args.out))], rows)


def _overlap(args: argparse.Namespace) -> Reproduction:
    from jnnk.experiments.overlap import Inputs, reproduce_overlap
    from jnnk.experiments.overlap_epochs import Trajectory
    from jnnk.experiments.runner import LoadedNetwork

    loaded = networks.load(_cifar10(args)._replace(model="convnet6"))
    convnet: Any = loaded.model
    dataset = loaded.dataset
    resnet: Any = networks.create("resnet20", num_classes=10, shortcut="B")
    trajectories, pair = [], []
    for name in ("dropout", "overfit"):
        archive = args.shared / "reference" / f"deepnnk_ch32_{name}.npz"
        load = partial(networks.load_epoch, convnet, archive)
        load(0)  # is the file there?
        trajectories.append(Trajectory(f"ch32_{name}", convnet, 20, load))
    for name in ("dense", "channel_regularized"):
        file = args.shared / "weights" / f"resnet20_projection_{name}_cifar10.safetensors"
        pair.append(
            LoadedNetwork(name.replace("_", " "), resnet, networks.load_weights(resnet, file))
        )
    inputs = Inputs(
        create=lambda rate: networks.create("convnet5", num_classes=2, dropout=rate),
        run_dataset=dataset,
        pair=pair,
        pair_dataset=_normalized(dataset, 0.5, 0.5),
        trajectories=trajectories,
        trajectory_dataset=_normalized(dataset, 0.0, 1.0),
    )
    return Reproduction(
        lambda progress: reproduce_overlap(args.out, inputs, progress=progress).last_errors or [],
        dataset,
    )


def _pruning(args: argparse.Namespace) -> Reproduction:
    from jnnk.experiments.pruning import reproduce_pruning, summary_table

    resnets, dataset = _public_resnets(args)
    return Reproduction(
        lambda progress: summary_table(
            reproduce_pruning(args.out, resnets, dataset, progress=progress)
        ),
        dataset,
    )


def _regularizer(args: argparse.Namespace) -> Reproduction:
    from jnnk.experiments.regularizer import reproduce_regularizer

    config = _cifar10(args)._replace(dataset="fashion_mnist", model="resnet8")
    loaded = networks.load(config)
    model: Any = loaded.model
    dataset = loaded.dataset
    return Reproduction(
        lambda progress: reproduce_regularizer(args.out, model, dataset, progress=progress),
        dataset,
    )


def _early_stopping(args: argparse.Namespace) -> Reproduction:
    from jnnk.experiments.early_stopping import CLASSES, reproduce_early_stopping

    dataset = only_classes(networks.load(_cifar10(args)).dataset, CLASSES)
    model = networks.create("convnet5", num_classes=len(CLASSES))
    return Reproduction(
        lambda progress: reproduce_early_stopping(args.out, model, dataset, progress=progress),
        dataset,
    )


def _channel_pruning(args: argparse.Namespace) -> Reproduction:
    from jnnk.experiments.channel_pruning import reproduce_channel_pruning

    resnets, dataset = _public_resnets(args)
    return Reproduction(
        lambda progress: reproduce_channel_pruning(args.out, resnets, dataset, progress=progress),
        dataset,
    )


def _public_resnets(args: argparse.Namespace) -> tuple[list[Any], Dataset]:
    """The CIFAR ResNets with their published weights, and CIFAR-10."""
    from jnnk.experiments.runner import LoadedNetwork

    resnets = []
    for name in ("resnet20", "resnet32"):
        weights = args.shared / "weights" / f"{name}_cifar10.safetensors"
        config = _cifar10(args)._replace(model=name, weights=str(weights))
        loaded = networks.load(config)
        model: Any = loaded.model
        assert loaded.variables is not None, "the settings name weights"
        resnets.append(LoadedNetwork(name, model, loaded.variables))
    return resnets, loaded.dataset


def _cifar10(args: argparse.Namespace) -> TrainConfig:
    """Settings that load CIFAR-10 from the shared folder."""
    return TrainConfig(dataset="cifar10", data_dir=str(args.shared / "tfds"))


def _normalized(dataset: Dataset, mean: float, std: float) -> Dataset:
    """The data set with the normalisation that public weights were trained with."""
    own = dataset.normalization
    given = own._replace(mean=np.full_like(own.mean, mean), std=np.full_like(own.std, std))
    return dataset._replace(normalization=given)


STUDIES = {
    "overlap": Study("what channel overlap tells of generalisation", _overlap),
    "pruning": Study("kernels each criterion can spare", _pruning),
    "regularizer": Study("what a penalty on channel overlap does", _regularizer),
    "early-stopping": Study("channel-wise early stopping against validation", _early_stopping),
    "channel-pruning": Study(
        "channels removed by redundancy and by other criteria", _channel_pruning
    ),
}
"""Every study, by the name that ``jnnk reproduce`` takes."""
