"""The macro spaces: sizes in closed form, and what every search needs of them."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

import nas
from nas.choice import Decision, decisions
from nas.deriving.deriver import draw_genotype
from nas.errors import UserError
from nas.genotype import Genotype
from nas.network import DropPath, build_network, network_cost
from nas.spaces import MobileNet, ModelSpace, ViT
from nas.spaces.vit import Attention
from nas.supernet import Supernet

MOBILE = MobileNet(
    in_channels=3,
    num_classes=5,
    stem_channels=8,
    channels=(8, 16),
    layers=(2, 3),
    strides=(1, 2),
    stem_stride=1,
    head_channels=24,
)
VIT = ViT(
    in_channels=3,
    num_classes=5,
    patch_size=4,
    head_dim=4,
    embeddings=(16, 8),
    depths=(2, 1, 3),
    heads=(1, 3),
    mlp_ratios=(0.5, 2),
)
SPACES: dict[str, ModelSpace] = {"mobilenet": MOBILE, "vit": VIT}
EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_genotypes(space: ModelSpace, count: int) -> list[Genotype]:
    found = decisions(space.build_supernet())
    uniform = {name: torch.ones(len(m[0].options)).softmax(0) for name, m in found.items()}
    source = generator(1)
    return [draw_genotype(space, uniform, source) for _ in range(count)]


@EVERY_SPACE
def test_plain_networks_have_the_outputs_of_the_supernet(space: ModelSpace) -> None:
    torch.manual_seed(0)
    model = space.build_supernet().double()
    supernet = Supernet(model, generator())
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for _ in range(2):
        model(images)
    model.eval()
    for genotype in random_genotypes(space, 12):
        sample = supernet.fixed(genotype.choices)
        expected = supernet.forward(images, sample)
        assert expected.shape == (2, 5)
        plain = nas.derive(model, genotype)
        assert not any(isinstance(module, Decision) for module in plain.modules())
        torch.testing.assert_close(plain(images), expected)
        mixed = supernet.mixture(images, sample.weights.double())
        torch.testing.assert_close(mixed, expected)


@EVERY_SPACE
def test_a_genotype_is_all_that_a_retraining_needs(space: ModelSpace) -> None:
    genotype = random_genotypes(space, 1)[0]
    read = Genotype.from_json(genotype.to_json())
    assert read.sizes == genotype.sizes == space.sizes()
    network = build_network(read, {}, in_channels=3, num_classes=5)
    expected = nas.derive(space.build_supernet(), genotype)
    shapes = [[tuple(p.shape) for p in model.parameters()] for model in (network, expected)]
    assert shapes[0] == shapes[1]
    network(torch.zeros(2, 3, 16, 16)).sum().backward()
    text = genotype.to_json().replace('"sizes": {', '"sizes": {"colour": 3,')
    with pytest.raises(UserError, match=r"sizes that \w+ has not: .*colour"):
        build_network(Genotype.from_json(text), {}, in_channels=3, num_classes=5)
    with pytest.raises(UserError, match="expected a number or a list of numbers"):
        Genotype.from_json(genotype.to_json().replace('"sizes": {', '"sizes": {"model": "os.x",'))


@EVERY_SPACE
def test_drop_path_cuts_what_has_a_way_past_it(space: ModelSpace) -> None:
    network = space.build_network(random_genotypes(space, 3)[2]).eval()
    images = torch.randn(32, 3, 16, 16)
    drop_path = DropPath(network)
    plain = network(images)
    drop_path.set_probability(0.5)
    torch.testing.assert_close(network(images), plain)
    kinds = {type(m) for m in network.modules() if m._forward_hooks}
    assert kinds and kinds <= {nn.Sequential, Attention}
    for module in network.modules():  # batch norm would change the outputs in training, too
        if not isinstance(module, nn.BatchNorm2d):
            module.training = True
    dropped = network(images)
    assert torch.isfinite(dropped).all() and not torch.allclose(dropped, plain)


# MobileNet


def block_parameters(before: int, after: int, kernel: int, expansion: int) -> int:
    hidden = expansion * before
    expand = before * hidden + 2 * hidden if expansion > 1 else 0
    return expand + kernel * kernel * hidden + 2 * hidden + hidden * after + 2 * after


def block_multiply_adds(
    before: int, after: int, kernel: int, expansion: int, pixels: int, stride: int
) -> int:
    hidden, left = expansion * before, pixels // stride**2
    expand = before * hidden * pixels if expansion > 1 else 0
    return expand + kernel * kernel * hidden * left + hidden * after * left


def test_mobilenet_v2_is_in_the_space() -> None:
    """Layers of MobileNetV2 1.0 (arXiv:1801.04381, table 2): 3.5 M parameters, 300 M multiply-adds.

    Its stages have 1, 2, 3, 4, 3, 3 and 1 layers; the first is the fixed block.
    """
    space = MobileNet(
        in_channels=3,
        num_classes=1000,
        layers=(2, 3, 4, 3, 3, 1),
        strides=(2, 2, 2, 1, 2, 1),
    )
    names = decisions(space.build_supernet())
    choices = dict.fromkeys(names, "k3_e6")
    cost = network_cost(nas.derive(space.build_supernet(), choices), 3, 224)
    assert cost.num_parameters == 3_504_872  # that of torchvision's mobilenet_v2
    assert cost.multiply_adds == pytest.approx(300.8e6, rel=1e-3)


def test_costs_add_up_over_the_layers() -> None:
    for genotype in random_genotypes(MOBILE, 10):
        cost = network_cost(MOBILE.build_network(genotype), 3, 16)
        fixed = 3 * 9 * 8 + 16, 3 * 9 * 8 * 256
        parameters = fixed[0] + block_parameters(8, 4, 3, 1) + 16 * 24 + 48 + 25 * 5
        operations = fixed[1] + block_multiply_adds(8, 4, 3, 1, 256, 1) + 16 * 24 * 64 + 24 * 5
        before, pixels = 4, 256
        for name, option in genotype.choices.items():
            after, stride = (8, 1) if name.startswith("stage1") else (16, 1)
            if name == "stage2/layer1":
                stride = 2
            if option != "skip":
                kernel, expansion = (int(part[1:]) for part in option.split("_"))
                parameters += block_parameters(before, after, kernel, expansion)
                operations += block_multiply_adds(before, after, kernel, expansion, pixels, stride)
            before, pixels = after, pixels // stride**2
        assert (cost.num_parameters, cost.multiply_adds) == (parameters, operations)


def test_layers_can_be_left_out_where_shapes_stay() -> None:
    found = decisions(MOBILE.build_supernet())
    assert list(found) == [
        *("stage1/layer1", "stage1/layer2", "stage2/layer1", "stage2/layer2", "stage2/layer3"),
    ]
    assert [("skip" in modules[0].options) for modules in found.values()] == [
        *(False, True, False, True, True),
    ]
    assert found["stage1/layer1"][0].options == tuple(
        f"k{k}_e{e}" for k, e in product((3, 5, 7), (3, 6))
    )


@pytest.mark.parametrize(("width", "stem"), [(0.5, 16), (0.75, 24), (1.4, 48), (0.1, 8)])
def test_widths_are_multiples_of_eight(width: float, stem: int) -> None:
    model = replace(MOBILE, width=width, stem_channels=32).build_supernet()
    channels = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert channels[0] == stem and all(c % 8 == 0 for c in channels)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="one number a stage, got 2, 3 and 2"):
        replace(MOBILE, layers=(1, 1, 1))
    with pytest.raises(UserError, match=r"kernels is \[3, 4\]: must be odd"):
        replace(MOBILE, kernels=(3, 4))
    ViT(in_channels=1, num_classes=2, embeddings=(90,), mlp_ratios=(0.7,))  # 62.99999999999999
    with pytest.raises(UserError, match=r"0\.3 times an embedding of 16 is not a whole number"):
        replace(VIT, mlp_ratios=(0.3,))


# Transformers


def test_parameters_and_multiply_adds_of_transformers() -> None:
    for genotype in random_genotypes(VIT, 10):
        chosen = genotype.choices
        e, tokens = int(chosen["embedding"]), 16
        parameters = (3 * 16 + 1) * e + (9 + 1) * e + 2 * e + (e + 1) * 5
        operations = tokens * (3 * 16 * e + 9 * e) + e * 5
        for number in range(1, int(chosen["depth"]) + 1):
            inner = 4 * int(chosen[f"layer{number}/heads"])
            hidden = int(float(chosen[f"layer{number}/mlp_ratio"]) * e)
            linear = 3 * e * inner + inner * e + 2 * e * hidden
            parameters += linear + 3 * inner + e + hidden + e + 4 * e
            operations += tokens * linear + 2 * tokens * tokens * inner
        cost = network_cost(VIT.build_network(genotype), 3, 16)
        assert (cost.num_parameters, cost.multiply_adds) == (parameters, operations)


def test_images_may_have_any_size() -> None:
    network = VIT.build_network(random_genotypes(VIT, 1)[0]).eval()
    for size in (8, 16, 24):
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 5)
