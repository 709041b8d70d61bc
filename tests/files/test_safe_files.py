"""Writes that lead nowhere else, locks that touch nothing, reads of regular files alone."""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import subprocess

import pytest

from jnnk import InputError
from jnnk.files import safe_files
from jnnk.files.safe_files import read_file, refuse_links, replace_file, resolved
from jnnk.runs import folder as runs
from jnnk.runs import json_files


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    with umask(mask):
        replace_file(tmp_path / "new" / "file", b"text")
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_no_folder_on_the_way_may_be_a_link(tmp_path, depth):
    (tmp_path / "elsewhere" / "b" / "c").mkdir(parents=True)
    path = tmp_path / "run" / "a" / "b" / "c"
    link = path.parents[3 - depth] if depth < 3 else path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(InputError, match=f"{link}: expected a folder, found a link"):
        replace_file(path / "file", b"text")
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path):
    precious, path = tmp_path / "precious", tmp_path / "run" / "file"
    precious.write_text("keep")
    path.parent.mkdir()
    path.symlink_to(precious)
    replace_file(path, b"text")
    assert precious.read_text() == "keep"
    assert path.read_bytes() == b"text" and not path.is_symlink()


def test_names_of_unfinished_files_cannot_be_foreseen(tmp_path, monkeypatch):
    """A file of such a name is not written into, and what fails leaves none."""
    seen = []

    def watch(*args, **options):
        seen.append([name for name in os.listdir(tmp_path) if name != "file"])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", watch)
    for _ in range(2):
        with pytest.raises(OSError, match=f"full: '{tmp_path / 'file'}'"):
            replace_file(tmp_path / "file", b"text")
    (first,), (second,) = seen
    assert first != second and os.listdir(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(safe_files.secrets, "token_hex", lambda size: "0" * 16)
    (tmp_path / f".{'0' * 16}.partial").symlink_to(tmp_path / "made")
    with pytest.raises(FileExistsError):
        replace_file(tmp_path / "file", b"text")
    assert not (tmp_path / "made").exists()


def special(path, kind):
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
            server.bind(path.name)  # a socket's path has a hundred characters at most
    elif kind == "a link":
        path.symlink_to("/nowhere")
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "a link"])
def test_what_is_neither_file_nor_folder_is_named(tmp_path, kind):
    (tmp_path / "run" / "a" / "b").mkdir(parents=True)
    path = tmp_path / "run" / "a" / "b" / "c"
    special(path, kind)
    with pytest.raises(InputError, match=f"{path}: found {kind}"):
        refuse_links(tmp_path / "run")
    path.unlink()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    refuse_links(tmp_path / "link")  # the folder itself may be one


def test_a_link_is_found_however_deep(tmp_path):
    with contextlib.chdir(tmp_path):
        for _ in range(1100):  # deeper than Python recurses
            os.mkdir("a")
            os.chdir("a")
        os.symlink("/nowhere", "b")
    with pytest.raises(InputError, match="/a/b: found a link"):
        refuse_links(tmp_path)
    with contextlib.chdir(tmp_path):
        subprocess.run(["rm", "-r", "a"], check=True)  # as pytest, which recurses, cannot


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_refuses_is_one_line(tmp_path, monkeypatch, number):
    run = runs.create_run(tmp_path / "run", {}).path
    usual = os.open

    def refused(path, *args, **options):
        if str(path).endswith("config.json"):
            raise OSError(number, os.strerror(number), str(path))
        return usual(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(InputError, match=f"{run}/config.json: {os.strerror(number)}"):
        runs.open_run(run)
    monkeypatch.undo()
    monkeypatch.setattr(os, "scandir", lambda path: refused(f"{path}/config.json"))
    with pytest.raises(InputError, match=f"{run}.*: {os.strerror(number)}"):
        runs.open_run(run)


@pytest.mark.parametrize("kind", ["a FIFO", "a socket", "an endless device"])
def test_only_files_are_read(tmp_path, kind):
    path = tmp_path / "file"
    special(path, kind)
    with pytest.raises(InputError, match=f"{path}: "):
        read_file(path, limit=10)
    with pytest.raises(InputError, match=f"{path}: "):
        json_files.read_json_lines(path)


def test_no_more_is_read_than_a_file_may_hold(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234567890")
    assert read_file(path, limit=10) == b"1234567890"
    with pytest.raises(InputError, match="larger than"):
        read_file(path, limit=9)
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    with pytest.raises(InputError, match="larger than 128 MiB"):
        json_files.read_json(path)


def test_a_path_that_is_no_utf8_is_named(tmp_path):
    path = os.fsencode(tmp_path) + b"/run\xff"
    with pytest.raises(InputError, match=r"run\\xff: expected a path in UTF-8"):
        resolved(os.fsdecode(path))
    with pytest.raises(InputError, match=r"UTF-8"):
        runs.create_run(os.fsdecode(path), {})
    assert os.listdir(tmp_path) == []


def test_a_lock_touches_nothing(tmp_path):
    lock, precious = tmp_path / ".lock", tmp_path / "precious"
    lock.write_text("keep")
    with runs.locked(tmp_path):
        pass
    assert lock.read_text() == "keep"
    lock.unlink()
    precious.write_text("keep")
    lock.symlink_to(precious)
    with (
        pytest.raises(InputError, match=f"{lock}: expected a file, found a link"),
        runs.locked(tmp_path),
    ):
        pass
    assert precious.read_text() == "keep"
    lock.unlink()
    os.mkfifo(lock)
    with (
        pytest.raises(InputError, match=f"{lock}: expected a file, found a FIFO"),
        runs.locked(tmp_path),
    ):
        pass


def test_a_shared_lock_writes_nothing_and_keeps_writers_out(tmp_path):
    with runs.locked(tmp_path, shared=True):
        assert os.listdir(tmp_path) == []
    refused = pytest.raises(InputError, match="in use")
    with runs.locked(tmp_path), refused, runs.locked(tmp_path, shared=True):
        pass
    with runs.locked(tmp_path, shared=True), runs.locked(tmp_path, shared=True):
        pass
    refused = pytest.raises(InputError, match="in use")
    with runs.locked(tmp_path, shared=True), refused, runs.locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, number):
    def no_locks(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said = []
    with runs.locked(tmp_path, say=said.append):
        pass
    assert len(said) == 1 and str(tmp_path) in said[0] and "no locks" in said[0]


def test_an_error_leaves_no_folder_behind(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    for folder in (tmp_path / "a" / "b", mine):
        with pytest.raises(ZeroDivisionError), runs.locked(folder):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_what_kills_left_is_removed(tmp_path):
    (tmp_path / "a").mkdir()
    left = tmp_path / "a" / f".{'0123456789abcdef'}.partial"
    kept = [tmp_path / ".partial", tmp_path / "a" / ".b.partial", tmp_path / ".lock"]
    for path in (left, *kept):
        path.write_text("")
    with runs.locked(tmp_path, shared=True):
        assert left.exists()
    with runs.locked(tmp_path):
        assert not left.exists() and all(path.exists() for path in kept)
