"""Every command of README and docs is one that the programs take."""

from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT
from snippets import PAGES, blocks, check_command, check_mention, inline_commands, unmarked_commands

LANGUAGES = ("bash", "python", "text", "json", "yaml", "csv", "")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_taken(page: Path) -> None:
    found = blocks(page)
    saved = [block.saved_as for block in found if block.saved_as]
    checks = [
        (words, partial(check_command, words, saved))
        for block in found
        if block.language == "bash"
        for words in block.commands()
    ]
    checks += [(words, partial(check_mention, words)) for words in inline_commands(page)]
    wrong = []
    for words, check in checks:
        try:
            check()
        except (Exception, SystemExit) as error:
            wrong.append(f"{' '.join(words)}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_code_is_marked_as_what_it_is(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= set(LANGUAGES)
    assert unmarked_commands(page) == [], "put them into a block that is marked as bash"


def test_wrong_commands_are_found() -> None:
    for command in (
        ["python", "search.py", "sampler=gdsa"],
        ["python", "search.py", "epochs=0"],
        ["python", "search.py", "epoch=3"],
        ["python", "retrain.py", "genotype=dart_v2"],
        ["python", "-m", "nas.report", "runs", "--colour"],
        ["make", "demos"],
        ["pip", "install", ".[onyx]"],
        ["tensorboard", "--logdirs", "runs"],
        ["sbatch", "job.sh"],
    ):
        with pytest.raises((Exception, SystemExit)):
            check_command(command)
