"""The loaders of a search and of a retraining.

A search is given the training images alone: no test image is opened on its way.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from nas.data.decode import check_sizes, decode_all, image_shape
from nas.data.folder import ImageFiles, list_test, list_training
from nas.data.given import GivenImages
from nas.data.loaders import IMAGENET, LoaderMaker, Part
from nas.data.memory import channel_statistics
from nas.data.order import Loader, permutation, stratified_split
from nas.data.settings import DataInfo, DataSettings
from nas.data.sources import SOURCES, Images, load_split
from nas.distributed import ALONE, Ranks
from nas.errors import UserError, unknown_name

FOLDERS = ("image_folder", IMAGENET)
IMAGENET_SIZE = 224
_STATISTICS_IMAGES = 10_000
_STATISTICS_BATCH = 256  # decoded at a time: a stream is for what does not fit in memory

_log = logging.getLogger(__name__)

ImagesOrFiles = TypeVar("ImagesOrFiles", Images, ImageFiles)


@dataclass(frozen=True)
class SearchData:
    """What a search sees: two disjoint parts of the training images.

    Attributes:
        train: Batches for the weights.
        validation: Batches for the logits, augmented like those for the weights.
        validation_eval: The images of `validation` as they are, classes mixed, always in the
            same order.
        info: What is known of the data.
    """

    train: Loader
    validation: Loader
    validation_eval: Loader
    info: DataInfo


@dataclass(frozen=True)
class RetrainData:
    """What a retraining sees: all training images, and the test images to measure by."""

    train: Loader
    test: Loader
    info: DataInfo


def load_search_data(
    settings: DataSettings,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    channels_last: bool,
    ranks: Ranks = ALONE,
    given: GivenImages | None = None,
) -> SearchData:
    """Loads the training images and splits them for weights and logits.

    The split is stratified and depends on `seed`; `settings.validation_fraction` is the share of
    the logits. Of `ranks` each gets its part of every batch. Images that are `given` take the place
    of those that the settings name.

    Raises:
        UserError: the data is missing, damaged, or too small for the batch, or the batch cannot be
            cut into equal parts.
    """
    _check_parts(batch_size, ranks)
    with ranks.one_before_the_others():
        part = _open(settings, given, train=True)
    first, second = stratified_split(
        part.images.labels, settings.validation_fraction, seed, "validation split"
    )
    # A supernet is evaluated with the statistics of the batch: images in the order of a folder
    # would make batches of one class, and those of no use.
    second = second[permutation(len(second), seed, "validation order")]
    train, validation = part.select(first).to(device), part.select(second).to(device)
    for name, half in (("weights", train), ("logits", validation)):
        if half.size < batch_size:
            raise UserError(
                f"batch_size is {batch_size}, but there are only {half.size} training images "
                f"for the {name}: take a smaller batch or change data.validation_fraction"
            )
    maker = LoaderMaker(seed, device, channels_last, ranks)
    return SearchData(
        maker.training(train, batch_size, "train"),
        maker.training(validation, batch_size, "validation"),
        maker.evaluation(validation, _without_a_last_one(validation.size, max(batch_size, 256))),
        replace(part.info, num_train=train.size, num_validation=validation.size),
    )


def _without_a_last_one(count: int, batch_size: int) -> int:
    """A batch size that leaves no batch of one image, whose statistics would be its own values."""
    while count > 1 and count % batch_size == 1:
        batch_size += 1
    return batch_size


def load_retrain_data(
    settings: DataSettings,
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    device: torch.device,
    channels_last: bool,
    ranks: Ranks = ALONE,
    given: GivenImages | None = None,
) -> RetrainData:
    """Loads all training images and the test images. Of `ranks` each gets its part of every batch.

    Images that are `given` take the place of those that the settings name.

    Raises:
        UserError: the data is missing, damaged, or too small for the batch, or the batch cannot be
            cut into equal parts.
    """
    _check_parts(batch_size, ranks)
    with ranks.one_before_the_others():
        part = _open(settings, given, train=True)
    if part.size < batch_size:
        raise UserError(
            f"batch_size is {batch_size}, but there are only {part.size} training images: take a "
            "smaller batch"
        )
    with ranks.one_before_the_others():
        test = _open(settings, given, train=False, info=part.info).to(device)
    maker = LoaderMaker(seed, device, channels_last, ranks)
    return RetrainData(
        maker.training(part.to(device), batch_size, "train"),
        maker.evaluation(test, eval_batch_size),
        replace(part.info, num_test=test.size),
    )


def describe_images(settings: DataSettings) -> DataInfo:
    """What is known of the training images of a data set.

    Raises:
        UserError: the data is missing or damaged.
    """
    return _open(settings, None, train=True).info


def _check_parts(batch_size: int, ranks: Ranks) -> None:
    if ranks.size > 1 and (batch_size % ranks.size or batch_size < 2 * ranks.size):
        raise UserError(
            f"batch_size is {batch_size}, that of the whole run: must be a multiple of "
            f"{ranks.size}, with at least 2 images for each of the {ranks.size} processes"
        )


def _open(
    settings: DataSettings,
    given: GivenImages | None,
    *,
    train: bool,
    info: DataInfo | None = None,
) -> Part:
    """The training images, or the test images described by the `info` of the training images."""
    if settings.name not in FOLDERS:
        if settings.name not in SOURCES and given is None:
            raise unknown_name("data set", settings.name, [*SOURCES, *FOLDERS], "data.name")
        _refuse_storage(settings, "stream", "held in memory")
        images = given.split(settings, train) if given else load_split(settings, train)
        images = _limited(images, settings) if train else images
        return Part(images, settings, info or _describe(images, settings))
    if settings.path is None:
        raise UserError(f"data.path: give the folder of the images for data={settings.name}")
    if settings.name == IMAGENET:
        _refuse_storage(settings, "memory", "streamed")
    root = Path(settings.path).expanduser()
    list_files = list_training if train else list_test
    files = list_files(root, settings.test_fraction)
    files = _limited(files, settings) if train else files
    channels, size = _shape(files, settings, info)
    resize = settings.image_size is not None or settings.name == IMAGENET
    if _streams(files, channels, size, settings):
        if not resize:
            check_sizes(files, size)
        return Part(files, settings, info or _describe_files(files, channels, size, settings))
    pixels = decode_all(files, channels, size, resize=resize)
    images = Images(pixels, files.labels, files.class_names)
    return Part(images, settings, info or _describe(images, settings))


def _shape(files: ImageFiles, settings: DataSettings, info: DataInfo | None) -> tuple[int, int]:
    if info is not None:
        return info.in_channels, info.image_size
    if settings.name == IMAGENET:
        return 3, settings.image_size or IMAGENET_SIZE
    return image_shape(files, settings.image_size)


def _streams(files: ImageFiles, channels: int, size: int, settings: DataSettings) -> bool:
    if settings.name == IMAGENET or settings.storage == "stream":
        return True
    mib = len(files.paths) * channels * size * size / 2**20
    return settings.storage == "auto" and mib > settings.memory_limit_mib


def _refuse_storage(settings: DataSettings, storage: str, how: str) -> None:
    if settings.storage == storage:
        raise UserError(
            f"data.storage is {storage}: {settings.name} is always {how}; leave it at auto"
        )


def _limited(images: ImagesOrFiles, settings: DataSettings) -> ImagesOrFiles:
    """The first share of each class that `settings.limit` asks for."""
    count = len(images.labels)
    if settings.limit is None or settings.limit >= count:
        return images
    kept = stratified_split(images.labels, settings.limit / count, "limit")[1]
    return images.select(kept)


def _describe(images: Images, settings: DataSettings) -> DataInfo:
    _, channels, height, width = images.pixels.shape
    if height != width:
        raise UserError(f"data.image_size: images of {width}x{height} pixels; give a size")
    mean, std = _given_statistics(settings, channels) or channel_statistics(
        images.pixels.split(_STATISTICS_BATCH), channels
    )
    return DataInfo(
        settings.name,
        images.class_names,
        channels,
        height,
        mean,
        std,
        len(images.labels),
        resize=_resize_rule(settings),
    )


def _describe_files(
    files: ImageFiles, channels: int, size: int, settings: DataSettings
) -> DataInfo:
    given = _given_statistics(settings, channels)
    if given is None:
        # Of a large data set a part, evenly spread, tells the same.
        stride = max(1, len(files.paths) // _STATISTICS_IMAGES)
        some = torch.arange(0, len(files.paths), stride)
        _log.info("reading %d images for data.mean and data.std; giving them saves this", len(some))
        parts = some.split(_STATISTICS_BATCH)
        decoded = (decode_all(files.select(p), channels, size, resize=True) for p in parts)
        given = channel_statistics(decoded, channels)
    count, rule = len(files.labels), _resize_rule(settings)
    return DataInfo(settings.name, files.class_names, channels, size, *given, count, resize=rule)


def _resize_rule(settings: DataSettings) -> str:
    """What brings test images to their size: a name in `nas.data.preprocessing.RESIZES`."""
    if settings.name == IMAGENET:
        return "shorter_side"
    is_resized_whole = settings.name not in FOLDERS and settings.image_size is not None
    return "whole" if is_resized_whole else "fit"


def _given_statistics(
    settings: DataSettings, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if settings.mean is None or settings.std is None:
        return None
    for key, values in (("mean", settings.mean), ("std", settings.std)):
        if len(values) != channels:
            raise UserError(
                f"data.{key} has {len(values)} values, the images have {channels} channels"
            )
    return tuple(settings.mean), tuple(settings.std)
