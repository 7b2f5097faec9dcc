"""The finals of a derivation: the best genotypes trained alone for a short while, at full depth.

A supernet of few cells cannot tell how an architecture trains when fifteen of its cells are
stacked, and no score at initialisation can. A few hundred steps show it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from nas.genotype import Genotype
from nas.local_search import Judged, rank
from nas.network import build_network
from nas.optimizers import OptimizerSettings, Updater
from nas.training.run import to_device
from nas.training.search import Search


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Who is in the finals and how they are trained.

    Attributes:
        num_finalists: How many of the best.
        steps: Of training, at most one epoch.
        sizes: Sizes of their network by name; what is missing has the space's default.
        weights: Their optimiser; the learning rate stays as it is.
        seed: Of the initial weights, the same for all.
        channels_last: Memory layout of the weights.
    """

    num_finalists: int
    steps: int
    sizes: Mapping[str, Any]
    weights: OptimizerSettings
    seed: int
    channels_last: bool


def hold(
    finals: Finals,
    run: Search,
    ranked: Sequence[Judged],
    on_finalist: Callable[[], None] = lambda: None,
) -> list[Judged]:
    """Ranks the first of `ranked` anew, their training in the finals as one judge more.

    Args:
        finals: What is held.
        run: The search, whose training images and first batches all finalists see.
        ranked: Genotypes, best first.
        on_finalist: Called after each.
    """
    pool = []
    for judged in ranked[: finals.num_finalists]:
        loss = train(finals, run, judged.genotype)
        pool.append((judged.genotype, (*judged.values, -loss)))
        on_finalist()
    return rank(pool)


def train(finals: Finals, run: Search, genotype: Genotype) -> float:
    """The loss per image of `genotype`'s network in the second half of its steps.

    No image comes twice, so each loss is that of images not seen before (prequential); summed over
    a training it ranks architectures better than the accuracy after it does (Ru et al., 2021,
    "Speedy Performance Estimation for Neural Architecture Search", arXiv:2006.04492). A network
    that diverges has an infinite one.
    """
    info = run.data.info
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(finals.seed)
        network = build_network(
            genotype, finals.sizes, in_channels=info.in_channels, num_classes=info.num_classes
        )
    device, channels_last = run.supernet.device, finals.channels_last
    network = to_device(network, device, channels_last).train()
    updater = Updater(network.parameters(), finals.weights)
    losses = []
    for images, labels in islice(run.data.train.epoch(0), finals.steps):
        with run.learner.autocast():
            loss = run.learner.loss(network(images), labels)
        loss.backward()
        updater.step()
        losses.append(loss.detach())
    mean = float(torch.stack(losses[len(losses) // 2 :]).mean())
    return mean if math.isfinite(mean) else math.inf
