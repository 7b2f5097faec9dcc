"""The scoreboard of whole experiments composes and runs what it says."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from benchmarks import scoreboard, scoreboard_gpu
from conf.outline import CONF_DIR
from conf.schema import SearchConfig, register_schemas

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
METHODS = scoreboard_gpu.METHODS


@pytest.mark.parametrize("method", METHODS)
def test_every_method_composes(method: str) -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    row = METHODS[method]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        chosen = [f"experiment={row.experiment}", *row.overrides, "run_dir=x"]
        config = OmegaConf.to_object(compose("search", chosen))
    assert isinstance(config, SearchConfig)
    is_published = method.startswith("GDAS")
    assert (config.epochs == 250) == is_published and config.space.channels == 16
    assert config.batch_size == (256 if "256" in method else 64)
    assert ("running" in method) == config.space.track_running_stats
    assert ("authors" in method) == (config.sampler.name == "gdas_authors")


def test_a_learning_rate_grows_with_the_batch() -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        names = ("gdas_nasbench201", "gdas_nasbench201_batch256")
        small, large = (compose("search", [f"experiment={name}", "run_dir=x"]) for name in names)
    factor = large.batch_size / small.batch_size
    assert large.weights.learning_rate == factor * small.weights.learning_rate
    assert large.weights.final_learning_rate == factor * small.weights.final_learning_rate
    assert large.logits.learning_rate == pytest.approx(factor**0.5 * small.logits.learning_rate)


def test_results_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, output, commands = tmp_path / "t.csv", tmp_path / "results.json", []
    table.write_text(f"architecture,cifar10_test\n{CELL},93.5\n")

    def note(command: list[str], console: Path) -> int:
        commands.append(command)
        console.parent.mkdir(parents=True)
        content = {"overrides": [], "metrics": {}, "genotype": CELL, "seconds": 12.5}
        (console.parent / "summary.json").write_text(json.dumps(content))
        return 0

    monkeypatch.setattr(scoreboard, "_exit_code", note)
    given = ["--table", str(table), "--ranked", "0", "--runs", str(tmp_path), "--seeds", "7"]
    method = "GDAS, batches of 256"
    assert scoreboard_gpu.main([*given, "--output", str(output), "--method", method]) == 0
    assert {"experiment=gdas_nasbench201_batch256", "seed=7"} <= set(commands[0])
    (run,) = json.loads(output.read_text())["rows"][method]["runs"]
    assert (run["seed"], run["accuracy"], run["seconds"]) == (7, 93.5, 12.5)
