"""How a job says how far it is, without printing."""

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Task(Protocol):
    """One bar."""

    def advance(self, amount: int = 1, **values: float) -> None:
        """Moves on by ``amount`` units and shows the latest values by name."""


class Progress(Protocol):
    """Where tasks are shown."""

    def task(
        self, description: str, *, total: int, unit: str
    ) -> contextlib.AbstractContextManager[Task]:
        """Shows a task of ``total`` units until its context ends."""

    def note(self, message: str) -> None:
        """Says a sentence beside the tasks."""


class _SilentTask:
    def advance(self, amount: int = 1, **values: float) -> None:
        pass


class Silent:
    """Shows nothing: the default of every job."""

    @contextlib.contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Iterator[Task]:
        """A task that nobody sees."""
        yield _SilentTask()

    def note(self, message: str) -> None:
        """A sentence that nobody reads."""
