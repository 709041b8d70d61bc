"""A lock on a folder, by a file in it."""

import contextlib
import errno
import fcntl
import os
import pathlib
import stat
from collections.abc import Iterator

from jnnk._core.errors import InputError
from jnnk.files.safe_files import kind_of, naming, opened_folder

# What file systems without locks say of one.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def file_lock(path: pathlib.Path, *, shared: bool = False) -> Iterator[bool | None]:
    """Holds a lock until the context ends; the system drops it when the process dies.

    What the file holds is never read or changed, and it stays when the lock ends.

    Args:
        path: of the lock's file; see :func:`replace_file`. Made where it is missing.
        shared: together with others that share it. Nothing is made: without a file that can be
            read there is no lock.

    Yields:
        Whether the lock is held: False where another process has it, None where the file system
        has no locks.
    """
    while True:
        descriptor = _lock_file(path, make=not shared)
        if descriptor is None:
            yield None
            return
        try:
            state = _take(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if state is not True or _is_still(path, descriptor):
                yield state
                return
        finally:
            os.close(descriptor)


def _lock_file(path: pathlib.Path, *, make: bool) -> int | None:
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    flags |= os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
    try:
        with naming(path), opened_folder(path.parent, make=make) as folder:
            descriptor = os.open(path.name, flags, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: expected a file, found a link") from None
        if make:
            raise
        return None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InputError(f"{path}: expected a file, found {kind_of(mode)}")
    return descriptor


def _take(descriptor: int, kind: int) -> bool | None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _is_still(path: pathlib.Path, descriptor: int) -> bool:
    """Whether a file is the one that was opened: the holder before may have removed that."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
