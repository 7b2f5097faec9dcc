"""A user's own model as a search space."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_models import SmallNet

from nas.cost.costs import CostModel, parameters
from nas.cost.coverage import Draw
from nas.deriving.deriver import derive_argmax, draw_genotype
from nas.errors import UserError
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.network import build_network, network_cost
from nas.optimisation.bilevel import Alternating, Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import Custom
from nas.supernet import Supernet

SPACE = Custom(1, 5, "toy_models.SmallNet")
BEST = {"width": "4", "kernel": "1", "act": "Tanh", "depth": "2", "take": "blocks", "ratio": "3"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(best: Mapping[str, str]) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor([float(o == option) for o in SPACE.options_of(name)])
        for name, option in best.items()
    }


def test_the_model_gets_what_it_takes() -> None:
    model = Custom(3, 7, "toy_models.SmallNet", {"depth": 3}).build_supernet()
    assert isinstance(model, SmallNet) and len(model.blocks.blocks) == 3
    assert model.head.out_features == 7 and model.stem.conv.in_channels == 3


def test_genotypes_are_the_best_options_and_their_neighbours() -> None:
    genotype = SPACE.derive(scores(BEST))
    assert genotype == Genotype("custom", (), BEST)
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert genotype_text(genotype).startswith("width=4, kernel=1, act=Tanh")
    neighbours = list(SPACE.neighbours(genotype))
    assert len(neighbours) == 6
    for other in neighbours:
        assert len(set(other.choices.items()) - set(BEST.items())) == 1
    found = derive_argmax(SPACE, {name: row.softmax(0) for name, row in scores(BEST).items()})
    assert found.confidence["width"].margin > 0


def test_a_model_may_read_numbers_from_tensors_while_it_is_made() -> None:
    space = Custom(1, 5, "toy_models.ReadsNumbers")
    before = torch.get_rng_state()
    genotype = space.derive({"conv": torch.tensor([0.0, 1.0]), "drop": torch.tensor([1.0, 0.0])})
    assert genotype.choices == {"conv": "1x1", "drop": "0.0"}
    assert set(Draw(space, 0)().choices) == {"conv", "drop"}
    assert CostModel(space.build_network, parameters, 1, 8)(genotype) == (4 + 4) + 5 * (4 + 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawn_genotypes_have_the_frequencies_of_their_options() -> None:
    probabilities = {
        name: torch.linspace(1, 2, len(SPACE.options_of(name))) / 1.5 / len(SPACE.options_of(name))
        for name in BEST
    }
    source, num = generator(), 3000
    drawn = [draw_genotype(SPACE, probabilities, source).choices for _ in range(num)]
    for name, row in probabilities.items():
        for option, p in zip(SPACE.options_of(name), row.tolist(), strict=True):
            share = sum(choices[name] == option for choices in drawn) / num
            assert abs(share - p) < 4 * (p * (1 - p) / num) ** 0.5


def test_a_network_is_built_from_the_name_that_the_user_gives() -> None:
    genotype = Genotype("custom", (), BEST)
    sizes: dict[str, Any] = {"model": "toy_models.SmallNet", "arguments": {"depth": 2}}
    network = build_network(genotype, sizes, in_channels=1, num_classes=5)
    # 1x1 convolution to 4 channels, two depthwise 3x3, 4 -> 12, norm of 12, 12 -> 5
    norms = 3 * 2 * 4 + 2 * 12
    expected = 4 + 2 * 4 * 9 + (4 + 1) * 12 + (12 + 1) * 5 + norms
    assert network_cost(network, 1, 8).num_parameters == expected
    with pytest.raises(UserError, match=r"network\.model=my_package\.MyNet"):
        build_network(genotype, {}, in_channels=1, num_classes=5)
    with pytest.raises(UserError, match="has no such size"):
        build_network(genotype, {"cells": 3}, in_channels=1, num_classes=5)
    with pytest.raises(UserError, match="no such head"):
        build_network(genotype, sizes, in_channels=1, num_classes=5, auxiliary=True)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_sampler_trains_weights_and_logits(sampler: str) -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPACE.build_supernet(), generator())
    source = SampleSource(supernet, SAMPLERS.get(sampler), generator())
    learner = Learner(
        supernet,
        source,
        Updater(supernet.model.parameters(), OptimizerSettings(learning_rate=0.1)),
        Updater([supernet.logits], OptimizerSettings(name="adam", learning_rate=0.1)),
    )
    images = torch.randn(8, 1, 8, 8, generator=generator())
    batch = images, torch.randint(5, (8,), generator=generator())
    logits = supernet.logits.detach().clone()
    weights = [p.detach().clone() for p in supernet.model.parameters()]
    learns = source.sampler.learns
    steps = Alternating(learner, logits_samples=source.sampler.samples_an_update)
    for _ in range(3):
        steps.step(0, batch, iter([batch]), learn_logits=learns)
    assert torch.equal(supernet.logits[supernet.masked], logits[supernet.masked])
    assert learns == bool((supernet.logits != logits).any())
    moved = [
        not torch.equal(p, w) for p, w in zip(supernet.model.parameters(), weights, strict=True)
    ]
    assert sum(moved) > len(moved) / 2


def test_a_mixture_with_all_weight_on_one_option_is_that_option() -> None:
    torch.manual_seed(0)
    supernet = Supernet(SPACE.build_supernet(), generator())
    images = torch.randn(4, 1, 8, 8)
    for best in (BEST, {name: SPACE.options_of(name)[0] for name in BEST}):
        sample = supernet.fixed(best)
        expected = supernet.forward(images, sample)
        mixed = supernet.mixture(images, sample.weights)
        torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ("MyNet", {}, r"space.model is 'MyNet': must be like my_package.MyNet"),
        ("my package.Net", {}, "must be like my_package.MyNet"),
        ("my_packge.Net", {}, "no module 'my_packge' in .* or among the installed packages"),
        ("toy_models.SmalNet", {}, r"unknown class or function .* did you mean 'SmallNet'\?"),
        ("toy_models.not_a_model", {}, "makes an object of type int: it must make"),
        ("toy_models.SmallNet", {"dept": 3}, r"argument of toy_models.SmallNet 'dept' .*'depth'"),
        ("toy_models.SmallNet", {"depth": "x"}, "cannot be built"),
        ("toy_models.TwoMeanings", {}, r"'act' differ in their options: \['x', 'y'\] and"),
        ("toy_models.NoChoice", {}, "has no choice in it"),
    ],
)
def test_models_that_cannot_be_searched(
    model: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Supernet(Custom(1, 5, model, arguments).build_supernet(), generator())


def test_a_model_that_needs_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_model.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="needy_model needs the module 'not_installed_anywhere'"):
        Custom(1, 5, "needy_model.Net").build_supernet()
