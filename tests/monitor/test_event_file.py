"""Files of TensorBoard events: each step once and in order, whatever stopped the run before."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter, summary

from nas.errors import UserError
from nas.monitor.event_file import EventFile, event_files, read_events
from nas.monitor.run_log import RunLog

pytestmark = pytest.mark.faults

scalar: Any = summary.scalar
writer_of_torch: Any = SummaryWriter


def write(folder: Path, steps: range, value: float, last_step: int = -1) -> None:
    file = EventFile(folder, last_step)
    for step in steps:
        file.write(scalar("loss/train", value), step)
    file.close()


def shown(folder: Path) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss/train")]


def stored(folder: Path) -> list[int]:
    """The steps of all scalars in all files, whether TensorBoard would show them or not."""
    events = (event for path in event_files(folder) for event in read_events(path))
    return [event.step for event in events if event.HasField("summary")]


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    write(tmp_path, range(3), 1.5)
    assert shown(tmp_path) == [(0, 1.5), (1, 1.5), (2, 1.5)]
    (path,) = event_files(tmp_path)
    assert next(iter(read_events(path))).file_version == "brain.Event:2"


@pytest.mark.parametrize("seconds", [0, 5, -5000])
def test_a_run_that_goes_on_has_each_step_once_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    now = time.time()
    expected = []
    for number in range(4):  # each time two steps are lost
        monkeypatch.setattr(time, "time", lambda n=number: now + n * seconds)
        first = number * 3
        write(tmp_path, range(first, first + 5), float(number), first - 1)
        expected += [(step, float(number)) for step in range(first, first + 3)]
    last = [(step, 3.0) for step in (12, 13)]
    assert shown(tmp_path) == expected + last
    assert stored(tmp_path) == list(range(14))
    assert len(event_files(tmp_path)) == 4


def test_files_that_have_nothing_left_go(tmp_path: Path) -> None:
    for _ in range(5):
        write(tmp_path, range(10, 12), 1.0, last_step=9)
    assert len(event_files(tmp_path)) == 1


@pytest.mark.parametrize("missing", [1, 9, 30, 60])
def test_an_event_that_a_kill_has_cut_short_is_dropped(tmp_path: Path, missing: int) -> None:
    write(tmp_path, range(5), 1.0)
    (path,) = event_files(tmp_path)
    path.write_bytes(path.read_bytes()[:-missing])
    write(tmp_path, range(3, 6), 2.0, last_step=2)
    assert shown(tmp_path) == [(s, 1.0) for s in range(3)] + [(s, 2.0) for s in range(3, 6)]
    assert stored(tmp_path) == list(range(6))


def test_a_flipped_bit_hides_no_later_run(tmp_path: Path) -> None:
    write(tmp_path, range(5), 1.0)
    (path,) = event_files(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(bytes(damaged))
    write(tmp_path, range(5, 8), 2.0, last_step=4)
    assert shown(tmp_path)[-3:] == [(s, 2.0) for s in range(5, 8)]


def test_files_of_torch_with_its_marks_are_cut_back_too(tmp_path: Path) -> None:
    for first, value in ((0, 1.0), (3, 2.0)):
        writer = writer_of_torch(str(tmp_path), purge_step=first)
        for step in range(first, 6):
            writer.add_scalar("loss/train", value, step)
        writer.close()
        time.sleep(1.1)  # the writer names its files by the second
    write(tmp_path, range(5, 7), 3.0, last_step=4)
    assert [v for _, v in shown(tmp_path)] == [1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, range(2), 1.0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_full_disk_is_one_line_and_no_thread_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(log._events, "flush", full)
        with pytest.raises(UserError, match=r"cannot write .*tensorboard: No space left"):
            log.scalars(1, {"loss/train": 1.0})
    log.close()
    assert capfd.readouterr() == ("", "")
