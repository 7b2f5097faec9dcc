"""Faults, counted: `python -m benchmarks.faults --kills 100` (Linux, some minutes on one core).

Short searches and retrainings are killed, stopped, starved of disk and damaged at random moments,
and then go on. Lost is what does not end as the run that nothing has happened to, to the bit, or
what showed a user a traceback. Exits with 1 if anything was lost.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import injection, trials
from benchmarks.trials import LostError, Subject, Trial

SIZES = ("batch_size=32", "data.limit=256", "epochs=3", "checkpoint_every_steps=1", "threads=1")
SETTINGS = {
    "search": (*SIZES, "space.channels=4", "space.cells_per_stage=1"),
    "retrain": (
        *("genotype=nasbench201_resnet", *SIZES, "network.channels=4"),
        *("network.cells_per_stage=1", "drop_path=0.2", "ema_decay=0.9"),
    ),
}


KILLS: dict[str, tuple[Trial, float]] = {
    "SIGKILL at a random moment": (trials.killed_at_a_moment, 0.4),
    "SIGKILL between two file operations": (trials.killed_between_file_operations, 0.3),
    "killed in a write, at a random byte": (trials.killed_in_a_write, 0.3),
}
"""With the share of the kills that each has."""

OTHERS: dict[str, Trial] = {
    "SIGTERM": trials.stopped(signal.SIGTERM),
    "Ctrl-C (SIGINT)": trials.stopped(signal.SIGINT),
    "disk full from a file operation on": trials.failing_from_a_file_operation(injection.NO_SPACE),
    "disk full within a write": trials.failing_in_a_write,
    "folder read-only from a file operation on": trials.failing_from_a_file_operation(
        injection.READ_ONLY
    ),
    "checkpoint truncated, flipped, foreign": trials.damaged,
    "loss NaN at a random step": trials.not_finite,
    "clock wrong by days, and killed": trials.a_jumping_clock,
    "second run in the folder": trials.two_runs,
    "checkpoint of a later format": trials.of_the_future,
}
STREAMED: dict[str, Trial] = {
    "loader worker dies": trials.a_dead_worker,
    "image broken in an epoch": trials.a_broken_image,
}


@dataclass
class Row:
    """What came of one kind of fault."""

    fault: str
    program: str
    injected: int = 0
    runs: int = 0
    lost: list[str] = field(default_factory=list)

    def text(self) -> str:
        return (
            f"| {self.fault} | {self.program} | {self.injected} | {self.runs} | {len(self.lost)} |"
        )


def repeat(subject: Subject, name: str, trial: Trial, times: int, pick: random.Random) -> Row:
    """Trials until so many faults have been injected; some miss a run that has just ended."""
    row, folder = Row(name, subject.program), subject.scratch / "trial"
    while row.injected < times and row.runs < 3 * times + 3:
        row.runs += 1
        try:
            row.injected += trial(subject, pick, folder)
        except LostError as error:
            row.injected += 1
            row.lost.append(str(error))
            print(f"lost: {name}, {subject.program}: {error}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(row.text(), flush=True)
    return row


def image_overrides(folder: Path, program: str) -> Sequence[str]:
    """A folder of small images, streamed by a worker."""
    colours = np.random.default_rng(0)
    for split, label in ((s, c) for s in ("train", "test") for c in ("ant", "bee")):
        (folder / split / label).mkdir(parents=True)
        for number in range(40):
            pixels = colours.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / label / f"{number}.png")
    data = ("data=image_folder", f"data.path={folder}", "data.image_size=8", "data.storage=stream")
    statistics = ("data.mean=[0.5,0.5,0.5]", "data.std=[0.3,0.3,0.3]", "data.num_workers=1")
    settings = [s for s in SETTINGS[program] if not s.startswith(("batch_size", "data.limit"))]
    return (*settings, *data, *statistics, "batch_size=8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each program, in all")
    parser.add_argument("--others", type=int, default=10, help="times each other fault")
    parser.add_argument("--programs", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pick, rows = random.Random(options.seed), []
    in_memory = {name: (trial, round(options.kills * s)) for name, (trial, s) in KILLS.items()}
    in_memory |= {name: (trial, options.others) for name, trial in OTHERS.items()}
    streamed = {name: (trial, options.others) for name, trial in STREAMED.items()}
    print("| fault | program | injected | runs | lost |\n| --- | --- | --- | --- | --- |")
    for program in options.programs:
        for faults in (in_memory, streamed):
            chosen = {name: fault for name, fault in faults.items() if options.only in name}
            if not chosen:
                continue
            with tempfile.TemporaryDirectory() as scratch:
                settings: Sequence[str] = SETTINGS[program]
                if faults is streamed:
                    settings = image_overrides(Path(scratch) / "images", program)
                subject = Subject(program, settings, Path(scratch))
                subject.measure()
                rows += [repeat(subject, name, *fault, pick) for name, fault in chosen.items()]
    injected, lost = sum(row.injected for row in rows), sum(len(row.lost) for row in rows)
    print(f"\n{injected} faults, {lost} lost")
    raise SystemExit(int(lost > 0))


if __name__ == "__main__":
    main()
