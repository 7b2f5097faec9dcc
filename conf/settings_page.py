"""`docs/settings.md`: every setting with its type, default, allowed values and meaning.

Little of it is written down here. Defaults come from the composed YAML files, meanings from the
schemas, and what is allowed from what the schemas answer to values that they refuse.
"""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import zip_longest
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from conf.outline import CONF_DIR, meanings
from conf.schema import (
    RetrainConfig,
    RunConfig,
    SearchConfig,
    register_schemas,
)
from nas.errors import UserError
from nas.ops import OPERATIONS

GROUPS = ("space", "sampler", "bilevel", "derive", "budget", "data")
REQUIRED = "???"

# What is checked where it is used, and rules between settings that one refusal does not tell.
_ALLOWED = {
    "device": "auto, cpu, cuda, `cuda:<number>`",
    "space.stem": "cifar, imagenet",
    "network.stem": "cifar, imagenet",
    "space.operations": ", ".join(OPERATIONS.names()),
    "data.mean": "in [0, 1], one a channel",
    "data.std": "in (0, 1], one a channel",
    "collapse.eigenvalue_growth": "at least 1, with `collapse.eigenvalue_every_epochs`",
    "pruning.epochs": "increasing, between `warmup_epochs` and `epochs`",
    "pruning.keep": "decreasing, at least 1, as many as `pruning.epochs`",
    "derive.final_trainings": "at least `derive.finalists`",
    "derive.playoff": "from 0 to `derive.finalists`",
    "budget.target": "positive",
    "budget.target_ms": "positive",
    "bilevel.groups": "at least 1; divides `batch_size`, with 2 images or more each",
}
_DEFAULTS = {"run_dir": "runs/<program>/<date>_<time>"}
_PROBES: dict[Any, tuple[object, ...]] = {
    int: (-(10**6), 0, 1),
    float: (-1e6, 0.0, 1.0, 1e6),
    str: ("?",),
    list[int]: ([-1],),
    list[float]: ([-1.0],),
    list[str]: (["?"],),
}


@dataclass(frozen=True)
class Variant:
    """An object of a schema, within all settings of a program.

    Attributes:
        label: What it is chosen by, such as `darts`.
        root: All settings of the program.
        path: Names of the fields that lead from `root` to the object.
        defaults: Value by field, as the YAML files have it.
    """

    label: str
    root: Any
    path: tuple[str, ...]
    defaults: dict[str, Any]

    @property
    def schema(self) -> type:
        """The class of the object."""
        node = self.root
        for name in self.path:
            node = getattr(node, name)
        return type(node)

    def inner(self, name: str) -> "Variant":
        """The object in the field `name`."""
        return Variant(self.label, self.root, (*self.path, name), self.defaults[name])

    def key(self, name: str) -> str:
        """The dotted key of the field `name`."""
        return ".".join((*self.path, name))

    def allowed(self, name: str, kind: Any) -> str:
        """What values a field of the type `kind` may have, by what is said when it is refused."""
        key = self.key(name)
        known = _ALLOWED.get(key) or _ALLOWED.get(f"{self.path[-1]}.{name}" if self.path else "")
        if known:
            return known
        answers = [
            _refusal(self.root, (*self.path, name), probe) for probe in _PROBES.get(kind, ())
        ]
        rules = [_rule(answer, key) for answer in answers if answer]
        return next((rule for rule in reversed(rules) if rule), "")


def _refusal(node: Any, path: Sequence[str], value: object) -> str | None:
    """What the schemas say of `node` with `value` at `path`; None where they take it."""
    try:
        _changed(node, path, value)
    except (ValueError, UserError) as error:
        return str(error)
    return None


def _changed(node: Any, path: Sequence[str], value: object) -> Any:
    name, *rest = path
    return replace(node, **{name: _changed(getattr(node, name), rest, value) if rest else value})


def _rule(answer: str, key: str) -> str:
    """What an error about the setting `key` says to be allowed; empty if it is about others."""
    if not answer.startswith(f"{key} is ") and f" ({key}): " not in answer:
        return ""
    text = answer.partition(": ")[2].partition("; did you mean")[0]
    text = re.sub(r"^(must (be |lie )?|allowed are )", "", text).replace("not be", "not")
    return text.removesuffix(", or null")


