"""What a program answers without beginning anything, and so without PyTorch: in a moment."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from conf.help import page
from conf.listing import listing, overview
from nas.errors import UserError

HELP = ("--help", "-h")
LIST = "--list"
SHELL = ("-sc", "--shell_completion", "--shell-completion")


def command_of(program: str) -> str:
    """How the program was started: `python search.py`, or `nas-search`."""
    started = Path(sys.argv[0])
    return f"python {program}.py" if started.suffix == ".py" else started.name


def answer(program: str, arguments: Sequence[str]) -> None:
    """Answers `--help`, `--list` and the questions of a shell, and exits; else does nothing."""
    try:
        text = _answered(program, arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if text is not None:
        with suppress(BrokenPipeError):  # whoever reads it (head, less) may go
            print(text, flush=True)
        raise SystemExit(0)


def _answered(program: str, arguments: Sequence[str]) -> str | None:
    if any(argument in SHELL for argument in arguments):
        from conf.completion import complete  # takes Hydra along

        return complete(program, next((a for a in arguments if a not in SHELL), ""))
    if any(argument in HELP for argument in arguments):
        return page(program, command_of(program))
    if any(argument.partition("=")[0] == LIST for argument in arguments):
        return _listed(program, arguments)
    return None


def _listed(program: str, arguments: Sequence[str]) -> str:
    kinds = [a.removeprefix(f"{LIST}=") for a in arguments if a.startswith(f"{LIST}=")]
    kinds += [a for a in arguments if "=" not in a and a != LIST]
    overrides = [a for a in arguments if "=" in a and not a.startswith(LIST)]
    if not kinds:
        return overview(program)
    if overrides and set(kinds) != {"settings"}:
        raise UserError(f"{LIST} {kinds[0]}: overrides are for `{LIST} settings` alone")
    try:
        return "\n\n".join(listing(program, kind, overrides) for kind in kinds)
    except Exception as error:  # Hydra's, which importing by name would take a quarter of a second
        if not overrides:
            raise
        from conf.messages import describe

        raise UserError(describe(error, program)) from None
