"""The warm start of the logits against scores whose effects are known."""

import pytest
import torch
from torch import nn

from nas.choice import Choice
from nas.deriving.warm_start import main_effects, warm_start
from nas.genotype import Genotype
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Sample, Supernet

SIZES = (3, 4)


def make_source(seed: int = 0) -> SampleSource:
    choices = [
        Choice({f"o{k}": nn.Identity() for k in range(size)}, f"c{i}")
        for i, size in enumerate(SIZES)
    ]
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(nn.Sequential(*choices), generator)
    return SampleSource(supernet, SAMPLERS.get("gdas"), generator)


def genotype_of(sample: Sample) -> Genotype:
    assert sample.indices is not None
    return Genotype("toy", (), {f"c{i}": f"o{k}" for i, k in enumerate(sample.indices)})


def sample(*indices: int) -> Sample:
    return Sample(torch.zeros(2, 4), indices)


def test_main_effects_are_means_of_normal_scores() -> None:
    samples = [sample(0, 0), sample(1, 0), sample(1, 3)]
    found = main_effects(samples, [1e9, -5.0, 0.0], torch.Size((2, 4)))
    top = 0.6744897501960817  # quantile of 3/4: ranks 3, 1 and 2 of 3
    expected = torch.tensor([[top, -top / 2, 0, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(found, expected)


def test_sampling_moves_the_mean_by_so_many_deviations() -> None:
    """A score that is a sum over many choices of options is normal, and tilting is exact."""
    torch.manual_seed(1)
    choices = [Choice({f"o{k}": nn.Identity() for k in range(5)}, f"c{i}") for i in range(24)]
    generator = torch.Generator().manual_seed(0)
    supernet = Supernet(nn.Sequential(*choices), generator)
    source = SampleSource(supernet, SAMPLERS.get("gdas"), generator)
    effects = torch.randn(24, 5)

    def value(drawn: Sample) -> float:
        assert drawn.indices is not None
        return float(effects[torch.arange(24), list(drawn.indices)].sum())

    def score(genotype: Genotype) -> float:
        rows = [int(option[1:]) for option in genotype.choices.values()]
        return float(effects[torch.arange(24), rows].sum())

    uniform = torch.tensor([value(s) for _ in range(400) for s in source.fair()])
    warm_start(supernet, source.fair, score, genotype_of, num_samples=4000, strength=1.5)
    warm = torch.tensor([value(source()) for _ in range(2000)])
    moved = (warm.mean() - uniform.mean()) / effects.var(1, unbiased=False).sum().sqrt()
    assert moved.item() == pytest.approx(1.5, abs=0.2)


def test_all_options_are_scored_and_a_filled_up_row_stays_hidden() -> None:
    source, seen = make_source(), []

    def score(genotype: Genotype) -> float:
        seen.append(tuple(genotype.choices.values()))
        return float(genotype.choices["c1"] == "o2")

    calls: list[None] = []
    before = source.supernet.logits.detach().clone()
    warm_start(
        source.supernet,
        source.fair,
        score,
        genotype_of,
        num_samples=10,
        strength=2.0,
        on_sample=lambda: calls.append(None),
    )
    assert len(seen) == len(calls) == 12, "whole rounds of four"
    assert all(sum(c1 == f"o{k}" for _, c1 in seen) == 3 for k in range(4))
    assert source.supernet.probabilities()["c1"].argmax() == 2
    assert source.supernet.logits.requires_grad and not torch.equal(before, source.supernet.logits)
    assert source.supernet.masked_logits()[0, 3] == -torch.inf
