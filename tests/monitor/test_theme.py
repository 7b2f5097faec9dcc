"""Colours of drawings: letters and lines stand out as the WCAG asks, in light and in dark."""

import pytest

from nas.monitor.operations import FAMILIES
from nas.monitor.theme import DARK, FAMILY_COLORS, LIGHT, Theme, contrast, mix, readable_on

LETTERS, GRAPHICS = 4.5, 3.0
"""Least contrasts of WCAG 2.2, 1.4.3 and 1.4.11 (level AA)."""


@pytest.mark.parametrize(
    ("color", "ground", "expected"),
    [("#000000", "#ffffff", 21.0), ("#777777", "#ffffff", 4.48), ("#ff0000", "#ff0000", 1.0)],
)
def test_contrast_is_that_of_the_definition(color: str, ground: str, expected: float) -> None:
    assert contrast(color, ground) == pytest.approx(expected, abs=0.01)
    assert contrast(ground, color) == contrast(color, ground)


def test_every_family_has_a_colour() -> None:
    assert set(FAMILY_COLORS) == set(FAMILIES)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("family", FAMILIES)
def test_labels_and_lines_of_each_family_stand_out(theme: Theme, family: str) -> None:
    assert contrast(theme.letters(family), theme.ground(family)) >= LETTERS
    for strength in (0.0, 0.5, 1.0):
        assert contrast(theme.line(family, strength), theme.background) >= GRAPHICS


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_curves_stand_out(theme: Theme) -> None:
    for ground in (theme.background, theme.node):
        assert contrast(theme.text, ground) >= LETTERS
    assert contrast(theme.dim, theme.background) >= LETTERS
    assert all(contrast(color, theme.background) >= GRAPHICS for color in theme.series)
    assert len(set(theme.series)) == len(theme.series)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_numbers_on_a_heat_map_stand_out_whatever_the_value(theme: Theme) -> None:
    for share in range(101):
        ground = theme.color_map(share / 100)[:3]
        assert contrast(readable_on(ground), ground) >= LETTERS


def test_mixture_lies_between() -> None:
    assert mix("#000000", "#ffffff", 0.25) == pytest.approx((0.75, 0.75, 0.75))
    assert mix("#123456", "#ffffff", 1.0) == pytest.approx((0x12 / 255, 0x34 / 255, 0x56 / 255))
