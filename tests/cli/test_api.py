"""`nas.search` and `nas.retrain`: results, own models and images, errors, what is left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, slow
from hydra.core.global_hydra import GlobalHydra
from toy_models import SmallNet

import nas
from conf import api
from nas.genotype.text import parse_nasbench201
from nas.outcome import SearchResult
from nas.training.loop import Loop

SMALL: dict[str, Any] = {"debug": "smoke", "data__image_size": 8, "verbose": False}
NETWORK: dict[str, Any] = {"network__channels": 4, "network__cells_per_stage": 1}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return nas.search(run_dir=tmp_path_factory.mktemp("api") / "run", **SMALL)


def test_completion_knows_what_is_imported_later() -> None:
    assert set(nas.__all__) <= set(dir(nas))


def test_a_search_returns_what_its_folder_has(result: SearchResult) -> None:
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert result.accuracy == summary["metrics"]["accuracy/genotype_validation"]
    assert result.genotype.space == "nasbench201" and len(result.probabilities) == 6
    for curves in result.probabilities.values():
        assert np.allclose(sum(curves.values()), 1) and len(curves["none"]) == 2
    assert list(result.history["epoch"]) == [0, 1]
    assert np.isnan(result.history["accuracy/genotype_validation"][0])
    assert (result.run_dir / ".hydra" / "defaults.yaml").exists()
    assert "epoch 2/2" in (result.run_dir / "search.log").read_text()
    again = SearchResult.load(result.run_dir)
    assert again.genotype == result.genotype and repr(again) == repr(result)


def test_a_result_is_shown_as_a_picture(result: SearchResult, tmp_path: Path) -> None:
    plot = result.plot()
    for picture in (result, plot, result.cell(dark=True)):
        content = picture._repr_png_()
        assert content.startswith(b"\x89PNG") and len(content) < 60_000
    plot.save(tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    titles = [axes.get_title(loc="left") for axes in plot.figure.axes]
    assert titles[:2] == ["loss", "accuracy in %"] and len(titles) == 8
    name, option = next(iter(result.genotype.choices.items()))
    assert f"{name}: {option}" in titles


@pytest.mark.parametrize("form", ["result", slow("genotype"), "path", slow("text")])
def test_every_form_of_a_genotype_can_be_retrained(
    form: str, result: SearchResult, tmp_path: Path
) -> None:
    given = {
        "result": result,
        "genotype": result.genotype,
        "path": result.run_dir,
        "text": json.loads((result.run_dir / "summary.json").read_text())["genotype"],
    }[form]
    trained = nas.retrain(given, "epochs=1", run_dir=tmp_path / "it's", **SMALL, **NETWORK)
    assert trained.genotype.choices == result.genotype.choices
    assert 0 <= trained.accuracy <= 100 and trained.num_parameters > 100
    images = torch.zeros(2, 1, 8, 8)
    assert trained.network()(images).shape == (2, 10)
    assert trained.plot()._repr_png_().startswith(b"\x89PNG")


def test_a_retraining_goes_on_with_no_other_genotype(result: SearchResult, tmp_path: Path) -> None:
    """As large in weights, it would take those of the first without a word."""
    texts = [
        f"|nor_conv_3x3~0|+|{free}~0|nor_conv_3x3~1|+|{free}~0|none~1|{free}~2|"
        for free in ("skip_connect", "avg_pool_3x3")
    ]
    first, second = map(parse_nasbench201, texts)
    once: dict[str, Any] = {"epochs": 1, **SMALL, **NETWORK}
    nas.retrain(first, run_dir=tmp_path / "run", **once)
    with pytest.raises(nas.UserError, match=r"genotype.json is another genotype: give another"):
        nas.retrain(second, run_dir=tmp_path / "run", **once)
    assert nas.retrain(first, run_dir=tmp_path / "run", **once).genotype == first
    # Nor where the file that the settings name is another by now.
    path = tmp_path / "mine.json"
    for genotype in (first, second):
        path.write_text(genotype.to_json())
        if genotype is first:
            nas.retrain(path, run_dir=tmp_path / "by_file", **once)
    with pytest.raises(nas.UserError, match=r"by_file goes on with the genotype that it was"):
        nas.retrain(path, run_dir=tmp_path / "by_file", **once)
    # Nor is that of a search written over.
    before = (result.run_dir / "genotype.json").read_bytes()
    with pytest.raises(nas.UserError, match="another genotype"):
        nas.retrain(first, run_dir=result.run_dir, **once)
    assert (result.run_dir / "genotype.json").read_bytes() == before


@pytest.mark.parametrize("settings", [{"epochz": 3}, {"network__cells": 5}], ids=str)
def test_a_retraining_that_is_refused_leaves_no_genotype(
    settings: dict[str, Any], result: SearchResult, tmp_path: Path
) -> None:
    with pytest.raises(nas.UserError):
        nas.retrain(result.genotype, run_dir=tmp_path / "run", **settings, **SMALL)
    assert list(tmp_path.iterdir()) == []


def made_up(count: int = 60) -> tuple[np.ndarray, list[str]]:
    """Images whose mean tells the class."""
    labels = ["dark", "light"] * (count // 2)
    noise = np.random.default_rng(0).random((count, 8, 8, 3)) / 2
    return noise + np.array([0.5 * (label == "light") for label in labels])[
        :, None, None, None
    ], labels


@pytest.mark.parametrize("kind", ["class", slow("instance"), "function"])
def test_own_models_and_images_are_searched(kind: str, tmp_path: Path) -> None:
    def make(num_classes: int) -> torch.nn.Module:
        return SmallNet(in_channels=3, num_classes=num_classes)

    model = {"class": SmallNet, "instance": make(2), "function": make}[kind]
    found = nas.search(
        model=model, images=made_up(), epochs=1, batch_size=8, run_dir=tmp_path / "a", verbose=False
    )
    assert found.genotype.space == "custom"
    if kind == "class":
        trained = nas.retrain(
            *(found, "epochs=1", "batch_size=8"),
            model=SmallNet,
            images=made_up(),
            test_images=made_up(20),
            run_dir=tmp_path / "b",
            verbose=False,
        )
        assert trained.record.description["class_names"] == ["dark", "light"]
        assert trained.network(SmallNet)(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
        with pytest.raises(nas.UserError, match="leave one out"):
            nas.search(images=made_up(), data="digits")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "dart"}, r"unknown space 'dart': .*did you mean 'darts'\?"),
        ({"epochz": 3}, r"unknown setting 'epochz'; did you mean 'epochs'\?"),
        ({"epochs": 0}, r"epochs is 0: must be at least 1"),
        ({"epochs": "many"}, r"epochs is 'many': must be a whole number"),
        ({"weights__learning_rate": -1}, r"weights.learning_rate is -1.0: must be positive"),
        ({"model": 3}, r"model is 3: must be an nn.Module"),
        ({"images": 3}, r"images: must be a pair"),
        ({"images": ([1, 2], [0, 1])}, r"pixels of the shape \[2\]"),
    ],
)
def test_a_mistake_is_a_user_error_and_leaves_nothing(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(nas.UserError, match=message):
        nas.search(**settings)
    assert list(tmp_path.iterdir()) == []


def test_a_model_by_position_is_told_its_keyword() -> None:
    with pytest.raises(nas.UserError, match=r"SmallNet.* is no setting .* is given as model="):
        nas.search(SmallNet)  # type: ignore[arg-type]


def settings_of_pytorch() -> tuple[bool, ...]:
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def test_images_of_the_caller_are_not_treated_as_those_of_an_experiment(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "experiment": "retrain_nasbench201",
        "epochs": 1,
        "batch_size": 16,
        "verbose": False,
    }
    trained = nas.retrain(
        "nasbench201_resnet", images=made_up(), run_dir=tmp_path, **recipe, **NETWORK
    )
    data = trained.record.settings
    assert [data[f"data.{name}"] for name in ("name", "flip", "crop_padding")] == [
        *("given", "false", "0")
    ]
    # Of made_up: half from 0 to 0.5, half from 0.5 to 1, and not that of CIFAR-10.
    assert trained.record.network is not None
    assert trained.record.network.preprocessing.mean == pytest.approx([0.5] * 3, abs=0.02)


def test_the_process_of_the_caller_stays_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    marker = object()
    GlobalHydra.instance().hydra = marker
    try:
        before = settings_of_pytorch()
        nas.search(run_dir=tmp_path / "run", deterministic=True, epochs=1, **SMALL)
        assert settings_of_pytorch() == before
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32
        changed = settings_of_pytorch()
        nas.search(run_dir=tmp_path / "again", epochs=1, **SMALL)
        assert settings_of_pytorch() == changed
        assert GlobalHydra.instance().hydra is marker
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.use_deterministic_algorithms(False)
        GlobalHydra.instance().hydra = None
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_interrupted_search_goes_on_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Loop._save_in_epoch

    def stop_at_1(loop: Loop, *arguments: Any) -> None:
        if loop.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        save(loop, *arguments)

    whole = nas.search(run_dir=tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_save_in_epoch", stop_at_1)
        with pytest.raises(KeyboardInterrupt, match=r"after step 1, state saved; go on .*run_dir="):
            nas.search(run_dir=tmp_path / "cut", **SMALL)
    cut = nas.search(run_dir=tmp_path / "cut", **SMALL)
    assert cut.genotype == whole.genotype and cut.accuracy == whole.accuracy


def test_the_speed_of_an_epoch_leaves_out_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `nas.monitor.metrics` defines it; here a checkpoint takes 1000 seconds."""
    save, clock, saved = Loop.save, time.perf_counter, [0]

    def save_slowly(loop: Loop) -> None:
        saved[0] += 1
        save(loop)

    monkeypatch.setattr(Loop, "save", save_slowly)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 1000 * saved[0])
    trained = nas.retrain(
        "nasbench201_resnet", "checkpoint_every_steps=1", run_dir=tmp_path, **SMALL, **NETWORK
    )
    assert saved[0] > 2 and (trained.history["speed/step_ms"] < 500_000).all()


def test_values_are_written_as_hydra_reads_them() -> None:
    for value, text in {
        None: "null",
        True: "true",
        0.1: "0.1",
        "runs/a": "runs/a",
        "null": "'null'",
        "it's {here}": r"'it\'s {here}'",
        Path("a b"): "'a b'",
    }.items():
        assert api._text(value) == text
    numbers = [np.float64(1e-3), np.int64(3), np.bool_(True), torch.tensor(0.5), np.array([1, 2])]
    assert [*map(api._text, numbers)] == ["0.001", "3", "true", "0.5", "[1,2]"]
    assert api._text([1, None, "x"]) == "[1,null,x]" and api._text({"a": 1}) == "{a:1}"


def test_importing_the_package_imports_neither_hydra_nor_pytorch() -> None:
    script = "import nas, sys; print([m for m in ('hydra', 'torch', 'conf') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
