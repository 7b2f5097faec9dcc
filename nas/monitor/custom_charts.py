"""What the CUSTOM SCALARS tab shows: charts that put several metrics together."""

import re
from collections.abc import Iterable, Mapping

Charts = dict[str, dict[str, list[str]]]
"""By category and title, regular expressions matched from the start of a metric's name."""

_PROGRESS = {
    "loss, nats": ["loss/"],
    "accuracy, %": ["accuracy/"],
    "regret: what the best cell of the table has more, %": ["benchmark/regret_"],
    "cost against the target of the budget": ["budget/(cost|expected_cost|target)$"],
    "skip connections, operations without weights": [
        r"architecture/(num_skip|num_parameter_free)$",
    ],
}
_CERTAINTY = {
    "entropy of each choice (1 uniform, 0 decided)": ["entropy/"],
    "margin of each choice": ["margin/"],
    "share of each option among the draws": ["sampled/"],
    "temperature of the sampler": ["architecture/temperature$"],
    "gradient norm of the logits": ["architecture/logits_gradient_norm$"],
}
_COST = {
    "images a second": ["speed/images_per_s$"],
    "memory, MiB": ["memory/"],
}
_OPTIONAL = ("benchmark/", "budget/", "sampled/", "architecture/temperature")
"""What is logged in every epoch or never."""

RETRAINING: Charts = {
    "retraining": {
        "loss of the retraining, nats": ["loss/(train|test)$"],
        "accuracy of the retraining, %": ["accuracy/(train|test)_"],
        "learning rate of the retraining": ["optimizer/learning_rate$"],
    }
}


def search_charts(choices: Iterable[str], logged: Iterable[str]) -> Charts:
    """The charts of a search: a chart a choice, after what tells of all.

    Args:
        choices: Names of the choices.
        logged: Names of the metrics of the first epoch.
    """
    names = list(logged)
    charts = {
        "search: how it goes": _logged_of(_PROGRESS, names),
        "search: how sure it is": _logged_of(_CERTAINTY, names),
        "search: what it takes": _COST,
    }
    for choice in choices:
        group = choice.rpartition("/")[0]
        category = f"probabilities: {group}" if group else "probabilities"
        title = f"{choice}: probability of each option"
        pattern = f"probability/{re.escape(choice)}/[^/]+$"
        charts.setdefault(category, {})[title] = [pattern]
    return charts


def _logged_of(charts: Mapping[str, list[str]], names: list[str]) -> dict[str, list[str]]:
    """Without those that would stay empty for good."""
    return {
        title: patterns
        for title, patterns in charts.items()
        if not patterns[0].startswith(_OPTIONAL)
        or any(re.match(patterns[0], name) for name in names)
    }
