"""What a run leaves behind when it is done: genotype, picture, weights, summary."""

import json
import logging
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from nas.commands import command_for, retraining
from nas.cost.budget import FrontPoint
from nas.deploy.description import DESCRIPTION, GENOTYPE, WEIGHTS, ModelDescription
from nas.files import replace_text
from nas.genotype import Genotype
from nas.genotype.text import genotype_text, short_text
from nas.monitor.console import summary_table
from nas.monitor.drawing import save_figure, save_genotype_picture
from nas.monitor.history import History
from nas.monitor.network_drawing import draw_network, title_of
from nas.monitor.panels import draw_curves
from nas.monitor.search import log_genotype
from nas.nested import flat_texts
from nas.network import Cost
from nas.outline import outline, parts_of
from nas.release import release
from nas.sweep import SUMMARY
from nas.training.description import describe_network
from nas.training.loop import FILE_LOGGER
from nas.training.retrain import Retrain
from nas.training.run import device_name
from nas.training.scoring import CANDIDATES
from nas.training.search import Search
from nas.training.tracking import result_text

PICTURE = "cell.png"
NETWORK_PICTURE = "network.png"
PROBABILITIES_PICTURE = "probabilities.png"

NOTEWORTHY = 1.0
"""Percent by which a point of the front must be better to be worth a note."""


def finish_search(
    run: Search,
    genotype: Genotype,
    accuracy: float,
    overrides: Sequence[str],
    front: Sequence[FrontPoint] = (),
    judges: Sequence[str] = (),
) -> None:
    """Writes `genotype.json`, `summary.json` and pictures; prints a summary.

    Args:
        run: The finished search.
        genotype: What was derived.
        accuracy: Its accuracy in percent on the validation half, under the supernet's weights.
        overrides: Of the command line.
        front: Of accuracy and cost, where there is a budget.
        judges: Who has picked the genotype, where others than its logits or its accuracy have.
    """
    folder, text, table = run.folder.path, genotype_text(genotype), run.table
    replace_text(folder / GENOTYPE, genotype.to_json())
    save_genotype_picture(genotype, folder / PICTURE)
    metrics = {"accuracy/genotype_validation": accuracy}
    metrics |= table.metrics(genotype) if table else {}
    if run.budget is not None:
        metrics["budget/cost"] = run.budget.cost(genotype)
    stopped = {} if run.stopped is None else {"stopped": run.stopped}
    write_summary(
        folder,
        "search",
        overrides,
        metrics,
        genotype=text,
        seconds=run.seconds,
        environment=environment(run.supernet.device),
        **stopped,
    )
    more = ["front.csv", "front.png"] if front else []
    final = {"result/validation_accuracy": accuracy}
    if score := table.score(genotype) if table else None:
        final |= {
            "result/benchmark_accuracy": score.accuracy,
            "result/benchmark_regret": score.regret,
        }
    if run.budget is not None:
        final["result/cost"] = run.budget.cost(genotype)
    made = [GENOTYPE, PICTURE, PROBABILITIES_PICTURE, *more, "metrics.jsonl"]
    trained = retraining(folder / GENOTYPE, flat_texts(run.folder.settings), overrides)
    rows = [
        *(("stopped", reason) for reason in stopped.values()),
        ("genotype", short_text(genotype)),
        ("validation accuracy", f"{accuracy:.2f} % (under the supernet's weights)"),
        *([("judges", f"{', '.join(judges)} (what each said: {CANDIDATES})")] if judges else []),
        *([("benchmark", table.describe(genotype))] if table else []),
        *_budget_rows(run, genotype, accuracy, front),
        ("time", f"{run.seconds:.0f} s"),
        ("results", f"{folder}/ ({', '.join(made)})"),
        ("next", f"{command_for('retrain')} {shlex.join(trained)}"),
        ("watch", _watch(folder)),
    ]
    _log_result(run, genotype, final, rows)
    _say(f"{confidence_table(genotype)}\n{summary_table(rows, 'search done')}")


def _watch(folder: Path) -> str:
    """TensorBoard keeps 10 pictures of a kind unless it is told otherwise."""
    return f"tensorboard --samples_per_plugin images=100 --logdir {shlex.quote(str(folder))}"


def _log_result(
    run: Search | Retrain,
    genotype: Genotype,
    metrics: dict[str, float],
    rows: Sequence[tuple[str, str]],
) -> None:
    """Puts what the run came to beside its curves: metrics, pictures of the cells, a text."""
    step = run.step + 1
    with run.open_log(run.step) as log:
        if log is not None:
            history = History.of_metrics(log.past)
            if history.epochs:
                curves = draw_curves(history, genotype.choices)
                save_figure(curves, run.folder.path / PROBABILITIES_PICTURE)
            log.results(step, metrics)
            log_genotype(log, "result", genotype, step, "result")
            log.text("result", result_text(rows), step)


