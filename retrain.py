"""Trains a derived architecture from scratch: `python retrain.py genotype=genotype.json`.

The genotype is a file that `search.py` wrote, a NAS-Bench-201 string, a DARTS `Genotype(...)` text
or the name of a published cell. The plain network is trained on the whole training set, with the
recipe of DARTS as far as it is asked for, and measured on the test set.
"""

import conf.at_once  # noqa: F401, I001 - before what takes seconds
import math
import time

from conf.app import launch
from conf.settings import Launch
from conf.build import recipe_of, sizes_of
from conf.schema import RetrainConfig
from nas.data import load_retrain_data
from nas.genotype import Genotype
from nas.network import Cost, build_network, check_input, network_cost
from nas.optimisation.optimizers import Updater
from nas.genotype.resolve import resolve_genotype
from nas.sync_norm import synchronise_batch_norm
from nas.training.allocator import keep_freed_memory
from nas.training.loop import RunFolder
from nas.training.results import finish_retrain
from nas.training.retrain import Retrain
from nas.training.run import (
    autocast_for,
    choose_device,
    seed_everything,
    to_device,
    use_precision,
    use_threads,
)

# What may change when a run goes on: where things are and how often something is looked at.
FREE = frozenset(
    {"run_dir", "resume", "device", "threads", "evaluate_every_epochs", "checkpoint_every_steps"}
    | {"data.path", "data.download", "data.num_workers", "compile", "eval_batch_size"}
    | {"non_finite.action", "non_finite.factor", "non_finite.max_times"}
)


def retrain(config: RetrainConfig, launched: Launch) -> float:
    """Runs one retraining; returns the top-1 accuracy on the test set; see `finish_retrain`."""
    start = time.perf_counter()
    continues = launched.continues()
    genotype = resolve_genotype(config.genotype)
    run, cost = build(config, launched, genotype)
    run.started = start  # the images have been read since
    if continues:
        run.load()
    run.run()
    if not launched.ranks.leave():
        return math.nan  # the rest is the work of one process
    return finish_retrain(run, genotype, cost, launched.overrides)


def build(config: RetrainConfig, launched: Launch, genotype: Genotype) -> tuple[Retrain, Cost]:
    """The retraining, ready to run, and what its network costs."""
    keep_freed_memory()
    use_threads(config.threads)
    use_precision(config.precision)
    ranks = launched.ranks
    device = choose_device(config.device, ranks)
    seed_everything(config.seed, deterministic=config.deterministic)
    data = load_retrain_data(
        config.data,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        seed=config.seed,
        device=device,
        channels_last=config.channels_last,
        ranks=ranks,
        given=launched.images,
    )
    model = {} if launched.model is None else {"model": launched.model}
    network = build_network(
        genotype,
        sizes_of(config.network) | model,
        in_channels=data.info.in_channels,
        num_classes=data.info.num_classes,
        auxiliary=config.auxiliary_weight > 0,
    )
    check_input(network, data.info.in_channels, data.info.image_size)
    cost = network_cost(network, data.info.in_channels, data.info.image_size)
    network = to_device(network, device, config.channels_last)
    if config.sync_batch_norm:
        network = synchronise_batch_norm(network, ranks, device)
    run = Retrain(
        RunFolder(launched.run_dir, launched.settings, FREE, launched.overrides),
        network=network,
        updater=Updater(network.parameters(), config.weights),
        data=data,
        recipe=recipe_of(config),
        autocast=autocast_for(config.precision, device),
        genotype=genotype,
        compile_network=config.compile,
        non_finite=config.non_finite,
        ranks=ranks,
    )
    return run, cost


def main() -> None:
    """Entry point of `nas-retrain`."""
    launch("retrain", RetrainConfig, retrain)


if __name__ == "__main__":
    main()
