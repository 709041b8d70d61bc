"""Two programs at once: the same results, in the order of the calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnnk.parallel._streams import can_stream, map_streams


def affine(x, *, power, shift):
    return {"value": x**power + shift}


def run(number):
    calls = ((np.full(3, k, np.float32),) for k in range(number))
    return map_streams(affine, calls, static={"power": 2}, shared={"shift": jnp.float32(1)})


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_results_come_in_the_order_of_the_calls(number):
    found = run(number)
    assert [result["value"].tolist() for result in found] == [
        [k * k + 1.0] * 3 for k in range(number)
    ]


def test_without_jit_they_are_the_same():
    with jax.disable_jit():
        assert not can_stream(np.ones(3))
        found = run(3)
    assert [float(result["value"][0]) for result in found] == [1, 2, 5]


def test_an_error_of_one_call_comes_out():
    with pytest.raises(TypeError):
        map_streams(affine, [(np.ones(3, np.float32),)], static={"power": "2"}, shared={"shift": 1})


def test_a_traced_array_is_not_streamed():
    seen = []

    def traced(x):
        seen.append(can_stream(x))
        return x

    jax.jit(traced)(jnp.ones(3))
    assert seen == [False]
    assert can_stream(jnp.ones(3), np.ones(2)) is (jax.default_backend() == "cpu")
