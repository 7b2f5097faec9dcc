"""Writing files so that a reader never meets half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nas.errors import UserError


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
