"""`export.py` as a user runs it: from a retraining to labels for images, and bad input."""

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_RETRAIN, slow, start_program
from PIL import Image
from safetensors.torch import load_file

import nas
from nas.deploy import formats
from nas.predict import main

Run = Callable[..., tuple[int, str]]
Finished = Callable[..., Path]

FILES = {"README.md", "cell.png", "genotype.json", "model.json", "model.safetensors"}
_DARTS = ("genotype=darts_v2", "network.channels=4", "network.cells=3")
_NB201 = ("genotype=nasbench201_best", "network.channels=4", "network.cells_per_stage=1")
_TRAINED = ("genotype=nasbench201_best", *TINY_RETRAIN, "epochs=1")
_CUSTOM = ("network.model=toy_models.SmallNet", "network.arguments.depth=3")


def photos(root: Path) -> Path:
    """Class folders of images of many sizes; the classes can be told apart, with mistakes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 13)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                width, height = generator.integers(32, 60, 2)
                pixels = generator.normal(100 + 12 * label, 40, (height, width, 3)).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    return root


@pytest.mark.parametrize(
    "recipe",
    [
        (*_DARTS, "auxiliary_weight=0.4", "drop_path=0.3", "ema_decay=0.8", "data.image_size=32"),
        (*_NB201, "data.storage=stream", "data.num_workers=0", "data.image_size=12"),
    ],
    ids=["moving average", "stream"],
)
def test_predictions_are_as_good_as_the_retraining_said(
    run_program: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], recipe: tuple[str, ...]
) -> None:
    root, run, output = photos(tmp_path / "photos"), tmp_path / "run", tmp_path / "out"
    data = ("data=image_folder", f"data.path={root}", "batch_size=8", "epochs=3")
    code, printed = run_program("retrain", *recipe, *data, f"run_dir={run}")
    assert code == 0, printed
    assert f"python export.py run={run}" in printed
    export = (f"run={run}", f"output={output}", f"run_dir={tmp_path}/log")
    code, printed = run_program("export", *export, "formats=[safetensors,pt2]")
    assert code == 0, printed
    assert {path.name for path in output.iterdir()} == FILES | {"model.pt2"}
    assert re.search(r"model\.pt2 +logits differ by \S+ at most", printed)

    capfd.readouterr()
    assert main([str(output), str(root / "test"), "--device", "cpu"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    num_correct = sum(Path(row["image"]).parent.name == row["label"] for row in rows)
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    has_average = "ema_decay=0.8" in recipe
    reported = metrics["accuracy/test_top1_ema" if has_average else "accuracy/test_top1"]
    assert len(rows) == 39 and 100 * num_correct / 39 == pytest.approx(reported)
    assert 13 < num_correct < 39, "neither chance nor perfection would show a difference"
    assert f"Top-1 {reported:.2f} %" in (output / "README.md").read_text()

    if has_average:
        state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
        weight = load_file(output / "model.safetensors")["classifier.weight"]
        assert torch.equal(weight, state["ema"]["module.classifier.weight"])
        assert not torch.equal(weight, state["model"]["classifier.weight"])


def test_by_default_all_formats_are_written_that_can_be(
    run_program: Run, finished_run: Finished, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run("retrain", *_TRAINED), tmp_path / "run")
    code, printed = run_program("export", f"run={run}", f"run_dir={tmp_path}/log")
    assert code == 0, printed
    available = formats.available_formats()
    files = {formats.FORMATS[name].file for name in available}
    assert {path.name for path in (run / "export").iterdir()} == FILES | files
    assert ("not written: it needs" in printed) == ("onnx" not in available)
    # A run that goes on, though it is done, leaves the export alone.
    assert run_program("retrain", f"run_dir={run}", "resume=true")[0] == 0
    assert nas.load(run / "export").state_dict().keys() == nas.load(run).state_dict().keys()


def test_a_run_of_an_earlier_release_gets_its_description(
    run_program: Run, finished_run: Finished, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run("retrain", *_TRAINED), tmp_path / "run")
    (run / "model.json").unlink()
    code, printed = run_program("export", f"run={run}", f"run_dir={tmp_path}/log")
    assert code == 1 and f"python retrain.py run_dir={run} resume=true" in printed, printed
    before = load_file(run / "model.safetensors")
    assert run_program("retrain", f"run_dir={run}", "resume=true")[0] == 0
    after = nas.load(run).state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_from_a_search_of_a_model_of_ones_own(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    search, run, output = (tmp_path / name for name in ("search", "run", "out"))
    model = ("space=custom", "space.model=toy_models.SmallNet", "space.arguments.depth=3")
    tiny = ("epochs=1", "batch_size=32", "data.limit=128")
    assert run_program("search", *model, *tiny, f"run_dir={search}")[0] == 0
    export = (f"output={output}", f"run_dir={tmp_path}/log", "formats=[pt2]")
    code, printed = run_program("export", f"run={search}", *export)
    assert code == 1 and f"python retrain.py genotype={search}/genotype.json" in printed

    code, printed = run_program("retrain", f"genotype={search}", *_CUSTOM, *tiny, f"run_dir={run}")
    assert code == 0 and f"export.py run={run} model=toy_models.SmallNet" in printed, printed
    code, printed = run_program("export", f"run={run}", *export)
    assert code == 1 and "give model=toy_models.SmallNet" in printed
    for trust in ("model=toy_models.SmallNet", "trust_recorded_model=true"):
        code, printed = run_program("export", f"run={run}", *export, trust)
        assert code == 0 and "IMAGE... --model toy_models.SmallNet" in printed, printed
    card = (output / "README.md").read_text()
    assert "| search | " in card and "toy_models.SmallNet" in card
    assert main([str(output), str(ROOT / "docs" / "estimators.png"), "--trust-recorded-model"]) == 0


@pytest.mark.parametrize("chosen", ["pt2", slow("onnx")])
def test_a_full_disk_is_one_line(finished_run: Finished, tmp_path: Path, chosen: str) -> None:
    if chosen not in formats.available_formats():
        pytest.skip("onnx, onnxscript and onnxruntime are not installed")
    run, output = finished_run("retrain", *_TRAINED), tmp_path / "out"
    export = (f"run={run}", f"output={output}", f"run_dir={tmp_path}/log", f"formats=[{chosen}]")
    process = start_program("export", *export, max_file_size=50_000)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 1 and printed.startswith("error: "), printed
    assert len(printed.strip().splitlines()) == 1, printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"run has no value: give run=\.\.\."),
        (("run=nowhere",), r"no such folder: nowhere"),
        (("run=docs",), r"neither an export nor the folder of a finished retraining"),
        (("run=docs", "formats=[onx]"), r"unknown format 'onx' \(formats\).*did you mean 'onnx'"),
        (("run=docs", "tolerance=0"), r"tolerance is 0.0: must be positive"),
        (("run=docs", "threads=0"), r"threads is 0: must be at least 1"),
        (("run=docs", "format=[onnx]"), r"unknown setting 'format'; did you mean 'formats'\?"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_answered_in_one_line(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    code, printed = run_program("export", *overrides, f"run_dir={tmp_path}/log")
    lines = printed.strip().splitlines()
    assert code == 1 and len(lines) == 1, printed
    assert lines[0].startswith("error: ") and re.search(message, lines[0]), lines[0]
    assert list(tmp_path.iterdir()) == [], "nothing may be left behind"


def test_a_missing_package_is_named_with_its_extra(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    given = ("run=docs", "formats=[onnx]", f"run_dir={tmp_path}/log")
    code, printed = run_program("export", *given)
    assert code == 1 and "pip install 'one-path-nas[onnx]'" in printed, printed
    assert len(printed.strip().splitlines()) == 1


def test_the_entry_points_are_installed_with_the_others() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'nas-export = "export:main"' in text and '"export",' in text
    assert 'nas-predict = "nas.predict:main"' in text
