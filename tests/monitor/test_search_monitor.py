"""The monitor of a search: closed-form values, and everything where TensorBoard looks for it."""

import json
import math
import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
from event_helpers import Events
from matplotlib.figure import Figure
from tensorboard.plugins.custom_scalar import layout_pb2

from nas.genotype import Genotype
from nas.monitor.custom_charts import RETRAINING, search_charts
from nas.monitor.history import History
from nas.monitor.metrics import METRICS
from nas.monitor.run_log import RunLog
from nas.monitor.search import SearchMonitor, margin, normalised_entropy

pytestmark = pytest.mark.pictures

OPERATIONS = ("none", "skip_connect", "nor_conv_3x3")
NAMES = ("cell/0->1", "cell/0->2", "cell/1->2")
GENOTYPE = Genotype(
    "nasbench201",
    OPERATIONS,
    dict(zip(NAMES, ("skip_connect", "none", "skip_connect"), strict=True)),
)
PROBABILITIES = {name: torch.tensor([0.5, 0.25, 0.25]) for name in NAMES}
COUNTS = {name: torch.tensor([1, 3, 0]) for name in NAMES}


def run_epochs(
    run_dir: Path, num_epochs: int = 1, *, moved_in: Sequence[int] = (), **settings: Any
) -> None:
    row = PROBABILITIES[NAMES[0]]
    with RunLog(run_dir) as log:
        monitor = SearchMonitor(log, dict.fromkeys(NAMES, OPERATIONS), **settings)
        for epoch in range(num_epochs):
            row = row.roll(1) if epoch in moved_in else row
            monitor.epoch(
                step=10 * (epoch + 1),
                epoch=epoch,
                probabilities={**PROBABILITIES, NAMES[0]: row},
                counts=COUNTS,
                genotype=GENOTYPE,
                genotype_text="|skip_connect~0|+|none~0|skip_connect~1|",
                scalars={"loss/train": 1.0},
                is_last=epoch == num_epochs - 1,
            )


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.25] * 4, 1.0),
        ([1.0, 0.0, 0.0], 0.0),
        ([0.5, 0.25, 0.25], 1.5 * math.log(2) / math.log(3)),
        ([1.0], 0.0),
    ],
)
def test_entropy_is_that_of_the_definition(probabilities: list[float], expected: float) -> None:
    assert normalised_entropy(torch.tensor(probabilities)) == pytest.approx(expected, abs=1e-12)


def test_margin_is_the_lead_of_the_favourite() -> None:
    assert margin(torch.tensor([0.2, 0.7, 0.1])) == pytest.approx(0.5)
    assert margin(torch.tensor([1.0])) == 1.0


def test_line_of_metrics_holds_the_state_of_the_search(tmp_path: Path) -> None:
    run_epochs(tmp_path)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["step"], line["epoch"], line["loss/train"]) == (10, 0, 1.0)
    assert line["probability/cell/0->2/none"] == 0.5
    assert line["margin/cell/0->2"] == line["architecture/margin"] == 0.25
    assert line["architecture/entropy"] == pytest.approx(1.5 * math.log(2) / math.log(3))
    assert line["architecture/num_skip"] == 2
    assert (line["sampled/none"], line["sampled/skip_connect"]) == (0.25, 0.75)


def test_pictures_and_text_are_where_they_are_looked_for(tmp_path: Path) -> None:
    run_epochs(tmp_path)
    events = Events(tmp_path)
    assert events.tags("images") == {
        "architecture/probabilities",
        "architecture/history",
        "genotype/cell",
    }
    assert events.tags("text") == {"genotype"}


def test_pictures_come_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    run_epochs(tmp_path, num_epochs=6, image_every=4, moved_in=range(6))
    images = Events(tmp_path).pictures("genotype/cell")
    assert [image.step for image in images] == [10, 50, 60]


def test_pictures_are_not_drawn_again_while_nothing_moves(tmp_path: Path) -> None:
    run_epochs(tmp_path, num_epochs=8, image_every=2, moved_in=[3])
    images = Events(tmp_path).pictures("genotype/cell")
    assert [image.step for image in images] == [10, 50, 80]


