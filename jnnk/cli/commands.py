"""The table of the commands: what each is for, its options, and the function that does it."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

from jnnk.cli import options
from jnnk.cli.analyses import export, overlap, prune, report
from jnnk.cli.answers import Answer
from jnnk.cli.data_sets import prepare
from jnnk.cli.inspection import inspect
from jnnk.cli.studies import reproduce
from jnnk.cli.training import import_weights, study, train
from jnnk.runs.progress import Progress


class Command(NamedTuple):
    """A command of ``jnnk``.

    Attributes:
        run: ``(args, progress) -> answer``: does it.
        help: one line that says what it is for.
        example: of the words after its name.
        options: functions that add its options to a parser, in the order in which they are shown.
        computes: whether it needs a device.
        memory: options that most of its memory depends on, to be lowered where it is too little.
    """

    run: Callable[[argparse.Namespace, Progress], Answer]
    help: str
    example: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...]
    computes: bool = True
    memory: tuple[str, ...] = ()


COMMANDS = {
    "study": Command(
        study,
        "train, measure overlap, prune, write the report",
        "--out runs/a",
        (
            options.train_options,
            options.resume_options,
            options.overlap_options,
            options.prune_options,
            options.output_options,
        ),
        memory=("--batch-size", "--images", "--neighbors"),
    ),
    "train": Command(
        train,
        "train a network into a run folder",
        "--model resnet20 --epochs 5 --out runs/b",
        (
            options.train_options,
            options.resume_options,
            options.device_options,
            options.output_options,
        ),
        memory=("--batch-size",),
    ),
    "import-weights": Command(
        import_weights,
        "put weights into a run folder",
        "net.safetensors --out runs/c",
        (options.weights_options, options.output_options),
    ),
    "inspect": Command(
        inspect,
        "show the convolutions of a run's network, or of any",
        "--model my_nets:small --dataset digits",
        (options.inspect_options, options.output_options),
    ),
    "overlap": Command(
        overlap,
        "measure the channels of a run",
        "runs/a --layers 'layer3*' --neighbors 15",
        (
            options.run_options,
            options.overlap_options,
            options.device_options,
            options.output_options,
            options.measuring_options,
        ),
        memory=("--images", "--neighbors", "--layers (fewer)"),
    ),
    "prune": Command(
        prune,
        "score and prune the kernels of a run, or whole channels",
        "runs/a --criterion weight --tolerance 0.5",
        (
            options.run_options,
            options.prune_options,
            options.output_options,
            options.channel_options,
            options.protocol_options,
        ),
        memory=("--sweep-images",),
    ),
    "export": Command(
        export,
        "write a run's networks as safetensors and StableHLO",
        "runs/a --out runs/a/torch",
        (options.run_options, options.output_options, options.export_options),
    ),
    "report": Command(
        report,
        "write the report of a run, or compare several on one page",
        "runs/a runs/b",
        (options.output_options, options.report_options),
        computes=False,
    ),
    "reproduce": Command(
        reproduce,
        "measure a published claim anew on the shared data",
        "pruning --shared ../shared --out runs/d",
        (options.output_options, options.reproduce_options),
    ),
    "prepare": Command(
        prepare,
        "download and prepare a TFDS set (extra: tfds-prepare)",
        "cifar10 --data-dir data",
        (options.output_options, options.prepare_options),
        computes=False,
    ),
}
"""Every command, by name."""
