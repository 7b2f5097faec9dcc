"""What cannot be read on the command line: said before Hydra reads it, with how it is written."""

from argparse import Action
from collections.abc import Container, Mapping, Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from conf import outline
from conf.together import MULTIRUN
from nas.errors import UserError, as_question, nearest

_SETTINGS = frozenset(outline.GROUPS) | {"epochs", "seed", "device", "run_dir", "resume"}
"""What other programs take as options."""


class UsageError(UserError):
    """An option that the program does not have; the exit code is 2."""


def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line with its options first, which argparse wants; only its form is checked.

    Raises:
        UsageError: an option is not known.
        UserError: an override cannot be read.
    """
    actions = {name: act for act in get_args_parser()._actions for name in act.option_strings}
    is_sweep = bool(MULTIRUN & set(arguments))
    options: list[str] = []
    overrides: list[str] = []
    values: Container[str] = ()  # of the option before
    for argument in arguments:
        if argument.startswith("-"):
            values = _values(argument, actions)
            options.append(argument)
        elif argument in values:
            options.append(argument)
            values = ()
        else:
            _check_override(argument, is_sweep)
            overrides.append(argument)
    return [*options, *overrides]


def _values(argument: str, actions: Mapping[str, Action]) -> Container[str]:
    """What may come after an option.

    Raises:
        UsageError: there is no such option.
    """
    name, equals, _ = argument.partition("=")
    # argparse takes the beginning of a long option for the whole.
    action = actions.get(name) or next((actions[n] for n in actions if n.startswith(name)), None)
    if action is None or len(name) == 1:
        raise UsageError(_unknown_option(argument, list(actions)))
    if action.nargs == 0 or equals:
        return ()
    return _Any() if action.choices is None else list(action.choices)


class _Any:
    """Every text is in it."""

    def __contains__(self, text: object) -> bool:
        return True


def _unknown_option(argument: str, known: Sequence[str]) -> str:
    name, equals, value = argument.lstrip("-").partition("=")
    if equals:
        return f"unknown option {argument}: settings have no dashes, write {name}={value}"
    if name in _SETTINGS:
        return f"unknown option {argument}: settings have no dashes, write {name}=VALUE"
    names = {option.lstrip("-"): option for option in (*known, "--list")}
    close = nearest(name, names)  # two dashes alone would make many options near
    near = as_question(close and names[close])
    return f"unknown option {argument}{near or f': settings are written {name}=VALUE'} (--help)"


def _check_override(argument: str, is_sweep: bool) -> None:
    key, equals, value = argument.partition("=")
    if not equals and not argument.startswith("~"):
        raise UserError(
            f"'{argument}' is no setting: settings are written KEY=VALUE, without spaces"
        )
    if argument == "run_dir=":  # of a variable of the shell that is not set, most often
        raise UserError("run_dir is empty: give a folder, or leave run_dir out for a new one")
    if argument[0] in "+~" and key.lstrip("+~") in outline.GROUPS:
        name = key.lstrip("+~")
        raise UserError(f"{argument}: a group is neither added nor left out, write {name}=OPTION")
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        if value.count("[") != value.count("]") or value.count("{") != value.count("}"):
            raise UserError(
                f"{key}: brackets do not match in {value}: quote what the shell would take apart, "
                f"'{key}=[a,b]'"
            ) from None
        raise UserError(
            f"cannot read {argument}: a value with special characters is quoted twice, "
            f"\"{key}='...'\""
        ) from None
    if override.is_sweep_override() and not is_sweep:
        raise UserError(
            f"{key}: {value} are several values: for a list write '{key}=[{value}]', for a run of "
            "each add -m"
        )
