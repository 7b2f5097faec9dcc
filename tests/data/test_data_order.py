"""Order, splits and seeds as pure functions."""

from collections.abc import Iterator

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.data import Cycle
from nas.data.order import derived_seed, permutation, stratified_split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)
FRACTIONS = st.floats(0.01, 0.99)
SETTINGS = settings(deadline=None, derandomize=True, max_examples=100)


@SETTINGS
@given(LABELS, FRACTIONS, st.integers(0, 100))
def test_split_is_a_partition_of_the_asked_size(labels: Tensor, fraction: float, seed: int) -> None:
    first, second = stratified_split(labels, fraction, seed)
    assert sorted(first.tolist() + second.tolist()) == list(range(len(labels)))
    assert len(second) == round(fraction * len(labels))
    assert first.tolist() == sorted(first.tolist())
    assert second.tolist() == sorted(second.tolist())


@SETTINGS
@given(LABELS, FRACTIONS)
def test_split_gives_each_class_its_share(labels: Tensor, fraction: float) -> None:
    second = stratified_split(labels, fraction, 0)[1]
    shares = labels.bincount(minlength=6) * fraction
    counts = labels[second].bincount(minlength=6)
    assert ((counts - shares).abs() <= 1).all()


def test_split_of_many_small_classes_does_not_round_to_nothing() -> None:
    labels = torch.arange(1000) % 100  # 10 of each, of which 4 % are not one half
    assert len(stratified_split(labels, 0.04, 0)[1]) == 40


def test_split_depends_on_its_seed_alone() -> None:
    labels = torch.arange(200) % 4
    torch.manual_seed(0)
    once = stratified_split(labels, 0.5, 1)[1]
    torch.manual_seed(1)
    assert torch.equal(once, stratified_split(labels, 0.5, 1)[1])
    assert not torch.equal(once, stratified_split(labels, 0.5, 2)[1])


def test_seeds_are_fixed_and_differ() -> None:
    assert derived_seed(0, "train", 1, 2) == 6226108428555381139
    parts = [(s, n, e, k) for s in range(3) for n in "ab" for e in range(5) for k in range(20)]
    seeds = {derived_seed(*p) for p in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_names_and_numbers_do_not_run_into_each_other() -> None:
    assert derived_seed(1, 11) != derived_seed(11, 1)
    assert derived_seed("1") != derived_seed(1)


def test_permutation_is_one() -> None:
    assert sorted(permutation(50, 0, "x", 3).tolist()) == list(range(50))


class Counting:
    """A loader of 3 batches that says where it was started."""

    num_batches = 3
    batch_size = 1

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        self.started.append((epoch, start))
        for step in range(start, self.num_batches):
            yield torch.tensor(epoch), torch.tensor(step)


def test_cycle_goes_through_epochs_without_end() -> None:
    loader = Counting()
    cycle = Cycle(loader)
    assert [tuple(map(int, next(cycle))) for _ in range(7)] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)
    ]  # fmt: skip
    assert cycle.step == 7
    assert loader.started == [(0, 0), (1, 0), (2, 0)]


def test_cycle_goes_on_at_any_step() -> None:
    whole = Cycle(Counting())
    expected = [tuple(map(int, next(whole))) for _ in range(10)]
    for step in range(10):
        rest = Cycle(Counting(), step)
        assert [tuple(map(int, next(rest))) for _ in range(10 - step)] == expected[step:]
