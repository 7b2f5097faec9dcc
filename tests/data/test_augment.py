"""Batched augmentation against one image at a time, written as the definition says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.data.augment import cutout, normalise, random_crop, random_flip

SIZES = st.integers(1, 9)
SETTINGS = settings(deadline=None, derandomize=True, max_examples=100)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(batch: int, height: int, width: int) -> Tensor:
    return torch.randint(1, 256, (batch, 3, height, width), generator=seeded(7), dtype=torch.uint8)


def crop_of(image: Tensor, padding: int, top: int, left: int) -> Tensor:
    """Pixel by pixel; black outside."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + top - padding, x + left - padding
            if 0 <= from_y < height and 0 <= from_x < width:
                result[:, y, x] = image[:, from_y, from_x]
    return result


@SETTINGS
@given(SIZES, SIZES, st.integers(1, 4), st.integers(0, 2**31))
def test_crop_is_one_of_the_padded_windows_for_each_image(
    height: int, width: int, padding: int, seed: int
) -> None:
    images = picture(3, height, width)
    cropped = random_crop(images, padding, seeded(seed))
    tops, lefts = torch.randint(2 * padding + 1, (2, 3), generator=seeded(seed)).tolist()
    for image, result, top, left in zip(images, cropped, tops, lefts, strict=True):
        assert torch.equal(result, crop_of(image, padding, top, left))


def test_crops_reach_every_place_equally_often() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    cropped = random_crop(image.expand(9000, 1, 3, 3), 1, seeded(0))
    centres = cropped[:, 0, 1, 1].bincount(minlength=10)[1:]
    assert centres.sum() == 9000
    assert ((centres - 1000).abs() < 150).all()  # 5 standard deviations


def test_no_padding_leaves_images_as_they_are() -> None:
    images = picture(2, 4, 4)
    assert random_crop(images, 0, seeded(0)) is images


def test_flip_mirrors_about_half_of_the_images_and_no_other() -> None:
    images = picture(1000, 2, 3)
    flipped = random_flip(images, seeded(0))
    same = (flipped == images).all(3).all(2).all(1)
    mirrored = (flipped == images.flip(3)).all(3).all(2).all(1)
    assert (same | mirrored).all()
    assert 420 < mirrored.sum() < 580


@SETTINGS
@given(SIZES, SIZES, st.integers(1, 12), st.integers(0, 2**31))
def test_cutout_is_a_square_clipped_at_the_borders(
    height: int, width: int, length: int, seed: int
) -> None:
    images = torch.ones(4, 2, height, width)
    holes = cutout(images, length, seeded(seed)) == 0
    generator = seeded(seed)
    ys = torch.randint(height, (4, 1), generator=generator)[:, 0].tolist()
    xs = torch.randint(width, (4, 1), generator=generator)[:, 0].tolist()
    for hole, y, x in zip(holes, ys, xs, strict=True):
        top, left = y - length // 2, x - length // 2
        expected = torch.zeros(2, height, width, dtype=torch.bool)
        expected[:, max(0, top) : top + length, max(0, left) : left + length] = True
        assert torch.equal(hole, expected)


def test_normalise_is_the_definition() -> None:
    images = picture(2, 3, 3)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.1, 0.5, 0.9], [0.2, 0.3, 0.4]))
    expected = (images.double() / 255 - mean) / std
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_images_of_a_batch_are_augmented_differently(seed: int) -> None:
    images = picture(1, 8, 8).expand(32, 3, 8, 8)
    assert len(random_crop(images, 4, seeded(seed)).flatten(1).unique(dim=0)) > 16
    holes = cutout(torch.ones(32, 1, 8, 8), 4, seeded(seed))
    assert len(holes.flatten(1).unique(dim=0)) > 16
