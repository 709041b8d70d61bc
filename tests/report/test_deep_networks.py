"""Figures and the report's page of a network of 110 layers, from made-up results."""

import dataclasses
import itertools

import numpy as np
import pytest

from jnnk.files.schema import conform
from jnnk.jobs.report import report
from jnnk.report import output
from jnnk.report.figures import comparison as compare_figures
from jnnk.report.figures import overlap as overlap_figures
from jnnk.report.figures import overview as figures
from jnnk.report.figures import pruning as pruning_figures
from jnnk.report.figures.layers import MOST_LINES, MOST_NAMES
from jnnk.runs.folder import create_run
from jnnk.runs.json_files import to_json, write_json
from jnnk.runs.overlap_files import LayerArrays, last_epoch, layer_file, write_npz
from jnnk.runs.records import LayerRecord, PruningResult
from jnnk.runs.settings import PruneConfig, TrainConfig
from jnnk.runs.study_records import EpochErrors, NetworkEpoch, PairLayer

LAYERS = {
    f"layer{stage}_{block}/conv{conv}": 8 * 2**stage
    for stage, block, conv in itertools.product((1, 2, 3), range(18), (1, 2))
} | {"last1": 64, "last2": 64}  # fmt: skip
EPOCHS = (0, 5, 20, 80)
CRITERIA = ("det", "det_gram", "min_eig", "spectral_radius", "spectral_norm", "weight")
MEASURES = ("overlap", "redundancy", "channel_degree", "degree", "mle_dimension")
ERRORS = ("channel_loo_error", "vote_loo_error", "loo_error")


@pytest.fixture(scope="module")
def overlap():
    draw, records = np.random.default_rng(0), []
    for epoch, (depth, (layer, channels)) in itertools.product(EPOCHS, enumerate(LAYERS.items())):
        record = {"epoch": epoch, "depth": depth, "layer": layer, "channels": channels}
        record |= {"dead_channels": 0, "overlap_by_chance": draw.random(), "converged": 1.0}
        record["two_nn_dimension"] = draw.random()
        for name in MEASURES:
            lower, mean, upper = sorted(draw.random(3))
            record |= {name: mean, f"{name}_lower": lower, f"{name}_upper": upper}
        record |= dict(zip(ERRORS, draw.random(3), strict=True))
        records.append(conform(to_json(record), LayerRecord))
    return records


@pytest.fixture(scope="module")
def pruning():
    draw = np.random.default_rng(1)
    pairs = list(itertools.product(LAYERS, CRITERIA))
    points = [
        {"share": s, "accuracy": 0.9 - s / 9, "params": 9, "score": s} for s in (0.0, 0.1, 0.5)
    ]
    counts = {name: [2000, 1000] for name in ("kernels", "filters", "params", "macs")}
    record = {
        "criterion": "det", "share_requested": 0.5, "compared_share": 0.5,
        "sweep": {"images": 100, "accuracy": 0.9, "criteria": dict.fromkeys(CRITERIA, points)},
        "pruned": {"accuracy_before": 0.9, "accuracy_pruned": 0.8, "accuracy_finetuned": 0.9,
                   "finetune_epochs": 1, "revived_weights": 0},
        "kept": counts | {"layers": [{"path": f"{layer}/kernel", **counts} for layer in LAYERS]},
        "scores": [
            {"layer": layer, "criterion": name, "kernels": 9, "quantiles": sorted(draw.random(5))}
            for layer, name in pairs
        ],
        "thresholds": np.logspace(-6, 0, 61),
        "by_threshold": [
            {"criterion": name, "layer": layer, "shares": np.sort(draw.random(61))}
            for layer, name in [*itertools.product([None], CRITERIA), *pairs]
        ],
        "by_layer": [
            {"layer": layer, "kernels": 9, **dict(zip(CRITERIA, draw.random(6), strict=True))}
            for layer in LAYERS
        ],
        "agreement": [{"criteria": list(CRITERIA), "kernels": 9}],
        "eigenvalues": [
            {"layer": layer, "size": 3, "kernels": 9, "real": 5, "kept": 7, "kept_real": 3}
            for layer in LAYERS
        ],
        "history": [{"epoch": 80, "real": 0.5, **dict.fromkeys(CRITERIA, 0.5)}],
    }  # fmt: skip
    return conform(to_json(record), PruningResult)


