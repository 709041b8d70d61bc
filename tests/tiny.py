"""A data set and a network so small that a command on them takes no time but the compiler's."""

import numpy as np
import pytest

from jnnk import InputError, data

NETWORK = ["--model", "convnet6", "--model-options", "channels=2"]
SIDE = 8


def write_images(path, *, train=24, test=12, classes=2, seed=0):
    """An .npz of grey images whose brightness tells their class."""
    rng = np.random.default_rng(seed)
    arrays = {"class_names": np.array([f"class{n}" for n in range(classes)])}
    for split, count in (("train", train), ("test", test)):
        labels = np.arange(count) % classes
        noise = rng.integers(0, 60, (count, SIDE, SIDE))
        arrays[f"{split}_images"] = (noise + (180 * labels // classes)[:, None, None]).astype("u1")
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
    return path


def error_of(name, **options):
    """The one line with which a data set is refused."""
    with pytest.raises(InputError) as caught:
        data.load(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def fails(capsys, *words, has_notes=False):
    """The one line that a command with bad input says, alone but for notes where it has some."""
    from jnnk.cli import main  # here: it needs more than the library does

    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    *notes, line = said.err.splitlines()
    assert line.startswith("error: ")
    assert has_notes or not notes
    return line
