"""Records read back as they were written; what does not fit is refused by file and key."""

import copy

import pytest

from jnnk import InputError
from jnnk.runs.json_files import read_json, to_json, write_json
from jnnk.runs.records import (
    ChannelPruningResult,
    LayerRecord,
    ProtocolResult,
    PruningResult,
    Sweep,
    SweepPoint,
)

CRITERIA = ("det", "weight")
PAIR = [9, 4]
KEPT = {
    "layers": [
        {"path": "conv1/kernel", "kernels": PAIR, "filters": PAIR, "params": PAIR, "macs": PAIR}
    ],
    "kernels": PAIR, "filters": PAIR, "params": PAIR, "macs": None,
}  # fmt: skip
TUNED = {
    "accuracy_before": 0.9, "accuracy_pruned": 0.5, "accuracy_finetuned": 0.8,
    "finetune_epochs": 1, "revived_weights": 0,
}  # fmt: skip
POINTS = [
    {"share": share, "accuracy": 0.9 - share, "params": 9, "score": share} for share in (0.0, 0.5)
]
PRUNING = {
    "criterion": "random", "share_requested": 0.5,
    "sweep": {
        "images": 9, "accuracy": 0.9, "criteria": dict.fromkeys((*CRITERIA, "random"), POINTS)
    },
    "pruned": TUNED, "kept": KEPT, "latency": None, "compared_share": 0.5,
    "scores": [
        {"layer": "conv1", "criterion": name, "kernels": 9, "quantiles": [0.0, 0.1, 0.2, 0.3, 0.4]}
        for name in CRITERIA
    ],
    "thresholds": [0.1, 0.2],
    "by_threshold": [
        {"criterion": name, "layer": layer, "shares": [0.25, 0.5]}
        for name in CRITERIA for layer in (None, "conv1")
    ],
    "by_layer": [{"layer": "conv1", "kernels": 9, "det": 0.25, "weight": 0.5}],
    "agreement": [{"criteria": ["det", "weight"], "kernels": 2}],
    "eigenvalues": [
        {"layer": "conv1", "size": 3, "kernels": 9, "real": 4, "kept": 4, "kept_real": 2}
    ],
    "history": [{"epoch": 0, "real": 0.5, "det": 0.0, "weight": 0.5}],
}  # fmt: skip
CHANNELS = {
    "criterion": "l1_norm", "share": 0.5, **TUNED, "kept": KEPT,
    "latency": {"device": "cpu", "images": 64, "whole": 2.0, "compacted": 1.0},
    "compacted": {"largest_difference_of_logits": 0.0},
}  # fmt: skip
SPREADS = ("pruned", "accuracy_l1", "accuracy_pruned", "accuracy_retrained", "score")
PROTOCOL = {
    "settings": {
        "scratch": True, "epochs": 2, "retrain_epochs": 1, "optimizer": "sgd",
        "learning_rate": 0.1, "batch_size": 8, "l1": 0.001, "threshold": 0.01,
        "criteria": ["det"], "seeds": [0],
    },
    "in_paper": False,
    "trials": [
        {
            "seed": 0, "criterion": "det", "pruned": 0.5, "params": 0.5, "accuracy_l1": 0.5,
            "accuracy_pruned": 0.5, "accuracy_retrained": 0.5, "score": 0.5, "revived_weights": 0,
        }
    ],
    "summary": [
        {"criterion": "det", "seeds": 1}
        | {key: value for name in SPREADS for key, value in ((name, 0.5), (f"{name}_std", None))}
    ],
    "history": [{"epoch": 2, "real": 0.5, "det": 0.5}],
}  # fmt: skip
INTERVALS = ("redundancy", "channel_degree", "degree", "mle_dimension")
LAYER = {
    "epoch": "random", "depth": 1, "layer": "conv1", "channels": 4, "dead_channels": 0,
    "overlap": 0.5, "overlap_lower": 0.25, "overlap_upper": None, "overlap_by_chance": 0.1,
    **{name + end: 0.5 for name in INTERVALS for end in ("", "_lower", "_upper")},
    "two_nn_dimension": None, "channel_loo_error": None, "vote_loo_error": 0.5, "loo_error": 0.5,
    "converged": 1.0, "ambiguous": None,
}  # fmt: skip
RECORDS = (
    (PruningResult, PRUNING), (ChannelPruningResult, CHANNELS), (ProtocolResult, PROTOCOL),
    (LayerRecord, LAYER),
)  # fmt: skip


