"""The dominant eigenvalue against the whole Hessian of autograd."""

from collections.abc import Iterator

import pytest
import torch
from conftest import slow
from hypothesis import given
from hypothesis import strategies as st
from supernet_helpers import SETTINGS, SPACES, batch, build, generator, loss_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.choice import Choice, Decision
from nas.kernels.fused import accelerate
from nas.optimisation.curvature import dominant_eigenvalue, largest_eigenvalue
from nas.optimisation.finite import NonFiniteLossError
from nas.spaces import DARTS, Custom, NASBench201, SearchSpace, ViT
from nas.supernet import Supernet

CPU = torch.device("cpu")
MORE_SPACES: dict[str, SearchSpace] = {
    "partial": NASBench201(
        in_channels=3, num_classes=4, channels=4, cells_per_stage=1, partial_channels=2
    ),
    "vit": ViT(
        in_channels=3,
        num_classes=4,
        head_dim=2,
        embeddings=(4, 8),
        depths=(1, 2),
        heads=(1, 2),
        mlp_ratios=(1, 2),
    ),
    "pool_norm": DARTS(in_channels=3, num_classes=4, channels=4, cells=3, nodes=2, pool_norm=True),
}
DARTS_FEWER = DARTS(  # autograd goes back once for each option of each edge
    in_channels=3,
    num_classes=4,
    channels=4,
    cells=3,
    nodes=2,
    operations=("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"),
)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# Eigenvalues from products


def symmetric(size: int, seed: int) -> Tensor:
    matrix = torch.randn(size, size, generator=generator(seed))
    return matrix + matrix.T


@SETTINGS
@given(size=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_the_largest_eigenvalue_of_a_symmetric_matrix_is_found(size: int, seed: int) -> None:
    matrix = symmetric(size, seed)
    start = torch.randn(size, generator=generator(seed + 1))
    found = largest_eigenvalue(lambda v: matrix @ v, start, size, 0.0)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), abs=1e-9)


def test_the_largest_is_not_that_of_the_largest_magnitude() -> None:
    matrix = torch.diag(torch.tensor([-100.0, 3.0, 1.0]))
    assert largest_eigenvalue(lambda v: matrix @ v, torch.ones(3), 3, 0.0) == pytest.approx(3.0)


@pytest.mark.parametrize("accuracy", [0.1, 0.01, 0.001])
def test_it_stops_when_an_eigenvalue_is_near_enough(accuracy: float) -> None:
    values = torch.cat([torch.linspace(-1, 1, 199), torch.tensor([4.0])])
    calls: list[Tensor] = []

    def product(vector: Tensor) -> Tensor:
        calls.append(vector)
        return values * vector

    found = largest_eigenvalue(product, torch.randn(200, generator=generator()), 200, accuracy)
    assert abs(found - 4) <= accuracy * 4 and len(calls) < 20
    vectors = torch.stack(calls)
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(len(calls)))


def test_it_stops_after_so_many_products() -> None:
    matrix, calls = symmetric(50, 0), []
    largest_eigenvalue(lambda v: (calls.append(v), matrix @ v)[1], torch.ones(50), 4, 0.0)
    assert len(calls) == 4


def test_the_zero_matrix_has_eigenvalue_zero() -> None:
    assert largest_eigenvalue(torch.zeros_like, torch.ones(5), 5, 0.01) == 0.0


# Of the loss of a supernet


def hessian(supernet: Supernet, data: tuple[Tensor, Tensor]) -> Tensor:
    """All second derivatives over the logits that are left, by autograd alone."""

    def loss(logits: Tensor) -> Tensor:
        weights = logits.masked_fill(supernet.masked, -torch.inf).softmax(-1)
        rows = dict(zip(supernet.names, weights.unbind(), strict=True))
        for choice in supernet.model.modules():
            if isinstance(choice, Decision):
                choice.mix(rows[choice.name][: len(choice.options)].unbind())
        return loss_of(supernet.model(data[0]), data[1])

    with sdpa_kernel(SDPBackend.MATH):
        found = torch.autograd.functional.hessian(loss, supernet.logits.detach())
    present = ~supernet.masked
    assert isinstance(found, Tensor)
    return found[present][:, present]


WHOLE = {**SPACES, **MORE_SPACES, "darts_fewer": DARTS_FEWER}


@pytest.mark.parametrize("keep", [9, 3])
@pytest.mark.parametrize(
    "name", [slow(name) if name in ("darts", "pool_norm") else name for name in WHOLE]
)
def test_the_dominant_eigenvalue_is_that_of_the_whole_hessian(name: str, keep: int) -> None:
    space = WHOLE[name]
    supernet = build(space, seed=1)
    supernet.prune(keep)
    expected = float(torch.linalg.eigvalsh(hessian(supernet, batch()))[-1])
    found = dominant_eigenvalue(space, supernet, loss_of, batch())
    assert found == pytest.approx(expected, rel=0.05) and found <= expected * (1 + 1e-9)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_fused_kernels_in_float32_give_the_same(name: str) -> None:
    space = SPACES[name]
    exact, (images, labels) = build(space), batch()
    expected = dominant_eigenvalue(space, exact, loss_of, (images, labels))
    torch.set_default_dtype(torch.float32)
    supernet = build(space)
    supernet.model.load_state_dict(exact.model.state_dict())
    with torch.no_grad():
        supernet.logits.copy_(exact.logits)
    accelerate(supernet.model, "fused", CPU)
    found = dominant_eigenvalue(space, supernet, loss_of, (images.float(), labels))
    assert found == pytest.approx(expected, rel=1e-3)


def test_nothing_of_the_supernet_changes_and_no_generator_moves() -> None:
    space = SPACES["darts"]
    supernet = build(space)
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in supernet.model.state_dict().items()}
    assert any("running" in name for name in before)
    first = dominant_eigenvalue(space, supernet, loss_of, batch())
    assert torch.equal(state, torch.get_rng_state())
    for name, value in supernet.model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in supernet.model.parameters())
    assert supernet.logits.grad is None
    assert first == dominant_eigenvalue(space, supernet, loss_of, batch())


def net_with_dropout(num_classes: int) -> nn.Module:
    options = {"relu": nn.ReLU(), "tanh": nn.Tanh()}
    layers = (nn.Flatten(), nn.Linear(3 * 8 * 8, 8), Choice(options, "act"), nn.Dropout())
    return nn.Sequential(*layers, nn.Linear(8, num_classes))


def test_dropout_of_the_model_moves_no_generator() -> None:
    space = Custom(in_channels=3, num_classes=4, model=net_with_dropout)
    supernet, state = build(space), torch.get_rng_state()
    assert dominant_eigenvalue(space, supernet, loss_of, batch()) != 0
    assert torch.equal(state, torch.get_rng_state())


def test_there_is_no_curvature_where_no_operation_is_left() -> None:
    supernet = build(SPACES["nasbench201"])
    with torch.no_grad():
        supernet.logits[:, 0] = 9.0
    supernet.prune(1)
    assert dominant_eigenvalue(SPACES["nasbench201"], supernet, loss_of, batch()) == 0.0


def test_a_loss_that_is_not_finite_is_said_in_one_line() -> None:
    supernet = build(SPACES["nasbench201"])
    with torch.no_grad():
        supernet.logits[0, 0] = torch.nan
    with pytest.raises(NonFiniteLossError, match="loss of the mixture"):
        dominant_eigenvalue(SPACES["nasbench201"], supernet, loss_of, batch())
