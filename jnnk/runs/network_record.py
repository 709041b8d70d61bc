"""Which network of a person's own a run folder is of: noted once, compared whenever it is opened.

``network.json`` holds the name that was typed, a fingerprint of the file that the factory is
written in, and names, shapes and dtypes of the variables. Nothing is ever imported by it.
"""

import hashlib
import pathlib
from dataclasses import dataclass
from typing import Any

from jnnk._core.errors import InputError
from jnnk.network._names import PyTree, named_leaves
from jnnk.runs.json_files import read_json, write_json

_FILE = "network.json"
_SHOWN = 3  # differences that are told


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file that a factory is written in."""

    file: str  # its name
    blake2b: str  # of its bytes, 32 hexadecimal digits


@dataclass(frozen=True, kw_only=True)
class Variable:
    """An array of a network."""

    shape: tuple[int, ...]  # of the array
    dtype: str  # as NumPy names it


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """A network of a person's own."""

    model: str  # `package.module:factory`
    source: Source | None  # None where the factory has no file
    variables: dict[str, Variable]  # by the names of the leaves


def network_record(name: str, source: str | None, variables: PyTree) -> NetworkRecord:
    """The record of a network.

    Args:
        name: as it was typed.
        source: path of the factory's file; None if it has none.
        variables: of the network, or their shapes and dtypes.
    """
    found = None
    if source is not None and pathlib.Path(source).is_file():
        path = pathlib.Path(source)
        found = Source(
            file=path.name, blake2b=hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        )
    return NetworkRecord(
        model=name,
        source=found,
        variables={
            name: Variable(shape=tuple(leaf.shape), dtype=str(leaf.dtype))
            for name, leaf in named_leaves(variables).items()
        },
    )


def check_network(folder: pathlib.Path, record: NetworkRecord) -> list[str]:
    """Compares a network with the one that a run folder is of; what to tell of it.

    Args:
        folder: the run folder; one without a record has nothing to compare with.
        record: of the network that was made now.

    Raises:
        InputError: if the run is of a network of another name, or with other variables.
    """
    path = folder / _FILE
    if not path.exists():
        return []
    found: NetworkRecord = read_json(path, kind=NetworkRecord)
    if found.model != record.model:
        raise InputError(f"{folder}: this run's network is {found.model}, not {record.model}")
    if changes := _changes(found.variables, record.variables):
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise InputError(
            f"{folder}: {record.model} makes another network than this run is of: "
            f"{', '.join(changes[:_SHOWN])}{more}"
        )
    if found.source == record.source:
        return []
    file = found.source or record.source
    assert file is not None
    return [f"{file.file} has changed since this run was made; its variables are the same"]


def record_network(folder: pathlib.Path, record: NetworkRecord) -> list[str]:
    """The same as :func:`check_network`, after noting the network where nothing is noted.

    Args:
        folder: the run folder.
        record: of the network.
    """
    if not (folder / _FILE).exists():
        write_json(folder / _FILE, record)
    return check_network(folder, record)


def _changes(found: dict[str, Variable], now: dict[str, Variable]) -> list[str]:
    """The variables that differ, each in words."""
    return [
        f"{name} {_in_words(found.get(name))} -> {_in_words(now.get(name))}"
        for name in dict.fromkeys((*found, *now))
        if found.get(name) != now.get(name)
    ]


def _in_words(variable: Variable | Any) -> str:
    return "none" if variable is None else f"{variable.dtype}{list(variable.shape)}"
