"""Search methods against the NAS-Bench-201 table: `python -m benchmarks.scoreboard --table CSV`.

Every method runs `search.py` on the proxy of `experiment=nasbench201_cpu`, once a seed, in
`--runs`; finished runs are kept and stopped ones go on. The cells that they derive are looked up
in the table, and their supernets rank random cells against it. The table decides nothing: the
settings are those of the configuration, and every seed is reported. Figures of runs that stand in
`--output` already are kept.
"""

import argparse
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import save
from benchmarks.ranking import load_search, rank_genotypes
from nas.errors import UserError
from nas.genotype.text import nasbench201_text, parse_nasbench201
from nas.sweep import SUMMARY, Result
from nas.tables.benchmark_table import BenchmarkTable
from nas.training.scoring import TUNING, VALIDATION

ROOT = Path(__file__).parent.parent
EPOCHS = 200
"""Of the training behind the table."""

CONSOLE = "console.log"
"""What a search prints, in its folder."""

COST = "core_seconds.json"
"""Processor time of each start of the search, in its folder."""


@dataclass(frozen=True)
class Method:
    """A row of the scoreboard.

    Attributes:
        overrides: Of the experiment.
        derives_from: The method whose finished searches it derives from anew; None: it searches.
        judge: Whose ranking of random cells is reported: the supernet's (`validation`) or that of a
            training-free score; None: nobody's, or it stands in the row that this derives from.
        experiment: The settings that the overrides change.
    """

    overrides: tuple[str, ...] = ()
    derives_from: str | None = None
    judge: str | None = VALIDATION
    experiment: str = "nasbench201_cpu"


OURS = "one path, finals"
_NO_WARM_START = ("warm_start.score=null", "warmup_epochs=0")
_LEARNED = (*_NO_WARM_START, "derive=argmax", "logits.learning_rate=3e-3")


def _learned(sampler: str, epochs: int) -> Method:
    """Logits that are learnt; as many epochs as take as long as the supernet of the first row."""
    return Method((f"sampler={sampler}", f"epochs={epochs}", *_LEARNED))


_NO_FINALS = ("derive.finalists=0", "derive.playoff=0")
_RANDOM = (*_NO_WARM_START, "sampler=uniform", "epochs=1")  # the supernet is not asked


def _best_of(score: str, num_samples: int, num_evaluations: int) -> Method:
    judged = (f"derive.num_samples={num_samples}", f"derive.max_evaluations={num_evaluations}")
    judge = f"derive.judges=[{score}]"
    return Method((*_RANDOM, *_NO_FINALS, judge, *judged), judge=score)


def _derived(*overrides: str) -> Method:
    return Method(overrides, derives_from=OURS, judge=None)


METHODS: dict[str, Method] = {
    OURS: Method(),
    "without play-off": _derived("derive.playoff=0"),
    "without finals": _derived(*_NO_FINALS),
    "finals without neighbours": _derived("derive.final_trainings=12"),
    "supernet alone": _derived(*_NO_FINALS, "derive.judges=[validation]"),
    "finals without a supernet": Method(  # which is not asked, and is hardly trained
        ("epochs=1", "warmup_epochs=1", "derive.judges=[naswot,multiply_adds]"), judge=None
    ),
    "random search, trained alone": Method(
        (
            *_RANDOM,
            "derive.judges=[]",
            "derive.num_samples=60",  # some come twice
            "derive.max_evaluations=40",
            "derive.finalists=40",
            "derive.final_trainings=40",
            "derive.playoff=0",
        ),
        judge=None,
    ),
    "GDAS": _learned("gdas", 32),
    "GDAS, authors' form": _learned("gdas_authors", 32),
    "score function": _learned("score_function", 17),
    "DrNAS": _learned("dirichlet", 5),
    "DARTS": _learned("softmax", 5),
    "most parameters": _best_of("parameters", 10, 500),
    "most multiply-adds": _best_of("multiply_adds", 10, 500),
    "NASWOT, best of 1,000": _best_of("naswot", 1000, 1000),
    "SynFlow, best of 1,000": _best_of("synflow", 1000, 1000),
}
"""By name. Methods that are slower a step have as many epochs as take about as long."""


def run(method: str, row: Method, seed: int, runs: Path, overrides: Sequence[str]) -> Path:
    """Runs or finishes the search; returns its folder.

    Raises:
        UserError: it failed.
    """
    folder = folder_of(method, seed, runs)
    if (folder / SUMMARY).exists():
        return folder
    chosen = [f"experiment={row.experiment}", *row.overrides, f"seed={seed}", f"run_dir={folder}"]
    if row.derives_from is not None:
        shutil.copytree(folder_of(row.derives_from, seed, runs), folder, dirs_exist_ok=True)
        (folder / SUMMARY).unlink()  # of the other run
        chosen.append("resume=true")
    command = [sys.executable, "search.py", *chosen, *overrides]
    console = folder / CONSOLE
    print(f"{method}, seed {seed}: {' '.join(command[1:])} > {console}", flush=True)
    if _exit_code(command, console):
        raise UserError(f"{method}, seed {seed} failed; see {console}")
    seconds = Result.load(folder / SUMMARY).seconds
    print(f"{method}, seed {seed}: {seconds:.0f} s", flush=True)
    return folder


