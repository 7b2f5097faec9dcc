"""A supernet with fused modules computes what it computes module by module."""

import copy
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from supernet_helpers import SETTINGS, batch, build, decision_gradient, generator, loss_of
from torch import Tensor, nn

from nas.kernels.arithmetic import ATenKernels, CompiledKernels
from nas.kernels.fused import accelerate, fuse
from nas.kernels.pending import Pending, PendingNorm, relu, state_of, total
from nas.ops import Norm
from nas.optimisation.bilevel import Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import DARTS, GDASFixedReduction, NASBench201, SearchSpace
from nas.supernet import Sample, Supernet

SIZES = {"in_channels": 3, "num_classes": 4, "channels": 4}
NORMS = {
    "search": Norm(affine=False, track_running_stats=False),
    "tracked": Norm(affine=False, track_running_stats=True),
    "affine": Norm(affine=True, track_running_stats=True),
}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Exact enough that no ReLU falls on the other side because of rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def spaces(norm: Norm) -> dict[str, SearchSpace]:
    return {
        "nasbench201": NASBench201(**SIZES, cells_per_stage=1, norm=norm),
        "nasbench201_partial": NASBench201(
            **SIZES, cells_per_stage=1, norm=norm, partial_channels=2
        ),
        "darts": DARTS(**SIZES, cells=3, nodes=2, norm=norm),
        "darts_partial": DARTS(**SIZES, cells=3, nodes=2, norm=norm, partial_channels=4),
        "darts_pool_norm": DARTS(**SIZES, cells=3, nodes=2, norm=norm, pool_norm=True),
        "gdas_frc": GDASFixedReduction(**{**SIZES, "channels": 8}, cells=3, nodes=2, norm=norm),
    }


def pair(space: SearchSpace, seed: int = 0) -> tuple[Supernet, Supernet]:
    """The same supernet twice: plain and fused."""
    plain = build(space, seed)
    for parameter in plain.model.parameters():
        if parameter.dim() == 1:  # scales and shifts that are not 1 and 0
            nn.init.uniform_(parameter, 0.5, 1.5)
    model = copy.deepcopy(plain.model)
    fuse(model, ATenKernels())
    fused = Supernet(model, generator(seed), init_scale=1.0)
    return plain, fused


def sample_of(supernet: Supernet, seed: int, sampler: str = "gdas") -> Sample:
    return SampleSource(supernet, SAMPLERS.get(sampler), generator(seed), 2.0)()


def weight_gradients(supernet: Supernet, sample: Sample) -> dict[str, Tensor]:
    images, labels = batch()
    supernet.model.zero_grad(set_to_none=True)
    loss_of(supernet.forward(images, sample), labels).backward()
    named = supernet.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", spaces(Norm()))
@pytest.mark.parametrize("seed", range(4))
def test_a_step_is_the_same(name: str, norm: str, seed: int) -> None:
    plain, fused = pair(spaces(NORMS[norm])[name], seed)
    sample = sample_of(plain, seed)
    torch.testing.assert_close(
        decision_gradient(fused, sample), decision_gradient(plain, sample), rtol=1e-7, atol=1e-10
    )
    expected, found = weight_gradients(plain, sample), weight_gradients(fused, sample)
    assert found.keys() == expected.keys(), "the same parameters are used"
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)
    # Two passes in training have moved the running statistics.
    torch.testing.assert_close(dict(fused.model.named_buffers()), dict(plain.model.named_buffers()))


@cache
def searched() -> tuple[Supernet, Supernet]:
    """A pair that a step leaves as it is: without running statistics."""
    return pair(spaces(NORMS["search"])["nasbench201"])


@given(seed=st.integers(0, 10**6))
@SETTINGS
def test_decision_gradients_of_any_sample(seed: int) -> None:
    plain, fused = searched()
    sample = sample_of(plain, seed)
    torch.testing.assert_close(
        decision_gradient(fused, sample), decision_gradient(plain, sample), rtol=1e-7, atol=1e-10
    )


