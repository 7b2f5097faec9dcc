"""Found cells against published ones, retrained alike: `python -m benchmarks.cells --space darts`.

One search a seed; each cell that is found, and each published cell that is named, is then trained
from scratch with the same recipe, sizes and seeds. Finished runs are kept, so that a stopped
command goes on.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import programs
from benchmarks.measure import print_table, save
from nas.genotype import Genotype
from nas.genotype.published import PUBLISHED
from nas.genotype.text import genotype_text
from nas.training.run import choose_device

EXPERIMENTS = {"darts": "gdas_darts_code", "gdas_frc": "gdas_frc"}
"""The search of each space."""

RIVALS = {"darts": ["gdas_v1", "darts_v2"], "gdas_frc": ["gdas_frc_f1"]}
"""Published cells that each space's are held against if none are named."""

RECIPE = (
    "experiment=retrain_darts_cifar10",
    *("network.channels=16", "network.cells=8", "epochs=20"),
    *("auxiliary_weight=0", "drop_path=0"),  # for hundreds of epochs
)
"""Short, so that several seeds of several cells can be trained; differences count, not levels."""


def main() -> None:
    """Entry point."""
    options = _options()
    rows: list[dict[str, Any]] = []
    for space in options.space:
        folder = options.runs / space
        for name in options.published or RIVALS[space]:
            rows.append(row(options, space, name, name, folder / name))
            print_table(shown(rows))
        for seed in range(options.searches):
            found = search(options, space, seed, folder / f"search{seed}")
            path = found / "genotype.json"
            rows.append(row(options, space, f"found, seed {seed}", path, folder / f"found{seed}"))
            rows[-1]["search s"] = programs.seconds(found)
            print_table(shown(rows))
    if options.output:
        unsaved = ("output", "runs")
        kept = {k: str(v) for k, v in vars(options).items() if k not in unsaved}
        save(options.output, choose_device(options.device), kept, rows)


def search(options: argparse.Namespace, space: str, seed: int, folder: Path) -> Path:
    """Searches, or finds the finished run; returns its folder."""
    given = (f"experiment={EXPERIMENTS[space]}", f"seed={seed}", f"device={options.device}")
    return programs.run("search.py", folder, *given, *options.override, *options.search)


def row(
    options: argparse.Namespace, space: str, name: str, genotype: Path | str, folder: Path
) -> dict[str, Any]:
    """A cell, and the accuracies of its networks."""
    given = (*RECIPE, f"device={options.device}")
    accuracies = programs.retrain(
        genotype, folder, options.seeds, *given, *options.override, *options.retrain
    )
    cell = PUBLISHED[genotype] if isinstance(genotype, str) else Genotype.load(genotype)
    return {
        "space": space,
        "cell": name,
        "mean": statistics.mean(accuracies),
        "accuracies": accuracies,
        "genotype": genotype_text(cell),
    }


def shown(rows: Sequence[dict[str, Any]]) -> list[dict[str, object]]:
    """What fits into a table."""
    return [
        {
            "space": row["space"],
            "cell": row["cell"],
            "accuracy": programs.mean_and_deviation(row["accuracies"]),
            "worst": min(row["accuracies"]),
            "search s": row.get("search s", "-"),
        }
        for row in rows
    ]


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cells", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--space", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--published", nargs="+", choices=PUBLISHED, help="cells to compare with")
    add("--searches", type=int, default=1, help="seeds that are searched with (default 1)")
    add("--seeds", type=int, default=3, help="trainings of each cell (default 3)")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    add("--runs", type=Path, default=Path("runs/cells"), help="folder of the runs")
    add("--search", nargs="*", default=[], help="settings of the searches")
    add("--retrain", nargs="*", default=[], help="settings of the trainings")
    add("--override", nargs="*", default=[], help="settings of all, such as the data's")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
