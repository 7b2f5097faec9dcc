"""Starts a program from the command line with Hydra, and puts every user's mistake in one line."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.arguments import for_hydra, newest_or_new, resumes, with_saved
from conf.at_once import take_interrupts
from conf.failures import WANTS_TRACEBACK, explain, refuse_code
from conf.grammar import UsageError, checked_arguments
from conf.job import Job
from conf.messages import describe
from conf.outline import CONF_DIR
from conf.questions import answer, command_of
from conf.schema import register_schemas
from conf.settings import Config, Launch
from conf.sweeps import check_installed, conducting, with_defaults
from conf.together import arguments_of_all, fail, join
from nas.distributed import Ranks
from nas.errors import UserError


def launch(program: str, schema: type[Config], run: Callable[[Config, Launch], float]) -> None:
    """Composes the configuration of `program`, checks it against `schema` and calls `run`.

    Exits with 0 where a question is answered instead, with 1 and one line on a user's mistake, and
    with 130 or 143 after a signal.
    """
    logging.raiseExceptions = False  # a log on a full disk: whatever else is written says so
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", newest_or_new, replace=True)
    answer(program, sys.argv[1:])
    ranks = join()
    command, arguments = _command_line(program, ranks)
    sys.argv = [sys.argv[0], *with_saved(arguments, program), *arguments]
    wants_traceback = WANTS_TRACEBACK in os.environ
    os.environ[WANTS_TRACEBACK] = "1"  # Hydra raises its errors; they are reported below
    job = Job(program, schema, run, command, arguments, ranks, wants_traceback)
    start = hydra.main(config_path=str(CONF_DIR), config_name=program, version_base="1.3")(job)
    with _errors_in_one_line(program, arguments, wants_traceback):
        take_interrupts()  # from here on there is somebody to catch them
        with conducting():
            refuse_code(arguments)
            check_installed(arguments)
            sys.argv[1:] = checked_arguments(sys.argv[1:])
            start()


def _command_line(program: str, ranks: Ranks) -> tuple[str, list[str]]:
    """How the program was started, and its arguments as Hydra takes them."""
    command = command_of(program)
    arguments = with_defaults([for_hydra(argument) for argument in sys.argv[1:]])
    if ranks.size == 1:
        return command, arguments
    count = os.environ["LOCAL_WORLD_SIZE"]
    command = f"torchrun --nproc-per-node {count} {command.removeprefix('python ')}"
    moment = time.strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(newest_or_new(f"runs/{program}", moment, resumes(arguments)))
    return command, arguments_of_all(arguments, folder, ranks)


@contextmanager
def _errors_in_one_line(
    program: str, arguments: Sequence[str], wants_traceback: bool
) -> Iterator[None]:
    """Exits with one line for any error; raises it where a traceback is wanted."""
    try:
        yield
    except UsageError as error:
        fail(str(error), code=2)
    except UserError as error:  # of the command line, or of a sweep, whose other runs have ended
        if wants_traceback:
            raise
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
