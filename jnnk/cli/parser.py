"""The parser of the command line, made from the table of commands. Prints nothing."""

import argparse
import contextlib
from typing import NoReturn

from jnnk._core.errors import InputError
from jnnk.cli.commands import COMMANDS

EXIT_CODES = {
    0: "done",
    1: "a defect of jnnk, with its traceback",
    2: "bad input, a training that diverged, no memory; one line says it",
    129: "stopped, as the terminal is gone (SIGHUP)",
    130: "stopped by Ctrl-C; the same command goes on from there",
    143: "stopped by SIGTERM, as Slurm and Kubernetes send it",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``command`` in what it parses is the name of the command."""
    parser = _Parser(
        prog="jnnk",
        description="Channel overlap by NNK graphs and eigenvalue-based pruning of CNNs.",
        epilog="exit codes:\n"
        + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items()),
        formatter_class=_Whole,
    )
    with contextlib.suppress(ModuleNotFoundError):  # --help comes without the extra
        import shtab

        shtab.add_argument_to(
            parser, "--print-completion", help="script that completes jnnk's words in this shell"
        )
    parsers = parser.add_subparsers(
        title="commands, whose options 'jnnk COMMAND --help' lists",
        dest="command",
        required=True,
        metavar="COMMAND",
    )
    for name, command in COMMANDS.items():
        example = f"jnnk {name} {command.example}"
        of_command = parsers.add_parser(
            name,
            help=f"{command.help}\n  {example}",
            description=command.help,
            epilog=f"example: {example}",
        )
        for add_options in command.options:
            add_options(of_command)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, like every other error of a command."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; '{self.prog} --help' lists the options")


class _Whole(argparse.RawTextHelpFormatter):
    """Keeps line breaks, and has room for the names of the commands beside what they do."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=20)
