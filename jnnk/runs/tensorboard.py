"""Metrics of a training for TensorBoard, where ``tensorboardX`` is installed."""

import contextlib
import importlib
import importlib.util
import pathlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Generator
from typing import Any

from jnnk.files.safe_files import open_new
from jnnk.files.schema import as_object
from jnnk.parallel import is_first
from jnnk.runs.records import EpochMetrics


@contextlib.contextmanager
def scalars(folder: pathlib.Path, *, after: int) -> Generator[Callable[[EpochMetrics], None]]:
    """A function that adds the numbers of an epoch; does nothing without tensorboardX.

    The folder gets an event file of its own; what a killed run wrote of epochs ``after`` those done
    is dropped. tensorboardX' ``SummaryWriter`` is not used: it opens whatever lies in its place,
    and writes in a thread, where a full disk ends in a traceback.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    if not (is_first() and importlib.util.find_spec("tensorboardX")):
        yield lambda epoch: None
        return
    from tensorboardX import record_writer

    events: Any = importlib.import_module("tensorboardX.proto.event_pb2")  # has no annotations
    summaries: Any = importlib.import_module("tensorboardX.proto.summary_pb2")
    name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{secrets.token_hex(4)}"
    path = folder / name
    with open_new(path) as file:

        def append(**event: Any) -> None:
            # A record is its length, itself, and a checksum of each.
            content: bytes = events.Event(wall_time=time.time(), **event).SerializeToString()
            length = struct.pack("<Q", len(content))
            first, last = (
                struct.pack("<I", record_writer.masked_crc32c(part)) for part in (length, content)
            )
            content = length + first + content + last
            try:
                while content:  # a file without a buffer may take a part
                    content = content[file.write(content) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from error

        def write(epoch: EpochMetrics) -> None:
            values: list[Any] = [
                summaries.Summary.Value(tag=name, simple_value=value)
                for name, value in as_object(epoch).items()
                if name != "epoch" and isinstance(value, int | float)
            ]
            append(step=epoch.epoch, summary=summaries.Summary(value=values))

        session_start = events.SessionLog(status=events.SessionLog.START)
        append(file_version="brain.Event:2")
        append(step=after + 1, session_log=session_start)
        yield write
