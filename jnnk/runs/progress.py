"""How a job says how far it is, without printing, and hears that it should stop."""

import contextlib
from collections.abc import Callable, Generator
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, amount: int = 1, **values: float) -> None:
        """Moves on by ``amount`` units and shows the latest values by name."""


class Display(Protocol):
    """Where tasks are shown."""

    def task(
        self, description: str, *, total: int, unit: str
    ) -> contextlib.AbstractContextManager[Task]:
        """Shows a task of ``total`` units until its context ends."""
        ...

    def note(self, message: str) -> None:
        """Says a sentence beside the tasks."""


class Progress(Display, Protocol):
    """Where tasks are shown, and where a job learns that it should stop."""

    def check(self) -> None:
        """Ends the job here, where nothing is lost, if that was asked for.

        A task does so by itself: when it starts and whenever it moves on.

        Raises:
            jnnk.runs.signals.Stopped: if it was.
        """

    def unseen(self) -> "Progress":
        """The same, not shown: for a part of a job whose tasks are not worth a bar of their own."""
        ...


class _SilentTask:
    def advance(self, amount: int = 1, **values: float) -> None:
        pass


class Silent:
    """Shows nothing and is never stopped."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[Task]:
        """A task without a display."""
        yield _SilentTask()

    def note(self, message: str) -> None:
        """Shows nothing."""

    def check(self) -> None:
        """Goes on."""

    def unseen(self) -> "Silent":
        """Itself."""
        return self


SILENT = Silent()
"""The progress of a job that nobody watches."""


class Stoppable:
    """Progress whose job can be stopped from outside.

    Args:
        display: where its tasks are shown.
        check: raises `Stopped` if the job is to end. Of several processes all must
            call it in step; between the steps of a task it is then called only where values are
            shown, since asking the others waits for the device, as showing a value has just done.
        is_shared: whether there are several processes.
    """

    def __init__(self, display: Display, check: Callable[[], None], *, is_shared: bool = False):
        self._display, self._is_shared = display, is_shared
        self.check = check

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[Task]:
        """A task that may be stopped."""
        self.check()
        with self._display.task(description, total=total, unit=unit) as task:
            yield _StoppableTask(task, self.check, self._is_shared)

    def note(self, message: str) -> None:
        """A sentence of the job."""
        self._display.note(message)

    def unseen(self) -> "Stoppable":
        """The same without a display."""
        return Stoppable(Silent(), self.check, is_shared=self._is_shared)


class _StoppableTask:
    def __init__(self, task: Task, check: Callable[[], None], is_shared: bool):
        self._task, self._check, self._is_shared = task, check, is_shared

    def advance(self, amount: int = 1, **values: float) -> None:
        self._task.advance(amount, **values)
        if values or not self._is_shared:
            self._check()
