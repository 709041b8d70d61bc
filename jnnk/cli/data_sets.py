"""The command that prepares a data set: ``prepare``."""

import argparse

from jnnk.cli.answers import Answer
from jnnk.data import prepare as prepare_set
from jnnk.runs.progress import Progress


def prepare(args: argparse.Namespace, progress: Progress) -> Answer:
    """Downloads and prepares a TFDS set."""
    prepare_set(args.dataset, args.data_dir)
    return Answer(
        {"dataset": args.dataset, "data_dir": args.data_dir}, [("prepared in", args.data_dir)]
    )
