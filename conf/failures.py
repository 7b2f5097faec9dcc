"""One line for whatever ends a program, and no code out of files."""

import math
import os
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from hydra._internal import hydra as hydra_internal
from hydra._internal import logging_config
from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from conf import sweeps

WANTS_TRACEBACK = "HYDRA_FULL_ERROR"


def explain(error: Exception) -> str:
    """One line on an error that no part of the program has foreseen as a user's mistake."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {error.problem}"
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return f"a configuration file cannot be read: {lines[0]}"
    if lines[0].startswith("DataLoader worker"):
        # Raised by a signal handler, wherever the program happens to be at that moment.
        return (
            f"a worker that loads images has died ({lines[0]}), most often for want of memory: "
            "lower data.num_workers, and go on from the last checkpoint"
        )
    if "in DataLoader worker process" in lines[0]:
        return f"a worker that loads images has failed: {lines[-1].strip()}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in lines[0]:
        return f"not enough memory ({lines[0]}): lower batch_size"
    return (
        f"unexpected {type(error).__name__}{_place(error)}: {lines[0]} "
        f"({WANTS_TRACEBACK}=1 shows the traceback)"
    )


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def refuse_code(arguments: Iterable[str]) -> None:
    """Closes the ways on which Hydra runs what a file names.

    Raises:
        HydraException: the command line asks for a pickle to be loaded.
    """
    for argument in arguments:
        option = argument.partition("=")[0]  # argparse takes a beginning for the whole
        if len(option) > 3 and "--experimental-rerun".startswith(option):
            raise HydraException(f"{option}: loads a pickle, which could run any code")
    if not hasattr(logging_config.configure_logging, "__wrapped__"):
        checked = _checked(logging_config.configure_logging)
        setattr(logging_config, "configure_logging", checked)  # noqa: B010
    setattr(hydra_internal, "Callbacks", _NoCallbacks)  # noqa: B010 - it exports nothing by name


class _NoCallbacks(Callbacks):
    """Hydra makes its callbacks of whatever `_target_` a configuration file names.

    Those of a sweep are ours. They are sent to each process that a launcher starts, where they
    close the same ways before the first run.
    """

    def __init__(self, config: DictConfig | None = None) -> None:
        if config is not None and OmegaConf.select(config, "hydra.callbacks"):
            raise HydraException("hydra.callbacks: settings cannot name code to run")
        super().__init__()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the first run, in the process that the user has started."""
        sweeps.begin(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """After each run, in the process that did it."""
        if job_return.status == JobStatus.FAILED:
            sweeper = str(OmegaConf.select(config, "hydra.sweeper._target_"))
            is_noted = isinstance(job_return._return_value, sweeps.FailedRun)
            goes_on = is_noted and sweeper.endswith(".BasicSweeper")
            job_return.__class__ = _NotedReturn if goes_on else _QuietReturn
            overrides = " ".join(job_return.overrides or ())
            job_return._return_value.add_note(f"overrides: {overrides}")  # a traceback ends with it

    def __reduce__(self) -> tuple[Callable[[], Callbacks], tuple[()]]:
        return _in_worker, ()


class _QuietReturn(JobReturn):
    """Of a run that failed. Hydra's own prints all overrides besides what is said of the error."""

    @property  # type: ignore[misc]
    def return_value(self) -> Any:
        """Raises the error of the run."""
        raise self._return_value


class _NotedReturn(JobReturn):
    """Of a run that failed, for a sweeper that would start no further batch of runs.

    The end of the sweep says what is noted. Optuna's sweeper, which takes errors for failed trials,
    gets them.
    """

    @property  # type: ignore[misc]
    def return_value(self) -> Any:
        """No result."""
        return math.nan


def _in_worker() -> Callbacks:
    refuse_code(())
    return _NoCallbacks()


def _checked(configure: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """The configuration of logs names classes and functions too."""

    @wraps(configure)
    def checked(config: dict[str, Any]) -> None:
        for name in _factories(config):
            if not name.startswith(("logging.", "colorlog.")):
                raise HydraException(f"hydra.job_logging: settings cannot name code to run: {name}")
        configure(config)

    return checked


def _factories(node: object) -> Iterable[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("()", "class"):
                yield str(value)
            yield from _factories(value)
    elif isinstance(node, list):
        for value in node:
            yield from _factories(value)
