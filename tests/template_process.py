"""A process that has imported what the programs import, of which new ones are forked.

Importing takes most of the time of a short program. A fork of this process runs a script, a module
or a piece of code as `python` would, without that wait. Whether the imports themselves work in an
order of their own, and what happens while they run, only a program started with `python` shows.
"""

import gc
import importlib
import json
import math
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (
    *("search", "retrain", "export", "profile_space", "nas.predict"),
    *("torch._dynamo", "torchvision.transforms.v2", "sklearn.datasets", "scipy.stats"),  # late
)
_POLL_S = 0.005


class Python:
    """`python *arguments` in a process of its own; the part of `subprocess.Popen` that tests need.

    Args:
        arguments: A script and its arguments, or `-m module ...`, or `-c code ...`.
        cwd: Where it runs.
        env: All variables of its environment. What is read at the start or by the imports is as the
            template has it: one thread (`OMP_NUM_THREADS`), packages of the root (`PYTHONPATH`).
        max_file_size: No file that it writes gets larger, in bytes, as on a full disk.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path = ROOT,
        env: dict[str, str] | None = None,
        max_file_size: int = resource.RLIM_INFINITY,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        folder = Path(tempfile.mkdtemp(prefix="program"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._output, self._status = folder / "output", folder / "status"
        self._output.touch()
        request = {
            "arguments": arguments,
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
            "max_file_size": max_file_size,
            "folder": str(folder),
        }
        self.pid = int(_template().ask(json.dumps(request)))

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and self._status.exists():
            self.returncode = os.waitstatus_to_exitcode(int(self._status.read_text()))
        return self.returncode

    def output(self) -> str:
        """What it has written so far, errors among it."""
        return self._output.read_text()

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = math.inf) -> tuple[str, None]:
        """Waits for the end; returns all that it has written.

        Raises:
            subprocess.TimeoutExpired: it does not end, and is killed.
        """
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(self.args, timeout, self.output())
            time.sleep(_POLL_S)
        return self.output(), None


def run_python(*arguments: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """The output of `python *arguments`, which must end well."""
    process = Python(*arguments, cwd=cwd, env=env)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


class _Template:
    """The process that imports once and forks; it ends with this one."""

    def __init__(self) -> None:
        env = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env=env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()


@cache
def _template() -> _Template:
    return _Template()


def _serve() -> None:
    """Forks for each line of standard input; answers with the number of the new process."""
    for name in IMPORTED:
        importlib.import_module(name)
    threads = Path("/proc/self/task")
    assert not threads.is_dir() or len(list(threads.iterdir())) == 1, "a fork has one thread only"

    gc.freeze()  # else each fork would touch, and so copy, all that is shared when it ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the tests end this process
    for line in sys.stdin:
        request = json.loads(line)
        read, write = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            _keep(request, write)
        os.close(write)
        os.waitpid(keeper, 0)
        with os.fdopen(read) as numbers:
            print(numbers.readline().strip(), flush=True)


def _keep(request: dict[str, Any], write: int) -> None:
    """Starts the program and notes how it ends."""
    if os.fork() == 0:  # in a process that the template need not wait for
        program = os.fork()
        if program == 0:
            os.close(write)
            _become(request)
        os.write(write, f"{program}\n".encode())
        os.close(write)
        _, status = os.waitpid(program, 0)
        folder = Path(request["folder"])
        if folder.is_dir():
            (folder / "status.new").write_text(str(status))
            (folder / "status.new").rename(folder / "status")
    os._exit(0)


def _become(request: dict[str, Any]) -> NoReturn:
    """The program: what `python` does with its arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    limits = (request["max_file_size"], resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    output = os.open(Path(request["folder"], "output"), os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, opened in enumerate((nothing, output, output)):
        os.dup2(opened, number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["arguments"]
    script = "" if first in ("-m", "-c") else str(Path(first).parent)
    sys.path[0] = script  # the next is the root
    if first == "-m":
        sys.argv = rest
        sys.modules.pop(rest[0], None)  # what is imported but once more is warned of
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    _serve()
