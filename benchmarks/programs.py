"""Runs of search.py and retrain.py as a user starts them, for benchmarks of what they find."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.sweep import SUMMARY

ROOT = Path(__file__).parent.parent


def run(program: str, folder: Path, *overrides: str) -> Path:
    """Runs `program` in `folder`, goes on with a run that was stopped, keeps a finished one.

    Raises:
        SystemExit: it failed; with the command and all that it printed.
    """
    if not (folder / SUMMARY).exists():
        command = [sys.executable, str(ROOT / program), *overrides, f"run_dir={folder}"]
        print(" ".join(command[1:]), flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return folder


def retrain(genotype: Path | str, folder: Path, num_seeds: int, *overrides: str) -> list[float]:
    """Top-1 in percent on the test set of the network, trained alone once a seed from 0 on."""
    accuracies = []
    for seed in range(num_seeds):
        given = (f"genotype={genotype}", f"seed={seed}", *overrides)
        summary = run("retrain.py", folder / str(seed), *given) / SUMMARY
        metrics = json.loads(summary.read_text())["metrics"]
        accuracies.append(float(metrics["accuracy/test_top1"]))
    return accuracies


def seconds(folder: Path) -> float:
    """How long the finished run in `folder` took."""
    return float(json.loads((folder / SUMMARY).read_text())["seconds"])


def mean_and_deviation(values: Sequence[float]) -> str:
    """As `93.61 ± 0.09`."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"