def test_text_is_written_when_the_genotype_changes(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        monitor = SearchMonitor(log, {}, image_every=100)
        for epoch, text in enumerate(["a", "a", "b\nc", "b\nc", "a"]):
            monitor.epoch(epoch, epoch, {}, {}, Genotype("x", (), {}), text, {})
    assert Events(tmp_path).strings("genotype") == [
        (0, b"    a"),
        (2, b"    b\n    c"),
        (4, b"    a"),
    ]


def charts_of(run_dir: Path) -> dict[str, list[str]]:
    """Regular expressions of each chart of the CUSTOM SCALARS tab by its title."""
    ((_, text),) = Events(run_dir).strings("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(text)
    return {chart.title: list(chart.multiline.tag) for c in layout.category for chart in c.chart}


def test_charts_show_metrics_that_were_logged(tmp_path: Path) -> None:
    run_epochs(tmp_path)
    charts = charts_of(tmp_path)
    logged = Events(tmp_path).tags("scalars")
    (pattern,) = charts["cell/0->2: probability of each option"]
    shown = {name for name in logged if re.match(pattern, name)}
    assert shown == {f"probability/cell/0->2/{operation}" for operation in OPERATIONS}
    # The others depend on what a search is set to.
    told = {"loss, nats", "margin of each choice", "share of each option among the draws"}
    for title in told:
        assert any(re.match(pattern, name) for pattern in charts[title] for name in logged)
    absent = ("regret", "budget", "temperature")
    assert not any(word in title for word in absent for title in charts)


def test_charts_come_with_what_a_search_has(tmp_path: Path) -> None:
    names = {
        "benchmark/regret_200_epochs",
        "budget/cost",
        "budget/target",
        "architecture/temperature",
    }
    charts = search_charts(["stage1/layer1", "stage2/layer1", "width"], names)
    assert list(charts)[3:] == ["probabilities: stage1", "probabilities: stage2", "probabilities"]
    patterns = [p for c in charts.values() for chart in c.values() for p in chart]
    for name in names:
        assert any(re.match(pattern, name) for pattern in patterns), name


def test_every_chart_shows_known_metrics() -> None:
    filled = {"<choice>": "a/0->1", "<option>": "none", "<epochs>": "12"}
    names = {reduce(lambda n, p: n.replace(*p), filled.items(), m.name) for m in METRICS}
    charts = search_charts(["a/0->1"], names) | RETRAINING
    for category in charts.values():
        for title, patterns in category.items():
            for pattern in patterns:
                assert any(re.match(pattern, name) for name in names), (title, pattern)


def test_history_goes_on_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    def note(history: History, chosen: object) -> Figure:
        drawn.append(list(history.epochs))
        return Figure(figsize=(1, 1))

    monkeypatch.setattr("nas.monitor.search.draw_heat_maps", note)
    run_epochs(tmp_path, num_epochs=3)
    with RunLog(tmp_path, resume_step=20) as log:
        monitor = SearchMonitor(log, dict.fromkeys(NAMES, OPERATIONS))
        monitor.epoch(30, 2, PROBABILITIES, COUNTS, GENOTYPE, "", {}, is_last=True)
    assert drawn[-2:] == [[1, 2, 3], [1, 2, 3]]


def test_choices_that_are_no_edges_are_drawn_as_a_list(tmp_path: Path) -> None:
    options = {"block0": ("skip", "mbconv_k3"), "block1": ("mbconv_k3", "mbconv_k5")}
    genotype = Genotype("macro", (), {"block0": "skip", "block1": "mbconv_k5"})
    with RunLog(tmp_path) as log:
        SearchMonitor(log, options).epoch(
            1, 0, {name: torch.tensor([0.4, 0.6]) for name in options}, {}, genotype, "", {}
        )
    assert "genotype/choices" in Events(tmp_path).tags("images")
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert not any(name.startswith("sampled/") for name in line)


def test_tensor_of_another_length_is_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        monitor = SearchMonitor(log, {"cell/0->1": OPERATIONS})
        with pytest.raises(ValueError, match=r"cell/0->1: shape \(2,\)"):
            monitor.epoch(1, 0, {"cell/0->1": torch.ones(2)}, {}, GENOTYPE, "", {})
