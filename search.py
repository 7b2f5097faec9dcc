"""Searches an architecture: `python search.py space=nasbench201 sampler=gdas data=cifar10`.

A supernet of mixed operations takes one candidate an edge by Gumbel-softmax sampling over its
architecture logits; a bilevel optimiser trains weights and logits on separate halves of the data;
a deriver turns the logits into one discrete cell, `genotype.json`, for `retrain.py`.
"""

import conf.at_once  # noqa: F401, I001 - before what takes seconds
import math
import time
from dataclasses import asdict
from typing import Any

from torch import nn

from conf.app import launch
from conf.settings import Launch
from conf.build import (
    build_bilevel,
    build_budget,
    build_space,
    check_ranks,
    check_scores,
    finals_of,
    read_table,
    schedule_of,
)
from conf.network_schema import NetworkConfig
from conf.schema import SearchConfig
from nas.cost.budget import FrontPoint
from nas.data import SearchData, load_search_data
from nas.deriving.deriver import derive_argmax
from nas.errors import UserError
from nas.kernels.fused import accelerate
from nas.kernels.graphs import graphs_for
from nas.genotype import Genotype
from nas.probe import probe
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import Custom, SearchSpace
from nas.supernet import Supernet
from nas.sync_norm import synchronise_batch_norm
from nas.training.allocator import keep_freed_memory
from nas.training.discretise import by_perturbation
from nas.training.front import find_front
from nas.training.loop import RunFolder
from nas.training.results import finish_search
from nas.training.run import (
    choose_device,
    interruptible,
    seed_everything,
    to_device,
    use_precision,
    use_threads,
)
from nas.training.scoring import TRAINING, best_of_samples, by_local_search, start_warm
from nas.training.search import Search

NUM_PROBED = 2
"""Images on which a user's model is tried."""

# What may change when a run goes on: where things are and how often something is looked at.
FREE = frozenset(
    {
        "run_dir",
        "resume",
        "device",
        "threads",
        "kernels",
        "evaluate_every_epochs",
        "checkpoint_every_steps",
    }
    | {"recalibration_batches", "non_finite.action", "non_finite.factor", "non_finite.max_times"}
    | {"benchmark.nasbench201", "benchmark.epochs", "benchmark.column"}
    | {"data.path", "data.download", "data.num_workers"}
    | {"derive.name", "derive.num_samples", "derive.max_images", "derive.judges", "derive.beam"}
    | {"derive.max_evaluations", "derive.finalists", "derive.final_trainings", "derive.final_steps"}
    | {"derive.playoff", "derive.playoff_steps", "derive.num_paths", "derive.tuning_steps"}
    | {"budget.front_limits", "budget.max_images"}
    | {f"derive.network.{name}" for name in NetworkConfig.__dataclass_fields__}
)


def search(config: SearchConfig, launched: Launch) -> float:
    """Runs one search; returns the derived genotype's accuracy on the validation half."""
    start = time.perf_counter()
    continues = launched.continues()
    run = build(config, launched)
    run.started = start  # the images have been read since
    if continues:
        run.load()
    elif config.warm_start.score is not None:
        start_warm(run, **asdict(config.warm_start), seed=config.seed)
    run.run()
    if not launched.ranks.leave():
        return math.nan  # the rest is the work of one process
    with interruptible("while deriving, the search is saved"):
        genotype, accuracy = derive(config, run)
        points = front_within(config.budget, run, genotype)
    finish_search(
        run, genotype, accuracy, launched.overrides, points, judges=judges_of(config.derive)
    )
    return accuracy


def build(config: SearchConfig, launched: Launch) -> Search:
    """The search, ready to run: data, supernet, sampler, bilevel optimiser."""
    ranks = launched.ranks
    check_ranks(config, ranks)
    keep_freed_memory()
    use_threads(config.threads)
    use_precision(config.precision)
    device = choose_device(config.device, ranks)
    generator = seed_everything(config.seed, deterministic=config.deterministic)
    data = load_search_data(
        config.data,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        channels_last=config.channels_last,
        ranks=ranks,
        given=launched.images,
    )
    space = build_space(config.space, data.info, launched.model)
    finals_of(config, space)  # sizes that it does not have are told before the search
    table = read_table(config)
    model = to_device(space.build_supernet(), device, config.channels_last)
    check_scores(config, model)
    if config.sync_batch_norm:  # before the fast kernels, which leave such norms alone
        model = synchronise_batch_norm(model, ranks, device)
    model = ready_model(config, space, model, data)
    graphs = graphs_for(model, config.kernels, device)
    supernet = Supernet(model, generator, graphs=graphs)
    source = SampleSource(supernet, SAMPLERS.get(config.sampler.name), generator)
    budget = build_budget(config, space, supernet.choices, data.info)
    return Search(
        RunFolder(launched.run_dir, launched.settings, FREE, launched.overrides),
        space=space,
        bilevel=build_bilevel(config, source, budget, ranks),
        source=source,
        data=data,
        schedule=schedule_of(config),
        table=table,
        budget=budget,
        non_finite=config.non_finite,
        ranks=ranks,
    )


def ready_model(
    config: SearchConfig, space: SearchSpace, model: nn.Module, data: SearchData
) -> nn.Module:
    """`model` with fast kernels, or the user's own after every option of it has been tried."""
    if space.has_cells:
        return accelerate(model, config.kernels, next(model.parameters()).device)
    if config.kernels not in ("auto", "plain"):
        raise UserError(
            f"kernels={config.kernels} are those of cell spaces: space={space.name} runs as it is, "
            "set kernels to auto"
        )
    if isinstance(space, Custom):
        images, _ = next(iter(data.validation.epoch(0)))
        probe(model, images[:NUM_PROBED], data.info.num_classes)
    return model


def derive(config: SearchConfig, run: Search) -> tuple[Genotype, float]:
    """The discrete result, and its accuracy in percent on the validation half."""
    rule = config.derive
    if rule.name == "sampled":
        return best_of_samples(run, rule.num_samples, rule.max_images)
    if rule.name == "local_search":
        return by_local_search(
            run,
            rule.judges,
            num_samples=rule.num_samples,
            beam=rule.beam,
            max_evaluations=rule.max_evaluations,
            max_images=rule.max_images,
            seed=config.seed,
            finals=finals_of(config, run.space),
        )
    if rule.name == "perturbation":
        return by_perturbation(
            run,
            num_paths=rule.num_paths,
            max_images=rule.max_images,
            tuning_steps=rule.tuning_steps,
            seed=config.seed,
        )
    genotype = derive_argmax(run.within, run.supernet.probabilities())
    known = run.validation_accuracy
    return genotype, run.evaluate(genotype) if math.isnan(known) else known


def judges_of(rule: Any) -> list[str]:
    """Who picks the genotype in a local search."""
    if rule.name != "local_search":
        return []
    return [*rule.judges, *([TRAINING] if rule.finalists else [])]


def front_within(budget: Any, run: Search, genotype: Genotype) -> list[FrontPoint]:
    """The front of accuracy and cost, where there is a budget."""
    if budget.name == "none" or budget.front_limits == 0:
        return []
    return find_front(run, genotype, num_limits=budget.front_limits, max_images=budget.max_images)


def main() -> None:
    """Entry point of `nas-search`."""
    launch("search", SearchConfig, search)


if __name__ == "__main__":
    main()
