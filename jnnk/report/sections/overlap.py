"""The report's section on channel overlap, and the tables beside it in ``overlap/tables/``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jnnk._core.errors import InputError
from jnnk.report.explorers import overlap_explorer, to_html
from jnnk.report.figures import overview as figures
from jnnk.report.figures.channels import ChannelPictures, channel_rows
from jnnk.report.figures.layers import MOST_LINES
from jnnk.report.figures.style import MOST_POINTS
from jnnk.report.output import draw, percent, save_table
from jnnk.report.page import Drawing, Section, click_pictures
from jnnk.report.tables import to_csv
from jnnk.report.top_images import Images, data_uri, read_top_images
from jnnk.runs.folder import Run
from jnnk.runs.json_files import read_json, to_json, write_bytes
from jnnk.runs.overlap_files import RANDOM, by_redundancy, last_epoch, layer_file, read_npz
from jnnk.runs.records import LayerRecord, OverlapSettings
from jnnk.runs.settings import TrainConfig

# What keeps the page below 8 MiB, Plotly's 4.6 included.
_CELL_BUDGET = 100_000  # of all layers' interactive heat maps
_LAYERS_DRAWN = 12  # heat maps that do not move
_IMAGE_BUDGET = 2**19  # characters of all channels' top images
_PICTURE_BUDGET = 2**18  # characters of the pictures of chosen channels; figures/ has them all
_AMBIGUOUS = 0.05  # share of a layer's neighbourhoods from which on the report says it
_PAIRS = 2000  # rows of the table of pairs; overlap/tables/ has them all

_HEADER = (
    "layer", "channels", "dead", "overlap", "by chance", "redundancy", "degree, channel",
    "degree, layer", "dimension", "error (%), channel", "error (%), vote", "error (%), layer",
)  # fmt: skip


def overlap_sections(
    run: Run,
    config: TrainConfig,
    records: Sequence[LayerRecord],
    matrices: dict[str, np.ndarray],
) -> list[Section]:
    """Figures and tables of the measurements, and what the report says of them.

    Args:
        run: the run folder.
        config: how it was trained.
        records: of all epochs and layers measured.
        matrices: layer name to (C, C), of the last epoch.
    """
    if not records:
        return []
    save_tables(run, records, matrices)
    settings = read_json(run.path / "overlap" / "settings.json", kind=OverlapSettings)
    last = last_epoch(records)
    lowest = min(last, key=lambda record: record.measures.loo_error)
    return [
        Section(
            "Which channels say the same?",
            f"NNK graphs of {settings.images} training images (all, where there are fewer) a "
            f"channel, {settings.similarity} similarity, K = {settings.neighbors}. Overlap "
            "is the mean Jaccard index of two channels' neighbourhoods, 0 where they share none."
            f"{_ambiguity(last)}",
            [
                *_explorer(run, last, matrices),
                _heat_maps(run, last, matrices),
                *_that_fit(_pictures(run, last, matrices)),
            ],
        ),
        Section(
            "How does redundancy change with depth and training?",
            "The table shows the last epoch, its leave-one-out errors those of a channel on its "
            "own, of all channels' vote and of the whole layer. The layer with the lowest is "
            f"{lowest.layer}, with {percent(lowest.measures.loo_error)}.",
            _measures(run, config, records),
            (_HEADER, [_row(record) for record in last]),
        ),
    ]


def save_tables(run: Run, records: Sequence[LayerRecord], matrices: dict[str, np.ndarray]) -> None:
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


def _ambiguity(last: Sequence[LayerRecord]) -> str:
    """What the report says of ambiguous neighbourhoods, nothing where there are few."""
    shares = {record.layer: record.measures.ambiguous or 0.0 for record in last}
    most = max(shares, key=shares.__getitem__)
    if shares[most] < _AMBIGUOUS:
        return ""
    return (
        f" {percent(shares[most])} of the neighbourhoods of {most} are ambiguous, the most of all "
        "layers: other images explain theirs as well, or rounding decides which do."
    )


def _row(record: LayerRecord) -> list[Any]:
    """A layer's cells of the table, errors in percent."""
    found = record.measures
    channel_error = found.channel_loo_error
    return [
        record.layer,
        found.channels,
        found.dead_channels,
        found.overlap.mean,
        found.overlap_by_chance,
        found.redundancy.mean,
        found.channel_degree.mean,
        found.degree.mean,
        found.mle_dimension.mean,
        None if channel_error is None else 100 * channel_error,
        100 * found.vote_loo_error,
        100 * found.loo_error,
    ]


