"""The settings of one run: checked, and with all that goes with them."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from torch import nn

from conf import outline
from conf.defaults import default_settings
from nas.data.given import GivenImages
from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.files import LOCK, replace_text
from nas.nested import flat
from nas.sweep import SUMMARY, Result
from nas.training.checkpoint import last_checkpoint

LARGEST = 2**31 - 1
"""No setting has a use for larger integers, and some are handed to code that cannot hold them."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class Launch:
    """What there is to a run besides its settings.

    Attributes:
        run_dir: Folder of this run.
        program: Name of the entry point, such as `search`.
        overrides: The overrides as they were given.
        settings: All settings as plain nested dicts.
        must_resume: `resume=true` was given for this one run, so there must be a checkpoint.
        is_in_sweep: It is one run of several (`-m`).
        ranks: The processes that do this run together.
        images: Of the caller's own, instead of those that the settings name.
        model: Likewise: makes the model with choices.
    """

    run_dir: Path
    program: str
    overrides: tuple[str, ...]
    settings: dict[str, Any]
    must_resume: bool
    is_in_sweep: bool = False
    ranks: Ranks = ALONE
    images: GivenImages | None = None
    model: Callable[..., nn.Module] | None = None

    def finished(self) -> float | None:
        """What the run returned when it was finished by an earlier start of the same sweep."""
        summary = self.run_dir / SUMMARY
        if not self.is_in_sweep or not summary.exists():
            return None
        result = Result.load(summary)
        return next(iter(result.metrics.values())) if result.overrides == self.overrides else None

    def continues(self) -> bool:
        """Whether this run goes on from a checkpoint.

        Raises:
            UserError: it must, and there is none.
        """
        checkpoint = last_checkpoint(self.run_dir)
        if self.must_resume and not checkpoint.exists():
            raise UserError(f"resume=true, but there is no checkpoint {checkpoint}")
        return checkpoint.exists()


def checked(schema: type[Config], config: DictConfig) -> Config:
    """The settings as an instance of `schema`.

    Raises:
        UserError: a value is out of range or missing.
        OmegaConfBaseException: one is of the wrong type, or refers to what is not there.
        AttributeError: there is a setting that the schema does not have.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        meaning = outline.meanings(schema.__name__).get(missing[0])
        what = f", {meaning}" if meaning else ""
        raise UserError(f"{missing[0]} has no value: give {missing[0]}=...{what}")
    for key, value in flat(OmegaConf.to_container(config, resolve=True)).items():  # type: ignore[arg-type]
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}: must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise UserError(f"{key} is {value}: must be at most {LARGEST}")
    for group in (field.name for field in fields(schema) if field.type is Any):  # type: ignore[arg-type]
        if not is_dataclass(OmegaConf.get_type(config, group)):
            raise UserError(f"{group} is {config[group]!r}: must be one of the group {group}")
    try:
        typed = OmegaConf.to_object(config)
    except ValueError as error:
        raise UserError(str(error)) from None
    assert isinstance(typed, schema)
    return typed


def plain_settings(config: DictConfig) -> dict[str, Any]:
    """All settings as plain nested dicts."""
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


@contextmanager
def saved_settings(
    folder: Path,
    program: str,
    config: DictConfig,
    overrides: Sequence[str],
    choices: Mapping[str, str | None],
    **others: Any,
) -> Iterator[None]:
    """Writes what Hydra would write, which a second run in the folder must not overwrite.

    Those of an earlier start come back if this one is a mistake: it may have been refused for
    having others. Hydra must be initialised.

    Args:
        folder: Of the run.
        program: Name of the entry point.
        config: The composed settings.
        overrides: As they were given.
        choices: Option by group.
        others: Further files by name.
    """
    contents = {"config": config, "overrides": list(overrides), **others}
    contents["defaults"] = default_settings(program, config, choices)
    paths = {name: folder / ".hydra" / f"{name}.yaml" for name in contents}
    before = {path: path.read_bytes() for path in paths.values() if path.is_file()}
    for name, content in contents.items():
        replace_text(paths[name], OmegaConf.to_yaml(content))
    try:
        yield
    except UserError:
        with suppress(OSError):
            for path, content in before.items():
                path.write_bytes(content)
        raise


def remove_if_unused(run_dir: Path, program: str) -> None:
    """Removes the folder of a run of `program` that failed before it wrote anything but settings.

    What anybody else has put there stays, and the folder with it.
    """
    own = {".hydra", LOCK, f"{program}.log"}
    if run_dir.is_dir() and {entry.name for entry in run_dir.iterdir()} <= own:
        shutil.rmtree(run_dir, ignore_errors=True)
