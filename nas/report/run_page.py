"""The parts of a page that tell of one run, from its result to what it ran on."""

import math
import shlex
from collections.abc import Iterable, Sequence
from itertools import chain

from nas.commands import retraining, without_code
from nas.deploy.description import GENOTYPE
from nas.errors import UserError
from nas.monitor.drawing import split_choices
from nas.report.charts import SMALL, Line, chart, key, short
from nas.report.markup import Markup, code, facts, join, section, table, tag
from nas.report.pictures import genotype_pictures, history_picture, network_picture
from nas.report.records import RunRecord
from nas.report.run_charts import curves, spoken

NUM_CANDIDATES = 10
PLACES = ("run_dir", "resume")
"""Settings that say where a run is, not what it does."""


def title_of(run: RunRecord) -> str:
    """What the run was, in some words."""
    data = run.settings.get("data.name", "unknown data")
    if run.kind == "search":
        sampler = run.settings.get("sampler.name", "unknown")
        return (
            f"Search in {run.settings.get('space.name', 'an unknown space')} on {data}, {sampler}"
        )
    what = f" of a genotype of {run.genotype.space}" if run.genotype else ""
    return f"Retraining{what} on {data}"


def state_of(run: RunRecord) -> Markup:
    """Whether the run is finished, and how far it came."""
    total = run.settings.get("epochs", "?")
    if run.is_finished:
        return tag("span", "finished", class_="state finished")
    return tag(
        "span", f"unfinished: {run.epochs_done} of {total} epochs", class_="state unfinished"
    )


def run_sections(run: RunRecord, *, is_alone: bool = True) -> Markup:
    """All sections of a run, without its title.

    Args:
        run: To be told of.
        is_alone: On its page; of one run among many the large pictures are left out.
    """
    return join(
        part
        for part in (
            _head(run),
            _cells(run),
            curves(run),
            _probabilities(run, is_alone),
            _confidence(run),
            _candidates(run),
            _front(run),
            _settings(run),
            _commands(run),
            _environment(run),
        )
        if part
    )


def _head(run: RunRecord) -> Markup:
    where = tag("p", state_of(run), f" · {run.folder} · last metrics {run.moment}", class_="dim")
    parts = [where]
    if not run.is_finished:
        said = [" The log ends with: ", tag("code", run.last_words)] if run.last_words else []
        told = (
            "This run has not finished: it was stopped, it failed, or it is still at work. The "
            "page shows what there is."
        )
        parts.append(tag("p", told, *said, class_="note"))
    cards = [tag("li", tag("b", value), tag("span", name)) for name, value in results(run)]
    parts.append(tag("ul", *cards, class_="cards"))
    if stopped := run.facts.get("stopped"):
        parts.append(tag("p", f"Ended early: {stopped}", class_="note"))
    if run.result is not None:
        parts += [tag("h4", "Genotype"), tag("pre", run.result.genotype)]
    return join(parts)


def results(run: RunRecord) -> list[tuple[str, str]]:
    """What the run came to: names and values."""
    so_far = "" if run.is_finished else ", so far"
    rows = []
    for name, value in run.results.items():
        what = f": {run.cost}" if name == "budget/cost" and run.cost else ""
        rows.append((f"{metric_name(name)}{what}{so_far}", metric_value(name, value)))
    if "num_parameters" in run.facts:
        rows.append(("parameters", short(float(run.facts["num_parameters"]))))
    if "multiply_adds" in run.facts:
        rows.append(("multiply-adds an image", short(float(run.facts["multiply_adds"]))))
    rows.append(("epochs", str(run.epochs_done)))
    if run.result is not None:
        rows.append(("time", duration(run.seconds)))
    return rows


def metric_name(name: str) -> str:
    """A final metric in words."""
    known = {
        "accuracy/genotype_validation": "validation accuracy, under the supernet's weights",
        "accuracy/test_top1": "test accuracy, top-1",
        "accuracy/test_top5": "test accuracy, top-5",
        "accuracy/test_top1_ema": "test accuracy, top-1 of the moving average",
        "budget/cost": "cost of the genotype",
    }
    return known.get(name) or spoken(name)


