"""The command line, which joins :mod:`jnnk` and :mod:`jnnk.models`; nothing else prints."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence

__all__ = [
    "main",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; see :func:`jnnk.cli.program.main`, which takes a second to import.

    Args:
        argv: the arguments, ``sys.argv[1:]`` by default.

    Returns:
        The exit code.
    """
    with _ends_at_once():
        from jnnk.cli import program

        return program.main(argv)


@contextlib.contextmanager
def _ends_at_once() -> Iterator[None]:
    """Ends the process at Ctrl-C, before `jnnk.runs.signals` looks after that.

    Raised somewhere in the import of JAX, KeyboardInterrupt may be lost or end in a crash. Where
    Ctrl-C is ignored, or has a handler of somebody else's, it stays so.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not is_main:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"stopped\n")
    os._exit(128 + signal.SIGINT)
