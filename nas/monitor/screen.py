"""Where progress is shown: one line that is rewritten, a part of a notebook, or lines of a file."""

import io
import os
from collections import deque
from typing import Any, Protocol, TextIO

_REFRESH_S = 0.5
_KEPT_LINES = 12
_LOG_SHARE = 0.02


class Nowhere(io.TextIOBase):
    """Takes what it is given and forgets it."""

    def write(self, text: str) -> int:
        """Says that all has been written."""
        return len(text)


class Screen(Protocol):
    """What progress is written to.

    Attributes:
        has_bar: Whether the present state is drawn as a bar, which the next one takes the place of.
    """

    has_bar: bool

    def wait_s(self, elapsed_s: float) -> float:
        """Seconds from one state to the next, `elapsed_s` after the start."""

    def state(self, text: str) -> None:
        """Shows the present state."""

    def line(self, text: str) -> None:
        """Shows a line that stays."""

    def close(self) -> None:
        """Leaves the last state."""


def screen_of(stream: TextIO, interval_s: float) -> Screen:
    """What suits a stream; `interval_s` are the seconds between the lines of a file."""
    if type(stream).__module__.partition(".")[0] == "ipykernel":
        return _Notebook()
    # A dumb terminal (an editor's) shows control codes as they are.
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return _Terminal(stream)
    return _Lines(stream, interval_s)


class _Terminal:
    """One line updates itself; carriage return and 'erase to the end' are all it takes."""

    has_bar = True

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def wait_s(self, elapsed_s: float) -> float:
        return _REFRESH_S

    def state(self, text: str) -> None:
        _write(self._stream, "\r" + text[: self._columns() - 1] + "\x1b[K")

    def line(self, text: str) -> None:
        _write(self._stream, f"\r\x1b[K{text}\n")

    def close(self) -> None:
        _write(self._stream, "\n")

    def _columns(self) -> int:
        # The stream's own width: standard output may be a file while this one is a terminal.
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


class _Notebook:
    """One output that is updated: the last lines and the bar, however long the run is."""

    has_bar = True

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._state, self._left_out = "", 0
        self._handle: Any = None

    def wait_s(self, elapsed_s: float) -> float:
        return _REFRESH_S

    def state(self, text: str) -> None:
        self._state = text
        self._refresh()

    def line(self, text: str) -> None:
        self._left_out += len(self._lines) == _KEPT_LINES
        self._lines.append(text)
        self._refresh()

    def close(self) -> None:
        pass

    def _refresh(self) -> None:
        from IPython.display import display  # where there is a notebook, there it is

        before = [f"... ({self._left_out} lines before)"] if self._left_out else []
        content = {"text/plain": "\n".join([*before, *self._lines, self._state])}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class _Lines:
    """Plain lines, ever fewer: a log of a week is not much longer than one of a day."""

    has_bar = False

    def __init__(self, stream: TextIO, interval_s: float) -> None:
        self._stream, self._interval = stream, interval_s

    def wait_s(self, elapsed_s: float) -> float:
        return max(self._interval, _LOG_SHARE * elapsed_s)

    def state(self, text: str) -> None:
        _write(self._stream, text + "\n")

    def line(self, text: str) -> None:
        _write(self._stream, text + "\n")

    def close(self) -> None:
        pass


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()
