"""What a search and a retraining are given, and that a run can go on in the middle of an epoch."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import load_retrain, load_search, make_folder
from PIL import Image
from torch import Tensor

from nas.data import Cycle, DataSettings, Loader, describe_images, load_search_data
from nas.data import load as load_module
from nas.data.decode import decode_all
from nas.data.folder import ImageFiles
from nas.data.given import GivenImages
from nas.data.memory import channel_statistics
from nas.data.sources import SOURCES

Batches = list[tuple[Tensor, Tensor]]

DIGITS = DataSettings(name="digits", crop_padding=1, flip=True, cutout=2, limit=200)


def folder(root: Path, **settings: Any) -> DataSettings:
    return DataSettings(**{"name": "image_folder", "path": str(root), "num_workers": 0, **settings})


def same(first: Iterable[tuple[Tensor, Tensor]], second: Iterable[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def pictures(*loaders: Loader) -> Counter[bytes]:
    """How often each image comes, by its pixels."""
    return Counter(
        image.numpy().tobytes()
        for loader in loaders
        for images, _ in loader.epoch(0)
        for image in images
    )


@pytest.fixture(params=["digits", "memory", "stream"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DataSettings:
    if request.param == "digits":
        return DIGITS
    root = make_folder(tmp_path, num=15)
    return folder(root, storage=request.param, crop_padding=2, flip=True, cutout=3)


def test_batches_are_float_images_and_integer_labels(settings: DataSettings) -> None:
    data = load_search(settings, 4)
    for loader in (data.train, data.validation):
        batches = list(loader.epoch(0))
        assert len(batches) == loader.num_batches > 1
        for images, labels in batches:
            assert images.shape == (4, data.info.in_channels, 8, 8)
            assert images.dtype == torch.float32
            assert labels.shape == (4,) and labels.dtype == torch.int64


def test_epoch_goes_on_at_any_step_to_the_bit(settings: DataSettings) -> None:
    data, again = load_search(settings, 4, seed=3), load_search(settings, 4, seed=3)
    for name in ("train", "validation", "validation_eval"):
        whole = list(getattr(data, name).epoch(2))
        for start in (0, 1, len(whole) - 1, len(whole)):
            torch.manual_seed(start)  # global randomness has no part in it
            assert same(whole[start:], getattr(again, name).epoch(2, start))


def test_epochs_seeds_and_streams_differ(settings: DataSettings) -> None:
    data, other = load_search(settings, 4), load_search(settings, 4, seed=1)
    first = list(data.train.epoch(0))
    assert not same(first, data.train.epoch(1))
    assert not same(first, other.train.epoch(0))


def test_two_epochs_can_be_read_side_by_side(settings: DataSettings) -> None:
    data = load_search(settings, 4)
    assert same(data.train.epoch(1), data.train.epoch(1))


def test_loaders_leave_global_randomness_alone(settings: DataSettings) -> None:
    data = load_search(settings, 4)
    before = torch.get_rng_state()
    for _ in zip(data.train.epoch(0), data.validation_eval.epoch(0), strict=False):
        pass
    assert torch.equal(before, torch.get_rng_state())


def test_cycle_resumes_a_real_loader(settings: DataSettings) -> None:
    loader = load_search(settings, 4).validation
    count = 2 * loader.num_batches + 1
    whole = Cycle(loader)
    expected = [next(whole) for _ in range(count)]
    rest = Cycle(loader, loader.num_batches - 1)
    start = loader.num_batches - 1
    assert same(expected[start:], [next(rest) for _ in range(count - start)])


def test_evaluation_keeps_order_and_the_last_batch(settings: DataSettings) -> None:
    data = load_retrain(settings, 4)
    batches = list(data.test.epoch(0))
    assert sum(len(labels) for _, labels in batches) == data.info.num_test
    assert len(batches) == data.test.num_batches
    assert [len(labels) for _, labels in batches[:-1]] == [5] * (len(batches) - 1)
    assert same(batches, data.test.epoch(7))


@pytest.mark.parametrize(("count", "sizes"), [(257, [257]), (258, [256, 2]), (513, [257, 256])])
def test_no_image_of_a_search_is_evaluated_alone(count: int, sizes: list[int]) -> None:
    """Batch norm by the statistics of the batch has none of one pixel."""
    data = load_search(DataSettings(limit=2 * count), 4)
    assert [len(labels) for _, labels in data.validation_eval.epoch(0)] == sizes


def test_no_image_is_evaluated_alone_where_one_more_a_batch_leaves_one_as_well() -> None:
    count = 256 * 257 + 1
    images = np.zeros((2 * count, 1, 1), dtype=np.uint8), np.arange(2 * count) % 2
    data = load_search_data(
        DataSettings(name="given"),
        batch_size=4,
        seed=0,
        device=torch.device("cpu"),
        channels_last=False,
        given=GivenImages.of(images, images),
    )
    assert data.info.num_validation == count
    sizes = [len(labels) for _, labels in data.validation_eval.epoch(0)]
    assert sum(sizes) == count and sizes[-1] > 1


def test_evaluation_of_a_search_mixes_the_classes(settings: DataSettings) -> None:
    # Batch statistics of a single class would say nothing of a supernet.
    labels = torch.cat([labels for _, labels in load_search(settings).validation_eval.epoch(0)])
    assert not labels.equal(labels.sort().values)
    again = torch.cat([labels for _, labels in load_search(settings).validation_eval.epoch(3)])
    assert torch.equal(labels, again)


def test_halves_are_disjoint_stratified_and_complete(tmp_path: Path) -> None:
    root = make_folder(tmp_path, num=15)
    data = load_search(folder(root, validation_fraction=0.4), 1)
    assert (data.info.num_train, data.info.num_validation) == (18, 12)
    train, validation = pictures(data.train), pictures(data.validation)
    assert len(train) == 18 and len(validation) == 12
    assert not train & validation
    assert validation == pictures(data.validation_eval)
    labels = torch.cat([batch for _, batch in data.validation_eval.epoch(0)])
    assert labels.bincount().tolist() == [6, 6]


def test_halves_depend_on_the_seed(tmp_path: Path) -> None:
    settings = folder(make_folder(tmp_path, num=15))
    halves = [pictures(load_search(settings, 1, seed=seed).train) for seed in (0, 0, 1)]
    assert halves[0] == halves[1] != halves[2]


@pytest.mark.parametrize("storage", ["memory", "stream"])
@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_search_opens_no_test_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, splits: tuple[str, ...]
) -> None:
    opened: set[Path] = set()
    really_open = Image.open

    def spy(path: Any, *args: Any) -> Image.Image:
        opened.add(Path(path))
        return really_open(path, *args)

    settings = folder(make_folder(tmp_path, *splits, num=10), storage=storage)

    def seen(data: Any, loaders: tuple[str, ...]) -> set[Path]:
        for name in loaders:
            for _ in getattr(data, name).epoch(0):
                pass
        files = set(opened)
        opened.clear()
        return files

    monkeypatch.setattr(Image, "open", spy)
    loaders = ("train", "validation", "validation_eval")
    searched = [seen(load_search(settings, 1, seed=s), loaders) for s in (0, 1)]
    assert searched[0] == searched[1]
    retrain = load_retrain(settings, 1)
    opened.clear()
    if storage == "stream":
        tested = seen(retrain, ("test",))
        assert len(tested) == retrain.info.num_test
        assert not tested & searched[0]
    everything = set(Path(str(settings.path)).rglob("*.png"))
    assert len(searched[0]) == retrain.info.num_train
    assert len(everything - searched[0]) == retrain.info.num_test


def test_search_needs_no_test_folder(tmp_path: Path) -> None:
    assert load_search(folder(make_folder(tmp_path, "train"))).info.num_test is None


@pytest.mark.parametrize("name", ["digits", "cifar10", "cifar100", "svhn", "fashion_mnist"])
def test_search_asks_for_the_training_split_alone(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    digits = SOURCES.get("digits")
    asked: list[bool] = []

    def source(settings: DataSettings, train: bool) -> Any:
        asked.append(train)
        return digits(settings, train)

    monkeypatch.setitem(SOURCES._entries, name, source)
    load_search(DataSettings(name=name), 16)
    assert asked == [True]


def test_held_out_files_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    settings = folder(make_folder(tmp_path, "", num=10))
    tests = [pictures(load_retrain(settings, seed=seed).test) for seed in (0, 1)]
    assert tests[0] == tests[1]
    assert tests[0].total() == 4


@pytest.mark.parametrize("name", ["train", "validation", "validation_eval", "test"])
def test_without_augmentation_stream_and_memory_agree_to_the_bit(tmp_path: Path, name: str) -> None:
    root = make_folder(tmp_path, size=(20, 14))
    load: Callable[[DataSettings], Any] = load_retrain if name == "test" else load_search
    memory, stream = (load(folder(root, image_size=9, storage=s)) for s in ("memory", "stream"))
    assert memory.info == stream.info
    assert same(getattr(memory, name).epoch(0), getattr(stream, name).epoch(0))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were decoded into memory, each time."""
    counts: list[int] = []

    def spy(files: ImageFiles, *args: Any, **options: Any) -> Tensor:
        counts.append(len(files.paths))
        return decode_all(files, *args, **options)

    monkeypatch.setattr(load_module, "decode_all", spy)
    return counts


