"""The official NATS-Bench files (Dong et al., 2021, arXiv:2009.00437), read by their own package.

The package loads pickles, which run whatever code is in them: a file must come from whom one
trusts. As a CSV file of `nas.tables.benchmark_table` the accuracies are data, and read in no time:

    python -m nas.tables.nats_bench NATS-tss-v1_0-3ffb9-simple --epochs 200 > nasbench201.csv
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import UserError, unknown_name
from nas.monitor.console import Progress

INSTALL = "pip install .[nats-bench]"

EPOCHS = (12, 200)
"""Of training behind the two sets of results that the files have."""

COLUMNS = {
    "cifar10_valid": ("cifar10-valid", "valid-accuracy"),
    "cifar10_test": ("cifar10", "test-accuracy"),
    "cifar100_valid": ("cifar100", "valid-accuracy"),
    "cifar100_test": ("cifar100", "test-accuracy"),
    "imagenet16_120_valid": ("ImageNet16-120", "valid-accuracy"),
    "imagenet16_120_test": ("ImageNet16-120", "test-accuracy"),
}
"""What the package calls data set and metric, by column; of `cifar10_valid` the networks were
trained on half of the training images."""


def is_nats_bench(path: Path) -> bool:
    """Whether `path` is a folder of one file an architecture, or the one large file."""
    return path.is_dir() or path.suffix == ".pbz2"


def nats_bench_rows(
    path: Path, epochs: int, column: str
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The lines of the table: where each is from, and `architecture`, `epochs` and `column`.

    An accuracy is the mean over the trials (random seeds) of an architecture, in percent, after
    their last epoch. Takes minutes for all 15,625 and shows how far it is.

    Args:
        path: The folder `NATS-tss-v1_0-3ffb9-simple` or the file `NATS-tss-v1_0-3ffb9.pickle.pbz2`.
        epochs: Of training behind the results.
        column: One of `COLUMNS`.

    Raises:
        UserError: the package is missing or cannot read the files, or they do not have the results.
    """
    if epochs not in EPOCHS:
        known = " and ".join(map(str, EPOCHS))
        raise UserError(f"benchmark.epochs is {epochs}: NATS-Bench has results after {known}")
    if column not in COLUMNS:
        raise unknown_name("column", column, COLUMNS, "benchmark.column")
    try:
        import nats_bench
    except ImportError:
        raise UserError(
            f"benchmark.nasbench201: {path} needs the package nats-bench: {INSTALL}"
        ) from None
    where = str(path)
    try:
        api = nats_bench.create(str(path), "tss", fast_mode=path.is_dir(), verbose=False)
        indices = sorted(api.evaluated_indexes) or range(len(api))  # a folder is read bit by bit
        with Progress(len(indices), unit="architecture") as progress:
            for done, index in enumerate(indices, start=1):
                where = f"{path}, architecture {index}"
                yield where, _row(api, index, epochs, column)
                progress.update(done)
    except UserError:
        raise
    except Exception as error:  # the package raises many kinds for files that it cannot read
        raise UserError(
            f"benchmark.nasbench201: {where}: nats-bench cannot read it "
            f"({type(error).__name__}: {error})"
        ) from None


def _row(api: Any, index: int, epochs: int, column: str) -> dict[str, str]:
    """What `api` has of the architecture with the number `index`."""
    dataset, metric = COLUMNS[column]
    info = api.get_more_info(index, dataset, hp=str(epochs), is_random=False)
    trials = api.arch2infos_dict[index][str(epochs)].query(dataset).values()
    trained = {trial.get_total_epoch() for trial in trials}
    # All curves of all trials: 2 MB an architecture, which the package would keep.
    del api.arch2infos_dict[index]
    return {
        "architecture": api.arch(index),
        "epochs": str(next((found for found in trained if found != epochs), epochs)),
        column: repr(float(info[metric])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the CSV file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nas.tables.nats_bench", description=__doc__)
    parser.add_argument("path", type=Path, help="folder or .pickle.pbz2 file; must be trusted")
    parser.add_argument("--epochs", type=int, choices=EPOCHS, default=200, help="default 200")
    parser.add_argument("--column", choices=COLUMNS, default="cifar10_test", help="of the table")
    options = parser.parse_args(arguments)
    writer = csv.DictWriter(sys.stdout, ["architecture", "epochs", options.column])
    try:
        for number, (_, row) in enumerate(
            nats_bench_rows(options.path, options.epochs, options.column)
        ):
            if number == 0:
                writer.writeheader()
            writer.writerow(row)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
