"""Writing files so that a reader never meets half of one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.errors import UserError, reason

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_TEMPORARY = ".tmp-"

_held: set[int] = set()
"""Descriptors of locks."""


def _let_go() -> None:
    """In a child: a worker that outlives a killed run must not keep its lock."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class FolderInUseError(UserError):
    """Another run is at work in the folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; on success it is synced and takes the place of `path`.

    The temporary file keeps the suffix of `path` and is removed if anything fails.

    Raises:
        UserError: the file cannot be written (read-only folder, full disk).
    """
    temporary = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def replace_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_of(path: Path) -> Path:
    """A hidden file of this process beside `path`, with the same suffix."""
    return path.with_name(f".{path.stem}{_TEMPORARY}{os.getpid()}{path.suffix}")


def check_writable(path: Path) -> None:
    """Makes the folder of `path`, so that work of hours is not lost in the end.

    Raises:
        UserError: a file cannot be written there.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    probe = temporary_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Holds a lock on `folder`, so that no second run writes there.

    The lock is the operating system's, which takes it back from a process that was killed. On
    Windows there is none. What a killed run has left half-written is removed.

    Raises:
        FolderInUseError: another process holds it.
        UserError: the folder cannot be written.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderInUseError(
            f"run_dir: another run is at work in {folder}: wait for its end or give another run_dir"
        ) from None
    except OSError:  # a file system without locks
        pass
    _held.add(lock)
    try:
        _remove_leftovers(folder)
        yield
    finally:
        if lock in _held:  # not in a child that was forked meanwhile
            _held.remove(lock)
            os.close(lock)


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of a run that was killed while it wrote them: they can be large."""
    with suppress(OSError):
        for path in [*folder.glob(f".*{_TEMPORARY}*"), *folder.glob(f"*/.*{_TEMPORARY}*")]:
            path.unlink()