def _type_name(hint: Any) -> tuple[Any, str]:
    """The type without null, and how it is called."""
    parts = [part for part in get_args(hint) if part is not NoneType]
    is_optional = NoneType in get_args(hint)
    kind = parts[0] if is_optional else hint
    inner = get_args(kind) if get_origin(kind) is list else ()
    name = f"list of {inner[0].__name__}" if inner else (get_origin(kind) or kind).__name__
    return kind, name + (" or null" if is_optional else "")


def _rows(variants: Sequence[Variant], names: Iterable[str]) -> Iterator[str]:
    """The rows of a table: the settings `names` of objects of one schema."""
    schema = variants[0].schema
    hints, texts = get_type_hints(schema), meanings(schema.__name__)
    for name in names:
        kind, type_name = _type_name(hints[name])
        allowed = list(dict.fromkeys(variant.allowed(name, kind) for variant in variants))
        cells = (
            f"`{variants[0].key(name)}`",
            type_name,
            _default(variants, name),
            "; ".join(filter(None, allowed)),
            _sentence(texts[name]).rstrip("."),
        )
        yield "| " + " | ".join(map(_escaped, cells)) + " |"


def _sentence(text: str) -> str:
    """`text` with a capital, if it begins with a word and not with a name."""
    return text[0].upper() + text[1:] if re.match(r"[a-z]+ ", text) else text


