"""Random folders of images and rubbish: they are read, or refused in one line."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import load_retrain, load_search, make_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data import DataSettings
from nas.errors import UserError

pytestmark = pytest.mark.faults

PLACES = ("", "ant/", "bee/", "cat/", "ant/deep/", "train/ant/", "train/bee/", "test/ant/")
NAMES = st.one_of(
    st.sampled_from(["a.png", "b.JPG", "c.jpeg", "d.webp", "e.txt", "f", ".g.png", "h.png.part"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)
    .filter(lambda name: name not in (".", ".."))
    .map(lambda name: name[:20] + ".png"),
    st.sampled_from(["\udcff.png", "new\nline.png", "-rf.png", "$(x).png", " .png"]),
)
KINDS = (
    *("image", "image", "image", "grey", "large", "one pixel", "truncated", "empty", "rubbish"),
    *("folder", "link up", "dangling link", "pipe", "deep colours"),
)


@given(
    entries=st.lists(st.tuples(st.sampled_from(PLACES), NAMES, st.sampled_from(KINDS)), max_size=9),
    sound=st.booleans(),
    settings_=st.fixed_dictionaries(
        {"storage": st.sampled_from(["memory", "stream"])},
        optional={"image_size": st.sampled_from([4, 8, 9]), "limit": st.integers(4, 9)},
    ),
)
@settings(deadline=None, derandomize=True, max_examples=120)
def test_any_folder_is_read_or_refused_in_one_line(
    entries: list[tuple[str, str, str]], sound: bool, settings_: dict[str, Any]
) -> None:
    parent = Path(tempfile.mkdtemp())
    try:
        root = make_folder(parent, "train", "test", num=3) if sound else parent / "images"
        for place, name, kind in entries:
            _put(root, root / place / name, kind)
        data = DataSettings(name="image_folder", path=str(root), num_workers=0, **settings_)
        for load in (load_search, load_retrain):
            try:
                loaded = load(data)
                for images, labels in loaded.train.epoch(0):
                    assert images.isfinite().all() and len(images) == len(labels)
                    assert 0 <= int(labels.min()) <= int(labels.max()) < loaded.info.num_classes
            except UserError as error:
                assert str(error).strip()
    finally:
        shutil.rmtree(parent)


def _put(root: Path, path: Path, kind: str) -> None:
    """Makes what `kind` says at `path`, if nothing is there."""
    if kind == "link up":
        path = path.with_suffix("")
    if path.exists() or path.is_symlink() or any(p.is_file() for p in path.parents):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"large": (40, 31), "one pixel": (1, 1)}.get(kind, (8, 8))
    if kind == "folder":
        path.mkdir()
    elif kind == "link up":
        path.symlink_to(root, target_is_directory=True)
    elif kind == "dangling link":
        path.symlink_to(root / "nowhere.png")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("empty", "rubbish"):
        path.write_bytes(b"" if kind == "empty" else b"\x89PNG\r\n\x1a\nrubbish")
    else:
        mode = {"grey": "L", "deep colours": "I;16"}.get(kind, "RGB")
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        pixels = np.zeros(shape, dtype=np.uint16 if mode == "I;16" else np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-20])


def test_a_link_to_a_folder_above_is_one_line_and_not_followed_for_ever(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    for split in ("train", "test"):
        for name in ("one", "two"):  # followed, these would be 2^40 folders
            (root / split / "ant" / name).symlink_to(root / split)
    with pytest.raises(UserError, match="ant/one is a link to a folder that it is in itself"):
        load_search(DataSettings(name="image_folder", path=str(root)))


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    (root / "train" / "bee").rename(tmp_path / "elsewhere")
    (root / "train" / "bee").symlink_to(tmp_path / "elsewhere")
    data = load_search(DataSettings(name="image_folder", path=str(root)))
    assert data.info.class_names == ("ant", "bee")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    os.mkfifo(root / "train" / "ant" / "pipe.png")
    assert load_search(DataSettings(name="image_folder", path=str(root))).info.num_train == 6


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(tmp_path)

    def closed(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UserError, match=r"data.path: cannot read .*: Permission denied"):
        load_search(DataSettings(name="image_folder", path=str(root)))
