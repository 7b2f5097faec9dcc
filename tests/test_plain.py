"""The plain model of a genotype: outputs, weights, nothing left of the search."""

import copy
import io
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from toy_models import Shared, SmallNet

import nas
from nas import elastic
from nas.choice import Choice, Decision, InputChoice, Repeat, Take, decisions
from nas.errors import UserError
from nas.plain import decide, reached
from nas.supernet import Supernet
from nas.values import FixedValue, ValueChoice

MODELS: dict[str, Callable[[], nn.Module]] = {
    "small": lambda: SmallNet(5),
    "shared": lambda: Shared(5),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().double()


def images(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 1, 8, 8, generator=generator, dtype=torch.float64)


def genotypes(model: nn.Module) -> list[dict[str, str]]:
    found = decisions(model)
    rows = product(*(modules[0].options for modules in found.values()))
    return [dict(zip(found, row, strict=True)) for row in rows]


@pytest.mark.parametrize("training", [True, False])
@EVERY_MODEL
def test_the_plain_model_has_the_outputs_of_the_supernet(name: str, training: bool) -> None:
    model = build(name)
    supernet = Supernet(model, torch.Generator().manual_seed(0))
    for _ in range(3):  # running statistics that are not those at the start
        model(images(7))
    for genotype in genotypes(model):
        model.train(training)
        plain = nas.derive(model, genotype)
        assert plain.training == training
        kept = copy.deepcopy(model.state_dict())
        expected = supernet.forward(images(), supernet.fixed(genotype))
        model.load_state_dict(kept)
        torch.testing.assert_close(plain(images()), expected)


@EVERY_MODEL
def test_nothing_of_the_search_is_left(name: str) -> None:
    model = build(name)
    every = genotypes(model)
    exported = every[::5] if len(every) > 10 else every  # an export takes half a second
    for choice in every[0]:
        assert {genotype[choice] for genotype in exported} == {
            genotype[choice] for genotype in every
        }
    for genotype in every:
        plain = nas.derive(model, genotype)
        for module in plain.modules():
            assert not isinstance(module, Decision)
            assert not module.__module__.startswith("nas.") or isinstance(module, Take | FixedValue)
            assert not any("nas.values.Value'" in str(type(v)) for v in vars(module).values())
        file = io.BytesIO()
        torch.save(plain.state_dict(), file)
        if genotype in exported:
            torch.export.export(plain.eval(), (images(),))


def test_the_model_is_left_as_it_is() -> None:
    model = build("small")
    before = copy.deepcopy(model.state_dict())
    genotype = genotypes(model)[-1]
    plain = nas.derive(model, genotype)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(isinstance(module, Decision) for module in model.modules())


def test_a_module_that_is_used_twice_stays_one() -> None:
    model = build("shared")
    plain = nas.derive(model, {"first": "deep", "inner": "a"})
    assert plain.first[0] is plain.second
    assert sum(p.numel() for p in plain.parameters()) == 4 * 4 + 4 + 4 * 5 + 5


def test_a_module_with_two_names_is_derived_under_both() -> None:
    act = Choice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, "act")
    model = nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act)
    plain = nas.derive(model, {"act": "tanh"})
    assert not any(isinstance(module, Decision) for module in plain.modules())
    assert isinstance(plain, nn.Sequential) and plain[1] is plain[3]
    decide(model, {"act": "tanh"})
    x = torch.randn(2, 3)
    assert torch.equal(plain(x), model(x))


def test_without_inheritance_sizes_start_anew() -> None:
    model = build("small")
    genotype = {name: modules[0].options[-1] for name, modules in decisions(model).items()}
    inherited = nas.derive(model, genotype)
    fresh = nas.derive(model, genotype, inherit=False)
    assert fresh.state_dict().keys() == inherited.state_dict().keys()
    weights = [m.head.weight for m in (inherited, fresh)]
    assert weights[0].shape == weights[1].shape and not torch.equal(*weights)
    assert torch.equal(weights[0], model.head.weight[:, : weights[0].shape[1]])


def test_a_model_runs_before_anything_is_decided() -> None:
    model = build("small")
    first = {name: modules[0].options[0] for name, modules in decisions(model).items()}
    torch.testing.assert_close(model(images()), nas.derive(build("small"), first)(images()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": "3"}, "unknown option of choice 'depth' '3': allowed are 1, 2"),
        ({"dept": "1"}, r"unknown choice 'dept' \(genotype\).*did you mean 'depth'\?"),
        ({"depth": None}, "no option for the choice 'depth'"),
    ],
)
def test_genotypes_that_do_not_fit(change: dict[str, str | None], message: str) -> None:
    model = build("small")
    chosen = {**genotypes(model)[0], **change}
    with pytest.raises(UserError, match=message):
        nas.derive(model, {k: v for k, v in chosen.items() if v is not None})


# The parts themselves


def mixed(module: Decision, *weights: float | None) -> Decision:
    module.mix(tuple(None if w is None else torch.tensor(w) for w in weights))
    return module


def test_names_are_places_where_none_is_given() -> None:
    model = nn.ModuleDict(
        {
            "a": nas.Choice([nn.ReLU(), nn.Tanh()]),
            "b": nn.Sequential(nas.InputChoice(2), nas.ValueChoice([1, 2], "size")),
        }
    )
    assert list(decisions(model)) == ["a", "b.0", "size"]
    assert list(decisions(copy.deepcopy(model))) == ["a", "b.0", "size"]
    with pytest.raises(UserError, match="has no name"):
        _ = nas.Choice([nn.ReLU()]).name