def _escaped(text: str) -> str:
    """`text` as a cell of a table: what looks like HTML or emphasis, but in code, is not."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def _default(variants: Sequence[Variant], name: str) -> str:
    """The most frequent default, and which variants have another."""
    shown = [_shown(_DEFAULTS.get(name, variant.defaults[name])) for variant in variants]
    usual = Counter(shown).most_common(1)[0][0]
    others = [
        f"{variant.label}: {text}"
        for variant, text in zip(variants, shown, strict=True)
        if text != usual
    ]
    return usual + (f" ({'; '.join(others)})" if others else "")


def _shown(value: object) -> str:
    """A value as it is written on the command line."""
    if value == REQUIRED:
        return "required"
    if isinstance(value, list):
        return f"`[{','.join(map(str, value))}]`"
    if isinstance(value, bool) or value is None:
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value}`"


_HEAD = ("| setting | type | default | allowed | meaning |", "| --- | --- | --- | --- | --- |")


def _table(variants: Sequence[Variant], names: Iterable[str] | None = None) -> list[str]:
    """The table of the plain settings (`names`: of these) of objects of one schema."""
    schema = variants[0].schema
    if names is None:
        names = (field.name for field in fields(schema) if field.name != "name")
    plain = [name for name in names if _is_plain(get_type_hints(schema)[name])]
    return ["", *_HEAD, *_rows(variants, plain)] if plain else ["", "No settings of its own."]


def _is_plain(hint: Any) -> bool:
    return not is_dataclass(hint) and hint is not Any


def _variant(label: str, config: DictConfig) -> Variant:
    """All settings of one program."""
    defaults = OmegaConf.to_container(config, resolve=False)
    return Variant(label, _object(config), (), defaults)  # type: ignore[arg-type]


def _object(config: DictConfig) -> Any:
    """The dataclass of a composed configuration; what has no value is given one."""
    if "run_dir" in config:  # which is named after the time
        config.run_dir = "given"
    for key in OmegaConf.missing_keys(config):
        config[key.rpartition(".")[2]] = "given"  # key begins at the root
    return OmegaConf.to_object(config)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def _head_comment(group: str, option: str) -> str:
    """The comment at the head of a YAML file, on one line."""
    lines = (CONF_DIR / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line[2:] for line in lines[:end] if not line.startswith("# @package"))


def _group_variants(search: SearchConfig) -> dict[str, list[Variant]]:
    """Every option of every group, each in the search with all other defaults."""
    found: dict[str, list[Variant]] = {group: [] for group in GROUPS}
    for chosen in zip_longest(*map(_options, GROUPS)):
        picked = {group: option for group, option in zip(GROUPS, chosen, strict=True) if option}
        config = hydra.compose("search", [f"{group}={option}" for group, option in picked.items()])
        for group, option in picked.items():
            defaults: Any = OmegaConf.to_container(config[group], resolve=False)
            if "fraction" in config[group]:
                config[group].fraction = 0.5  # one of two that must be given
            root = replace(search, **{group: _object(config[group])})
            found[group].append(Variant(option, root, (group,), defaults))
    return found


def _group_section(group: str, variants: Sequence[Variant], text: str) -> Iterator[str]:
    yield from ("", f"## `{group}`", "", f"{_sentence(text)}. `{group}=` is one of", "")
    yield from ("| option | what it is |", "| --- | --- |")
    for variant in variants:
        yield f"| `{variant.label}` | {_escaped(_head_comment(group, variant.label))} |"
    for schema in dict.fromkeys(variant.schema for variant in variants):
        same = [variant for variant in variants if variant.schema is schema]
        if len([field for field in fields(schema) if field.name != "name"]):
            if len(same) < len(variants):
                yield from ("", "### " + ", ".join(f"`{group}={v.label}`" for v in same))
            yield from _table(same)


def describe_settings() -> str:
    """Returns `docs/settings.md`."""
    register_schemas()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        search = _variant("search", hydra.compose("search", ["derive=sampled"]))
        retrain = _variant("retrain", hydra.compose("retrain"))
        profile = _variant("profile_space", hydra.compose("profile_space"))
        export = _variant("export", hydra.compose("export"))
        groups = _group_variants(search.root)
    both = [field.name for field in fields(RunConfig)]
    lines = [*_INTRODUCTION, "", "## Searches and retrainings", *_table([search, retrain], both)]
    lines += _section("Optimiser of the network weights.", search.inner("weights"), retrain)
    lines += _section("", search.inner("non_finite"), retrain)
    lines += ["", "## Searches", *_table([search], _own(SearchConfig))]
    lines += _section("Optimiser of the architecture logits.", search.inner("logits"))
    for name in ("warm_start", "pruning", "collapse", "benchmark"):
        lines += _section("", search.inner(name))
    for group, variants in groups.items():
        lines += _group_section(group, variants, meanings("SearchConfig")[group])
    lines += ["", "## Retrainings", *_table([retrain], _own(RetrainConfig))]
    lines += _section(_NETWORKS, retrain.inner("network"))
    lines += ["", "## Experiments", "", "Published settings, `experiment=<name>`.", ""]
    lines += ["| experiment | what it is |", "| --- | --- |"]
    for name in sorted(_options("experiment"), key=lambda name: "retrain" in name):
        lines.append(f"| `{name}` | {_escaped(_head_comment('experiment', name))} |")
    lines += ["", "## `debug`", "", "`debug=smoke`: " + _escaped(_head_comment("debug", "smoke"))]
    lines += ["", "## `profile_space.py`", "", "Besides `space` and `data`:", *_table([profile])]
    lines += ["", "## `export.py`", *_table([export])]
    return "\n".join([*lines, ""])


def _section(text: str, variant: Variant, *programs: Variant) -> list[str]:
    """The settings of an inner object, in several programs; without a `text` its docstring's."""
    name, schema = variant.path[-1], variant.schema
    text = text or (inspect.getdoc(schema) or "").partition("\n\n")[0].replace("\n", " ")
    names = [field.name for field in fields(schema)]
    variants = [variant, *(program.inner(name) for program in programs)]
    return ["", f"### `{name}`", "", text, *_table(variants, names)]


def _own(schema: type) -> list[str]:
    both = [field.name for field in fields(RunConfig)]
    return [field.name for field in fields(schema) if field.name not in both]


_INTRODUCTION = (
    "# Settings",
    "",
    "Every setting of every program, with its type, its default, what is allowed, and what it",
    "means. Give one as `key=value` on the command line; of a group (`space=darts`) an option is",
    "chosen by name, and sets what the tables below say. An `experiment` sets many at once, and",
    "what you give besides wins. `python search.py --cfg job` shows what a command runs with.",
    "",
    "This page is made by `conf.settings_page`; change the schemas (`conf/*schema.py`) or the YAML",
    "files and run",
    "",
    "```bash",
    "python -m conf.settings_page > docs/settings.md",
    "```",
)
_NETWORKS = (
    "Sizes of the network. `derive.network` (finalists of `derive=local_search` and "
    "`derive=finals`) and\n`budget.network` (the network whose cost counts) have the same."
)

if __name__ == "__main__":
    print(describe_settings(), end="")
