"""Training-free scores against direct formulas."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas.deriving.scores import SCORES, TrainingFree, check_score
from nas.errors import UserError
from nas.genotype import Genotype
from nas.genotype.text import parse_nasbench201
from nas.spaces import DARTS, MobileNet, NASBench201, ViT

SPACE = NASBench201(in_channels=3, num_classes=10, channels=4, cells_per_stage=1)


def batch(num: int = 6, size: int = 8) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return torch.randn(num, 3, size, size, generator=source), torch.arange(num)


def cell(operation: str) -> Genotype:
    o = operation
    return parse_nasbench201(f"|{o}~0|+|{o}~0|{o}~1|+|{o}~0|{o}~1|{o}~2|")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 5, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 2),
    )


def test_sizes() -> None:
    model, (images, labels) = network(), batch()
    assert SCORES.get("parameters")(model, (images, labels)) == 108 + 8 + 25 + 12
    assert SCORES.get("multiply_adds")(model, (images, labels)) == 64 * (108 + 20) + 10


def test_naswot_counts_relus_that_agree() -> None:
    model, (images, labels) = network(), batch()
    with torch.no_grad():
        first = model[:3](images)
        second = model[3:5](first)
    codes = torch.cat([(first > 0).flatten(1), (second > 0).flatten(1)], 1)
    agree = torch.tensor([[int((a == b).sum()) for a in codes] for b in codes]).double()
    expected = torch.linalg.slogdet(agree)[1].item()
    assert SCORES.get("naswot")(model, (images, labels)) == pytest.approx(expected)
    assert not any(module._forward_hooks for module in model.modules())


def test_naswot_of_images_that_look_the_same() -> None:
    images, labels = batch()
    images[1] = images[0]
    assert SCORES.get("naswot")(network(), (images, labels)) == -math.inf


def test_synflow_against_its_closed_form() -> None:
    """Of a chain of layers with positive weights every layer's flow is the sum of the outputs."""
    model, (images, labels) = network(), batch()
    model[3].bias.data.zero_()
    model[7].bias.data.zero_()
    weights = [p.detach().abs().double() for p in model.parameters() if p.dim() > 1]
    x = nn.functional.conv2d(torch.ones(1, 3, 8, 8).double(), weights[0], padding=1)
    x = nn.functional.conv2d(x, weights[1]).mean((2, 3))
    expected = math.log(3 * float((x @ weights[2].T).sum()))
    assert SCORES.get("synflow")(model, (images, labels)) == pytest.approx(expected)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(2), nn.GroupNorm(2, 2)])
def test_synflow_sees_past_the_norm_of_a_single_pixel(norm: nn.Module) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 2, 8, bias=False)
    expected = math.log(float(convolution.weight.detach().abs().double().sum()))
    model = nn.Sequential(convolution, norm).train()
    assert SCORES.get("synflow")(model, batch()) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(SCORES))
def test_scores_of_genotypes(name: str) -> None:
    """Finite and repeatable, leaves the generator alone, and larger cells score higher."""
    scorer, state = TrainingFree(SPACE, batch(), seed=3), torch.get_rng_state()
    values = [scorer(name, cell(o)) for o in ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")]
    assert torch.equal(state, torch.get_rng_state())
    assert values == [
        scorer(name, cell(o)) for o in ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    ]
    assert all(map(math.isfinite, values)) and values[0] < values[2]


def test_scores_of_the_darts_space() -> None:
    space = DARTS(in_channels=3, num_classes=10, channels=4, cells=3, nodes=2)
    scores = {f"{c}/{s}->{t}": torch.arange(8.0) for c in ("normal", "reduce") for t in (2, 3)
              for s in range(t)}  # fmt: skip
    scorer = TrainingFree(space, batch(), seed=0)
    assert all(math.isfinite(scorer(name, space.derive(scores))) for name in SCORES)


MOBILENET = MobileNet(
    in_channels=3,
    num_classes=10,
    stem_channels=8,
    stem_stride=1,
    channels=(8, 16),
    layers=(2, 2),
    strides=(1, 2),
    head_channels=16,
)
VIT = ViT(in_channels=3, num_classes=10, head_dim=4, embeddings=(8, 16), depths=(1, 2))


@pytest.mark.parametrize(
    ("space", "name"), [(MOBILENET, "naswot"), (MOBILENET, "synflow"), (VIT, "synflow")]
)
def test_scores_tell_networks_of_other_activations_and_norms_apart(
    space: MobileNet | ViT, name: str
) -> None:
    scorer, rows = TrainingFree(space, batch(), seed=0), space._options.items()
    small = space.derive({n: torch.arange(len(row)).flip(0).float() for n, row in rows})
    large = replace(small, choices={**small.choices, **{n: row[-1] for n, row in rows}})
    if space is MOBILENET:  # the last option skips the layer
        small, large = large, replace(small, choices={n: "k7_e6" for n, _ in rows})
    assert all(map(math.isfinite, (scorer(name, small), scorer(name, large))))
    assert scorer(name, small) < scorer(name, large)


@pytest.mark.parametrize("inplace", [False, True])
def test_synflow_does_not_cut_relu6_off(inplace: bool) -> None:
    model, data = network(), batch()
    expected = SCORES.get("synflow")(network(), data)
    model[2], model[4] = nn.ReLU6(inplace), nn.ReLU6(inplace)
    with torch.no_grad():  # far beyond 6
        model[0].weight.mul_(1e3)
    # Every layer's flow is linear in the first weights but for the biases, which are small.
    found = SCORES.get("synflow")(model, data)
    assert found == pytest.approx(expected + math.log(1e3), abs=0.5)


def test_naswot_without_a_relu_is_refused() -> None:
    with pytest.raises(UserError, match=r"derive.judges: naswot sees what layers of nn.ReLU"):
        check_score("naswot", VIT.build_supernet(), "derive.judges")
    for space in (SPACE, MOBILENET):
        check_score("naswot", space.build_supernet(), "derive.judges")
    check_score("synflow", VIT.build_supernet(), "derive.judges")


def test_an_unknown_score() -> None:
    with pytest.raises(UserError, match="did you mean 'naswot'"):
        TrainingFree(SPACE, batch(), 0)("naswort", cell("none"))
