"""What a sweep and its runs in other processes tell each other, by two files in its folder.

A launcher of Hydra's starts the runs in processes of their own, here or on other machines. A
signal reaches the process that the user has started; the runs look for a file that it leaves.
"""

import _thread
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TextIO

from omegaconf import DictConfig, OmegaConf

from nas.errors import UserError
from nas.monitor.console import summary_table
from nas.sweep import FAILURES, SUMMARY

STOP = ".stop"
"""While it is in the folder of the sweep, its runs save their state and end."""
POLL_S = 1.0
EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=ray": "ray",
    "hydra/sweeper=optuna": "optuna",
}
"""What must be installed for an override: `pip install 'one-path-nas[joblib]'`."""

OPTUNA = {
    "hydra.sweeper.direction": "maximize",  # the programs return an accuracy
    "hydra.sweeper.max_failure_rate": "1.0",  # a trial that fails leaves the others alone
    "hydra.sweeper.sampler.seed": "0",  # a sweep that goes on draws the same trials again
}
"""Defaults of `hydra/sweeper=optuna` here."""


class FailedRun(UserError):  # noqa: N818 - what it says is an error, of the run
    """A run of a sweep failed, and the sweep's list of failures has it."""


class _Sweep:
    """The sweep that this process has started.

    Attributes:
        signal_name: What asked it to stop.
    """

    def __init__(self, folder: Path, *, is_parallel: bool) -> None:
        self.folder = folder
        self.signal_name: str | None = None
        self._previous: dict[int, object] = {}
        for name in (STOP, FAILURES):
            (folder / name).unlink(missing_ok=True)
        if is_parallel:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Waits for the runs; a second signal does not."""
        self.signal_name = signal.Signals(number).name
        self.restore()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / STOP).touch()
        print("stopping: the runs save their state", file=sys.stderr, flush=True)

    def failures(self) -> list[str]:
        """One line for each run that failed."""
        path = self.folder / FAILURES
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def restore(self) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()


_is_worker = True
_sweep: _Sweep | None = None


def with_defaults(arguments: Sequence[str]) -> list[str]:
    """The command line with our defaults for the sweeper that it asks for."""
    if "hydra/sweeper=optuna" not in arguments:
        return list(arguments)
    given = {argument.lstrip("+").partition("=")[0] for argument in arguments}
    if "hydra/sweeper/sampler=grid" in arguments:  # has no seed, and draws nothing
        given.add("hydra.sweeper.sampler.seed")
    return [*arguments, *(f"{key}={value}" for key, value in OPTUNA.items() if key not in given)]


def check_installed(arguments: Iterable[str]) -> None:
    """Looks for the launcher and the sweeper that are on the command line.

    Raises:
        UserError: one is not installed.
    """
    for argument in arguments:
        extra = EXTRAS.get(argument)
        part = "sweeper" if argument.startswith("hydra/sweeper") else "launcher"
        if extra and not _found(f"hydra_plugins.hydra_{extra}_{part}"):
            raise UserError(f"{argument}: not installed: pip install 'one-path-nas[{extra}]'")


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # no plugin at all
        return False


def begin(config: DictConfig) -> None:
    """Called by Hydra before the first run of a sweep, in the process that the user started."""
    global _sweep
    launcher = str(OmegaConf.select(config, "hydra.launcher._target_"))
    _sweep = _Sweep(
        Path(str(config.hydra.sweep.dir)), is_parallel=not launcher.endswith(".BasicLauncher")
    )
    if launcher.endswith(".LocalLauncher"):  # submitit's starts all runs at once
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def conducting() -> Iterator[None]:
    """Around all that a program does in the process that the user started.

    Says at the end of a sweep how to compare its runs.

    Raises:
        SystemExit: the sweep was stopped by a signal, and its runs have ended.
        UserError: runs failed.
    """
    global _is_worker, _sweep
    _is_worker, _sweep = False, None
    try:
        yield
    except Exception as error:
        if _sweep is None or (_sweep.signal_name is None and not _follows_failure(error, _sweep)):
            raise
    finally:
        if _sweep is not None:
            _sweep.restore()
    if _sweep is None:
        return
    if _sweep.signal_name is not None:
        (_sweep.folder / STOP).unlink(missing_ok=True)
        print(f"stopped by {_sweep.signal_name}; {how_to_go_on(_sweep.folder)}", file=sys.stderr)
        raise SystemExit(128 + int(signal.Signals[_sweep.signal_name]))
    failed = _sweep.failures()
    print(_end(_sweep.folder, len(failed)), end="", flush=True)
    if failed:
        others = f"; {len(failed) - 1} more failed: {_sweep.folder / FAILURES}"
        raise UserError(f"{failed[0]}{others if len(failed) > 1 else ''}")


def _follows_failure(error: Exception, sweep: _Sweep) -> bool:
    """Whether it says no more than that runs failed: their errors, or Optuna's of no trial left."""
    return isinstance(error, UserError | ValueError) and bool(sweep.failures())


def _end(folder: Path, num_failed: int) -> str:
    """What is said of a sweep when all its runs have ended; nothing if none left a summary."""
    num_done = sum(1 for _ in folder.rglob(SUMMARY))
    if num_done == 0:
        return ""
    rows = [
        ("runs", f"{num_done} done" + (f", {num_failed} failed" if num_failed else "")),
        ("results", f"{folder}/"),
        ("next", f"python -m nas.sweep {shlex.quote(str(folder))}"),
    ]
    return summary_table(rows, "sweep done") + "\n"


def how_to_go_on(folder: Path) -> str:
    """What the user may do with a sweep that was cut off."""
    return f"go on with the same command and hydra.sweep.dir={folder}"


def is_worker() -> bool:
    """Whether a launcher has started this process."""
    return _is_worker


def note_failure(folder: Path, message: str) -> UserError:
    """The error of a run of the sweep in `folder`, which gets a line in its list of failures.

    A run that ends because the sweep is stopped has none.
    """
    if not (folder / STOP).exists():
        with suppress(OSError), (folder / FAILURES).open("a", encoding="utf-8") as file:
            file.write(" ".join(message.split()) + "\n")
            return FailedRun(message)
    return UserError(message)


@contextmanager
def run_of(folder: Path, name: str) -> Iterator[None]:
    """Around one run of the sweep in `folder`; lines of a process of its own begin with `name`.

    Raises:
        UserError: the sweep was stopped before the run began.
    """
    if _is_worker:
        # The terminal sends Ctrl-C to all processes. A loop takes it, elsewhere it must not kill.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop, done = folder / STOP, threading.Event()
    if stop.exists():
        raise UserError("not begun, since the sweep was stopped")
    if not _is_worker:
        yield
        return
    watch = threading.Thread(target=_watch, args=(stop, done), daemon=True)
    watch.start()
    try:
        with (
            redirect_stdout(_Prefixed(sys.stdout, f"[{name}] ")),
            redirect_stderr(_Prefixed(sys.stderr, f"[{name}] ")),
        ):
            yield
    finally:
        done.set()
        watch.join()


def _watch(stop: Path, done: threading.Event) -> None:
    """Tells the loop; it notes the first signal, and further ones are ignored."""
    while not done.wait(POLL_S):
        with suppress(OSError):
            if stop.exists():
                _thread.interrupt_main(signal.SIGINT)  # Ray blocks the signal itself


class _Prefixed(io.TextIOBase):
    """Writes whole lines, each with a prefix, so that those of several runs can be told apart."""

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream, self._prefix, self._rest = stream, prefix, ""

    def write(self, text: str) -> int:
        """Holds back what is no whole line yet."""
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Does nothing: each whole line has been written."""
