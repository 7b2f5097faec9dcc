"""The scoreboard: what it runs, reads and prints. The searches themselves are tested elsewhere."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from benchmarks import scoreboard
from benchmarks.scoreboard import METHODS, markdown, outcome
from conf.outline import CONF_DIR
from conf.schema import SearchConfig, register_schemas
from nas.errors import UserError
from nas.tables.benchmark_table import BenchmarkTable
from nas.training.scoring import VALIDATION

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes(method: str) -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = ["experiment=nasbench201_cpu", *METHODS[method].overrides, "run_dir=x"]
        config = OmegaConf.to_object(compose("search", overrides))
    assert isinstance(config, SearchConfig)
    assert config.epochs >= config.warmup_epochs and config.space.cells_per_stage == 1
    others = METHODS[method].derives_from
    assert others is None or METHODS[others].derives_from is None
    if others is not None:  # what a finished search lets change
        assert all(o.startswith("derive.") for o in METHODS[method].overrides)


def summary(folder: Path, genotype: str = CELL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"overrides": [], "metrics": {}, "genotype": genotype, "seconds": 12.5}
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def test_an_outcome_is_looked_up(tmp_path: Path) -> None:
    table = BenchmarkTable("cifar10_test", 200, {CELL: 93.0, "other": 94.0})
    found = outcome(summary(tmp_path), table, VALIDATION, num_ranked=0)
    assert found == {"genotype": CELL, "accuracy": 93.0, "rank": 2, "seconds": 12.5}
    with pytest.raises(UserError, match="the table has no"):
        outcome(tmp_path, BenchmarkTable("cifar10_test", 200, {"other": 94.0}), VALIDATION, 0)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The searches that would be run; those with seed 1 fail, the others leave a summary."""
    found: list[list[str]] = []

    def note(command: list[str], console: Path) -> int:
        found.append(command)
        if "seed=1" in command:
            return 1
        summary(console.parent)
        return 0

    monkeypatch.setattr(scoreboard, "_exit_code", note)
    return found


@pytest.fixture
def common(tmp_path: Path) -> list[str]:
    """Arguments of the command."""
    table = tmp_path / "t.csv"
    table.write_text(f"architecture,cifar10_test\n{CELL},93.5\n")
    paths = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "results.json")]
    return ["--table", str(table), "--ranked", "0", *paths]


def test_finished_runs_are_kept_and_a_failure_is_told(
    tmp_path: Path,
    commands: list[list[str]],
    common: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary(tmp_path / "runs" / "gdas" / "0")
    assert scoreboard.main([*common, "--method", "GDAS", "--seeds", "0"]) == 0
    assert commands == [] and "| GDAS | 93.50 | 93.50 | 93.50 |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert rows["GDAS"]["runs"][0]["accuracy"] == 93.5
    assert scoreboard.main([*common, "--method", "GDAS", "--seeds", "0", "1"]) == 1
    assert "GDAS, seed 1 failed" in capsys.readouterr().err
    (command,) = commands
    assert {"experiment=nasbench201_cpu", "seed=1", "sampler=gdas"} <= set(command)


def test_a_method_can_derive_from_the_searches_of_another(
    tmp_path: Path, commands: list[list[str]], common: list[str]
) -> None:
    jobs = ["--jobs", "2", "--seeds", "0"]
    assert scoreboard.main([*common, *jobs, "--method", "supernet alone", "without finals"]) == 0
    first, *others = commands
    assert first[-2:] == ["seed=0", f"run_dir={tmp_path / 'runs' / 'one_path_finals' / '0'}"]
    assert len(others) == 2 and all("resume=true" in command for command in others)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert set(rows) == {"supernet alone", "without finals"}


def test_the_table_has_the_best_mean_first() -> None:
    def row(*accuracies: float) -> dict[str, object]:
        return {"runs": [{"accuracy": a, "seconds": 10.0} for a in accuracies]}

    lines = markdown({"a": row(90, 92), "b": row(91.5, 91.5)}).splitlines()
    assert lines[2] == "| b | 91.50 ± 0.00 | 91.50 | 91.50, 91.50 | - | - | 10 | - |"
    assert lines[3] == "| a | 91.00 ± 1.41 | 90.00 | 90.00, 92.00 | - | - | 10 | - |"
