"""The levers on the command line: names, and one run that uses all three."""

import json

import pytest

from jnnk.channel_pruning import CHANNEL_CRITERIA
from jnnk.cli import main
from jnnk.jobs import config
from jnnk.jobs.stopping import STOPPING
from jnnk.regularizers import PENALTIES
from jnnk.runs import read_json_lines

pytestmark = pytest.mark.quick_compile


def test_the_options_name_what_the_tables_hold():
    assert tuple(CHANNEL_CRITERIA) == config.CHANNEL_CRITERIA
    assert tuple(STOPPING) == config.STOPPING_RULES
    assert tuple(PENALTIES) == config.REGULARIZERS


@pytest.mark.slow
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


def test_bad_levers_are_named(tmp_path, capsys):
    assert main(["train", "--patience", "0", "--out", str(tmp_path / "run")]) == 2
    assert "--patience: expected a whole number from 1" in capsys.readouterr().err
