"""Which data a run folder is of: noted in ``config.json``, and compared whenever they are opened."""

from jnnk.data import Dataset, fingerprint
from jnnk.errors import InputError
from jnnk.runs import DATA_RECORD, Run, write_json

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
    noted = run.config.get(DATA_RECORD)
    if noted is None:
        return
    found = fingerprint(dataset)
    changed = [
        words for part, words in _IN_WORDS.items() if noted["fingerprint"].get(part) != found[part]
    ]
    if changed:
        raise InputError(
            f"{run.path}: {dataset.name} has other {', '.join(changed)} than when jnnk "
            f"{noted['recorded_by']} read it; bring those data back, or make another run folder "
            "for these"
        )


def record_data(run: Run, dataset: Dataset, *, command: str) -> Run:
    """The run with a note of its data, made now where there is none; else see :func:`check_data`.

    Args:
        run: the run folder, which is written.
        dataset: its data.
        command: the name of the command that makes the note.
    """
    if DATA_RECORD in run.config:
        check_data(run, dataset)
        return run
    note = {"recorded_by": command, "fingerprint": fingerprint(dataset)}
    config = {**run.config, DATA_RECORD: note}
    write_json(run.path / "config.json", config)
    return Run(run.path, config)
