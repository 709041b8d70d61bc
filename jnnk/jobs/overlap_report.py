"""The report's section on channel overlap, and the tables beside it in ``overlap/tables/``."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jnnk import figures
from jnnk.channel_pictures import ChannelPictures, channel_rows
from jnnk.jobs.output import percent, save_figure, save_table
from jnnk.jobs.overlap_files import RANDOM, layer_file, read_npz
from jnnk.report import Section
from jnnk.runs import Run, read_json, to_json, write_bytes
from jnnk.tables import to_csv

_COLUMNS = {
    "layer": "layer",
    "channels": "channels",
    "dead_channels": "dead",
    "overlap": "overlap",
    "overlap_by_chance": "by chance",
    "redundancy": "redundancy",
    "channel_degree": "degree, channels",
    "degree": "degree, layer",
    "mle_dimension": "dimension (MLE)",
    "channel_loo_error": "LOO error, channels",
    "vote_loo_error": "channels' vote",
    "loo_error": "layer",
}


def overlap_sections(run: Run, results: dict[str, Any]) -> list[Section]:
    """Figures and tables of the measurements, and what the report says of them.

    Args:
        run: the run folder.
        results: of `jnnk.jobs.report.collect`.
    """
    records = results["overlap"]
    if not records:
        return []
    save_tables(run, records, results["overlap_matrices"])
    settings = read_json(run.path / "overlap" / "settings.json")
    last = last_epoch(records)
    lowest = min(last, key=lambda record: record["loo_error"])
    return [
        Section(
            "Which channels say the same?",
            f"NNK graphs of {settings['images']} training images a channel "
            f"({settings['similarity']} similarity, K = {settings['neighbors']}). Overlap is the "
            "mean Jaccard index of two channels' neighbourhoods; the table shows the last epoch. "
            f"The whole layer with the lowest leave-one-out error is {lowest['layer']}, with "
            f"{percent(lowest['loo_error'])}.",
            [
                *_measures(run, records),
                _heat_maps(run, last, results["overlap_matrices"]),
                *_pictures(run, last, results["overlap_matrices"]),
            ],
            (list(_COLUMNS.values()), [[record[field] for field in _COLUMNS] for record in last]),
        )
    ]


def last_epoch(records: list[dict]) -> list[dict]:
    """The records of the epoch that comes last.

    Args:
        records: in the order of training.
    """
    return [record for record in records if record["epoch"] == records[-1]["epoch"]]


def save_tables(run: Run, records: list[dict], matrices: dict[str, np.ndarray]) -> None:
    """Writes all records as CSV and LaTeX, and the matrices of the last epoch as CSV.

    Args:
        run: the run folder.
        records: an epoch and layer each.
        matrices: layer name to (C, C); dead channels have empty cells.
    """
    folder = run.path / "overlap" / "tables"
    caption = "Channel overlap, redundancy, dimension and leave-one-out error by epoch and layer."
    save_table(folder, "measures", records, caption=caption)
    for layer, matrix in matrices.items():
        rows = [
            {"channel": channel, **dict(enumerate(row))}
            for channel, row in enumerate(to_json(matrix))
        ]
        write_bytes(folder / f"overlap_{layer.replace('/', '-')}.csv", to_csv(rows).encode())


def _measures(run: Run, records: list[dict]) -> list[tuple[str, bytes, str]]:
    """The measures against depth and, with more than one epoch of training, against the epoch."""
    epochs = list(dict.fromkeys(record["epoch"] for record in records))
    has_own_start = run.config["weights"] is None and RANDOM not in epochs
    control = 0 if has_own_start else RANDOM
    by_depth = _save(
        run,
        "measures_by_depth",
        figures.measures_by_depth(records, control=control),
        "Mean overlap of channel pairs, redundancy of the layer's channels, NNK degrees, dimension "
        "and leave-one-out error of the whole layer, against depth; bars are 95 % bootstrap "
        "intervals over images, and the dashed line is the same network with random weights (seed "
        f"{run.config['seed']}) on the same images.",
    )
    trained = [record for record in records if record["epoch"] != RANDOM]
    if len(set(epochs) - {RANDOM}) < 2:
        return [by_depth]
    by_epoch = _save(
        run,
        "overlap_by_epoch",
        figures.measures_by_epoch(trained),
        "The same in every layer as training goes on.",
    )
    return [by_depth, by_epoch]


def _heat_maps(run: Run, last: list[dict], matrices: dict[str, np.ndarray]):
    return _save(
        run,
        "overlap_heat_maps",
        figures.overlap_heat_maps(matrices),
        f"Overlap of every pair of channels at epoch {last[0]['epoch']}, channels in the order of "
        "their average-linkage clustering, whose tree stands at the left; dead channels come last, "
        "in grey.",
    )


def _pictures(
    run: Run, last: list[dict], matrices: dict[str, np.ndarray]
) -> list[tuple[str, bytes, str]]:
    """A picture for each layer of which channels were chosen."""
    drawn = []
    for record in last:
        layer = record["layer"]
        path = layer_file(run.path, record["epoch"], layer, "pictures.npz")
        if path.exists():
            pictures = read_npz(path, ChannelPictures)
            names = ", ".join(map(str, pictures.channels))
            drawn.append(
                _save(
                    run,
                    f"channels_{layer.replace('/', '-')}",
                    channel_rows(layer, pictures, matrices[layer]),
                    f"Images with the largest mean activation in channels {names} of {layer}, and "
                    "one image with its NNK neighbours in each of them, the weight below each.",
                )
            )
    return drawn


def _save(run: Run, name: str, figure: Figure, caption: str) -> tuple[str, bytes, str]:
    """Writes the figure; returns what a section needs."""
    return name, save_figure(run.path / "figures", name, figure), caption
