"""Ends a command by signals at random moments until it gets through, and looks at what is left.

By SIGKILL, by which it dies; ``--signals SIGTERM SIGINT SIGHUP`` are those that it obeys.
``python tests/kills.py --moments 50`` does so for a whole study (training, overlap, pruning,
report) and for a reproduction, as often as it takes to kill each of them so many times;
``test_resume.py`` does so with a training.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

JNNK = [str(pathlib.Path(sys.executable).with_name("jnnk"))]
STUDY = [
    *JNNK, "study", "--resume",
    "--epochs", "3", "--batch-size", "256", "--measure-epochs", "3", "--images", "60",
    "--neighbors", "6", "--layers", "layer3_0/conv2", "--criteria", "weight",
    "--sweep-images", "100", "--share", "0.5", "--finetune-epochs", "1", "--out",
]  # fmt: skip

# As jnnk reproduce regularizer runs it, small.
REPRODUCTION = [
    sys.executable, "-P", "-c",
    "import pathlib, sys\n"
    "from jnnk import models\n"
    "from jnnk.data import load\n"
    "from jnnk.experiments.regularizer import Settings, reproduce_regularizer\n"
    "settings = Settings(strengths=(), seeds=(0, 1), baselines=('cka',), layers=('layer3*',),\n"
    "    pool=1, train_images=200, test_images=100, epochs=2, overlap_images=60, neighbors=6)\n"
    "model = models.create('resnet8', num_classes=10)\n"
    "folder = pathlib.Path(sys.argv[1])\n"
    "reproduce_regularizer(folder, model, load('digits'), settings=settings)\n",
]  # fmt: skip


TIMES = ("seconds", "latency")


def environment(cache: pathlib.Path) -> dict[str, str]:
    """Programs are compiled once for all the processes that follow."""
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}


def run(command: list[str], out: pathlib.Path, env: dict[str, str]) -> float:
    """Runs a command to its end; the seconds it took."""
    started = time.monotonic()
    subprocess.run([*command, str(out)], env=env, check=True, capture_output=True)
    return time.monotonic() - started


def kill_until_done(
    command: list[str],
    out: pathlib.Path,
    env: dict[str, str],
    *,
    moments: random.Random,
    longest: float,
    most: int,
    signals: Sequence[signal.Signals] = (signal.SIGKILL,),
) -> int:
    """Starts the command anew until it ends by itself; how often it was killed.

    Args:
        command: goes on where it was stopped.
        out: its folder.
        env: of :func:`environment`.
        moments: draws when to kill.
        longest: seconds that the command takes in one go.
        most: kills; then it may end.
        signals: one of these each time. After those that it obeys it ends by itself, with their
            exit code; before it has set its handlers the system ends it.
    """
    for kills in range(most):
        process = subprocess.Popen(
            [*command, str(out)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _, said = process.communicate(timeout=moments.uniform(0, longest))
        except subprocess.TimeoutExpired:
            sent = moments.choice(signals)
            process.send_signal(sent)
            _, said = process.communicate()
            allowed = {-sent} if sent == signal.SIGKILL else {-sent, 128 + sent, 0}
            assert process.returncode in allowed, said.decode()
            if process.returncode == 128 + sent:
                assert "goes on from it" in said.decode()
        else:
            assert process.returncode == 0, said.decode()
            return kills
    run(command, out, env)
    return most


def results(out: pathlib.Path) -> Any:
    """What ``results.json`` holds, but for times."""
    return without_times(json.loads((out / "results.json").read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if key not in TIMES}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", nargs="+", default=["SIGKILL"], metavar="NAME")
    options = parser.parse_args()
    signals = [signal.Signals[name] for name in options.signals]
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        env = environment(folder / "cache")
        for title, command in (("study", STUDY), ("reproduction", REPRODUCTION)):
            run(command, folder / title / "first", env)
            seconds = run(command, folder / title / "whole", env)
            expected = results(folder / title / "whole")
            kills = rounds = 0
            while kills < options.moments:
                out = folder / title / str(rounds)
                kills += kill_until_done(
                    command, out, env, moments=moments, longest=seconds,
                    most=options.moments - kills, signals=signals,
                )  # fmt: skip
                assert results(out) == expected, f"{out} differs"
                rounds += 1
            print(f"{title}: killed {kills} times in {rounds} runs, the same results every time")


if __name__ == "__main__":
    main()
