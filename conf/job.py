"""One run, as Hydra calls it: in the process that the user started, or in one of a launcher's."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.failures import explain
from conf.settings import (
    Config,
    Launch,
    checked,
    plain_settings,
    remove_if_unused,
    saved_settings,
)
from conf.sweeps import how_to_go_on, is_worker, note_failure, run_of
from conf.together import fail, fail_lost, is_lost
from nas.commands import without_code
from nas.distributed import Ranks
from nas.errors import UserError
from nas.files import FolderInUseError, only_run_in
from nas.training.loop import FILE_LOGGER
from nas.training.run import Interrupted


@dataclass(frozen=True)
class Job(Generic[Config]):
    """What all runs of one command have in common; called with the settings of each.

    Launchers send it to other processes.

    Attributes:
        program: Name of the entry point.
        schema: Of its settings.
        run: Does one run; returns its result.
        command: How the user started the program.
        arguments: Of the command line.
        ranks: The processes that do a run together.
        wants_traceback: Errors are not put into one line.
    """

    program: str
    schema: type[Config]
    run: Callable[[Config, Launch], float]
    command: str
    arguments: Sequence[str]
    ranks: Ranks
    wants_traceback: bool

    def __call__(self, config: DictConfig) -> float:
        """The result of one run. Nothing but a signal ends the other runs of a sweep.

        Raises:
            UserError: a run of a sweep failed.
            SystemExit: any other run failed by a user's mistake, or a signal stopped the run.
        """
        folder, sweep = _places()
        try:
            with self._alone_in(folder, sweep):
                return self._result(config, folder)
        except UserError as error:
            if self.wants_traceback:
                raise
            self._end_by_mistake(error, folder, sweep)
        except Interrupted as stopped:
            self._end_by_signal(stopped, folder, sweep)
        except Exception as error:
            if is_lost(error):
                fail_lost()
            logging.getLogger(FILE_LOGGER).exception("the run ends")
            if sweep and not self.wants_traceback:  # not all errors can be sent between processes
                raise note_failure(sweep, f"{self._named(folder)}: {explain(error)}") from None
            raise

    @contextmanager
    def _alone_in(self, folder: Path, sweep: Path | None) -> Iterator[None]:
        in_sweep = run_of(sweep, str(HydraConfig.get().job.num)) if sweep else nullcontext()
        with in_sweep, only_run_in(folder) if self.ranks.is_first else nullcontext():
            yield

    def _result(self, config: DictConfig, folder: Path) -> float:
        """What an earlier start of the sweep has found, or else what the run finds."""
        typed, launched = _arguments(self.program, self.schema, config, self.ranks)
        value = launched.finished()
        if value is not None:
            print(f"finished before: {folder}", file=sys.stderr)
            return value
        saved = _saved_settings(folder, self.program, config)
        with saved if self.ranks.is_first else nullcontext():
            return self.run(typed, launched)

    def _end_by_mistake(self, error: UserError, folder: Path, sweep: Path | None) -> NoReturn:
        """A folder in use is left alone: it is another run's."""
        if self.ranks.is_first and not isinstance(error, FolderInUseError):
            logging.getLogger(FILE_LOGGER).error("%s", error)
            remove_if_unused(folder, self.program)
        if sweep:  # the other runs come first
            raise note_failure(sweep, f"{self._named(folder)}: {error}") from None
        fail(str(error))

    def _end_by_signal(self, stopped: Interrupted, folder: Path, sweep: Path | None) -> NoReturn:
        """Says how to go on."""
        logging.getLogger(FILE_LOGGER).info("%s", stopped)
        if is_worker():  # whose exit would end the runs in other processes
            raise UserError(f"{folder}: {stopped}") from None
        more = ["resume=true", *without_code(HydraConfig.get().overrides.task)[1]]
        alone = f"go on with: {' '.join([self.command, f'run_dir={folder}', *more])}"
        print(f"{stopped}; {how_to_go_on(sweep) if sweep else alone}", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None

    def _named(self, folder: Path) -> str:
        """The folder of a run of a sweep, and the overrides that make it another than the rest."""
        own = [o for o in HydraConfig.get().overrides.task if o not in self.arguments]
        return f"{folder} ({' '.join(own)})" if own else str(folder)


def _places() -> tuple[Path, Path | None]:
    """The folder of the run, and that of the sweep that it is of."""
    context = HydraConfig.get()
    sweep = Path(str(context.sweep.dir)) if context.mode == RunMode.MULTIRUN else None
    return Path(context.runtime.output_dir), sweep


def _saved_settings(folder: Path, program: str, config: DictConfig) -> AbstractContextManager[None]:
    context = HydraConfig.get()
    used = OmegaConf.create({"hydra": context})
    overrides, choices = context.overrides.task, context.runtime.choices
    return saved_settings(folder, program, config, overrides, choices, hydra=used)


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
    launch_ = Launch(
        run_dir=Path(context.runtime.output_dir),
        program=program,
        overrides=tuple(context.overrides.task),
        settings=plain_settings(config),
        must_resume=bool(config.get("resume")) and context.mode == RunMode.RUN,
        is_in_sweep=context.mode == RunMode.MULTIRUN,
        ranks=ranks,
    )
    return typed, launch_
