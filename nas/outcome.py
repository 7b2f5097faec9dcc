"""What a search or a retraining came to, for a notebook: read from the folder of the run."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from nas.deploy.load import load
from nas.errors import UserError
from nas.genotype import Genotype
from nas.genotype.text import short_text
from nas.monitor.drawing import draw_genotype
from nas.monitor.overview import draw_overview
from nas.report.records import RunRecord

_DPI, _COLORS = 90, 64


class Picture:
    """A figure that a notebook shows.

    Attributes:
        figure: Of matplotlib.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def save(self, path: str | Path) -> None:
        """Writes it to a file: PNG, SVG or PDF by its suffix."""
        self.figure.savefig(path)

    def __repr__(self) -> str:
        return "Picture(), which a notebook shows; save(path) writes it to a file"

    def _repr_png_(self) -> bytes:
        drawn, content = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=_DPI)
        # A palette: a notebook is stored with its pictures, which so take a fifth of the space.
        Image.open(drawn).convert("RGB").quantize(_COLORS).save(content, "PNG", optimize=True)
        return content.getvalue()


@dataclass(frozen=True)
class Outcome:
    """What both have.

    Attributes:
        run_dir: Folder of the run.
        genotype: What was found, or trained.
        record: All that the folder tells.
    """

    run_dir: Path
    genotype: Genotype
    record: RunRecord

    @classmethod
    def load(cls, run_dir: str | Path) -> Self:
        """Reads the folder of a finished run.

        Raises:
            UserError: it is none.
        """
        record = RunRecord.load(Path(run_dir))
        if record.genotype is None:
            raise UserError(f"{run_dir}: the run is not finished")
        return cls(Path(run_dir), record.genotype, record)

    @cached_property
    def history(self) -> dict[str, np.ndarray]:
        """Every metric (docs/metrics.md), one value an epoch; NaN where it was not logged."""
        names = dict.fromkeys(name for line in self.record.metrics for name in line)
        lines = self.record.metrics
        return {name: np.array([line.get(name, math.nan) for line in lines]) for name in names}

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics."""
        return dict(self.record.results)

    @property
    def seconds(self) -> float:
        """How long the run took."""
        return self.record.seconds

    def _curves(self, *names: str) -> dict[str, np.ndarray]:
        found = {name: self.history[name] for name in names if name in self.history}
        return {name.partition("/")[2].replace("_", " "): values for name, values in found.items()}


class SearchResult(Outcome):
    """What a search has found."""

    @property
    def accuracy(self) -> float:
        """Of the genotype on the validation half under the supernet's weights, in percent."""
        return self.metrics["accuracy/genotype_validation"]

    @cached_property
    def probabilities(self) -> dict[str, dict[str, np.ndarray]]:
        """Of each choice, by option: one value an epoch."""
        return {
            choice: {option: self.history[f"probability/{choice}/{option}"] for option in options}
            for choice, options in self.record.choices().items()
        }

    def plot(self) -> Picture:
        """Losses, accuracies, and the probabilities of the choices over the epochs."""
        panels = [
            ("loss", self._curves("loss/train", "loss/validation")),
            (
                "accuracy in %",
                self._curves(
                    "accuracy/train", "accuracy/validation", "accuracy/genotype_validation"
                ),
            ),
        ]
        epochs = self.history["epoch"] + 1
        return Picture(draw_overview(epochs, panels, self.probabilities, self.genotype.choices))

    def cell(self, *, dark: bool = False) -> Picture:
        """The genotype: its cells as graphs, or the list of its choices."""
        return Picture(draw_genotype(self.genotype, dark=dark))

    def _repr_png_(self) -> bytes:
        return self.cell()._repr_png_()

    def __repr__(self) -> str:
        return (
            f"SearchResult({short_text(self.genotype)}, {self.accuracy:.2f} % on the validation "
            f"half, {self.seconds:.0f} s, {self.run_dir})"
        )


class RetrainResult(Outcome):
    """What a retraining came to."""

    @property
    def accuracy(self) -> float:
        """Top-1 on the test images, in percent, of the weights that `network` has.

        These are the moving average, where there is one.
        """
        metrics = self.metrics
        return metrics.get("accuracy/test_top1_ema", metrics["accuracy/test_top1"])

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the network."""
        return int(self.record.facts["num_parameters"])

    def network(self, model: Callable[..., Any] | None = None) -> nn.Module:
        """The trained network, as `nas.load` gives it; `model` makes it where it is your own."""
        return load(self.run_dir, model=model)

    def plot(self) -> Picture:
        """Losses and accuracies over the epochs."""
        names = [name for name in self.history if name.startswith(("loss/", "accuracy/"))]
        panels = [
            ("loss", self._curves(*[name for name in names if name.startswith("loss/")])),
            ("accuracy in %", self._curves(*[n for n in names if "top1" in n])),
        ]
        return Picture(draw_overview(self.history["epoch"] + 1, panels, {}, {}))

    def __repr__(self) -> str:
        return (
            f"RetrainResult({self.accuracy:.2f} % on the test images, {self.num_parameters:,} "
            f"parameters, {self.seconds:.0f} s, {self.run_dir})"
        )
