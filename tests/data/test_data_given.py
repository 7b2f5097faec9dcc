"""Images that a caller gives: forms that are taken, forms that are refused in one line."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import load_retrain_data
from nas.data.given import GivenImages, images_of
from nas.data.preprocessing import Preprocessing
from nas.data.settings import DataSettings
from nas.errors import UserError

LABELS = [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("pixels", "shape"),
    [
        (np.zeros((4, 5, 5), np.uint8), (1, 5, 5)),
        (np.zeros((4, 5, 5, 3), np.uint8), (3, 5, 5)),
        (torch.zeros(4, 3, 5, 5), (3, 5, 5)),
        (np.zeros((4, 1, 5, 7), np.int64), (1, 5, 7)),
        (np.zeros((4, 5, 5)).tolist(), (1, 5, 5)),
    ],
)
def test_every_layout_becomes_channels_first(pixels: Any, shape: tuple[int, ...]) -> None:
    images = images_of((pixels, LABELS))
    assert images.pixels.shape == (4, *shape) and images.pixels.dtype == torch.uint8


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.uint16),
        lambda x: x.astype(np.uint64),
        lambda x: x.astype(">i4"),
        lambda x: x[:, ::-1].copy()[:, ::-1],
        lambda x: torch.tensor(x / 255.0, requires_grad=True),
        lambda x: x.astype(np.longdouble) / 255,
        lambda x: torch.tensor(x / 255.0).bfloat16(),
    ],
)
def test_every_type_of_numbers_becomes_the_same_bytes(change: Any) -> None:
    pixels = np.array([0, 255, 51, 204], np.uint8).reshape(1, 2, 2).repeat(4, 0)
    found = images_of((change(pixels), torch.tensor(LABELS, dtype=torch.int32)))
    # In bf16 a byte is off by up to 2^-9 of itself.
    torch.testing.assert_close(found.pixels[:, 0], torch.tensor(pixels), atol=1, rtol=0)


def test_floats_are_shares_of_white_and_labels_are_classes_in_order() -> None:
    images = images_of((np.array([0.0, 0.5, 1.0]).reshape(3, 1, 1), np.array(["b", "a", "b"])))
    assert images.pixels.flatten().tolist() == [0, 128, 255]
    assert images.class_names == ("a", "b") and images.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (np.zeros((4, 2)), "must be a pair"),
        ((np.zeros((4, 5)), LABELS), r"of the shape \[4, 5\]; must be"),
        ((np.zeros((4, 9, 9, 9)), LABELS), "with 1 to 4 channels"),
        ((np.full((4, 5, 5), 255.0), LABELS), "pixels from 255 to 255; must be whole numbers"),
        ((np.full((4, 5, 5), -1), LABELS), "not normalised"),
        ((np.full((4, 5, 5), np.nan), LABELS), "not normalised"),
        ((np.zeros((4, 5, 5), object), LABELS), "pixels of the type object; must be numbers"),
        ((np.zeros((4, 5, 5), complex), LABELS), "pixels of the type complex128; must be"),
        (([np.zeros((5, 5)), np.zeros((4, 5))], [0, 1]), "pixels: cannot be made one array"),
        ((np.zeros((4, 5, 5)), [0, 1, "a", None]), "labels must be all numbers or all names"),
        ((np.zeros((4, 5, 5)), [0, 1, 2, np.nan]), "a label is NaN"),
        ((np.zeros((4, 5, 5)), [0, 1]), r"labels of the shape \[2\] for 4 images"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(pair: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images_of(pair)


def test_test_images_are_given_or_held_out() -> None:
    pixels, labels = np.arange(20, dtype=np.uint8).reshape(20, 1, 1), [0, 1] * 10
    alone = GivenImages.of((pixels, labels))
    settings = DataSettings(test_fraction=0.2)
    train, test = alone.split(settings, True), alone.split(settings, False)
    assert (len(train.labels), len(test.labels)) == (16, 4)
    both = {*train.pixels.flatten().tolist(), *test.pixels.flatten().tolist()}
    assert len(both) == 20, "no image is in both"
    given = GivenImages.of((pixels, labels), (pixels[:3], [1, 1, 1]))
    assert len(given.split(settings, True).labels) == 20
    assert given.split(settings, False).labels.tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="two classes or more"):
        GivenImages.of((pixels, [1] * 20))
    with pytest.raises(UserError, match="label 7 is not among"):
        GivenImages.of((pixels, labels), (pixels[:2], [0, 7]))
    with pytest.raises(UserError, match="test_images: of the shape"):
        GivenImages.of((pixels, labels), (np.zeros((2, 3, 3), np.uint8), [0, 1]))
    assert alone.split(DataSettings(image_size=4), True).pixels.shape[-2:] == (4, 4)


def test_images_that_are_no_squares_are_what_a_predictor_makes_of_them() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 9, 24, 3), dtype=np.uint8)
    images = GivenImages.of((pixels, [0, 1] * 3), (pixels, [0, 1] * 3))
    data = load_retrain_data(
        DataSettings(name="given", image_size=8),
        batch_size=2,
        eval_batch_size=6,
        seed=0,
        device=torch.device("cpu"),
        channels_last=False,
        given=images,
    )
    ((evaluated, _),) = data.test.epoch(0)
    preprocess = Preprocessing.of(data.info)
    predicted = torch.stack([preprocess(Image.fromarray(image)) for image in pixels])
    assert torch.equal(evaluated, predicted)


def test_a_class_that_the_test_images_would_take_whole_is_refused() -> None:
    given = GivenImages.of((np.zeros((6, 5, 5), np.uint8), [0] * 5 + [1]), None)
    with pytest.raises(UserError, match="leaves no image of the class '1' for training"):
        given.split(DataSettings(test_fraction=0.6), train=True)
    assert len(given.split(DataSettings(test_fraction=0.6), train=False).labels) == 4
