"""The history of a search, and its panels."""

import math

import pytest
from drawing_helpers import assert_legible

from nas.monitor.history import History
from nas.monitor.panels import draw_curves, draw_heat_maps

NASBENCH = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
DARTS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_5x5", "dil_conv_3x3")


def search(choices: list[str], options: tuple[str, ...], num_epochs: int = 12) -> History:
    """A history in which the first option of each choice wins."""
    history = History()
    for epoch in range(1, num_epochs + 1):
        logits = [epoch / 4, *(0.0 for _ in options[1:])]
        total = sum(map(math.exp, logits))
        row = {o: math.exp(a) / total for o, a in zip(options, logits, strict=True)}
        history.add(epoch, dict.fromkeys(choices, row))
    return history


def darts() -> History:
    cells = ("normal", "reduce")
    edges = [f"{c}/{s}->{t}" for c in cells for t in range(2, 6) for s in range(t)]
    return search(edges, (*DARTS, "a_long_name_of_an_operation"))


HISTORIES = {
    "one": search(["block"], ("a", "b")),
    "nasbench201": search([f"cell/{s}->{t}" for t in range(1, 4) for s in range(t)], NASBENCH),
    "darts": darts(),
    "stages": search([f"stage{i}/layer{j}" for i in range(5) for j in range(4)], ("k3_e3", "skip")),
    "one epoch": search(["cell/0->1", "cell/0->2"], NASBENCH, 1),
}


def test_history_is_read_from_metrics() -> None:
    lines = [
        {"step": 5.0, "loss/train": 1.0},
        {"step": 10.0, "epoch": 0.0, "probability/a/0->1/x": 0.5, "probability/a/0->1/y": 0.5},
        {"step": 20.0, "epoch": 1.0, "probability/a/0->1/x": 0.75, "probability/a/0->1/y": None},
    ]
    history = History.of_metrics(lines)
    assert history.epochs == [1, 2]
    assert history.choices["a/0->1"]["x"] == [0.5, 0.75]
    assert math.isnan(history.choices["a/0->1"]["y"][1])
    assert history.options == ["x", "y"]


def test_choice_that_comes_later_is_unknown_before() -> None:
    history = History()
    history.add(1, {"a": {"x": 1.0}})
    history.add(2, {"b": {"y": 1.0}})
    assert math.isnan(history.choices["b"]["y"][0])
    assert math.isnan(history.choices["a"]["x"][1])


@pytest.mark.parametrize("count", [1, 2, 5, 12, 100])
def test_thinned_history_is_even_and_ends_with_the_last(count: int) -> None:
    history = HISTORIES["nasbench201"].thinned(count)
    assert len(history.epochs) == min(count, 12)
    assert history.epochs[-1] == 12
    steps = {b - a for a, b in zip(history.epochs, history.epochs[1:], strict=False)}
    assert max(steps, default=1) - min(steps, default=1) <= 1
    assert all(len(v) == min(count, 12) for o in history.choices.values() for v in o.values())


@pytest.mark.parametrize("name", HISTORIES)
def test_panels_are_legible(name: str) -> None:
    history = HISTORIES[name]
    chosen = {choice: next(iter(options)) for choice, options in history.choices.items()}
    for dark, draw in ((False, draw_heat_maps), (True, draw_curves)):
        figure = draw(history, chosen, dark=dark)
        boxes = assert_legible(figure)
        titles = {text.rpartition(" at ")[0] for text in boxes}
        assert set(history.choices) <= titles
        assert (sum(figure.get_facecolor()[:3]) < 1.0) == dark


def test_a_cell_begins_a_row() -> None:
    figure = draw_curves(HISTORIES["darts"])
    tops = {str(axes.get_label()): round(axes.get_position().y1, 4) for axes in figure.axes}
    left = {str(axes.get_label()): axes.get_position().x0 for axes in figure.axes}
    assert tops["reduce/0->2"] < tops["normal/4->5"]
    assert left["reduce/0->2"] == pytest.approx(left["normal/0->2"])


def test_empty_history_is_refused() -> None:
    for draw in (draw_heat_maps, draw_curves):
        with pytest.raises(ValueError, match="empty"):
            draw(History())
