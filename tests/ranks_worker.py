"""What the processes of `test_distributed.py` do: `torchrun ... ranks_worker.py FOLDER`.

Each leaves what it has found in FOLDER/<rank>.pt. Alone, the same functions give the reference.
"""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.choice import Choice
from nas.distributed import Ranks
from nas.optimisation.bilevel import (
    Alternating,
    Batch,
    Learner,
    SingleLevel,
    first_order_gradient,
    score_function_gradient,
)
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.baseline import RunningMean
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Supernet
from nas.sync_norm import synchronise_batch_norm

BATCH, STEPS = 16, 5
CASES = {
    "gdas": {"sampler": "gdas"},
    "groups": {"sampler": "gdas", "groups": 4, "baseline": True},
    "score function": {"sampler": "score_function", "samples": 3},
    "all paths": {"sampler": "softmax"},
    "second order": {"sampler": "softmax", "second_order": True},
    "single level": {"sampler": "gdas", "single_level": True},
    "fair": {"sampler": "gdas", "fair": True},
    "batch norm": {"sampler": "gdas", "norm": True},
}
"""Searches that any number of ranks must do alike."""


class Toy(nn.Module):
    """Two searched layers between two fixed ones."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.first = Choice({str(k): nn.Conv2d(4, 4, 1) for k in range(3)}, "first")
        self.second = Choice({str(k): nn.Conv2d(4, 4, 1) for k in range(2)}, "second")
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).tanh()
        x = self.second(self.first(x).tanh()).tanh()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def batches(ranks: Ranks, seed: int) -> Iterator[Batch]:
    """This rank's part of batches that are the same for any number of ranks."""
    source = torch.Generator().manual_seed(seed)
    count = BATCH // ranks.size
    rows = slice(ranks.rank * count, (ranks.rank + 1) * count)
    while True:
        images = torch.randn(BATCH, 2, 5, 5, generator=source)
        yield images[rows], torch.randint(3, (BATCH,), generator=source)[rows]


def trained(
    ranks: Ranks,
    sampler: str,
    *,
    groups: int = 1,
    samples: int = 1,
    baseline: bool = False,
    second_order: bool = False,
    single_level: bool = False,
    fair: bool = False,
    norm: bool = False,
) -> dict[str, Any]:
    """Weights, buffers, logits and samples after some steps."""
    generator = torch.Generator().manual_seed(1)
    device = torch.device("cpu")
    supernet = Supernet(synchronise_batch_norm(Toy(norm), ranks, device), generator, 0.1)
    source = SampleSource(supernet, SAMPLERS.get(sampler), generator)
    settings = OptimizerSettings(learning_rate=0.2, momentum=0.5)
    learner = Learner(
        supernet,
        source,
        Updater(supernet.model.parameters(), settings),
        Updater([supernet.logits], settings),
        draw_for_weights=source.fair if fair else None,
        baseline=RunningMean(source) if baseline else None,
        ranks=ranks,
    )
    from_losses = SAMPLERS.get(sampler).learns_from_losses
    gradient = score_function_gradient if from_losses else first_order_gradient
    bilevel = (
        SingleLevel(learner)
        if single_level
        else Alternating(
            learner,
            SecondOrder() if second_order else gradient,
            groups=groups,
            logits_samples=samples,
        )
    )
    train, validation = batches(ranks, 2), batches(ranks, 3)
    drawn, losses = [], []
    for step in range(STEPS):
        result = bilevel.step(step, next(train), validation)
        drawn += [sample.weights.detach() for sample in result.samples]
        losses.append(sum(float(part.loss) for part in result.weights) / len(result.weights))
    return {
        "model": copy.deepcopy(supernet.model.state_dict()),
        "logits": supernet.logits.detach().clone(),
        "samples": torch.stack(drawn),
        "losses": losses,
        "draw": torch.rand(1, generator=generator),
    }


def averaged(ranks: Ranks) -> list[Tensor | None]:
    """Gradients where all, some, one and none of the ranks have one, and one that is frozen."""
    parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(5)]
    parameters[4].requires_grad_(False)
    present = [True, ranks.rank % 2 == 0, ranks.rank == 1, False]
    for number, (parameter, has) in enumerate(zip(parameters, present, strict=False)):
        if has:
            parameter.grad = torch.full((2, 3), float(10 * number + ranks.rank))
    ranks.average_gradients(parameters)
    return [parameter.grad for parameter in parameters]


def exchanged(ranks: Ranks) -> dict[str, Any]:
    """What the other methods hand out."""
    mine = torch.tensor([1.0, 2.0]) * (ranks.rank + 1)
    buffers = nn.BatchNorm2d(3)
    assert buffers.running_mean is not None
    buffers.running_mean += ranks.rank
    copied = torch.full((2, 3, 4, 5), float(ranks.rank)).contiguous(
        memory_format=torch.channels_last
    )
    ranks.copy_first([copied])
    ranks.average_buffers([buffers])
    return {
        "shared": ranks.combined([mine, -mine], shared=True),
        "own": ranks.combined([mine, -mine], shared=False),
        "sums": ranks.sums(ranks.rank + 0.1, 1.0),
        "mean": ranks.mean(float(ranks.rank)),
        "largest": ranks.largest(10 - ranks.rank),
        "gathered": ranks.gathered(f"rank {ranks.rank}"),
        "groups": list(ranks.own(list(range(8)))),
        "one group": list(ranks.own(["all"])),
        "copied": copied,
        "buffers": buffers.state_dict(),
    }


def normalised(ranks: Ranks) -> dict[str, Tensor]:
    """This rank's part of outputs and of first and second derivatives of a batch norm."""
    torch.manual_seed(4)
    images = torch.randn(8, 3, 4, 4, dtype=torch.float64) * 3 + 100
    model = nn.Sequential(nn.BatchNorm2d(3)).double()
    nn.init.normal_(model[0].weight)
    nn.init.normal_(model[0].bias)
    weights = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    norm = synchronise_batch_norm(model, ranks, torch.device("cpu"))
    count = len(images) // ranks.size
    rows = slice(ranks.rank * count, (ranks.rank + 1) * count)
    part = images[rows].requires_grad_()
    outputs = norm(part)
    loss = (outputs.sin() * weights[rows]).sum()
    (first,) = torch.autograd.grad(loss, part, create_graph=True)
    second, *_ = torch.autograd.grad((first * weights[rows].cos()).sum(), part)
    return {
        "outputs": outputs.detach(),
        "first": first.detach(),
        "second": second,
        **{f"buffer {name}": buffer for name, buffer in norm.named_buffers()},
        "evaluated": norm.eval()(part).detach(),
    }


def main() -> None:
    torch.set_num_threads(1)
    ranks = Ranks.join()
    found: dict[str, Any] = {name: trained(ranks, **case) for name, case in CASES.items()}
    found |= {"averaged": averaged(ranks), "exchanged": exchanged(ranks)}
    found["normalised"] = normalised(ranks)
    rank, size = ranks.rank, ranks.size
    found["left"] = [ranks.leave(), ranks.rank, ranks.size, ranks.mean(5.0)]
    torch.save(found | {"size": size}, Path(sys.argv[1]) / f"{rank}.pt")


if __name__ == "__main__":
    main()