def _budget_rows(
    run: Search, genotype: Genotype, accuracy: float, front: Sequence[FrontPoint]
) -> list[tuple[str, str]]:
    budget = run.budget
    if budget is None:
        return []
    say, name = budget.describe, budget.name.replace("_", " ")
    rows = [(name, f"{say(budget.cost(genotype))} of {say(budget.target)} at most")]
    rows += [("front", f"{point.accuracy:6.2f} % at {say(point.cost)}") for point in front]
    rows = [(name if i < 2 else "", value) for i, (name, value) in enumerate(rows)]
    better = [p for p in front if p.cost <= budget.target and p.accuracy > accuracy + NOTEWORTHY]
    if better:
        rows.append(
            (
                "note",
                f"the front has {better[-1].accuracy:.2f} % within the budget: derive=local_search "
                "looks for such, from this run with resume=true",
            )
        )
    if not run.supernet.allows(genotype.choices):
        why = "some of its options were pruned: none that are left were found within the budget"
        rows.append(("note", why))
    return rows


def finish_retrain(run: Retrain, genotype: Genotype, cost: Cost, overrides: Sequence[str]) -> float:
    """Writes genotype, weights, `model.json`, `summary.json` and pictures; prints a summary.

    Args:
        run: The finished retraining.
        genotype: What was trained.
        cost: Of the network, without its auxiliary head.
        overrides: Of the command line.

    Returns:
        Top-1 in percent on the test set of the weights that are written: of their moving average,
        where there is one.
    """
    folder, result = run.folder.path, run.result
    assert result is not None
    final = result if run.result_ema is None else run.result_ema
    replace_text(folder / GENOTYPE, genotype.to_json())
    run.save_weights(folder / WEIGHTS)
    description = describe_network(run, genotype, cost)
    replace_text(folder / DESCRIPTION, description.to_json())
    save_genotype_picture(genotype, folder / PICTURE)
    network = _network_picture(run, genotype, description)
    save_figure(network, folder / NETWORK_PICTURE)
    # The first is what is returned, here and where a sweep goes on and finds the run finished.
    metrics = {} if run.result_ema is None else {"accuracy/test_top1_ema": run.result_ema.top1}
    metrics |= {"accuracy/test_top1": result.top1, "accuracy/test_top5": result.top5}
    write_summary(
        folder,
        "retrain",
        overrides,
        metrics,
        genotype=genotype_text(genotype),
        seconds=run.seconds,
        environment=environment(run.device),
        num_parameters=cost.num_parameters,
        multiply_adds=cost.multiply_adds,
    )
    model = "" if description.model is None else f" model={description.model}"
    made = [WEIGHTS, DESCRIPTION, SUMMARY, NETWORK_PICTURE, "metrics.jsonl"]
    ema = f", moving average {run.result_ema.top1:.2f} %" if run.result_ema else ""
    rows = [
        ("genotype", genotype_text(genotype)),
        ("test accuracy", f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %{ema}"),
        ("best epoch", f"top-1 {run.best_top1:.2f} % (picked on the test set: do not report)"),
        ("parameters", f"{cost.num_parameters:,} ({cost.num_parameters / 1e6:.2f} M)"),
        ("multiply-adds", f"{cost.multiply_adds / 1e6:.2f} M an image"),
        ("time", f"{run.seconds:.0f} s"),
        ("results", f"{folder}/ ({', '.join(made)})"),
        ("next", f"{command_for('export')} {shlex.quote(f'run={folder}')}{model}"),
        ("watch", _watch(folder)),
    ]
    _log_result(run, genotype, {"result/test_accuracy": final.top1}, rows)
    _say(summary_table(rows, "retraining done"))
    return final.top1


def _network_picture(run: Retrain, genotype: Genotype, description: ModelDescription) -> Figure:
    """The network as the sequence of its parts."""
    images = description.preprocessing
    channels, size = images.in_channels, images.image_size
    if description.model is None:
        parts = outline(
            genotype,
            description.sizes,
            in_channels=channels,
            num_classes=description.num_classes,
            image_size=size,
        )
    else:
        parts = parts_of(run.network, genotype, channels, size)
    return draw_network(parts, title_of(parts, genotype.space, channels, size))


def _say(text: str) -> None:
    """Prints to standard output, and to the file of the log."""
    print(text)
    logging.getLogger(FILE_LOGGER).info("\n%s", text)


def write_summary(
    folder: Path,
    kind: str,
    overrides: Sequence[str],
    metrics: dict[str, float],
    **facts: str | float | dict[str, str],
) -> None:
    """Writes `summary.json`, which `python -m nas.sweep` reads."""
    content = {"kind": kind, "overrides": list(overrides), "metrics": metrics, **facts}
    replace_text(folder / SUMMARY, json.dumps(content, indent=2) + "\n")


def environment(device: torch.device) -> dict[str, str]:
    """What a run ran on and with: releases by package, the device's own name for itself."""
    return {
        "release": release(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": f"{device.type}: {device_name(device)}",
        "threads": str(torch.get_num_threads()),
    }


def confidence_table(genotype: Genotype) -> str:
    """How sure the derivation is of each choice, as text."""
    width = max(len(name) for name in genotype.choices)
    head = f"{'choice':<{width}}  {'option':<14}  probability  margin  entropy"
    lines = [
        f"{name:<{width}}  {option:<14}  "
        f"{c.probability:>11.3f}  {c.margin:>6.3f}  {c.entropy:>7.3f}"
        for name, option in genotype.choices.items()
        for c in [genotype.confidence[name]]
    ]
    return "\n".join([head, *lines])
