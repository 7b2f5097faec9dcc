"""How well a supernet ranks real architectures: `python -m benchmarks.ranking RUN --table CSV`.

Random cells, as the finished search's supernet and training-free scores judge them, against a
table of trained ones: Spearman's and Kendall's rank correlation, over all of them and over the
better half, where a search has to choose. A supernet has earned its training only above the scores
that need none.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from scipy.stats import kendalltau, rankdata, spearmanr

from benchmarks.measure import print_table, save
from conf.outline import CONF_DIR
from conf.schema import SearchConfig, register_schemas
from conf.settings import Launch
from nas.deriving.deriver import draw_genotype
from nas.deriving.scores import SCORES
from nas.errors import UserError
from nas.genotype import Genotype
from nas.spaces import SearchSpace
from nas.tables.benchmark_table import BenchmarkTable
from nas.training.checkpoint import last_checkpoint, saved_overrides
from nas.training.scoring import TUNING, VALIDATION, training_free
from nas.training.search import Search
from nas.training.tuning import tuning_loss
from search import build

Row = dict[str, object]


def load_search(folder: Path) -> Search:
    """The search of a run folder, as it stood at its last checkpoint.

    Raises:
        UserError: there is no checkpoint of a search, or it cannot be read.
    """
    if not last_checkpoint(folder).exists():
        raise UserError(f"{folder} has no checkpoint of a search")
    register_schemas()
    overrides = [o for o in saved_overrides(last_checkpoint(folder)) if "run_dir=" not in o]
    OmegaConf.register_new_resolver("newest_or_new", lambda *_: str(folder), replace=True)
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = hydra.compose("search", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        OmegaConf.set_struct(composed, False)
        composed.pop("hydra")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, SearchConfig)
    settings = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(settings, dict)
    with tempfile.TemporaryDirectory() as unused:
        named = {str(key): value for key, value in settings.items()}
        launched = Launch(Path(unused), "search", tuple(overrides), named, must_resume=False)
        run = build(config, launched)
    run.load_from(folder)
    return run


def random_genotypes(
    space: SearchSpace, names: Sequence[str], num: int, seed: int
) -> list[Genotype]:
    """`num` genotypes, every option of every choice in `names` equally likely; no two are equal."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: len(space.options_of(name)) for name in names}
    uniform = {name: torch.full((size,), 1 / size) for name, size in sizes.items()}
    found: dict[str, Genotype] = {}
    while len(found) < num:
        genotype = draw_genotype(space, uniform, generator)
        found.setdefault(str(genotype.choices), genotype)
    return list(found.values())


def correlations(values: Sequence[float], accuracies: Sequence[float]) -> dict[str, float]:
    """Rank correlations with the accuracies, over all and over the better half of these."""
    order = sorted(range(len(accuracies)), key=lambda i: -accuracies[i])
    half = order[: len(order) // 2]
    best = [values[i] for i in half], [accuracies[i] for i in half]
    return {
        "Spearman": float(spearmanr(values, accuracies).statistic),
        "Kendall": float(kendalltau(values, accuracies).statistic),
        "Spearman, better half": float(spearmanr(*best).statistic),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    options = _options(arguments)
    try:
        table = BenchmarkTable.read(options.table, options.epochs, options.column)
        run = load_search(options.run)
        rows = rank_genotypes(run, table, options.num, options.seed, options.images)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(rows)
    if options.output:
        settings = {"run": list(run.folder.overrides), "num": options.num, "seed": options.seed}
        save(options.output, run.supernet.device, settings, rows)
    return 0


def rank_genotypes(
    run: Search, table: BenchmarkTable, num: int, seed: int, max_images: int | None
) -> list[Row]:
    """One row a judge, and the mean ranks of one of the supernet and one that is training-free."""
    run.supernet.model.train()
    genotypes = random_genotypes(run.space, run.supernet.names, num, seed)
    scored = [(genotype, table.score(genotype)) for genotype in genotypes]
    known = [(genotype, score.accuracy) for genotype, score in scored if score is not None]
    if len(known) < 3:
        raise UserError("the table has too few of the architectures of this space")
    untrained = training_free(run, seed)
    judges: dict[str, Callable[[Genotype], float]] = {
        VALIDATION: lambda genotype: run.evaluate(genotype, max_images),
        TUNING: lambda genotype: -tuning_loss(run, genotype),
    }
    judges |= {name: partial(untrained, name) for name in SCORES}
    accuracies = [accuracy for _, accuracy in known]
    values, rows = {}, []
    for name, judge in judges.items():
        start = time.perf_counter()
        values[name] = [judge(genotype) for genotype, _ in known]
        ms = 1e3 * (time.perf_counter() - start) / len(known)
        rows.append({"judge": name, **correlations(values[name], accuracies), "ms": ms})
    for supernet, name in product((VALIDATION, TUNING), SCORES):
        both = rankdata(values[supernet]) + rankdata(values[name])
        rows.append({"judge": f"{supernet} and {name}", **correlations(both.tolist(), accuracies)})
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished search")
    add = partial(parser.add_argument, metavar="")
    add("--table", type=Path, required=True, help="CSV file: architecture, test accuracy")
    add("--column", default="cifar10_test", help="the column of the accuracies")
    add("--epochs", type=int, default=200, help="of the training behind the table")
    add("--num", type=int, default=200, help="random architectures")
    add("--seed", type=int, default=0, help="of the draw")
    add("--images", type=int, default=None, help="validation images for each; default all")
    add("--output", type=Path, help="JSON file to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