def test_what_has_no_name_is_a_decision_of_its_own() -> None:
    def conv() -> nn.Module:
        return elastic.Conv2d(3, 3, ValueChoice([3, 5]), padding="same")

    options = {"relu": nn.ReLU(), "tanh": nn.Tanh()}
    modules = {
        "kernel_size": ValueChoice([3, 5]),
        "conv": conv(),
        "dwconv": conv(),
        "values": nn.Sequential(nas.Choice(options)),
        "0": nas.Choice(options),
        "block": elastic.ConvNorm2d(3, 3, ValueChoice([3, 5])),
    }
    model = nn.Module()
    for name, module in modules.items():
        model.add_module(name, module)
    expected = ["kernel_size", "conv.values.kernel_size", "dwconv.kernel_size"]
    assert list(decisions(model)) == [*expected, "values.0", "0", "block.kernel_size"]


def test_candidates_of_a_list_are_named_after_their_classes() -> None:
    assert Choice([nn.ReLU(), nn.Linear(1, 1), nn.Linear(1, 1)]).options == (
        *("ReLU", "Linear_0", "Linear_1"),
    )


def test_an_input_choice_takes_one_or_weighs_them() -> None:
    choice, a, b = InputChoice(["a", "b"], "from"), torch.ones(2), torch.arange(2.0)
    choice.select(1)
    assert torch.equal(choice(a, b), b)
    assert torch.equal(mixed(choice, 0.5, 2.0)(a, b), 0.5 * a + 2 * b)
    assert torch.equal(mixed(choice, None, 2.0)(a, b), 2 * b)
    with pytest.raises(UserError, match="has 2 inputs, but was given 1"):
        choice(a)


def test_repeat_runs_the_first_blocks_or_weighs_all_depths() -> None:
    blocks = [nn.Linear(3, 3) for _ in range(4)]
    repeat, x = Repeat(blocks, [0, 2, 3], "depth"), torch.randn(2, 3)
    assert len(repeat.blocks) == 3
    after = [x]
    for block in blocks:
        after.append(block(after[-1]))
    for index, depth in enumerate((0, 2, 3)):
        repeat.select(index)
        torch.testing.assert_close(repeat(x), after[depth])
        assert len(repeat.derived()) == depth
    found = mixed(repeat, 0.2, 0.3, 0.5)(x)
    torch.testing.assert_close(found, 0.2 * x + 0.3 * after[2] + 0.5 * after[3])
    torch.testing.assert_close(mixed(repeat, None, 1.0, None)(x), after[2])


def test_one_block_may_be_repeated() -> None:
    block, x = nn.Linear(3, 3), torch.randn(2, 3)
    repeat = Repeat([block, block, block], [1, 3], "depth")
    repeat.select(1)
    assert torch.equal(repeat(x), block(block(block(x))))
    assert torch.equal(repeat.derived()(x), repeat(x))
    repeat.mix(torch.tensor([0.25, 0.75]).unbind())
    torch.testing.assert_close(repeat(x), 0.25 * block(x) + 0.75 * block(block(block(x))))


@pytest.mark.parametrize("depths", [[-1, 1], [1, 3]])
def test_depths_that_there_are_not(depths: list[int]) -> None:
    with pytest.raises(UserError, match="must be from 0 to 2"):
        Repeat([nn.ReLU(), nn.ReLU()], depths)


def test_a_fixed_value_keeps_its_interface() -> None:
    plain = nas.derive(nn.Sequential(ValueChoice([3, 5], "heads")), {"heads": "5"})
    assert plain[0].value == 5 and repr(plain[0]) == "FixedValue(5)"
    assert (2 * plain[0] + 1).value == 11 and (plain[0] // 2 * plain[0]).value == 10


def test_deciding_lets_go_of_mixtures() -> None:
    model = build("small")
    for modules in decisions(model).values():
        for module in modules:
            mixed(module, *(0.5 for _ in module.options))
    decide(model, genotypes(model)[0])
    assert all(module._weights is None for m in decisions(model).values() for module in m)


class Nested(nn.Module):
    """Choices in blocks and candidates that may be left out, and a number that is used in both."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], "width")
        self.stem = elastic.ConvNorm2d(1, 4, 3)
        self.blocks = Repeat([self.block(f"block{i}", width) for i in range(2)], [0, 1, 2], "depth")

    def block(self, name: str, width: ValueChoice) -> nn.Module:
        narrow = nn.Sequential(elastic.Conv2d(4, width, 1), elastic.Conv2d(width, 4, 1))
        inner = Choice({"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}, f"{name}_inner")
        return Choice({"skip": nn.Identity(), "act": inner, "narrow": narrow}, name)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.blocks(self.stem(images))
        return out


def test_what_the_plain_model_depends_on() -> None:
    torch.manual_seed(0)
    model = Nested().double()

    def outputs(genotype: dict[str, str]) -> Tensor:
        out: Tensor = nas.derive(model, genotype)(images())
        return out

    for genotype in genotypes(model):
        found, expected = reached(model, genotype), outputs(genotype)
        for name, modules in decisions(model).items():
            for option in set(modules[0].options) - {genotype[name]}:
                changed = {**genotype, name: option}
                assert (name in found) == (reached(model, changed) != found)
                if name not in found:
                    assert torch.equal(outputs(changed), expected)
    everything = dict.fromkeys(("block0", "block1"), "narrow") | {"depth": "2", "width": "2"}
    unused = dict.fromkeys(("block0_inner", "block1_inner"), "tanh")
    assert reached(model, everything | unused) == everything
    assert reached(model, everything | unused | {"depth": "0"}) == {"depth": "0"}
