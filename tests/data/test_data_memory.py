"""Batches from memory against a reference that works image by image; what a search may see."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import load_retrain, load_search, make_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from nas.data import DataInfo, DataSettings, Loader
from nas.data.memory import Augmentation, MemoryLoader, channel_statistics
from nas.data.order import derived_seed, permutation

MEAN, STD = (0.2, 0.5, 0.7), (0.1, 0.3, 0.6)


def loader(pixels: Tensor, augmentation: Augmentation | None, batch_size: int = 4) -> MemoryLoader:
    labels = torch.arange(len(pixels))
    return MemoryLoader(
        pixels,
        labels,
        MEAN,
        STD,
        batch_size=batch_size,
        seed=5,
        stream="train",
        augmentation=augmentation,
    )


def some_pixels(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def one_by_one(pixels: Tensor, augmentation: Augmentation, epoch: int, step: int) -> Tensor:
    """A batch of 4 as the code of DARTS would make it, with the loader's random numbers."""
    _, channels, height, width = pixels.shape
    padding, length = augmentation.crop_padding, augmentation.cutout
    generator = torch.Generator().manual_seed(derived_seed(5, "train", epoch, step))
    flips = (
        (torch.rand(4, generator=generator) < 0.5).tolist() if augmentation.flip else [False] * 4
    )
    places = torch.zeros(2, 4, dtype=torch.int64)
    if padding:
        places = torch.randint(2 * padding + 1, (2, 4), generator=generator)
    centres = torch.zeros(2, 4, dtype=torch.int64)
    if length:
        centres = torch.stack(
            [torch.randint(size, (4,), generator=generator) for size in (height, width)]
        )
    order = permutation(len(pixels), 5, "train", epoch)[4 * step : 4 * step + 4]
    results = []
    for k, index in enumerate(order.tolist()):
        image = np.asarray(pixels[index]).transpose(1, 2, 0)
        image = image[:, ::-1] if flips[k] else image
        image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
        top, left = places[:, k].tolist()
        image = image[top : top + height, left : left + width] / 255
        image = (image - np.array(MEAN)) / np.array(STD)
        y, x = centres[:, k].tolist()
        rows = np.clip([y - length // 2, y - length // 2 + length], 0, height)
        columns = np.clip([x - length // 2, x - length // 2 + length], 0, width)
        image[rows[0] : rows[1], columns[0] : columns[1]] = 0
        assert image.shape == (height, width, channels)
        results.append(torch.from_numpy(image.transpose(2, 0, 1).copy()))
    return torch.stack(results)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.integers(0, 4),
    st.booleans(),
    st.integers(0, 9),
    st.integers(0, 3),
)
def test_batches_equal_a_reference_image_by_image(
    height: int, width: int, padding: int, flip: bool, cutout: int, epoch: int
) -> None:
    pixels = some_pixels(9, height, width)
    augmentation = Augmentation(padding, flip, cutout)
    batches = list(loader(pixels, augmentation).epoch(epoch))
    assert len(batches) == 2  # the ninth image is left out
    for step, (images, labels) in enumerate(batches):
        expected = one_by_one(pixels, augmentation, epoch, step)
        torch.testing.assert_close(images.double(), expected, atol=2e-6, rtol=2e-6)
        assert torch.equal(labels, permutation(9, 5, "train", epoch)[4 * step : 4 * step + 4])


def test_padding_is_black_before_it_is_normalised() -> None:
    white = torch.full((64, 3, 4, 4), 255, dtype=torch.uint8)
    images, _ = next(loader(white, Augmentation(crop_padding=2), 64).epoch(0))
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    for channel, (black, full) in enumerate(zip(-mean / std, (1 - mean) / std, strict=True)):
        values = images[:, channel]
        near = [(values - value).abs() < 1e-5 for value in (black, full)]
        assert (near[0] | near[1]).all()
        # An offset of 0..4 keeps 4 - |offset - 2| rows, on average 2.8 of 4: 0.49 stays white.
        assert 0.39 < near[1].float().mean() < 0.59


def test_cutout_is_the_mean_after_normalisation_and_clipped_as_often_as_it_should() -> None:
    white = torch.full((2000, 3, 8, 8), 255, dtype=torch.uint8)
    images, _ = next(loader(white, Augmentation(cutout=4), 2000).epoch(0))
    holes = images == 0
    assert (holes.any(1) == holes.all(1)).all()
    sides = holes[:, 0].any(2).sum(1)
    # Rows y-2..y+1 for y of 0..7: 2, 3, 4, 4, 4, 4, 4, 3 of them lie inside.
    shares = sides.bincount(minlength=5) / 2000
    torch.testing.assert_close(shares, torch.tensor([0, 0, 1, 2, 5]) / 8, atol=0.05, rtol=0)


def test_evaluation_has_no_augmentation_and_keeps_the_last_batch() -> None:
    pixels = some_pixels(10, 5, 3)
    batches = list(loader(pixels, None).epoch(0))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(10))
    assert torch.equal(recovered(torch.cat([images for images, _ in batches]), MEAN, STD), pixels)


def recovered(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The pixels that normalised images were made from."""
    means, stds = (torch.tensor(values).double()[:, None, None] for values in (mean, std))
    pixels = (images.double() * stds + means) * 255
    assert (pixels - pixels.round()).abs().max() < 1e-3
    return pixels.round().to(torch.uint8)


@pytest.mark.parametrize("shape", [(7, 3, 5, 4), (4097, 1, 2, 2)])
def test_statistics_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels[-1] = 255
    mean, std = channel_statistics(torch.from_numpy(pixels).split(100), shape[1])
    assert mean == pytest.approx((pixels / 255).mean((0, 2, 3)), abs=1e-12)
    assert std == pytest.approx((pixels / 255).std((0, 2, 3)), abs=1e-12)


def folder(root: Path, **values: Any) -> DataSettings:
    return DataSettings(**{"name": "image_folder", "path": str(root), "num_workers": 0, **values})


def pixels_of(source: Loader, info: DataInfo) -> tuple[Tensor, Tensor]:
    batches = list(source.epoch(0))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return recovered(images, info.mean, info.std), labels


@pytest.mark.parametrize("storage", ["memory", "stream"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("given_statistics", [True, False])
def test_evaluation_images_are_the_files_to_the_pixel(
    tmp_path: Path, storage: str, mode: str, given_statistics: bool
) -> None:
    root = make_folder(tmp_path, mode=mode)
    channels = len(mode)
    statistics = {"mean": [0.3] * channels, "std": [0.2] * channels} if given_statistics else {}
    data = load_retrain(folder(root, storage=storage, **statistics))
    if given_statistics:
        assert (data.info.mean, data.info.std) == ((0.3,) * channels, (0.2,) * channels)
    files = sorted((root / "test").rglob("*.png"))
    expected = np.stack([np.asarray(Image.open(file)).reshape(8, 8, channels) for file in files])
    pixels, labels = pixels_of(data.test, data.info)
    assert np.array_equal(pixels.numpy().transpose(0, 2, 3, 1), expected)
    assert labels.tolist() == [int(file.parent.name == "bee") for file in files]


def test_search_on_digits_sees_two_disjoint_halves_and_no_test_image() -> None:
    digits = DataSettings(name="digits")

    def distinct(source: Loader, info: DataInfo) -> set[bytes]:
        return {image.numpy().tobytes() for image in pixels_of(source, info)[0]}

    searches = [load_search(digits, 1, seed=seed) for seed in (0, 1)]
    retrainings = [load_retrain(digits, 1, seed=seed) for seed in (0, 1)]
    tests = [distinct(data.test, data.info) for data in retrainings]
    assert tests[0] == tests[1] and len(tests[0]) == 359
    for data in searches:
        train, validation = distinct(data.train, data.info), distinct(data.validation, data.info)
        assert len(train) == len(validation) == 719
        assert not train & validation
        assert not (train | validation) & tests[0]
    halves = [distinct(data.train, data.info) for data in searches]
    assert halves[0] != halves[1]


def test_image_size_is_what_a_search_gets_and_what_the_test_images_get(tmp_path: Path) -> None:
    root = make_folder(tmp_path, size=(14, 10))
    for name, settings_ in (
        ("folder", folder(root, image_size=6)),
        ("digits", DataSettings(name="digits", image_size=6)),
    ):
        search, retrain = load_search(settings_), load_retrain(settings_)
        for source in (search.train, search.validation_eval, retrain.train, retrain.test):
            assert next(source.epoch(0))[0].shape[2:] == (6, 6), name
        assert search.info.image_size == retrain.info.image_size == 6


def test_imagenet_is_evaluated_on_the_centre_at_seven_eighths(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "train", "val", num=2, size=(16, 16))
    for file in (root / "val").rglob("*.png"):
        image = Image.new("RGB", (16, 16))  # 256 / 224 of 14 pixels: a black frame is cut off
        image.paste((255, 255, 255), (1, 1, 15, 15))
        image.save(file)
    values = {"name": "imagenet", "image_size": 14, "mean": [0.5] * 3, "std": [0.5] * 3}
    data = load_retrain(folder(root, **values))
    images, _ = next(data.test.epoch(0))
    assert images.shape == (4, 3, 14, 14)
    torch.testing.assert_close(images, torch.ones_like(images))
    assert next(data.train.epoch(0))[0].shape == (2, 3, 14, 14)
