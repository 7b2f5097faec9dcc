"""What the predictor does to an image is what the evaluation of a retraining does to it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import load_retrain
from PIL import Image
from torch import Tensor

from nas.data import DataSettings, RetrainData
from nas.data.preprocessing import RESIZES, Preprocessing
from nas.data.sources import load_split
from nas.errors import UserError

SIZES = [(20, 20), (31, 20), (9, 40), (16, 17), (8, 8), (300, 200)]


def photos(root: Path, mode: str = "RGB") -> list[Path]:
    """Test images of many sizes in two classes, in the order of the labels."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index, (width, height) in enumerate(SIZES):
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")
    return sorted((root / "test").rglob("*.png"))


def settings(root: Path, **more: Any) -> DataSettings:
    given = {"name": "image_folder", "path": str(root), "image_size": 12, "num_workers": 0, **more}
    return DataSettings(**given)


def evaluated(data: RetrainData) -> Tensor:
    return torch.cat([images for images, _ in data.test.epoch(0)])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_images_of_a_folder(tmp_path: Path, mode: str) -> None:
    paths = photos(tmp_path / "photos", mode)
    data = load_retrain(settings(tmp_path / "photos"))
    preprocess = Preprocessing.of(data.info)
    assert preprocess.in_channels == (1 if mode == "L" else 3) and preprocess.resize == "fit"
    assert torch.equal(torch.stack([preprocess(path) for path in paths]), evaluated(data))
    with Image.open(paths[0]) as image:
        assert torch.equal(preprocess(image), preprocess(str(paths[0])))


def test_images_that_are_streamed(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos")
    data = load_retrain(settings(tmp_path / "photos", storage="stream"))
    inputs = torch.stack([Preprocessing.of(data.info)(path) for path in paths])
    assert torch.equal(inputs, evaluated(data))


def test_images_of_imagenet(tmp_path: Path) -> None:
    paths = photos(tmp_path / "photos")
    data = load_retrain(settings(tmp_path / "photos", name="imagenet", image_size=28))
    preprocess = Preprocessing.of(data.info)
    assert preprocess.resize == "shorter_side" and "to 32 pixels" in preprocess.steps()[1]
    inputs = torch.stack([preprocess(path) for path in paths])
    assert torch.equal(inputs, evaluated(data))


@pytest.mark.parametrize("size", [None, 8, 5, 12])
def test_images_of_a_data_set_in_memory(tmp_path: Path, size: int | None) -> None:
    data = load_retrain(DataSettings(name="digits", image_size=size))
    pixels = load_split(DataSettings(name="digits"), train=False).pixels[:50, 0].numpy()
    inputs = []
    for index, values in enumerate(pixels):
        path = tmp_path / f"{index}.png"
        Image.fromarray(values).save(path)
        inputs.append(Preprocessing.of(data.info)(path))
    assert torch.equal(torch.stack(inputs), evaluated(data)[:50])


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(40, 30), (3, 50), (1, 1)])
def test_every_rule_gives_the_size_and_says_what_it_does(
    resize: str, size: tuple[int, int]
) -> None:
    preprocess = Preprocessing(3, 14, resize, (0.5,) * 3, (0.25,) * 3)
    inputs = preprocess(Image.new("RGB", size, (255, 0, 51)))
    assert inputs.shape == (3, 14, 14) and inputs.dtype == torch.float32
    torch.testing.assert_close(inputs[:, 7, 7], torch.tensor([2.0, -2.0, -1.2]))
    text = " ".join(preprocess.steps())
    assert "14" in text and "RGB" in text and "[0.5, 0.5, 0.5]" in text and "{" not in text


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    grey = Preprocessing(1, 8, "fit", (0.5,), (0.25,))
    with pytest.raises(UserError, match="the image has more than 8 bits a channel"):
        grey(Image.new("I;16", (8, 8)))
    (tmp_path / "no.png").write_text("no image")
    with pytest.raises(UserError, match=r"broken image .*no\.png"):
        grey(tmp_path / "no.png")
    with pytest.raises(UserError, match="images of 4 channels, files have 1 or 3"):
        Preprocessing(4, 8, "fit", (0.5,) * 4, (0.25,) * 4)(Image.new("RGB", (8, 8)))
    with pytest.raises(UserError, match=r"unknown rule 'fitt' .*did you mean 'fit'"):
        Preprocessing(1, 8, "fitt", (0.5,), (0.25,))
    for mean, std in (((0.5,) * 3, (0.2,)), ((0.5,), (0.0,))):
        with pytest.raises(ValueError, match="a number a channel"):
            Preprocessing(1, 8, "fit", mean, std)
