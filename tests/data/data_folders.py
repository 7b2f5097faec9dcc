"""Folders of images that the tests make, and loaders with the settings that no test is about."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nas.data import DataSettings, RetrainData, SearchData, load_retrain_data, load_search_data

CPU = torch.device("cpu")


def make_folder(
    parent: Path, *splits: str, num: int = 6, size: tuple[int, int] = (8, 8), mode: str = "RGB"
) -> Path:
    """Writes two class folders of random images for each split and returns their root."""
    rng = np.random.default_rng(0)
    root = parent / "images"
    for split in splits or ("train", "test"):
        for name in ("ant", "bee"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(num):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")
    return root


def load_search(
    settings: DataSettings, batch_size: int = 2, seed: int = 0, *, channels_last: bool = False
) -> SearchData:
    return load_search_data(
        settings, batch_size=batch_size, seed=seed, device=CPU, channels_last=channels_last
    )


def load_retrain(settings: DataSettings, batch_size: int = 2, seed: int = 0) -> RetrainData:
    return load_retrain_data(
        settings,
        batch_size=batch_size,
        eval_batch_size=5,
        seed=seed,
        device=CPU,
        channels_last=False,
    )
