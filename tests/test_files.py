"""Files are replaced whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import UserError
from nas.files import (
    FolderInUseError,
    check_writable,
    only_run_in,
    replace_text,
    replacing,
    temporary_of,
)

pytestmark = pytest.mark.faults


def test_text_is_written_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.json"
    replace_text(path, "one\n")
    replace_text(path, "zwei \N{LATIN SMALL LETTER U WITH DIAERESIS}\n")
    assert path.read_text(encoding="utf-8") == "zwei \N{LATIN SMALL LETTER U WITH DIAERESIS}\n"
    assert list(path.parent.iterdir()) == [path]


def test_reader_sees_the_old_file_until_the_end_and_the_suffix_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cell.png"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        assert path.read_text() == "old"
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), ValueError("y")])
def test_failing_writer_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_is_one_line_and_leaves_the_old_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "text"
    path.write_text("old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(UserError) as caught:
        replace_text(path, "new")
    assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("old")
    for path in (blocker / "text", blocker / "folder" / "text"):
        with pytest.raises(UserError, match="cannot write") as caught:
            replace_text(path, "new")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert blocker.read_text() == "old"


def test_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"), replacing(tmp_path / "text"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_check_makes_the_folder_and_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "text"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_check_finds_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "file" / "text", tmp_path):
        with pytest.raises(UserError, match=f"^cannot write {path}: ") as caught:
            check_writable(path)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "old"


_HOLDER = """
import sys, time
from pathlib import Path
from nas.files import only_run_in
with only_run_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_run_at_a_time_and_a_killed_one_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError, match="run_dir: another run is at work in") as caught:
            with only_run_in(folder):
                pytest.fail("two runs in one folder")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with only_run_in(folder):
            pass
    with only_run_in(folder):  # and again after an orderly end
        pass


def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refused(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with only_run_in(tmp_path / "run"):
        pass


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / "metrics.jsonl", tmp_path / ".hydra" / "config.yaml", tmp_path / "a.tmp"]
    of_runs = (tmp_path / "genotype.json", tmp_path / "checkpoints" / "last.pt")
    left = [temporary_of(path) for path in of_runs]
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    with only_run_in(tmp_path):
        assert all(path.exists() for path in kept) and not any(path.exists() for path in left)
