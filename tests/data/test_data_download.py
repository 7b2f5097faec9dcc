"""Torchvision's data sets from files in its own formats, and downloads that fail."""

import hashlib
import pickle
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from data_folders import load_retrain, load_search
from torchvision import datasets

from nas.data import DataSettings
from nas.data.sources import load_split
from nas.errors import UserError

NAMES = ("cifar10", "cifar100", "svhn", "fashion_mnist")
NUM_TRAIN, NUM_TEST = 40, 12
Pixels = np.ndarray[Any, Any]


def random_pixels(count: int, *shape: int) -> Pixels:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def written(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def write_cifar(root: Path, patch: pytest.MonkeyPatch, kind: Any, key: str) -> dict[bool, Pixels]:
    folder, both = root / kind.base_folder, {}
    for attribute, count in (("train_list", NUM_TRAIN), ("test_list", NUM_TEST)):
        pixels = random_pixels(count, 3, 32, 32)
        content = {"data": pixels.reshape(count, -1), key: [i % 10 for i in range(count)]}
        digest = written(folder / attribute, pickle.dumps(content))
        patch.setattr(kind, attribute, [[attribute, digest]])
        both[attribute == "train_list"] = pixels
    names = [f"name{i}" for i in range(100 if kind is datasets.CIFAR100 else 10)]
    digest = written(folder / "meta", pickle.dumps({"names": names}))
    patch.setattr(kind, "meta", {"filename": "meta", "key": "names", "md5": digest})
    return both


def write_cifar10(root: Path, patch: pytest.MonkeyPatch) -> dict[bool, Pixels]:
    return write_cifar(root, patch, datasets.CIFAR10, "labels")


def write_cifar100(root: Path, patch: pytest.MonkeyPatch) -> dict[bool, Pixels]:
    return write_cifar(root, patch, datasets.CIFAR100, "fine_labels")


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> dict[bool, Pixels]:
    both = {}
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        pixels = random_pixels(count, 3, 32, 32)
        labels = np.array([[i % 10 or 10] for i in range(count)], dtype=np.uint8)  # 0 is a 10
        file = root / f"{split}.mat"
        scipy.io.savemat(file, {"X": pixels.transpose(2, 3, 1, 0), "y": labels})
        digest = hashlib.md5(file.read_bytes()).hexdigest()
        patch.setitem(datasets.SVHN.split_list, split, ["", file.name, digest])
        both[split == "train"] = pixels
    return both


def write_fashion_mnist(root: Path, patch: pytest.MonkeyPatch) -> dict[bool, Pixels]:
    folder, both = root / "FashionMNIST" / "raw", {}
    for split, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        pixels = random_pixels(count, 1, 28, 28)
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
        written(folder / f"{split}-images-idx3-ubyte", images)
        written(folder / f"{split}-labels-idx1-ubyte", labels)
        both[split == "train"] = pixels
    return both


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[bool, Pixels]]] = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "fashion_mnist": write_fashion_mnist,
}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuses every request; returns the addresses that were asked for."""
    asked: list[str] = []

    def refuse(request: Any, *_: object, **__: object) -> None:
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("network refused")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("train", [True, False])
def test_both_splits_are_read_as_torchvision_stores_them(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_network: list[str],
    name: str,
    train: bool,
) -> None:
    expected = WRITERS[name](tmp_path, monkeypatch)[train]
    images = load_split(DataSettings(name=name, path=str(tmp_path)), train)
    assert np.array_equal(images.pixels.numpy(), expected)
    assert images.labels.tolist() == [i % 10 for i in range(len(expected))]
    assert len(images.class_names) == (100 if name == "cifar100" else 10)
    assert no_network == []  # data that is there is not fetched again


@pytest.mark.parametrize("name", NAMES)
def test_search_and_retraining_run_on_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    WRITERS[name](tmp_path, monkeypatch)
    settings = DataSettings(name=name, path=str(tmp_path), crop_padding=4, download=False)
    search, retrain = load_search(settings, 8), load_retrain(settings, 8)
    assert (search.info.num_train, search.info.num_validation) == (20, 20)
    assert (retrain.info.num_train, retrain.info.num_test) == (NUM_TRAIN, NUM_TEST)
    assert search.info.mean == retrain.info.mean
    sizes = [len(labels) for _, labels in retrain.test.epoch(0)]
    assert sizes == [5, 5, 2]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("train", [True, False])
def test_refused_download_is_one_line_that_says_what_to_do(
    tmp_path: Path, no_network: list[str], name: str, train: bool
) -> None:
    with pytest.raises(
        UserError, match=r"data.download: cannot fetch .*network refused.*data.path"
    ):
        load_split(DataSettings(name=name, path=str(tmp_path)), train)
    assert no_network
    with pytest.raises(UserError) as error:
        load_split(DataSettings(name=name, path=str(tmp_path)), train)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_of_the_network_where_downloads_are_off(
    tmp_path: Path, no_network: list[str], name: str
) -> None:
    with pytest.raises(UserError, match=f"data.path: {name} is not in .*data.download=true"):
        load_split(DataSettings(name=name, path=str(tmp_path), download=False), True)
    assert no_network == []