def folder_of(method: str, seed: int, runs: Path) -> Path:
    """Where the run writes."""
    return runs / re.sub("[^a-z0-9]+", "_", method.lower()) / str(seed)


def _exit_code(command: Sequence[str], console: Path) -> int:
    console.parent.mkdir(parents=True, exist_ok=True)
    with console.open("w") as output:
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    cost = console.with_name(COST)
    seconds = [*_core_seconds(console.parent), usage.ru_utime + usage.ru_stime]
    cost.write_text(json.dumps(seconds))
    return started.returncode


def _core_seconds(folder: Path) -> list[float]:
    """Processor time of the starts of the run in `folder`; empty where nobody has taken it."""
    cost = folder / COST
    return json.loads(cost.read_text()) if cost.exists() else []


def run_all(methods: Mapping[str, Method], options: argparse.Namespace) -> None:
    """Runs what is missing, `options.jobs` searches at a time, those that others need first.

    Raises:
        UserError: one failed; those that are running end before.
    """
    chosen = set(options.method)
    needed = {methods[method].derives_from for method in chosen} - {None}
    for stage in (needed, chosen - needed):
        with ThreadPoolExecutor(options.jobs) as pool:
            started = [
                pool.submit(run, method, row, seed, options.runs, options.override)
                for method, row in methods.items()
                if method in stage
                for seed in options.seeds
            ]
            try:
                for future in started:
                    future.result()
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise


def outcome(
    folder: Path, table: BenchmarkTable, judge: str | None, num_ranked: int
) -> dict[str, Any]:
    """What the run in `folder` found, and how its judge ranks random cells."""
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
    if spent := _core_seconds(folder):
        found["core seconds"] = sum(spent)
    if num_ranked and judge is not None:
        ranked = rank_genotypes(load_search(folder), table, num_ranked, seed=0, max_images=2000)
        by_judge = {str(row["judge"]): row for row in ranked}
        found |= {"Spearman": by_judge[judge]["Spearman"], "Kendall": by_judge[judge]["Kendall"]}
        if judge == VALIDATION:
            found["Spearman, tuned"] = by_judge[TUNING]["Spearman"]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = parser_for(METHODS, "scoreboard", __doc__)
    return score(METHODS, parser.parse_args(arguments), torch.device("cpu"))


def score(methods: Mapping[str, Method], options: argparse.Namespace, device: torch.device) -> int:
    """Runs what is missing of `methods`, writes the results; returns the exit code."""
    content = json.loads(options.output.read_text()) if options.output.exists() else {"rows": {}}
    rows: dict[str, Any] = content["rows"]
    settings = {"overrides": options.override, "jobs": options.jobs}
    try:
        table = BenchmarkTable.read(options.table, EPOCHS)
        run_all(methods, options)
        for method in options.method:
            row, known = methods[method], rows.get(method, {}).get("runs", [])
            found = {run["seed"]: run for run in known}
            for seed in options.seeds:
                if seed not in found:
                    folder = folder_of(method, seed, options.runs)
                    new = outcome(folder, table, row.judge, options.ranked)
                    found[seed] = {"seed": seed, **new}
            rows[method] = {"overrides": row.overrides, "runs": [found[s] for s in sorted(found)]}
            save(options.output, device, settings, rows)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(rows))
    return 0


def markdown(rows: dict[str, Any]) -> str:
    """The rows as a table, best mean first."""
    lines = [
        "| method | accuracy | worst | all seeds | Spearman | tuned | s a search | core s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]

    def mean(name: str, key: str) -> float:
        return statistics.mean(float(run.get(key, "nan")) for run in rows[name]["runs"])

    def shown(name: str, key: str, decimals: int = 2) -> str:
        value = mean(name, key)
        return "-" if math.isnan(value) else f"{value:.{decimals}f}"

    for name in sorted(rows, key=lambda name: -mean(name, "accuracy")):
        values = [run["accuracy"] for run in rows[name]["runs"]]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        listed = ", ".join(f"{value:.2f}" for value in values)
        lines.append(
            f"| {name} | {mean(name, 'accuracy'):.2f}{spread} | {min(values):.2f} | {listed} | "
            f"{shown(name, 'Spearman')} | {shown(name, 'Spearman, tuned')} | "
            f"{shown(name, 'seconds', 0)} | {shown(name, 'core seconds', 0)} |"
        )
    return "\n".join(lines)


def parser_for(
    methods: Mapping[str, Method], module: str, description: str | None
) -> argparse.ArgumentParser:
    """The options of a scoreboard of `methods`, the command `python -m benchmarks.<module>`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    add = partial(parser.add_argument, metavar="")
    # Without a name argparse could not write the usage of what is required.
    table = "CSV file: architecture, cifar10_test"
    parser.add_argument("--table", type=Path, required=True, metavar="CSV", help=table)
    parser.add_argument("--method", nargs="+", choices=methods, default=list(methods))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="runs of each method")
    add("--ranked", type=int, default=200, help="random cells that each supernet ranks; 0: none")
    add("--jobs", type=int, default=1, help="searches at a time")
    runs = Path("runs") / module
    add("--runs", type=Path, default=runs, help=f"folder of the runs (default {runs})")
    add("--output", type=Path, default=runs / "results.json", help="JSON file")
    add("--override", nargs="*", default=[], help="settings of all runs, such as the data's")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
