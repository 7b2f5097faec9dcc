"""`retrain.py` as a user runs it: results, the forms of a genotype, the recipe, bad input."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RETRAIN
from safetensors.torch import load_file

from nas.genotype import Genotype
from nas.genotype.published import PUBLISHED
from nas.network import build_network

Run = Callable[..., tuple[int, str]]

_DARTS = ("epochs=1", "batch_size=32", "data.limit=128", "network.channels=4", "network.cells=3")


def test_a_retraining_leaves_all_its_results(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    code, output = run_program(
        "retrain", "genotype=nasbench201_best", *TINY_RETRAIN, f"run_dir={run}"
    )
    assert code == 0, output
    assert Genotype.load(run / "genotype.json") == PUBLISHED["nasbench201_best"]
    sizes = {"channels": 4, "cells_per_stage": 1}
    network = build_network(PUBLISHED["nasbench201_best"], sizes, in_channels=1, num_classes=10)
    network.load_state_dict(load_file(run / "model.safetensors"))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["num_parameters"] == sum(p.numel() for p in network.parameters())
    assert summary["metrics"]["accuracy/test_top1"] <= summary["metrics"]["accuracy/test_top5"]
    assert f"{summary['num_parameters']:,}" in output
    assert "multiply-adds" in output
    assert f"export.py 'run={run}'" in output and f"--logdir '{run}'" in output


def test_a_search_can_be_retrained_from_its_folder(run_program: Run, tmp_path: Path) -> None:
    text = PUBLISHED["darts_v2"].to_json()
    (tmp_path / "genotype.json").write_text(text)
    code, output = run_program(
        "retrain", f"genotype={tmp_path}", *_DARTS, f"run_dir={tmp_path}/run"
    )
    assert code == 0, output


@pytest.mark.parametrize(
    "genotype",
    [
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|",
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
        "reduce=[('max_pool_3x3', 0), ('dil_conv_5x5', 1)], reduce_concat=[2])",
        "darts_v1",
        "pc_darts",
    ],
)
def test_every_form_of_a_genotype_is_taken(run_program: Run, tmp_path: Path, genotype: str) -> None:
    sizes = TINY_RETRAIN if genotype.startswith("|") else _DARTS
    code, output = run_program(
        "retrain", f"genotype={genotype}", *sizes, "epochs=1", f"run_dir={tmp_path}/run"
    )
    assert code == 0, output


@pytest.mark.parametrize(
    "overrides",
    [
        ("drop_path=0.3", "ema_decay=0.9", "label_smoothing=0.1", "data.cutout=3"),
        ("precision=bf16", "channels_last=false"),
        ("weights.schedule=exponential", "weights.warmup_epochs=1"),
        ("auxiliary_weight=0.4", "data.image_size=32", "epochs=1", "data.limit=64"),
    ],
    ids=lambda overrides: ",".join(overrides),
)
def test_every_part_of_the_recipe_can_be_used(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    code, output = run_program(
        "retrain", "genotype=darts_v2", *_DARTS, *overrides, f"run_dir={tmp_path}/run"
    )
    assert code == 0, output
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert ("accuracy/test_top1_ema" in metrics) == any("ema" in o for o in overrides)


def test_what_a_sweeper_gets_is_the_accuracy_of_the_weights_that_are_written(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does a sweep that goes on, which takes the first metric of a finished run."""
    module, returned = __import__("retrain"), list[float]()
    retrain = module.retrain

    def noting(*arguments: Any) -> float:
        returned.append(retrain(*arguments))
        return returned[-1]

    monkeypatch.setattr(module, "retrain", noting)
    # Seven steps hardly move an average that begins with the first weights.
    sizes = (*TINY_RETRAIN, "epochs=1", "data.limit=250", "ema_decay=0.999")
    code, output = run_program(
        "retrain", "genotype=nasbench201_resnet", *sizes, f"run_dir={tmp_path}/run"
    )
    assert code == 0, output
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    average, raw = metrics["accuracy/test_top1_ema"], metrics["accuracy/test_top1"]
    assert returned == [average] != [raw]
    assert next(iter(metrics)) == "accuracy/test_top1_ema"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_network_trains_like_the_plain_one(run_program: Run, tmp_path: Path) -> None:
    def weights(name: str, *more: str) -> dict[str, torch.Tensor]:
        run = tmp_path / name
        sizes = (*TINY_RETRAIN, "epochs=1", "data.limit=64")
        arguments = ("genotype=nasbench201_resnet", *sizes, *more, f"run_dir={run}")
        code, output = run_program("retrain", *arguments)
        assert code == 0, output
        return load_file(run / "model.safetensors")

    plain, compiled = weights("plain"), weights("compiled", "compile=true")
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-3)


_NO_EDGE = "genotype=|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"genotype has no value: give genotype=\.\.\., genotype.json, run folder, t"),
        (("genotype=darts_v3",), r"unknown published cell 'darts_v3'.*did you mean 'darts_v2'\?"),
        (("genotype=runs/none/genotype.json",), r"no such file: runs/none/genotype.json"),
        (("genotype=|nor_conv_3x3~0|+|none~1|",), r"position 18: .*"),
        (("genotype=Genotype(normal=print(1))",), r"expected Genotype\(normal"),
        (("genotype=darts_v2", "network.cells_per_stage=3"), r"network.cells_per_stage: "),
        (("genotype=darts_v2", "network.stem=imgnet"), r"did you mean 'imagenet'\?"),
        (("genotype=darts_v2", "auxiliary_weight=0.4"), r"made for images of 32x32 pixels"),
        (("genotype=nasbench201_best", "auxiliary_weight=0.4"), r"has no auxiliary head"),
        (("genotype=darts_v2", "drop_path=1"), r"drop_path is 1.0: must lie in \[0, 1\)"),
        ((_NO_EDGE, "drop_path=0.1", "data.limit=100"), r"drop_path: the network has no path"),
        (("genotype=darts_v2", "network.cells=0"), r"network.cells is 0: must be at least 1"),
        (("genotype=darts_v2", "label_smothing=0.1"), r"did you mean 'label_smoothing'\?"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_answered_in_one_line(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run = tmp_path / "run"
    code, output = run_program("retrain", *overrides, "network.channels=4", f"run_dir={run}")
    assert code == 1
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not run.exists(), "nothing may be left behind"


def test_a_path_that_does_not_exist_is_answered_with_the_nearest_run(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = tmp_path / "runs" / "search" / "first"
    searched.mkdir(parents=True)
    (searched / "genotype.json").write_text(PUBLISHED["nasbench201_best"].to_json())
    monkeypatch.chdir(tmp_path)
    for given in ("runs/search/frist", "runs/serach/first/genotype.json", "frist"):
        code, output = run_program("retrain", f"genotype={given}", "run_dir=runs/retrain/new")
        (line,) = output.strip().splitlines()
        assert code == 1 and line.startswith("error: genotype: "), output
        assert "did you mean 'runs/search/first" in line, line
        assert not Path("runs/retrain/new").exists()
