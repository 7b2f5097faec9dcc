"""All that is measured on a GPU, in order, within a time: `python -m benchmarks.gpu`.

Each item is a command of its own, with a log of its own in the output folder; one that fails or
takes too long does not keep the others from running. Items that do not fit into what is left of the
time are left out and named. `docs/gpu.md` says what each shows and what it is expected to take.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from nas.files import replace_text

ROOT = Path(__file__).parent.parent
SUMMARY = "items.json"
LOG_LIMIT = 2**20
"""Bytes of a log that go into the archive, from its end."""

IMAGES, TABLE, OUT = "{images}", "{table}", "{output}"
"""In a command: the settings of the images, the table of NAS-Bench-201, the output folder."""


@dataclass(frozen=True)
class Item:
    """Something that is measured.

    Attributes:
        command: Arguments of Python.
        minutes: That it may take; then it is stopped.
        needs: Options of this command without which it is left out.
        environment: Variables that it is started with.
    """

    command: tuple[str, ...]
    minutes: float
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return "-m", f"benchmarks.{name}", *arguments


def _profile(space: str, *arguments: str) -> tuple[str, ...]:
    name = "_".join(["profile", space, *arguments[1::2]])
    output = ("--trace", f"{OUT}/traces", "--output", f"{OUT}/{name}.json")
    return _module("profile_step", "--space", space, "--rounds", "4", *arguments, *output)


def _step(space: str, batch_size: int, precision: str) -> tuple[str, ...]:
    output = f"{OUT}/step_{space}_{batch_size}_{precision}.json"
    sizes = ("--rounds", "6", "--repeats", "2", "--warm-up", "2", "--roofline")
    chosen = ("--space", space, "--batch-size", str(batch_size), "--precision", precision)
    return _module("step", *chosen, *sizes, "--output", output)


def _scaling() -> tuple[str, ...]:
    chosen = ("--vary", "channels", "batch", "cells_per_stage", "--rounds", "3")
    output = ("--output", f"{OUT}/scaling_gpu.json", "--plot", f"{OUT}/scaling_gpu.png")
    return _module("scaling", *chosen, *output)


def _retraining() -> tuple[str, ...]:
    # Each row opens the images anew, and sees 11,520.
    data = ("--override", IMAGES, "data.limit=11520")
    return _module("retraining", "--output", f"{OUT}/retraining_gpu.json", *data)


def _scoreboard(method: str, *arguments: str) -> tuple[str, ...]:
    paths = ("--runs", f"{OUT}/runs", "--output", f"{OUT}/scoreboard_gpu.json")
    given = ("--table", TABLE, "--method", method, *paths, *arguments)
    return _module("scoreboard_gpu", *given, "--override", IMAGES)


def _cells(space: str) -> tuple[str, ...]:
    paths = ("--runs", f"{OUT}/cells", "--output", f"{OUT}/cells_{space}.json")
    seldom = ("--search", "evaluate_every_epochs=25", "--retrain", "evaluate_every_epochs=20")
    return _module("cells", "--space", space, *paths, *seldom, "--override", IMAGES)


_BOTH = ("images", "table")
TESTS = ("tests/gpu", "tests/training/test_profiling.py", "tests/data/test_data_load.py")
"""All files with tests marked `gpu`."""

_PYTEST = ("-W", "default", "-rfEs", "--durations=15", "-n", "8", "--dist", "worksteal")
"""What one release of a library warns of must not end the tests."""


ITEMS: dict[str, Item] = {
    "tests": Item(
        ("-m", "pytest", "-m", "gpu", *TESTS, *_PYTEST),
        4,
        # The compilers of eight processes at a time would be many more than there are cores.
        environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
    ),
    "profile": Item(_profile("nasbench201"), 1.5),
    "profile_compiled": Item(_profile("nasbench201", "--kernels", "compiled"), 2),
    "profile_darts": Item(_profile("darts_6_cells", "--batch-size", "256"), 1.5),
    "step": Item(_step("nasbench201", 64, "float32"), 2),
    "step_256": Item(_step("nasbench201", 256, "tf32"), 2),
    "step_bf16": Item(_step("nasbench201", 64, "bf16"), 2),
    "step_darts": Item(_step("darts_6_cells", 256, "tf32"), 3),
    "scaling": Item(_scaling(), 2),
    "retraining": Item(
        _retraining(),
        5,
        ("images",),
    ),
    "search_gpu": Item(_scoreboard("one path, finals, on a GPU", "--seeds", "0"), 10, _BOTH),
    "search_gpu_seeds": Item(
        _scoreboard("one path, finals, on a GPU", "--jobs", "4", "--seeds", "0", "1", "2", "3"),
        20,
        _BOTH,
    ),
    "published": Item(
        _scoreboard("GDAS, published", "--ranked", "0", "--jobs", "4", "--seeds", "0", "1", "2"),
        180,
        _BOTH,
    ),
    "published_256": Item(
        _scoreboard("GDAS, batches of 256", "--ranked", "0", "--jobs", "4", "--seeds", "0", "1"),
        30,
        _BOTH,
    ),
    "cells_darts": Item(_cells("darts"), 90, ("images",)),
    "cells_frc": Item(_cells("gdas_frc"), 60, ("images",)),
}
"""By name, in their order."""

SHORT = ("tests", "profile", "step", "step_256", "retraining", "profile_compiled", "search_gpu")
"""What is run if nothing is named: it fits into a quarter of an hour."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 1 if an item failed, was stopped or did not fit."""
    options = _options(arguments)
    if options.list:
        for name, item in ITEMS.items():
            print(f"{name} (at most {item.minutes:g} minutes): python {' '.join(item.command)}")
        return 0
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    path = options.output / SUMMARY
    done: dict[str, dict[str, object]] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.item:
        left_s = end - time.monotonic()
        done[name] = run(name, ITEMS[name], options, left_s)
        print(f"{name}: {done[name]['outcome']}", flush=True)
        replace_text(path, json.dumps(done, indent=1) + "\n")
        if options.archive:
            archive(options.output, options.archive)
    return int(any(done[name]["outcome"] != "done" for name in options.item))


