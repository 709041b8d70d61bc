"""Which data a folder's results are of: noted once, and compared whenever they are opened.

A run folder has the note in its ``config.json``, a study's in a file of its own.
"""

import pathlib

from jnnk._core.errors import InputError
from jnnk.data import Dataset, fingerprint
from jnnk.runs.data_note import DataNote, read_note
from jnnk.runs.folder import Run
from jnnk.runs.json_files import read_json, write_json

_IN_WORDS = {
    "train_images": "training images",
    "train_labels": "training labels",
    "test_images": "test images",
    "test_labels": "test labels",
    "class_names": "class names",
}


def check_data(run: Run, dataset: Dataset) -> None:
    """Refuses data that are not those of a run; a folder of an earlier version has no note of them.

    Args:
        run: the run folder.
        dataset: what its ``dataset`` and ``data_dir`` name today.

    Raises:
        InputError: saying what differs, and which command noted it.
    """
    if run.data is not None:
        _compare(run.data, run.path, dataset)


def record_data(run: Run, dataset: Dataset, *, command: str) -> Run:
    """The run with a note of its data, made now where there is none; else see :func:`check_data`.

    Args:
        run: the run folder, which is written.
        dataset: its data.
        command: the name of the command that makes the note.
    """
    if run.data is not None:
        check_data(run, dataset)
        return run
    run = run._replace(data=DataNote(command, fingerprint(dataset)))
    write_json(run.path / "config.json", run.as_object())
    return run


def record_study_data(folder: pathlib.Path, dataset: Dataset, *, command: str) -> None:
    """Notes the data of a study in its ``data.json``, or compares them with the note there.

    Args:
        folder: of the study.
        dataset: its data.
        command: the name of the command that makes the note.

    Raises:
        InputError: as :func:`check_data`.
    """
    path = folder / "data.json"
    if path.exists():
        _compare(read_note(read_json(path), path), folder, dataset)
    else:
        write_json(path, DataNote(command, fingerprint(dataset)))


def _compare(note: DataNote, folder: pathlib.Path, dataset: Dataset) -> None:
    found = fingerprint(dataset)
    changed = [
        words for part, words in _IN_WORDS.items() if note.fingerprint.get(part) != found[part]
    ]
    if changed:
        raise InputError(
            f"{folder}: {dataset.name} has other {', '.join(changed)} than when jnnk "
            f"{note.recorded_by} read it; bring those data back, or make another folder for these"
        )
