"""An export: complete or not there; what it says of itself; what it leaves alone."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_helpers import NETWORKS, describe, save_trained
from PIL import Image

import nas
from nas.deploy import export as export_module
from nas.deploy import formats
from nas.deploy.card import model_card
from nas.deploy.description import Difference, ModelDescription
from nas.deploy.export import ALWAYS, Export
from nas.errors import UserError
from nas.genotype import Genotype


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_trained(tmp_path / "run", "nasbench201")
    return tmp_path / "run"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_export_is_complete_and_can_be_loaded_without_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "deep" / "exported"
    found = Export(source=run, output=output, formats=["pt2"]).write()
    images = torch.randn(2, 3, 16, 16)
    expected = nas.load(run)(images)
    shutil.rmtree(run)
    assert names(output) == {*ALWAYS, "model.pt2"} and names(output.parent) == {"exported"}
    assert torch.equal(nas.load(output)(images), expected)
    assert ModelDescription.load(output / "model.json") == found
    assert found.differences.keys() == {"pt2"}
    modes = {path.stat().st_mode & 0o777 for path in output.iterdir()}
    assert len(modes) == 1, "whoever may read one file may read all"

    # The snippets of the card, in the folder of the card.
    monkeypatch.chdir(output)
    Image.fromarray(np.zeros((30, 20, 3), dtype=np.uint8)).save("image.png")
    for code in re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})


def test_an_auxiliary_head_is_not_exported(tmp_path: Path) -> None:
    save_trained(tmp_path / "run", "darts", auxiliary=True)
    Export(source=tmp_path / "run", output=tmp_path / "out").write()
    assert b"auxiliary" not in (tmp_path / "out" / "model.safetensors").read_bytes()
    assert b"auxiliary" in (tmp_path / "run" / "model.safetensors").read_bytes()


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    save_trained(tmp_path / "run", "custom")
    export = {"source": tmp_path / "run", "output": tmp_path / "out", "formats": ["pt2"]}
    with pytest.raises(UserError, match="of a model of your own"):
        Export(**export).write()
    assert not (tmp_path / "out").exists()
    Export(**export, model="toy_models.SmallNet").write()
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'nas.load(".", model="toy_models.SmallNet")' in card and "must be importable" in card


def test_an_export_can_be_exported_again(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    Export(source=run, output=first, formats=["pt2"]).write()
    (first / "LICENSE").write_text("mine")
    Export(source=first, output=second).write()
    assert names(second) == set(ALWAYS)
    assert ModelDescription.load(second / "model.json").differences == {}
    # In the place of an earlier one: what is of other weights goes, what is the user's stays.
    save_trained(run, "nasbench201", seed=1)
    Export(source=run, output=first).write()
    assert names(first) == {*ALWAYS, "LICENSE"}
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(nas.load(first)(images), nas.load(run)(images))
    assert not torch.equal(nas.load(first)(images), nas.load(second)(images))


@pytest.mark.parametrize("step", ["save_genotype_picture", "model_card", "_put_in_place"])
def test_nothing_is_left_by_a_failure(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    output, before = tmp_path / "out", names(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, step, fail)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device"):
        Export(source=run, output=output).write()
    assert names(tmp_path) == before
    monkeypatch.undo()
    Export(source=run, output=output).write()
    kept = {path.name: path.read_bytes() for path in output.iterdir()}
    monkeypatch.setattr(export_module, step, fail)
    with pytest.raises(UserError):
        Export(source=run, output=output).write()
    assert {path.name: path.read_bytes() for path in output.iterdir()} == kept


def test_a_format_that_is_off_stops_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "compare", lambda *_: Difference(0.1, 1.0))
    with pytest.raises(UserError, match="nothing is exported"):
        Export(source=run, output=tmp_path / "out", formats=["pt2"]).write()
    assert names(tmp_path) == {"run"}
    Export(source=run, output=tmp_path / "out", formats=["pt2"], tolerance=0.2).write()


def test_nothing_else_is_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "other" / "checkpoints").mkdir(parents=True)
    (tmp_path / "link").symlink_to(run)
    for output, message in {
        "file": "is a file, not a folder",
        "full": "has other files in it",
        "other": "is the folder of a run",
        "run": "is the folder that is exported",
        "link": "is the folder that is exported",
        "file/below": "cannot write",
    }.items():
        with pytest.raises(UserError, match=message):
            Export(source=run, output=tmp_path / output).write()
    assert (tmp_path / "full" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    Export(source=run, output=tmp_path / "empty").write()
    Export(source=run, output=Path(os.path.relpath(tmp_path / "relative"))).write()
    assert names(tmp_path / "relative") == names(tmp_path / "empty") == set(ALWAYS)


@pytest.mark.parametrize("space", NETWORKS)
def test_a_card_tells_what_is_known(space: str) -> None:
    genotype, sizes = NETWORKS[space]
    card = model_card(genotype, describe(genotype, sizes))
    for known in (
        *("ant, bee, cat", "`insects`: 40 training images, 20 test images", "crop padding 2"),
        *("Top-1 91.25 %, top-5 100.00 %", "moving average", "seed 1", "one-path-nas 0.1.0"),
        *("| parameters | 1,234 |", "56,789", "1.2 h on an abacus", "| search | 99 s |"),
        *("`weights.name` | sgd", "[0.5, 0.4, 0.3]", "16x16", "(cell.png)", "## Licence"),
        *("nas.Predictor", "nas.load", "## Limits"),
    ):
        assert known in card, known
    assert "None" not in card and "unknown" not in card
    assert len(re.findall(r"^# ", card, re.MULTILINE)) == 1


def test_a_card_tells_how_imagenet_is_augmented() -> None:
    genotype, sizes = NETWORKS["darts"]
    data = {"name": "imagenet", "num_train": 40, "num_test": 20, "crop_padding": 0, "flip": True}
    card = model_card(genotype, replace(describe(genotype, sizes), data=data))
    assert "Augmentation in training: random resized crops, colour jitter, flip True." in card


def test_a_card_leaves_out_what_is_not_known() -> None:
    genotype, sizes = NETWORKS["vit"]
    full = json.loads(describe(genotype, sizes).to_json())
    bare = ModelDescription(
        space="vit",
        sizes={},
        class_names=tuple(f"class {number}" for number in range(1000)),
        preprocessing=describe(genotype, sizes).preprocessing,
    )
    card = model_card(Genotype("vit", (), {"depth": "1"}), bare)
    assert full["data"] and "## Data" not in card and "## Accuracy" not in card
    assert "class 19 and 980 more" in card and "None" not in card


@pytest.mark.parametrize("accuracy", [{"test_top1": 91.25}, {"test_top1": None}, {"x": "y"}])
def test_a_card_of_half_an_accuracy_says_so(accuracy: dict[str, object]) -> None:
    genotype, sizes = NETWORKS["vit"]
    card = model_card(genotype, replace(describe(genotype, sizes), accuracy=accuracy))
    assert "top-5 an unknown share of the 20 test images" in card and "None" not in card
