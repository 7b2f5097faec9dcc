"""A program that torchrun has started several times: one folder, one voice."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from nas.distributed import ALONE, Ranks
from nas.monitor.console import NOWHERE

MULTIRUN = {"-m", "--multirun"}
_ranks = ALONE


def join() -> Ranks:
    """Meets the other processes; from here on only rank 0 shows what it does."""
    global _ranks
    _ranks = Ranks.join()
    if not _ranks.is_first:
        sys.stdout = sys.stderr = NOWHERE
    return _ranks


def arguments_of_all(arguments: list[str], new_run_dir: Path, ranks: Ranks) -> list[str]:
    """The command line of this rank: all write to one folder, and rank 0 keeps the log there.

    Args:
        arguments: As they were given.
        new_run_dir: The folder where none is given.
        ranks: Of the run.
    """
    if MULTIRUN & set(arguments):
        fail("torchrun starts one run: leave out -m, or start the sweep without torchrun")
    if not any(argument.startswith("run_dir=") for argument in arguments):
        if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
            fail("run_dir has no value: give run_dir=..., where a restart finds the checkpoint")
        arguments = [*arguments, f"run_dir={ranks.gathered(str(new_run_dir))[0]}"]
    if ranks.is_first:
        return arguments
    return [*arguments, f"hydra.job_logging.handlers.file.filename={os.devnull}"]


def fail(message: str, code: int = 1) -> NoReturn:
    """Exits with `code` and one line, which other ranks that fail for the same reason leave out."""
    line = f"error: {' '.join(message.split())}"
    if _is_news(line):
        print(line, file=sys.stderr if _ranks.is_first else sys.__stderr__, flush=True)
    raise SystemExit(code)


def is_lost(error: BaseException) -> bool:
    """Whether the error says that another rank is gone."""
    text = str(error)
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    )


def fail_lost() -> NoReturn:
    """Exits with 1 since another rank is gone, in one line where that has not said why itself."""
    if _ranks.size > 1 and not _is_news(""):
        raise SystemExit(1)
    fail("another process of the run has ended; the last checkpoint is whole, go on with it")


def _is_news(line: str) -> bool:
    """Whether no rank has said `line` before; of an empty one, whether none has said anything."""
    if _ranks.size == 1:
        return True
    try:
        # The store is torchrun's own, which outlives a rank.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        tcp = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"said in start {start}", tcp)  # type: ignore[attr-defined]
        if not line:
            return store.add("count", 0) == 0
        store.add("count", 1)
        return store.add(line, 1) == 1
    except (KeyError, ValueError, RuntimeError):  # it is gone as well
        return True
