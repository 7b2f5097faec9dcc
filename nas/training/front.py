"""The front of accuracy and cost: what the logits of one search say at every budget."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from nas.cost.budget import Budget, FrontPoint, WithinBudget, front, targets
from nas.deriving.deriver import derive_argmax, draw_genotype
from nas.files import replace_text, replacing
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.monitor.console import Progress
from nas.training.search import Search

TABLE, PICTURE = "front.csv", "front.png"
DRAWS = 3
"""Genotypes that are drawn within each limit from the logits, and as many with all options equally
likely, besides the most probable one."""


def find_front(
    run: Search, derived: Genotype, *, num_limits: int, max_images: int | None
) -> list[FrontPoint]:
    """Evaluates what can be derived within limits from the cheapest to the most expensive.

    Writes `front.csv` and `front.png`.

    Args:
        run: The finished search; its budget's cost is what the limits are put to.
        derived: The result of the search, which is a point, too.
        num_limits: From the lowest cost of the space to the highest.
        max_images: Validation images for each genotype; None for all.

    Returns:
        Those that no other beats in both accuracy and cost, by ascending cost.
    """
    budget, supernet = run.budget, run.supernet
    assert budget is not None, "a search without a budget has no cost"
    learnt, genotypes = supernet.probabilities(), [derived]
    # Logits that were trained within a budget rule out what costs more. The weights do not.
    uniform = {name: (row > 0) / (row > 0).sum() for name, row in learnt.items()}
    for limit in targets(budget.range.lowest, budget.range.highest, num_limits):
        within = WithinBudget(run.space, supernet.choices, replace(budget, target=limit))
        genotypes.append(derive_argmax(within, learnt))
        for probabilities in (learnt, uniform) * DRAWS:
            genotypes.append(draw_genotype(within, probabilities, run.source.generator))
    distinct = {run.space.key(genotype): genotype for genotype in genotypes}
    points = []
    with Progress(len(distinct), unit="genotype") as progress:
        for number, genotype in enumerate(distinct.values(), 1):
            accuracy = run.evaluate(genotype, max_images)
            points.append(FrontPoint(genotype, budget.cost(genotype), accuracy))
            progress.update(number)
    best = front(points)
    replace_text(run.folder.path / TABLE, front_csv(points, best, budget))
    with replacing(run.folder.path / PICTURE) as path:
        draw_front(points, best, budget).savefig(path, format="png", dpi=160)
    return best


def front_csv(points: Sequence[FrontPoint], best: Sequence[FrontPoint], budget: Budget) -> str:
    """All points by ascending cost; `on_front` is 1 for those that nothing beats."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([budget.name, "validation_accuracy", "on_front", "architecture"])
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        row = [f"{point.cost:.10g}", f"{point.accuracy:.3f}", int(point in best)]
        writer.writerow([*row, genotype_text(point.genotype)])
    return text.getvalue()


def draw_front(points: Sequence[FrontPoint], best: Sequence[FrontPoint], budget: Budget) -> Figure:
    """Accuracy against cost: all points, the front as a line, the budget as a vertical."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter([p.cost for p in points], [p.accuracy for p in points], s=18, color="#9aa5b1")
    axes.plot(
        [p.cost for p in best], [p.accuracy for p in best], "o-", color="#14508f", label="front"
    )
    axes.axvline(budget.target, color="#c0392b", linestyle="--", linewidth=1, label="budget")
    axes.set_xlabel(", ".join(filter(None, [budget.name.replace("_", " "), budget.unit])))
    axes.set_ylabel("validation accuracy in the supernet, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
