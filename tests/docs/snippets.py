"""The code blocks and commands of README and docs, and what each command is checked against.

Nothing is started: overrides are composed and validated, arguments are parsed by the parser of the
program, targets and extras are looked up. Pages that can be followed are run in `test_pages.py`.
"""

import argparse
import re
import shlex
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import dropwhile, takewhile
from pathlib import Path
from unittest import mock

import hydra
import pytest
from conftest import ROOT
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import OmegaConf

from conf.arguments import for_hydra
from conf.outline import CONF_DIR
from conf.questions import answer
from conf.schema import ExportConfig, ProfileConfig, RetrainConfig, SearchConfig, register_schemas
from conf.settings import checked
from conf.sweeps import check_installed
from nas.errors import UserError
from nas.genotype.resolve import resolve_genotype

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMAS = {
    "search": SearchConfig,
    "retrain": RetrainConfig,
    "export": ExportConfig,
    "profile_space": ProfileConfig,
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = {name: target.partition(":")[0] for name, target in PROJECT["scripts"].items()}
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SAVED = re.compile(r"[Ss]ave this as\s+`([\w.]+)`[^`]*$")
_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*(python3?|torchrun|make|pip|nas-\w+|tensorboard) ")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file.
        line: Its first line there.
        language: What the fence says, perhaps nothing.
        text: What is in it.
        saved_as: Name of the file that the text before says to save it as.
    """

    page: Path
    line: int
    language: str
    text: str
    saved_as: str | None

    def commands(self) -> list[list[str]]:
        """The words of each command of a bash block, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := _words(line))]


def _words(command: str) -> list[str]:
    """The words of a command; what a reader fills in, such as <folder>, is x."""
    return shlex.split(re.sub(r"<[^<>]*>", "x", command), comments=True)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        saved = _SAVED.search(text[: match.start()].rstrip().rpartition("\n\n")[2])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], match[3], saved[1] if saved else None))
    return found


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Commands within the text, in code spans; some are cut short with `...`."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`([^`]+)`", text):
        if _COMMAND.match(code):
            yield _words(" ".join(code.split()))


def unmarked_commands(page: Path) -> list[str]:
    """Lines that look like commands, in blocks that are not marked as bash, or merely indented."""
    text = page.read_text(encoding="utf-8")
    marked = "".join(block.text for block in blocks(page) if block.language != "bash")
    indented = re.findall(r"(?<=\n\n) {4}(?! *[-*\d]).*", _FENCE.sub("", text))
    lines = [*marked.splitlines(), *(line.strip() for line in indented)]
    return [line for line in lines if _COMMAND.match(line)]


def check_mention(words: Sequence[str]) -> None:
    """Checks a command within the text: one without arguments may be but the name of a program."""
    if words[:2] == ["python", "-m"] and len(words) == 3:
        assert find_spec(words[2]) is not None, words[2]
    elif words[:2] == ["python", "-m"]:
        _check_module(words[2], [word for word in words[3:] if word != "..."], partly=True)
    elif len(words) > 1:
        check_command(words)


def check_command(words: Sequence[str], saved: Sequence[str] = ()) -> None:
    """Checks one command as far as that goes without starting it.

    Args:
        words: Of the command.
        saved: Files that the page has the reader save.

    Raises:
        Exception: it would be refused, or nobody knows how to check such a command.
    """
    words = [word for word in words if word != "..."]
    words = list(takewhile(lambda word: word not in (">", "|"), words))
    words = list(dropwhile(re.compile(r"[A-Z_]+=").match, words))  # of the environment
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program in _SIMPLE:
        _SIMPLE[program](arguments)
    elif program in SCRIPTS:
        _check_module(SCRIPTS[program], arguments)
    elif program in ("python", "python3") and arguments[0] == "-m":
        _check_module(arguments[1], arguments[2:])
    elif program in ("python", "python3") and arguments[0] not in saved:
        _check_module(arguments[0].removesuffix(".py"), arguments[1:])
    elif program not in ("python", "python3"):
        raise AssertionError(
            f"nobody has said how to check '{program}': see tests/docs/snippets.py"
        )


def _check_make(arguments: Sequence[str]) -> None:
    assert set(arguments) <= set(TARGETS), arguments


