"""``jnnk`` as a program: one command from its words to its exit code, with the only consoles.

Exit codes: see ``jnnk.cli.parser.EXIT_CODES``.
"""

import argparse
import contextlib
import errno
import signal
from collections.abc import Sequence

from rich.console import Console

from jnnk._core.errors import InputError, is_out_of_memory
from jnnk._core.extras import require_extra
from jnnk.cli.answers import Answer
from jnnk.cli.commands import COMMANDS
from jnnk.cli.environment import check_together, find_devices, is_first_process, quiet_libraries
from jnnk.cli.parser import make_parser
from jnnk.cli.terminal import Terminal
from jnnk.runs.progress import Stoppable
from jnnk.runs.signals import Signals, exit_code

#: What the commands need beyond the library: the extra ``study``, by the names to import.
STUDY = (
    "PIL", "flatbuffers", "matplotlib", "orbax", "plotly", "rich", "shtab", "sklearn",
    "tensorflow_datasets",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        The exit code.
    """
    try:
        args = make_parser().parse_args(argv)
        require_extra("study", STUDY)
    except InputError as error:
        Terminal(*_consoles()).error(str(error))
        return 2
    terminal = Terminal(*_consoles(), is_json=args.json, is_quiet=args.quiet)
    quiet_libraries()
    signals = Signals(
        lambda text: None if args.quiet else terminal.note(text), is_eager=not _is_shared(args)
    )
    with signals.noted():
        return _run(args, terminal, signals)


def _consoles() -> tuple[Console, Console]:
    """For answers, and for all else; ``my_nets:x: ...`` is no emoji."""
    return Console(emoji=False), Console(stderr=True, emoji=False)


def _is_shared(args: argparse.Namespace) -> bool:
    """Whether this is one of several processes that run the command together."""
    return getattr(args, "distributed", False)


def _run(args: argparse.Namespace, terminal: Terminal, signals: Signals) -> int:
    """Shows the command's answer, or in one line why there is none; the exit code."""
    try:
        terminal.show(_answer(args, terminal, signals))
    except KeyboardInterrupt as stopped:
        return _stop(getattr(stopped, "signal", signal.SIGINT), args, terminal)
    except InputError as error:
        terminal.error(str(error))
        return 2
    except OSError as error:  # what the system refuses on a file is no defect
        if signals.first and error.errno == errno.EIO:  # the terminal is gone
            return _stop(signals.first, args, terminal)
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if error.filename is None and not is_full:
            raise
        left = f"; {_how_to_go_on(args)}" if is_full else ""
        terminal.error(f"{error.filename or 'a file'}: {error.strerror}{left}")
        return 2
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or ["no more to have"])[0].rstrip(".")
        terminal.error(f"out of memory: {reason}; {_what_to_lower(args)}")
        return 2
    return 0


def _answer(args: argparse.Namespace, terminal: Terminal, signals: Signals) -> Answer:
    """What the command finds, once devices and other processes are there."""
    command, is_shared = COMMANDS[args.command], _is_shared(args)
    if is_shared:
        if not is_first_process():
            terminal.mute()
        signals.install()  # JAX has set a handler of its own
    if command.computes:
        find_devices()
    check = check_together(signals) if is_shared else signals.check
    progress = Stoppable(terminal.progress(), check, is_shared=is_shared)
    answer = command.run(args, progress)
    progress.check()
    return answer


def _stop(number: int, args: argparse.Namespace, terminal: Terminal) -> int:
    """Says how to go on after a signal; its exit code."""
    with contextlib.suppress(OSError):  # a terminal that is gone
        terminal.note(f"stopped; {_how_to_go_on(args)}")
    return exit_code(number)


def _how_to_go_on(args: argparse.Namespace) -> str:
    option = " with --resume" if hasattr(args, "resume") else ""
    return f"what is done is kept, and the same command{option} goes on from it"


def _what_to_lower(args: argparse.Namespace) -> str:
    """What a command needs less memory with."""
    options = COMMANDS[args.command].memory
    return f"lower {' or '.join(options)}" if options else "it needs a larger machine"
