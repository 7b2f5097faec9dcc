"""The predictor and its command line."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from deploy_helpers import CLASSES, save_trained
from PIL import Image

import nas
from nas.errors import UserError
from nas.predict import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_trained(tmp_path / "run", "vit")
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("b/2.png", "b/1.JPG", "a.webp", "b/deep/3.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 24, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / ".hidden.png").write_text("")
    (tmp_path / "photos" / "notes.txt").write_text("")
    return tmp_path / "photos"


SORTED = ["a.webp", "b/1.JPG", "b/2.png", "b/deep/3.png"]


def test_probabilities_are_the_softmax_of_the_network(run: Path, photos: Path) -> None:
    predictor = nas.Predictor(str(run), device="cpu")
    path = photos / "b" / "2.png"
    found = predictor(path)
    expected = nas.load(run)(predictor.preprocess(path)[None]).softmax(1)[0]
    assert [p.label for p in found] == [CLASSES[k] for k in expected.argsort(descending=True)]
    torch.testing.assert_close(
        torch.tensor([p.probability for p in found]), expected.sort(descending=True).values
    )
    with Image.open(path) as image:
        assert predictor(image) == predictor(str(path)) == found
    ((label, probability),) = predictor(path, top=1)
    assert (label, probability) == found[0] and predictor.class_names == CLASSES


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_a_folder_goes_through_in_batches(run: Path, photos: Path, batch_size: int) -> None:
    predictor = nas.Predictor(run, batch_size=batch_size, device="cpu")
    sizes: list[int] = []
    predictor.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    found = list(predictor.folder(photos, top=2))
    assert [str(path.relative_to(photos)) for path, _ in found] == SORTED
    assert sizes == [min(batch_size, 4 - first) for first in range(0, 4, batch_size)]
    for path, predictions in found:
        alone = predictor(path, top=2)
        assert [p.label for p in predictions] == [p.label for p in alone]
        assert [p.probability for p in predictions] == pytest.approx(
            [p.probability for p in alone], abs=1e-6
        )


def test_images_are_read_as_they_are_needed(run: Path, photos: Path) -> None:
    def endless() -> object:
        while True:
            yield photos / "a.webp"

    found = nas.Predictor(run, batch_size=2, device="cpu").many(endless())
    assert [next(found)[0] for _ in range(5)] == [photos / "a.webp"] * 5
    found.close()


def test_broken_images_are_named_or_passed_by(run: Path, photos: Path) -> None:
    (photos / "b" / "0.png").write_text("no image")
    predictor = nas.Predictor(run, batch_size=2, device="cpu")
    with pytest.raises(UserError, match=r"broken image .*0\.png"):
        list(predictor.folder(photos))
    skipped: list[UserError] = []
    found = list(predictor.folder(photos, skip=skipped.append))
    assert [str(path.relative_to(photos)) for path, _ in found] == SORTED
    assert len(skipped) == 1
    for path in photos.rglob("*.*"):
        path.write_text("no image")
    assert list(predictor.folder(photos, skip=skipped.append)) == [] and len(skipped) == 6


def test_an_opened_image_that_is_broken_is_passed_by_like_a_file(run: Path, photos: Path) -> None:
    """Pillow opens it without a word, and reads it only when its pixels are wanted."""
    content = (photos / "b" / "2.png").read_bytes()
    predictor, errors = nas.Predictor(run, device="cpu"), []
    good, cut = (Image.open(io.BytesIO(part)) for part in (content, content[: len(content) // 2]))
    ((image, _),) = predictor.many([cut, good], skip=errors.append)
    assert image is good and "broken image" in str(errors[0])
    with pytest.raises(UserError, match="broken image"):
        predictor(cut)


def test_what_is_no_image_or_no_number_of_classes_is_one_line(run: Path, photos: Path) -> None:
    predictor = nas.Predictor(run, device="cpu")
    with pytest.raises(UserError, match=r"a file or a PIL.Image, not of the type ndarray"):
        predictor(np.zeros((8, 8), dtype=np.uint8))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"top is -1: must be at least 1"):
        predictor(photos / "b" / "2.png", top=-1)


def test_what_cannot_be_done_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size is 0"):
        nas.Predictor(run, batch_size=0)
    with pytest.raises(UserError, match="device"):
        nas.Predictor(run, device="abacus")
    with pytest.raises(UserError, match="no such file or folder"):
        nas.Predictor(run).folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no image in"):
        nas.Predictor(run).folder(run)


def test_the_command_line_prints_csv(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run), str(photos), str(photos / "a.webp"), "--top", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = [str(photos / name) for name in [*SORTED, "a.webp"]]
    assert [row["image"] for row in rows] == [name for name in expected for _ in range(2)]
    assert [row["rank"] for row in rows[:4]] == ["1", "2", "1", "2"]
    assert rows[0]["label"] in CLASSES and 0 < float(rows[0]["probability"]) < 1
    assert rows[:2] == rows[-2:]


def test_the_command_line_prints_json_lines(
    run: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "c.png").write_text("no image")
    assert main([str(run), str(photos), "--format", "json", "--top", "9"]) == 1
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["image"] for line in lines] == [str(photos / name) for name in SORTED]
    for line in lines:
        assert sum(p["probability"] for p in line["predictions"]) == pytest.approx(1)
        assert {p["label"] for p in line["predictions"]} == set(CLASSES)
    assert captured.err.startswith("error: broken image") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "."), "no such folder: nowhere"),
        (("{run}", "nowhere.png"), "no such file or folder: nowhere.png"),
        (("{run}", "{run}"), "no image in"),
        (("{run}", "{photos}", "--top", "0"), "--top is 0: must be at least 1"),
        (("{run}", "{photos}", "--batch-size", "0"), "batch_size is 0"),
        (("{run}", "{photos}", "--device", "cuda:99"), "device is 'cuda:99'"),
        (("{run}", "{photos}", "--model", "my.Net"), "not of a model of your own"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    run: Path,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert main([a.format(run=run, photos=photos) for a in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out
