"""What runs a supernet part by part, against the supernet itself; recorded on no GPU here."""

import copy
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from supernet_helpers import SPACES, batch, build, decision_gradient, generator, loss_of
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Choice
from nas.errors import UserError
from nas.genotype.text import parse_nasbench201
from nas.kernels.graphs import GraphedPaths, GraphedStep, graphs_for
from nas.kernels.recording import Action, Candidate, Recorder, Recording
from nas.ops import Norm
from nas.optimisation.bilevel import Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import DARTS, NASBench201
from nas.supernet import Sample, Supernet

CPU = torch.device("cpu")
NASBENCH201 = NASBench201(in_channels=3, num_classes=4, channels=4, cells_per_stage=1)
ROUNDS = 12
WITH_A_DEAD_EDGE = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"


@pytest.fixture(autouse=True)
def _double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def both(space: str) -> tuple[Supernet, Supernet]:
    """A supernet, and the same one run part by part."""
    plain = build(SPACES[space])
    model = copy.deepcopy(plain.model)
    return plain, Supernet(model, generator(), graphs=GraphedPaths(model))


def samples(supernet: Supernet, sampler: str, count: int = ROUNDS) -> list[Sample]:
    source = SampleSource(supernet, SAMPLERS.get(sampler), generator(5), 1.0)
    return [source() for _ in range(count)]


def weight_gradients(supernet: Supernet, chosen: list[Sample]) -> list[Tensor | None]:
    """Of the sum of the losses, each on images of its own."""
    for number, sample in enumerate(chosen):
        images, labels = batch(number)
        loss_of(supernet.forward(images, sample), labels).backward()
    found = [p.grad if p.grad is None else p.grad.clone() for p in supernet.model.parameters()]
    supernet.model.zero_grad()
    return found


