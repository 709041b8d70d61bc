"""Latencies: medians, in turns, the first call not counted."""

from jnnk._core import timing as latency


def test_medians_in_turns_without_the_first_call(monkeypatch):
    clock, order = [0.0], []
    durations = {"fast": iter([9.0, 1.0, 2.0, 50.0]), "slow": iter([9.0, 10.0, 10.0, 10.0])}

    def call(name):
        def run():
            order.append(name)
            clock[0] += next(durations[name])

        return run

    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    found = latency.latencies({name: call(name) for name in durations}, repeats=3)
    assert found == {"fast": 2000.0, "slow": 10000.0}
    assert order == ["fast", "slow"] * 4
