"""The scoreboard: what it runs, reads and prints. The searches themselves are tested elsewhere."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from benchmarks import scoreboard
from benchmarks.scoreboard import METHODS, markdown, outcome
from conf.app import CONF_DIR
from conf.schema import SearchConfig, register_schemas
from nas.benchmark_table import BenchmarkTable
from nas.errors import UserError

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes(method: str) -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        overrides = ["experiment=nasbench201_cpu", *METHODS[method], "run_dir=x"]
        config = OmegaConf.to_object(compose("search", overrides))
    assert isinstance(config, SearchConfig)
    assert config.epochs >= config.warmup_epochs and config.space.cells_per_stage == 1


def summary(folder: Path, genotype: str = CELL) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"overrides": [], "metrics": {}, "genotype": genotype, "seconds": 12.5}
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def test_an_outcome_is_looked_up(tmp_path: Path) -> None:
    table = BenchmarkTable("cifar10_test", 200, {CELL: 93.0, "other": 94.0})
    found = outcome(summary(tmp_path), table, num_ranked=0)
    assert found == {"genotype": CELL, "accuracy": 93.0, "rank": 2, "seconds": 12.5}
    with pytest.raises(UserError, match="the table has no"):
        outcome(tmp_path, BenchmarkTable("cifar10_test", 200, {"other": 94.0}), 0)


def test_finished_runs_are_kept_and_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str]) -> int:
        commands.append(command)
        return 1

    monkeypatch.setattr(scoreboard, "_exit_code", fail)
    table = tmp_path / "t.csv"
    table.write_text(f"architecture,cifar10_test\n{CELL},93.5\n")
    runs, output = tmp_path / "runs", tmp_path / "results.json"
    summary(runs / "GDAS" / "0")
    common = ["--table", str(table), "--runs", str(runs), "--ranked", "0", "--output", str(output)]
    assert scoreboard.main([*common, "--method", "GDAS", "--seeds", "1"]) == 0
    assert commands == [] and "| GDAS | 93.50 | 93.50 | 93.50 |" in capsys.readouterr().out
    rows = json.loads(output.read_text())["rows"]
    assert rows["GDAS"]["runs"][0]["accuracy"] == 93.5
    assert scoreboard.main([*common, "--method", "GDAS", "--seeds", "2"]) == 1
    assert "GDAS, seed 1 failed" in capsys.readouterr().err
    (command,) = commands
    assert {"experiment=nasbench201_cpu", "seed=1", "sampler=gdas"} <= set(command)


def test_the_table_has_the_best_mean_first() -> None:
    def row(*accuracies: float) -> dict[str, object]:
        return {"runs": [{"accuracy": a, "seconds": 10.0} for a in accuracies]}

    lines = markdown({"a": row(90, 92), "b": row(91.5, 91.5)}).splitlines()
    assert lines[2] == "| b | 91.50 ± 0.00 | 91.50 | 91.50, 91.50 | nan | 10 |"
    assert lines[3] == "| a | 91.00 ± 1.41 | 90.00 | 90.00, 92.00 | nan | 10 |"
