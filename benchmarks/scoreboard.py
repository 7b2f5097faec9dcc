"""Search methods against the NAS-Bench-201 table: `python -m benchmarks.scoreboard --table CSV`.

Every method runs `search.py` on the proxy of `experiment=nasbench201_cpu`, once a seed, in
`--runs`; finished runs are kept and stopped ones go on. The cells that they derive are looked up
in the table, and their supernets rank random cells against it. The table decides nothing: the
settings are those of the configuration, and every seed is reported.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import save
from benchmarks.ranking import load_search, rank_genotypes
from nas.benchmark_table import BenchmarkTable
from nas.errors import UserError
from nas.genotype_text import nasbench201_text, parse_nasbench201
from nas.sweep import SUMMARY, Result
from nas.training.scoring import VALIDATION

ROOT = Path(__file__).parent.parent
EPOCHS = 200
"""Of the training behind the table."""

_LEARNED = ("warm_start.score=null", "warmup_epochs=0", "derive=argmax")
METHODS: dict[str, tuple[str, ...]] = {
    "one path, warm start, finals": (),
    "without finals": ("derive.finalists=0",),
    "without warm start": ("warm_start.score=null",),
    "supernet alone": ("derive.finalists=0", "derive.judges=[validation]"),
    "GDAS": ("sampler=gdas", "logits.learning_rate=3e-3", *_LEARNED),
    "GDAS, authors' form": ("sampler=gdas_authors", "logits.learning_rate=3e-3", *_LEARNED),
    "DrNAS": ("sampler=dirichlet", "logits.learning_rate=3e-3", "epochs=12", *_LEARNED),
    "DARTS": ("sampler=softmax", "logits.learning_rate=3e-3", "epochs=12", *_LEARNED),
}
"""Overrides of the experiment by method. Dense methods have as many epochs as take as long."""


def run(method: str, seed: int, runs: Path, overrides: Sequence[str]) -> Path:
    """Runs or finishes the search; returns its folder.

    Raises:
        UserError: it failed.
    """
    folder = runs / method.replace(" ", "_").replace(",", "").replace("'", "") / str(seed)
    if not (folder / SUMMARY).exists():
        chosen = [*METHODS[method], f"seed={seed}", f"run_dir={folder}", *overrides]
        command = [sys.executable, "search.py", "experiment=nasbench201_cpu", *chosen]
        print(f"{method}, seed {seed}: {' '.join(command[1:])}", flush=True)
        if _exit_code(command):
            raise UserError(f"{method}, seed {seed} failed; see {folder}")
    return folder


def _exit_code(command: Sequence[str]) -> int:
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def outcome(folder: Path, table: BenchmarkTable, num_ranked: int) -> dict[str, Any]:
    """What the run in `folder` found, and how its supernet ranks random cells."""
    result = Result.load(folder / SUMMARY)
    genotype = parse_nasbench201(result.genotype)
    score = table.score(genotype)
    if score is None:
        raise UserError(f"the table has no {result.genotype}")
    found: dict[str, Any] = {
        "genotype": nasbench201_text(genotype),
        "accuracy": score.accuracy,
        "rank": score.rank,
        "seconds": result.seconds,
    }
    if num_ranked:
        rows = rank_genotypes(load_search(folder), table, num_ranked, seed=0, max_images=2000)
        found |= {"Spearman": rows[0]["Spearman"], "Kendall": rows[0]["Kendall"]}
        assert rows[0]["judge"] == VALIDATION
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is missing, writes the results; returns the exit code."""
    options = _options(arguments)
    content = json.loads(options.output.read_text()) if options.output.exists() else {"rows": {}}
    rows: dict[str, Any] = content["rows"]
    try:
        table = BenchmarkTable.read(options.table, EPOCHS)
        for method in options.method:
            folders = [
                run(method, seed, options.runs, options.override) for seed in range(options.seeds)
            ]
            outcomes = [outcome(folder, table, options.ranked) for folder in folders]
            rows[method] = {"overrides": METHODS[method], "runs": outcomes}
            save(options.output, torch.device("cpu"), {"seeds": options.seeds}, rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(rows))
    return 0


def markdown(rows: dict[str, Any]) -> str:
    """The rows as a table, best mean first."""
    lines = [
        "| method | accuracy | worst | all seeds | Spearman | s a search |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def mean(name: str, key: str) -> float:
        return statistics.mean(float(run.get(key, "nan")) for run in rows[name]["runs"])

    for name in sorted(rows, key=lambda name: -mean(name, "accuracy")):
        values = [run["accuracy"] for run in rows[name]["runs"]]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        listed = ", ".join(f"{value:.2f}" for value in values)
        lines.append(
            f"| {name} | {mean(name, 'accuracy'):.2f}{spread} | {min(values):.2f} | {listed} | "
            f"{mean(name, 'Spearman'):.2f} | {mean(name, 'seconds'):.0f} |"
        )
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoreboard", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--table", type=Path, required=True, help="CSV file: architecture, cifar10_test")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    add("--seeds", type=int, default=4, help="runs of each method, seeds from 0")
    add("--ranked", type=int, default=200, help="random cells that each supernet ranks; 0: none")
    add("--runs", type=Path, default=Path("runs/scoreboard"), help="folder of the runs")
    add("--output", type=Path, default=Path("runs/scoreboard/results.json"), help="JSON file")
    add("--override", nargs="*", default=[], help="settings of all runs, such as the data's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
