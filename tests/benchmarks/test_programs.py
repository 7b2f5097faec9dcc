"""Benchmarks of what searches find: what they start, keep and print."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from benchmarks import cells, programs
from conf.outline import CONF_DIR
from conf.schema import RetrainConfig, SearchConfig, register_schemas
from nas.genotype.published import PUBLISHED


def finished(folder: Path, accuracy: float) -> None:
    folder.mkdir(parents=True)
    content = {"metrics": {"accuracy/test_top1": accuracy}, "seconds": 7.5}
    (folder / "summary.json").write_text(json.dumps(content))


def test_finished_runs_are_kept(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((80.0, 82.0, 84.0)):
        finished(tmp_path / str(seed), accuracy)
    assert programs.retrain("no_such_cell", tmp_path, 3) == [80.0, 82.0, 84.0]
    assert programs.seconds(tmp_path / "1") == 7.5


def test_a_failure_ends_the_benchmark_with_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(
        "import sys\nprint(*sys.argv[1:])\nsys.exit('error: no such thing')\n"
    )
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"seed=1 run_dir=.*\n(.*\n)*error: no such thing"):
        programs.run("broken.py", tmp_path / "run", "seed=1")


def test_an_unfinished_run_is_started_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.py").write_text(
        "import pathlib, sys\nfolder = pathlib.Path(sys.argv[-1].removeprefix('run_dir='))\n"
        "folder.mkdir()\n(folder / 'summary.json').write_text(' '.join(sys.argv[1:-1]))\n"
    )
    monkeypatch.setattr(programs, "ROOT", tmp_path)
    folder = programs.run("good.py", tmp_path / "run", "seed=1", "epochs=2")
    assert (folder / "summary.json").read_text() == "seed=1 epochs=2"


def test_mean_and_deviation_are_those_of_the_sample() -> None:
    assert programs.mean_and_deviation([80.0, 82.0, 84.0]) == "82.00 ± 2.00"
    assert programs.mean_and_deviation([80.0]) == "80.00"


@pytest.mark.parametrize("space", cells.EXPERIMENTS)
def test_searches_and_the_recipe_of_cells_compose(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        search = compose("search", [f"experiment={cells.EXPERIMENTS[space]}", "run_dir=x"])
        recipe = compose("retrain", [*cells.RECIPE, "genotype=gdas_v1", "run_dir=x"])
    searched, trained = OmegaConf.to_object(search), OmegaConf.to_object(recipe)
    assert isinstance(searched, SearchConfig) and isinstance(trained, RetrainConfig)
    assert searched.space.name == space
    assert {PUBLISHED[name].space for name in cells.RIVALS[space]} == {space}
    assert (trained.network.cells, trained.epochs, trained.auxiliary_weight) == (8, 20, 0)


def test_a_table_of_cells_has_a_line_each() -> None:
    rows = [
        {"space": "darts", "cell": "gdas_v1", "accuracies": [90.0, 92.0]},
        {"space": "darts", "cell": "found, seed 0", "accuracies": [91.0], "search s": 5.0},
    ]
    first, second = cells.shown(rows)
    assert (first["accuracy"], first["worst"], first["search s"]) == ("91.00 ± 1.41", 90.0, "-")
    assert (second["cell"], second["search s"]) == ("found, seed 0", 5.0)
