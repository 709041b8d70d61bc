"""Event files are written as TensorBoard reads them, and a resumed run goes on in them."""

import dataclasses
import sys

import pytest

from jnnk.runs.records import EpochMetrics
from jnnk.runs.tensorboard import scalars

EPOCH = EpochMetrics(
    epoch=1, loss=0.5, cross_entropy=None, accuracy=0.25, test_accuracy=0.75,
    errors={"conv1": (1.0,)}, stopped=False,
)  # fmt: skip


def test_numbers_of_every_epoch(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    for after in (0, 1):
        with scalars(tmp_path / str(after), after=after) as write:
            write(dataclasses.replace(EPOCH, epoch=after + 1))
        (path,) = (tmp_path / str(after)).glob("events.*")
        content, events = path.read_bytes(), []
        while content:  # length, its checksum, event, its checksum
            length = int.from_bytes(content[:8], "little")
            events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
        found = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
        assert found == {
            name: (after + 1, value)
            for name, value in (
                ("loss", 0.5), ("accuracy", 0.25), ("test_accuracy", 0.75), ("stopped", 0.0)
            )
        }  # fmt: skip


def test_nothing_without_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with scalars(tmp_path / "board", after=0) as write:
        write(EPOCH)
    assert not (tmp_path / "board").exists()
