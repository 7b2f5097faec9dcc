"""From settings to the plain arguments of plain classes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conf.network_schema import NetworkConfig
from conf.schema import RetrainConfig, SearchConfig
from nas.cost.budget import Budget, cost_range
from nas.cost.costs import COSTS, UNITS, CostModel, fit_linear, latency_of, num_fitted
from nas.cost.latency import LatencyTable
from nas.data import DataInfo
from nas.data.order import derived_seed
from nas.deriving.scores import check_score
from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.genotype import Genotype
from nas.monitor.console import Progress
from nas.network import build_network, check_sizes
from nas.ops import OPERATIONS, Norm
from nas.optimisation.bilevel import (
    Alternating,
    Learner,
    LogitsGradient,
    SingleLevel,
    first_order_gradient,
    score_function_gradient,
)
from nas.optimisation.optimizers import Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.baseline import RunningMean
from nas.sampling.samplers import SampleSource
from nas.spaces import SPACES, Custom, SearchSpace, nasbench201
from nas.tables.benchmark_table import BenchmarkTable
from nas.training.finals import Finals
from nas.training.retrain import Recipe
from nas.training.run import autocast_for
from nas.training.search import SearchSchedule
from nas.training.trainings import TrainingSettings


def build_space(
    config: Any, info: DataInfo, model: Callable[..., nn.Module] | None = None
) -> SearchSpace:
    """The search space of `config` (a schema of the group `space`) for the images of `info`.

    Of the space `custom` a `model` that is given takes the place of the one that is named.

    Raises:
        UserError: an unknown operation, or one that is listed twice.
    """
    sizes = asdict(config)
    if "operations" not in sizes:
        space_type = SPACES.get(sizes.pop("name"), "space.name")
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in sizes.items()}
        given |= {} if model is None else {"model": model}
        model_space: SearchSpace = space_type(
            in_channels=info.in_channels, num_classes=info.num_classes, **given
        )
        return model_space
    operations = tuple(sizes.pop("operations"))
    for name in operations:
        OPERATIONS.get(name, "space.operations")
    if len(set(operations)) != len(operations) or not operations:
        raise UserError(f"space.operations must be different names, got {list(operations)}")
    norm = Norm(sizes.pop("affine"), sizes.pop("track_running_stats"))
    space: SearchSpace = SPACES.get(sizes.pop("name"), "space.name")(
        in_channels=info.in_channels,
        num_classes=info.num_classes,
        operations=operations,
        norm=norm,
        **sizes,
    )
    if set(operations) <= space.never_derived:
        raise UserError(f"space.operations: nothing can be derived from {list(operations)} alone")
    return space


def read_table(config: SearchConfig) -> BenchmarkTable | None:
    """The table of trained architectures to look results up in, where one is given.

    Raises:
        UserError: it cannot be read, or the space is another one.
    """
    benchmark = config.benchmark
    if benchmark.nasbench201 is None:
        return None
    if config.space.name != nasbench201.NAME:
        raise UserError(
            f"benchmark.nasbench201 knows cells of space=nasbench201, the search is over "
            f"space={config.space.name}"
        )
    path = Path(benchmark.nasbench201).expanduser()
    return BenchmarkTable.read(path, benchmark.epochs, benchmark.column)


def build_bilevel(
    config: SearchConfig,
    source: SampleSource,
    budget: Budget | None = None,
    ranks: Ranks = ALONE,
) -> Alternating | SingleLevel:
    """The bilevel optimiser with its two updaters."""
    supernet, bilevel = source.supernet, config.bilevel
    has_baseline = getattr(bilevel, "baseline", "none") == "running_mean"
    drawn = {"uniform": source.uniform, "fair": source.fair}
    learner = Learner(
        supernet=supernet,
        draw=source,
        weights=Updater(
            supernet.model.parameters(), config.weights, update_unsampled=config.update_unsampled
        ),
        logits=Updater([supernet.logits], config.logits),
        draw_for_weights=drawn.get(getattr(bilevel, "weight_samples", "sampler")),
        autocast=autocast_for(config.precision, supernet.device),
        baseline=RunningMean(source) if has_baseline else None,
        budget=budget,
        ranks=ranks,
    )
    if bilevel.name == "single_level":
        return SingleLevel(learner)
    gradient: LogitsGradient = first_order_gradient
    if bilevel.name == "second_order":
        gradient = SecondOrder(bilevel.radius)
    elif source.sampler.learns_from_losses:
        gradient = score_function_gradient
    return Alternating(
        learner,
        gradient,
        order=bilevel.order,
        weight_steps=bilevel.weight_steps,
        logits_steps=bilevel.logits_steps,
        logits_samples=bilevel.logits_samples or source.sampler.samples_an_update,
        groups=bilevel.groups,
    )


def check_ranks(config: SearchConfig, ranks: Ranks) -> None:
    """Checks that the samples of a step can be shared out among the processes.

    Raises:
        UserError: they cannot.
    """
    groups = getattr(config.bilevel, "groups", 1)
    if ranks.size == 1 or groups == 1:
        return
    if groups % ranks.size:
        raise UserError(
            f"bilevel.groups is {groups}: of {ranks.size} processes must be 1 (all run the same "
            f"architecture) or a multiple of {ranks.size} (each its own)"
        )
    if config.sync_batch_norm or config.bilevel.name == "second_order":
        what = "sync_batch_norm" if config.sync_batch_norm else "bilevel=second_order"
        raise UserError(
            f"{what} needs all processes to run the same architecture: set bilevel.groups to 1"
        )


def build_budget(
    config: SearchConfig, space: SearchSpace, choices: Mapping[str, tuple[str, ...]], info: DataInfo
) -> Budget | None:
    """The budget, where there is one; fits its linear model.

    Raises:
        UserError: no architecture of the space keeps to it.
    """
    settings = config.budget
    if settings.name == "none":
        return None
    sizes = sizes_of(settings.network)

    def build(genotype: Genotype) -> nn.Module:
        if not sizes:
            return space.build_network(genotype)
        return build_network(
            genotype, sizes, in_channels=info.in_channels, num_classes=info.num_classes
        )

    if settings.name == "latency":
        count = latency_of(LatencyTable.load(Path(settings.table)))
        target = settings.target_ms
    else:
        count, target = COSTS.get(settings.name), settings.target
    cost = CostModel(build, count, info.in_channels, info.image_size)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "budget"))
    with Progress(num_fitted(choices), unit="genotype") as progress:
        linear = fit_linear(space, choices, cost, generator, progress.advance)
        span = cost_range(space, choices, cost, linear)
        limit = target if settings.fraction is None else span.at(settings.fraction)
        unit = UNITS.get(settings.name, "")
        budget = Budget(settings.name, unit, cost, linear, span, limit, settings.rate)
        progress.line(budget.summary())
    budget.check()
    return budget


def schedule_of(config: SearchConfig) -> SearchSchedule:
    """When what happens in a search."""
    return SearchSchedule(
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        temperature_start=getattr(config.sampler, "temperature_start", 1.0),
        temperature_end=getattr(config.sampler, "temperature_end", 1.0),
        evaluate_every_epochs=config.evaluate_every_epochs,
        checkpoint_every_steps=config.checkpoint_every_steps,
        pruning=dict(zip(config.pruning.epochs, config.pruning.keep, strict=True)),
        # Elsewhere the cells have none, and those of the stem depend on no architecture.
        recalibration_batches=(
            config.recalibration_batches
            if getattr(config.space, "track_running_stats", True)
            else 0
        ),
        collapse=config.collapse,
    )


def finals_of(config: SearchConfig, space: SearchSpace) -> Finals | None:
    """The finals of a local search, where there are any.

    What `derive.network` leaves open is the model of the search, or the channels of the supernet.

    Raises:
        UserError: `derive.network` has a size that networks of the space do not have.
    """
    rule = config.derive
    if getattr(rule, "finalists", 0) == 0:
        return None
    sizes = sizes_of(rule.network)
    if isinstance(space, Custom):
        sizes = {"model": space.model, "arguments": space.arguments, **sizes}
    elif space.has_cells:  # as narrow as the supernet, as deep as the final network
        sizes = {"channels": config.space.channels, **sizes}
    check_sizes(space.name, sizes, "derive.network")
    return Finals(
        num_finalists=rule.finalists,
        num_trainings=rule.final_trainings,
        steps=rule.final_steps,
        num_in_playoff=rule.playoff,
        playoff_steps=rule.playoff_steps,
        training=TrainingSettings(
            sizes=sizes,
            weights=config.weights,
            seed=config.seed,
            channels_last=config.channels_last,
            graphs=config.kernels in ("auto", "graphs"),
        ),
    )


def check_scores(config: SearchConfig, model: nn.Module) -> None:
    """Checks that the training-free scores that are asked for tell networks of `model` apart.

    Raises:
        UserError: one does not.
    """
    if config.warm_start.score is not None:
        check_score(config.warm_start.score, model, "warm_start.score")
    for judge in getattr(config.derive, "judges", ()):
        check_score(judge, model, "derive.judges")


def sizes_of(config: NetworkConfig) -> dict[str, Any]:
    """The sizes that are given; the others are left to the space."""
    return {name: value for name, value in asdict(config).items() if value not in (None, {})}


def recipe_of(config: RetrainConfig) -> Recipe:
    """How the network is trained."""
    return Recipe(
        epochs=config.epochs,
        auxiliary_weight=config.auxiliary_weight,
        drop_path=config.drop_path,
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        evaluate_every_epochs=config.evaluate_every_epochs,
        checkpoint_every_steps=config.checkpoint_every_steps,
    )
