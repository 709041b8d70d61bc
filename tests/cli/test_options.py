"""Every number that a command takes: what has no meaning is refused before anything is made."""

import argparse
import pathlib
import re

import pytest

from jnnk.cli import configs, main
from jnnk.cli.parser import make_parser
from jnnk.runs.folder import create_run
from jnnk.runs.settings import TrainConfig

WHOLE, REAL = "whole", "real"
#: Option -> kind, and the numbers nearest to its limits that it must refuse and must take.
NUMBERS = {
    "--epochs": (WHOLE, ["-1", "2147483648"], ["0", "2147483647"]),
    "--batch-size": (WHOLE, ["-1", "0"], ["1"]),
    "--learning-rate": (REAL, ["-1", "-0.1", "1e39"], ["0", "1e30"]),
    "--weight-decay": (REAL, ["-1", "-0.1", "1e39"], ["0", "5e-4"]),
    "--l1": (REAL, ["-1", "-0.1", "1e39"], ["0", "1e-4"]),
    "--regularizer-strength": (REAL, ["1e39"], ["-1", "0", "0.5"]),
    "--patience": (WHOLE, ["-1", "0"], ["1"]),
    "--seed": (WHOLE, ["-1", "4294967296"], ["0", "4294967295"]),
    "--measure-epochs": (WHOLE, ["-1"], ["0"]),
    "--mean": (REAL, ["1e39"], ["0", "-1"]),
    "--std": (REAL, ["0", "-1", "1e-60", "1e-39", "1e39"], ["0.25"]),
    "--image-size": (WHOLE, ["-1", "0", "16385", "100000"], ["1", "16384"]),
    "--images": (WHOLE, ["-1", "0", "1"], ["2"]),
    "--neighbors": (WHOLE, ["-1", "0"], ["1"]),
    "--round-to": (WHOLE, ["-1", "0"], ["1"]),
    "--share": (REAL, ["-1", "-0.01", "1", "1.5"], ["0", "0.999"]),
    "--tolerance": (REAL, ["-1", "-0.5"], ["0", "0.5"]),
    "--sweep-images": (WHOLE, ["-1", "0"], ["1"]),
    "--finetune-epochs": (WHOLE, ["-1", "-3"], ["0"]),
    "--finetune-learning-rate": (REAL, ["-1", "1e39"], ["0"]),
    "--at-epochs": (WHOLE, ["-1"], ["0"]),
    "--seeds": (WHOLE, ["-1", "4294967296"], ["0"]),
}
NEVER = ["nan", "inf", "-inf", "1e400", "three", "", "0x10", "1,5"]
NEVER_WHOLE = ["1.5", "1e3", "9" * 5000]


def commands():
    (action,) = (
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return action.choices


def numeric_options():
    """(command, option) of everything that is neither a text nor a path nor a switch."""
    return [
        (name, action.option_strings[-1])
        for name, sub in commands().items()
        for action in sub._actions
        if action.type not in (None, str, pathlib.Path)
    ]


def test_every_numeric_option_is_in_the_table():
    assert {option for _, option in numeric_options()} == NUMBERS.keys()


@pytest.mark.parametrize(("command", "option"), numeric_options())
def test_numbers_without_meaning(command, option, capsys, tmp_path):
    kind, refused, _ = NUMBERS[option]
    for bad in [*NEVER, *refused, *(NEVER_WHOLE if kind == WHOLE else [])]:
        out = tmp_path / "run"
        assert main([command, "--out", str(out), f"{option}={bad}"]) == 2, bad
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert line.startswith(f"error: argument {option}") and "expected " in line
        assert said.out == "" and not out.exists()


@pytest.mark.parametrize(("command", "option"), numeric_options())
def test_numbers_with_a_meaning(command, option):
    kind, _, taken = NUMBERS[option]
    (action,) = (a for a in commands()[command]._actions if option in a.option_strings)
    for good in taken:
        assert action.type(good) == (int if kind == WHOLE else float)(good)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("std", [0.0]), ("std", [0.2, -1]), ("mean", [None]), ("learning_rate", None),
        ("learning_rate", -0.1), ("learning_rate", "0.1"), ("epochs", -1), ("epochs", 2.0),
        ("epochs", True), ("seed", 2**32), ("patience", 0), ("weight_decay", 10**400),
        ("measure_epochs", [0, -1]), ("regularizer_strength", None), ("image_size", 10**9),
        ("image_size", 0),
    ],
)  # fmt: skip
def test_numbers_without_meaning_in_a_folder(name, bad, tmp_path, capsys):
    """An earlier version took them, or wrote null for what was not finite."""
    config = {**TrainConfig(measure_epochs=(0,))._asdict(), name: bad}
    run = create_run(tmp_path / "run", config)
    before = (run.path / "config.json").read_bytes()
    for words in (
        ["overlap", run.path],
        ["prune", run.path],
        ["train", "--resume", "--out", run.path],
    ):
        assert main([str(word) for word in words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(rf"config.json: ({name}(\[0\])?: expected|.* of 401 digits)", line)
    assert (run.path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "--out"),
        (["train", "--out"], "--out: expected one argument"),
        (["train", "--out", "x", "--epoch-s", "3"], "unrecognized arguments: --epoch-s"),
        (["train", "--out", "x", "--optimizer", "lion"], "--optimizer: invalid choice: 'lion'"),
        (["train", "--out", "x", "--regularizer", "l3"], "--regularizer: invalid choice: 'l3'"),
        (["train", "--out", "x", "--stop", "never"], "--stop: invalid choice: 'never'"),
        (["train", "--out", "x", "--shortcut", "C"], "--shortcut: invalid choice: 'C'"),
        (["overlap", "x", "--similarity", "dot"], "--similarity: invalid choice: 'dot'"),
        (["prune", "x", "--channels", "best"], "--channels: invalid choice: 'best'"),
        (["reproduce", "nothing", "--shared", "x", "--out", "y"], "invalid choice: 'nothing'"),
    ],
)
def test_words_that_are_no_command_or_option(words, said, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and said in line and "--help' lists the options" in line


def test_what_is_given_twice_counts_once():
    parse = make_parser().parse_args
    args = parse(["prune", "run", "--protocol", "short", "--seeds", "1", "0", "1", "--criteria",
                  "weight", "det", "weight"])  # fmt: skip
    config = configs.protocol_config(args)
    assert (config.seeds, config.criteria) == ((1, 0), ("weight", "det"))
    args = parse(["train", "--out", "new", "--mean", "0.5", "0.5", "--measure-epochs", "1", "1"])
    config = configs.train_config(args)
    assert (config.mean, config.measure_epochs) == ((0.5, 0.5), (1,))
