"""Data sets by name: digits as they are, torchvision's from files of the right format."""

import hashlib
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from nas.data import DataSettings
from nas.data.sources import SOURCES, load_split
from nas.errors import UserError

RNG = np.random.default_rng(0)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_pickle(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return md5(path)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """CIFAR-10 with 20 training and 4 test images; returns the former, `[20, 3, 32, 32]`."""
    pixels = RNG.integers(0, 256, (24, 3 * 32 * 32), dtype=np.uint8)
    folder = tmp_path / datasets.CIFAR10.base_folder
    labels = [index % 10 for index in range(24)]
    lists = {"train_list": slice(0, 20), "test_list": slice(20, 24)}
    for name, part in lists.items():
        content = {"data": pixels[part], "labels": labels[part]}
        digest = write_pickle(folder / name, content)
        monkeypatch.setattr(datasets.CIFAR10, name, [[name, digest]])
    names = write_pickle(folder / "meta", {"names": [f"class{i}" for i in range(10)]})
    meta = {"filename": "meta", "key": "names", "md5": names}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return pixels[:20].reshape(20, 3, 32, 32)


def test_digits_are_scaled_and_a_fixed_fifth_is_held_out() -> None:
    train, test = (load_split(DataSettings(name="digits"), flag) for flag in (True, False))
    assert len(train.labels) == 1438 and len(test.labels) == 359
    assert train.pixels.shape[1:] == (1, 8, 8) and train.pixels.dtype == torch.uint8
    assert train.pixels.min() == 0 and train.pixels.max() == 255
    shares = test.labels.bincount() / torch.cat([train.labels, test.labels]).bincount()
    assert ((shares - 0.2).abs() < 0.01).all()
    rows = torch.cat([train.pixels, test.pixels]).flatten(1)
    assert len(rows) == 1797


def test_cifar_is_read_as_it_is(tmp_path: Path, cifar: np.ndarray[Any, Any]) -> None:
    images = load_split(DataSettings(name="cifar10", path=str(tmp_path)), True)
    assert np.array_equal(images.pixels.numpy(), cifar)
    assert images.labels.tolist() == [index % 10 for index in range(20)]
    assert images.class_names[3] == "class3"
    assert len(load_split(DataSettings(name="cifar10", path=str(tmp_path)), False).labels) == 4


def test_images_are_resized(tmp_path: Path, cifar: np.ndarray[Any, Any]) -> None:
    settings = DataSettings(name="cifar10", path=str(tmp_path), image_size=16)
    assert load_split(settings, True).pixels.shape == (20, 3, 16, 16)


@pytest.mark.usefixtures("cifar")
def test_changed_archive_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    file = tmp_path / datasets.CIFAR10.base_folder / "train_list"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"cifar10 is not in .* or damaged.*data.download=true"):
        load_split(DataSettings(name="cifar10", path=str(tmp_path), download=False), True)


def test_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(UserError, match=r"data.download: .*no route to host.*data.path") as error:
        load_split(DataSettings(name="cifar10", path=str(tmp_path)), True)
    assert "\n" not in str(error.value)


def test_absent_data_is_not_downloaded_unless_allowed(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100", "svhn", "fashion_mnist"):
        with pytest.raises(UserError, match=f"data.path: {name} is not in"):
            load_split(DataSettings(name=name, path=str(tmp_path), download=False), True)


def test_warnings_of_old_pickles_stay_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object, **__: object) -> None:
        warnings.warn("align should be passed as Python boolean", UserWarning, stacklevel=1)
        raise RuntimeError

    monkeypatch.setattr(datasets, "CIFAR10", make)
    with pytest.raises(UserError):
        load_split(DataSettings(name="cifar10", path=str(tmp_path), download=False), True)


def test_svhn_counts_zero_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    file = tmp_path / "train.mat"
    labels = np.array([[10], [1], [2], [9], [10]], dtype=np.uint8)
    scipy.io.savemat(file, {"X": pixels, "y": labels})
    monkeypatch.setitem(datasets.SVHN.split_list, "train", ["", "train.mat", md5(file)])
    images = load_split(DataSettings(name="svhn", path=str(tmp_path)), True)
    assert images.labels.tolist() == [0, 1, 2, 9, 0]
    assert np.array_equal(images.pixels.numpy(), pixels.transpose(3, 2, 0, 1))


def write_fashion(root: Path, split: str, count: int) -> np.ndarray[Any, Any]:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
    labels = struct.pack(">II", 0x801, count) + bytes(index % 10 for index in range(count))
    (folder / f"{split}-images-idx3-ubyte").write_bytes(images)
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return pixels


def test_fashion_mnist_has_one_channel(tmp_path: Path) -> None:
    pixels = write_fashion(tmp_path, "train", 12)
    write_fashion(tmp_path, "t10k", 3)
    settings = DataSettings(name="fashion_mnist", path=str(tmp_path), image_size=None)
    images = load_split(settings, True)
    assert np.array_equal(images.pixels[:, 0].numpy(), pixels)
    resized = load_split(DataSettings(**{**as_dict(settings), "image_size": 32}), True)
    assert resized.pixels.shape == (12, 1, 32, 32)


def as_dict(settings: DataSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_damaged_idx_file_is_the_users_business(tmp_path: Path) -> None:
    write_fashion(tmp_path, "train", 12)
    write_fashion(tmp_path, "t10k", 3)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    for size in (2, 10, 500):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(UserError, match="fashion_mnist"):
            load_split(DataSettings(name="fashion_mnist", path=str(tmp_path), download=False), True)


def test_every_data_set_has_its_settings() -> None:
    folder = Path(__file__).parents[2] / "conf" / "data"
    expected = {*SOURCES, "image_folder", "imagenet"}
    assert {file.stem for file in folder.glob("*.yaml")} == expected
