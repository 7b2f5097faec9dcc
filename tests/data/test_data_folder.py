"""Folders of class folders, and every mistake that one can make with them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL
from typing import Any

import numpy as np
import pytest
from data_folders import load_retrain, load_search, make_folder
from PIL import Image

from nas.data import DataSettings
from nas.data.decode import fit
from nas.data.stream import StreamDataset
from nas.errors import UserError

STORAGES = ("memory", "stream")
Change = Callable[[Path], object]


def folder(root: Path, **settings: Any) -> DataSettings:
    return DataSettings(**{"name": "image_folder", "path": str(root), "num_workers": 0, **settings})


def all_batches(data: Any) -> None:
    for loader in (data.train, data.validation):
        for _ in loader.epoch(0):
            pass


def one_class(root: Path) -> None:
    shutil.rmtree(root / "train" / "bee")


def no_class(root: Path) -> None:
    one_class(root)
    shutil.rmtree(root / "train" / "ant")


def empty_class(root: Path) -> None:
    for file in (root / "train" / "bee").iterdir():
        file.rename(file.with_suffix(".txt"))


def name_of_bytes(root: Path) -> None:
    (root / "train" / "bee").rename(root / "train" / "b\udce4r")  # in the encoding of another time


def truncate(root: Path) -> None:
    file = root / "train" / "bee" / "3.png"
    file.write_bytes(file.read_bytes()[:60])


def no_image_at_all(root: Path) -> None:
    (root / "train" / "bee" / "3.png").write_text("hello")


def another_size(root: Path) -> None:
    Image.new("RGB", (16, 12)).save(root / "train" / "bee" / "3.png")


def deep_colour(root: Path) -> None:
    pixels = np.full((8, 8), 40_000, dtype=np.uint16)
    Image.fromarray(pixels).save(root / "train" / "bee" / "3.png")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "data.path: no such folder: .*images"),
        (no_class, "data.path: .*train needs at least two class folders .* found none"),
        (one_class, "data.path: .*train needs at least two class folders .* found only 'ant'"),
        (empty_class, r"data.path: the class folder .*bee has no image .*\.jpg"),
        (name_of_bytes, r"data.path: the name of the class folder '.*b.udce4r' is not UTF-8"),
        (truncate, r"broken image .*train/bee/3.png"),
        (no_image_at_all, r"broken image .*train/bee/3.png"),
        (another_size, r"data.image_size: .*3.png has 16x12 pixels, others 8x8: give the size"),
        (deep_colour, r"bee/3.png has more than 8 bits a channel: convert it"),
    ],
)
def test_mistake_is_one_line_that_names_its_place(
    tmp_path: Path, storage: str, change: Change, message: str
) -> None:
    root = make_folder(tmp_path)
    change(root)
    with pytest.raises(UserError, match=message) as error:
        all_batches(load_search(folder(root, storage=storage)))
    assert "\n" not in str(error.value)


def test_broken_image_in_a_worker_is_one_line_too(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    truncate(root)
    given = {"image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    data = load_search(folder(root, storage="stream", num_workers=1, **given))
    with pytest.raises(UserError, match=r"^broken image .*train/bee/3.png: [^\n]*$"):
        all_batches(data)


def test_a_worker_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    settings = folder(make_folder(tmp_path), storage="stream", num_workers=1, **given)
    batches = load_search(settings).train.epoch(0)
    monkeypatch.setattr(StreamDataset, "__getitem__", lambda *_: os.kill(os.getpid(), SIGKILL))
    with pytest.raises(UserError, match="a process that reads images died") as error:
        list(batches)
    assert "data.num_workers" in str(error.value) and "\n" not in str(error.value)


def test_path_is_asked_for() -> None:
    for name in ("image_folder", "imagenet"):
        with pytest.raises(UserError, match=f"data.path: give the folder .* data={name}"):
            load_search(DataSettings(name=name))


def test_path_one_level_too_high_gets_a_hint(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    with pytest.raises(UserError, match=r"found only 'images'; did you mean .*/images\?"):
        load_search(folder(root.parent))


def test_first_image_that_is_no_square_asks_for_a_size(tmp_path: Path) -> None:
    root = make_folder(tmp_path, size=(10, 8))
    with pytest.raises(UserError, match=r"data.image_size: .*10x8 pixels, not a square"):
        load_search(folder(root))
    assert load_search(folder(root, image_size=8)).info.image_size == 8


def test_unknown_data_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown data set 'image_folders'.*mean 'image_folder'"):
        load_search(DataSettings(name="image_folders"))


def test_too_few_images_for_a_batch(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    with pytest.raises(UserError, match="batch_size is 7, but there are only 6 training images"):
        load_search(folder(root), 7)
    with pytest.raises(UserError, match="batch_size is 13, but there are only 12 training"):
        load_retrain(folder(root), 13)


def test_storage_that_a_data_set_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.storage is stream: digits is always held in memory"):
        load_search(DataSettings(name="digits", storage="stream"))
    with pytest.raises(UserError, match=r"data.storage is memory: imagenet is always streamed"):
        load_search(folder(make_folder(tmp_path), name="imagenet", storage="memory"))


def test_wrong_number_of_channels_in_the_mean(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.mean has 1 values, the images have 3 channels"):
        load_search(folder(make_folder(tmp_path), mean=[0.5], std=[0.5]))


def test_test_split_is_checked_in_a_retraining(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    (root / "test" / "bee").rename(root / "test" / "wasp")
    with pytest.raises(UserError, match=r"classes of .*train and .*test differ: bee, wasp"):
        load_retrain(folder(root))
    shutil.rmtree(root / "test")
    with pytest.raises(UserError, match="folder 'train' but none of test, val, valid"):
        load_retrain(folder(root))


def test_flat_folder_too_small_for_a_test_split(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "", num=2)
    with pytest.raises(UserError, match=r"data.test_fraction is 0.1: holds out none of the 4"):
        load_retrain(folder(root, test_fraction=0.1))


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_names_of_the_test_folder(tmp_path: Path, name: str) -> None:
    assert load_retrain(folder(make_folder(tmp_path, "train", name))).info.num_test == 12


def test_other_files_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    (root / "train" / ".cache").mkdir()
    (root / "train" / "ant" / "notes.txt").write_text("hello")
    (root / "train" / "ant" / "._0.png").write_bytes(b"what macOS leaves behind")
    (root / "train" / "README.md").write_text("hello")
    data = load_search(folder(root))
    assert data.info.class_names == ("ant", "bee")
    assert data.info.num_train + data.info.num_validation == 12


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path)
    monkeypatch.setenv("HOME", str(root.parent))
    assert load_search(folder(Path("~/images"))).info.num_train == 6


def test_grey_only_if_all_images_are(tmp_path: Path) -> None:
    root = make_folder(tmp_path, mode="L")
    assert load_search(folder(root)).info.in_channels == 1
    Image.new("RGB", (8, 8), "red").save(root / "train" / "bee" / "5.png")
    assert load_search(folder(root)).info.in_channels == 3


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (20, 20), (21, 33)])
def test_fit_takes_the_centre_of_the_shorter_side(size: tuple[int, int]) -> None:
    image = Image.linear_gradient("L").resize(size)
    fitted = fit(image, 10)
    assert fitted.size == (10, 10)
    mean = np.asarray(image).mean()
    assert abs(float(np.asarray(fitted).mean()) - float(mean)) < 4