@pytest.mark.parametrize("name", spaces(Norm()))
@pytest.mark.parametrize("norm", NORMS)
def test_evaluation_is_the_same(name: str, norm: str) -> None:
    plain, fused = pair(spaces(NORMS[norm])[name])
    sample = sample_of(plain, 1)
    outputs = []
    for supernet in (plain, fused):
        weight_gradients(supernet, sample)
        supernet.model.eval()
        with torch.no_grad():
            outputs.append(supernet.forward(batch(1)[0], sample))
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("sampler", ["softmax", "gumbel_softmax"])
@pytest.mark.parametrize("name", ["nasbench201", "nasbench201_partial", "darts_partial"])
def test_mixtures_are_the_same(sampler: str, name: str) -> None:
    plain, fused = pair(spaces(NORMS["search"])[name])
    sample = sample_of(plain, 0, sampler)
    torch.testing.assert_close(decision_gradient(fused, sample), decision_gradient(plain, sample))


@pytest.mark.parametrize("name", spaces(Norm()))
def test_names_shapes_and_modes_stay(name: str) -> None:
    plain, fused = pair(spaces(NORMS["affine"])[name])
    expected, found = plain.model.state_dict(), fused.model.state_dict()
    assert list(found) == list(expected)
    assert all(found[key].shape == expected[key].shape for key in expected)
    assert all(module.training for module in fused.model.modules())
    fused.model.load_state_dict(expected)


def test_weights_that_are_not_asked_for_are_left_alone() -> None:
    """The logits step freezes the weights while it builds its graph, and only then."""
    _, fused = pair(spaces(NORMS["search"])["nasbench201"])
    settings = OptimizerSettings()
    updaters = (Updater(fused.model.parameters(), settings), Updater([fused.logits], settings))
    learner = Learner(fused, SampleSource(fused, SAMPLERS.get("gdas"), generator()), *updaters)
    learner.decision_gradient(batch(), learner.draw())
    assert all(p.requires_grad and p.grad is None for p in fused.model.parameters())


def test_compiled_kernels_in_a_network() -> None:
    """In float32, as compiled kernels are; see `test_kernels` for each of them."""
    kernels = CompiledKernels.checked(torch.device("cpu"))
    torch.set_default_dtype(torch.float32)
    plain, _ = pair(spaces(NORMS["search"])["nasbench201"])
    model = copy.deepcopy(plain.model)
    fuse(model, kernels)
    compiled = Supernet(model, generator(), init_scale=1.0)
    sample = sample_of(plain, 3)
    found, expected = decision_gradient(compiled, sample), decision_gradient(plain, sample)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


class Foreign(nn.Module):
    """Somebody's own operation, which knows nothing of pending values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.norm(self.conv(x)))
        x = self.norm(x).clamp(-1, 1) + 2 * self.pool(x)
        out: Tensor = torch.cat([self.norm(x), self.pool(x), x], 1).mean((2, 3))
        return out.reshape(self.norm(x).shape[0], -1)


def test_a_module_that_knows_nothing_of_it() -> None:
    plain = Foreign()
    fused = copy.deepcopy(plain)
    fuse(fused, ATenKernels())
    x = torch.randn(3, 2, 4, 4, generator=generator())
    gradients = []
    for model in (plain, fused):
        own = x.clone().requires_grad_()
        model(own).square().sum().backward()
        gradients.append((own.grad, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(*gradients)


def test_the_relu_of_a_state_is_made_once() -> None:
    norm = nn.BatchNorm2d(2)
    model = nn.Sequential(norm, nn.ReLU())
    fuse(model, ATenKernels())
    pending = model[0](torch.randn(3, 2, 4, 4, generator=generator()))
    assert isinstance(pending, PendingNorm)
    state = state_of(pending)
    assert state_of(pending) is state and relu(state) is relu(pending) is relu(state)
    torch.testing.assert_close(relu(state), state.relu())
    other = torch.randn(3, 2, 4, 4)
    assert relu(other) is relu(other)


def test_a_sum_without_norms_is_plain() -> None:
    a, b = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert total([a]) is a
    torch.testing.assert_close(total([a, b, a]), torch.full_like(a, 3))


@pytest.mark.parametrize(
    ("kernels", "changes"), [("auto", True), ("fused", True), ("plain", False)]
)
def test_what_the_setting_does_on_a_cpu(kernels: str, changes: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    found = accelerate(model, kernels, torch.device("cpu"))
    assert isinstance(found(torch.randn(2, 1, 2, 2)), Pending) == (kernels != "plain")