def _measures(run: Run, config: TrainConfig, records: Sequence[LayerRecord]) -> list[Drawing]:
    """The measures against depth and, with more than one epoch of training, against the epoch."""
    epochs = list(dict.fromkeys(record.epoch for record in records))
    has_own_start = config.weights is None and RANDOM not in epochs
    control = 0 if has_own_start else RANDOM
    layers = len({record.layer for record in records})
    limits = "bands" if layers > MOST_POINTS else "bars"
    by_depth = draw(
        run,
        "measures_by_depth",
        figures.measures_by_depth(records, control=control),
        "Mean overlap of channel pairs, redundancy of the layer's channels, NNK degrees, dimension "
        f"and leave-one-out error of the whole layer, against depth; {limits} are 95 % bootstrap "
        "intervals over images, and the dashed line is the same network with random weights (seed "
        f"{config.seed}) on the same images.",
        records,
    )
    trained = [record for record in records if record.epoch != RANDOM]
    if len(set(epochs) - {RANDOM}) < 2:
        return [by_depth]
    by_epoch = draw(
        run,
        "overlap_by_epoch",
        figures.measures_by_epoch(trained),
        "The same in every layer as training goes on."
        if layers <= MOST_LINES
        else f"The same as training goes on, in {MOST_LINES} of the {layers} layers, evenly "
        "spaced in depth; the numbers are of all.",
        trained,
    )
    return [by_depth, by_epoch]


def _heat_maps(run: Run, last: Sequence[LayerRecord], matrices: dict[str, np.ndarray]) -> Drawing:
    """The overlap of every pair of channels, of the most redundant layers where they are many."""
    caption = (
        f"Overlap of every pair of channels at epoch {last[0].epoch}, channels in the order of "
        "their average-linkage clustering, whose tree stands at the left; dead channels come last, "
        "in grey."
    )
    shown = matrices
    if len(matrices) > _LAYERS_DRAWN:
        most = by_redundancy(last)[:_LAYERS_DRAWN]
        shown = {record.layer: matrices[record.layer] for record in most}
        caption += f" Here the {_LAYERS_DRAWN} most redundant layers; overlap/tables/ has all."
    figure = figures.overlap_heat_maps(shown)
    return draw(run, "overlap_heat_maps", figure, caption, _most_overlapping(matrices))


def _explorer(
    run: Run, last: Sequence[LayerRecord], matrices: dict[str, np.ndarray]
) -> list[Drawing]:
    """The interactive heat map, with the images of every channel where the folder has them.

    Of a large network it has the most redundant layers there is room for; a network whose layers
    are all too large has none.
    """
    ranked, left = [], _CELL_BUDGET
    for record in by_redundancy(last):
        if matrices[record.layer].size <= left:
            ranked.append(record.layer)
            left -= matrices[record.layer].size
    if not ranked:
        return []
    most = ranked[0]
    shown = {layer: matrix for layer, matrix in matrices.items() if layer in ranked}
    content = to_html(overlap_explorer(shown, first=most), "overlap_explorer")
    caption = "Hover to see which two channels a cell compares"
    found = read_top_images(run, last[0].epoch, list(shown))
    if found is not None:
        content += click_pictures(*_within_budget(*found))
        caption += ", click to see what they answer to most"
    caption += "; the menu chooses the layer."
    if len(shown) < len(matrices):
        caption += (
            f" It has the most redundant layers that the page has room for, {len(shown)} of "
            f"{len(matrices)}; overlap/tables/ has all."
        )
    return [Drawing("overlap_explorer", content, caption, to_csv(_most_overlapping(matrices)))]


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


@dataclass(frozen=True)
class _ChannelPair:
    """A row of the table of pairs; nothing but None where no layer has two live channels."""

    layer: str | None = None
    channel: int | None = None
    other: int | None = None
    overlap: float | None = None


def _most_overlapping(matrices: dict[str, np.ndarray]) -> list[_ChannelPair]:
    """The pairs of live channels of all layers, those that overlap most first, up to a limit."""
    found = []
    for layer, matrix in matrices.items():
        pairs = np.argwhere(np.triu(np.isfinite(matrix), 1))
        values = matrix[tuple(pairs.T)]
        for index in np.argsort(-values, kind="stable")[:_PAIRS]:
            first, second = pairs[index].tolist()
            found.append(_ChannelPair(layer, first, second, round(float(values[index]), 6)))
    found.sort(key=lambda pair: -pair.overlap)
    return found[:_PAIRS] or [_ChannelPair()]


def _pictures(
    run: Run, last: Sequence[LayerRecord], matrices: dict[str, np.ndarray]
) -> list[Drawing]:
    """A picture for each layer of which channels were chosen."""
    drawn = []
    for record in last:
        layer = record.layer
        path = layer_file(run.path, record.epoch, layer, "pictures.npz")
        if path.exists():
            pictures = read_npz(path, ChannelPictures)
            if not np.isin(pictures.channels, np.arange(len(matrices[layer]))).all():
                raise InputError(f"{path}: of channels that {layer} has not; delete it")
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


def _that_fit(drawn: list[Drawing]) -> list[Drawing]:
    """The first of the pictures, as many as the page has room for, and where the others are."""
    sizes = np.cumsum([len(drawing.content) for drawing in drawn])
    shown = drawn[: max(1, np.searchsorted(sizes, _PICTURE_BUDGET, side="right"))]
    if len(shown) < len(drawn):
        caption = (
            f"{shown[-1].caption} figures/ has those of {len(drawn) - len(shown)} more layers."
        )
        shown[-1] = shown[-1]._replace(caption=caption)
    return shown
