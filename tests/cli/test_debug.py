"""`debug=smoke`: every experiment runs to its end, small, on images that are there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas
from conf.outline import CONF_DIR, options

Run = Callable[..., tuple[int, str]]

# As small as the tests need it. From Python: the settings are composed once, not four times.
FEWER: dict[str, Any] = {"debug": "smoke", "epochs": 1, "batch_size": 4, "verbose": False}


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of so small a run; others test them."""
    monkeypatch.setattr("nas.monitor.search.SearchMonitor._draw", lambda *_: None)
    monkeypatch.setattr("nas.training.results._log_result", lambda *_: None)


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("name", options("experiment", "search"))
def test_every_search_experiment_runs_small(tmp_path: Path, name: str) -> None:
    found = nas.search(experiment=name, data__limit=16, run_dir=tmp_path / "run", **FEWER)
    assert found.record.settings["data.name"] == "digits", "nothing is downloaded"
    assert found.record.epochs_done == 1


# Genotypes of macro spaces have no published names.
CELLS = {"demo_retrain": "nasbench201_best", "retrain_nasbench201": "nasbench201_best"}
NETWORKS: dict[str, dict[str, Any]] = {
    "nasbench201_best": {"network__channels": 4, "network__cells_per_stage": 1},
    "darts_v2": {"network__channels": 4, "network__cells": 3},
}


@pytest.mark.parametrize(
    "name", [n for n in options("experiment", "retrain") if "mobilenet" not in n and "vit" not in n]
)
def test_every_retrain_experiment_runs_small(tmp_path: Path, name: str) -> None:
    cell = CELLS.get(name, "darts_v2")
    trained = nas.retrain(
        *(cell, f"experiment={name}"), run_dir=tmp_path / "run", **NETWORKS[cell], **FEWER
    )
    assert trained.record.settings["data.name"] == "digits"


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
