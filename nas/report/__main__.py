"""Writes the report: `python -m nas.report runs/search/mine`, or `nas-report`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nas.errors import UserError
from nas.files import replace_text
from nas.report.comparison import comparison
from nas.report.markup import page, tag
from nas.report.records import RunRecord, find_runs
from nas.report.run_page import run_sections, title_of

REPORT = "report.html"
_STYLE = Path(__file__).with_name("style.css")


def report(runs: Sequence[RunRecord], title: str | None = None) -> str:
    """The page on one run, or the one that compares several.

    Args:
        runs: At least one.
        title: Of a comparison.
    """
    style = _STYLE.read_text(encoding="utf-8")
    if len(runs) == 1:
        title = title_of(runs[0])
        return page(title, style, tag("h1", title), run_sections(runs[0]))
    title = title or f"{len(runs)} runs"
    return page(title, style, tag("h1", title), comparison(runs))


def load_all(folders: Sequence[Path]) -> tuple[list[RunRecord], list[str]]:
    """The runs, and a line on each that cannot be shown.

    Raises:
        UserError: none can be.
    """
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(RunRecord.load(folder))
        except UserError as error:
            if len(folders) == 1:
                raise
            problems.append(str(error))
    if not runs:
        raise UserError(f"none of {len(folders)} runs can be shown: {problems[0]}")
    return runs, problems


def place_of(paths: Sequence[Path], folders: Sequence[Path]) -> Path:
    """Where the report goes if nobody says: beside what it tells of."""
    if len(folders) == 1:
        return folders[0] / REPORT
    if len(paths) == 1:
        return paths[0] / REPORT
    return Path(os.path.commonpath([folder.resolve() for folder in folders])) / REPORT


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `nas-report`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="nas-report", description=__doc__)
    parser.add_argument("run", nargs="+", type=Path, help="folder of a run, of runs, or of a sweep")
    parser.add_argument(
        "--output", type=Path, help=f"the page; {REPORT} in the folder if not given"
    )
    options = parser.parse_args(arguments)
    try:
        folders = find_runs(options.run)
        runs, problems = load_all(folders)
        output = options.output or place_of(options.run, folders)
        common = options.run[0] if len(options.run) == 1 else output.parent
        replace_text(output, report(runs, f"{len(runs)} runs in {common}"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
