"""A study that is killed with SIGKILL, again and again, ends in the bits of one that is not."""

import random

import jax
import kills
import numpy as np
import pytest

from jnnk import models
from jnnk.data import load
from jnnk.jobs.train import load_state
from jnnk.runs import open_run


@pytest.mark.slow
def test_killed_and_resumed_study_is_bit_identical(tmp_path):
    env = kills.environment(tmp_path / "cache")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = kills.run(kills.STUDY, whole, env)
    count = kills.kill_until_done(
        kills.STUDY, killed, env, moments=random.Random(1), longest=seconds / 3, most=4
    )
    assert count > 0
    assert kills.results(killed) == kills.results(whole)

    model, dataset = models.create("resnet8", num_classes=10), load("digits")
    for epoch in (0, 3):
        expected, found = (
            load_state(open_run(out), model, dataset, epoch=epoch) for out in (whole, killed)
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            expected._replace(key=jax.random.key_data(expected.key)),
            found._replace(key=jax.random.key_data(found.key)),
        )
