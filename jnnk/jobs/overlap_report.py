"""The report's section on channel overlap, and the tables beside it in ``overlap/tables/``."""

from typing import Any

import numpy as np

from jnnk import figures
from jnnk.channel_pictures import ChannelPictures, channel_rows
from jnnk.explorers import overlap_explorer, to_html
from jnnk.jobs.output import draw, percent, save_table
from jnnk.jobs.overlap_files import RANDOM, last_epoch, layer_file, read_npz
from jnnk.jobs.top_images import Images, data_uri, read_top_images
from jnnk.report import Drawing, Section, click_pictures
from jnnk.runs import Run, read_json, to_json, write_bytes
from jnnk.tables import to_csv

# What keeps the page below 8 MiB, Plotly's 4.6 included.
_LARGEST_EXPLORED = 128  # channels of a layer whose heat map is interactive
_IMAGE_BUDGET = 2**20  # characters of all channels' top images
_PAIRS = 2000  # rows of the table of pairs; overlap/tables/ has them all

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
    records, matrices = results["overlap"], results["overlap_matrices"]
    if not records:
        return []
    save_tables(run, records, matrices)
    settings = read_json(run.path / "overlap" / "settings.json")
    last = last_epoch(records)
    lowest = min(last, key=lambda record: record["loo_error"])
    return [
        Section(
            "Which channels say the same?",
            f"NNK graphs of {settings['images']} training images a channel "
            f"({settings['similarity']} similarity, K = {settings['neighbors']}). Overlap is the "
            "mean Jaccard index of two channels' neighbourhoods, 0 where they share none.",
            [
                _explorer(run, last, matrices),
                _heat_maps(run, last, matrices),
                *_pictures(run, last, matrices),
            ],
        ),
        Section(
            "How does redundancy change with depth and training?",
            "The table shows the last epoch. The whole layer with the lowest leave-one-out error "
            f"is {lowest['layer']}, with {percent(lowest['loo_error'])}.",
            _measures(run, records),
            (list(_COLUMNS.values()), [[record[field] for field in _COLUMNS] for record in last]),
        ),
    ]


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


def _measures(run: Run, records: list[dict]) -> list[Drawing]:
    """The measures against depth and, with more than one epoch of training, against the epoch."""
    epochs = list(dict.fromkeys(record["epoch"] for record in records))
    has_own_start = run.config["weights"] is None and RANDOM not in epochs
    control = 0 if has_own_start else RANDOM
    by_depth = draw(
        run,
        "measures_by_depth",
        figures.measures_by_depth(records, control=control),
        "Mean overlap of channel pairs, redundancy of the layer's channels, NNK degrees, dimension "
        "and leave-one-out error of the whole layer, against depth; bars are 95 % bootstrap "
        "intervals over images, and the dashed line is the same network with random weights (seed "
        f"{run.config['seed']}) on the same images.",
        records,
    )
    trained = [record for record in records if record["epoch"] != RANDOM]
    if len(set(epochs) - {RANDOM}) < 2:
        return [by_depth]
    by_epoch = draw(
        run,
        "overlap_by_epoch",
        figures.measures_by_epoch(trained),
        "The same in every layer as training goes on.",
        trained,
    )
    return [by_depth, by_epoch]


def _heat_maps(run: Run, last: list[dict], matrices: dict[str, np.ndarray]) -> Drawing:
    return draw(
        run,
        "overlap_heat_maps",
        figures.overlap_heat_maps(matrices),
        f"Overlap of every pair of channels at epoch {last[0]['epoch']}, channels in the order of "
        "their average-linkage clustering, whose tree stands at the left; dead channels come last, "
        "in grey.",
        _most_overlapping(matrices),
    )


def _explorer(run: Run, last: list[dict], matrices: dict[str, np.ndarray]) -> Drawing:
    """The interactive heat map, with the images of every channel where the folder has them."""
    most = max(last, key=lambda record: record["redundancy"] or 0.0)["layer"]
    shown = {
        layer: matrix
        for layer, matrix in matrices.items()
        if layer == most or len(matrix) <= _LARGEST_EXPLORED
    }
    content = to_html(overlap_explorer(shown, first=most), "overlap_explorer")
    caption = "Hover to see which two channels a cell compares"
    found = read_top_images(run, last[0]["epoch"], list(shown))
    if found is not None:
        content += click_pictures(*_within_budget(*found))
        caption += ", click to see what they answer to most"
    caption += "; the menu chooses the layer."
    if len(shown) < len(matrices):
        caption += f" Layers of more than {_LARGEST_EXPLORED} channels stand in overlap/tables/."
    return Drawing("overlap_explorer", content, caption, to_csv(_most_overlapping(matrices)))


def _within_budget(
    rows: dict[str, np.ndarray], kept: Images
) -> tuple[dict[str, str], dict[str, list[list[int]]]]:
    """The images as data URIs, and each channel's; the deepest layers as long as there is room."""
    by_row = dict(zip(kept.rows.tolist(), kept.images, strict=True))
    encoded: dict[str, str] = {}
    layers = {}
    for layer in reversed(rows):
        new = {str(row): by_row[row] for row in np.unique(rows[layer]).tolist()}
        encoded |= {row: data_uri(new[row]) for row in new.keys() - encoded.keys()}
        if sum(map(len, encoded.values())) > _IMAGE_BUDGET:
            break
        layers[layer] = rows[layer].tolist()
    needed = {str(row) for channels in layers.values() for top in channels for row in top}
    return {row: encoded[row] for row in sorted(needed, key=int)}, layers


def _most_overlapping(matrices: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The pairs of live channels of all layers, those that overlap most first, up to a limit."""
    records = []
    for layer, matrix in matrices.items():
        pairs = np.argwhere(np.triu(np.isfinite(matrix), 1))
        values = matrix[tuple(pairs.T)]
        for index in np.argsort(-values, kind="stable")[:_PAIRS]:
            first, second = pairs[index].tolist()
            overlap = round(float(values[index]), 6)
            records.append({"layer": layer, "channel": first, "other": second, "overlap": overlap})
    records.sort(key=lambda record: -record["overlap"])
    return records[:_PAIRS] or [{"layer": None, "channel": None, "other": None, "overlap": None}]


def _pictures(run: Run, last: list[dict], matrices: dict[str, np.ndarray]) -> list[Drawing]:
    """A picture for each layer of which channels were chosen."""
    drawn = []
    for record in last:
        layer = record["layer"]
        path = layer_file(run.path, record["epoch"], layer, "pictures.npz")
        if path.exists():
            pictures = read_npz(path, ChannelPictures)
            names = ", ".join(map(str, pictures.channels))
            drawn.append(
                draw(
                    run,
                    f"channels_{layer.replace('/', '-')}",
                    channel_rows(layer, pictures, matrices[layer]),
                    f"Images with the largest mean activation in channels {names} of {layer}, and "
                    "one image with its NNK neighbours in each of them, the weight below each.",
                    [
                        {"channel": channel, "place": place + 1, "largest_mean_activation": mean}
                        for channel, means in zip(
                            pictures.channels.tolist(), pictures.top_means.tolist(), strict=True
                        )
                        for place, mean in enumerate(means)
                    ],
                )
            )
    return drawn
