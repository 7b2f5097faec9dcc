"""Kills runs at random moments and looks at what is lost: `python -m benchmarks.faults`.

A tiny search and a tiny retraining, with a checkpoint after every step, are killed (SIGKILL) at
random moments, every other time as soon as the next file is being written, some of them again after
they were resumed, and then run to their end by the same command. Lost is what differs from the run
that nobody disturbed: a bit of the final state, a line of metrics, a scalar in TensorBoard, a
character of the result, or a file that was left over.

Runs are forked from a process that has all imports behind it.
"""

import argparse
import json
import logging
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import retrain
import search
from benchmarks.measure import print_table, save
from nas.training.checkpoint import last_checkpoint

_TINY = ("epochs=3", "batch_size=32", "data.limit=256", "threads=1", "checkpoint_every_steps=1")
PROGRAMS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "search": (search.main, ("space.channels=4", "space.cells_per_stage=1", *_TINY)),
    "retrain": (
        retrain.main,
        (
            "genotype=nasbench201_resnet",
            "network.channels=4",
            "network.cells_per_stage=1",
            "drop_path=0.2",
            "ema_decay=0.9",
            *_TINY,
        ),
    ),
}
RESULTS = {"search": "genotype.json", "retrain": "model.safetensors"}
KILLED_AGAIN = 0.3
"""Share of the resumed runs that are killed, too."""

AIMED = 0.5
"""Share of the kills that wait for a file that is being written."""

LONGEST_DELAY_S = 0.003
"""Of an aimed kill, from when the file shows."""


def main() -> None:
    """Entry point."""
    options = _options()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that a run went on is no news here
    pick, rows = random.Random(options.seed), []
    for program in options.program:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(kill_many(program, options.kills, pick, Path(folder)))
    print_table(rows)
    if options.output:
        settings = {"kills": options.kills, "seed": options.seed}
        save(options.output, torch.device("cpu"), settings, rows)
    sys.exit(any(row["lost"] for row in rows))


def kill_many(program: str, kills: int, pick: random.Random, folder: Path) -> dict[str, Any]:
    """Kills runs until there have been so many kills; returns a row of the table."""
    whole, killed = folder / "whole", folder / "killed"
    start = time.monotonic()
    if wait(start_run(program, whole)) != 0:
        raise SystemExit(f"error: the undisturbed {program} failed")
    duration = time.monotonic() - start
    done = num_runs = lost = in_a_write = 0
    while done < kills:
        shutil.rmtree(killed, ignore_errors=True)
        num_runs += 1
        while True:
            wants_kill = not killed.exists() or pick.random() < KILLED_AGAIN
            child = start_run(program, killed)
            if wants_kill and done < kills:
                aim = killed if pick.random() < AIMED else None
                delay = pick.uniform(0, LONGEST_DELAY_S)
                code = wait(child, pick.uniform(0, duration), aim, delay)
            else:
                code = wait(child)
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"error: a resumed {program} ended with {code}; see {killed}")
            done += 1
            in_a_write += any(killed.rglob(".*.tmp*"))
        differences = compare(whole, killed, RESULTS[program])
        lost += bool(differences)
        for difference in differences:
            print(f"{program}: {difference}", flush=True)
        print(f"{program}: {done} of {kills} kills, {lost} of {num_runs} runs lost", flush=True)
    return {
        "program": program,
        "kills": done,
        "in the write of a file": in_a_write,
        "runs": num_runs,
        "lost": lost,
    }


def start_run(program: str, folder: Path) -> int:
    """Forks a run; returns the number of its process."""
    run, settings = PROGRAMS[program]
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        sys.argv = [f"{program}.py", *settings, f"run_dir={folder}"]
        code = 0
        try:
            run()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            code = 70
        os._exit(code)
    return child


def wait(
    child: int, limit_s: float = math.inf, aim: Path | None = None, delay_s: float = 0.0
) -> int:
    """Waits for the end of a run, or kills it after `limit_s`; returns its exit code.

    With `aim`, the folder of the run, it is killed `delay_s` after a file is being written there.
    """
    end = time.monotonic() + limit_s
    while True:
        is_late = time.monotonic() >= end
        if is_late and aim is not None and any(aim.rglob(".*.tmp*")):
            time.sleep(delay_s)
            aim = None
        if is_late and aim is None:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        pid, status = os.waitpid(child, 0 if limit_s == math.inf else os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if not is_late:
            time.sleep(0.001)


def compare(whole: Path, other: Path, result: str) -> list[str]:
    """What differs between two finished runs, in words; nothing is as it should be."""
    found = []
    if (whole / result).read_bytes() != (other / result).read_bytes():
        found.append(f"{result} differs")
    if not same(_state(whole), _state(other)):
        found.append("the final states differ")
    if _metrics(whole) != _metrics(other):
        found.append("metrics.jsonl differs")
    if _scalars(whole) != _scalars(other):
        found.append("the scalars in TensorBoard differ")
    found += [f"{path.name} was left over" for path in other.rglob(".*.tmp*")]
    return found


def same(a: object, b: object) -> bool:
    """Whether two checkpoints, or parts of them, agree to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)  # NaN is NaN


def _state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(last_checkpoint(run), weights_only=True)
    return {k: v for k, v in state.items() if k not in ("settings", "overrides", "seconds")}


def _metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not _is_of_the_clock(k)} for line in lines]


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not _is_of_the_clock(tag)]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def _is_of_the_clock(name: str) -> bool:
    return name.startswith(("speed/", "memory/"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--program", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    add("--kills", type=int, default=100, help="of each program (default 100)")
    add("--seed", type=int, default=0, help="of the moments")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
