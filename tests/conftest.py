"""Set-up of all tests: threads, shapes in signatures, and a way to run the entry points."""

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).parent.parent

# Small enough that a search takes a second or two.
TINY_SEARCH = (
    "epochs=2",
    "batch_size=32",
    "space.channels=4",
    "space.cells_per_stage=1",
    "data.limit=256",
)
TINY_RETRAIN = (
    "epochs=2",
    "batch_size=32",
    "network.channels=4",
    "network.cells_per_stage=1",
    "data.limit=256",
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_test() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def run_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs `search` or `retrain` in this process; returns the exit code and all output."""
    monkeypatch.chdir(ROOT)
    handlers = list(logging.getLogger().handlers)

    def run(program: str, *overrides: str) -> tuple[int, str]:
        module = __import__(program)
        monkeypatch.setattr(sys, "argv", [f"{program}.py", *overrides])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        GlobalHydra.instance().clear()
        capfd.readouterr()
        code = 0
        try:
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            _close_new_handlers(handlers)
        out, err = capfd.readouterr()
        return code, out + err

    yield run
    torch.use_deterministic_algorithms(False)


def _close_new_handlers(kept: list[logging.Handler]) -> None:
    """Hydra opens a log file a run; in one process they would stay open."""
    for logger in (logging.getLogger(), logging.getLogger("nas.epochs")):
        for handler in list(logger.handlers):
            if handler not in kept:
                logger.removeHandler(handler)
                handler.close()


def start_program(
    program: str, *overrides: str, max_file_size: int = resource.RLIM_INFINITY
) -> subprocess.Popen[str]:
    """Starts `python <program>.py` as a user would, in a process of its own.

    No file that it writes gets larger than `max_file_size` bytes, as on a full disk.
    """

    def prepare() -> None:
        # A shell that runs the tests in the background has children ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, resource.RLIM_INFINITY))

    return subprocess.Popen(
        [sys.executable, f"{program}.py", *overrides],
        cwd=ROOT,
        # A run in this process asks Hydra for tracebacks, which it then puts into one line.
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
    )
