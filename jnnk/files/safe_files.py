"""Files written and read so that nothing in an untrusted folder leads out of it.

What is written goes to a new file of a random name, in a folder opened part by part without
following links, and is renamed to its place. What is read is a regular file of a bounded size.
"""

import contextlib
import errno
import io
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator

from jnnk._core.errors import InputError

# A folder on the way need not be readable to be passed through.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Of a FIFO or a device, opening must not wait.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PARTIAL = ".partial"


def resolved(path: str | os.PathLike[str]) -> pathlib.Path:
    """The absolute path that a user means, links followed; nothing below it may be one.

    Args:
        path: as it was given.

    Raises:
        InputError: if it is not UTF-8, in which records, pages and checkpoints name it.
    """
    try:
        found = os.path.realpath(path)
        found.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(found).decode(errors="backslashreplace")
        raise InputError(f"{shown}: expected a path in UTF-8; rename it") from None
    return pathlib.Path(found)


def replace_file(path: pathlib.Path, content: bytes) -> None:
    """Writes a whole file or nothing, with the permissions that the umask leaves.

    Args:
        path: none of its folders may be a link (see :func:`resolved`); missing ones are made. A
            link in the file's own place is replaced, not followed.
        content: of the file.

    Raises:
        InputError: if a folder on the way is a link.
        OSError: naming the file, if it cannot be written.
    """
    with naming(path), opened_folder(path.parent) as folder:
        partial = f".{secrets.token_hex(8)}{_PARTIAL}"
        descriptor = os.open(partial, _NEW_FILE, 0o666, dir_fd=folder)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise


def open_new(path: pathlib.Path) -> io.RawIOBase:
    """Opens a file that does not exist yet, unbuffered, for bytes to be appended.

    Args:
        path: see :func:`replace_file`.

    Raises:
        InputError: if a folder on the way is a link.
        OSError: naming the file, if it is there or cannot be made.
    """
    with naming(path), opened_folder(path.parent) as folder:
        return open(os.open(path.name, _NEW_FILE, 0o666, dir_fd=folder), "wb", buffering=0)


def read_file(path: pathlib.Path, *, limit: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        limit: the most bytes that are read.

    Raises:
        InputError: if it cannot be read, is something else (a FIFO, a device, a folder) or larger.
    """
    try:
        with open_file(path) as file:
            # Sizes of some files, as in /proc, are not known before.
            is_larger = os.fstat(file.fileno()).st_size > limit
            content = b"" if is_larger else file.read(limit + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if is_larger or len(content) > limit:
        raise InputError(f"{path}: larger than {limit / 2**20:.0f} MiB, as no such file is")
    return content


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Opens a regular file for reading, without waiting for what is none.

    Args:
        path: the file.

    Raises:
        InputError: if it is something else, such as a FIFO, a device or a folder.
        OSError: if it cannot be opened.
    """
    descriptor = os.open(path, _READ)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise InputError(f"{path}: expected a file, found {kind_of(mode)}")
    return open(descriptor, "rb")


def refuse_links(folder: pathlib.Path) -> None:
    """Refuses a folder with anything in it, however deep, that is neither a folder nor a file.

    Args:
        folder: may be a link itself, and may be missing.

    Raises:
        InputError: naming the link, FIFO, socket or device.
    """
    for entry in _entries(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(
                f"{entry.path}: found {kind_of(mode)}, expected none inside of {folder}; remove it "
                "if you trust the rest"
            )


def remove_partial(folder: pathlib.Path) -> None:
    """Removes what killed writes have left.

    Args:
        folder: searched through, links not followed; nobody else may be writing in it.
    """
    length = len(f".{secrets.token_hex(8)}{_PARTIAL}")
    for entry in _entries(folder):
        name = entry.name
        is_ours = name.startswith(".") and name.endswith(_PARTIAL) and len(name) == length
        if is_ours and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)


@contextlib.contextmanager
def opened_folder(folder: pathlib.Path, *, make: bool = True) -> Iterator[int]:
    """A descriptor of a folder for ``dir_fd``, opened part by part so that no link is followed.

    Args:
        folder: its path.
        make: makes what is missing of it.

    Raises:
        InputError: if a part of it is a link.
        OSError: if it cannot be opened or made.
    """
    start, *parts = folder.absolute().parts
    here = os.open(start, _FOLDER)
    try:
        for index, part in enumerate(parts):
            try:
                inner = _enter(here, part, make=make)
            except OSError as error:  # systems differ on which it is of a link
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                mode = os.stat(part, dir_fd=here, follow_symlinks=False).st_mode
                if not stat.S_ISLNK(mode):
                    raise
                path = pathlib.Path(start, *parts[: index + 1])
                raise InputError(f"{path}: expected a folder, found {kind_of(mode)}") from None
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def _enter(folder: int, name: str, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):  # another process may make it too
        os.mkdir(name, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)


def _entries(folder: pathlib.Path) -> Iterator[os.DirEntry[str]]:
    """All that lies in a folder, however deep (``os.walk`` is recursive); links not followed."""
    places = [os.fspath(folder)]
    while places:
        try:
            with os.scandir(places.pop()) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None
        yield from entries
        places += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Lets system errors name a file: a full disk does not say which it was.

    Args:
        path: the file.

    Raises:
        OSError: the same error, naming it.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def kind_of(mode: int) -> str:
    """What a mode of ``os.stat`` stands for, in words, such as ``"a link"``.

    Args:
        mode: the mode.
    """
    kinds = {
        stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket", stat.S_IFREG: "a file",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a device")
