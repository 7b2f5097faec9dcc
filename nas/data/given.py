"""Images that a caller has in memory: arrays or tensors, checked and brought to one form."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.data.folder import check_classes_left
from nas.data.order import stratified_split
from nas.data.settings import DataSettings
from nas.data.sources import Images, resized
from nas.errors import UserError

NAME = "given"
"""Of the data set in settings and descriptions."""
_CHANNELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class GivenImages:
    """A data set of the caller's.

    Attributes:
        train: Training images.
        test: Test images; None holds out `data.test_fraction` of the training images.
    """

    train: Images
    test: Images | None = None

    @classmethod
    def of(cls, train: Any, test: Any = None) -> "GivenImages":
        """From pairs (pixels, labels); see `images_of`.

        Raises:
            UserError: one does not fit.
        """
        first = images_of(train, "images")
        if len(first.class_names) < 2:
            raise UserError("images: all labels are the same: there must be two classes or more")
        if test is None:
            return cls(first)
        second = images_of(test, "test_images")
        unknown = sorted(set(second.class_names) - set(first.class_names))
        if unknown:
            raise UserError(f"test_images: the label {unknown[0]} is not among those of the images")
        if second.pixels.shape[1:] != first.pixels.shape[1:]:
            raise UserError(
                f"test_images: of the shape {_shape(second)}, those to train on {_shape(first)}"
            )
        places = torch.tensor([first.class_names.index(name) for name in second.class_names])
        labels = places[second.labels]
        return cls(first, replace(second, labels=labels, class_names=first.class_names))

    def split(self, settings: DataSettings, train: bool) -> Images:
        """The training images (True) or the test images (False), resized if `settings` says so."""
        images = self.train if train else self.test
        if self.test is None:
            parts = stratified_split(self.train.labels, settings.test_fraction, "test split")
            images = self.train.select(parts[0] if train else parts[1])
            if train:
                check_classes_left(images.labels, images.class_names, settings.test_fraction)
        assert images is not None
        return resized(images, settings.image_size)


def images_of(pair: Any, name: str = "images") -> Images:
    """Images from (pixels, labels), each an array, a tensor, or what NumPy makes an array of.

    Args:
        pair: Pixels `[N, C, H, W]`, `[N, H, W, C]` or `[N, H, W]`, whole numbers from 0 to 255 or
            floats from 0 to 1; labels `[N]`, whose different values are the classes, in order.
        name: Of the argument, for errors.

    Raises:
        UserError: they are of another form.
    """
    try:
        given, labels = pair
    except (TypeError, ValueError):
        raise UserError(f"{name}: must be a pair (pixels, labels)") from None
    pixels = _pixels(_numbers(given, name), name)
    named = _array(labels, f"{name}: labels")
    try:
        values, places = np.unique(named, return_inverse=True)
    except TypeError:  # numbers beside names, or None
        raise UserError(f"{name}: labels must be all numbers or all names") from None
    if places.ndim != 1 or len(places) != len(pixels):
        raise UserError(
            f"{name}: labels of the shape {list(named.shape)} for {len(pixels)} images; give "
            "one number or name for each image"
        )
    if named.dtype.kind == "f" and np.isnan(named).any():
        raise UserError(f"{name}: a label is NaN; leave out images that have none")
    return Images(pixels, torch.from_numpy(places.astype(np.int64)), tuple(map(str, values)))


def _array(given: Any, name: str) -> np.ndarray[Any, Any]:
    """What NumPy makes of `given`, on the host."""
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype == torch.bfloat16 else given  # NumPy has none
    try:
        return np.asarray(given)
    except (TypeError, ValueError):  # rows of different lengths
        raise UserError(f"{name}: cannot be made one array: all must have one shape") from None


def _numbers(given: Any, name: str) -> Tensor:
    """The pixels as a tensor, in a type that PyTorch can count with."""
    array = _array(given, f"{name}: pixels")
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: pixels of the type {array.dtype}; must be numbers")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)
    if array.dtype.kind == "f" and array.itemsize > 8:
        array = array.astype(np.float64)
    # In the byte order of this machine, and not mirrored by a negative stride.
    return torch.as_tensor(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _pixels(given: Tensor, name: str) -> Tensor:
    """uint8 `[N, C, H, W]`."""
    shape = list(given.shape)
    if given.ndim == 3:
        given = given[:, None]
    elif given.ndim == 4 and shape[1] not in _CHANNELS and shape[3] in _CHANNELS:
        given = given.permute(0, 3, 1, 2)
    if given.ndim != 4 or given.shape[1] not in _CHANNELS:
        raise UserError(
            f"{name}: pixels of the shape {shape}; must be [N, C, H, W], [N, H, W, C] or [N, H, W] "
            "with 1 to 4 channels"
        )
    lowest, highest = (float(given.min()), float(given.max())) if given.numel() else (0.0, 0.0)
    limit = 1 if given.is_floating_point() else 255
    if not (lowest >= 0 and highest <= limit):  # NaN is not either
        raise UserError(
            f"{name}: pixels from {lowest:.4g} to {highest:.4g}; must be whole numbers from 0 to "
            "255 or floats from 0 to 1, not normalised: that is done here"
        )
    whole = given.double().mul(255).round() if given.is_floating_point() else given
    return whole.to(torch.uint8).contiguous()


def _shape(images: Images) -> list[int]:
    return list(images.pixels.shape[1:])
