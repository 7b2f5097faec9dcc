"""What a run would be set to if nothing but its groups were chosen, for reports to compare with."""

from collections.abc import Mapping
from functools import cache

import hydra
from omegaconf import DictConfig

from conf import outline


def default_settings(
    program: str, config: DictConfig, choices: Mapping[str, str | None]
) -> DictConfig:
    """The settings of `program` with the groups of `config`, without experiment and overrides.

    Hydra must be initialised. It takes some 0.1 s for the first run of a process.

    Args:
        program: Name of the entry point, such as `search`.
        config: The composed settings of the run.
        choices: Option by group, as Hydra says it.

    Returns:
        The defaults, each group with its own; `name` of a group is that of the program's default,
        so that a group which was chosen differs in it.
    """
    groups = {group: name for group, name in choices.items() if group in config and name}
    defaults = _compose(program, *(f"{group}={name}" for group, name in groups.items())).copy()
    for group, first in outline.groups(program).items():
        if group in groups and "name" in defaults[group]:
            defaults[group].name = first
    return defaults


@cache
def _compose(program: str, *overrides: str) -> DictConfig:
    """Once for all runs of a sweep in one process, which have the same folders of settings."""
    return hydra.compose(program, list(overrides))
