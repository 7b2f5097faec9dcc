"""The film of a search: its frames, its bars, its bytes."""

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from nas.errors import UserError
from nas.monitor.animation import write_animation
from nas.monitor.history import History
from nas.monitor.theme import DARK, LIGHT, Theme


def search(num_epochs: int) -> History:
    history = History()
    for epoch in range(1, num_epochs + 1):
        share = epoch / num_epochs
        history.add(epoch, {"cell/0->1": {"none": 1 - share, "skip_connect": share}})
    return history


def area(image: Image.Image, color: str) -> int:
    """Pixels of about a colour."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    wanted = np.array([round(255 * value) for value in to_rgb(color)])
    return int((abs(pixels - wanted).max(axis=-1) <= 8).sum())


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_frames_show_the_probabilities_grow(tmp_path: Path, theme: Theme) -> None:
    path = tmp_path / "search.gif"
    write_animation(search(5), path, {"cell/0->1": "skip_connect"}, dark=theme is DARK)
    with Image.open(path) as film:
        assert film.n_frames == 5
        areas = []
        for number in range(film.n_frames):
            film.seek(number)
            areas.append([area(film, color) for color in theme.series[:2]])
    first, second = zip(*areas, strict=True)
    assert list(second) == sorted(second) and second[0] < second[-1]
    assert list(first) == sorted(first, reverse=True) and first[-1] == 0
    assert second[3] == pytest.approx(0.8 * second[4], rel=0.05)


def test_long_search_is_thinned(tmp_path: Path) -> None:
    write_animation(search(50), tmp_path / "a.gif", max_frames=7)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 7
        assert film.info["loop"] == 0


def test_same_search_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.gif", "b.gif"):
        write_animation(search(3), tmp_path / name)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()


def test_unknown_probability_has_no_bar(tmp_path: Path) -> None:
    history = History()
    history.add(1, {"a": {"x": 0.5, "y": math.nan}})
    write_animation(history, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 1
        assert area(film, LIGHT.series[0]) > 0 == area(film, LIGHT.series[1])


def test_film_that_cannot_be_written_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_animation(search(2), tmp_path / "a.gif")
