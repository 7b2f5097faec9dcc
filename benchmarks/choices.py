"""What choices cost in a step of a model: `python -m benchmarks.choices`.

Weight step and logits step of a one-path supernet of the macro spaces against the plain network of
the same genotype, forward, backward and optimiser: interleaved in one process, the fastest of a few
repetitions of each architecture, means over the architectures.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import nn

import nas
from benchmarks.measure import Stopwatch, print_table, save
from benchmarks.subjects import random_batch
from nas.optimisation.bilevel import Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import MobileNet, ModelSpace, ViT
from nas.supernet import Sample, Supernet
from nas.training.run import choose_device

REPETITIONS = 3
"""Of a step in a round; the fastest counts."""

SPACES: dict[str, ModelSpace] = {
    "mobilenet": MobileNet(
        in_channels=3, num_classes=10, width=0.5, stem_stride=1, strides=(1, 2, 2, 1, 2, 1)
    ),
    "vit": ViT(in_channels=3, num_classes=10, embeddings=(96, 128, 160), depths=(3, 4, 6)),
}
WEIGHTS = OptimizerSettings(learning_rate=0.01, momentum=0.9, weight_decay=1e-4)


def main() -> None:
    """Entry point."""
    options = _options()
    device = choose_device(options.device)
    rows: list[dict[str, object]] = []
    for name in options.space:
        watch = compare(SPACES[name], device, options)
        rows += [
            {
                "space": name,
                "step": step,
                "ms": watch.mean_ms(step),
                "/ child": watch.ratio(step, "child"),
            }
            for step in watch.names
        ]
    print_table(rows)
    if options.output:
        kept = {k: v for k, v in vars(options).items() if k != "output"}
        save(options.output, device, kept, rows)


def compare(space: ModelSpace, device: torch.device, options: argparse.Namespace) -> Stopwatch:
    """Times the steps in turn, one architecture a round."""
    generator, watch = torch.Generator().manual_seed(0), Stopwatch(device)
    supernet = Supernet(space.build_supernet().to(device), generator)
    source = SampleSource(supernet, SAMPLERS.get("gdas"), generator)
    batch = random_batch(options.batch_size, device)
    for number in range(options.rounds):
        sample = source()
        learner = Learner(
            supernet,
            partial(_same, sample),
            Updater(supernet.model.parameters(), WEIGHTS),
            Updater([supernet.logits], OptimizerSettings(name="adam")),
        )
        chosen = space.derive(supernet.split(sample.weights.detach())).choices
        child = nas.derive(supernet.model, chosen).train()
        updater = Updater(child.parameters(), WEIGHTS)

        def child_step(child: nn.Module = child, updater: Updater = updater) -> None:
            nn.functional.cross_entropy(child(batch[0]), batch[1]).backward()
            updater.step()

        def logits_step(learner: Learner = learner, sample: Sample = sample) -> None:
            learner.decision_gradient(batch, sample)

        for _ in range(REPETITIONS):
            watch.time("child", number, child_step)
            watch.time("weight step", number, partial(learner.update_weights, batch))
            watch.time("logits step", number, logits_step)
    return watch


def _same(sample: Sample) -> Sample:
    return sample


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    add("--batch-size", type=int, default=64, help="default 64")
    add("--rounds", type=int, default=20, help="architectures (default 20)")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
