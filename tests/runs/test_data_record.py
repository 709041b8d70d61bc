"""Data that changed under a run are noticed by every command that opens them."""

import functools
import hashlib
import json
import shutil

import numpy as np
import pytest
import tiny
from tiny import NETWORK, write_images

from jnnk import InputError
from jnnk.cli import main
from jnnk.data import Dataset, Normalization, fingerprint, load
from jnnk.jobs.compare import compare
from jnnk.runs.data_record import check_data, record_data, record_study_data
from jnnk.runs.folder import Run, create_run, open_run
from jnnk.runs.json_files import read_json, to_json, write_json
from jnnk.runs.settings import TrainConfig

fails = functools.partial(tiny.fails, has_notes=True)


def dataset(**fields):
    arrays = {
        "train_images": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1),
        "train_labels": np.int32([0, 1, 1]),
        "test_images": np.zeros((2, 4, 4, 1), np.uint8),
        "test_labels": np.int32([1, 0]),
    }
    return Dataset(
        **{
            "name": "mine/", **arrays, "class_names": ("a", "b"),
            "normalization": Normalization(np.float32([0]), np.float32([1])), **fields,
        }
    )  # fmt: skip


def test_a_fingerprint_is_of_dtype_shape_and_bytes():
    found = fingerprint(dataset())
    text = b"|u1 (3, 4, 4, 1) " + bytes(range(48))
    assert found["train_images"] == hashlib.blake2b(text, digest_size=16).hexdigest()
    text = b"<i4 (3,) " + b"\0\0\0\0" + 2 * b"\1\0\0\0"
    assert found["train_labels"] == hashlib.blake2b(text, digest_size=16).hexdigest()
    assert found["class_names"] == hashlib.blake2b(b'["a", "b"]', digest_size=16).hexdigest()
    assert set(found) == {
        "train_images", "train_labels", "test_images", "test_labels", "class_names"
    }  # fmt: skip


def test_a_fingerprint_does_not_depend_on_how_arrays_lie_in_memory():
    images = dataset().train_images
    turned = np.asfortranarray(images)
    assert not turned.flags.c_contiguous
    assert fingerprint(dataset(train_images=turned)) == fingerprint(dataset())


CHANGES = {
    "training images": lambda d: d._replace(train_images=d.train_images[:, ::-1]),
    "training labels": lambda d: d._replace(train_labels=d.train_labels[::-1]),
    "test images": lambda d: d._replace(test_images=d.test_images + np.uint8(1)),
    "test labels": lambda d: d._replace(test_labels=d.test_labels[::-1]),
    "class names": lambda d: d._replace(class_names=("b", "a")),
    "training images, training labels": lambda d: d._replace(
        train_images=d.train_images[:2], train_labels=d.train_labels[:2]
    ),
    "test images, test labels": lambda d: d._replace(
        test_images=d.test_images[::-1] + np.uint8(1), test_labels=d.test_labels[::-1]
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_what_changed_is_named(changed, tmp_path):
    run = record_data(Run(tmp_path, {"format": 1}), dataset(), command="study")
    assert open_run(tmp_path) == run
    check_data(run, dataset())
    other = Normalization(np.ones(1), np.ones(1))
    check_data(run, dataset(name="moved/", normalization=other))  # no part of the data
    with pytest.raises(InputError, match=f"has other {changed} than when jnnk study read it"):
        check_data(run, CHANGES[changed](dataset()))
    record_study_data(tmp_path, dataset(), command="reproduce pruning")
    with pytest.raises(InputError, match=f"other {changed} than when jnnk reproduce pruning"):
        record_study_data(tmp_path, CHANGES[changed](dataset()), command="reproduce pruning")


def test_an_old_folder_is_noted_at_the_next_write(tmp_path):
    made = create_run(tmp_path, {"epochs": 2})
    check_data(made, dataset())
    run = record_data(made, dataset(), command="prune")
    assert read_json(tmp_path / "config.json") == run.as_object()
    assert run.config == made.config and run.data is not None
    assert run.data.recorded_by == "prune"
    assert create_run(tmp_path, {"epochs": 2}, resume=True) == run


@pytest.mark.parametrize("note", [[], "x", {}, {"fingerprint": 3}, {"fingerprint": {"a": 1}}, None])
def test_a_note_that_is_none(note, tmp_path):
    write_json(tmp_path / "config.json", {"format": 1, "data": note})
    with pytest.raises(InputError, match=r"config\.json: no note of a data set"):
        check_data(open_run(tmp_path), dataset())


def test_every_command_that_opens_changed_data(tmp_path, capsys):
    data, out = write_images(tmp_path / "images.npz"), tmp_path / "run"
    train = [
        "train", "--dataset", data, *NETWORK, "--batch-size", "8", "--epochs", "1", "--out", out,
    ]  # fmt: skip
    assert main([str(word) for word in train]) == 0
    note = read_json(out / "config.json")["data"]
    assert note == {"recorded_by": "train", "fingerprint": fingerprint(load(data))}
    # Moved, the same data are as good as ever.
    moved = tmp_path / "elsewhere" / "images.npz"
    moved.parent.mkdir()
    shutil.copy(data, moved)
    assert main(["train", "--resume", "--data-dir", str(moved.parent), "--out", str(out)]) == 0
    assert read_json(out / "config.json")["data_dir"] == str(tmp_path)
    export = ["export", out, "--out", tmp_path / "torch"]
    assert main([*map(str, export), "--data-dir", str(moved.parent)]) == 0
    capsys.readouterr()
    with np.load(data) as arrays:
        arrays = dict(arrays)
    np.savez(data, **{**arrays, "train_labels": arrays["train_labels"][::-1]})
    np.savez(moved, **{**arrays, "class_names": arrays["class_names"][::-1]})
    commands = [
        ["train", "--resume", "--out", out], ["study", "--resume", "--out", out],
        ["overlap", out], ["overlap", out, "--plan"], ["prune", out], export,
        ["prune", out, "--channels", "l1_norm"], ["prune", out, "--protocol", "short"],
    ]  # fmt: skip
    before = sorted(out.rglob("*"))
    for words in commands:
        line = fails(capsys, *words)
        assert "images.npz has other training labels than when jnnk train read it" in line
        line = fails(capsys, *words, "--data-dir", moved.parent)
        assert "images.npz has other class names than" in line
    assert sorted(out.rglob("*")) == before


def test_runs_of_different_data_are_told_apart(tmp_path):
    runs = []
    for name, labels in (("a", [0, 1, 1]), ("b", [1, 0, 1])):
        config = to_json({**TrainConfig()._asdict(), "dataset": "mine/"})
        run = Run(tmp_path / name, {**config, "format": 1})
        runs.append(record_data(run, dataset(train_labels=np.int32(labels)), command="train"))
    compare(runs, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    digests = [run.data.fingerprint["train_labels"][:8] for run in runs]
    assert digests[0] != digests[1] and all(f"train_labels {each}" in page for each in digests)
    assert json.dumps(runs[0].data._asdict()) not in page