@pytest.mark.thorough
def test_the_report_stays_below_8_mib(tmp_path, overlap, pruning, monkeypatch):
    monkeypatch.setattr(output, "figure_bytes", _only_vectors)
    run = create_run(tmp_path / "run", TrainConfig()._asdict())
    settings = {"images": 1000, "neighbors": 25, "similarity": "gaussian"}
    write_json(run.path / "overlap" / "settings.json", settings)
    draw = np.random.default_rng(2)
    for record in overlap:
        place = (run.path, record.epoch, record.layer)
        write_json(layer_file(*place, "json"), record)
        channels = record.measures.channels
        if record.epoch == EPOCHS[-1]:
            matrix = draw.random((channels, channels))
            arrays = LayerArrays((matrix + matrix.T) / 2, matrix[0], matrix[1])
            write_npz(layer_file(*place, "npz"), arrays)
    write_json(run.path / "prune" / "result.json", pruning)
    write_json(run.path / "prune" / "settings.json", PruneConfig(criteria=CRITERIA, share=0.5))
    page = report(run).read_text()
    assert len(page.encode()) < 7.5 * 2**20
    assert "in 12 of the 110 layers" in page and "bands are 95 %" in page
    assert all(page.count(f"<td>{layer}</td>") == 1 for layer in LAYERS)
    assert (run.path / "figures" / "overlap_by_epoch.csv").read_text().count("\n") == 441


def _only_vectors(figure, kind, whole=output.figure_bytes):
    return whole(figure, kind) if kind == "svg" else b""  # PNGs are no part of the page


def test_no_more_names_than_an_axis_has_room_for(overlap, pruning):
    of_last = last_epoch(overlap)
    pruned = [
        figures.LayerOverview(each.layer, each.measures.redundancy.mean, 9, 5) for each in of_last
    ]
    pair = [PairLayer(network="a", test_accuracy=0.5, layer=each) for each in of_last]
    for figure in (
        figures.redundancy_and_pruning(pruned),
        figures.measures_by_depth(overlap),
        overlap_figures.pair_by_depth(pair),
        compare_figures.overlap_by_depth({"a": of_last}),
        pruning_figures.kernel_score_ranges(pruning.analysis.scores, criterion="det"),
        pruning_figures.eigenvalue_kinds(pruning.analysis.eigenvalues, chance=0.3),
        pruning_figures.pruned_by_layer(pruning.analysis.by_layer, criteria=CRITERIA),
    ):
        named = [axis for axis in figure.axes if axis.get_xlabel().startswith("layer")]
        assert named and figure.get_size_inches()[0] <= 10
        for axis in named:
            names = [tick.get_text() for tick in axis.get_xticklabels()]
            assert names[0] == next(iter(LAYERS)) and set(names) < set(LAYERS)
            assert MOST_NAMES / 2 < len(names) <= MOST_NAMES


def test_lines_of_a_dozen_layers_reach_from_first_to_last(overlap):
    number = len(LAYERS)
    errors = dict.fromkeys([each.name for each in dataclasses.fields(EpochErrors)])
    by_epoch = [
        NetworkEpoch(
            network="a", epoch=epoch,
            errors=EpochErrors(
                **{**errors, "layers": overlap[number * n : number * (n + 1)]}
            ),
        )
        for n, epoch in enumerate(EPOCHS)
    ]  # fmt: skip
    for figure in (figures.measures_by_epoch(overlap), overlap_figures.layers_by_epoch(by_epoch)):
        (legend,) = figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert len(names) == MOST_LINES and legend.get_title().get_text() == "12 of 110 layers"
        places = [list(LAYERS).index(name) for name in names]
        assert (places[0], places[-1]) == (0, number - 1)
        assert set(np.diff(places)) <= {9, 10}
