"""What TensorBoard is told of a run as a whole: what to compare, how it was started, the result."""

import shlex
from collections.abc import Mapping, Sequence

from nas.monitor.summaries import Setting
from nas.nested import flat

ALWAYS_COMPARED = (
    "genotype",
    "space.name",
    "sampler.name",
    "bilevel.name",
    "derive.name",
    "budget.name",
    "data.name",
    "epochs",
    "batch_size",
    "weights.learning_rate",
    "logits.learning_rate",
    "seed",
)
NEVER_COMPARED = ("run_dir", "resume", "device", "threads", "data.path", "benchmark.nasbench201")
"""Settings that say where a run is, not what it does."""


def compared_settings(
    settings: Mapping[str, object], overrides: Sequence[str]
) -> tuple[dict[str, Setting], list[str]]:
    """The settings that are columns of the HPARAMS tab, and those of them that come first.

    All settings would be a hundred columns. These are the ones that say what a run is, and what the
    command line has given: in a sweep all that differs is among it.

    Args:
        settings: All of a run, nested.
        overrides: Of its command line.
    """
    texts = [override.lstrip("+~").partition("=")[::2] for override in overrides]
    given = {name: value for name, value in texts if value}
    shown: dict[str, Setting] = {}
    if "experiment" in given:
        shown["experiment"] = given["experiment"]
    for name, value in _shown(settings).items():
        is_given = name in given or (name.endswith(".name") and name.removesuffix(".name") in given)
        if (is_given or name in ALWAYS_COMPARED) and name not in NEVER_COMPARED:
            shown[name] = value
    first = [n for n in shown if n in given or n.removesuffix(".name") in given]
    return shown, first


def run_text(program: str, settings: Mapping[str, object], overrides: Sequence[str]) -> str:
    """How a run was started and what it was set to, as Markdown."""
    command = shlex.join(["python", f"{program}.py", *overrides])
    rows = [f"| {name} | {_cell(value)} |" for name, value in _shown(settings).items()]
    return "\n".join([f"    {command}", "", "| setting | value |", "| --- | --- |", *rows])


def result_text(rows: Sequence[tuple[str, str]]) -> str:
    """What a run came to, as Markdown."""
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _shown(settings: Mapping[str, object]) -> dict[str, Setting]:
    """All that is set, by dotted key, in types that TensorBoard can show."""
    return {
        name: value if isinstance(value, Setting) else str(value)
        for name, value in flat(settings).items()
        if value not in (None, {})
    }


def _cell(value: object) -> str:
    """A value as code in a table of Markdown; a bar would end its cell."""
    text = str(value).replace("|", "&#124;").replace("`", "'")
    return f"<code>{text}</code>"
