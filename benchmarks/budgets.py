"""Searches within budgets against random architectures: `python -m benchmarks.budgets --model M`.

For each fraction of the space's range, and each seed, one search over a user's model; beside them
as many random architectures that cost 90 to 100 % of the limit. All are trained alone with the same
recipe, as many times as there are seeds. Finished runs are kept, so that a stopped command goes on.
"""

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import programs
from benchmarks.measure import print_table, save
from benchmarks.ranking import load_search
from nas.deriving.deriver import draw_genotype
from nas.genotype import Genotype
from nas.training.search import Search

CHEAPEST = 0.9
"""Of the limit: what a random architecture costs at least."""

MAX_DRAWS = 20_000


def main() -> None:
    """Entry point."""
    options = _options()
    rows: list[dict[str, object]] = []
    for fraction in options.fractions:
        folder = options.runs / f"{fraction:g}"
        searches = [search(options, fraction, seed, folder) for seed in range(options.seeds)]
        run = load_search(searches[0])
        assert run.budget is not None
        entrants = {
            "found": [Genotype.load(path / "genotype.json") for path in searches],
            "random": random_within(run, options.seeds),
        }
        for kind, genotypes in entrants.items():
            costs = [run.budget.cost(genotype) for genotype in genotypes]
            assert max(costs) <= run.budget.target
            accuracies = [
                retrain(options, genotype, folder / f"{kind}{n}")
                for n, genotype in enumerate(genotypes)
            ]
            means = [statistics.mean(each) for each in accuracies]
            rows.append(
                {
                    "fraction": fraction,
                    "limit": run.budget.target,
                    "kind": kind,
                    "costs": costs,
                    "mean": statistics.mean(means),
                    "best": max(means),
                    "worst": min(means),
                    "accuracies": accuracies,
                }
            )
            print_table(rows)
    if options.output:
        kept = {
            k: str(v) for k, v in vars(options).items() if k not in ("output", "runs", "override")
        }
        save(options.output, torch.device("cpu"), kept, rows)


def search(options: argparse.Namespace, fraction: float, seed: int, folder: Path) -> Path:
    """Searches, or finds the finished run; returns its folder."""
    budget = (f"budget={options.cost}", f"budget.fraction={fraction}", "budget.front_limits=0")
    given = ("space=custom", f"space.model={options.model}", *budget, f"seed={seed}")
    folder = folder / f"search{seed}"
    return programs.run("search.py", folder, *given, *options.override, *options.search)


def random_within(run: Search, count: int) -> list[Genotype]:
    """Random genotypes that cost as much as the limit allows, or a little less."""
    budget, generator = run.budget, torch.Generator().manual_seed(0)
    assert budget is not None
    uniform = {n: torch.full((len(o),), 1 / len(o)) for n, o in run.supernet.choices.items()}
    found: list[Genotype] = []
    for _ in range(MAX_DRAWS):
        genotype = draw_genotype(run.space, uniform, generator)
        if CHEAPEST * budget.target <= budget.cost(genotype) <= budget.target:
            found.append(genotype)
        if len(found) == count:
            return found
    raise SystemExit(f"error: no {count} of {MAX_DRAWS} random architectures cost that much")


def retrain(options: argparse.Namespace, genotype: Genotype, folder: Path) -> list[float]:
    """Top-1 in percent on the test set, trained alone, for each seed."""
    path = folder / "genotype.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(genotype.to_json())
    given = (f"network.model={options.model}", *options.override, *options.retrain)
    return programs.retrain(path, folder, options.seeds, *given)


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--model", required=True, help="class or function of the model, such as my_net.MyNet")
    add("--cost", default="multiply_adds", help="what is limited (default multiply_adds)")
    add("--fractions", nargs="+", type=float, default=[0.3, 0.5, 0.7], help="default 0.3 0.5 0.7")
    add("--seeds", type=int, default=3, help="searches, random architectures, trainings of each")
    add("--runs", type=Path, default=Path("runs/budgets"), help="folder of the runs")
    add("--search", nargs="*", default=[], help="settings of the searches")
    add("--retrain", nargs="*", default=[], help="settings of the trainings")
    add("--override", nargs="*", default=[], help="settings of all, such as the data's")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
