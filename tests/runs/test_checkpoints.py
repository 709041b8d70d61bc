import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk import InputError
from jnnk.runs.checkpoints import Checkpoints
from jnnk.training import TrainState


def state(value):
    return {
        "w": jnp.full((3, 2), value),
        "step": jnp.int32(value),
        "key": jax.random.key(int(value)),
    }


def test_latest_and_kept_epochs_survive(tmp_path):
    with Checkpoints(tmp_path, keep=(0, 2)) as checkpoints:
        assert checkpoints.latest() is None
        for epoch in range(5):
            checkpoints.save(epoch, state(epoch))
        assert checkpoints.epochs() == [0, 2, 4]
        assert checkpoints.latest() == 4


def test_restored_bits_are_the_saved_ones(tmp_path):
    saved = {
        **state(7),
        "w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32),
    }
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, saved)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(1, jax.eval_shape(lambda: saved))
    np.testing.assert_array_equal(restored["w"], saved["w"])
    assert restored["step"] == 7
    assert jax.random.uniform(restored["key"]) == jax.random.uniform(saved["key"])


def test_what_a_kill_leaves_behind_is_not_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1))
    (tmp_path / "1").rename(tmp_path / "1.orbax-checkpoint-tmp")  # orbax' name until it is whole
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(1, state(2))
        assert checkpoints.restore(1, state(0))["step"] == 2


def test_missing_and_damaged_checkpoints_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state(3))
        with pytest.raises(InputError, match=r"no checkpoint of epoch 1, only \[3\]"):
            checkpoints.restore(1, state(0))
        for path in (tmp_path / "3").rglob("*"):
            if path.is_file() and path.parent.name == "d":
                path.write_bytes(path.read_bytes()[:10])
        with pytest.raises(InputError, match="cannot read this checkpoint"):
            checkpoints.restore(3, state(0))


def test_a_checkpoint_of_another_net_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state(1))
        with pytest.raises(InputError, match="cannot read this checkpoint"):
            checkpoints.restore(0, {"other": jnp.zeros(4)})


def test_a_full_disk_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    def full(*args, **options):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device [...]")

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1))
        monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", full)
        with pytest.raises(OSError, match=f"No space left on device: .*{tmp_path.name}/2"):
            checkpoints.save(2, state(2))
        assert checkpoints.restore(1, state(0))["step"] == 1


def test_training_states_have_the_layout_of_version_0_1(tmp_path):
    """Masks of what trains beside the optimiser's state, and no entry where nothing is frozen."""
    whole = TrainState(*(jnp.full(2, number) for number in range(len(TrainState._fields) - 1)))
    frozen = whole._replace(trainable=jnp.ones(2))
    expected = whole._asdict() | {"opt_state": {"inner": whole.opt_state, "trainable": jnp.ones(2)}}
    del expected["trainable"]
    written = {"whole": whole, "frozen": frozen, "within": (frozen, jnp.zeros(3))}
    for name, state in written.items():
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(0, state)
            found = checkpoints.restore(0, state)
            assert jax.tree.structure(found) == jax.tree.structure(state)
            jax.tree.map(np.testing.assert_array_equal, found, state)
            if name == "frozen":
                layout = checkpoints.restore(0, expected)
                jax.tree.map(np.testing.assert_array_equal, layout, expected)
            if name == "whole":
                layout = {key: value for key, value in whole._asdict().items() if value is not None}
                checkpoints.restore(0, layout)
