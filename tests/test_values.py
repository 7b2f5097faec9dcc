"""Numbers that are open, and what follows from them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.values import ValueChoice, mixed_mask, number, whole

SETTINGS = settings(deadline=None, derandomize=True, max_examples=50)


def test_arithmetic_follows_the_choices() -> None:
    a, b = ValueChoice([2, 4], "a"), ValueChoice([0.5, 3], "b")
    values = {
        "3 * a": (3 * a, lambda x, y: 3 * x),
        "a * b": (a * b, lambda x, y: x * y),
        "a * a + b": (a * a + b, lambda x, y: x * x + y),
        "(a + 6) // 4": ((a + 6) // 4, lambda x, y: (x + 6) // 4),
        "1 + b * 2": (1 + b * 2, lambda x, y: 1 + y * 2),
    }
    for (i, x), (j, y) in product(enumerate(a.values), enumerate(b.values)):
        a.select(i)
        b.select(j)
        for name, (value, function) in values.items():
            assert value.value == function(x, y), name
            assert value.largest == max(function(*p) for p in product(a.values, b.values))
    assert (a * a).sources == (a,) and (a * b).sources == (a, b)


def test_the_first_value_holds_at_first_and_the_largest_while_mixed() -> None:
    a = ValueChoice([16, 32, 8])
    assert a.value == 16 and a.options == ("16", "32", "8")
    a.mix((torch.tensor(0.5), None, torch.tensor(0.5)))
    assert a.value == 32 and (2 * a).value == 64
    a.release()
    assert a.value == 16


@SETTINGS
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4, unique=True), st.integers(0, 999))
def test_a_mask_is_the_mean_of_the_masks_of_all_outcomes(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = ValueChoice(sizes, "a"), ValueChoice([1, 2], "b")
    rows = [torch.rand(len(c.values), generator=generator).softmax(0) for c in (a, b)]
    value = whole(a * b, "size")
    assert mixed_mask(value, torch.device("cpu"), torch.float32) is None
    for choice, row in zip((a, b), rows, strict=True):
        choice.mix(row.unbind())
    expected = torch.zeros(2 * max(sizes))
    for (i, x), (j, y) in product(enumerate(sizes), enumerate((1, 2))):
        expected[: x * y] += rows[0][i] * rows[1][j]
    found = mixed_mask(value, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(found, expected)


def test_choices_of_one_name_have_one_outcome_in_a_mixture() -> None:
    a, b = (ValueChoice([1, 3], "width") for _ in range(2))
    for choice in (a, b):
        choice.mix(torch.tensor([0.25, 0.75]).unbind())
    for value, outcomes in ((a * b, {1: 0.25, 9: 0.75}), (a + 2 * b, {3: 0.25, 9: 0.75})):
        weights = value.weights()
        assert weights is not None
        assert {v: float(w) for v, w in weights.items()} == outcomes


def test_options_of_weight_none_are_left_out() -> None:
    a = ValueChoice([1, 3])
    a.mix((torch.tensor(1.0), None))
    mask = mixed_mask(whole(a, "a"), torch.device("cpu"), torch.float32)
    assert mask is not None and mask.tolist() == [1, 0, 0]


@pytest.mark.parametrize("values", [[], [4, 4]])
def test_values_must_differ(values: list[int]) -> None:
    with pytest.raises(UserError, match="options must be different names"):
        ValueChoice(values, "w")


def test_sizes_must_be_whole() -> None:
    ratio, width = ValueChoice([0.5, 1.5], "ratio"), ValueChoice([4, 8], "width")
    assert number(whole(ratio * width, "hidden")) == 2
    with pytest.raises(UserError, match=r"hidden can be 4.5: must be a whole number"):
        whole(ratio * 3 * 3, "hidden")
    with pytest.raises(UserError, match="hidden can be 0"):
        whole(0, "hidden")


def test_a_product_that_is_whole_but_for_rounding_is_whole() -> None:
    ratio = ValueChoice([0.7, 1.1], "ratio")
    hidden = whole(ratio * 90, "hidden")
    assert 0.7 * 90 < 63 and hidden.possible == [63, 99] and hidden.largest == 99
    assert number(hidden) == 63
    ratio.mix((torch.tensor(0.25), torch.tensor(0.75)))
    weights = hidden.weights()
    assert weights is not None and {v: float(w) for v, w in weights.items()} == {63: 0.25, 99: 0.75}
