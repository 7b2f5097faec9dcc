"""Mean and deviation of the runs of a sweep: `python -m nas.sweep runs/search/sweep_...`.

Runs that differ in nothing but the seed form one row; other overrides tell the rows apart.
"""

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.errors import UserError
from nas.files import replace_text

SUMMARY = "summary.json"
FAILURES = "failures.txt"
"""In the folder of a sweep: a line for each run that failed."""
_NOT_A_SETTING = ("seed=", "run_dir=", "resume=", "hydra.")


@dataclass(frozen=True)
class Result:
    """What one finished run left in its `summary.json`.

    Attributes:
        folder: Of the run.
        overrides: Of its command line.
        metrics: Final metrics by name; the first is what the program returned.
        genotype: Text form.
        seconds: How long it took.
    """

    folder: Path
    overrides: tuple[str, ...]
    metrics: dict[str, float]
    genotype: str
    seconds: float

    @property
    def group(self) -> str:
        """Its overrides without the seed, in an order that is not that of the command line."""
        # `++seed=1` sets what `seed=1` does.
        overrides = [o.lstrip("+") for o in self.overrides]
        settings = [o for o in overrides if not o.startswith(_NOT_A_SETTING)]
        # By name alone: of one that is given twice the last counts.
        return " ".join(sorted(settings, key=lambda o: o.partition("=")[0])) or "(defaults)"

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Reads a `summary.json`.

        Raises:
            UserError: it is damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                folder=path.parent,
                overrides=tuple(map(str, content["overrides"])),
                metrics={str(k): float(v) for k, v in content["metrics"].items()},
                genotype=str(content["genotype"]),
                seconds=float(content["seconds"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not the summary of a run ({error})") from None


def load_results(folders: Sequence[Path]) -> list[Result]:
    """The results of all finished runs in and below `folders`.

    Raises:
        UserError: a folder is missing, or there is no finished run.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no such folder: {folder}")
    paths = sorted({path for folder in folders for path in folder.rglob(SUMMARY)})
    if not paths:
        listed = ", ".join(map(str, folders))
        raise UserError(f"no finished run (no {SUMMARY}) in {listed}")
    return [Result.load(path) for path in paths]


COLUMNS = ("settings", "metric", "runs", "mean", "deviation", "lowest", "highest", "s a run")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a group and metric: `COLUMNS`.

    The deviation is that of a sample (n - 1), as papers report it; one run has none.
    """
    found: list[tuple[str, ...]] = []
    for group in dict.fromkeys(result.group for result in results):
        members = [result for result in results if result.group == group]
        for metric in dict.fromkeys(name for member in members for name in member.metrics):
            having = [member for member in members if metric in member.metrics]
            values = [member.metrics[metric] for member in having]
            # Of these alone: a search and a retraining may have the same overrides.
            seconds = statistics.mean(member.seconds for member in having)
            deviation = f"{statistics.stdev(values):.2f}" if len(values) > 1 else "-"
            figures = (f"{statistics.mean(values):.2f}", deviation)
            ends = (f"{min(values):.2f}", f"{max(values):.2f}", f"{seconds:.0f}")
            found.append((group, metric, str(len(values)), *figures, *ends))
    return found


def table(results: Sequence[Result]) -> str:
    """The rows as a Markdown table."""
    # A NAS-Bench-201 string has bars, which would end a cell.
    cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows(results)]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_text(results: Sequence[Result]) -> str:
    """The rows as comma-separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows(results)])
    return text.getvalue()


def failures(folders: Sequence[Path]) -> list[str]:
    """One line for each run that failed when the sweeps in and below `folders` last ran."""
    paths = sorted({path for folder in folders for path in folder.rglob(FAILURES)})
    return [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def genotypes(results: Sequence[Result]) -> str:
    """One line a run: folder, what it was given and others were not, metrics, genotype."""
    shared = set.intersection(*(set(result.overrides) for result in results)) if results else set()
    lines = []
    for result in results:
        metrics = ", ".join(f"{name} {value:.2f}" for name, value in result.metrics.items())
        own = [o for o in result.overrides if o not in shared and not o.startswith("run_dir=")]
        named = f"{result.folder} ({' '.join(own)})" if own else str(result.folder)
        lines.append(f"{named}: {metrics}: {result.genotype}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table of the folders on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nas.sweep", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="folder of a sweep or of runs")
    parser.add_argument("--csv", type=Path, help="a file to write the table to as well")
    options = parser.parse_args(arguments)
    try:
        results = load_results(options.folder)
        if options.csv:
            replace_text(options.csv, csv_text(results))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(results))
    print()
    print(genotypes(results))
    for line in failures(options.folder):
        print(f"failed: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
