"""Choices on some of the channels: against the definition, channel by channel; in every space."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from supernet_helpers import (
    SETTINGS,
    SPACES,
    batch,
    build,
    decision_gradient,
    generator,
    logits_gradient,
    loss_of,
)
from test_dead_paths import count_calls
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Choice, connects
from nas.deriving.deriver import derive_argmax
from nas.errors import UserError
from nas.ops import Norm, build_operation
from nas.partial import PartialChoice
from nas.sampling.samplers import SAMPLERS
from nas.spaces import DARTS, GDASFixedReduction, NASBench201, SearchSpace
from nas.supernet import Supernet

PARTIAL: dict[str, SearchSpace] = {
    "nasbench201": replace(SPACES["nasbench201"], partial_channels=2),  # type: ignore[type-var]
    "darts": replace(SPACES["darts"], partial_channels=4),  # type: ignore[type-var]
    "gdas_frc": replace(SPACES["gdas_frc"], partial_channels=4),  # type: ignore[type-var]
}
EVERY_SPACE = pytest.mark.parametrize("space", PARTIAL.values(), ids=PARTIAL.keys())


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def choice(channels: int, parts: int, stride: int) -> PartialChoice:
    torch.manual_seed(0)
    names = ("none", "nor_conv_3x3", "max_pool_3x3", "avg_pool_3x3")
    norm = Norm(affine=False, track_running_stats=False)
    candidates = {n: build_operation(n, channels // parts, stride, norm) for n in names}
    return PartialChoice(candidates, "edge", parts=parts, stride=stride)


def by_definition(x: Tensor, searched: Tensor, parts: int, stride: int) -> Tensor:
    """Channel i of group g goes to place i * parts + g; group 0 is what was searched."""
    size = x.shape[1] // parts
    pooled = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True) if stride == 2 else x
    out = torch.full_like(pooled, float("nan"))
    for group in range(parts):
        for i in range(size):
            source = searched[:, i] if group == 0 else pooled[:, group * size + i]
            out[:, i * parts + group] = source
    return out


@given(
    parts=st.sampled_from([2, 3, 4]),
    size=st.integers(1, 3),
    stride=st.sampled_from([1, 2]),
    pixels=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    index=st.integers(0, 3),
)
@SETTINGS
def test_a_part_is_searched_and_the_rest_passes_by(
    parts: int, size: int, stride: int, pixels: tuple[int, int], index: int
) -> None:
    module = choice(parts * size, parts, stride)
    x = torch.randn(2, parts * size, *pixels, generator=generator())
    module.select(index)
    searched = module.candidates[index](x[:, :size])
    torch.testing.assert_close(module(x), by_definition(x, searched, parts, stride))
    module.mix(torch.tensor([0.4, 0.3, 0.2, 0.1]).unbind())
    outputs = [candidate(x[:, :size]) for candidate in module.candidates]
    mixed = 0.3 * outputs[1] + 0.2 * outputs[2] + 0.1 * outputs[3]
    torch.testing.assert_close(module(x), by_definition(x, mixed, parts, stride))


def test_none_keeps_what_passes_by_and_a_dropped_edge_is_not_there() -> None:
    module, x = choice(8, 4, 1), torch.randn(2, 8, 3, 3, generator=generator())
    for weights in (None, (torch.tensor(1.0), None, None, None)):
        if weights is None:
            module.select(0)
        else:
            module.mix(weights)
        assert connects(module)
        out = module(x)
        assert out[:, [0, 4]].eq(0).all()
        torch.testing.assert_close(out, by_definition(x, torch.zeros(2, 2, 3, 3), 4, 1))
    module.release()
    module.select(NOT_CONNECTED)
    assert not connects(module)


def test_the_memory_layout_stays() -> None:
    module = choice(8, 4, 1)
    x = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    module.select(1)
    assert module(x).is_contiguous(memory_format=torch.channels_last)


# In the spaces


@EVERY_SPACE
def test_candidates_have_a_part_of_the_channels(space: SearchSpace) -> None:
    parts = space.partial_channels  # type: ignore[attr-defined]
    whole = replace(space, partial_channels=1).build_supernet()  # type: ignore[type-var]
    partial = space.build_supernet()
    assert any(isinstance(m, PartialChoice) for m in partial.modules())
    assert not any(isinstance(m, PartialChoice) for m in whole.modules())

    def widths(model: nn.Module) -> list[int]:
        choices = (m for m in model.modules() if isinstance(m, Choice))
        convs = (m for c in choices for m in c.modules() if isinstance(m, nn.Conv2d))
        return [conv.in_channels for conv in convs]

    assert [parts * width for width in widths(partial)] == widths(whole) != []


@EVERY_SPACE
def test_derived_networks_do_not_know_of_it(space: SearchSpace) -> None:
    genotype = derive_argmax(space, build(space).probabilities())
    plain = replace(space, partial_channels=1)  # type: ignore[type-var]
    assert str(space.build_network(genotype)) == str(plain.build_network(genotype))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@EVERY_SPACE
def test_every_sampler_trains_weights_and_logits(space: SearchSpace, sampler: str) -> None:
    supernet, (images, labels) = build(space), batch()
    sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator())
    loss_of(supernet.forward(images, sample), labels).backward()
    gradients = [p.grad for p in supernet.model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    if SAMPLERS.get(sampler).learns:
        found = logits_gradient(supernet, sample)
        assert found.isfinite().all() and found.any()


@EVERY_SPACE
@pytest.mark.usefixtures("float64")
def test_the_gradient_of_the_decisions_is_that_of_plain_autograd(space: SearchSpace) -> None:
    supernet = build(space)
    for seed in range(3):
        for sampler in ("gdas", "softmax"):
            sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator(seed))
            found, expected = (
                decision_gradient(supernet, sample),
                by_autograd(supernet, sample.weights.detach()),
            )
            runs = sample.weights.detach() != 0  # on one path the others have no gradient
            torch.testing.assert_close(found[runs], expected[runs])
            assert found[~runs].eq(0).all()


def by_autograd(supernet: Supernet, weights: Tensor) -> Tensor:
    """dL/dweights with every candidate run on its part and put together as defined."""
    leaf = weights.clone().requires_grad_()
    rows = dict(zip(supernet.names, leaf, strict=True))
    hooks = []
    for module in supernet.model.modules():
        if isinstance(module, PartialChoice):
            module.select(1)  # connected

            def replaced(edge: PartialChoice, inputs: tuple[Tensor], out: Tensor) -> Tensor:
                (x,) = inputs
                first = x[:, : x.shape[1] // edge._parts]
                terms = [
                    w * c(first) for w, c in zip(rows[edge.name], edge.candidates, strict=True)
                ]
                stride = -(-x.shape[2] // out.shape[2])
                return by_definition(x, torch.stack(terms).sum(0), edge._parts, stride)

            hooks.append(module.register_forward_hook(replaced))
    images, labels = batch()
    (gradient,) = torch.autograd.grad(loss_of(supernet.model(images), labels), leaf)
    for hook in hooks:
        hook.remove()
    return gradient


def test_a_cell_of_nones_still_carries_its_input() -> None:
    supernet = build(PARTIAL["nasbench201"])
    calls = count_calls(supernet.model)
    sample = supernet.fixed(dict.fromkeys(supernet.names, "none"))
    out = supernet.forward(batch()[0], sample)
    assert not calls, "nothing is run"
    assert not torch.allclose(out[0], out[1]), "and yet the images are told apart"
    assert decision_gradient(supernet, sample).eq(0).all()


def test_only_edges_that_a_genotype_dropped_are_cut() -> None:
    supernet = build(PARTIAL["darts"])
    calls = count_calls(supernet.model)
    named = {n: "sep_conv_3x3" for n in supernet.names if not n.startswith("normal/0")}
    supernet.forward(batch()[0], supernet.fixed(named))
    assert {name for name, _ in calls} == set(named)


@pytest.mark.parametrize("kind", [NASBench201, DARTS, GDASFixedReduction])
def test_channels_that_cannot_be_parted_are_refused_in_one_line(kind: type) -> None:
    with pytest.raises(UserError, match=r"^space.partial_channels is 3: .*channels=16") as caught:
        kind(in_channels=3, num_classes=4, channels=16, partial_channels=3)
    assert "\n" not in str(caught.value)


def test_the_parts_show_in_the_representation() -> None:
    assert "parts=4" in repr(choice(8, 4, 2)) and "'edge'" in repr(choice(8, 4, 2))
