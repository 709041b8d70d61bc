"""Signals that end a command: noted when they come, obeyed between two steps.

An exception raised by a handler is lost where it falls into a callback (of the garbage collector,
of XLA), and Python runs handlers only when a call into C returns. So the handlers raise nothing,
and a thread, woken by the signal itself, notes what came.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator

#: Ctrl-C; what Slurm, Kubernetes and preempted machines send; a terminal that is gone.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked the command to end; raised between two steps or measurements.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, signal: int):
        super().__init__(signal)
        self.signal = signal


def exit_code(number: int) -> int:
    """The status that shells give a command ended by a signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number


class Signals:
    """What has been asked for since `noted` began.

    Until `check` is first called a command reads and loads, which loses nothing: a signal ends it
    where it is (or, if that is lost in a callback, at the first check).

    Args:
        say: tells a person, in one line, that Ctrl-C was heard. Called by another thread.
        is_eager: whether it does so; of several processes none may end by itself.
    """

    def __init__(self, say: Callable[[str], None], *, is_eager: bool = True):
        self._say, self._is_eager = say, is_eager
        self._first = 0

    @property
    def first(self) -> int:
        """The first signal that came, 0 for none."""
        return self._first

    def check(self) -> None:
        """Ends what is going on if a signal came; from the first call on nothing else does.

        Raises:
            Stopped: if one did.
        """
        self._is_eager = False
        if self._first:
            raise Stopped(self._first)

    @contextlib.contextmanager
    def noted(self) -> Generator[None]:
        """Notes signals until the context ends; those that are ignored (nohup) stay so.

        Does nothing outside of the main thread, which alone may set handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # the system writes to it, inside of whatever the signal broke into
        listener = threading.Thread(target=self._listen, args=(theirs,), daemon=True)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        wakeup = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        listener.start()
        try:
            self.install()
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # not set by Python
                    signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            ours.close()
            listener.join()
            theirs.close()

    def install(self) -> None:
        """Sets the handlers, again where a library has set its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self._is_eager:
            self._is_eager = False
            raise Stopped(number)

    def _listen(self, wakeup: socket.socket) -> None:
        while came := wakeup.recv(64):
            for number in came:
                if self._first and number == signal.SIGINT:
                    _end_at_once()
                if number in SIGNALS and not self._first:
                    self._first = number
                    if number == signal.SIGINT:
                        # Nobody listens any more where the terminal is gone.
                        with contextlib.suppress(OSError, ValueError):
                            self._say("stopping after this step; Ctrl-C again ends at once")


def _end_at_once() -> None:
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")  # bars have hidden the cursor
    os._exit(exit_code(signal.SIGINT))
