"""A learner of two searched layers, small enough to be held against definitions."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nas.choice import Choice
from nas.optimisation.bilevel import Batch, Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Supernet


class Toy(nn.Module):
    """Two searched layers between two fixed ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 5)
        self.first = Choice({str(k): nn.Linear(5, 5) for k in range(3)}, "first")
        self.second = Choice({str(k): nn.Linear(5, 5) for k in range(2)}, "second")
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.stem, self.first, self.second):
            x = layer(x).tanh()
        out: Tensor = self.head(x)
        return out


def batch(seed: int) -> Batch:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, generator=source), torch.randint(3, (6,), generator=source)


def batches(first: int = 100) -> Iterator[Batch]:
    """Validation batches, each different."""
    seed = first
    while True:
        yield batch(seed)
        seed += 1


def make_learner(
    sampler: str = "gdas", logits: OptimizerSettings | None = None, **options: object
) -> Learner:
    supernet = Supernet(Toy(), torch.Generator().manual_seed(0), init_scale=0.5)
    weights = OptimizerSettings(**{"learning_rate": 0.1, "momentum": 0.0, **options})
    source = torch.Generator().manual_seed(1)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), source),
        Updater(supernet.model.parameters(), weights),
        Updater([supernet.logits], logits or OptimizerSettings(learning_rate=0.1, momentum=0.0)),
    )


def logits_of(learner: Learner) -> Tensor:
    return learner.supernet.logits.detach().clone()


def nothing() -> Iterator[Batch]:
    """A source of validation batches that must not be asked."""
    raise AssertionError("a validation batch was taken")
    yield batch(0)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    named = learner.supernet.model.named_parameters()
    return {name: p.detach().clone() for name, p in named}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)