def _check_pip(arguments: Sequence[str]) -> None:
    assert arguments[0] == "install"
    for extra in re.findall(r"\[([\w-]+)\]", " ".join(arguments)):
        assert extra in PROJECT["optional-dependencies"], extra
    names = [word.partition("[")[0] for word in arguments[1:] if not word.startswith("-")]
    assert set(names) <= {".", PROJECT["name"]}, names


def _check_tensorboard(arguments: Sequence[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own dependencies'
        from tensorboard.plugins.core.core_plugin import CorePluginLoader

    parser = argparse.ArgumentParser()
    CorePluginLoader().define_flags(parser)
    parser.parse_args(arguments)


def _check_torchrun(arguments: Sequence[str]) -> None:
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(arguments)
    check_command(["python", options.training_script, *options.training_script_args])


def _check_source(arguments: Sequence[str]) -> None:
    assert arguments == [".venv/bin/activate"]


def _check_eval(arguments: Sequence[str]) -> None:
    inner = re.fullmatch(r"\$\((.*)\)", arguments[0])
    assert inner, arguments
    check_command(_words(inner[1]))


_SIMPLE: dict[str, Callable[[Sequence[str]], None]] = {
    "make": _check_make,
    "pip": _check_pip,
    "tensorboard": _check_tensorboard,
    "torchrun": _check_torchrun,
    "source": _check_source,
    "eval": _check_eval,
}


class _Parsed(Exception):  # noqa: N818 - not an error
    """The arguments were accepted."""


def _check_module(name: str, arguments: Sequence[str], *, partly: bool = False) -> None:
    """Has the parser of a program read the arguments, of which some may be left out."""
    if name in SCHEMAS:
        check_overrides(name, arguments)
        return
    if name in ("venv", "conf.settings_page", "nas.monitor.metrics_page"):
        return
    if name == "pytest":
        paths = [ROOT / word for word in arguments if "/" in word]
        assert all(path.exists() for path in paths), arguments
        return
    module = import_module(f"{name}.__main__" if name == "nas.report" else name)
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, given: Sequence[str] | None = None) -> object:
        for action in parser._actions:
            action.required = action.required and not partly
        real(parser, given)
        raise _Parsed

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse),
        mock.patch.object(sys, "argv", [name, *arguments]),
        pytest.raises(_Parsed),
    ):
        module.main()


def check_overrides(program: str, arguments: Sequence[str]) -> None:
    """Composes and validates the settings of a program, once for each command."""
    _compose(program, tuple(arguments))


@cache
def _compose(program: str, arguments: tuple[str, ...]) -> None:
    """Composes and validates the settings of a program; of a sweep those of its first run."""
    if {"--help", "--list", "-sc"} & set(arguments):
        with pytest.raises(SystemExit) as answered:
            answer(program, arguments)
        assert answered.value.code == 0
        return
    values = [word for word in arguments if word not in ("-m", "--multirun", "--cfg", "job")]
    assert not [word for word in values if word.startswith("-")], values
    values = [value for value in values if not value.endswith("=...")]
    try:
        check_installed(values)
    except UserError:  # an extra that is not among the packages of the tests
        values = [value for value in values if not value.startswith(("hydra/", "hydra."))]
    parsed = OverridesParser.create().parse_overrides([for_hydra(value) for value in values])
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", lambda *_: "runs/x", replace=True)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = hydra.compose(program, [_first(override) for override in parsed])
    if "run_dir" in config:
        config.run_dir = "runs/x"
    for key in OmegaConf.missing_keys(config):  # of commands that are cut short
        assert f"{key}=..." in arguments, f"{key} has no value"
        OmegaConf.update(config, key, "x")
    typed = checked(SCHEMAS[program], config)
    genotype = getattr(typed, "genotype", "runs/x")
    if "/" not in genotype and genotype != "x":
        resolve_genotype(genotype)


def _first(override: Override) -> str:
    """The override, or the first of the values that it sweeps over."""
    if not override.is_sweep_override():
        return str(override.input_line)
    sweep = override.value()
    first = (
        sweep.start if isinstance(sweep, IntervalSweep) else next(override.sweep_string_iterator())
    )
    return f"{override.key_or_group}={first}"
