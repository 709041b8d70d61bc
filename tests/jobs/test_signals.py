"""Signals are heard wherever they fall and obeyed between two steps, and no work is lost."""

import contextlib
import gc
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import kills
import numpy as np
import pytest

import jnnk.jobs.fit
import jnnk.jobs.overlap
import jnnk.jobs.prune
import jnnk.jobs.report
from jnnk import models
from jnnk.cli import main
from jnnk.data import load
from jnnk.jobs.train import load_state
from jnnk.runs.folder import open_run
from jnnk.runs.json_files import read_json_lines
from jnnk.runs.signals import Signals

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NETWORK = ["--model", "convnet6", "--model-options", "channels=4"]
TRAIN = [
    "train", *NETWORK, "--epochs", "2", "--batch-size", "128", "--learning-rate", "0.02",
    "--measure-epochs", "0", "2", "--quiet", "--out",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """A script that starts the tests in the background has Ctrl-C ignored, in children as well."""
    kept = {number: signal.getsignal(number) for number in CODES}
    for number in CODES:
        is_ctrl_c = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_ctrl_c else signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """To this process, where an exception of the handler would be lost: as the garbage goes."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), number)
        sum(range(1000))  # Python looks for signals in a loop

    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(0.2)  # for the thread that listens


def sends(monkeypatch, module, name: str, number: int, *, at_call: int = 1) -> None:
    """Makes a function of a module send a signal, once, before it does its work."""
    original, calls = getattr(module, name), []

    def function(*arguments, **options):
        calls.append(name)
        if len(calls) == at_call:
            send(number)
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, function)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing stopped."""
    folder = tmp_path_factory.mktemp("signals") / "whole"
    assert main([*TRAIN, str(folder)]) == 0
    return folder


def assert_trained_alike(found: pathlib.Path, expected: pathlib.Path) -> None:
    lines = [
        [{**line, "seconds": 0} for line in read_json_lines(folder / "metrics.jsonl")]
        for folder in (found, expected)
    ]
    assert lines[0] == lines[1]
    model, dataset = models.create("convnet6", num_classes=10, channels=4), load("digits")
    states = [load_state(open_run(folder), model, dataset) for folder in (found, expected)]
    jax.tree.map(
        np.testing.assert_array_equal,
        *(state._replace(key=jax.random.key_data(state.key)) for state in states),
    )


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.thorough),
        pytest.param(signal.SIGHUP, marks=pytest.mark.thorough),
    ],
)
def test_a_training_keeps_its_unfinished_epoch(whole, tmp_path, monkeypatch, capsys, number):
    """The 15th of 11 steps an epoch, and again the third of those that are left."""
    run = tmp_path / "run"
    for at_call, kept in ((15, 15), (3, 18)):
        with monkeypatch.context() as patch:
            sends(patch, jnnk.jobs.fit, "shard_batch", number, at_call=at_call)
            assert main([*TRAIN, str(run), "--resume"]) == CODES[number]
        said = capsys.readouterr().err
        assert "what is done is kept, and the same command with --resume goes on from it" in said
        assert len(read_json_lines(run / "metrics.jsonl")) == 1
        assert [int(path.name) for path in (run / "unfinished").glob("[0-9]*")] == [kept]
    assert main([*TRAIN, str(run), "--resume"]) == 0
    assert not (run / "unfinished").exists()
    assert_trained_alike(run, whole)


MEASURE = ["--images", "40", "--neighbors", "5", "--layers", "conv[45]", "--at-epochs", "2"]
PRUNE = ["--criteria", "weight", "--sweep-images", "40", "--share", "0.5"]


@pytest.mark.parametrize(
    ("command", "place", "number", "kept", "missing"),
    [
        pytest.param(
            ["overlap", *MEASURE], (jnnk.jobs.overlap, "measure_layer"), signal.SIGINT,
            "overlap", "report.html", marks=pytest.mark.thorough,
        ),
        pytest.param(
            ["prune", *PRUNE], (jnnk.jobs.prune, "masked"), signal.SIGHUP,
            "prune", "prune/sweep.json", marks=pytest.mark.thorough,
        ),
        (["report"], (jnnk.jobs.report, "overlap_sections"), signal.SIGTERM,
         "metrics.jsonl", "results.json"),
    ],
)  # fmt: skip
def test_commands_stop_between_measurements(
    whole, tmp_path, monkeypatch, command, place, number, kept, missing
):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    sends(monkeypatch, *place, number)
    assert main([command[0], str(run), *command[1:], "--quiet"]) == CODES[number]
    assert (run / kept).exists() and not (run / missing).exists()
    if command[0] == "overlap":  # the layer that was being measured is there, the next is not
        assert [path.stem for path in (run / "overlap").rglob("*conv[45].json")] != []
        assert not list((run / "overlap").rglob("*conv5.json"))


