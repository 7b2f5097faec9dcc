"""Classifies image files: `nas-predict exported photos/`, or `python -m nas.predict`."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nas.deploy.predictor import Prediction, Predictor, images_in
from nas.errors import UserError

Row = tuple[Path, list[Prediction]]


def write_csv(rows: Iterator[Row]) -> None:
    """A line for each class of each image: image, rank from 1, label, probability."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "label", "probability"])
    for path, predictions in rows:
        for rank, (label, probability) in enumerate(predictions, start=1):
            writer.writerow([path, rank, label, f"{probability:.6f}"])


def write_json_lines(rows: Iterator[Row]) -> None:
    """A JSON object a line for each image."""
    for path, predictions in rows:
        found = [prediction._asdict() for prediction in predictions]
        print(json.dumps({"image": str(path), "predictions": found}, ensure_ascii=False))


WRITERS: dict[str, Callable[[Iterator[Row]], None]] = {"csv": write_csv, "json": write_json_lines}


def predict(options: argparse.Namespace) -> int:
    """Prints the predictions; returns the number of images that could not be read."""
    num_broken = 0

    def skip(error: UserError) -> None:
        nonlocal num_broken
        num_broken += 1
        print(f"error: {error}", file=sys.stderr)

    if options.top < 1:
        raise UserError(f"--top is {options.top}: must be at least 1")
    paths = [path for given in options.image for path in images_in(given)]
    predictor = Predictor(
        options.network,
        device=options.device,
        batch_size=options.batch_size,
        model=options.model,
        trust_recorded_model=options.trust_recorded_model,
    )
    WRITERS[options.format](predictor.many(paths, options.top, skip=skip))
    sys.stdout.flush()
    return num_broken


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `nas-predict`; returns the exit code: 1 if anything could not be read."""
    parser = argparse.ArgumentParser(prog="nas-predict", description=__doc__)
    parser.add_argument("network", type=Path, help="an export, or the folder of a retraining")
    parser.add_argument("image", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--top", type=int, default=1, help="classes of an image, default 1")
    parser.add_argument("--format", choices=WRITERS, default="csv", help="json: one object a line")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time, default 64")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--model", help="class of a model of your own; it is imported, and so run")
    parser.add_argument(
        "--trust-recorded-model", action="store_true", help="import the one that NETWORK names"
    )
    try:
        return 1 if predict(parser.parse_args(arguments)) else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
