"""What a run writes for others to read: TensorBoard events and `metrics.jsonl`."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nas.errors import UserError, reason
from nas.files import replace_text
from nas.monitor import summaries
from nas.monitor.event_file import EventFile
from nas.monitor.metrics import find_metric

EVENTS_FOLDER = "tensorboard"
METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Writes one run into `run_dir`: `tensorboard/` and `metrics.jsonl`, under the same names.

    A context manager. Step n means: after n updates of the weights.

    A resumed run shows every step once: lines of `metrics.jsonl` and events after `resume_step` are
    removed. Call `flush` before a checkpoint is saved, so that what the checkpoint has behind it is
    on disk.

    Attributes:
        past: Lines of `metrics.jsonl` that were there and are kept.

    Args:
        run_dir: Folder of the run; made if it is not there.
        resume_step: The step that the checkpoint was saved at; None starts a new log, and what an
            older run left in the folder is no longer shown.

    Raises:
        UserError: the folder or its files cannot be written, or `metrics.jsonl` is damaged. All
            methods that write raise it too (a disk that fills up).
    """

    def __init__(self, run_dir: Path, *, resume_step: int | None = None) -> None:
        self.run_dir = run_dir
        self._events_path = run_dir / EVENTS_FOLDER
        self._metrics_path = run_dir / METRICS_FILE
        self.past: list[dict[str, float | None]] = []
        self._described: set[str] = set()
        self._is_session = False
        with _writing(self._metrics_path):
            run_dir.mkdir(parents=True, exist_ok=True)
            self._metrics_file = self._open_metrics(resume_step)
        with _writing(self._events_path):
            self._events = EventFile(self._events_path, -1 if resume_step is None else resume_step)

    def scalars(self, step: int, values: Mapping[str, float], epoch: int | None = None) -> None:
        """Writes the metrics of one moment: one line of `metrics.jsonl`, one event a metric.

        Args:
            step: Updates of the weights so far.
            values: Value by metric name; names are those of `nas.monitor.metrics`.
            epoch: Number of the epoch, counted from 0, where there is one.

        Raises:
            ValueError: a name is not in the table of metrics.
        """
        line: dict[str, float | int | None] = {"step": step}
        if epoch is not None:
            line["epoch"] = epoch
        numbers = {name: float(value) for name, value in values.items()}
        for name, number in numbers.items():
            find_metric(name)
            # JSON has no NaN and no infinity.
            line[name] = number if math.isfinite(number) else None
        with _writing(self._metrics_path):
            self._metrics_file.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics_file.flush()
        self._write_scalars(step, numbers)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Writes what a run came to, as events alone: in the folder it is in `summary.json`.

        Args:
            step: One after the last, so that whoever resumes from that writes it anew.
            values: Value by metric name.
        """
        self._write_scalars(step, values)

    def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        with _writing(self._events_path):
            for name, value in values.items():
                described = name in self._described
                self._events.write(summaries.scalar(name, value, described=described), step)
            self._events.flush()
        self._described.update(values)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Writes a figure as a picture, and clears the figure."""
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        figure.clear()
        with _writing(self._events_path):
            self._events.write(summaries.picture(tag, pixels), step)

    def text(self, tag: str, text: str, step: int) -> None:
        """Writes a text, which TensorBoard reads as Markdown."""
        with _writing(self._events_path):
            self._events.write(summaries.text(tag, text), step)

    def hparams(
        self,
        settings: Mapping[str, summaries.Setting],
        first: Sequence[str],
        metrics: Sequence[str],
    ) -> None:
        """Puts the run into the HPARAMS tab: its settings, and metrics to compare it by.

        The tab shows the last logged value of each metric. Unlike
        `SummaryWriter.add_hparams` this makes no second run in a sub-folder. The session counts as
        ended well when the log is closed without an exception; a resumed run begins a new one in
        place of the old.

        Args:
            settings: Value by name.
            first: Those that are shown first.
            metrics: Names of metrics.
        """
        self._add_summaries(*summaries.session(settings, first, metrics))
        self._is_session = True

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Lays out the CUSTOM SCALARS tab.

        Args:
            charts: For each category and title of a chart, the lines that it shows, as regular
                expressions that are matched from the start of a metric's name.
        """
        self._add_summaries(summaries.charts(charts))

    def flush(self) -> None:
        """Waits until everything that was logged is in the files."""
        with _writing(self._metrics_path):
            os.fsync(self._metrics_file.fileno())
        with _writing(self._events_path):
            self._events.sync()

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        if self._metrics_file.closed:
            return
        try:
            with _writing(self._metrics_path):
                self._metrics_file.close()
            if self._is_session:
                self._add_summaries(summaries.session_end())
        finally:
            with _writing(self._events_path):
                self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        self._is_session = False
        # The error under way is the one to report, not that closing failed as well.
        with suppress(UserError):
            self.close()

    def _open_metrics(self, resume_step: int | None) -> TextIO:
        if resume_step is None:
            return self._metrics_path.open("w", encoding="utf-8")
        if self._metrics_path.exists():
            kept = _lines_until(self._metrics_path, resume_step)
            self.past = [json.loads(line) for line in kept]
            replace_text(self._metrics_path, "".join(kept))
        return self._metrics_path.open("a", encoding="utf-8")

    def _add_summaries(self, *summaries: object) -> None:
        with _writing(self._events_path):
            for summary in summaries:
                # Step 0 is before every resume step: what describes the run always stays.
                self._events.write(summary, 0)


def _lines_until(path: Path, last_step: int) -> list[str]:
    """Returns the lines with `step <= last_step`; a last line that a kill cut short is left out."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            step = int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not a line of metrics") from None
        if step <= last_step and line.endswith("\n"):
            kept.append(line)
    return kept


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns the errors of the file system into one line that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
