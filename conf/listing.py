"""`--list`: the names that there are, a line on each."""

import shutil
import textwrap
from collections.abc import Callable, Sequence

from conf import outline
from nas.errors import unknown_name
from nas.nested import flat

WIDEST = 100
LAUNCHERS = {
    "basic": "one run after the other",
    "joblib": "several runs at a time on this machine",
    "submitit_local": "all runs at once on this machine",
    "submitit_slurm": "jobs on a Slurm cluster",
    "ray": "tasks on a Ray cluster",
}

Rows = list[tuple[str, str]]


def width() -> int:
    """Columns to write: those of the terminal, but no more than can be read well."""
    return min(WIDEST, max(60, shutil.get_terminal_size((80, 24)).columns))


def table(rows: Rows, indent: int = 2) -> str:
    """Names, and what is said of each, wrapped."""
    column = min(28, max((len(name) for name, _ in rows), default=0)) + 2
    lines = []
    for name, text in rows:
        head = " " * indent + name.ljust(column)
        follow = " " * (indent + column)
        if len(name) >= column:  # on a line of its own
            lines.append(" " * indent + name)
            head = follow
        lines += textwrap.wrap(
            text,
            width(),
            initial_indent=head,
            subsequent_indent=follow,
            break_on_hyphens=False,
            break_long_words=False,
        ) or [head]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _settings(program: str, overrides: Sequence[str]) -> Rows:
    """All settings with their values: KEY=VALUE."""
    settings, chosen = outline.compose(program, overrides)
    return [
        (f"{key}={_text(value)}", outline.meaning(program, key, chosen))
        for key, value in flat(settings).items()
        if key.removesuffix(".name") not in chosen  # it says which option of the group it is
    ]


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return "..." if "${" in str(value) else str(value)


OTHERS: dict[str, tuple[str, Callable[[], dict[str, str]]]] = {
    "operations": (
        "space.operations=[NAME,...]",
        lambda: outline.registered("nas/ops.py", "OPERATIONS"),
    ),
    "scores": (
        "warm_start.score=NAME, derive.judges=[NAME,...]",
        lambda: outline.registered("nas/deriving/scores.py", "SCORES"),
    ),
    "genotypes": ("genotype=NAME", lambda: outline.literal("nas/genotype/published.py", "ABOUT")),
    "launchers": ("-m hydra/launcher=NAME", lambda: LAUNCHERS),
}
"""What is no group, each with how it is used."""

_OF_PROGRAM = {
    "search": ("operations", "scores", "launchers"),
    "retrain": ("genotypes", "launchers"),
    "profile_space": ("operations",),
    "export": (),
}


def kinds(program: str) -> dict[str, str]:
    """What `program` can list, each with how a name of it is used."""
    found = {outline.GROUPS[group]: f"{group}=NAME" for group in outline.groups(program)}
    found |= {kind: OTHERS[kind][0] for kind in _OF_PROGRAM[program]}
    return {**found, "settings": "KEY=VALUE"}


def listing(program: str, kind: str, overrides: Sequence[str] = ()) -> str:
    """The names of a kind, as text.

    Args:
        program: Name of the entry point.
        kind: As in `kinds`, or the name of a group.
        overrides: With which the settings are listed.

    Raises:
        UserError: the program knows no such kind.
        HydraException: an override is not known.
    """
    known = kinds(program)
    kind = outline.GROUPS.get(kind, kind)
    if kind not in known:
        raise unknown_name("kind of names", kind, known, "--list")
    group = next((name for name, plural in outline.GROUPS.items() if plural == kind), None)
    note = ""
    if kind == "settings":
        rows = _settings(program, overrides)
    elif group is None:
        rows = list(OTHERS[kind][1]().items())
    else:
        rows = [(name, outline.summary(group, name)) for name in outline.options(group, program)]
        first = outline.groups(program)[group]
        note = f" ({first} if nothing is said)" if first and first in dict(rows) else ""
    return f"{kind}: {known[kind]}{note}\n{table(rows)}"


def overview(program: str) -> str:
    """What can be listed."""
    rows = [(kind, usage) for kind, usage in kinds(program).items()]
    return f"--list KIND, where KIND is one of\n{table(rows)}"
