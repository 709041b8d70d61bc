"""The levers on the command line: names, and one run that uses all three."""

import json
import shutil

import pytest

from jnnk.cli import main
from jnnk.jobs.stopping import STOPPING
from jnnk.penalties import PENALTIES
from jnnk.pruning import CHANNEL_CRITERIA
from jnnk.runs import settings as config
from jnnk.runs.json_files import read_json_lines


def test_the_options_name_what_the_tables_hold():
    assert tuple(CHANNEL_CRITERIA) == config.CHANNEL_CRITERIA
    assert tuple(STOPPING) == config.STOPPING_RULES
    assert tuple(PENALTIES) == config.REGULARIZERS


@pytest.mark.thorough
def test_a_run_is_regularised_stopped_and_loses_channels(tmp_path):
    run = tmp_path / "run"
    train = [
        "train", "--epochs", "2", "--batch-size", "128", "--regularizer", "decorrelation",
        "--regularizer-layers", "layer3*", "--stop", "validation", "--patience", "1",
    ]  # fmt: skip
    assert main([*train, "--out", str(run)]) == 0
    epochs = read_json_lines(run / "metrics.jsonl")
    assert all(epoch["penalty"] > 0 and "errors" in epoch for epoch in epochs)
    assert main(["prune", str(run), "--channels", "l1_norm", "--share", "0.5"]) == 0
    record = json.loads((run / "channels/l1_norm/result.json").read_text())
    whole, kept = record["kept"]["macs"]
    assert 0.4 * whole < kept < 0.7 * whole
    assert record["revived_weights"] == 0
    assert record["compacted"]["largest_difference_of_logits"] < 1e-3


@pytest.mark.thorough
def test_a_run_is_pruned_by_taylor(tmp_path):
    run = tmp_path / "run"
    assert main(["train", "--epochs", "0", "--batch-size", "128", "--out", str(run)]) == 0
    by_taylor = [
        "prune", str(run), "--channels", "taylor", "--layer-shares", "layer3*=0.3", "--round-to",
        "8", "--finetune-epochs", "0",
    ]  # fmt: skip
    assert main(by_taylor) == 0
    record = json.loads((run / "channels/taylor/result.json").read_text())
    filters = {layer["path"]: layer["filters"] for layer in record["kept"]["layers"]}
    kept = [filters[f"layer{stage}_0/conv1/kernel"][1] for stage in (1, 2, 3)]
    assert kept == [8, 16, 48]  # half of 16 and 32; 45 of 64 rounded up
    assert main([*by_taylor[:4], "--layer-shares", "layer9*=0.3"]) == 2
    kernels = ["--criterion", "taylor", "--share", "0.3"]
    few = ["--sweep-images", "50", "--finetune-epochs", "0"]
    for criteria in (["taylor"], ["taylor", "weight"]):
        shutil.rmtree(run / "prune", ignore_errors=True)
        assert main(["prune", str(run), *kernels, "--criteria", *criteria, *few]) == 0
        record = json.loads((run / "prune/result.json").read_text())
        whole, left = record["kept"]["kernels"]
        assert record["criterion"] == "taylor" and whole - left == round(0.3 * whole - 0.5)
    assert set(record["sweep"]["criteria"]) == {"taylor", "weight"}
    points = {name: each[6] for name, each in record["sweep"]["criteria"].items()}
    assert points["taylor"]["params"] == points["weight"]["params"]


def test_bad_levers_are_named(tmp_path, capsys):
    assert main(["train", "--patience", "0", "--out", str(tmp_path / "run")]) == 2
    assert "--patience: expected a whole number from 1" in capsys.readouterr().err
    for wrong in (["--round-to", "0"], ["--layer-shares", "layer1*"], ["--layer-shares", "a=1"]):
        assert main(["prune", str(tmp_path), "--channels", "taylor", *wrong]) == 2
