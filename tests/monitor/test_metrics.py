"""The table of metrics and the page that is made from it."""

from pathlib import Path

import pytest

from nas.monitor.metrics import METRICS, check_metric, describe_metrics

DOCS = Path(__file__).parents[2] / "docs"


def test_page_is_the_table() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert text == describe_metrics(), "run: python -m nas.monitor.metrics > docs/metrics.md"


def test_every_metric_is_defined_once_with_a_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.unit and metric.definition.endswith(".") for metric in METRICS)
    assert all(metric.run in ("search", "retrain", "both") for metric in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_known_with_its_placeholders_filled(metric: object) -> None:
    name = getattr(metric, "name")  # noqa: B009
    filling = {"<choice>": "normal/0->2", "<option>": "sep_conv_3x3", "<epochs>": "200"}
    for placeholder, value in filling.items():
        name = name.replace(placeholder, value)
    check_metric(name)


@pytest.mark.parametrize(
    "name",
    ["loss", "loss/train/x", "probability/", "sampled/a/b", "step", "entropy/", "lossXtrain"],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not defined"):
        check_metric(name)
