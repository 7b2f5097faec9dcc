"""Starts a program from the command line with Hydra, and puts every user's mistake in one line."""

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.at_once import take_interrupts
from conf.defaults import default_settings
from conf.failures import WANTS_TRACEBACK, explain, refuse_code, without_code
from conf.messages import describe
from conf.outline import CONF_DIR
from conf.questions import answer, command_of
from conf.schema import register_schemas
from conf.sweeps import (
    check_installed,
    conducting,
    how_to_go_on,
    is_worker,
    note_failure,
    run_of,
    with_defaults,
)
from conf.together import MULTIRUN, arguments_of_all, fail, fail_lost, is_lost, join
from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.files import LOCK, FolderInUseError, only_run_in, replace_text
from nas.sweep import SUMMARY, Result
from nas.training.checkpoint import last_checkpoint, saved_overrides
from nas.training.loop import FILE_LOGGER
from nas.training.run import Interrupted, flat_settings

LARGEST = 2**31 - 1
"""No setting has a use for larger integers, and some are handed to code that cannot hold them."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class Launch:
    """What the command line says besides the settings.

    Attributes:
        run_dir: Folder of this run.
        program: Name of the entry point, such as `search`.
        overrides: The overrides as they were given.
        settings: All settings as plain nested dicts.
        must_resume: `resume=true` was given for this one run, so there must be a checkpoint.
        is_in_sweep: It is one run of several (`-m`).
        ranks: The processes that do this run together.
    """

    run_dir: Path
    program: str
    overrides: tuple[str, ...]
    settings: dict[str, Any]
    must_resume: bool
    is_in_sweep: bool = False
    ranks: Ranks = ALONE

    def finished(self) -> float | None:
        """What the run returned when it was finished by an earlier start of the same sweep."""
        summary = self.run_dir / SUMMARY
        if not self.is_in_sweep or not summary.exists():
            return None
        result = Result.load(summary)
        return next(iter(result.metrics.values())) if result.overrides == self.overrides else None

    def continues(self) -> bool:
        """Whether this run goes on from a checkpoint.

        Raises:
            UserError: it must, and there is none.
        """
        checkpoint = last_checkpoint(self.run_dir)
        if self.must_resume and not checkpoint.exists():
            raise UserError(f"resume=true, but there is no checkpoint {checkpoint}")
        return checkpoint.exists()


def launch(program: str, schema: type[Config], run: Callable[[Config, Launch], float]) -> None:
    """Composes the configuration of `program`, checks it against `schema` and calls `run`.

    Exits with 0 where a question is answered instead, with 1 and one line on a user's mistake, and
    with 130 or 143 after a signal.
    """
    logging.raiseExceptions = False  # a log on a full disk: whatever else is written says so
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", _newest_or_new, replace=True)
    answer(program, sys.argv[1:])
    command = command_of(program)
    arguments = with_defaults([for_hydra(argument) for argument in sys.argv[1:]])
    ranks = join()
    if ranks.size > 1:
        count = os.environ["LOCAL_WORLD_SIZE"]
        command = f"torchrun --nproc-per-node {count} {command.removeprefix('python ')}"
        moment = time.strftime("%Y-%m-%d_%H-%M-%S")
        resumes = any(argument.lower() == "resume=true" for argument in arguments)
        folder = Path(_newest_or_new(f"runs/{program}", moment, resumes))
        arguments = arguments_of_all(arguments, folder, ranks)
    sys.argv = [sys.argv[0], *_saved_overrides(arguments, program), *arguments]
    wants_traceback = WANTS_TRACEBACK in os.environ
    os.environ[WANTS_TRACEBACK] = "1"  # Hydra raises its errors; they are reported below

    def task(config: DictConfig) -> float:
        context = HydraConfig.get()
        folder = Path(context.runtime.output_dir)
        sweep = Path(str(context.sweep.dir)) if context.mode == RunMode.MULTIRUN else None
        in_sweep = run_of(sweep, str(context.job.num)) if sweep else nullcontext()
        try:
            with in_sweep, only_run_in(folder) if ranks.is_first else nullcontext():
                typed, launched = _arguments(program, schema, config, ranks)
                value = launched.finished()
                if value is not None:
                    print(f"finished before: {folder}", file=sys.stderr)
                    return value
                if ranks.is_first:
                    _save_settings(program, config)
                return run(typed, launched)
        except UserError as error:
            if wants_traceback:
                raise
            if ranks.is_first and not isinstance(error, FolderInUseError):
                logging.getLogger(FILE_LOGGER).error("%s", error)
                _remove_if_unused(folder)
            if sweep:  # the other runs come first
                raise note_failure(sweep, f"{folder}: {error}") from None
            fail(str(error))
        except Interrupted as stopped:
            logging.getLogger(FILE_LOGGER).info("%s", stopped)
            if is_worker():  # whose exit would end the runs in other processes
                raise UserError(f"{folder}: {stopped}") from None
            more = ["resume=true", *without_code(context.overrides.task)[1]]
            alone = f"go on with: {' '.join([command, f'run_dir={folder}', *more])}"
            print(f"{stopped}; {how_to_go_on(sweep) if sweep else alone}", file=sys.stderr)
            raise SystemExit(stopped.exit_code) from None
        except Exception as error:
            if is_lost(error):
                fail_lost()
            logging.getLogger(FILE_LOGGER).exception("the run ends")
            if sweep and not wants_traceback:  # not all errors can be sent between processes
                raise note_failure(sweep, f"{folder}: {explain(error)}") from None
            raise

    start = hydra.main(config_path=str(CONF_DIR), config_name=program, version_base="1.3")(task)
    try:
        take_interrupts()  # from here on there is somebody to catch them
        with conducting():
            refuse_code(arguments)
            check_installed(arguments)
            start()
    except UserError as error:  # of a run in a sweep, after all others have ended
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        fail(describe(error, program))
    except KeyboardInterrupt:  # where no loop takes it: while data is loaded, or at the end
        print("stopped by SIGINT", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # of Hydra's, which makes the folder of the run
        if wants_traceback or error.strerror is None:
            raise
        where = error.filename or "the folder of the run"
        fail(f"run_dir: cannot write {where}: {error.strerror}")
    except Exception as error:
        if wants_traceback:
            raise
        fail(explain(error))


def _save_settings(program: str, config: DictConfig) -> None:
    """Writes what Hydra would write, which a second run in the folder must not overwrite."""
    folder, context = Path(HydraConfig.get().runtime.output_dir) / ".hydra", HydraConfig.get()
    for name, content in {
        "config": config,
        "hydra": OmegaConf.create({"hydra": context}),
        "overrides": context.overrides.task,
        "defaults": default_settings(program, config, context.runtime.choices),
    }.items():
        replace_text(folder / f"{name}.yaml", OmegaConf.to_yaml(content))


def _arguments(
    program: str, schema: type[Config], config: DictConfig, ranks: Ranks
) -> tuple[Config, Launch]:
    """The settings as an instance of `schema`, and the launch.

    Raises:
        UserError: a value is out of range or missing.
    """
    try:
        typed = checked(schema, config)
    except AttributeError:  # what +key=value adds has no place in the schema
        added = [o for o in HydraConfig.get().overrides.task if o.startswith("+")]
        raise UserError(f"settings cannot be added: {', '.join(added)}") from None
    context = HydraConfig.get()
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    launch_ = Launch(
        run_dir=Path(context.runtime.output_dir),
        program=program,
        overrides=tuple(context.overrides.task),
        settings={str(key): value for key, value in settings.items()},
        must_resume=bool(config.get("resume")) and context.mode == RunMode.RUN,
        is_in_sweep=context.mode == RunMode.MULTIRUN,
        ranks=ranks,
    )
    return typed, launch_


def checked(schema: type[Config], config: DictConfig) -> Config:
    """The settings as an instance of `schema`.

    Raises:
        UserError: a value is out of range or missing.
        OmegaConfBaseException: one is of the wrong type, or refers to what is not there.
        AttributeError: there is a setting that the schema does not have.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} has no value: give {missing[0]}=...")
    for key, value in flat_settings(OmegaConf.to_container(config, resolve=True)).items():  # type: ignore[arg-type]
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}: must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UserError(f"{key} is {value}: must be at most {LARGEST}")
    for group in (field.name for field in fields(schema) if field.type is Any):  # type: ignore[arg-type]
        if not is_dataclass(OmegaConf.get_type(config, group)):
            raise UserError(f"{group} is {config[group]!r}: must be one of the group {group}")
    try:
        typed = OmegaConf.to_object(config)
    except ValueError as error:
        raise UserError(str(error)) from None
    assert isinstance(typed, schema)
    return typed


