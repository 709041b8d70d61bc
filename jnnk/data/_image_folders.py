"""Which files of a folder of images belong to which class and split."""

import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from jnnk._core.errors import InputError
from jnnk.data._image_files import SUFFIXES, UNREADABLE

# What others call the halves of a data set, in the order in which they are tested on.
_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "dev", "eval", "holdout")
_ENDING = re.compile(r"[ _-]?(set|data|dataset|images|split)$")  # of training_set or test-data
# What macOS puts beside the files of an archive, and a NAS beside images.
_NOT_MEANT = ("__macosx", "@eadir")
# Files that describe images or their folder, and hold none.
_COMPANIONS = (
    ".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".xmp",
    ".aae", ".db", ".ini", ".log",
)  # fmt: skip


def find_splits(path: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder of the training classes, and those of other splits, first what is tested on.

    Args:
        path: the whole folder.

    Returns:
        ``path`` itself and no others, where none of its folders is a split.

    Raises:
        InputError: naming the folders of which it is not plain whether they are splits or classes,
            or an image beside them.
    """
    folders = class_folders(path)
    # Without folders in it, train is a class.
    train, tests = (
        [
            folder
            for name in names
            for folder in folders
            if _split_name(folder) == name and any(each.is_dir() for each in _entries(folder))
        ]
        for names in (_TRAIN, _TEST)
    )
    called = [folder for folder in folders if _split_name(folder) in (*_TRAIN, *_TEST)]
    if not (train or tests) and {_split_name(each) in _TRAIN for each in called} == {True, False}:
        raise InputError(f"{path}: expected folders of classes in {_names(called)}; they hold none")
    if len(train) > 1 or (tests and not train):
        raise InputError(
            f"{path}: expected one folder train beside test or val, or folders of classes alone, "
            f"got {', '.join(folder.name for folder in (*train, *tests))}"
        )
    if not train:
        return path, []
    for folder in folders:
        if folder in (*train, *tests):
            continue
        if _split_name(folder) in _TEST:  # without folders of classes, an error later
            tests.append(folder)
        elif any(_is_image(each) for each in _below(folder)):
            raise InputError(
                f"{folder}: it holds images beside {train[0].name} but is none of the splits "
                f"{', '.join(_TEST)}; call it one of them, or move it away"
            )
    return train[0], tests


def class_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder, by name.

    Raises:
        InputError: naming an image beside them.
    """
    entries = _entries(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if folders and _is_image(entry)]
    if loose:
        raise InputError(
            f"{loose[0]}: an image{_and_more(loose)} beside the folders of classes; put it into "
            "that of its class, or move it away"
        )
    return folders


def refuse_splits(root: pathlib.Path, folders: Sequence[pathlib.Path]) -> None:
    """Refuses folders that would be read as classes and look like splits, or hold some.

    Args:
        root: the whole folder.
        folders: two or more in it, or in its folder of the training classes.

    Raises:
        InputError: naming a folder in a class that is called as a split, or folders that hold the
            same two folders or more.
    """
    inside = {}
    for folder in folders:
        below = [path for path in _below(folder) if path.is_dir()]
        for path in below:
            if _split_name(path) in _TEST:
                raise InputError(
                    f"{path}: a split in the class {folder.name}; make it "
                    f"{root / path.name / folder.name}, with the images to train on in "
                    f"{root / 'train' / folder.name}, or give it another name"
                )
        if below:
            inside[folder] = {path.name for path in below}
    # Classes with images of their own may sort others into folders of the same names, by year.
    sorted_in = {each for each in inside if any(_is_image(path) for path in _entries(each))}
    for first, second in itertools.combinations(inside, 2):
        same = inside[first] & inside[second]
        if len(same) > 1 and not {first, second} <= sorted_in:
            alike = [each for each in inside if len(inside[each] & same) > 1]
            raise InputError(
                f"{first.parent}: {_names(alike)} hold folders of the same names "
                f"({', '.join(sorted(same))}). If they are splits, call one train and the other "
                "test; if they are classes, put their images into them without those folders"
            )


def find_images(
    folder: pathlib.Path, class_names: Sequence[str]
) -> tuple[list[pathlib.Path], np.ndarray]:
    """The image files of the classes, by class and name, and their labels.

    Args:
        folder: holds a folder for every class, or for some.
        class_names: names of these, in the order of the labels.

    Returns:
        Paths of N files, and their labels (N,) int32.

    Raises:
        InputError: naming a file that is neither an image of a kind that is read, nor hidden, nor
            one that describes images.
    """
    files, labels, unread = [], [], []
    for label, name in enumerate(class_names):
        for path in _below(folder / name) if (folder / name).is_dir() else ():
            suffix = path.suffix.lower()
            if path.is_dir() or suffix in _COMPANIONS:
                continue
            if suffix in SUFFIXES:
                files.append(path)
                labels.append(label)
            else:
                unread.append(path)
    if unread:
        raise InputError(
            f"{unread[0]}: files of this kind are not read{_and_more(unread)}; make it a PNG or a "
            "JPEG, or move it away"
        )
    return files, np.array(labels, np.int32)


def _split_name(folder: pathlib.Path) -> str:
    """What a folder is called, as far as that tells of which split it is."""
    return _ENDING.sub("", folder.name.lower())


def _is_image(path: pathlib.Path) -> bool:
    return path.suffix.lower() in (*SUFFIXES, *UNREADABLE) and not path.is_dir()


def _below(folder: pathlib.Path, above: tuple[pathlib.Path, ...] = ()) -> Iterator[pathlib.Path]:
    """What lies in a folder and in the folders in it, each before what it holds, by name."""
    above = (*above, folder.resolve())
    for path in _entries(folder):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:  # else a link to a folder that it lies in
            yield path
            yield from _below(path, above)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies in a folder, is not hidden and no leftover of a machine, by name."""
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.name.lower() not in _NOT_MEANT
        )
    except OSError as error:
        raise InputError(f"{folder}: expected a folder of images ({error.strerror})") from None


def _names(folders: Sequence[pathlib.Path]) -> str:
    *most, last = [folder.name for folder in folders]
    return f"{', '.join(most)} and {last}"


def _and_more(paths: Sequence[pathlib.Path]) -> str:
    return f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
