"""`nas-draw`: what is drawn of a run or a genotype, where to, and what is said of mistakes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from report_helpers import write_search

from nas.draw import main

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|"


@pytest.fixture
def search(tmp_path: Path) -> Path:
    return write_search(tmp_path / "search")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_search_is_drawn_beside_its_metrics(
    search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(search), "--format", "png", "gif"]) == 0
    expected = {"cell.png", "network.png", "probabilities.png", "history.png", "probabilities.gif"}
    assert files(search / "pictures") == expected
    printed = capsys.readouterr().out.splitlines()
    assert {Path(line).name for line in printed} == expected
    for name in expected:
        with Image.open(search / "pictures" / name) as image:
            assert min(image.size) > 50
            assert getattr(image, "n_frames", 1) == (3 if name.endswith("gif") else 1)


def test_svg_is_well_formed_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        arguments = [
            "--format",
            "svg",
            "--theme",
            "light",
            "dark",
            "--output",
            str(tmp_path / name),
        ]
        assert main([CELL, *arguments]) == 0
    assert files(tmp_path / "a") == {
        "cell.svg",
        "cell_dark.svg",
        "network.svg",
        "network_dark.svg",
    }
    for path in (tmp_path / "a").iterdir():
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        # Letters are paths: the picture needs no font.
        assert not any(element.tag.endswith("}text") for element in root.iter())
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_dark_pictures_are_dark(tmp_path: Path) -> None:
    assert main([CELL, "--theme", "dark", "light", "--output", str(tmp_path)]) == 0
    for name in ("cell", "network"):
        for suffix, is_dark in (("_dark", True), ("", False)):
            with Image.open(tmp_path / f"{name}{suffix}.png") as image:
                assert (sum(image.convert("RGB").getpixel((0, 0))) < 200) == is_dark


def test_network_is_drawn_in_the_sizes_that_are_given(tmp_path: Path) -> None:
    pictures = set()
    for more in ([], ["--sizes", "channels=8"], ["--image-size", "8"]):
        assert main([CELL, *more, "--output", str(tmp_path)]) == 0
        pictures.add((tmp_path / "network.png").read_bytes())
    assert len(pictures) == 3


def test_search_without_a_result_has_its_history(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "search", finished=False)
    assert main([str(folder)]) == 0
    assert files(folder / "pictures") == {"probabilities.png", "history.png"}


def test_search_without_an_epoch_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_search(tmp_path / "search", finished=False)
    (folder / "metrics.jsonl").unlink()
    assert main([str(folder)]) == 1
    assert "the run has not finished an epoch" in capsys.readouterr().err


def test_genotype_of_a_users_model_is_a_list(tmp_path: Path) -> None:
    content = {"format_version": 1, "space": "custom", "operations": [], "choices": {"depth": "3"}}
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps(content))
    assert main([str(path), "--output", str(tmp_path / "pictures")]) == 0
    assert files(tmp_path / "pictures") == {"cell.png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/genotype.json"], "no such file"),
        (["darts_v3"], "did you mean 'darts_v2'"),
        ([CELL, "--sizes", "chanels=8"], "did you mean 'channels'"),
        ([CELL, "--sizes", "channels"], "name=number"),
        ([CELL, "--sizes", "channels=0"], "name=number"),
        ([CELL, "--image-size", "0"], "must be at least 1"),
        ([CELL, "--format", "gif"], "no search"),
        ([CELL, "--output", "file/below"], "cannot write"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_unknown_format_names_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([CELL, "--format", "jpg"])
    assert stop.value.code == 2
    assert "png" in capsys.readouterr().err
