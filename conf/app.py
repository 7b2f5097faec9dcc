"""Starts a program from the command line with Hydra, and puts every user's mistake in one line."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.arguments import for_hydra, newest_or_new, with_saved
from conf.at_once import take_interrupts
from conf.failures import WANTS_TRACEBACK, explain, refuse_code, without_code
from conf.grammar import UsageError, checked_arguments
from conf.messages import describe
from conf.outline import CONF_DIR
from conf.questions import answer, command_of
from conf.schema import register_schemas
from conf.settings import (
    Config,
    Launch,
    checked,
    plain_settings,
    remove_if_unused,
    save_settings,
)
from conf.sweeps import (
    check_installed,
    conducting,
    how_to_go_on,
    is_worker,
    note_failure,
    run_of,
    with_defaults,
)
from conf.together import arguments_of_all, fail, fail_lost, is_lost, join
from nas.distributed import Ranks
from nas.errors import UserError
from nas.files import FolderInUseError, only_run_in
from nas.training.loop import FILE_LOGGER
from nas.training.run import Interrupted


def launch(program: str, schema: type[Config], run: Callable[[Config, Launch], float]) -> None:
    """Composes the configuration of `program`, checks it against `schema` and calls `run`.

    Exits with 0 where a question is answered instead, with 1 and one line on a user's mistake, and
    with 130 or 143 after a signal.
    """
    logging.raiseExceptions = False  # a log on a full disk: whatever else is written says so
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", newest_or_new, replace=True)
    answer(program, sys.argv[1:])
    command = command_of(program)
    arguments = with_defaults([for_hydra(argument) for argument in sys.argv[1:]])
    ranks = join()
    if ranks.size > 1:
        count = os.environ["LOCAL_WORLD_SIZE"]
        command = f"torchrun --nproc-per-node {count} {command.removeprefix('python ')}"
        moment = time.strftime("%Y-%m-%d_%H-%M-%S")
        resumes = any(argument.lower() == "resume=true" for argument in arguments)
        folder = Path(newest_or_new(f"runs/{program}", moment, resumes))
        arguments = arguments_of_all(arguments, folder, ranks)
    sys.argv = [sys.argv[0], *with_saved(arguments, program), *arguments]
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
                    _save_settings(folder, program, config)
                return run(typed, launched)
        except UserError as error:
            if wants_traceback:
                raise
            if ranks.is_first and not isinstance(error, FolderInUseError):
                logging.getLogger(FILE_LOGGER).error("%s", error)
                remove_if_unused(folder)
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
            sys.argv[1:] = checked_arguments(sys.argv[1:])
            start()
    except UsageError as error:
        fail(str(error), code=2)
    except UserError as error:  # of the command line, or of a sweep, whose other runs have ended
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        fail(describe(error, program, arguments))
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


def _save_settings(folder: Path, program: str, config: DictConfig) -> None:
    context = HydraConfig.get()
    used = OmegaConf.create({"hydra": context})
    overrides, choices = context.overrides.task, context.runtime.choices
    save_settings(folder, program, config, overrides, choices, hydra=used)


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