def check_alike(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert [g is None for g in found] == [g is None for g in expected]
    torch.testing.assert_close(
        [g for g in found if g is not None], [g for g in expected if g is not None]
    )


@pytest.mark.parametrize("space", SPACES)
def test_weights_get_the_gradients_of_the_supernet(space: str) -> None:
    plain, graphed = both(space)
    for sample in samples(plain, "gdas"):
        check_alike(weight_gradients(graphed, [sample]), weight_gradients(plain, [sample]))


def test_gradients_of_several_passes_add_up() -> None:
    plain, graphed = both("nasbench201")
    first, second, third = samples(plain, "uniform", 3)
    chosen = [first, second, second, third]
    check_alike(weight_gradients(graphed, chosen), weight_gradients(plain, chosen))


class Sharing(Recorder):
    """Stands for graphs that share memory, at its worst.

    A graph that is replayed writes wherever those recorded after it in its pool have left
    something: they may have taken memory that it had used and freed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._passes: list[Action] = []

    def __call__(self, action: Action, pool: str) -> Action:
        if pool != "backward":
            return action
        number = len(self._passes)
        self._passes.append(action)

        def replay() -> None:
            for later in self._passes[number + 1 :]:
                candidate = later.__self__  # type: ignore[attr-defined]
                assert isinstance(candidate, Candidate)
                for _, gradient in candidate.gradients:
                    gradient.fill_(torch.nan)
            action()

        return replay


@pytest.mark.parametrize("sampler", ["uniform", "gdas"])
def test_gradients_of_earlier_passes_outlive_the_memory_of_later_ones(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.kernels.recording.Recorder", Sharing)
    plain, graphed = both("nasbench201")
    chosen = samples(plain, sampler, 4)
    check_alike(weight_gradients(graphed, chosen), weight_gradients(plain, chosen))
    check_alike(weight_gradients(graphed, chosen[:1]), weight_gradients(plain, chosen[:1]))


@pytest.mark.parametrize("sampler", ["gdas", "gdas_authors"])
@pytest.mark.parametrize("space", SPACES)
def test_choices_get_the_inner_products_of_the_supernet(space: str, sampler: str) -> None:
    plain, graphed = both(space)
    for supernet in (plain, graphed):
        supernet.model.requires_grad_(False)
    # Recorded at the first step, in which no gradient of the weights is asked for.
    for number, sample in enumerate(samples(plain, sampler)):
        found = decision_gradient(graphed, sample, number)
        torch.testing.assert_close(found, decision_gradient(plain, sample, number))


def test_second_order_gradients_are_those_of_the_supernet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.kernels.recording.Recorder", Sharing)
    found, (plain, graphed) = [], both("nasbench201")
    sample = samples(plain, "gdas", 1)[0]
    for supernet in (plain, graphed):
        weights = Updater(supernet.model.parameters(), OptimizerSettings(clip_norm=0.1))
        logits = Updater([supernet.logits], OptimizerSettings())
        learner = Learner(supernet, lambda: sample, weights, logits)
        gradient, _ = SecondOrder().gradient(learner, sample, batch(1), batch(2))
        assert all(p.grad is None for p in supernet.model.parameters())
        found.append(gradient)
    torch.testing.assert_close(*found)
    assert found[0].any()


def test_a_path_that_is_cut_leaves_the_classifier_alone() -> None:
    plain, graphed = both("nasbench201")
    cut = plain.fixed({name: "none" for name in plain.names})
    check_alike(weight_gradients(graphed, [cut]), weight_gradients(plain, [cut]))


def test_edges_that_a_genotype_drops_are_not_run() -> None:
    plain, graphed = both("darts")
    names = dict(zip(plain.names, ["sep_conv_3x3", "skip_connect", "dil_conv_3x3"], strict=False))
    some = plain.fixed(names)
    assert some.indices is not None and NOT_CONNECTED in some.indices
    check_alike(weight_gradients(graphed, [some]), weight_gradients(plain, [some]))


def test_running_statistics_move_once_a_step() -> None:
    space = replace(NASBENCH201, norm=Norm(affine=False, track_running_stats=True))
    plain = build(space)
    model = copy.deepcopy(plain.model)
    graphed = Supernet(model, generator(), graphs=GraphedPaths(model))
    for sample in samples(plain, "uniform", 4):
        weight_gradients(plain, [sample])
        weight_gradients(graphed, [sample])
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.model.named_buffers()))


def test_a_second_pass_before_the_way_back_is_refused() -> None:
    _, graphed = both("nasbench201")
    sample, images = samples(graphed, "uniform", 1)[0], batch()[0]
    first = graphed.forward(images, sample)
    graphed.forward(images, sample)
    with pytest.raises(RuntimeError, match="overwritten"):
        first.sum().backward()


def test_an_old_recording_is_gone_before_there_is_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[Recording]] = []

    class Counted(Recording):
        def __init__(self, *arguments: Any) -> None:
            assert all(old() is None for old in made)
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr("nas.kernels.graphs.Recording", Counted)
    model = SPACES["nasbench201"].build_supernet()
    graphs, (images, _) = GraphedPaths(model), batch()
    assert graphs.fits(images, trains_logits=False)
    model.requires_grad_(False)
    for minus_sum in (False, True, True):
        assert graphs.fits(images, trains_logits=True, minus_sum=minus_sum)
    assert len(made) == 2


def test_steps_of_both_kinds_share_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    _, graphed = both("nasbench201")
    recorded: list[bool] = []
    monkeypatch.setattr(
        Recording,
        "record",
        lambda self: recorded.append(self.minus_sum),  # type: ignore[func-returns-value]
    )
    sample = samples(graphed, "gdas_authors", 1)[0]
    weight_gradients(graphed, [sample])
    graphed.model.requires_grad_(False)
    decision_gradient(graphed, sample)
    assert recorded == [True]


def test_what_cannot_be_recorded_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted\nCompile with ...")

    _, graphed = both("nasbench201")
    weights = list(graphed.model.parameters())
    monkeypatch.setattr(Recording, "record", fails)
    with pytest.raises(UserError, match=r"set kernels to plain\. PyTorch says: CUDA .* permitted$"):
        weight_gradients(graphed, samples(graphed, "gdas", 1))
    assert all(weight.requires_grad for weight in weights)
    monkeypatch.setattr(Recorder, "__call__", fails)
    step = GraphedStep(lambda images, labels: images.sum(), CPU)
    step(*batch())
    with pytest.raises(UserError, match="set kernels to plain"):
        step(*batch())


def evaluated(graphs: GraphedPaths, model: nn.Module, images: Tensor) -> bool:
    with torch.no_grad():
        return graphs.fits(images, trains_logits=False)


def in_bf16(graphs: GraphedPaths, model: nn.Module, images: Tensor) -> bool:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return graphs.fits(images, trains_logits=False)


def of_another_size(graphs: GraphedPaths, model: nn.Module, images: Tensor) -> bool:
    return graphs.fits(images[:2], trains_logits=False)


def of_both_levels(graphs: GraphedPaths, model: nn.Module, images: Tensor) -> bool:
    return graphs.fits(images, trains_logits=True)


def in_evaluation(graphs: GraphedPaths, model: nn.Module, images: Tensor) -> bool:
    model.eval()
    return graphs.fits(images, trains_logits=False)


@pytest.mark.parametrize(
    "ask", [evaluated, in_bf16, of_another_size, of_both_levels, in_evaluation]
)
def test_what_was_not_recorded_does_not_fit(
    ask: Callable[[GraphedPaths, nn.Module, Tensor], bool],
) -> None:
    model = SPACES["nasbench201"].build_supernet()
    graphs, (images, _) = GraphedPaths(model), batch()
    assert graphs.fits(images, trains_logits=False)
    assert not ask(graphs, model, images)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (DARTS(in_channels=3, num_classes=4, channels=8, partial_channels=2), "partial channels"),
        (DARTS(in_channels=3, num_classes=4, edge_normalization=True), "weights of their own"),
    ],
)
def test_networks_that_cannot_be_run_so_say_why(space: DARTS, reason: str) -> None:
    with torch.device("meta"):
        refusal = GraphedPaths(space.build_supernet()).refusal
    assert refusal is not None and reason in refusal


class WithParts(nn.Module):
    """A model of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = Choice([nn.Identity(), nn.ReLU()], "choice")

    def parts(self) -> list[nn.Module]:
        return [self.choice]


def test_parts_of_a_model_of_ones_own_are_something_else() -> None:
    assert graphs_for(WithParts(), "auto", torch.device("cuda")) is None


def test_graphs_need_a_gpu() -> None:
    model = SPACES["nasbench201"].build_supernet()
    assert graphs_for(model, "auto", CPU) is None
    assert graphs_for(model, "plain", torch.device("cuda")) is None
    assert isinstance(graphs_for(model, "auto", torch.device("cuda")), GraphedPaths)
    with pytest.raises(UserError, match="kernels=graphs cannot be had here: the device is cpu"):
        graphs_for(model, "graphs", CPU)


def trained(graphed: bool) -> tuple[list[float], list[Tensor]]:
    """Losses and weights of a network after a few steps."""
    torch.manual_seed(0)
    network = NASBENCH201.build_network(parse_nasbench201(WITH_A_DEAD_EDGE))
    settings = OptimizerSettings(learning_rate=0.1, clip_norm=0.5, weight_decay=0.01, nesterov=True)
    updater = Updater(network.parameters(), settings)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = loss_of(network(images), labels)
        loss.backward()
        updater.step()
        return loss.detach()

    chosen: Callable[[Tensor, Tensor], Tensor] = GraphedStep(step, CPU) if graphed else step
    losses = [float(chosen(*batch(number))) for number in range(5)]
    return losses, [p.detach() for p in network.parameters()]


def test_steps_of_a_network_are_what_they_were() -> None:
    found, expected = trained(graphed=True), trained(graphed=False)
    assert len(set(expected[0])) == 5
    torch.testing.assert_close(found, expected)


def test_steps_without_room_are_done_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Recorder, "has_room", lambda self, size: bool(asked.append(size)))
    monkeypatch.setattr(Recorder, "__call__", lambda *_: pytest.fail("was recorded"))
    found, expected = trained(graphed=True), trained(graphed=False)
    torch.testing.assert_close(found, expected)
    assert len(asked) == 1, "making room takes time"
