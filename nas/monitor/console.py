"""Progress of a run as text, and the table at its end."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from nas.monitor.screen import Nowhere, screen_of

_NOTED_S = 0.5
_WINDOW_S = 30.0
_BAR_WIDTH = 20

NOWHERE = Nowhere()


class Progress:
    """Shows how far a run is, how fast it goes and when it will be done.

    On a terminal and in a notebook one line updates itself; elsewhere (a log file, CI) a plain line
    is written at most every `interval_s` seconds, more seldom as the run gets longer. The rate is
    that of the last half minute, so it follows a change of speed; the time left is told from the
    mean since this process started.

    Args:
        total_steps: Steps of the whole run.
        start_step: Steps that were done before this process (resume).
        unit: Name of a step, for the rate ("step/s").
        stream: Where to write; standard error if None.
        interval_s: Seconds between plain lines.
        clock: Gives the time in seconds; a test passes its own.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start_step: int = 0,
        unit: str = "step",
        stream: TextIO | None = None,
        interval_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total_steps
        self._step = start_step
        self._unit = unit
        self._clock = clock
        self._screen = screen_of(self._stream, interval_s)
        self._figures = ""
        # Moments (time, step), oldest first; the first and the last give the rate.
        self._start = (clock(), start_step)
        self._moments = deque([self._start])
        self._shown_at = -math.inf if self._screen.has_bar else clock()
        self._shown_step = -1
        self._closed = False

    def is_due(self, step: int) -> bool:
        """Takes note that `step` steps are done; says whether `update` would draw now.

        So a loop reads its figures from the device only when they are going to be shown.
        """
        self._step = step
        now = self._clock()
        if now - self._moments[-1][0] >= _NOTED_S:
            self._note(now)
        return now - self._shown_at >= self._screen.wait_s(now - self._start[0])

    def update(self, step: int, **figures: float | str) -> None:
        """Takes note that `step` steps are done; draws if it is time to.

        Args:
            step: Steps done of the whole run.
            figures: What else to show, by name (`loss=1.25`); the last ones given stay.
        """
        if figures:
            self._figures = "  ".join(f"{k} {_short(v)}" for k, v in figures.items())
        if self.is_due(step):
            self._show(self._clock())

    def advance(self, num_steps: int = 1) -> None:
        """Takes note of so many more steps; draws if it is time to."""
        self.update(self._step + num_steps)

    def end_here(self) -> None:
        """Takes note that nothing follows, though more might have: what is done was all."""
        self._total = self._step

    def line(self, text: str) -> None:
        """Writes a line that stays (the summary of an epoch), and redraws the bar below it."""
        self._screen.line(text)
        if self._screen.has_bar and not self._closed:
            self._show(self._clock())

    def close(self) -> None:
        """Shows the last state and leaves the line; a second call does nothing."""
        if self._closed:
            return
        if self._step >= self._total:
            self._figures = ""  # those of a step before; what came of it has been said
        if self._screen.has_bar or self._shown_step != self._step:
            self._show(self._clock())
        self._screen.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _note(self, now: float) -> None:
        self._moments.append((now, self._step))
        # A step may take longer than the window: two moments always stay.
        while len(self._moments) > 2 and now - self._moments[1][0] >= _WINDOW_S:
            self._moments.popleft()

    def _rate(self, now: float) -> float | None:
        """Steps a second, or None before the first measurement."""
        start, start_step = self._moments[0]
        if now <= start or self._step <= start_step:
            return None
        return (self._step - start_step) / (now - start)

    def _show(self, now: float) -> None:
        self._shown_at, self._shown_step = now, self._step
        self._screen.state(self._text(now))

    def _text(self, now: float) -> str:
        share = min(self._step / self._total, 1.0) if self._total else 1.0
        width = len(str(self._total))
        parts = [f"{100 * share:3.0f}%"]
        if self._screen.has_bar:
            parts.append(self._bar(share))
        parts.append(f"{self._step:{width}d}/{self._total}")
        parts.append(self._pace(self._rate(now), now))
        if self._figures:
            parts.append(self._figures)
        return "  ".join(parts)

    def _pace(self, rate: float | None, now: float) -> str:
        done = self._step - self._start[1]
        if rate is None or done <= 0:
            return "ETA ?"
        elapsed = now - self._start[0]
        # Below one a second "s/step" reads better than 0.03 step/s.
        pace = f"{rate:.3g} {self._unit}/s" if rate >= 1 else f"{1 / rate:.3g} s/{self._unit}"
        if self._step >= self._total:
            return f"{pace}  in {_duration(elapsed)}"
        # From the mean since the start, which has the evaluations between epochs in it.
        return f"{pace}  ETA {_duration((self._total - self._step) * elapsed / done)}"

    def _bar(self, share: float) -> str:
        full, empty = ("█", "░") if self._can_write("█░") else ("#", "-")
        num_full = int(share * _BAR_WIDTH)
        return full * num_full + empty * (_BAR_WIDTH - num_full)

    def _can_write(self, text: str) -> bool:
        try:
            text.encode(getattr(self._stream, "encoding", None) or "ascii")
        except UnicodeEncodeError:
            return False
        return True


def summary_table(rows: Sequence[tuple[str, str]], title: str) -> str:
    """Returns a plain table of names and values with a title, for the end of a run."""
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    rule = "-" * min(100, max(len(line) for line in [title, *lines]))
    return "\n".join([title, rule, *lines, rule])


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"
