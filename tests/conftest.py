"""Set-up of all tests: threads, and a way to run the entry points."""

import gc
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from template_process import ROOT, Python

import nas.training.results
from nas.monitor.search import SearchMonitor

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

slow = partial(pytest.param, marks=pytest.mark.slow)
"""Parameters that `make test-slow` runs."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread_per_test() -> None:
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what the imports have made is not looked through again, a third of a second each


_draws_pictures = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before all fixtures, so that a search of a module's fixture draws as its first test does."""
    global _draws_pictures
    _draws_pictures = item.get_closest_marker("pictures") is not None


@pytest.fixture(autouse=True, scope="session")
def _pictures_where_they_are_asked_for() -> None:
    """Half the time of a tiny search are its pictures for TensorBoard: those marked so draw."""
    draw, draw_curves = SearchMonitor._draw, nas.training.results.draw_curves
    log_genotype = nas.training.results.log_genotype

    def draw_or_not(monitor: SearchMonitor, *arguments: Any) -> None:
        if _draws_pictures:
            draw(monitor, *arguments)

    def curves_or_nothing(*arguments: Any) -> Figure:
        return draw_curves(*arguments) if _draws_pictures else Figure()

    def genotype_or_nothing(*arguments: Any) -> None:
        if _draws_pictures:
            log_genotype(*arguments)

    SearchMonitor._draw = draw_or_not  # type: ignore[method-assign]
    nas.training.results.draw_curves = curves_or_nothing
    nas.training.results.log_genotype = genotype_or_nothing


@pytest.fixture
def device() -> torch.device:
    """Where the tests marked `gpu` run: CUDA, or what NAS_TEST_DEVICE names to try them."""
    found = torch.device(os.environ.get("NAS_TEST_DEVICE", "cuda"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return found


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
        with monkeypatch.context() as patched:
            if not any(text.startswith("-") or "hydra" in text for text in overrides):
                # Hydra composes all once more, only to see whether `hydra.mode` is set.
                patched.setattr(Hydra, "get_mode", lambda *_, **__: None)
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


_finished: dict[tuple[str, ...], Path] = {}


@pytest.fixture
def finished_run(
    run_program: Callable[..., tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Runs a program once for all tests that ask for the same; returns its folder, to be read.

    A test that changes something in the folder does so in a copy.
    """

    def finished(program: str, *overrides: str) -> Path:
        key = (program, *overrides)
        if key not in _finished:
            folder = tmp_path_factory.mktemp("finished") / "run"
            code, output = run_program(program, *overrides, f"run_dir={folder}")
            assert code == 0, output
            _finished[key] = folder
        return _finished[key]

    return finished


def _close_new_handlers(kept: list[logging.Handler]) -> None:
    """Hydra opens a log file a run; in one process they would stay open."""
    for logger in (logging.getLogger(), logging.getLogger("nas.epochs")):
        for handler in list(logger.handlers):
            if handler not in kept:
                logger.removeHandler(handler)
                handler.close()
    # As in a process where no program has run: its lines are in the log of `nas.search` too.
    logging.getLogger("nas.epochs").propagate = True


def start_program(
    program: str, *overrides: str, max_file_size: int = resource.RLIM_INFINITY
) -> Python:
    """Starts `python <program>.py` in a process of its own; see `template_process`.

    No file that it writes gets larger than `max_file_size` bytes, as on a full disk.
    """

    # A run in this process asks Hydra for tracebacks, which it then puts into one line.
    env = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return Python(f"{program}.py", *overrides, env=env, max_file_size=max_file_size)