def read(value, kind, tmp_path):
    write_json(tmp_path / "file.json", value)
    return read_json(tmp_path / "file.json", kind=kind)


@pytest.mark.parametrize(("kind", "value"), RECORDS)
def test_a_record_is_written_as_it_was_read(kind, value, tmp_path):
    record = read(value, kind, tmp_path)
    written = to_json(record)
    assert written == value and list(written) == list(value)
    assert read(record, kind, tmp_path) == record


@pytest.mark.parametrize(("kind", "value"), RECORDS)
def test_every_key_of_a_record_is_asked_for(kind, value, tmp_path):
    optional = {"latency", "converged", "ambiguous"}  # records of earlier versions lack them
    for key in value:
        less = {name: item for name, item in value.items() if name != key}
        if key in optional:
            read(less, kind, tmp_path)
            continue
        with pytest.raises(InputError, match=rf"file.json: .*\b{key}\b"):
            read(less, kind, tmp_path)


def test_a_newer_key_is_no_criterion(tmp_path):
    newer = copy.deepcopy(PRUNING)
    for row in (*newer["by_layer"], *newer["history"]):
        row["filters"] = 0.5
    record = read(newer, PruningResult, tmp_path)
    assert record.analysis.criteria == CRITERIA
    assert record.analysis.by_layer[0].shares == {"det": 0.25, "weight": 0.5}
    assert record.history[0].shares == {"det": 0.0, "weight": 0.5}


def changed(*keys, to):
    value = copy.deepcopy(PRUNING)
    at = value
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to
    return value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (changed("by_layer", 0, "det", to="x"), r"by_layer\[0\].shares.det: expected a number"),
        (changed("by_layer", 0, to={"layer": "conv1", "kernels": 9}), "by_layer does not belong"),
        (changed("by_layer", to=[]), "by_layer does not belong"),
        (changed("by_layer", to=3), "by_layer: expected a list, got 3"),
        (changed("history", 0, to={"epoch": 0, "real": 0.5}), "history does not belong"),
        (changed("history", to=[[]]), r"history\[0\]: expected an object, got a list"),
        (changed("scores", 0, "criterion", to=1), r"scores\[0\].criterion: expected a text, got 1"),
        (changed("scores", 0, "criterion", to="x"), "by_layer does not belong to the rest"),
        (changed("scores", to="x"), "scores: expected a list, got 'x'"),
        (changed("sweep", "criteria", "det", to=[]), "sweep: criteria.det does not belong"),
        (
            changed("sweep", "criteria", "det", to=POINTS[::-1]),
            "sweep: criteria.det does not belong",
        ),
        (changed("sweep", "criteria", to={"det": POINTS}), "sweep.criteria does not belong"),
        (changed("thresholds", to=[0.2, 0.1]), "thresholds does not belong"),
        (changed("by_threshold", 0, "shares", to=[0.5]), "by_threshold does not belong"),
        (changed("agreement", 0, "criteria", to=["x"]), "agreement does not belong"),
        (changed("eigenvalues", 0, "kernels", to=0), "eigenvalues does not belong"),
        (changed("kept", "kernels", to=[1, 2]), "kept does not belong"),
        (changed("kept", "layers", 0, "path", to=None), r"kept.layers\[0\].path: expected a text"),
        (changed("pruned", "accuracy_before", to=None), "pruned.accuracy_before: expected a numb"),
    ],
)
def test_what_does_not_belong_together_is_named(value, said, tmp_path):
    with pytest.raises(InputError, match=f"file.json: {said}"):
        read(value, PruningResult, tmp_path)


def test_the_largest_share_ends_where_too_much_is_lost_once():
    lost = {0.0: 0.0, 0.1: 0.5, 0.2: 1.0, 0.3: 1.2, 0.4: 0.9}
    points = tuple(
        SweepPoint(share=share, accuracy=0.9 - points / 100, params=1, score=None)
        for share, points in lost.items()
    )
    sweep = Sweep(images=1, accuracy=0.9, criteria={"weight": points, "det": points[1:]})
    assert sweep.largest_share("weight", tolerance=1) == 0.2
    assert sweep.largest_share("weight", tolerance=2) == 0.4
    assert sweep.largest_share("det", tolerance=0.1) == 0
