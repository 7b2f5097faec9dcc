"""The page on exports: its commands and its code, run as they stand."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from template_process import ROOT, run_python

from nas.data.preprocessing import RESIZES
from nas.deploy.export import POSSIBLE
from nas.deploy.formats import available_formats

TEXT = (ROOT / "docs" / "export.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.skipif(
    "onnx" not in available_formats(),
    reason="onnx, onnxscript and onnxruntime are not installed",
)
def test_the_page_can_be_followed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")

    retrain, export, predict = blocks("bash")[0].strip().splitlines()
    small = ("network.channels=4", "network.cells_per_stage=1", "batch_size=8", "epochs=1")
    _, program, *overrides = shlex.split(retrain)
    run_python(str(ROOT / program), *overrides, *small, cwd=tmp_path)
    _, program, *overrides = shlex.split(export)
    run_python(str(ROOT / program), *overrides, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "exported").iterdir()} == set(POSSIBLE)
    predict, _, file = predict.partition(" > ")
    printed = run_python(*shlex.split(predict)[1:], cwd=tmp_path)
    rows = list(csv.DictReader(printed.splitlines()))
    assert file == "labels.csv" and len(rows) == 16 * 2, "there are but two classes"
    for code in blocks("python"):
        run_python("-c", code, cwd=tmp_path)


def test_the_page_knows_all_files_and_rules() -> None:
    for name in (*POSSIBLE, *RESIZES):
        assert f"`{name}`" in TEXT, name
