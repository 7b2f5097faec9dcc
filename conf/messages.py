"""What is said of a mistake on the command line: one line with what is allowed and what is near."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException, MissingConfigException

from conf import outline
from conf.help import PAGES
from conf.other_names import OPTIONS, SETTINGS
from nas.errors import as_question, did_you_mean, nearest
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
            near = as_question(OPTIONS.get(group, {}).get(option.lower()))
            near = near or did_you_mean(option, options)
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
        # Of a section that there is not OmegaConf names no more than the section.
        within = (o.partition("=")[0] for o in overrides if o.startswith(f"{key}."))
        key = next(within, key)
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
    """The options or programs that have a setting of this name, and which may have been meant."""
    group, _, rest = key.partition(".")
    groups = outline.groups(program)
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    known = known_keys(program, chosen)
    meant = as_question("' or '".join(_called_so(key, known)) or None)
    options = outline.options(group) if rest and group in groups else []
    having = [f"{group}={option}" for option in options if outline.field(f"{group}/{option}", rest)]
    having = having or [f"{other}.py" for other in PAGES if key in known_keys(other)]
    if having:
        return f": it is one of {', '.join(having)}{meant}"
    section = key.rpartition(".")[0]
    beside = [name for name in known if section and name.startswith(f"{section}.")]
    if not beside:
        return f"{meant or did_you_mean(key, known)} (--list settings has all)"
    names = {name.removeprefix(f"{section}."): name for name in beside}
    near = nearest(key.removeprefix(f"{section}."), names)
    if not meant and near is None:
        return f": {section} has {', '.join(names)}"
    return f"{meant or as_question(near and names[near])} (--list settings has all)"


def _called_so(key: str, known: Sequence[str]) -> list[str]:
    """The known settings that are called like `key` elsewhere, or have its name in a section.

    Of a section that is known only those in it.
    """
    section, _, name = key.lower().rpartition(".")
    found = [other for other in SETTINGS.get(name, ()) if other in known]
    found = found or [other for other in known if other.rpartition(".")[2] == name]
    return [other for other in found if section not in known or other.startswith(f"{section}.")][:3]


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
