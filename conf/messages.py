"""What is said of a mistake on the command line: one line with what is allowed and what is near."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException

from conf import outline


def describe(error: Exception, program: str) -> str:
    """One line for an error of Hydra's: what, where, what is allowed, the nearest match."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        options = list(error.options or [])
        if options:
            listed = ", ".join(sorted(options))
            return f"unknown {group} '{option}': allowed are {listed}{hint(option, options)}"
    cause: BaseException = error
    seen = {id(cause)}  # OmegaConf raises errors that are caused by each other
    while cause.__cause__ is not None and id(cause.__cause__) not in seen:
        cause = cause.__cause__
        seen.add(id(cause))
    key = getattr(cause, "full_key", None)
    lines = str(cause).splitlines() or [type(cause).__name__]
    reason = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    if key and "not in" in reason:
        return f"unknown setting '{key}'{_where_it_is(key, program)}"
    where = f"{key}: " if key and key not in reason else ""
    return f"{where}{reason}"


def _where_it_is(key: str, program: str) -> str:
    """The options that have a setting of this name, or else the nearest name."""
    group, _, rest = key.partition(".")
    known = known_keys(program)
    if rest and group in outline.groups(program):
        having = [option for option in outline.options(group) if _has(group, option, rest)]
        if having:
            return f": it is one of {', '.join(f'{group}={option}' for option in having)}"
    return f"{hint(key, known)} (--list settings has all)"


def _has(group: str, option: str, name: str) -> bool:
    return bool(outline.field(f"{group}/{option}", name))


def known_keys(program: str) -> list[str]:
    """All dotted keys of the settings that a program begins with, and their sections."""
    return all_keys(outline.compose(program, ())[0])


def all_keys(settings: Mapping[str, Any]) -> list[str]:
    """Dotted keys of nested settings, and their sections."""
    keys = list(outline.flat(settings))
    parents = {key.rpartition(".")[0] for key in keys} - {""}
    return [*keys, *sorted(parents | {key.partition(".")[0] for key in parents})]


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names, as a question; empty where none is near."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
