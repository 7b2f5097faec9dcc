"""The command line before Hydra sees it: quoting, and what a run that goes on was started with."""

from collections.abc import Iterable
from pathlib import Path

from conf.together import MULTIRUN, fail
from nas.commands import without_code
from nas.training.checkpoint import last_checkpoint, saved_overrides

_ON = ("true", "yes", "on", "y", "1")


def for_hydra(argument: str) -> str:
    """An override as a user writes it, as Hydra's grammar takes it.

    The text forms of a genotype are quoted, since their characters mean something there. Arguments
    of a user's own model, whose names no schema knows, are marked as new.
    """
    key, _, value = argument.partition("=")
    if key.startswith(("space.arguments.", "network.arguments.")):
        return f"++{argument}"
    if key == "genotype" and value.startswith(("|", "Genotype(")):
        escaped = value.replace("'", "\\'")
        return f"genotype='{escaped}'"
    return argument


def with_saved(arguments: list[str], program: str) -> list[str]:
    """What a run that is resumed was started with, so that it need not be typed again.

    Overrides that are given anew are left out.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if not resumes(arguments) or MULTIRUN & given.keys():
        return []
    run_dir = given.get("run_dir") or newest(Path("runs", program))
    path = last_checkpoint(Path(run_dir)) if run_dir else None
    overrides = [
        override
        for override in (saved_overrides(path) if path else [])
        if override.partition("=")[0] not in given
    ]
    kept, refused = without_code(overrides)
    if refused:
        fail(
            f"{path} asks for {', '.join(refused)}, with which it could run any code: give that on "
            "the command line if you trust it"
        )
    return kept


def resumes(arguments: Iterable[str]) -> bool:
    """Whether the newest run, or that of the `run_dir`, is to go on."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    return given.get("resume", "").lower() in _ON


def newest(parent: Path) -> Path | None:
    """The run under `parent` with the newest checkpoint."""
    runs = [run for run in parent.glob("*") if last_checkpoint(run).exists()]
    return max(runs, key=lambda run: last_checkpoint(run).stat().st_mtime, default=None)


def newest_or_new(parent: str, name: str, resume: bool) -> str:
    """The newest run with a checkpoint under `parent` if `resume`, else `parent/name`."""
    return str((newest(Path(parent)) if resume else None) or Path(parent) / name)
