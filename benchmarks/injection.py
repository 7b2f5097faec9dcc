"""Runs of the programs with faults in them, each forked from a process that has imported all.

Forking is what makes hundreds of runs affordable: most of the time of a short run are its imports.
File operations are counted, stopped and failed by an audit hook of Python, and writes are cut at a
byte by a limit on the size of files: nothing of the programs is replaced.
"""

import errno
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import retrain
import search
from nas.training.checkpoint import last_checkpoint

MAINS = {"search": search.main, "retrain": retrain.main}
WRITES = ("open", "os.rename", "os.link", "os.mkdir")
"""Audit events of what changes a folder."""

COUNTED = "file operation"

NO_SPACE = errno.ENOSPC
READ_ONLY = errno.EROFS

Fault = Callable[[], object]
"""Called in the forked process, before the program starts."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Exit code; minus the signal that killed it.
        output: All that it printed.
        seconds: From its start to its end.
    """

    code: int
    output: str
    seconds: float

    @property
    def has_traceback(self) -> bool:
        return "Traceback" in self.output

    @property
    def errors(self) -> list[str]:
        """The lines that say what was wrong."""
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


class Running:
    """A program in a forked process."""

    def __init__(self, program: str, overrides: Sequence[str], fault: Fault | None = None) -> None:
        self._pipe, write_end = os.pipe()
        self._start = time.perf_counter()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)
            _become(program, overrides, write_end, fault)
        os.close(write_end)

    def send(self, number: int) -> None:
        """Sends a signal; does nothing where the process has ended."""
        os.kill(self.pid, number)  # until it is waited for, the number is its own

    def send_to_child(self, number: int) -> bool:
        """Sends a signal to a process of its own, such as a worker that loads images, if any."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        children = path.read_text().split() if path.exists() else []
        try:
            os.kill(int(children[0]), number)
        except (IndexError, ProcessLookupError):
            return False
        return True

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """Waits for its end; None if it still runs after `timeout_s`."""
        output = self._output = getattr(self, "_output", bytearray())
        end = None if timeout_s is None else time.perf_counter() + timeout_s
        while True:
            left = None if end is None else max(0.0, end - time.perf_counter())
            if not select.select([self._pipe], [], [], left)[0]:
                return None
            piece = os.read(self._pipe, 65536)
            if not piece:
                break
            output += piece
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        seconds = time.perf_counter() - self._start
        return Outcome(os.waitstatus_to_exitcode(status), output.decode(errors="replace"), seconds)


def run(program: str, overrides: Sequence[str], fault: Fault | None = None) -> Outcome:
    """Runs a program to its end."""
    outcome = Running(program, overrides, fault).wait()
    assert outcome is not None
    return outcome


def _become(program: str, overrides: Sequence[str], output: int, fault: Fault | None) -> None:
    """Turns a forked process into one that runs `program`; does not return."""
    code = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        # As `conf.at_once` leaves it in a program that has been imported.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.argv = [f"{program}.py", *overrides]
        GlobalHydra.instance().clear()
        if fault is not None:
            fault()
        MAINS[program]()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def from_operation(folder: Path, number: int, act: Callable[[str], object]) -> Fault:
    """Calls `act` before the file operation of this number in `folder`, and before all later ones.

    Numbers are from 1; `act` is given the path. Only what changes the folder counts.
    """

    def install() -> None:
        left = [number]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event not in WRITES or (event == "open" and not _writes(arguments)):
                return
            path = str(arguments[0])
            if path.startswith(str(folder)):
                left[0] -= 1
                if left[0] <= 0:
                    act(path)

        sys.addaudithook(hook)

    return install


def _writes(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def kill_itself(path: str) -> None:
    """Ends the process as SIGKILL does."""
    os.kill(os.getpid(), signal.SIGKILL)


def counting(folder: Path) -> Fault:
    """Prints a line for each file operation."""
    return from_operation(folder, 1, lambda path: print(COUNTED, flush=True))


def fail_with(number: int) -> Callable[[str], object]:
    """Fails an operation with this error of the operating system."""

    def fail(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return fail


def at_byte(size: int, *, kill: bool) -> Fault:
    """No file can grow beyond `size` bytes: the write that would is cut there.

    With `kill` the process ends in the middle of it; else it gets an error, as on a full disk.
    """

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


def difference(a: Path, b: Path) -> str | None:
    """The first thing in which the results of two runs differ; None where all bits are the same.

    Compared are the last checkpoints, `metrics.jsonl` and TensorBoard scalars (without speed and
    memory), `genotype.json` and weights.
    """
    compared: dict[str, Callable[[Path], object]] = {
        "checkpoint": _state,
        "metrics.jsonl": _metrics,
        "TensorBoard": _scalars,
        "genotype.json": lambda run: (run / "genotype.json").read_bytes(),
        "weights": _weights,
    }
    for name, read in compared.items():
        try:
            if not _same(read(a), read(b)):
                return f"{name} differs"
        except Exception as error:  # whatever is wrong with what a fault has left
            return f"{name}: {type(error).__name__}: {error}"
    leftovers = [str(path) for path in b.rglob(".*.tmp-*")]
    return f"left over: {leftovers}" if leftovers else None


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        if not isinstance(b, list | tuple) or len(a) != len(b):
            return False
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (a != a and b != b)


def _state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(last_checkpoint(run), weights_only=True)
    return {k: v for k, v in state.items() if k not in ("settings", "overrides", "seconds")}


def _metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not _depends_on_the_machine(k)} for line in lines]


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    scalars = events.PluginTagToContent("scalars")
    tags = [tag for tag in scalars if not _depends_on_the_machine(tag)]
    return {
        tag: [
            (event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)
        ]
        for tag in tags
    }


def _weights(run: Path) -> bytes | None:
    path = run / "model.safetensors"
    return path.read_bytes() if path.exists() else None


def _depends_on_the_machine(name: str) -> bool:
    return name.startswith(("speed/", "memory/"))
