"""Signs of a collapse: counts by hand, growth against its definition, and where to go back to."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.genotype import Genotype
from nas.optimisation.collapse import (
    CollapseSettings,
    CollapseWatch,
    num_parameter_free,
    num_skips_in_a_cell,
)

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)


def genotype(**options: str) -> Genotype:
    """Edges into node 9 of the cells `a` and `b`: `a0="skip_connect"` is a/0->9."""
    choices = {f"{name[0]}/{name[1:]}->9": option for name, option in options.items()}
    return Genotype("toy", (), choices)


def skips(num: int) -> Genotype:
    return genotype(**{f"a{source}": "skip_connect" for source in range(num)}, b0="nor_conv_3x3")


def logits_of(epoch: int) -> Tensor:
    return torch.full((2, 3), float(epoch))


# Counts


def test_skips_are_counted_in_each_cell_and_parameter_free_operations_in_all() -> None:
    found = genotype(
        a0="skip_connect", a1="skip_connect", a2="sep_conv_3x3", b0="skip_connect", b1="none"
    )
    assert num_skips_in_a_cell(found) == 2 and num_parameter_free(found) == 4
    pools = genotype(a0="max_pool_3x3", b0="avg_pool_3x3", b1="dil_conv_5x5")
    assert num_skips_in_a_cell(pools) == 0 and num_parameter_free(pools) == 2
    others = Genotype("own", (), {"first": "skip", "second": "skip", "third": "conv"})
    assert num_skips_in_a_cell(others) == 2 and num_parameter_free(others) == 2


# Too many skip connections


def test_a_cell_with_more_skips_than_allowed_is_a_collapse() -> None:
    watch = CollapseWatch(CollapseSettings(max_skips=2))
    assert watch.judge(3, skips(1), logits_of(3), None) is None
    assert watch.judge(4, skips(2), logits_of(4), None) is None
    found = watch.judge(5, skips(3), logits_of(5), None)
    assert found is not None and "3 skip connections in a cell, collapse.max_skips is 2" in (
        found.reason
    )
    assert found.good_epoch == 4 and found.good_logits is not None
    assert torch.equal(found.good_logits, logits_of(4))


def test_there_is_nothing_to_go_back_to_before_the_first_epoch() -> None:
    found = CollapseWatch(CollapseSettings(max_skips=0)).judge(0, skips(1), logits_of(0), None)
    assert found is not None and found.good_epoch is None and found.good_logits is None


def test_the_logits_are_those_of_the_epoch_not_what_becomes_of_them() -> None:
    watch, logits = CollapseWatch(CollapseSettings(max_skips=0)), logits_of(1)
    watch.judge(0, skips(0), logits, None)
    logits.fill_(9)
    found = watch.judge(1, skips(1), logits, None)
    assert found is not None and found.good_logits is not None
    assert torch.equal(found.good_logits, logits_of(1))


def test_by_default_nothing_is_a_collapse() -> None:
    watch = CollapseWatch(CollapseSettings())
    for epoch, value in enumerate([0.1, 1.0, 10.0] * 8):
        assert watch.judge(epoch, skips(9), logits_of(epoch), value) is None
        assert not watch.is_due(epoch)


# A growing eigenvalue


@pytest.mark.parametrize("every", [1, 2, 3])
@SETTINGS
@given(
    values=st.lists(st.floats(0.1, 3.0), min_size=1, max_size=15),
    window=st.integers(1, 4),
    limit=st.floats(1.0, 2.0),
)
def test_the_first_growth_above_the_limit_is_a_collapse(
    every: int, values: list[float], window: int, limit: float
) -> None:
    watch = CollapseWatch(
        CollapseSettings(eigenvalue_growth=limit, eigenvalue_every_epochs=every, window=window)
    )
    measured: list[float] = []
    for epoch in range(len(values) * every):
        due = (epoch + 1) % every == 0
        assert watch.is_due(epoch) == due
        eigenvalue = values[len(measured)] if due else None
        found = watch.judge(epoch, skips(9), logits_of(epoch), eigenvalue)
        measured += [eigenvalue] if eigenvalue is not None else []
        growth = None
        if len(measured) >= 2 * window:
            now, before = measured[-window:], measured[-2 * window : -window]
            growth = sum(now) / sum(before)
        assert watch.growth == pytest.approx(growth)
        if found is not None:
            assert due and growth is not None and growth > limit - 1e-9
            # The newest epoch of the earlier window.
            expected = (len(measured) - window) * every - 1
            assert found.good_epoch == expected and found.good_logits is not None
            assert torch.equal(found.good_logits, logits_of(expected))
            return
        assert not due or growth is None or growth <= limit + 1e-9


def test_an_eigenvalue_that_was_not_positive_cannot_grow() -> None:
    watch = CollapseWatch(CollapseSettings(eigenvalue_growth=1.0, window=1))
    for epoch, value in enumerate([-1.0, 5.0]):
        assert watch.judge(epoch, skips(0), logits_of(epoch), value) is None
    assert watch.growth is None


def test_an_epoch_without_eigenvalue_tells_nothing_again() -> None:
    chosen = CollapseSettings(eigenvalue_growth=1.3, eigenvalue_every_epochs=2, window=1)
    watch = CollapseWatch(chosen)
    assert watch.judge(1, skips(0), logits_of(1), 1.0) is None
    assert watch.judge(3, skips(0), logits_of(3), 2.0) is not None
    assert watch.judge(4, skips(0), logits_of(4), None) is None


# State


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_watch_goes_on_from_its_state(cut: int) -> None:
    chosen = CollapseSettings(eigenvalue_growth=1.5, max_skips=3, window=3)
    values = [1.0, 1.1, 0.9, 1.0, 1.2, 1.1, 1.3, 1.6, 1.9, 2.5, 3.0, 3.5]

    def run(watch: CollapseWatch, first: int, last: int) -> list[Any]:
        return [
            watch.judge(epoch, skips(1), logits_of(epoch), values[epoch])
            for epoch in range(first, last)
        ]

    expected = run(CollapseWatch(chosen), 0, 12)
    assert any(expected)
    watch = CollapseWatch(chosen)
    run(watch, 0, cut)
    watch.has_warned = True
    other = CollapseWatch(chosen)
    other.load_state_dict(watch.state_dict())
    assert other.has_warned
    for a, b in zip(run(other, cut, 12), expected[cut:], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a.reason, a.good_epoch) == (b.reason, b.good_epoch)
            assert torch.equal(a.good_logits, b.good_logits)


def test_only_what_can_be_gone_back_to_is_kept() -> None:
    watch = CollapseWatch(CollapseSettings(window=3))
    for epoch in range(50):
        watch.judge(epoch, skips(0), logits_of(epoch), 1.0 if epoch % 2 else None)
    state = watch.state_dict()
    assert len(state["eigenvalues"]) == 6 and list(state["logits"]) == [45, 47, 49]


# Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action": "rollback"}, r"unknown action 'rollback' \(c\.action\).*'roll_back'"),
        ({"max_skips": -1}, r"c\.max_skips is -1: must be at least 0"),
        (
            {"eigenvalue_growth": 0.5, "eigenvalue_every_epochs": 1},
            r"c\.eigenvalue_growth is 0\.5: must be at least 1",
        ),
        ({"eigenvalue_every_epochs": -2}, r"c\.eigenvalue_every_epochs is -2: must be at least 0"),
        ({"window": 0}, r"c\.window is 0: must be at least 1"),
        ({"eigenvalue_growth": 1.3}, r"set c\.eigenvalue_every_epochs to 1 or more"),
        ({"action": "stop"}, r"c\.action is stop.*set c\.max_skips or c\.eigenvalue_growth"),
    ],
)
def test_bad_settings_are_refused_by_key_value_and_remedy(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseSettings(**values).check("c", learns=True)


@pytest.mark.parametrize("values", [{"max_skips": 1}, {"eigenvalue_every_epochs": 1}])
def test_a_search_without_logits_cannot_be_judged(values: dict[str, Any]) -> None:
    CollapseSettings(**values).check("c", learns=True)
    with pytest.raises(ValueError, match="does not train the logits"):
        CollapseSettings(**values).check("c", learns=False)
    CollapseSettings().check("c", learns=False)
