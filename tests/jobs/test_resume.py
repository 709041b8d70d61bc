"""A training that is killed with SIGKILL, again and again, ends in the bits of one that is not."""

import random

import jax
import kills
import numpy as np
import pytest

from jnnk import models
from jnnk.data import load
from jnnk.jobs.train import load_state
from jnnk.runs.folder import open_run
from jnnk.runs.json_files import read_json_lines

EPOCHS = 6
COMMAND = [
    *kills.JNNK, "train", "--resume", "--epochs", str(EPOCHS), "--batch-size", "256",
    "--measure-epochs", "0", "3", "--out",
]  # fmt: skip


@pytest.mark.thorough
def test_killed_and_resumed_training_is_bit_identical(tmp_path):
    env = kills.environment(tmp_path / "cache")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = kills.run(COMMAND, whole, env)
    count = kills.kill_until_done(
        COMMAND, killed, env, moments=random.Random(0), longest=seconds / 2, most=3
    )
    assert count > 0

    model, dataset = models.create("resnet8", num_classes=10), load("digits")
    for epoch in (0, 3, EPOCHS):
        expected, found = (
            load_state(open_run(out), model, dataset, epoch=epoch) for out in (whole, killed)
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            expected._replace(key=jax.random.key_data(expected.key)),
            found._replace(key=jax.random.key_data(found.key)),
        )
    drop_times = [
        [{**record, "seconds": 0} for record in read_json_lines(out / "metrics.jsonl")]
        for out in (whole, killed)
    ]
    assert drop_times[0] == drop_times[1]
