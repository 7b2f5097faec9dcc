"""Streams: the same whatever the number of workers, and ImageNet's augmentation."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from data_folders import load_retrain, load_search, make_folder
from PIL import Image
from torch import Tensor

from nas.data import DataSettings
from nas.data.memory import Augmentation
from nas.data.transforms import Cutout, evaluation_transform, imagenet_training_transform

NEUTRAL = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def stream(root: Path, **settings: Any) -> DataSettings:
    values = {"crop_padding": 2, "flip": True, "cutout": 2, "storage": "stream", **settings}
    return DataSettings(**{"name": "image_folder", "path": str(root), **values})


@pytest.mark.parametrize("name", ["image_folder", "imagenet"])
def test_number_of_workers_changes_nothing(tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path, size=(12, 12))
    own = {"name": "imagenet", "storage": "auto"} if name == "imagenet" else {}
    batches: list[list[tuple[Tensor, Tensor]]] = []
    for num_workers, seed in ((0, 1), (2, 2)):
        torch.manual_seed(seed)
        data = load_search(stream(root, image_size=10, num_workers=num_workers, **own))
        batches.append([*data.train.epoch(1, 1), *data.validation_eval.epoch(0)])
    assert len(batches[0]) > 2
    for (images, labels), (others, same_labels) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same_labels)


def test_an_image_is_augmented_differently_each_epoch(tmp_path: Path) -> None:
    data = load_search(stream(make_folder(tmp_path, num=15), num_workers=0))
    epochs = [torch.cat([images for images, _ in data.train.epoch(e)]) for e in range(2)]
    assert len(torch.cat(epochs).flatten(1).unique(dim=0)) > 20


def test_gpu_randomness_is_left_alone(tmp_path: Path) -> None:
    data = load_search(stream(make_folder(tmp_path), num_workers=0))
    with mock.patch("torch.cuda.manual_seed_all") as seeded:
        next(data.train.epoch(0))
    seeded.assert_not_called()


def test_imagenet_has_its_folders_and_sizes(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "train", "val", size=(40, 30))
    settings = stream(root, name="imagenet", storage="auto", image_size=None, num_workers=0)
    data = load_retrain(settings)
    assert data.info.image_size == 224 and data.info.in_channels == 3
    assert next(data.train.epoch(0))[0].shape == (2, 3, 224, 224)
    assert next(data.test.epoch(0))[0].shape == (5, 3, 224, 224)


def test_imagenet_evaluation_is_the_centre_of_the_resized_image() -> None:
    image = Image.new("RGB", (512, 256))
    image.paste((255, 255, 255), (144, 16, 368, 240))  # the centre of 224 pixels
    pixels = evaluation_transform(224, *NEUTRAL, resize=256)(image)
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 1).all()


def test_imagenet_training_crops_flips_and_jitters() -> None:
    gradient = Image.linear_gradient("L").rotate(90).convert("RGB")
    seen = {"flip": False, "plain": False, "colour": False}
    transform = imagenet_training_transform(32, Augmentation(flip=True), *NEUTRAL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(20):
            pixels = transform(gradient)
            assert pixels.shape == (3, 32, 32)
            left, right = pixels[..., :8].mean(), pixels[..., -8:].mean()
            seen["flip"] |= bool(left < right)
            seen["plain"] |= bool(left > right)
            seen["colour"] |= bool(pixels.mean() > 0.6)
    assert all(seen.values())


def test_cutout_of_one_image_is_clipped_square() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        areas = {int((Cutout(3)(torch.ones(1, 5, 5)) == 0).sum()) for _ in range(200)}
    assert areas == {4, 6, 9}
