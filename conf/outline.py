"""What can be set, read from the text of the schemas and of the YAML files.

Importing the schemas takes seconds, PyTorch's above all; `--help`, `--list` and shell completion
must not. Values that only the schemas can check are not checked here.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

CONF_DIR = Path(__file__).parent.resolve()
ROOT = CONF_DIR.parent
MISSING = "???"
SOURCES = (
    *("conf/schema.py", "conf/space_schema.py", "conf/derive_schema.py", "conf/budget_schema.py"),
    *("conf/network_schema.py", "conf/profile_schema.py", "conf/export_schema.py"),
    *(
        "nas/data/settings.py",
        "nas/optimisation/optimizers.py",
        "nas/optimisation/collapse.py",
        "nas/optimisation/finite.py",
    ),
)
"""Where the classes of the settings are."""


@dataclass(frozen=True)
class Setting:
    """A field of a schema.

    Attributes:
        name: Of the field.
        value: Its default; `???` where there is none, a dict where it has settings of its own.
        meaning: One line on it, perhaps empty.
        children: The settings of its own.
    """

    name: str
    value: Any
    meaning: str
    children: tuple["Setting", ...] = ()


@cache
def schemas() -> dict[str, tuple[Setting, ...]]:
    """The fields of every schema, by its name in the group `schema`."""
    names = next(
        node.value
        for node in ast.parse((ROOT / SOURCES[0]).read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SCHEMAS"
    )
    assert isinstance(names, ast.Dict)
    pairs = zip(names.keys, names.values, strict=True)
    return {
        ast.literal_eval(key): tuple(_fields(ast.unparse(value), _classes()))
        for key, value in pairs
        if key
    }


def meanings(class_name: str) -> dict[str, str]:
    """One line on each field of a class of settings, perhaps empty."""
    return {setting.name: setting.meaning for setting in _fields(class_name, _classes())}


@cache
def _classes() -> dict[str, tuple[ast.ClassDef, list[str]]]:
    """The classes of `SOURCES`, each with the lines of its file."""
    found = {}
    for source in SOURCES:
        text = (ROOT / source).read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = node, text.splitlines()
    return found


def _fields(
    class_name: str, classes: Mapping[str, tuple[ast.ClassDef, list[str]]]
) -> Iterable[Setting]:
    """The fields of a class, those of its bases first."""
    node, lines = classes[class_name]
    found: dict[str, Setting] = {}
    for base in map(ast.unparse, node.bases):
        found |= {setting.name: setting for setting in _fields(base, classes)}
    documented = _attributes(ast.get_docstring(node) or "")
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name, kind = field.target.id, ast.unparse(field.annotation)
            comment = lines[(field.end_lineno or field.lineno) - 1].partition("  # ")[2]
            children = tuple(_fields(kind, classes)) if kind in classes else ()
            value = plain(children) if children else _default(field.value)
            found[name] = Setting(name, value, comment or documented.get(name, ""), children)
    return found.values()


def _default(node: ast.expr | None) -> Any:
    if isinstance(node, ast.Call):  # field(default_factory=...)
        return {"list": [], "dict": {}}.get(ast.unparse(node.keywords[0].value), MISSING)
    try:
        return MISSING if node is None else ast.literal_eval(node)
    except ValueError:
        return MISSING


def _attributes(docstring: str) -> dict[str, str]:
    """The section `Attributes:` of a docstring."""
    section = docstring.partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def plain(settings: Iterable[Setting]) -> dict[str, Any]:
    """The defaults by name, nested."""
    return {setting.name: setting.value for setting in settings}


GROUPS = {
    "space": "spaces",
    "sampler": "samplers",
    "bilevel": "bilevel",
    "derive": "derivers",
    "budget": "budgets",
    "data": "data",
    "experiment": "experiments",
    "debug": "debug",
}
"""The groups of options, each with what its options are called."""


def groups(program: str) -> dict[str, str | None]:
    """The groups that `program` composes its settings of, each with the option it has at first."""
    entries = [entry for entry in _read(program)["defaults"] if isinstance(entry, dict)]
    return {group: name for entry in entries for group, name in entry.items() if group in GROUPS}


def options(group: str, program: str = "search") -> list[str]:
    """The options of a group; of experiments those that are for `program`."""
    names = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    if group == "experiment":
        names = [name for name in names if ("retrain" in name) == (program == "retrain")]
    return names


def summary(group: str, option: str) -> str:
    """What the comment at the head of a YAML file says first, and of the number to expect."""
    lines = (CONF_DIR / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if not line.startswith("# @package")]
    head = takewhile(lambda line: line.startswith("#"), comments)
    text = " ".join(line.removeprefix("# ") for line in head)
    expected = re.search(r"Expected[^:]*: .*", text)
    more = f". {first_sentence(expected[0])}" if expected else ""
    return f"{first_sentence(text)}{more}"


def first_sentence(text: str) -> str:
    """Up to the first full stop, which is left out; the code that a paper has is left out, too."""
    whole = re.sub(r"; code: [^)]*", "", " ".join(text.split()))
    return re.split(r"\.(?=\s+[A-Z]|$)", whole, maxsplit=1)[0]


def registered(source: str, registry: str) -> dict[str, str]:
    """What a module registers by decorator, with the first sentence of each docstring.

    Args:
        source: Path of the module.
        registry: Name of the registry there.
    """
    found = {}
    for node in ast.parse((ROOT / source).read_text(encoding="utf-8")).body:
        for decorator in getattr(node, "decorator_list", ()):
            if ast.unparse(decorator).startswith(f"{registry}.register("):
                assert isinstance(node, ast.FunctionDef | ast.ClassDef)
                name = ast.literal_eval(decorator.args[0])
                found[name] = first_sentence(ast.get_docstring(node) or "")
    return found


def literal(source: str, name: str) -> Any:
    """The value of the constant `name` in a module, which must be spelt out there."""
    for node in ast.parse((ROOT / source).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


def meaning(program: str, key: str, chosen: Mapping[str, str | None]) -> str:
    """One line on the setting with the dotted `key`, perhaps empty; `chosen` is option by group."""
    group, _, rest = key.partition(".")
    file = f"{group}/{chosen[group]}" if rest and chosen.get(group) else program
    found = field(file, rest if file != program else key)
    return first_sentence(found.meaning) if found else ""


def field(file: str, key: str) -> Setting | None:
    """The field `key` of the schema that a YAML file (`space/darts`) fits, if it has one."""
    settings, found = schemas()[_schema(file)], None
    for part in key.split("."):
        found = next((setting for setting in settings if setting.name == part), None)
        settings = found.children if found else ()
    return found


def _schema(file: str) -> str:
    """The schema that a YAML file fits, perhaps by way of the file that it is based on."""
    first = next(entry for entry in _read(file)["defaults"] if isinstance(entry, str))
    if "schema/" in first:
        return first.partition("schema/")[2].partition("@")[0]
    return _schema(f"{Path(file).parent}/{first}")


@cache
def _read(name: str) -> Any:
    return yaml.safe_load((CONF_DIR / f"{name}.yaml").read_text(encoding="utf-8"))


def compose(program: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """The settings with `overrides`, not resolved, and the option of each group.

    Hydra keeps these schemas until `register_schemas` gives it the real ones.

    Raises:
        HydraException: a name is not known.
    """
    import hydra  # a quarter of a second, which the other functions do without
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    for name, settings in schemas().items():
        ConfigStore.instance().store(group="schema", name=name, node=plain(settings))
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = hydra.compose(program, list(overrides), return_hydra_config=True)
    chosen = {group: config.hydra.runtime.choices.get(group) for group in groups(program)}
    settings_found = OmegaConf.to_container(config, resolve=False)
    assert isinstance(settings_found, dict)
    del settings_found["hydra"]
    return {str(key): value for key, value in settings_found.items()}, chosen
