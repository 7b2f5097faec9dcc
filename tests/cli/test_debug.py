"""`debug=smoke`: every experiment runs to its end, small, on images that are there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.outline import CONF_DIR, options

Run = Callable[..., tuple[int, str]]

# As small as the tests need it, and never a table of another device.
FEWER = ("epochs=1", "data.limit=16", "batch_size=4")


@pytest.mark.parametrize("name", options("experiment", "search"))
def test_every_search_experiment_runs_small(run_program: Run, tmp_path: Path, name: str) -> None:
    code, output = run_program(
        "search", f"experiment={name}", "debug=smoke", *FEWER, f"run_dir={tmp_path}/run"
    )
    assert code == 0, output
    settings = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert settings["kind"] == "search"
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "name: digits" in config, "nothing is downloaded"


# Genotypes of macro spaces have no published names.
CELLS = {"demo_retrain": "nasbench201_best", "retrain_nasbench201": "nasbench201_best"}
NETWORKS = {
    "nasbench201_best": ("network.channels=4", "network.cells_per_stage=1"),
    "darts_v2": ("network.channels=4", "network.cells=3"),
}


@pytest.mark.parametrize(
    "name", [n for n in options("experiment", "retrain") if "mobilenet" not in n and "vit" not in n]
)
def test_every_retrain_experiment_runs_small(run_program: Run, tmp_path: Path, name: str) -> None:
    cell = CELLS.get(name, "darts_v2")
    code, output = run_program(
        *("retrain", f"experiment={name}", f"genotype={cell}", "debug=smoke"),
        *(*FEWER, *NETWORKS[cell], f"run_dir={tmp_path}/run"),
    )
    assert code == 0, output


def test_the_command_line_comes_before_what_debug_sets(run_program: Run) -> None:
    given = ("debug=smoke", "epochs=7", "data=svhn", "space.channels=32")
    _, output = run_program("search", "experiment=gdas_frc", *given, "--cfg", "job")
    assert "epochs: 7" in output and "name: svhn" in output and "channels: 32" in output
    assert "batch_size: 8" in output and "cells: 3" in output


@pytest.mark.parametrize("group", ["space", "derive", "budget"])
def test_every_option_has_its_small_sizes(group: str) -> None:
    needless = {"custom", "argmax", "none"}  # a model of the user's own; nothing to make small
    small = {path.stem.removeprefix("smoke_") for path in (CONF_DIR / "debug" / group).iterdir()}
    assert small == set(options(group)) - needless
