"""The parts of a page that compare runs: means by settings, what differs, curves on each other."""

import statistics
from collections.abc import Sequence

from nas.report.charts import NUM_COLORS, Line, chart, key
from nas.report.markup import Markup, code, join, section, table, tag
from nas.report.records import RunRecord
from nas.report.run_page import (
    duration,
    metric_name,
    metric_value,
    run_sections,
    state_of,
    title_of,
)

KINDS = {"search": "Searches", "retrain": "Retrainings"}
CHARTS = {
    "search": {
        "validation accuracy of the genotype, %": "accuracy/genotype_validation",
        "validation loss, nats": "loss/validation",
        "training loss, nats": "loss/train",
        "entropy, mean over the choices": "architecture/entropy",
        "cost of the genotype": "budget/cost",
    },
    "retrain": {
        "test accuracy, top-1, %": "accuracy/test_top1",
        "test loss, nats": "loss/test",
        "training loss, nats": "loss/train",
    },
}
Groups = dict[str, list[RunRecord]]


def comparison(runs: Sequence[RunRecord]) -> Markup:
    """Tables and curves of all runs, then each run by itself, folded."""
    parts = []
    for kind, title in KINDS.items():
        members = [run for run in runs if run.kind == kind]
        if members:
            groups = grouped(members)
            parts += [
                tag("h2", title),
                _means(groups),
                _members(groups, runs),
                _curves(kind, groups),
            ]
    folded = [_folded(number, run) for number, run in enumerate(runs)]
    return join([*parts, tag("h2", "Each run"), *folded])


def grouped(runs: Sequence[RunRecord]) -> Groups:
    """Runs of equal settings but for the seed, by what tells them from the others.

    Args:
        runs: Of one kind.
    """
    names = varying(runs)
    groups: Groups = {}
    for run in runs:
        settings = dict(run.group)
        told = [f"{n.removesuffix('.name')}={settings[n]}" for n in names if n in settings]
        groups.setdefault(", ".join(told) or "all alike", []).append(run)
    return groups


def varying(runs: Sequence[RunRecord]) -> list[str]:
    """The settings in which the runs differ, the seed left out.

    A setting counts among the runs that have it: others chose another option of its group, or are
    of a release before it, whose behaviour is the default. Arguments of a user's model have no
    default, so there an absent one counts.
    """
    settings = [dict(run.group) for run in runs]
    found = []
    for name in dict.fromkeys(name for each in settings for name in each):
        values = {each.get(name) for each in settings}
        if ".arguments." not in name:
            values.discard(None)
        if len(values) > 1:
            found.append(name)
    return found


def mean_and_deviation(metric: str, values: Sequence[float]) -> str:
    """As papers report it: the deviation is that of a sample (n - 1), and one run has none."""
    mean = metric_value(metric, statistics.mean(values))
    if len(values) < 2:
        return mean
    number, _, unit = mean.partition(" ")
    deviation = f"{statistics.stdev(values):.2f}" if unit == "%" else _like(mean, values)
    return f"{number} ± {deviation} {unit}".rstrip()


def _like(mean: str, values: Sequence[float]) -> str:
    """The deviation in the unit (k, M, G) of the mean."""
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(mean.rpartition(" ")[2], 1.0)
    return f"{statistics.stdev(values) / scale:.2g}"


def _means(groups: Groups) -> Markup:
    names = list(dict.fromkeys(n for runs in groups.values() for r in runs for n in r.results))
    head = ["settings", "runs", *map(metric_name, names), "lowest to highest", "time of a run"]
    rows = []
    for label, runs in groups.items():
        # An unfinished run says little of what it would have come to.
        done = [run for run in runs if run.is_finished]
        columns = []
        for name in names:
            values = [run.results[name] for run in done if name in run.results]
            columns.append(mean_and_deviation(name, values) if values else "-")
        first = [run.results[names[0]] for run in done if names and names[0] in run.results]
        spread = f"{min(first):.2f} to {max(first):.2f}" if len(first) > 1 else "-"
        seconds = [run.seconds for run in done]
        time = duration(statistics.mean(seconds)) if seconds else "-"
        count = str(len(done)) + (f" of {len(runs)}" if len(done) < len(runs) else "")
        rows.append([label, count, *columns, spread, time])
    caption = (
        "Mean ± deviation over the finished runs of equal settings but for the seed; lowest to "
        "highest of the first metric."
    )
    return table(caption, head, rows)


def _members(groups: Groups, runs: Sequence[RunRecord]) -> Markup:
    """A line a run, with a link to its section."""
    rows = []
    for label, members in groups.items():
        for run in members:
            number = next(i for i, each in enumerate(runs) if each is run)
            values = "; ".join(metric_value(n, v) for n, v in run.results.items()) or "-"
            genotype = run.result.genotype if run.result else "-"
            rows.append(
                [
                    tag("a", name_of(run, runs), href=f"#run-{number}"),
                    *([label] if len(groups) > 1 else []),
                    run.settings.get("seed", "-"),
                    state_of(run),
                    values,
                    code(genotype),
                ]
            )
    head = [
        "run",
        *(["settings"] if len(groups) > 1 else []),
        "seed",
        "state",
        "result",
        "genotype",
    ]
    return section("Runs", table("", head, rows))


def name_of(run: RunRecord, runs: Sequence[RunRecord]) -> str:
    """The folder of a run below what all have in common."""
    parts = [each.folder.resolve().parts for each in runs]
    depth = 0
    while all(len(p) > depth + 1 and p[depth] == parts[0][depth] for p in parts):
        depth += 1
    return "/".join(run.folder.resolve().parts[depth:])


def _curves(kind: str, groups: Groups) -> Markup:
    shown = _coloured(groups)
    charts = []
    for title, metric in CHARTS[kind].items():
        lines = [
            Line(label, run.curve(metric), series, "faint" if len(runs) > 3 else "")
            for series, (label, runs) in enumerate(shown.items())
            for run in runs
        ]
        if any(line.points for line in lines):
            charts.append(chart(title, lines, legend=False))
    return section("Curves", _legend(shown), tag("div", *charts, class_="charts"))


def _coloured(groups: Groups) -> Groups:
    """What has a colour of its own: a group, or each run of the only one if they are not many."""
    (runs, *others) = groups.values()
    if others or not 1 < len(runs) <= NUM_COLORS:
        return groups
    named = {f"seed {run.settings['seed']}": [run] for run in runs if "seed" in run.settings}
    return named if len(named) == len(runs) else groups


def _legend(groups: Groups) -> Markup:
    if len(groups) == 1:
        return tag("p", "One line a run.", class_="dim")
    keys = [key(label, series) for series, label in enumerate(groups)]
    return tag("ul", *keys, class_="legend", style="margin-bottom: 12px")


def _folded(number: int, run: RunRecord) -> Markup:
    found = "; ".join(metric_value(n, v) for n, v in run.results.items())
    summary = tag("summary", title_of(run), tag("span", f"{run.folder}  {found}"))
    return tag(
        "details", summary, run_sections(run, is_alone=False), class_="run", id=f"run-{number}"
    )
