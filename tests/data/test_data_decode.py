"""Image files that are broken in any way, and folders that only look like splits."""

import io
from pathlib import Path
from typing import Any

import pytest
from data_folders import load_retrain, load_search, make_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from nas.data import DataSettings
from nas.data.decode import open_image
from nas.data.folder import EXTENSIONS
from nas.errors import UserError

GIVEN = {"mean": [0.5] * 3, "std": [0.5] * 3, "image_size": 8}
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".ppm": "PPM"}


def folder(root: Path, **values: Any) -> DataSettings:
    return DataSettings(**{"name": "image_folder", "path": str(root), "num_workers": 0, **values})


def encoded(suffix: str, size: int = 16) -> bytes:
    buffer = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((size, size)).convert("RGB")
    gradient.save(buffer, FORMATS[suffix])
    return buffer.getvalue()


def read_all(data: Any) -> None:
    for loader in (data.train, data.validation):
        for _ in loader.epoch(0):
            pass


@pytest.mark.parametrize("storage", ["memory", "stream"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_jpeg_is_one_line_that_names_the_file(
    tmp_path: Path, storage: str, num_workers: int, share: float
) -> None:
    root = make_folder(tmp_path, "train")
    whole = encoded(".jpg", 64)
    (root / "train" / "bee" / "bad.jpg").write_bytes(whole[: int(share * len(whole))])
    values = {"storage": storage, "num_workers": num_workers, **GIVEN}
    with pytest.raises(UserError, match=r"^broken image \S*train/bee/bad\.jpg: [^\n]*$"):
        read_all(load_search(folder(root, **values), 1))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_file_that_goes_away_during_a_run_is_one_line_too(tmp_path: Path, num_workers: int) -> None:
    root = make_folder(tmp_path, "train")
    data = load_search(folder(root, storage="stream", num_workers=num_workers, **GIVEN), 1)
    (root / "train" / "ant" / "4.png").unlink()
    with pytest.raises(UserError, match=r"^broken image \S*train/ant/4\.png: [^\n]*$"):
        read_all(data)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keep=st.floats(0, 1),
    changes=st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=8),
)
def test_damage_of_any_kind_never_escapes_as_another_error(
    tmp_path: Path, suffix: str, keep: float, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(encoded(suffix))
    for place, value in changes:
        content[place % len(content)] = value
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(content[: int(keep * len(content))])
    try:
        image = open_image(str(file), 3)
    except UserError as error:
        assert str(error).startswith(f"broken image {file}") and "\n" not in str(error)
    except Image.DecompressionBombWarning:
        pass  # a header that promises a huge image: only here are warnings errors
    else:
        assert image.mode == "RGB"


@pytest.mark.skipif(not features.check("avif"), reason="needs Pillow with AVIF")
def test_a_broken_avif_that_is_called_jpeg_is_one_line(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "AVIF")
    whole, file = buffer.getvalue(), tmp_path / "image.jpg"
    told = []
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            open_image(str(file), 3)
        except UserError as error:
            told.append(str(error))
    # The decoder's own words, for a file that Pillow takes for an image.
    assert any(text.startswith(f"broken image {file}: Failed to decode") for text in told)


@pytest.mark.parametrize("suffix", FORMATS)
def test_all_formats_are_found_whatever_the_case_of_their_suffix(
    tmp_path: Path, suffix: str
) -> None:
    assert suffix in EXTENSIONS
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index, ending in enumerate([suffix, suffix.upper()] * 2):
            (tmp_path / name / f"{index}{ending}").write_bytes(encoded(suffix))
    data = load_retrain(folder(tmp_path, test_fraction=0.25))
    assert (data.info.num_train, data.info.num_test) == (6, 2)


@pytest.mark.parametrize("splits", [("Train", "Test"), ("TRAIN", "VAL"), ("training", "testing")])
@pytest.mark.parametrize("load", [load_search, load_retrain])
def test_split_of_another_name_is_not_taken_for_a_class(
    tmp_path: Path, splits: tuple[str, str], load: Any
) -> None:
    root = make_folder(tmp_path, *splits)
    # On a file system that ignores case the folder `Train` is `train`.
    if (root / "train").is_dir():
        pytest.skip("the file system ignores case")
    message = rf"data.path: .* has a folder '{splits[1]}' but no 'train': rename .*to 'train'"
    with pytest.raises(UserError, match=message):
        load(folder(root))


def test_flat_folder_of_which_nothing_is_left_for_training(tmp_path: Path) -> None:
    root = make_folder(tmp_path, "", num=2)
    with pytest.raises(UserError, match=r"data.test_fraction is 0.95: leaves none of the 4 images"):
        load_search(folder(root, test_fraction=0.95))


def test_a_class_that_the_test_images_would_take_whole_is_refused(tmp_path: Path) -> None:
    """Nothing else would say that it is never trained."""
    root = make_folder(tmp_path, "", num=5)
    for index in range(1, 5):
        (root / "bee" / f"{index}.png").unlink()
    message = r"data.test_fraction is 0.6: leaves no image of the class 'bee' for training"
    with pytest.raises(UserError, match=message):
        load_search(folder(root, test_fraction=0.6))
