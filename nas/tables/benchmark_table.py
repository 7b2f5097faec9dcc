"""Tables of architectures that somebody has trained: what a search found, looked up.

A table is a spectator: a search shows what it says and decides nothing by it.
"""

import csv
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError, reason
from nas.genotype import Genotype
from nas.genotype.text import genotype_text, nasbench201_text, parse_nasbench201
from nas.tables.nats_bench import is_nats_bench, nats_bench_rows

ARCHITECTURE, EPOCHS = "architecture", "epochs"


@dataclass(frozen=True)
class Score:
    """What a table says of one architecture.

    Attributes:
        accuracy: Test accuracy in percent.
        rank: 1 for the best of the table; equal accuracies share the better rank.
        regret: Accuracy of the best minus this one, in percentage points.
    """

    accuracy: float
    rank: int
    regret: float


class BenchmarkTable:
    """Test accuracies by architecture, all after the same number of epochs.

    Attributes:
        column: The column that they come from, such as `cifar10_test`.
        epochs: Epochs of training behind them: 12 and 200 are different tables.
        accuracies: In percent, by the text form of the genotype.
    """

    def __init__(self, column: str, epochs: int, accuracies: Mapping[str, float]) -> None:
        self.column, self.epochs, self.accuracies = column, epochs, dict(accuracies)
        self._losses = sorted(-accuracy for accuracy in self.accuracies.values())

    @classmethod
    def read(cls, path: Path, epochs: int, column: str = "cifar10_test") -> "BenchmarkTable":
        """Reads a CSV file with the columns `architecture`, `column` and perhaps `epochs`.

        Or the official files, which must be trusted; see `nas.tables.nats_bench`.

        Args:
            path: The CSV file, the official folder, or the official `.pickle.pbz2` file.
            epochs: What the accuracies must have been got with; checked where the file says it.
            column: Accuracies in percent.

        Raises:
            UserError: the file cannot be read, lacks a column, has other epochs, or a line is not
                a NAS-Bench-201 string with a percentage.
        """
        read = (
            nats_bench_rows(path, epochs, column) if is_nats_bench(path) else _lines(path, column)
        )
        accuracies: dict[str, float] = {}
        for where, row in read:
            text, accuracy = _entry(row, column, epochs, where)
            if text in accuracies:
                raise UserError(f"benchmark.nasbench201: {where}: {text} comes twice")
            accuracies[text] = accuracy
        return cls(column, epochs, accuracies)

    @property
    def best(self) -> float:
        """The highest accuracy."""
        return -self._losses[0]

    def metrics(self, genotype: Genotype) -> dict[str, float]:
        """What the table says of `genotype`, by the names of `nas.monitor.metrics`.

        The names carry the epochs, so that tables of different training are never compared.
        """
        score = self.score(genotype)
        if score is None:
            return {}
        named = {"accuracy": score.accuracy, "rank": float(score.rank), "regret": score.regret}
        return {f"benchmark/{key}_{self.epochs}_epochs": value for key, value in named.items()}

    def describe(self, genotype: Genotype) -> str:
        """The same in words."""
        score = self.score(genotype)
        if score is None:
            return "not in the table"
        return (
            f"{score.accuracy:.2f} % {self.column} after {self.epochs} epochs, rank {score.rank} "
            f"of {len(self.accuracies):,}, {score.regret:.2f} below the best"
        )

    def score(self, genotype: Genotype) -> Score | None:
        """What the table says of `genotype`; None where it does not have it."""
        accuracy = self.accuracies.get(genotype_text(genotype))
        if accuracy is None:
            return None
        rank = bisect_left(self._losses, -accuracy) + 1
        return Score(accuracy, rank, self.best - accuracy)


def _lines(path: Path, column: str) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """The lines of a CSV file by column, and where each is."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"benchmark.nasbench201: cannot read {path}: {reason(error)}") from None
    columns = list(rows[0]) if rows else []
    for needed, remedy in ((ARCHITECTURE, ""), (column, "; set benchmark.column")):
        if needed not in columns:
            raise UserError(
                f"benchmark.nasbench201: {path} has no column '{needed}'; "
                f"it has {', '.join(map(str, columns)) or 'no lines'}{remedy if columns else ''}"
            )
    for line, row in enumerate(rows, start=2):
        yield f"{path}, line {line}", row


def _entry(
    row: Mapping[str, str | None], column: str, epochs: int, where: str
) -> tuple[str, float]:
    """The architecture of a line, in the form that `genotype_text` gives it, and its accuracy."""
    try:
        text = nasbench201_text(parse_nasbench201(row[ARCHITECTURE] or ""))
    except UserError as error:
        raise UserError(f"benchmark.nasbench201: {where}: {error}") from None
    try:
        accuracy = float(row[column] or "")
        own_epochs = int(row.get(EPOCHS) or epochs)
    except ValueError:
        accuracy, own_epochs = -1.0, epochs
    if not 0 <= accuracy <= 100:
        raise UserError(f"benchmark.nasbench201: {where}: {column} is not a percentage")
    if own_epochs != epochs:
        raise UserError(
            f"benchmark.nasbench201: {where}: accuracies after {own_epochs} epochs, "
            f"benchmark.epochs is {epochs}; the two are not compared"
        )
    return text, accuracy
