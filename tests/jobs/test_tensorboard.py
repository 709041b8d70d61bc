"""Event files are written as TensorBoard reads them, and a resumed run goes on in them."""

import sys

import pytest

from jnnk.jobs.tensorboard import scalars


def test_numbers_of_every_epoch(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    for after in (0, 1):
        with scalars(tmp_path / str(after), after=after) as write:
            write({"epoch": after + 1, "loss": 0.5, "errors": {"conv1": [1.0]}, "stopped": False})
        (path,) = (tmp_path / str(after)).glob("events.*")
        content, events = path.read_bytes(), []
        while content:  # length, its checksum, event, its checksum
            length = int.from_bytes(content[:8], "little")
            events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
        found = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
        assert found == {"loss": (after + 1, 0.5), "stopped": (after + 1, 0.0)}


def test_nothing_without_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with scalars(tmp_path / "board", after=0) as write:
        write({"epoch": 1, "loss": 0.5})
    assert not (tmp_path / "board").exists()
