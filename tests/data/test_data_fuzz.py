"""Image folders as they may be found in the wild: loaded, or refused with one line."""

import io
import os
from pathlib import Path

import pytest
import torch
from data_folders import load_retrain, load_search
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import DataSettings
from nas.errors import UserError


def encoded(kind: str, mode: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


SIZES = st.sampled_from([(8, 8), (9, 8), (1, 1), (3, 40)])
IMAGES = st.one_of(
    st.builds(
        encoded, st.just("PNG"), st.sampled_from(["L", "RGB", "RGBA", "P", "1", "LA"]), SIZES
    ),
    st.builds(encoded, st.just("JPEG"), st.sampled_from(["L", "RGB", "CMYK"]), SIZES),
    st.builds(encoded, st.just("PNG"), st.just("I;16"), SIZES),
)
GOOD = st.just(encoded("PNG", "RGB", (8, 8)))
CUT = st.builds(lambda content, end: content[:end], IMAGES, st.integers(0, 80))
CONTENTS = st.one_of(GOOD, GOOD, GOOD, IMAGES, CUT, st.binary(max_size=40))
NAMES = st.sampled_from(
    ["a.png", "b.png", "c.PNG", "d.jpg", "e.txt", ".hidden.png", "f g.png", "é.png", "h.jpeg"]
)
FILES = st.dictionaries(
    NAMES, CONTENTS | st.sampled_from(["folder", "loop", "nowhere"]), max_size=6
)
CLASSES = st.dictionaries(st.sampled_from(["ant", "bee", "c d", "ü"]), FILES, max_size=4)
TREES = st.dictionaries(st.sampled_from(["train", "test", "val", "."]), CLASSES, max_size=3)


def write(root: Path, tree: dict[str, dict[str, dict[str, bytes | str]]]) -> None:
    for split, classes in tree.items():
        for label, files in classes.items():
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                path = folder / name
                if path.exists() or path.is_symlink():
                    continue
                if isinstance(content, bytes):
                    path.write_bytes(content)
                elif content == "folder":
                    path.mkdir()
                else:
                    targets = {"loop": folder, "nowhere": root / "nowhere", "itself": path}
                    os.symlink(targets[content], path)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(TREES, st.sampled_from(["memory", "stream"]), st.sampled_from([None, 8]))
def test_a_folder_is_loaded_or_refused_with_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[str, dict[str, dict[str, bytes | str]]],
    storage: str,
    image_size: int | None,
) -> None:
    root = tmp_path_factory.mktemp("images")
    write(root, tree)
    given = DataSettings(
        name="image_folder",
        path=str(root),
        storage=storage,
        image_size=image_size,
        num_workers=0,
        test_fraction=0.25,
    )
    for load in (load_search, load_retrain):
        try:
            data = load(given, 2)
            loaders = [data.train, data.test if load is load_retrain else data.validation]
            batches = [batch for loader in loaders for batch in loader.epoch(0)]
        except UserError as error:
            assert "\n" not in str(error) and str(error)
            continue
        for images, labels in batches:
            assert images.shape[2:] == (data.info.image_size,) * 2
            assert torch.isfinite(images).all() and labels.max() < data.info.num_classes
