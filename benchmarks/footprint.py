"""What a run writes, and what it takes to begin: `python -m benchmarks.footprint`.

Searches of eight steps an epoch, since what an epoch writes does not depend on its steps; after six
epochs every operation has been sampled, so that its momentum is in the checkpoint. Sizes are
those of the files; what an epoch adds is the difference between two numbers of epochs.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.programs import ROOT
from nas.files import replace_text

REPETITIONS = 3
"""Of the times to begin, of which the shortest is told: other programs only ever add to them."""
EPOCHS = (3, 6)
SMALL = ("data.limit=256", "batch_size=16")
SUBJECTS: dict[str, tuple[str, ...]] = {
    "digits, NAS-Bench-201 of the demo": ("space.channels=8", "space.cells_per_stage=1"),
    "NAS-Bench-201, C=16, N=5": ("space=nasbench201",),
    "DARTS, C=16, 8 cells": ("space=darts", "space.channels=16", "space.cells=8"),
}
FIRST_STEP = """
import os, search
search.Search._train_step = lambda *_: os._exit(0)
search.main()
"""
"""A search that ends as its first step begins."""


def seconds(*command: str) -> float:
    """Processor time of `python ...` in the root of the repository, whatever else runs here."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def seconds_to_begin() -> dict[str, float]:
    """The processor time until a search on the digits begins its first step, in parts."""
    with tempfile.TemporaryDirectory() as scratch:
        parts = {
            "python": ("-c", "pass"),
            "import torch": ("-c", "import torch"),
            "all imports and the composed configuration": ("search.py", "--cfg", "job"),
            "search on the digits, until its first step": (
                *("-c", FIRST_STEP, "device=cpu"),
                f"run_dir={scratch}/run",
            ),
        }
        return {
            name: min(seconds(*command) for _ in range(REPETITIONS))
            for name, command in parts.items()
        }


def sizes(folder: Path) -> dict[str, int]:
    """Bytes by kind of file, and the number of files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {"files": len(files), "all": sum(path.stat().st_size for path in files)}
    for kind, pattern in (("checkpoint", "last.pt"), ("events", "events*"), ("log", "*.log")):
        found[kind] = sum(path.stat().st_size for path in folder.rglob(pattern))
    found["metrics"] = (folder / "metrics.jsonl").stat().st_size
    return found


def measure(settings: tuple[str, ...]) -> dict[str, float]:
    """The files of a search, in bytes, and what an epoch adds to them."""
    found, times = [], []
    for epochs in EPOCHS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            more = (f"epochs={epochs}", f"run_dir={folder}")
            times.append(seconds("search.py", *settings, *SMALL, *more))
            found.append(sizes(folder))
    few, many = found
    row: dict[str, float] = {"checkpoint_bytes": many["checkpoint"], "files": many["files"]}
    for kind in ("events", "metrics", "log"):
        row[f"{kind}_bytes_an_epoch"] = (many[kind] - few[kind]) / (EPOCHS[1] - EPOCHS[0])
    row["folder_bytes_without_epochs"] = few["all"] - EPOCHS[0] * sum(
        row[f"{kind}_bytes_an_epoch"] for kind in ("events", "metrics", "log")
    )
    row["seconds_of_shortest_run"] = times[0]
    return row


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--output", type=Path, help="results file")
    options = parser.parse_args()
    start_up = seconds_to_begin()
    rows = {name: measure(settings) for name, settings in SUBJECTS.items()}
    print(json.dumps({"start_up_s": start_up, "rows": rows}, indent=1))
    if options.output:
        content = {"start_up_s": start_up, "rows": rows}
        replace_text(options.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
