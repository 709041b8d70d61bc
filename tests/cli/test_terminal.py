"""What people and machines see of a command: help, answers, progress, completion."""

import argparse
import io
import json
import subprocess

import numpy as np
import pytest
from rich.console import Console

from jnnk.cli import terminal
from jnnk.cli.answers import Answer
from jnnk.cli.commands import COMMANDS
from jnnk.cli.parser import EXIT_CODES, make_parser
from jnnk.cli.terminal import Terminal

ANSWER = Answer(
    {"share": np.float32(0.5), "path": "/runs/[a]"},
    [("pruned", "50 %"), ("report", "/runs/[a]")],
    [{"criterion": "weight", "score": 0.25}, {"criterion": "random", "score": None}],
)


def shown(**how) -> str:
    out = Console(file=io.StringIO(), width=40)
    Terminal(out, Console(file=io.StringIO()), **how).show(ANSWER)
    return out.file.getvalue()


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_help_fits_a_screen_and_shows_an_example_a_command(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = make_parser().format_help().splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    for name, sub in commands().items():
        (example,) = (line.strip() for line in lines if line.strip().startswith(f"jnnk {name} "))
        assert example in " ".join(sub.format_help().split())
    for code, meaning in EXIT_CODES.items():
        assert any(str(code) in line and meaning in line for line in lines)


def test_examples_are_accepted():
    for name, command in COMMANDS.items():
        assert make_parser().parse_args([name, *command.example.split()]).command == name


def test_completion_is_a_script_that_the_shell_accepts(capsys):
    with pytest.raises(SystemExit, match="0"):
        make_parser().parse_args(["--print-completion", "bash"])
    script = capsys.readouterr().out
    assert "--tolerance" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_an_answer_for_people():
    lines = shown().splitlines()
    assert lines[-2:] == ["pruned  50 %", "report  /runs/[a]"]
    assert any("weight" in line and "0.25" in line for line in lines)
    assert any("random" in line and "-" in line for line in lines)


def test_an_answer_for_machines():
    assert json.loads(shown(is_json=True)) == {"share": 0.5, "path": "/runs/[a]"}


def test_silence():
    assert shown(is_quiet=True) == ""
    assert json.loads(shown(is_quiet=True, is_json=True))["share"] == 0.5


def test_progress_in_a_log_is_lines_with_the_time_left(monkeypatch):
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    now = 0.0
    err = Console(file=io.StringIO())
    with Terminal(err, err).progress().task("train", total=40, unit="batch") as task:
        now = 5.0
        task.advance(10)
        now = 12.0
        task.advance(10, loss=0.5)
        now = 20.0
        task.advance(20)
    assert err.file.getvalue().splitlines() == [
        "train: 20/40 batch, 12 s, about 12 s left loss 0.5",
        "train: 40/40 batch, 20 s loss 0.5",
    ]


def test_progress_on_a_terminal_is_a_bar():
    err = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Terminal(err, err).progress().task("train", total=2, unit="batch") as task:
        task.advance(2, accuracy=0.5)
    assert "2/2 batch" in err.file.getvalue() and "accuracy 0.5" in err.file.getvalue()


def test_no_progress_when_quiet():
    err = Console(file=io.StringIO(), force_terminal=True)
    with Terminal(err, err, is_quiet=True).progress().task("train", total=1, unit="batch") as task:
        task.advance()
    assert err.file.getvalue() == ""
