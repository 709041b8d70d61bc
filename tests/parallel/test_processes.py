"""A process without others (with them: `graphs/test_sharding.py`, `jobs/test_signals.py`)."""

import jax
import pytest

from jnnk import InputError
from jnnk.parallel import are_several, is_first, join_processes, largest, on_first, whole_mesh


def test_processes_that_find_no_others(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES: expected a whole number, got 'two'"):
        join_processes()
    monkeypatch.delenv("JAX_NUM_PROCESSES")
    with pytest.raises(InputError, match=r"found no others.*JAX_COORDINATOR_ADDRESS"):
        join_processes()
    assert is_first() and whole_mesh(None).size == jax.device_count()


def test_a_process_alone_is_the_first_and_waits_for_none():
    done = []
    on_first(lambda: done.append("once"), name="nothing")
    assert done == ["once"]
    assert not are_several() and largest(7) == 7