def run(name: str, item: Item, options: argparse.Namespace, left_s: float) -> dict[str, object]:
    """Runs one item, for at most the time that it may take and the time that is left."""
    missing = [f"--{need}" for need in item.needs if getattr(options, need) is None]
    if missing:
        return {"outcome": f"left out, needs {' and '.join(missing)}"}
    if left_s < options.least_s:
        return {"outcome": "left out, no time"}
    log, start = options.output / f"{name}.log", time.monotonic()
    command = [sys.executable, *filled(item.command, options)]
    print(f"{name}: {' '.join(command[1:])} > {log}", flush=True)
    limit_s = min(60 * item.minutes, left_s)
    environment = {"MPLBACKEND": "Agg", **(item.environment or {}), **os.environ}
    with log.open("wb") as output:
        code = _code_of(command, output, environment, limit_s)
    seconds = round(time.monotonic() - start, 1)
    outcome = {0: "done", None: f"stopped after {limit_s:.0f} s"}.get(code, f"failed with {code}")
    return {"outcome": outcome, "seconds": seconds, "command": command[1:]}


def filled(command: Sequence[str], options: argparse.Namespace) -> list[str]:
    """The command with the paths of this run in it."""
    found: list[str] = []
    for part in command:
        if part == IMAGES:
            found += ["data=image_folder", f"data.path={options.images.resolve()}"]
        else:
            table = "" if options.table is None else str(options.table.resolve())
            found.append(part.replace(TABLE, table).replace(OUT, str(options.output)))
    return found


def _code_of(
    command: Sequence[str], output: IO[bytes], environment: Mapping[str, str], limit_s: float
) -> int | None:
    """The exit code; None if it was stopped, with all that it has started."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        for number in (signal.SIGINT, signal.SIGKILL):  # the first lets it save what it has
            try:
                os.killpg(process.pid, number)
                process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        return None


def archive(folder: Path, path: Path) -> None:
    """Puts logs, results, pictures and traces of `folder` into one file; no weights."""
    partial_path = path.with_suffix(".part")
    with zipfile.ZipFile(partial_path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            kept = {".json", ".jsonl", ".log", ".png", ".gz", ".csv"}
            if not file.is_file() or file.suffix not in kept:
                continue
            content = file.read_bytes()
            content = content[-LOG_LIMIT:] if file.suffix == ".log" else content
            packed.writestr(str(file.relative_to(folder)), content)
    os.replace(partial_path, path)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--item", nargs="+", choices=ITEMS, default=list(SHORT), help="in order")
    parser.add_argument("--list", action="store_true", help="print the commands and end")
    add("--minutes", type=float, default=15, help="for all of them (default 15)")
    add("--least-s", type=float, default=20, help="seconds without which none starts (default 20)")
    add("--images", type=Path, help="CIFAR-10 as class folders")
    add("--table", type=Path, help="CSV file: architecture, cifar10_test")
    add("--output", type=Path, default=Path("runs/gpu"), help="folder (default runs/gpu)")
    add("--archive", type=Path, help="ZIP file of it, written anew after each item")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
