"""Registries: one entry a name, wildcards, and answers to typos."""

import pytest

from nas.errors import UserError, unknown_name
from nas.registry import Registry


@pytest.fixture
def registry() -> Registry[int]:
    registry: Registry[int] = Registry("operation")
    for value, name in enumerate(["sep_conv_5x5", "sep_conv_3x3", "max_pool_3x3"]):
        registry.register(name)(value)
    return registry


def test_entry_is_found_and_returned_by_the_decorator(registry: Registry[int]) -> None:
    assert registry.register("new")(7) == 7
    assert registry.get("new") == 7
    assert "new" in registry
    assert "old" not in registry


def test_name_can_be_registered_once(registry: Registry[int]) -> None:
    with pytest.raises(ValueError, match="operation 'sep_conv_3x3' is registered twice"):
        registry.register("sep_conv_3x3")
    assert registry.get("sep_conv_3x3") == 1


def test_names_are_sorted_and_filtered_by_wildcard(registry: Registry[int]) -> None:
    assert registry.names() == ["max_pool_3x3", "sep_conv_3x3", "sep_conv_5x5"]
    assert registry.names("sep_*") == ["sep_conv_3x3", "sep_conv_5x5"]
    assert registry.names("SEP*") == []
    assert list(registry) == ["sep_conv_5x5", "sep_conv_3x3", "max_pool_3x3"]


def test_unknown_name_lists_what_there_is_with_the_nearest(registry: Registry[int]) -> None:
    with pytest.raises(UserError) as caught:
        registry.get("sep_conv3x3", "space.operations")
    assert str(caught.value) == (
        "unknown operation 'sep_conv3x3' (space.operations): allowed are max_pool_3x3, "
        "sep_conv_3x3, sep_conv_5x5; did you mean 'sep_conv_3x3'?"
    )


def test_no_guess_where_nothing_is_near(registry: Registry[int]) -> None:
    with pytest.raises(UserError) as caught:
        registry.get("qqq")
    assert "did you mean" not in str(caught.value)
    assert "(" not in str(caught.value)


def test_case_does_not_hide_the_nearest_name() -> None:
    assert "did you mean 'AdamW'?" in str(unknown_name("optimiser", "adamw", ["AdamW", "SGD"]))
