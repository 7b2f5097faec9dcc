"""What is said of a mistake on the command line: one line with what is allowed and what is near."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException

from conf import outline
from nas.errors import did_you_mean
from nas.nested import flat

_NOT_CONVERTED = re.compile(r"Value ('.*') of type '.*' could not be converted to (\w+)")
_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def describe(error: Exception, program: str, overrides: Sequence[str] = ()) -> str:
    """One line for an error of Hydra's: what, where, what is allowed, the nearest match.

    Args:
        error: What Hydra raised.
        program: Name of the entry point.
        overrides: That it was raised for.
    """
    other = _of_another_program(program, overrides)
    if other:
        return other
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        known = group in outline.groups(program)
        options = outline.options(group, program) if known else list(error.options or [])
        if options:
            listed = ", ".join(sorted(options))
            near = did_you_mean(option, options)
            return f"unknown {group} '{option}': allowed are {listed}{near}"
    cause: BaseException = error
    seen = {id(cause)}  # OmegaConf raises errors that are caused by each other
    while cause.__cause__ is not None and id(cause.__cause__) not in seen:
        cause = cause.__cause__
        seen.add(id(cause))
    key = getattr(cause, "full_key", None)
    lines = str(cause).splitlines() or [type(cause).__name__]
    reason = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    if key and "not in" in reason:
        return f"unknown setting '{key}'{_where_it_is(key, program, overrides)}"
    converted = _NOT_CONVERTED.match(reason)
    if key and converted and converted[2] in _KINDS:
        return f"{key} is {converted[1]}: must be {_KINDS[converted[2]]}"
    if key and "is not a valid bool" in reason:
        return f"{key} is {reason.split()[1]}: must be true or false"
    if key and "is not a ListConfig" in reason:
        return f"{key}: must be a list, quoted for the shell: '{key}=[a,b]'"
    where = f"{key}: " if key and key not in reason else ""
    return f"{where}{reason}"


def _of_another_program(program: str, overrides: Sequence[str]) -> str:
    """What is said of a group or an experiment that only another program has; else nothing."""
    groups = outline.groups(program)
    for key, _, value in (override.partition("=") for override in overrides):
        if key in outline.GROUPS and key not in groups:
            return f"unknown group '{key}': those of {program}.py are {', '.join(groups) or 'none'}"
        if key == "experiment" and value not in (names := outline.options(key, program)):
            of_other = outline.options(key, "search" if program == "retrain" else "retrain")
            if value in of_other:
                listed = ", ".join(names)
                return f"experiment={value} is not for {program}.py, whose own are {listed}"
    return ""


def _where_it_is(key: str, program: str, overrides: Sequence[str]) -> str:
    """The options that have a setting of this name, or else the nearest name."""
    group, _, rest = key.partition(".")
    groups = outline.groups(program)
    if rest and group in groups:
        options = outline.options(group)
        having = [option for option in options if outline.field(f"{group}/{option}", rest)]
        if having:
            return f": it is one of {', '.join(f'{group}={option}' for option in having)}"
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    return f"{did_you_mean(key, known_keys(program, chosen))} (--list settings has all)"


def known_keys(program: str, chosen: Sequence[str] = ()) -> list[str]:
    """All dotted keys of the settings with the options that are `chosen`, and their sections."""
    try:
        return all_keys(outline.compose(program, chosen)[0])
    except HydraException:  # one of them is not known either
        return all_keys(outline.compose(program, ())[0])


def all_keys(settings: Mapping[str, Any]) -> list[str]:
    """Dotted keys of nested settings, and their sections."""
    keys = list(flat(settings))
    parents = {key.rpartition(".")[0] for key in keys} - {""}
    return [*keys, *sorted(parents | {key.partition(".")[0] for key in parents})]