def metric_value(name: str, value: float) -> str:
    """A final metric as text, with its unit where that is percent."""
    return f"{value:.2f} %" if "accuracy" in name or "regret" in name else short(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _cells(run: RunRecord) -> Markup | None:
    if run.genotype is None:
        return None
    title = "Cells" if split_choices(run.genotype)[0].choices else "Architecture"
    parts = [genotype_pictures(run.genotype)]
    if run.network is not None and run.network.model is None:
        parts.append(network_picture(run.genotype, run.network))
    return section(title, *parts)


def _probabilities(run: RunRecord, is_alone: bool) -> Markup | None:
    choices = run.choices()
    if not choices:
        return None
    options = list(dict.fromkeys(option for each in choices.values() for option in each))
    curves = {
        (choice, option): run.curve(f"probability/{choice}/{option}")
        for choice, each in choices.items()
        for option in each
    }
    top = max((y for points in curves.values() for _, y in points), default=1.0)
    chosen = run.genotype.choices if run.genotype else {}
    charts = [
        chart(
            choice,
            [
                Line(
                    option,
                    curves[choice, option],
                    options.index(option),
                    "bold" if chosen.get(choice) == option else "",
                )
                for option in each
            ],
            size=SMALL,
            y_range=(0.0, top),
            legend=False,
        )
        for choice, each in choices.items()
        if any(curves[choice, option] for option in each)
    ]
    legend = tag("ul", *(key(o, i) for i, o in enumerate(options)), class_="legend")
    derived = " Derived options are bold." if chosen else ""
    told = f"Softmax of the logits of each choice, by epoch; all charts have one scale.{derived}"
    parts = [
        tag("p", told, class_="dim"),
        legend,
        tag("div", *charts, class_="multiples", style="margin-top: 12px"),
    ]
    if is_alone:
        why = "The same in relation to equal ones: what is preferred shows before it is decided."
        parts += [tag("p", why, class_="dim spaced"), history_picture(run.history, chosen)]
    return section("Probabilities", *parts)


def _confidence(run: RunRecord) -> Markup | None:
    """The table of choices: of the genotype, else of what is most probable so far."""
    head = ["choice", "option", "probability", "margin", "entropy"]
    if run.genotype is not None and run.genotype.confidence and run.kind == "search":
        rows = [
            [name, option, _share(c.probability), f"{c.margin:.3f}", f"{c.entropy:.3f}"]
            for name, option in run.genotype.choices.items()
            if (c := run.genotype.confidence.get(name)) is not None
        ]
        caption = (
            "What was derived. Margin: to the most probable other option, negative where a less "
            "probable one was taken. Entropy: 1 is uniform, 0 is decided."
        )
        return section("Choices", table(caption, head, rows))
    if run.is_finished or not run.choices():
        return None
    rows = []
    for choice, options in run.choices().items():
        shares = {option: run.last(f"probability/{choice}/{option}") for option in options}
        best = max(shares, key=lambda option: shares[option])
        more = [run.last(f"{kind}/{choice}") for kind in ("margin", "entropy")]
        rows.append([choice, best, _share(shares[best]), *(f"{value:.3f}" for value in more)])
    return section("Choices", table("The most probable options so far.", head, rows))


def _share(value: float) -> Markup:
    width = 0.0 if math.isnan(value) else 5 * value
    return tag("span", tag("span", class_="bar", style=f"width: {width:.2f}em"), f"{value:.3f}")


def _candidates(run: RunRecord) -> Markup | None:
    rows = run.rows_of("candidates.csv")
    if not rows:
        return None
    caption = f"The best {min(len(rows), NUM_CANDIDATES)} of {len(rows)} that were judged."
    names = [*list(rows[0])[1:], next(iter(rows[0]))]
    cells = [[row[name] for name in names] for row in rows[:NUM_CANDIDATES]]
    return section("Candidates", table(caption, names, _with_codes(cells)))


def _front(run: RunRecord) -> Markup | None:
    rows = run.rows_of("front.csv")
    if not rows:
        return None
    try:
        cost, accuracy, on_front, architecture, *_ = rows[0]
        best = [(float(r[cost]), float(r[accuracy])) for r in rows if r[on_front] == "1"]
    except ValueError:
        best = []
    if not best or not all(map(math.isfinite, chain(*best))):
        raise UserError(f"{run.folder / 'front.csv'}: not a front of costs and accuracies")
    counted = run.cost or cost.replace("_", " ")
    drawing = chart(
        f"validation accuracy, %, against {counted}",
        [Line("nothing is better in both", best, 0, dots=True)],
        x_label=counted,
    )
    kept = [[row[cost], row[accuracy], row[architecture]] for row in rows if row[on_front] == "1"]
    head = [counted, "validation accuracy, %", "architecture"]
    return section(
        "Accuracy and cost",
        tag("div", drawing, class_="charts"),
        table(f"The front, of {len(rows)} that were judged.", head, _with_codes(kept)),
    )


def _with_codes(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """The last cell of each row as code."""
    return [[*row[:-1], code(row[-1])] for row in rows]


def _settings(run: RunRecord) -> Markup:
    if not run.settings:
        told = "The folder has no .hydra/config.yaml; overrides: " + " ".join(run.overrides)
        return section("Settings", tag("p", told))
    given = {o.lstrip("+~").partition("=")[0] for o in run.overrides}
    groups: dict[str, list[Markup]] = {}
    for name, value in run.settings.items():
        group, _, rest = name.partition(".")
        is_given = (name in given and name not in PLACES) or (rest == "name" and group in given)
        default = run.defaults.get(name)
        differs = bool(run.defaults) and value != default and name not in PLACES
        shown = f"default {default}" if differs and default is not None else None
        classes = " ".join(["changed"] * (differs or is_given) + ["given"] * is_given)
        row = tag(
            "div", tag("dt", rest or name), tag("dd", value), class_=classes or None, title=shown
        )
        groups.setdefault(group if rest else "run", []).append(row)
    blocks = [
        tag("div", tag("h4", group), tag("dl", *rows, class_="facts"))
        for group, rows in groups.items()
    ]
    told = (
        "Marked: differs from the default"
        if run.defaults
        else "Marked: given on the command line (the folder has no .hydra/defaults.yaml)"
    )
    if run.defaults:
        told += "; bold: given on the command line"
    return section(
        "Settings", tag("p", f"{told}.", class_="dim"), tag("div", *blocks, class_="groups")
    )


def _commands(run: RunRecord) -> Markup:
    skipped = ("run_dir=", "resume=", "hydra.")
    overrides = [o for o in run.overrides if not o.lstrip("+").startswith(skipped)]
    program, folder = f"{run.kind}.py", str(run.folder)
    commands = [("The same again", [program, *overrides])]
    # What could run code is typed anew: a checkpoint must not bring it.
    resumed = [program, f"run_dir={folder}", "resume=true", *without_code(overrides)[1]]
    if not run.is_finished:
        commands.insert(0, ("Go on", resumed))
    elif run.kind == "search":
        genotype = run.folder / GENOTYPE
        trained = retraining(genotype, run.settings, overrides)
        commands.append(("Train what was derived", ["retrain.py", *trained]))
        again = [*resumed, "derive=sampled"]
        commands.append(("Derive once more, by another rule", again))
    else:
        model = run.settings.get("network.model", "null")
        more = [] if model == "null" else [f"model={model}"]
        commands.append(("Export the network", ["export.py", f"run={folder}", *more]))
    parts: list[Markup] = []
    for name, words in commands:
        line = shlex.join(["python", *words])
        parts += [tag("h4", name), tag("pre", line)]
    return section("Commands", *parts)


def _environment(run: RunRecord) -> Markup | None:
    recorded = run.facts.get("environment")
    rows = list(recorded.items()) if isinstance(recorded, dict) else []
    if not rows and run.description:
        cost, recipe = run.description.get("cost"), run.description.get("recipe")
        rows = [("release", run.description.get("release"))]
        rows += [("torch", recipe.get("torch"))] if isinstance(recipe, dict) else []
        rows += [("device", cost.get("device"))] if isinstance(cost, dict) else []
    shown = [(str(name), str(value)) for name, value in rows if value is not None]
    if (speed := run.curve("speed/images_per_s")) and run.kind:
        values = sorted(y for _, y in speed)
        shown.append(("images a second, median", short(values[len(values) // 2])))
    memory = max((y for _, y in run.curve("memory/resident_mib")), default=math.nan)
    if not math.isnan(memory):
        shown.append(("memory of the process, largest", f"{memory:.0f} MiB"))
    return section("Environment", tag("div", facts(shown), class_="wide")) if shown else None
