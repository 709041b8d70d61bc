"""A training that is killed with SIGKILL, again and again, ends in the bits of one that is not."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jnnk import models
from jnnk.data import load
from jnnk.jobs.train import load_state
from jnnk.runs import open_run, read_json_lines

EPOCHS = 12
COMMAND = [
    str(pathlib.Path(sys.executable).with_name("jnnk")), "train",
    "--epochs", str(EPOCHS), "--batch-size", "256", "--measure-epochs", "0", "3",
]  # fmt: skip


def last_epoch(out: pathlib.Path) -> int:
    return len(read_json_lines(out / "metrics.jsonl"))


@pytest.mark.slow
def test_killed_and_resumed_training_is_bit_identical(tmp_path):
    # The programs are compiled once for all the processes that follow.
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*COMMAND, "--out", str(whole)], env=env, check=True, capture_output=True)

    moments = random.Random(0)
    kills = 0
    for target in (1, 4, 8):
        process = subprocess.Popen(
            [*COMMAND, "--out", str(killed), "--resume"], env=env, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while last_epoch(killed) < target and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))  # anywhere in an epoch, a save or the log
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 3
    subprocess.run([*COMMAND, "--out", str(killed), "--resume"], env=env, check=True)

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
