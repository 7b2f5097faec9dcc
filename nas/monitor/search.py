"""What a search shows of its architecture: probabilities, certainty, draws and drawings."""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap

import torch
from torch import Tensor

from nas.deriving.deriver import normalised_entropy
from nas.genotype import Genotype
from nas.monitor.custom_charts import search_charts
from nas.monitor.drawing import draw_cell, draw_list, split_choices
from nas.monitor.heatmap import draw_probabilities
from nas.monitor.history import History
from nas.monitor.operations import operation_family
from nas.monitor.panels import draw_heat_maps
from nas.monitor.run_log import RunLog
from nas.optimisation.collapse import num_parameter_free, num_skips_in_a_cell
from nas.tables.benchmark_table import BenchmarkTable


def margin(probabilities: Tensor) -> float:
    """Returns the largest minus the second largest of `probabilities`, shape [K]; 1 if K is 1."""
    if probabilities.numel() == 1:
        return 1.0
    largest, second = probabilities.double().topk(2).values.tolist()
    return float(largest - second)


class SearchMonitor:
    """Writes the state of a search to the log, once an epoch.

    Args:
        log: Where to write.
        choice_options: Names of the options of each choice, in the order of the logits.
        image_every: Epochs between two pictures, which are drawn where something has moved since
            the last. They take about 0.3 s of host time and some 100 kB;
            `max(1, num_epochs // 50)` gives about 50 of each in a run.
        table: Of trained architectures, to look up the genotype of each epoch. Nothing else in a
            search has it, so nothing can depend on it.
    """

    def __init__(
        self,
        log: RunLog,
        choice_options: Mapping[str, Sequence[str]],
        *,
        image_every: int = 1,
        table: BenchmarkTable | None = None,
    ) -> None:
        self._log = log
        self._choice_options = {name: tuple(options) for name, options in choice_options.items()}
        self._image_every, self._table = image_every, table
        self._last_text: str | None = None
        self._drawn: Mapping[str, Tensor] = {}
        self._history = History.of_metrics(log.past)
        self._has_charts = False

    def epoch(
        self,
        step: int,
        epoch: int,
        probabilities: Mapping[str, Tensor],
        counts: Mapping[str, Tensor],
        genotype: Genotype,
        genotype_text: str,
        scalars: Mapping[str, float],
        *,
        is_last: bool = False,
    ) -> None:
        """Writes one epoch: metrics, the genotype if it changed, pictures if it is their turn.

        Args:
            step: Updates of the weights so far.
            epoch: Number of the epoch, from 0.
            probabilities: Softmax of the logits by choice, shape [K] each.
            counts: How often each option was drawn in the epoch, by choice, shape [K] each; empty
                if the sampler draws none.
            genotype: What the deriver makes of the logits now.
            genotype_text: Text form of it, to be shown as it is.
            scalars: What else was measured; names are those of `nas.monitor.metrics`.
            is_last: Draws the pictures whatever the epoch.

        Raises:
            ValueError: a tensor has another number of options than the choice, or a metric is not
                in the table.
        """
        self._check_shapes(probabilities)
        self._check_shapes(counts)
        metrics = {
            **scalars,
            **self._certainty(probabilities),
            **self._shares(counts),
            **(self._table.metrics(genotype) if self._table else {}),
            "architecture/num_skip": float(
                sum(operation_family(option) == "skip" for option in genotype.choices.values())
            ),
            "architecture/num_skip_in_cell": float(num_skips_in_a_cell(genotype)),
            "architecture/num_parameter_free": float(num_parameter_free(genotype)),
        }
        if not self._has_charts:
            self._log.layout(search_charts(self._choice_options, metrics))
            self._has_charts = True
        self._log.scalars(step, metrics, epoch)
        self._history.add(epoch + 1, self._named(probabilities))
        if genotype_text != self._last_text:
            # TensorBoard keeps 10 texts: only changes, so that they tell the history. Four spaces
            # make a code block: texts are read as Markdown.
            lines = [part for line in genotype_text.splitlines() for part in wrap(line, 110)]
            block = "\n".join(f"    {line}" for line in lines)
            self._log.text("genotype", block, step)
            self._last_text = genotype_text
        is_due = epoch % self._image_every == 0 and self._has_moved(probabilities)
        if is_last or is_due:
            self._draw(step, epoch + 1, probabilities, genotype)
            self._drawn = {name: row.clone() for name, row in probabilities.items()}

    def _has_moved(self, probabilities: Mapping[str, Tensor]) -> bool:
        """Whether the pictures would differ from the last: not while only weights are trained."""
        drawn = self._drawn
        return not drawn or any(not row.equal(drawn[name]) for name, row in probabilities.items())

    def _check_shapes(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            expected = (len(self._choice_options[name]),)
            if tensor.shape != expected:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {expected}")

    def _named(self, probabilities: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
        """Probabilities by choice and option."""
        return {
            name: dict(zip(self._choice_options[name], row.tolist(), strict=True))
            for name, row in probabilities.items()
        }

    def _certainty(self, probabilities: Mapping[str, Tensor]) -> dict[str, float]:
        metrics = {
            f"probability/{name}/{option}": value
            for name, row in self._named(probabilities).items()
            for option, value in row.items()
        }
        entropies = {name: normalised_entropy(row) for name, row in probabilities.items()}
        margins = {name: margin(row) for name, row in probabilities.items()}
        metrics |= {f"entropy/{name}": value for name, value in entropies.items()}
        metrics |= {f"margin/{name}": value for name, value in margins.items()}
        if probabilities:
            metrics["architecture/entropy"] = sum(entropies.values()) / len(entropies)
            metrics["architecture/margin"] = sum(margins.values()) / len(margins)
        return metrics

    def _shares(self, counts: Mapping[str, Tensor]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for name, row in counts.items():
            for option, count in zip(self._choice_options[name], row.tolist(), strict=True):
                totals[option] = totals.get(option, 0.0) + count
        num_draws = sum(totals.values())
        if num_draws == 0:
            return {}
        return {f"sampled/{option}": count / num_draws for option, count in totals.items()}

    def _draw(
        self, step: int, epochs: int, probabilities: Mapping[str, Tensor], genotype: Genotype
    ) -> None:
        """Draws the state after so many epochs."""
        names, when = list(probabilities), f"epoch {epochs}"
        if names:
            options = list(dict.fromkeys(o for n in names for o in self._choice_options[n]))
            table = torch.full((len(names), len(options)), math.nan, dtype=torch.float64)
            for row, name in enumerate(names):
                columns = [options.index(option) for option in self._choice_options[name]]
                table[row, columns] = probabilities[name].detach().cpu().double()
            heat_map = draw_probabilities(names, options, table)
            self._log.figure("architecture/probabilities", heat_map, step)
            history = draw_heat_maps(self._history, genotype.choices)
            self._log.figure("architecture/history", history, step)
        log_genotype(self._log, "genotype", genotype, step, when)


def log_genotype(log: RunLog, group: str, genotype: Genotype, step: int, remark: str) -> None:
    """Writes pictures of all cells of a genotype, and of its other choices as a list.

    Args:
        log: Where to write.
        group: Of the tags.
        genotype: To be drawn.
        step: Updates of the weights so far.
        remark: What stands beside the name of the space.
    """
    edges, others = split_choices(genotype)
    for cell in edges.cells():
        log.figure(f"{group}/{cell}", draw_cell(edges, cell, remark=remark), step)
    if others.choices:
        log.figure(f"{group}/choices", draw_list(others, remark=remark), step)
