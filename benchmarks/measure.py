"""Timing side by side, peak memory, and what a result must say about its machine."""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from nas.files import replace_text
from nas.training.run import device_name

MIB = 2**20
CALLS_ON_GPU = 5
"""That a `Stopwatch` times together."""

Step = Callable[[], object]


class Stopwatch:
    """Times of named steps, on one architecture a round, several times each.

    Other work on the machine only ever slows a step down: what counts of a step in a round is the
    fastest of its repetitions. Rounds differ, since architectures do; their mean is what counts.

    On a GPU a repetition is the mean of several calls in a row: in a search the host launches the
    next step while the device is at work on this one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._calls = CALLS_ON_GPU if device.type == "cuda" else 1
        self._times_ms: dict[str, dict[int, list[float]]] = {}

    def time(self, name: str, number: int, step: Step) -> None:
        """Times `step` in round `number`, the work on the device included."""
        wait_for(self.device)
        start = time.perf_counter()
        for _ in range(self._calls):
            step()
        wait_for(self.device)
        times = self._times_ms.setdefault(name, {}).setdefault(number, [])
        times.append(1000 * (time.perf_counter() - start) / self._calls)

    @property
    def names(self) -> list[str]:
        """What was timed."""
        return list(self._times_ms)

    def mean_ms(self, name: str) -> float:
        """The mean over the rounds: what a search pays for a step."""
        return statistics.mean(self._rounds(name).values())

    def ratio(self, name: str, other: str) -> float:
        """The ratio of the means of two steps over the rounds in which both were timed."""
        mine, others = self._rounds(name), self._rounds(other)
        both = mine.keys() & others.keys()
        return sum(mine[number] for number in both) / sum(others[number] for number in both)

    def _rounds(self, name: str) -> dict[int, float]:
        return {number: min(times) for number, times in self._times_ms[name].items()}


def wait_for(device: torch.device) -> None:
    """Waits until `device` has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(step: Step, device: torch.device) -> float:
    """The most that `step` allocates at once, above what was there before, in MiB."""
    if device.type == "cuda":
        wait_for(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    present = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        present += event.nbytes()
        peak = max(peak, present)
    return peak / MIB


def tensors_mib(tensors: Iterable[torch.Tensor]) -> float:
    """The size of `tensors` in MiB."""
    return sum(t.numel() * t.element_size() for t in tensors) / MIB


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a measurement was made."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The commit of the checkout, with `+` where files differ from it; empty without git."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *args]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "-uno") else ""
    )


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Prints `rows` as a Markdown table; a column for every key that a row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    texts = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for cells in ([columns], [["-" * width for width in widths]], texts):
        for line in cells:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print("| " + " | ".join(padded) + " |", flush=True)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
    return "" if value is None else str(value)


def save(path: Path, device: torch.device, settings: Mapping[str, object], rows: object) -> None:
    """Writes a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {**environment(device), "settings": dict(settings), "rows": rows}
    replace_text(path, json.dumps(found, indent=1) + "\n")
    print(f"\nwritten to {path}")
