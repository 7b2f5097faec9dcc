"""`--help`, `--list` and completion: what is said, and that it is said without PyTorch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from conftest import ROOT
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conf import outline
from conf.completion import COMMANDS, INSTALL, candidates, complete
from conf.help import PAGES, page
from conf.listing import kinds, listing
from conf.schema import SCHEMAS, register_schemas
from nas.deriving.scores import SCORES
from nas.errors import UserError
from nas.genotype.published import ABOUT, PUBLISHED
from nas.nested import flat
from nas.ops import OPERATIONS

Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("program", PAGES)
@pytest.mark.parametrize("columns", [80, 100])
def test_a_page_of_help_has_all_groups_and_fits_the_terminal(
    program: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = page(program, COMMANDS[program])
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns and len(lines) <= 70
    for group, first in outline.groups(program).items():
        assert f"\n  {group} " in text
        assert first is None or f"[{first}]" in text
    known = flat(outline.compose(program, ())[0])
    for key in PAGES[program].settings:
        assert key in known
        assert outline.meaning(program, key, {}), f"{key} has no comment"
    assert f"{COMMANDS[program]} " in text and "docs/command_line.md" in text


@pytest.mark.parametrize("program", PAGES)
def test_the_examples_of_the_help_name_what_there_is(program: str) -> None:
    groups = outline.groups(program)
    for overrides, _ in PAGES[program].examples:
        for override in overrides.replace("'", "").replace("-m ", "").split():
            key, _, value = override.partition("=")
            if key in groups:
                assert value in outline.options(key, program)
            else:
                file = {"data.path": "data/image_folder", "space.model": "space/custom"}.get(key)
                name = key.partition(".")[2] if file else key
                assert outline.field(file or program, name), override


def test_questions_are_answered_without_pytorch() -> None:
    script = (
        "import sys; sys.argv = ['nas-search', '--list', 'operations', 'settings']\n"
        "try:\n    import conf.at_once\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, [m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "sep_conv_3x3" in done.stdout and done.stdout.endswith("0 []\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "docs/command_line.md"),
        (["-h"], 0, "Examples:"),
        (["--list"], 0, "--list KIND"),
        (["--list", "spaces"], 0, "Transformers of open width"),
        (["--list=space"], 0, "nasbench201 if nothing is said"),
        (["--list", "sampler", "data"], 0, "8x8 pixels"),
        (["--list", "settings", "space=vit"], 0, "space.mlp_ratios=[2,3,4]"),
        (["--list", "settings", "space=vitt"], 1, "did you mean 'vit'?"),
        (["--list", "smaplers"], 1, "did you mean 'samplers'?"),
        (["-sc", "install=bash"], 0, "complete "),
        (["-sc", "install=csh"], 1, "allowed are bash, fish, zsh"),
    ],
)
def test_a_question_is_answered_and_nothing_begins(
    run_program: Run, arguments: list[str], code: int, words: str
) -> None:
    found, output = run_program("search", *arguments)
    assert (found, words in output) == (code, True), output
    assert code == 0 or (output.startswith("error: ") and output.count("\n") == 1)


def test_lists_have_a_line_for_every_name() -> None:
    for program in PAGES:
        for kind in kinds(program):
            lines = listing(program, kind).splitlines()[1:]
            assert lines and all(line.startswith("  ") for line in lines)
    for kind, names in {"operations": OPERATIONS, "scores": SCORES}.items():
        assert all(f"\n  {name} " in listing("search", kind) for name in names)
    assert ABOUT.keys() == PUBLISHED.keys()
    assert "retrain_darts_cifar10" in listing("retrain", "experiments")
    assert "gdas_frc" not in listing("retrain", "experiments")
    with pytest.raises(UserError, match="unknown kind"):
        listing("export", "spaces")


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_outline_has_the_fields_of_the_schemas(name: str) -> None:
    real = OmegaConf.to_container(OmegaConf.structured(SCHEMAS[name]))
    assert isinstance(real, dict)
    found = outline.plain(outline.schemas()[name])
    assert list(flat(found)) == list(flat(real)) or "???" in real.values()
    assert list(found) == list(real)
    for key, value in found.items():
        assert value == real[key] or "???" in (value, real[key])


def test_the_outline_composes_what_hydra_composes() -> None:
    given = ["space=darts", "derive=finals", "experiment=pc_darts", "debug=smoke"]
    rough, chosen = outline.compose("search", given)
    register_schemas()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(outline.CONF_DIR), version_base="1.3"):
        real = OmegaConf.to_container(hydra.compose("search", given), resolve=False)
    assert rough == real
    assert chosen["space"] == "darts" and chosen["derive"] == "finals"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nas-search spa", ["space=", "space."]),
        ("nas-search space=d", ["space=darts"]),
        ("nas-search space=darts space.ce", ["space.cells="]),
        ("nas-search space=nasbench201 space.ce", ["space.cells_per_stage="]),
        ("nas-search space=dar space.ce", ["space.cells_per_stage="]),
        ("nas-search channels_last=", ["channels_last=true", "channels_last=false"]),
        ("nas-search epochs=", []),
        ("nas-search --li", ["--list"]),
        ("nas-search --list op", ["operations"]),
        ("nas-search -m hydra/launcher=j", ["hydra/launcher=joblib"]),
    ],
)
def test_the_tab_key_knows_groups_options_and_settings(line: str, expected: list[str]) -> None:
    assert [word for word, _ in candidates("search", line)] == expected


def test_a_shell_completes_only_these_programs(tmp_path: Path) -> None:
    # As bash does it: words are split at '=', too.
    script = tmp_path / "ask.sh"
    script.write_text(
        complete("search", "install=bash")
        + "ask() { COMP_LINE=$*; COMP_POINT=${#COMP_LINE}; local spaced=${COMP_LINE//=/ = }\n"
        'read -ra COMP_WORDS <<< "$spaced"; COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))\n'
        'COMPREPLY=(); _nas_complete "$1"; echo "${COMPREPLY[*]}"; }\n'
        f"cd {ROOT}\n"
        f"ask {sys.executable} search.py data=cifar10 sampler=gumbel_s\n"
        f"ask {sys.executable} {tmp_path}/mine.py sampler=gumbel_s\n"
    )
    (tmp_path / "mine.py").write_text("open('was_run', 'w')")
    done = subprocess.run(["bash", script], capture_output=True, text=True, env=os.environ)
    assert (done.stdout, done.stderr) == ("gumbel_softmax\n\n", "")
    assert not (tmp_path / "was_run").exists() and not (ROOT / "was_run").exists()


@pytest.mark.parametrize("shell", INSTALL)
def test_completion_can_be_installed_and_removed(shell: str) -> None:
    for verb in ("install", "uninstall"):
        assert all(name in complete("export", f"{verb}={shell}") for name in COMMANDS.values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epochs=5",), "unknown option --epochs=5: settings have no dashes, write epochs=5"),
        (("--epochs", "5"), "settings have no dashes, write epochs=VALUE"),
        (("--resume",), "settings have no dashes, write resume=VALUE"),
        (("--learning_rate", "1"), "settings are written learning_rate=VALUE"),
        (("-m", "--multirunn"), "did you mean '--multirun'?"),
        (("--lst",), "did you mean '--list'?"),
    ],
)
def test_an_unknown_option_is_one_line_and_exit_code_2(
    run_program: Run, arguments: tuple[str, ...], words: str
) -> None:
    code, output = run_program("search", *arguments)
    assert (code, words in output, output.count("\n")) == (2, True, 1), output


def test_options_of_hydra_are_taken(run_program: Run) -> None:
    for arguments in (
        ("--cfg", "job", "-p", "weights"),
        ("seed=1", "--cfg=job", "epochs=3", "--package=weights", "data=digits"),
    ):
        code, output = run_program("search", *arguments)
        assert code == 0 and "learning_rate" in output
