"""How much memory there is, so that what cannot fit is refused before the system kills for it."""

import contextlib
import os
import pathlib

_CONTAINER = pathlib.Path("/sys/fs/cgroup/memory.max")  # a number, or "max"


def machine_memory() -> int:
    """The bytes of memory of this machine, or of the container if that has fewer."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        found = min(found, int(_CONTAINER.read_text()))
    return found


def gib(size: int) -> str:
    """Bytes in words, such as ``"1.5 GiB"``."""
    return f"{size / 2**30:,.1f} GiB"