def for_hydra(argument: str) -> str:
    """An override as a user writes it, as Hydra's grammar takes it.

    The text forms of a genotype are quoted, since their characters mean something there. Arguments
    of a user's own model, whose names no schema knows, are marked as new.
    """
    key, _, value = argument.partition("=")
    if key.startswith(("space.arguments.", "network.arguments.")):
        return f"++{argument}"
    if key == "genotype" and value.startswith(("|", "Genotype(")):
        escaped = value.replace("'", "\\'")
        return f"genotype='{escaped}'"
    return argument


def _saved_overrides(arguments: list[str], program: str) -> list[str]:
    """What a run that is resumed was started with, so that it need not be typed again.

    Overrides that are given anew are left out.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if given.get("resume", "").lower() != "true" or MULTIRUN & given.keys():
        return []
    run_dir = given.get("run_dir") or _newest(Path("runs", program))
    path = last_checkpoint(Path(run_dir)) if run_dir else None
    overrides = [
        override
        for override in (saved_overrides(path) if path else [])
        if override.partition("=")[0] not in given
    ]
    kept, refused = without_code(overrides)
    if refused:
        fail(
            f"{path} asks for {', '.join(refused)}, with which it could run any code: give that on "
            "the command line if you trust it"
        )
    return kept


def _newest(parent: Path) -> Path | None:
    """The run under `parent` with the newest checkpoint."""
    runs = [run for run in parent.glob("*") if last_checkpoint(run).exists()]
    return max(runs, key=lambda run: last_checkpoint(run).stat().st_mtime, default=None)


def _newest_or_new(parent: str, name: str, resume: bool) -> str:
    """The newest run with a checkpoint under `parent` if `resume`, else `parent/name`."""
    return str((_newest(Path(parent)) if resume else None) or Path(parent) / name)


def _remove_if_unused(run_dir: Path) -> None:
    """Removes the folder of a run that failed before it wrote anything but Hydra's own files."""
    entries = list(run_dir.iterdir()) if run_dir.is_dir() else []
    if all(entry.name in (".hydra", LOCK) or entry.suffix == ".log" for entry in entries):
        shutil.rmtree(run_dir, ignore_errors=True)
