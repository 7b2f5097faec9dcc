"""What groups do to the logits' gradient and to the time of a step: `python -m benchmarks.groups`.

`bilevel.groups` splits a batch into parts that run architectures of their own. Here the gradient
of whole updates is drawn many times on a trained supernet, for each number of groups, and for as
many samples of the whole batch (`bilevel.logits_samples`), which cost as many passes.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.estimators import NONE, Row, add_supernet_options, load, make_learner
from benchmarks.measure import Stopwatch, print_table, save
from benchmarks.whole_update import figures
from nas.data import Cycle
from nas.optimisation.bilevel import Alternating, Batch, Learner, split
from nas.training.run import choose_device

REPETITIONS = 3
"""Of a step in a round; the fastest counts."""


def main() -> None:
    """Entry point."""
    options = _options()
    device = choose_device(options.device)
    data = load(options, device)
    learner = make_learner(data, device, options)
    train, batches = Cycle(data.train), Cycle(data.validation)
    for _ in range(options.steps):
        learner.update_weights(next(train))
    settings = [(1, 1), *((g, 1) for g in options.groups), *((1, g) for g in options.groups)]
    found = {
        setting: gradients(learner, batches, options.updates, *setting) for setting in settings
    }
    rows = compare(found, options.batch_size)
    # Last of all, since steps move the weights.
    watch = time_steps(learner, train, batches, settings, options.rounds)
    for row, setting in zip(rows, settings, strict=True):
        for kind in ("weight step", "logits step"):
            row[f"{kind} / one group"] = watch.ratio(f"{kind} {setting}", f"{kind} {(1, 1)}")
    print_table(rows)
    if options.output:
        kept = {k: v for k, v in vars(options).items() if k not in ("output", "data")}
        save(options.output, device, {"images": data.info.name, **kept}, rows)


def gradients(
    learner: Learner, batches: Iterator[Batch], count: int, groups: int, samples: int
) -> tuple[Tensor, float]:
    """Gradients of the logits in `count` updates `[U, N, K]`, and the mean loss.

    Args:
        learner: Whose supernet is asked; nothing is updated.
        batches: One for each update.
        count: U.
        groups: Parts of each batch.
        samples: Architectures that run on each part.
    """
    found, losses = [], []
    for _ in range(count):
        total = torch.zeros_like(learner.supernet.logits)
        for part in split(next(batches), groups):
            for _ in range(samples):
                sample = learner.draw()
                decisions, result = learner.decision_gradient(part, sample)
                (gradient,) = torch.autograd.grad(
                    sample.weights, learner.supernet.logits, decisions
                )
                total += gradient / (groups * samples)
                losses.append(float(result.loss))
        found.append(total)
    return torch.stack(found).double(), sum(losses) / len(losses)


def compare(found: dict[tuple[int, int], tuple[Tensor, float]], batch_size: int) -> list[Row]:
    """Figures of each setting (groups, samples) against those of one architecture a batch."""
    single = found[1, 1][0]
    rows: list[Row] = []
    for (groups, samples), (estimates, loss) in found.items():
        row: Row = {"groups": groups, "images a group": batch_size // groups, "samples": samples}
        about = figures(estimates, single, NONE)
        row["variance / one group"] = float(estimates.var(0).sum() / single.var(0).sum())
        rows.append({**row, "cosine": about["cosine"], "noise": about["noise"], "loss": loss})
    return rows


def time_steps(
    learner: Learner,
    train: Iterator[Batch],
    validation: Iterator[Batch],
    settings: list[tuple[int, int]],
    rounds: int,
) -> Stopwatch:
    """Times both steps of each setting in turn, drawing included."""
    watch = Stopwatch(learner.supernet.device)
    steps = {
        (groups, samples): Alternating(learner, groups=groups, logits_samples=samples)
        for groups, samples in settings
    }
    for number in range(rounds):
        batch, other = next(train), next(validation)
        for setting, alternating in steps.items():
            for _ in range(REPETITIONS):
                update = partial(learner.update_weights, batch, setting[0])
                watch.time(f"weight step {setting}", number, update)
                logits = partial(alternating.update_logits, batch, other)
                watch.time(f"logits step {setting}", number, logits)
    return watch


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--groups", nargs="+", type=int, default=[2, 4, 8], help="default 2 4 8")
    add("--steps", type=int, default=300, help="training before (default 300)")
    add("--updates", type=int, default=600, help="gradients of each (default 600)")
    add("--rounds", type=int, default=40, help="of timing (default 40)")
    add_supernet_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
