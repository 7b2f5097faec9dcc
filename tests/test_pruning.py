"""Pruned options: which they are, and that nothing of them is left."""

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

from nas.choice import Choice
from nas.deriving.deriver import derive_argmax, derive_sampled
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import SearchSpace
from nas.supernet import Supernet

EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
EVERY_SAMPLER = pytest.mark.parametrize("sampler", list(SAMPLERS))


def ragged(*sizes: int, seed: int = 0) -> Supernet:
    """A supernet of one choice a size; the first option is called `none`."""
    names = [["none", *(f"o{k}" for k in range(1, size))] for size in sizes]
    choices = [
        Choice({option: nn.Linear(3, 3) for option in options}, f"c{i}")
        for i, options in enumerate(names)
    ]
    return Supernet(nn.Sequential(*choices), generator(seed), init_scale=1.0)


# Which options


@given(seed=st.integers(0, 10**6), keep=st.integers(1, 6))
@SETTINGS
def test_the_most_probable_options_are_kept(seed: int, keep: int) -> None:
    supernet = ragged(5, 2, 3, 1, seed=seed)
    before = supernet.probabilities()
    supernet.prune(keep)
    for name, p in supernet.probabilities().items():
        best = sorted(before[name].tolist(), reverse=True)[:keep]
        expected = torch.tensor([x if x in best else 0.0 for x in before[name].tolist()])
        torch.testing.assert_close(p, expected / expected.sum())
        assert p.eq(0).sum() == max(0, len(p) - keep)


@given(seed=st.integers(0, 10**6))
@SETTINGS
def test_what_was_dropped_never_comes_back(seed: int) -> None:
    supernet = ragged(6, 4, seed=seed)
    supernet.prune(3)
    dropped = supernet.masked.clone()
    with torch.no_grad():
        supernet.logits.neg_()  # the dropped ones would be the best now
    supernet.prune(2)
    assert supernet.masked[dropped].all() and (~supernet.masked).sum() == 4


@given(seed=st.integers(0, 10**6), keep=st.integers(1, 4))
@SETTINGS
def test_something_that_can_be_derived_is_always_kept(seed: int, keep: int) -> None:
    supernet = ragged(4, 2, seed=seed)
    with torch.no_grad():
        supernet.logits[:, 0] += 3.0 * (seed % 2)
    before = supernet.probabilities()
    supernet.prune(keep, never_derived={"none"})
    for name, p in supernet.probabilities().items():
        assert p[1:].any(), "an option besides none"
        assert p[1:].argmax() == before[name][1:].argmax(), "the best of them"
        assert (p > 0).sum() == min(keep, len(p)), "no more are kept for it"


def test_ties_go_to_the_earlier_option() -> None:
    supernet = ragged(4)
    with torch.no_grad():
        supernet.logits.zero_()
    supernet.prune(2)
    assert supernet.masked.tolist() == [[False, False, True, True]]


def test_one_option_can_be_kept_by_name() -> None:
    supernet = ragged(3, 2, 4)
    supernet.keep("c1", "none")
    supernet.keep("c2", "o3")
    gone = [[False, False, False, True], [False, True, True, True], [True, True, True, False]]
    assert supernet.masked.tolist() == gone
    assert supernet.probabilities()["c2"].tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("keep", [1, 2])
@EVERY_SPACE
def test_genotypes_have_only_what_was_kept(space: SearchSpace, keep: int) -> None:
    supernet = build(space)
    with torch.no_grad():
        supernet.logits[:, 0] += 2.0
    supernet.prune(keep, space.never_derived)
    kept = {
        (name, option)
        for name, p in supernet.probabilities().items()
        for option, left in zip(supernet.options[name], p > 0, strict=True)
        if left
    }
    probabilities = supernet.probabilities()
    assert derive_argmax(space, probabilities).choices.items() <= kept
    _, ranked = derive_sampled(space, probabilities, lambda _: 0.0, 30, generator())
    assert all(genotype.choices.items() <= kept for genotype, _ in ranked)
    for genotype in space.neighbours(ranked[0][0]):
        assert supernet.allows(genotype.choices) == (genotype.choices.items() <= kept)


# That nothing of them is left


@pytest.mark.parametrize("keep", [1, 2])
@EVERY_SAMPLER
@EVERY_SPACE
def test_pruned_options_are_never_drawn_nor_run_nor_trained(
    space: SearchSpace, sampler: str, keep: int
) -> None:
    supernet = build(space)
    supernet.prune(keep, space.never_derived)
    calls = count_calls(supernet.model)
    source = SampleSource(supernet, SAMPLERS.get(sampler), generator(1), 0.7)
    samples = [source() for _ in range(4)] + source.fair() + source.uniform()
    for sample in samples:
        assert sample.weights[supernet.masked].eq(0).all()
        torch.testing.assert_close(sample.weights.sum(-1), torch.ones(len(sample.weights)))
        supernet.forward(batch()[0], sample)
        if sample.weights.requires_grad:
            gradient = logits_gradient(supernet, sample)
            assert gradient.isfinite().all() and gradient[supernet.masked].eq(0).all()
    rows = dict(zip(supernet.names, supernet.masked.tolist(), strict=True))
    assert calls
    for name, option in calls:
        assert not rows[name][supernet.options[name].index(option)]


def test_a_pruned_mixture_is_that_of_a_supernet_without_the_options() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        whole = build(SPACES["nasbench201"])
        sample = SAMPLERS.get("softmax").draw(whole.masked_logits(), 1.0, generator())
        whole.prune(2)
        pruned = SAMPLERS.get("softmax").draw(whole.masked_logits(), 1.0, generator())
        by_hand = sample.weights.detach() * ~whole.masked
        by_hand = by_hand / by_hand.sum(-1, keepdim=True)
        torch.testing.assert_close(pruned.weights.detach(), by_hand)
        found = decision_gradient(whole, pruned)
        expected = gradient_of_full_mixture(whole, by_hand)
        torch.testing.assert_close(found[~whole.masked], expected[~whole.masked])
        assert found[whole.masked].eq(0).all()
    finally:
        torch.set_default_dtype(torch.float32)


def gradient_of_full_mixture(supernet: Supernet, weights: Tensor) -> Tensor:
    """dL/dweights with every candidate run, those of weight 0 too."""
    images, labels = batch()
    leaf = weights.clone().requires_grad_()
    rows = dict(zip(supernet.names, leaf.unbind(), strict=True))
    for choice in supernet.model.modules():
        if isinstance(choice, Choice):
            choice.mix(rows[choice.name].unbind())
    (gradient,) = torch.autograd.grad(loss_of(supernet.model(images), labels), leaf)
    return gradient


def test_an_edge_with_none_alone_is_dead() -> None:
    supernet = build(SPACES["nasbench201"])
    with torch.no_grad():
        supernet.logits[:, 0] = 10.0
    supernet.prune(1)
    calls = count_calls(supernet.model)
    sample = SAMPLERS.get("softmax").draw(supernet.masked_logits(), 1.0, generator())
    assert decision_gradient(supernet, sample).eq(0).all()
    assert not calls
