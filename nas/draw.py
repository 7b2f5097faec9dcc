"""Draws a run or a genotype: `nas-draw runs/search/mine`, or `python -m nas.draw darts_v2`.

Pictures: the cells as graphs, the whole network as a sequence of its parts, and, of a search, the
probabilities over time as curves, as a heat map, and as an animation.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas.deploy.description import GENOTYPE
from nas.errors import UserError, unknown_name
from nas.files import check_writable
from nas.genotype import Genotype
from nas.genotype.resolve import resolve_genotype
from nas.monitor.animation import write_animation
from nas.monitor.drawing import save_figure, save_genotype_picture
from nas.monitor.history import History
from nas.monitor.network_drawing import draw_network, title_of
from nas.monitor.panels import draw_curves, draw_heat_maps
from nas.monitor.run_log import METRICS_FILE
from nas.outline import outline
from nas.report.records import RunRecord
from nas.spaces import SPACES, Custom

FORMATS = ("png", "svg", "gif")
THEMES = ("light", "dark")
FOLDER = "pictures"
DEFAULT_IMAGE = {"in_channels": 3, "num_classes": 10, "image_size": 32}
"""What the network is drawn for where nobody says it: CIFAR-10."""


@dataclass(frozen=True)
class Subject:
    """What is drawn.

    Attributes:
        genotype: None for a search that has not ended yet.
        history: Of a search; empty for all else.
        sizes: Of the network, by name.
        image: `in_channels`, `num_classes`, `image_size`, as far as they are known.
        folder: Of the run; None for a genotype.
    """

    genotype: Genotype | None
    history: History
    sizes: Mapping[str, Any]
    image: Mapping[str, int]
    folder: Path | None


def read_subject(source: str) -> Subject:
    """What `source` names: the folder of a run, or all that `genotype=` takes.

    Raises:
        UserError: it is none of these, or damaged.
    """
    folder = Path(source)
    try:
        has_begun = (folder / ".hydra").is_dir() and not (folder / GENOTYPE).exists()
        is_run = folder.is_dir() and (has_begun or (folder / METRICS_FILE).exists())
    except OSError:  # a genotype as text is too long for a path
        is_run = False
    if not is_run:
        return Subject(resolve_genotype(source), History(), {}, {}, None)
    run = RunRecord.load(folder)
    if (known := run.network) is not None:
        image = {
            "in_channels": known.preprocessing.in_channels,
            "image_size": known.preprocessing.image_size,
            "num_classes": known.num_classes,
        }
        return Subject(run.genotype, History(), known.sizes, image, folder)
    return Subject(run.genotype, run.history, {}, {}, folder)


def pictures_of(
    subject: Subject, sizes: Mapping[str, Any], image: Mapping[str, int]
) -> dict[str, Callable[[Path, bool], None]]:
    """What there is to be drawn, by name: functions of a path (PNG or SVG) and whether it is dark.

    Args:
        subject: What is drawn.
        sizes: Of the network, before those that are known.
        image: Likewise.

    Raises:
        UserError: the network cannot be built.
    """
    found: dict[str, Callable[[Path, bool], None]] = {}
    genotype, history = subject.genotype, subject.history
    chosen = genotype.choices if genotype else None
    if genotype is not None:
        found["cell"] = lambda path, dark: save_genotype_picture(genotype, path, dark=dark)
        if genotype.space != Custom.name:
            given = {**DEFAULT_IMAGE, **subject.image, **image}
            parts = outline(genotype, {**subject.sizes, **sizes}, **given)
            title = title_of(parts, genotype.space, given["in_channels"], given["image_size"])
            found["network"] = lambda path, dark: save_figure(
                draw_network(parts, title, dark=dark), path
            )
    if history.epochs:
        found["probabilities"] = lambda path, dark: save_figure(
            draw_curves(history, chosen, dark=dark), path
        )
        found["history"] = lambda path, dark: save_figure(
            draw_heat_maps(history, chosen, dark=dark), path
        )
    return found


def draw(options: argparse.Namespace) -> list[Path]:
    """Writes the pictures that the command line asks for; returns their paths.

    Raises:
        UserError: there is nothing to draw, or it cannot be read or written.
    """
    subject = read_subject(options.source)
    sizes = read_sizes(options.sizes, subject.genotype)
    image = {n: v for n in DEFAULT_IMAGE if (v := getattr(options, n)) is not None}
    for name, value in image.items():
        if value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}: must be at least 1")
    pictures = pictures_of(subject, sizes, image)
    if not pictures:
        raise UserError(f"{options.source}: nothing to draw yet, the first epoch is not done")
    if options.format == ["gif"] and not subject.history.epochs:
        raise UserError(f"--format gif: {options.source} is no search, only those have a history")
    output = options.output or (subject.folder or Path()) / FOLDER
    check_writable(output / "cell.png")
    written = []
    for theme in dict.fromkeys(options.theme):
        dark = theme == "dark"
        suffix = "_dark" if dark else ""
        for kind in dict.fromkeys(options.format):
            if kind == "gif":
                if subject.history.epochs:
                    path = output / f"probabilities{suffix}.gif"
                    chosen = subject.genotype.choices if subject.genotype else None
                    write_animation(subject.history, path, chosen, dark=dark)
                    written.append(path)
                continue
            for name, write in pictures.items():
                path = output / f"{name}{suffix}.{kind}"
                write(path, dark)
                written.append(path)
    return written


def read_sizes(texts: Sequence[str], genotype: Genotype | None) -> dict[str, int]:
    """Sizes of the network as `name=value`.

    Raises:
        UserError: one is not of that form, or its space has no such size.
    """
    sizes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value.isdecimal() or int(value) < 1:
            raise UserError(f"--sizes {text}: must be name=number, such as channels=36")
        if genotype is not None:
            allowed = [f.name for f in fields(SPACES.get(genotype.space)) if f.type in (int, "int")]
            allowed = [n for n in allowed if n not in DEFAULT_IMAGE]
            if name not in allowed:
                raise unknown_name(f"size of {genotype.space}", name, allowed, "--sizes")
        sizes[name] = int(value)
    return sizes


def parser() -> argparse.ArgumentParser:
    """The command line of `nas-draw`."""
    made = argparse.ArgumentParser(
        prog="nas-draw",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  nas-draw runs/search/mine --format png gif\n"
        "  nas-draw runs/retrain/mine --theme light dark --format svg\n"
        "  nas-draw darts_v2 --sizes channels=36 cells=20 --output pictures",
    )
    made.add_argument(
        "source",
        help="folder of a run, genotype.json, a NAS-Bench-201 string, a DARTS text, or the name of "
        "a published cell",
    )
    made.add_argument(
        "--output", type=Path, help=f"folder; default: {FOLDER} in that of the run, else here"
    )
    made.add_argument("--theme", nargs="+", choices=THEMES, default=["light"], help="default light")
    made.add_argument("--format", nargs="+", choices=FORMATS, default=["png"], help="default png")
    made.add_argument(
        "--sizes", nargs="+", default=[], metavar="NAME=NUMBER", help="of the network"
    )
    for name, default in DEFAULT_IMAGE.items():
        made.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            metavar="N",
            help=f"of the images; default: those of the retraining, else {default}",
        )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `nas-draw`; returns the exit code."""
    try:
        for path in draw(parser().parse_args(arguments)):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
