"""Weights of the inputs of a node: by hand with explicit softmax, in every part of a search."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from supernet_helpers import batch, build, generator, loss_of
from test_partial import by_definition
from torch import Tensor, nn

from nas.choice import Choice
from nas.edge_normalization import EdgeNormalization
from nas.kernels.fused import accelerate
from nas.ops import Norm
from nas.optimisation.bilevel import Alternating, Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import DARTS, GDASFixedReduction, SearchSpace
from nas.spaces.cell import supernet_edges
from nas.spaces.darts import Cell
from nas.spaces.darts_parts import Preprocess
from nas.supernet import Supernet

PLAIN = DARTS(in_channels=3, num_classes=4, channels=4, cells=3, nodes=2, edge_normalization=True)
FIXED = GDASFixedReduction(
    in_channels=3, num_classes=4, channels=8, cells=3, nodes=2, edge_normalization=True
)
SPACES: dict[str, SearchSpace] = {
    "darts": PLAIN,
    "darts_partial": replace(PLAIN, partial_channels=4),
    "gdas_frc": FIXED,
    # More inputs than operations: the rows of the choices are filled up.
    "narrow": replace(PLAIN, nodes=3, operations=("skip_connect", "max_pool_3x3", "sep_conv_3x3")),
}
EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
DENSE = [name for name in SAMPLERS if not SAMPLERS.get(name).one_path]
EVERY_DENSE = pytest.mark.parametrize("sampler", DENSE)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def source_of(supernet: Supernet, sampler: str, seed: int = 0) -> SampleSource:
    return SampleSource(supernet, SAMPLERS.get(sampler), generator(seed), 2.0)


# A cell, by hand


class OneCell(nn.Module):
    """A cell of three nodes whose two inputs are the images and their negative."""

    def __init__(self, stride: int, parts: int) -> None:
        super().__init__()
        norm = Norm(affine=False, track_running_stats=False)
        operations = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3")
        make_edge = supernet_edges(operations, norm, partial_channels=parts)
        self.parts = parts
        preprocess = Preprocess(3, 3, 4, after_reduction=False, norm=norm)
        self.cell = Cell("normal", 3, 4, preprocess, stride, make_edge)
        self.cell.normalize_edges()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.cell(images, -images)
        return out

    def by_hand(self, images: Tensor, logits: dict[str, Tensor]) -> Tensor:
        """`x_j = sum_i softmax(beta_j)_i sum_k softmax(alpha_ij)_k o_k(x_i)`."""
        parts = self.cell.preprocess
        states = [parts.input_0(images), parts.input_1(-images)]
        for target in range(2, 5):
            beta = logits[f"normal/inputs->{target}"][:target]
            weights = beta.exp() / beta.exp().sum()
            state = torch.zeros(())
            for source, x in enumerate(states[:target]):
                edge = self.cell.edges[f"{source}_{target}"]
                assert isinstance(edge, Choice)
                alpha = logits[f"normal/{source}->{target}"]
                p = alpha.exp() / alpha.exp().sum()
                first = x[:, : x.shape[1] // self.parts]
                out = torch.stack(
                    [p_k * o(first) for p_k, o in zip(p, edge.candidates, strict=True)]
                ).sum(0)
                if self.parts > 1:
                    out = by_definition(x, out, self.parts, x.shape[2] // out.shape[2])
                state = state + weights[source] * out
            states.append(state)
        return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.usefixtures("float64")
def test_a_cell_and_its_gradients_are_those_by_hand(kernels: str, parts: int, stride: int) -> None:
    torch.manual_seed(0)
    model = OneCell(stride, parts)
    by_hand = OneCell(stride, parts)
    by_hand.load_state_dict(model.state_dict())
    accelerate(model, kernels, torch.device("cpu"))
    supernet = Supernet(model, generator(), init_scale=1.0)
    images, _ = batch()
    target = torch.randn(4, 12, 8 // stride, 8 // stride, generator=generator(1))

    leaf = supernet.logits.detach().clone().requires_grad_()
    named = {name: leaf[row, : len(o)] for row, (name, o) in enumerate(supernet.options.items())}
    expected = by_hand.by_hand(images, named)
    weights = list(by_hand.parameters())
    of_logits, *of_weights = torch.autograd.grad((expected * target).sum(), [leaf, *weights])
    assert all(of_logits[-3:].abs().sum(1) > 1e-6), "the beta of each node matter"

    sample = source_of(supernet, "softmax")()
    out, handle = supernet.forward_for_logits(images, sample)
    torch.testing.assert_close(out, expected)
    (of_handle,) = torch.autograd.grad((out * target).sum(), handle)
    sample.weights.backward(supernet.weights_gradient(sample, of_handle))
    torch.testing.assert_close(supernet.logits.grad, of_logits)

    out = supernet.forward(images, sample)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad((out * target).sum(), list(model.parameters()))
    for mine, theirs in zip(found, of_weights, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.usefixtures("float64")
def test_the_edges_of_a_genotype_keep_their_weights(kernels: str, parts: int) -> None:
    model = OneCell(1, parts)
    supernet = Supernet(accelerate(model, kernels, torch.device("cpu")), generator(), 1.0)
    images, _ = batch()
    kept = {"normal/0->2": "sep_conv_3x3", "normal/1->3": "skip_connect", "normal/2->4": "none"}
    sample = supernet.fixed(kept)
    assert not sample.weights.requires_grad and sample.indices is not None
    out = supernet.forward(images, sample)
    states = {0: model.cell.preprocess.input_0(images), 1: model.cell.preprocess.input_1(-images)}
    for target, (name, option) in enumerate(kept.items(), start=2):
        edge = model.cell.edges[f"{target - 2}_{target}"]
        assert isinstance(edge, Choice) and edge.name == name
        weight = supernet.probabilities()[f"normal/inputs->{target}"][target - 2]
        x = states[target - 2] + 0
        searched = edge.candidates[edge.options.index(option)](x[:, : 4 // parts]) + 0
        states[target] = weight * (by_definition(x, searched, parts, 1) if parts > 1 else searched)
    torch.testing.assert_close(out, torch.cat([states[n] for n in (2, 3, 4)], dim=1))


def test_weights_that_are_not_set_are_not_taken_for_others() -> None:
    module = EdgeNormalization("normal", 3)
    module.weigh(torch.tensor([0.5, 0.3, 0.2]).unbind())
    assert module(1, torch.tensor(10.0)) == 3
    module.release()
    with pytest.raises(AssertionError):
        module(1, torch.tensor(10.0))
    assert "normal/inputs->3" in repr(module)


# Rows of the table of logits


@EVERY_SPACE
def test_there_is_a_row_for_the_inputs_of_each_node(space: SearchSpace) -> None:
    assert isinstance(space, DARTS)
    supernet = build(space)
    without = build(replace(space, edge_normalization=False))
    targets = range(2, 2 + space.nodes)
    rows = {f"{c}/inputs->{n}": n for c in space.searched_cells for n in targets}
    assert supernet.names == without.names == tuple(without.options)
    assert list(supernet.options) == [*without.options, *rows]
    for name, row in supernet.probabilities().items():
        assert len(row) == rows.get(name, len(space.operations))
        torch.testing.assert_close(row.sum(), torch.tensor(1.0))
    states = supernet.model.state_dict(), without.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    assert states[0].keys() == states[1].keys()


@EVERY_DENSE
@EVERY_SPACE
def test_samplers_do_not_draw_the_weights(space: SearchSpace, sampler: str) -> None:
    supernet = build(space)
    sample = source_of(supernet, sampler)()
    rows = supernet.split(sample.weights)
    for name in supernet.options.keys() - set(supernet.names):
        expected = supernet.probabilities()[name]
        torch.testing.assert_close(rows[name].detach(), expected)
    # What is drawn is what is drawn without them.
    alone = SAMPLERS.get(sampler).draw(
        supernet.masked_logits()[: supernet.num_choices], 2.0, generator()
    )
    assert torch.equal(sample.weights[: supernet.num_choices], alone.weights)


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@EVERY_DENSE
@EVERY_SPACE
def test_every_dense_sampler_trains_weights_and_all_logits(
    space: SearchSpace, sampler: str, kernels: str
) -> None:
    supernet = build(space)
    accelerate(supernet.model, kernels, torch.device("cpu"))
    source = source_of(supernet, sampler)
    learner = Learner(
        supernet,
        source,
        Updater(supernet.model.parameters(), OptimizerSettings()),
        Updater([supernet.logits], OptimizerSettings(name="adam", learning_rate=0.1)),
    )
    before = supernet.logits.detach().clone()
    Alternating(learner).step(0, batch(), iter([batch(1)]))
    present = ~supernet.masked
    assert (supernet.logits != before)[present].all()
    assert torch.equal(supernet.logits[~present], before[~present])


@EVERY_SPACE
def test_weights_trained_on_one_path_see_them_too(space: SearchSpace) -> None:
    supernet = build(space)
    source = source_of(supernet, "softmax")
    images, labels = batch()
    for sample in (*source.uniform(), *source.fair()):
        assert sample.indices is not None and len(sample.indices) == supernet.num_choices
        assert not sample.weights.requires_grad
        loss_of(supernet.forward(images, sample), labels).backward()
    assert supernet.logits.grad is None
    with pytest.raises(ValueError, match="mixtures of all options alone"):
        supernet.forward_for_logits(images, source.uniform()[0])


@pytest.mark.usefixtures("float64")
def test_the_second_order_gradient_is_that_of_a_finite_difference_in_beta() -> None:
    supernet = build(PLAIN)
    learner = Learner(
        supernet,
        source_of(supernet, "softmax"),
        Updater(
            supernet.model.parameters(),
            OptimizerSettings(learning_rate=0.05, momentum=0.0, weight_decay=1e-3),
        ),
        Updater([supernet.logits], OptimizerSettings()),
    )
    sample = learner.draw()
    gradient, _ = SecondOrder(1e-5).gradient(learner, sample, batch(1), batch(0))
    sample.weights.backward(gradient)
    assert supernet.logits.grad is not None
    row = list(supernet.options).index("normal/inputs->3")

    def unrolled(move: float) -> float:
        with torch.no_grad():
            supernet.logits[row, 1] += move
        parameters, state = list(supernet.model.parameters()), supernet.model.state_dict()
        saved = {name: value.clone() for name, value in state.items()}
        loss, _ = learner.weights_loss(batch(0), learner.draw())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, g in zip(parameters, gradients, strict=True):
                if g is not None:
                    parameter -= 0.05 * (g + 1e-3 * parameter)
            value, _ = learner.weights_loss(batch(1), learner.draw())
            supernet.logits[row, 1] -= move
        supernet.model.load_state_dict(saved)
        return float(value.detach())

    # Small enough moves to cross no kink of a ReLU or a maximum.
    difference = (unrolled(1e-6) - unrolled(-1e-6)) / 2e-6
    assert float(supernet.logits.grad[row, 1]) == pytest.approx(difference, rel=1e-4)


def test_pruning_leaves_the_inputs_alone() -> None:
    supernet = build(SPACES["darts_partial"])
    supernet.prune(1)
    rows = supernet.split(~supernet.masked)
    assert all(rows[name].sum() == 1 for name in supernet.names)
    assert rows["normal/inputs->3"].all() and rows["reduce/inputs->2"].all()
