"""The page on models of one's own: its code and its commands, run as they stand."""

import re
import shlex
from pathlib import Path

from template_process import ROOT, run_python

TEXT = (ROOT / "docs" / "custom_models.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_page_can_be_followed(tmp_path: Path) -> None:
    model, use = blocks("python")
    assert sum(bool(line.strip()) for line in model.splitlines()) <= 30
    (tmp_path / "my_net.py").write_text(model)
    commands = [line for block in blocks("bash") for line in block.strip().splitlines()]
    assert len(commands) == 3
    for command in commands:
        _, program, *overrides = shlex.split(command)
        run_python(str(ROOT / program), *overrides, "data.limit=256", cwd=tmp_path)
    check = "import torch\nassert plain(torch.zeros(2, 1, 8, 8)).shape == (2, 10)\n"
    check += "assert not any(m.__module__.startswith('nas.') for m in plain.modules()"
    check += " if type(m).__name__ not in ('Take', 'FixedValue'))\n"
    run_python("-c", use + check, cwd=tmp_path)
    assert {"front.csv", "front.png"} <= {p.name for p in (tmp_path / "runs/small").iterdir()}
