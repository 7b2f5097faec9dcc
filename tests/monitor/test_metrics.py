"""The table of metrics and the page that is made from it."""

from pathlib import Path

import pytest

from nas.monitor.metrics import METRICS, Metric, card_title, find_metric
from nas.monitor.metrics_page import describe_metrics
from nas.monitor.tags import TAGS

DOCS = Path(__file__).parents[2] / "docs"


def test_page_is_the_table() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert text == describe_metrics(), "run: python -m nas.monitor.metrics_page > docs/metrics.md"


def test_every_metric_is_defined_once_with_a_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.unit and metric.definition.endswith(".") for metric in METRICS)
    assert all(metric.run in ("search", "retrain", "both") for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_known_with_its_placeholders_filled(metric: Metric) -> None:
    name, title = metric.name, metric.title
    filling = {"<choice>": "normal/0->2", "<option>": "sep_conv_3x3", "<epochs>": "200"}
    for placeholder, value in filling.items():
        name, title = name.replace(placeholder, value), title.replace(placeholder, value)
    found = find_metric(name)
    assert (found.name, found.title, found.unit) == (name, title, metric.unit)
    assert "<" not in card_title(found)


def test_titles_name_the_unit_where_it_is_one() -> None:
    assert card_title(find_metric("loss/train")) == "training loss, nats"
    assert card_title(find_metric("architecture/entropy")) == "entropy, mean over the choices"
    titles = [metric.title for metric in METRICS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    "name",
    ["loss", "loss/train/x", "probability/", "sampled/a/b", "step", "entropy/", "lossXtrain"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not defined"):
        find_metric(name)


def test_every_picture_and_text_has_a_title_and_a_description() -> None:
    for tag, (title, description) in TAGS.items():
        assert title and description.endswith(".")
        assert ("<cell>" in title) == ("<cell>" in tag)
