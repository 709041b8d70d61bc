"""The files of ``overlap/`` in a run folder: one .npz and .json per epoch and layer measured."""

import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jnnk import measures
from jnnk._core.errors import InputError
from jnnk.files.archives import check_axes, read_archive
from jnnk.runs.json_files import read_json, write_bytes
from jnnk.runs.records import Interval, LayerMeasures, LayerRecord

RANDOM: Literal["random"] = "random"
"""In place of an epoch: a freshly initialised network, where the run has none of its own."""
Epoch = int | Literal["random"]


class LayerArrays(NamedTuple):
    """The arrays kept of one layer at one epoch."""

    # (C, C) mean Jaccard overlap of the channels' neighbourhoods, NaN for dead channels
    overlap: np.ndarray
    degree: np.ndarray  # (C,) mean NNK degree over images
    loo_error: np.ndarray  # (C,) leave-one-out error of each channel's NNK label interpolation

    AXES = {"overlap": "f C C", "degree": "f C", "loo_error": "f C"}  # noqa: RUF012


def layer_file(folder: pathlib.Path, epoch: Epoch, layer: str, kind: str) -> pathlib.Path:
    """The file of one layer's results at one epoch.

    Args:
        folder: the run folder.
        epoch: a kept epoch, or ``RANDOM``.
        layer: its name.
        kind: ``"json"``, ``"npz"``, ``"top.npz"`` or ``"pictures.npz"``.
    """
    name = layer.replace("%", "%25").replace("-", "%2D").replace("/", "-")  # one for each layer
    return epoch_folder(folder, epoch) / f"{name}.{kind}"


def epoch_folder(folder: pathlib.Path, epoch: Epoch) -> pathlib.Path:
    """The folder of one epoch's results.

    Args:
        folder: the run folder.
        epoch: a kept epoch, or ``RANDOM``.
    """
    return folder / "overlap" / (RANDOM if epoch == RANDOM else f"epoch{epoch:04d}")


def layer_measures(measured: measures.LayerMeasures) -> LayerMeasures:
    """The record of what was measured of a layer, in which None stands for what is undefined.

    Args:
        measured: of `jnnk.measures.measure_graphs`.
    """
    values: dict[str, Any] = {
        name: Interval(*map(_defined, value))
        if isinstance(value, measures.MeanInterval)
        else _defined(value)
        for name, value in measured._asdict().items()
    }
    return LayerMeasures(**values)


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_records(folder: pathlib.Path) -> list[LayerRecord]:
    """All records of a run's layers: ``RANDOM`` first, then by epoch and depth.

    Args:
        folder: the run folder.
    """
    records = [read_json(path, kind=LayerRecord) for path in (folder / "overlap").glob("*/*.json")]
    return sorted(
        records,
        key=lambda record: (-1 if record.epoch == RANDOM else record.epoch, record.depth),
    )


def last_epoch(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The records of the epoch that comes last.

    Args:
        records: in the order of training.
    """
    return [record for record in records if record.epoch == records[-1].epoch]


def by_redundancy(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The records of layers, those of the highest redundancy first; undefined ones count as 0.

    Args:
        records: of an epoch.
    """
    return sorted(records, key=lambda record: -(record.measures.redundancy.mean or 0.0))


def read_arrays(folder: pathlib.Path, record: LayerRecord) -> LayerArrays:
    """The arrays that belong to a record.

    Args:
        folder: the run folder.
        record: of a layer.

    Raises:
        InputError: if the file is missing, damaged or of another layer.
    """
    path = layer_file(folder, record.epoch, record.layer, "npz")
    arrays = read_npz(path, LayerArrays)
    live = np.isfinite(np.diagonal(arrays.overlap))
    of_live = arrays.overlap[np.ix_(live, live)]
    channels = record.measures.channels
    if len(live) != channels or not np.isfinite(of_live).all():
        raise InputError(
            f"{path}: not the overlap of the {channels} channels of {record.layer}; "
            "delete it to measure it again"
        )
    return arrays


def read_npz(path: pathlib.Path, kind: Any) -> Any:
    """The NamedTuple that an .npz holds.

    Args:
        path: the file.
        kind: the NamedTuple's class; all of its fields must be there, and have the axes that its
            ``AXES`` names, see :func:`jnnk.files.archives.check_axes`.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        arrays = read_archive(path, kind._fields)
        check_axes(path, arrays, kind.AXES)
        return kind(**arrays)
    except InputError as error:
        raise InputError(f"{error}; delete it to measure it again") from None


def write_npz(path: pathlib.Path, arrays: Any) -> None:
    """Writes a NamedTuple of arrays as .npz, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays._asdict())
    write_bytes(path, buffer.getvalue())
