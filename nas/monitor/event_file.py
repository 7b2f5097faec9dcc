"""Files of TensorBoard events: every step is in them once, however often a run was stopped.

PyTorch's own writer hands events to a thread, whose errors (a full disk) reach the console as a
traceback, and orders the files of a run by the clock, which can jump.
"""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

from nas.files import replacing
from nas.monitor.summaries import is_of_session

_PREFIX = "events.out.tfevents."
_FILE_VERSION = "brain.Event:2"
_FRAME_BYTES = 16
"""What surrounds each record: its length and two checksums."""


class EventFile:
    """Appends to a new file of events; those that are there lose what comes after `last_step`.

    TensorBoard reads the files of a folder by name, so the new one has the highest.

    Args:
        folder: Of the events; made if it is not there.
        last_step: Of the checkpoint that the run goes on from; -1 for a new run.

    Raises:
        OSError: a file cannot be written; `write` and `flush` raise it too.
        UserError: an older file cannot be written anew.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        moments = [_forget_after(path, last_step) for path in event_files(folder)]
        moment = max([int(time.time()), *(before + 1 for before in moments)])
        name = f"{_PREFIX}{moment:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        first = last_step + 1
        self._add(Event(step=first, file_version=_FILE_VERSION))
        # For a TensorBoard that has read the older files before they were cut back.
        self._add(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def write(self, summary: Any, step: int) -> None:
        """Adds what a function of `nas.monitor.summaries` has made."""
        self._add(Event(step=step, summary=summary))

    def flush(self) -> None:
        """Hands what was written to the operating system: it outlives the process."""
        self._file.flush()

    def sync(self) -> None:
        """Waits until it is on the disk."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def event_files(folder: Path) -> list[Path]:
    """The files of events in `folder`, in the order in which TensorBoard reads them."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def read_events(path: Path) -> Iterator[Any]:
    """The events of a file, up to its end or to where a kill has cut it short."""
    for record in RawEventFileLoader(str(path)).Load():
        yield Event.FromString(record)


def _forget_after(path: Path, last_step: int) -> int:
    """Takes the events after `last_step` out of a file; returns the moment in its name.

    What a run was set to (the HPARAMS tab) goes, too: the new file says it anew. A file without
    any other goes altogether.
    """
    kept: list[Any] = []
    num_events, size = 0, 0
    for event in read_events(path):
        num_events, size = num_events + 1, size + event.ByteSize() + _FRAME_BYTES
        if event.step <= last_step and not any(map(is_of_session, event.summary.value)):
            kept.append(event)
    if not any(event.HasField("summary") for event in kept):
        path.unlink()
    elif len(kept) < num_events or size < path.stat().st_size:
        with replacing(path) as temporary, temporary.open("wb") as file:
            records = RecordWriter(file)
            for event in kept:
                records.write(event.SerializeToString())
    moment = path.name.removeprefix(_PREFIX).partition(".")[0]
    return int(moment) if moment.isdecimal() else 0