def test_large_folders_are_streamed(tmp_path: Path, decoded: list[int]) -> None:
    root = make_folder(tmp_path)
    given = {"mean": [0.5] * 3, "std": [0.5] * 3}
    load_search(folder(root, memory_limit_mib=0, **given))
    assert not decoded
    load_search(folder(root, memory_limit_mib=1, **given))
    assert decoded


def test_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    pixels = np.stack([np.asarray(Image.open(f)) for f in (root / "train").rglob("*.png")]) / 255
    for data in (load_search(folder(root)), load_retrain(folder(root))):
        assert data.info.mean == pytest.approx(pixels.mean((0, 1, 2)))
        assert data.info.std == pytest.approx(pixels.std((0, 1, 2)))
    whole = torch.cat([images for images, _ in load_retrain(folder(root), 12).train.epoch(0)])
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_a_stream_never_has_many_images_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    monkeypatch.setattr(load_module, "_STATISTICS_BATCH", 5)
    root = make_folder(tmp_path)
    stream = describe_images(folder(root, storage="stream"))
    assert decoded == [5, 5, 2]
    memory = describe_images(folder(root, storage="memory"))
    assert (stream.mean, stream.std) == (memory.mean, memory.std)


def test_constant_channel_does_not_divide_by_zero() -> None:
    mean, std = channel_statistics([torch.full((3, 1, 4, 4), 51, dtype=torch.uint8)], 1)
    assert mean[0] == pytest.approx(0.2) and std == (1e-3,)


