"""What a user types to start a program of this package."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nas.data.settings import DataSettings

DECIDE_IMAGES = ("data.name", "data.path", "data.image_size", "data.test_fraction")
"""Settings that decide which images there are, and which of them are test images."""

DOWNLOADS = "data"
"""Where data sets are downloaded to if nothing else is said."""

NAMES_OF_CODE = ("hydra", "-", "space.model", "network.model", "benchmark.nasbench201")
"""What could be imported or unpickled: a user may type it, a file must not bring it."""


def command_for(program: str) -> str:
    """`python retrain.py`; `nas-retrain` where the program that runs was installed.

    Args:
        program: `search`, `retrain` or `export`.
    """
    is_installed = Path(sys.argv[0]).name.startswith("nas-")
    return f"nas-{program}" if is_installed else f"python {program}.py"


def without_code(overrides: Iterable[str]) -> tuple[list[str], list[str]]:
    """The overrides that a file may bring, and those that could make a program run code."""
    kept: list[str] = []
    refused: list[str] = []
    for override in overrides:
        name, _, value = override.lstrip("+~").partition("=")
        is_table = name == "benchmark.nasbench201" and value.endswith(".csv")
        is_code = name.startswith(NAMES_OF_CODE) and not is_table
        # Within braces there could be any of them.
        hides = "{" in value and not name.startswith(("space.arguments", "network.arguments"))
        (refused if is_code or hides else kept).append(override)
    return kept, refused


def retraining(genotype: Path, settings: Mapping[str, str], overrides: Sequence[str]) -> list[str]:
    """The overrides that train what a search has derived, on the images it has searched with.

    Args:
        genotype: File of the derived genotype.
        settings: All of the search, as by `nas.nested.flat_texts`.
        overrides: Of its command line.
    """
    return [f"genotype={genotype}", *_model(settings), *_images(settings, overrides)]


def _model(settings: Mapping[str, str]) -> list[str]:
    """What a model of the user's own needs to be built once more."""
    if settings.get("space.name") != "custom":
        return []
    start = "space.arguments."
    given = {k.removeprefix(start): v for k, v in settings.items() if k.startswith(start)}
    arguments = [f"network.arguments.{name}={value}" for name, value in given.items()]
    return [f"network.model={settings['space.model']}", *arguments]


def _images(settings: Mapping[str, str], overrides: Sequence[str]) -> list[str]:
    given = [o for o in overrides if o.split("=")[0] in ("data", *DECIDE_IMAGES)]
    told = {override.split("=")[0] for override in given}
    # What no override has said, an experiment has.
    name, path = settings.get("data.name"), settings.get("data.path")
    if name not in (None, DataSettings().name) and not told & {"data", "data.name"}:
        given.insert(0, f"data={name}")
        if path not in (None, "null", DOWNLOADS) and "data.path" not in told:
            given.insert(1, f"data.path={path}")
    return given