@pytest.mark.parametrize("is_lost", [False, True])
def test_what_loads_is_ended_at_once(tmp_path, monkeypatch, is_lost):
    """Before the first step; if the exception is lost, at the first step."""
    after = []

    def load_slowly(*arguments, **options):
        if is_lost:
            send(signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        after.append("loaded")
        return load(*arguments, **options)

    monkeypatch.setattr("jnnk.data.load", load_slowly)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)
    assert main([*TRAIN, str(tmp_path / "run")]) == 130
    assert bool(after) == is_lost
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_ignored_signals_stay_ignored():
    """``nohup jnnk ...`` goes on when its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals(lambda text: None)
        with signals.noted():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.2)
            signals.check()
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert signals.first == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# A call into C that nothing interrupts, or a job of many steps.
WAIT = """
import sys, time
from jnnk.runs.signals import Signals, Stopped, exit_code
signals = Signals(lambda text: print(text, flush=True))
with signals.noted():
    signals.check()
    print("ready", flush=True)
    try:
        time.sleep(float(sys.argv[1]))
        while True:
            signals.check()
            time.sleep(0.01)
    except Stopped as stopped:
        sys.exit(exit_code(stopped.signal))
"""


@contextlib.contextmanager
def waiting(seconds: float, *prefix: str):
    command = [*prefix, sys.executable, "-c", WAIT, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_ctrl_c_ends_at_once():
    with waiting(600) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again ends at once" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_a_second_sigterm_hurries_nothing():
    """Schedulers send it to the shell and to all its children: it often comes twice."""
    with waiting(1.5) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        assert process.wait(timeout=60) == 143


def test_the_first_process_of_a_container_hears_sigterm():
    """Its default there is to ignore it."""
    alone = ["unshare", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("processes of their own numbers are not allowed here")
    with waiting(0, *alone) as process:
        assert process.stdout.readline() == "ready\n"
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)
        assert process.wait(timeout=60) == 143


@pytest.mark.thorough
def test_a_study_stopped_at_random_moments(tmp_path):
    env = kills.environment(tmp_path / "cache")
    study = [
        *kills.JNNK, "study", "--resume", *NETWORK, "--epochs", "3", "--batch-size", "64",
        "--measure-epochs", "3", "--images", "40", "--neighbors", "5", "--layers", "conv[45]",
        "--criteria", "weight", "--sweep-images", "40", "--share", "0.5", "--finetune-epochs", "1",
        "--out",
    ]  # fmt: skip
    kills.run(study, tmp_path / "first", env)
    seconds = kills.run(study, tmp_path / "whole", env)
    count = kills.kill_until_done(
        study, tmp_path / "stopped", env, moments=random.Random(0), longest=seconds / 3, most=5,
        signals=list(CODES),
    )  # fmt: skip
    assert count > 0
    assert kills.results(tmp_path / "stopped") == kills.results(tmp_path / "whole")


@pytest.mark.thorough
def test_several_processes_stop_at_the_same_step(tmp_path):
    """The second one is told to; both end, and go on together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    command = [
        *kills.JNNK, "train", "--resume", "--distributed", *NETWORK, "--batch-size", "32",
        "--epochs", "40", "--measure-epochs", "0", "--out", str(run),
    ]  # fmt: skip

    def start(number: int) -> subprocess.Popen:
        environment = os.environ | {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
            "JAX_PLATFORMS": "cpu",
        }
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    for epochs in (1, 3):
        processes = [start(number) for number in range(2)]
        try:
            until = time.monotonic() + 300
            while len(read_json_lines(run / "metrics.jsonl")) < epochs:
                assert time.monotonic() < until and processes[1].poll() is None
                time.sleep(0.1)
            processes[1].send_signal(signal.SIGTERM)
            said = [process.communicate(timeout=120)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert [process.returncode for process in processes] == [143, 143], said
        assert "goes on from it" in said[0] and "goes on from it" not in said[1]
        (step,) = (int(path.name) for path in (run / "unfinished").glob("[0-9]*"))
        done = len(read_json_lines(run / "metrics.jsonl"))
        assert done * (1437 // 32) < step <= (done + 1) * (1437 // 32)
        assert json.loads((run / "config.json").read_text())["epochs"] == 40


def test_ctrl_c_while_libraries_are_imported():
    """Raised in the import of JAX it would be lost, or a crash; ignored it stays ignored."""
    program = """
import importlib.abc, os, signal, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "jax":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
from jnnk.cli import main
sys.exit(main(["report", "nowhere"]))
"""
    for how, code, said in (
        ("heard", 130, "stopped\n"),
        ("ignored", 2, "no such run folder"),
    ):
        done = subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True)
        assert done.returncode == code and said in done.stderr, done.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
