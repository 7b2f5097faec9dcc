"""The supernet against a straightforward autograd formulation, and what it must not do."""

import copy
import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from supernet_helpers import (
    SPACES,
    batch,
    build,
    decision_gradient,
    generator,
    logits_gradient,
    loss_of,
)
from torch import Tensor, nn

from nas.choice import Choice
from nas.errors import UserError
from nas.ops import Zero
from nas.sampling.gumbel import gumbel_noise
from nas.sampling.samplers import SAMPLERS
from nas.spaces import SearchSpace, darts, nasbench201
from nas.supernet import Supernet


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# The reference: every edge of every cell, none included, times its weight, all by autograd.


class Reference:
    """Runs a network as the code of GDAS and DARTS does, with weights by choice name.

    With `adds_weights` the weights of the operations that do not run are added to the output, as
    the GDAS authors' code for NAS-Bench-201 does.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        indices: Mapping[str, int] | None,
        adds_weights: bool = False,
    ) -> None:
        self.weights, self.indices, self.adds_weights = weights, indices, adds_weights

    def edge(self, choice: Choice, x: Tensor) -> Tensor:
        """On one path the sampled operation times its weight, else the sum over all of them."""
        weights = self.weights[choice.name]
        if self.indices is not None:
            index = self.indices[choice.name]
            out = weights[index] * choice.candidates[index](x)
            others = [w for k, w in enumerate(weights) if k != index]
            return sum(others, out) if self.adds_weights else out
        outputs = [candidate(x) for candidate in choice.candidates]
        return torch.stack([w * o for w, o in zip(weights, outputs, strict=False)]).sum(0)

    def node(self, cell: nn.Module, states: list[Tensor]) -> Tensor:
        target = len(states)
        edges = [cell.edges[f"{source}_{target}"] for source in range(target)]
        return torch.stack([self.edge(e, x) for e, x in zip(edges, states, strict=True)]).sum(0)

    def nasbench201(self, model: nn.Module, images: Tensor) -> Tensor:
        x = model.stem(images)
        for cell in model.cells:
            if isinstance(cell, nasbench201.Cell):
                states = [x]
                for _ in range(3):
                    states.append(self.node(cell, states))
                x = states[-1]
            else:
                x = cell(x)
        return model.classifier(model.head(x))

    def darts(self, model: nn.Module, images: Tensor) -> Tensor:
        before_last, last = model.stem(images)
        for cell in model.cells:
            if isinstance(cell, darts.Cell):
                states = [cell.preprocess.input_0(before_last), cell.preprocess.input_1(last)]
                num_nodes = cell.out_channels // states[0].shape[1]
                for _ in range(num_nodes):
                    states.append(self.node(cell, states))
                out = torch.cat(states[2:], dim=1)
            else:
                out = cell(before_last, last)
            before_last, last = last, out
        return model.classifier(model.pool(last))

    def run(self, model: nn.Module, images: Tensor) -> Tensor:
        run = self.nasbench201 if isinstance(model, nasbench201.Network) else self.darts
        return run(model, images)


def reference_weights(
    logits: Tensor, sampler: str, temperature: float, seed: int
) -> tuple[Tensor, list[int] | None]:
    """The weights as the papers write them, with a graph back to `logits`."""
    if sampler == "softmax":
        return logits.softmax(-1), None
    noise = gumbel_noise(tuple(logits.shape), generator(seed))
    relaxed = ((logits.log_softmax(-1) + noise) / temperature).softmax(-1)
    if sampler == "gumbel_softmax":
        return relaxed, None
    index = relaxed.argmax(-1)
    hard = nn.functional.one_hot(index, logits.shape[-1])
    return hard + relaxed - relaxed.detach(), index.tolist()


def reference_gradient(
    supernet: Supernet, sampler: str, temperature: float, seed: int
) -> tuple[Tensor, Tensor]:
    """The output and the gradient of the logits by plain autograd."""
    images, labels = batch(seed)
    logits = supernet.logits.detach().clone().requires_grad_()
    weights, index = reference_weights(logits, sampler, temperature, seed)
    indices = None if index is None else dict(zip(supernet.names, index, strict=True))
    by_name = dict(zip(supernet.names, weights, strict=True))
    reference = Reference(by_name, indices, adds_weights=sampler == "gdas_authors")
    outputs = reference.run(supernet.model, images)
    return outputs.detach(), torch.autograd.grad(loss_of(outputs, labels), logits)[0]


@pytest.mark.parametrize(
    ("sampler", "num_samples"),
    [("gdas", 5), ("gdas_authors", 20), ("gumbel_softmax", 1), ("softmax", 1)],
)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
@pytest.mark.usefixtures("float64")
def test_the_gradient_of_the_logits_is_that_of_plain_autograd(
    space: SearchSpace, sampler: str, num_samples: int
) -> None:
    supernet, temperature, num_nonzero = build(space), 0.8, 0
    for seed in range(num_samples):
        sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), temperature, generator(seed))
        outputs, expected = reference_gradient(supernet, sampler, temperature, seed)
        torch.testing.assert_close(supernet.forward(batch(seed)[0], sample), outputs)
        found = logits_gradient(supernet, sample, seed)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-8)
        num_nonzero += bool(expected.abs().max() > 1e-6)
    assert num_nonzero > num_samples / 2


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_float32_agrees_with_plain_autograd_too(space: SearchSpace) -> None:
    supernet = build(space)
    sample = SAMPLERS.get("gdas").draw(supernet.masked_logits(), 2.0, generator(0))
    _, expected = reference_gradient(supernet, "gdas", 2.0, 0)
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        logits_gradient(supernet, sample), expected, atol=1e-4 * scale, rtol=1e-3
    )


@pytest.mark.parametrize("sampler", ["gdas", "softmax"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
@pytest.mark.usefixtures("float64")
def test_the_weights_get_the_gradient_of_plain_autograd(space: SearchSpace, sampler: str) -> None:
    supernet, (images, labels) = build(space), batch()
    sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator())
    named = dict(supernet.model.named_parameters())
    indices = sample.indices and dict(zip(supernet.names, sample.indices, strict=True))
    weights = dict(zip(supernet.names, sample.weights.detach(), strict=True))
    outputs = Reference(weights, indices).run(supernet.model, images)
    expected = torch.autograd.grad(loss_of(outputs, labels), named.values(), allow_unused=True)
    loss_of(supernet.forward(images, sample), labels).backward()
    for (name, parameter), gradient in zip(named.items(), expected, strict=True):
        zeros = torch.zeros_like(parameter)
        torch.testing.assert_close(
            zeros if parameter.grad is None else parameter.grad,
            zeros if gradient is None else gradient,
            msg=lambda text, name=name: f"{name}: {text}",
        )


# Who gets a gradient


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_the_logits_step_leaves_no_gradient_on_the_weights(
    space: SearchSpace, sampler: str
) -> None:
    supernet = build(space)
    sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator())
    gradient = decision_gradient(supernet, sample)
    assert gradient.shape == supernet.logits.shape and gradient.any()
    assert all(p.grad is None for p in supernet.model.parameters())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_the_weight_step_moves_only_what_was_sampled(space: SearchSpace) -> None:
    supernet, (images, labels) = build(space), batch()
    sample = SAMPLERS.get("gdas").draw(supernet.masked_logits(), 1.0, generator(2))
    assert sample.indices is not None
    loss_of(supernet.forward(images, sample), labels).backward()
    assert supernet.logits.grad is None
    sampled = dict(zip(supernet.names, sample.indices, strict=True))
    num_used = 0
    for choice in supernet.model.modules():
        if isinstance(choice, Choice):
            for index, candidate in enumerate(choice.candidates):
                used = [p.grad is not None for p in candidate.parameters()]
                assert index == sampled[choice.name] or not any(used)
                num_used += any(used)
    assert num_used > 0


@pytest.mark.parametrize("sampler", ["softmax", "gumbel_softmax"])
def test_a_weight_step_over_all_operations_leaves_the_logits_alone(sampler: str) -> None:
    supernet, (images, labels) = build(SPACES["nasbench201"]), batch()
    sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator())
    loss_of(supernet.forward(images, sample), labels).backward()
    assert supernet.logits.grad is None


@pytest.mark.usefixtures("float64")
def test_choices_of_one_name_add_up() -> None:
    torch.manual_seed(0)
    options = [{"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)} for _ in range(3)]
    supernet = Supernet(nn.Sequential(*(Choice(o, "shared") for o in options)), generator())
    images, sample = torch.randn(5, 3), supernet.fixed({"shared": "b"})
    outputs, handle = supernet.forward_for_logits(images, sample)
    found = supernet.weights_gradient(sample, torch.autograd.grad(outputs.sin().sum(), handle)[0])
    weight = torch.ones((), requires_grad=True)
    x = images
    for candidates in options:
        x = weight * candidates["b"](x)
    (expected,) = torch.autograd.grad(x.sin().sum(), weight)
    torch.testing.assert_close(found, torch.tensor([[0.0, float(expected)]]))


# Choices with different numbers of options


class Ragged(nn.Module):
    """Three choices of two, four and three options in a row."""

    SIZES = (2, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.Sequential(
            *(
                Choice({f"o{k}": nn.Linear(3, 3) for k in range(size)}, f"part{i}")
                for i, size in enumerate(self.SIZES)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.parts(x).tanh()
        return out


@pytest.mark.parametrize("sampler", ["gdas", "uniform"])
@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_padding_is_never_drawn(sampler: str, scale: float) -> None:
    supernet, source = Supernet(Ragged(), generator(), init_scale=scale), generator(1)
    with torch.no_grad():
        supernet.logits[0] -= 1e4
        supernet.logits[supernet.masked_logits().isneginf()] = 1e6
    drawn = [
        SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, source).indices
        for _ in range(500)
    ]
    largest = torch.tensor(drawn).amax(0).tolist()
    assert all(index < size for index, size in zip(largest, Ragged.SIZES, strict=True))
    if scale < 1:
        assert largest == [size - 1 for size in Ragged.SIZES]


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.usefixtures("float64")
def test_padding_has_no_weight_and_no_gradient(sampler: str) -> None:
    supernet = Supernet(Ragged(), generator(), init_scale=1.0)
    sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 0.5, generator(1))
    padding = supernet.masked_logits().isneginf()
    assert padding.sum() == 3 and sample.weights[padding].eq(0).all()
    torch.testing.assert_close(sample.weights.sum(-1), torch.ones(3))
    outputs, handle = supernet.forward_for_logits(torch.randn(5, 3), sample)
    (gradient,) = torch.autograd.grad(outputs.sum(), handle)
    decisions = supernet.weights_gradient(sample, gradient)
    assert decisions[padding].eq(0).all() and decisions.any(-1).all()
    if SAMPLERS.get(sampler).learns:
        sample.weights.backward(decisions)
        assert supernet.logits.grad is not None
        assert supernet.logits.grad[padding].eq(0).all() and supernet.logits.grad.any()


def test_probabilities_are_the_softmax_over_the_options_of_each_choice() -> None:
    supernet = Supernet(Ragged(), generator(), init_scale=1.0)
    probabilities = supernet.probabilities()
    for (name, p), row, size in zip(
        probabilities.items(), supernet.logits.detach(), Ragged.SIZES, strict=True
    ):
        assert len(p) == len(supernet.options[name]) == size
        assert math.isclose(float(p.sum()), 1.0, rel_tol=1e-6)
        torch.testing.assert_close(p, row[:size].exp() / row[:size].exp().sum())
        assert not p.requires_grad


# The parts of a supernet


def test_the_logits_are_small_normal_and_replay_from_the_generator() -> None:
    model = SPACES["darts"].build_supernet()
    first, second = (Supernet(model, generator(5), init_scale=1e-3).logits for _ in range(2))
    assert torch.equal(first, second) and first.requires_grad and first.is_leaf
    expected = 1e-3 * torch.randn(first.shape, generator=generator(5))
    torch.testing.assert_close(first.detach(), expected)
    assert first.dtype == torch.float32 and first.device.type == "cpu"


def test_all_cells_of_a_kind_share_their_rows() -> None:
    assert build(SPACES["nasbench201"]).logits.shape == (6, 5)
    # Two nodes read 2 + 3 states, in normal and in reduction cells.
    assert build(SPACES["darts"]).logits.shape == (10, 8)
    assert build(SPACES["gdas_frc"]).logits.shape == (5, 8)


def test_a_fixed_sample_takes_the_named_options() -> None:
    supernet = Supernet(Ragged(), generator())
    sample = supernet.fixed({"part0": "o1", "part1": "o3", "part2": "o0"})
    assert sample.indices == (1, 3, 0)
    assert sample.weights.argmax(-1).tolist() == [1, 3, 0]
    assert sample.weights.sum(-1).tolist() == [1.0, 1.0, 1.0] and not sample.weights.requires_grad
    x, parts = torch.randn(5, 3), supernet.model.parts
    chosen = [part.candidates[i] for part, i in zip(parts, (1, 3, 0), strict=True)]
    assert torch.equal(supernet.forward(x, sample), nn.Sequential(*chosen)(x).tanh())


def test_a_fixed_sample_refuses_unknown_choices_and_options() -> None:
    supernet = Supernet(Ragged(), generator())
    with pytest.raises(ValueError, match="no choice is named"):
        supernet.fixed({"part7": "o1"})
    with pytest.raises(ValueError, match="choice 'part0' has no option 'o9': allowed are"):
        supernet.fixed({"part0": "o9", "part1": "o0", "part2": "o0"})


def test_a_choice_that_a_fixed_sample_does_not_name_is_not_connected() -> None:
    supernet = build(SPACES["darts"])
    named = dict.fromkeys(supernet.names, "sep_conv_3x3")
    dropped = supernet.names[0]
    with_none = supernet.forward(batch()[0], supernet.fixed(named | {dropped: "none"}))
    del named[dropped]
    assert torch.equal(supernet.forward(batch()[0], supernet.fixed(named)), with_none)
    assert supernet.fixed(named).weights[0].eq(0).all()


def test_a_model_can_be_copied_after_a_pass_for_the_logits() -> None:
    supernet = build(SPACES["nasbench201"])
    option = dict.fromkeys(supernet.names, "nor_conv_3x3")
    supernet.forward_for_logits(batch()[0], supernet.fixed(option))
    copied = copy.deepcopy(supernet.model)
    assert copied.state_dict().keys() == supernet.model.state_dict().keys()


def test_a_model_without_choices_is_refused() -> None:
    with pytest.raises(UserError, match="no choice in it"):
        Supernet(nn.Linear(2, 2), generator())


def test_choices_of_one_name_with_different_options_are_refused() -> None:
    model = nn.Sequential(
        Choice({"a": nn.Identity(), "none": Zero(1)}, "edge"),
        Choice({"a": nn.Identity(), "b": nn.Identity()}, "edge"),
    )
    with pytest.raises(UserError, match=r"'edge' differ in their options.*none.*b"):
        Supernet(model, generator())


def test_the_order_of_the_options_matters_too() -> None:
    model = nn.Sequential(
        Choice({"a": nn.Identity(), "b": nn.Identity()}, "edge"),
        Choice({"b": nn.Identity(), "a": nn.Identity()}, "edge"),
    )
    with pytest.raises(UserError, match="'edge' differ"):
        Supernet(model, generator())
