"""Writing files so that a reader never meets half of one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.errors import UserError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"


class FolderInUseError(UserError):
    """Another run is at work in the folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; on success it is synced and takes the place of `path`.

    The temporary file keeps the suffix of `path` and is removed if anything fails.

    Raises:
        UserError: the file cannot be written (read-only folder, full disk).
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
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


def check_writable(path: Path) -> None:
    """Makes the folder of `path`, so that work of hours is not lost in the end.

    Raises:
        UserError: a file cannot be written there.
    """
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder")
    probe = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Holds a lock on `folder`, so that no second run writes there.

    The lock is the operating system's, which takes it back from a process that was killed. What
    that one had half-written is removed. On Windows there is neither.

    Raises:
        FolderInUseError: another process holds it.
        UserError: the folder cannot be written.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUseError(
                f"run_dir: another run is at work in {folder}: wait for its end or give another "
                "run_dir"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            for leftover in folder.rglob(".*.tmp*"):
                leftover.unlink(missing_ok=True)
        yield
