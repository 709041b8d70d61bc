"""Metrics of a training for TensorBoard, where ``tensorboardX`` is installed."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jnnk.processes import is_first


@contextlib.contextmanager
def scalars(folder: pathlib.Path, *, after: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that adds the numbers of an epoch's record; does nothing without tensorboardX.

    Args:
        folder: gets the event files.
        after: epochs that are done; what a killed run wrote of later ones is dropped.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        yield lambda record: None
        return
    if not is_first():
        yield lambda record: None
        return
    with SummaryWriter(str(folder), purge_step=after + 1) as writer:

        def write(record: dict[str, Any]) -> None:
            for name, value in record.items():
                if name != "epoch" and isinstance(value, int | float):
                    writer.add_scalar(name, value, record["epoch"])
            writer.flush()

        yield write
