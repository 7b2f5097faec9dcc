"""The charts of one run: which curves are together, and what they are called."""

import re

from nas.report.charts import Line, chart
from nas.report.markup import Markup, section, tag
from nas.report.records import RunRecord

SEARCH_CHARTS = {
    "loss, nats": ("loss/train", "loss/validation"),
    "accuracy, %": ("accuracy/train", "accuracy/validation", "accuracy/genotype_validation"),
    "temperature of the sampler": ("architecture/temperature",),
    "entropy and margin, mean over the choices": ("architecture/entropy", "architecture/margin"),
    "learning rate": ("optimizer/learning_rate_weights", "optimizer/learning_rate_logits"),
    "choices of the genotype without weights": (
        *("architecture/num_skip", "architecture/num_parameter_free"),
    ),
    "cost": ("budget/cost", "budget/expected_cost", "budget/target"),
    "regret: what the best cell of the table has more, %": ("benchmark/regret_",),
    "gradient norm of the logits": ("architecture/logits_gradient_norm",),
    "curvature, nats": ("architecture/eigenvalue",),
}
RETRAIN_CHARTS = {
    "loss, nats": ("loss/train", "loss/test"),
    "accuracy, %": ("accuracy/train_top1", "accuracy/test_top1", "accuracy/test_top1_ema"),
    "learning rate": ("optimizer/learning_rate",),
    "probability of dropping a path": ("regularisation/drop_path",),
}
LABELS = {
    "loss/train": "training",
    "loss/validation": "validation",
    "loss/test": "test",
    "accuracy/train": "training, sampled",
    "accuracy/validation": "validation, sampled",
    "accuracy/genotype_validation": "validation, genotype",
    "accuracy/train_top1": "training, top-1",
    "accuracy/test_top1": "test, top-1",
    "accuracy/test_top5": "test, top-5",
    "accuracy/test_top1_ema": "test, top-1 of the moving average",
    "optimizer/learning_rate_weights": "of the weights",
    "optimizer/learning_rate_logits": "of the logits",
    "architecture/num_skip": "skip connections",
    "architecture/num_parameter_free": "and poolings, none",
    "budget/cost": "of the genotype",
    "budget/expected_cost": "expected",
    "budget/target": "target",
}
NO_CHANGE = ("drop_path", "num_parameter_free")
"""Metrics that are not worth a chart while they are 0."""
_OF_TABLE = re.compile(r"benchmark/(?P<what>[a-z]+)_(?P<epochs>\d+)_epochs")


def curves(run: RunRecord) -> Markup:
    """The section with the curves of a run, as far as it has logged them."""
    charts = []
    for title, names in (SEARCH_CHARTS if run.kind == "search" else RETRAIN_CHARTS).items():
        lines = [
            Line(LABELS.get(name) or spoken(name), run.curve(name), series)
            for series, given in enumerate(names)
            for name in _names(run, given)
        ]
        values = [y for line in lines for _, y in line.points]
        if values and not (names[-1].endswith(NO_CHANGE) and not any(values)):
            counted = f": {run.cost}" if title == "cost" and run.cost else ""
            charts.append(chart(f"{title}{counted}", lines))
    told = "By epoch; beside the names are the values of the last one."
    return section("Curves", tag("p", told, class_="dim"), tag("div", *charts, class_="charts"))


def _names(run: RunRecord, given: str) -> list[str]:
    """The metric, or those that begin so: the names of a table carry its epochs."""
    if not given.endswith("_"):
        return [given]
    return [name for name in run.metrics[-1] if name.startswith(given)]


def spoken(name: str) -> str:
    """The last part of a metric's name in words."""
    if match := _OF_TABLE.fullmatch(name):
        return f"{match['what']} in the table, {match['epochs']} epochs"
    return name.rpartition("/")[2].replace("_", " ")