def test_limit_is_exact_and_stratified() -> None:
    settings = DataSettings(name="digits", limit=101)
    data = load_search(settings, 10)
    assert data.info.num_train + data.info.num_validation == 101
    retrain = load_retrain(settings, 1)
    assert retrain.info.num_train == 101 and retrain.info.num_test == 359
    labels = torch.cat([batch for _, batch in retrain.train.epoch(0)])
    assert labels.bincount().min() >= 9 and labels.bincount().max() <= 11


def test_channels_last_changes_the_layout_alone(settings: DataSettings) -> None:
    plain, last = (load_search(settings, 4, channels_last=flag) for flag in (False, True))
    assert same(plain.train.epoch(0), last.train.epoch(0))
    for loader in (last.train, last.validation_eval):
        images, _ = next(iter(loader.epoch(0)))
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_the_gpu_never_wait_for_it() -> None:
    data = load_search_data(
        DIGITS, batch_size=32, seed=0, device=torch.device("cuda"), channels_last=True
    )
    batches = data.train.epoch(0)
    next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        rest = list(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rest[0][0].is_cuda
    assert same(rest, data.train.epoch(0, 1))


def test_images_are_described_as_a_search_sees_them() -> None:
    settings = DataSettings(name="digits", image_size=12)
    info = describe_images(settings)
    assert (info.in_channels, info.image_size, info.num_classes) == (1, 12, 10)
    found = load_search(settings).info
    assert (info.class_names, info.mean, info.std) == (found.class_names, found.mean, found.std)
