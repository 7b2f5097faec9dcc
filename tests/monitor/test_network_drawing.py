"""Pictures of whole networks: every label there, none cut, none over another."""

import pytest
from drawing_helpers import assert_legible

from nas.monitor.network_drawing import draw_network, title_of
from nas.outline import Part

STEM = Part("stem", "fixed", 108, 32, "pixels", 3_132)
CLASSIFIER = Part("classifier", "fixed", 10, 1, "", 5_770)
CELLS = (
    Part("normal", "cell", 144, 32, "pixels", 170_856, 6),
    Part("reduce", "reduction", 288, 16, "pixels", 21_024),
    Part("a block of a very long name k5_e6", "cell", 288, 8, "pixels", 12_345_678, 12),
    Part("layer", "cell", 240, 64, "tokens", 355_584, 10),
)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 6, 7, 20])
def test_network_is_legible(count: int, dark: bool) -> None:
    parts = [STEM, *(CELLS[i % len(CELLS)] for i in range(count)), CLASSIFIER]
    figure = draw_network(parts, "network  ·  x", dark=dark)
    boxes = assert_legible(figure)
    assert len(boxes) == 3 * len(parts) + 1
    assert (sum(figure.get_facecolor()[:3]) < 1.0) == dark


def test_labels_say_what_a_part_gives() -> None:
    boxes = assert_legible(draw_network([STEM, *CELLS, CLASSIFIER], "x"))
    texts = " ".join(boxes)
    for text in ("108 × 32 × 32", "6 × normal", "12.3 M weights", "64 tokens of 240"):  # noqa: RUF001
        assert text in texts
    assert "10 classes" in texts


def test_title_counts_all_weights() -> None:
    title = title_of([STEM, CLASSIFIER], "darts", 1, 28)
    assert "8.9 k weights" in title and "1 × 28 × 28" in title  # noqa: RUF001


def test_network_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="without parts"):
        draw_network([], "x")
