"""What is offered for a path of a genotype that does not exist."""

import os
from pathlib import Path

import pytest

from nas.genotype.nearby import nearest_genotype
from nas.genotype.published import PUBLISHED

RUNS = ("runs/search/first", "runs/search/2026-01-02_10-00-00", "runs/retrain/last", "kept/mine")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with runs in it."""
    monkeypatch.chdir(tmp_path)
    for folder in (*RUNS, "runs/search/sweep/0", "runs/search/sweep/1"):
        Path(folder).mkdir(parents=True)
        Path(folder, "genotype.json").write_text("{}")
    Path("runs/search/frst").mkdir()  # nearer than `first`, but without a genotype


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("runs/search/fisrt", "runs/search/first"),
        ("runs/search/fisrt/genotype.json", "runs/search/first/genotype.json"),
        ("run/serach/first", "runs/search/first"),
        ("runs/search/first/genotpe.json", "runs/search/first/genotype.json"),
        ("search/2026-01-02_10-00-01", "runs/search/2026-01-02_10-00-00"),
        ("kept/mien", "kept/mine"),
        ("fisrt", "runs/search/first"),
        ("runs/darts_v2", "darts_v2"),
        ("darts_v2.json", "darts_v2"),
        ("nasbench201/best", "nasbench201_best"),
        ("elsewhere/q", None),
        ("x" * 300, None),
        ("a\0b/c", None),
    ],
)
def test_the_nearest_of_names_paths_and_runs(given: str, nearest: str | None) -> None:
    assert nearest_genotype(Path(given), PUBLISHED) == nearest


def test_absolute_paths_are_corrected_too(tmp_path: Path) -> None:
    assert nearest_genotype(tmp_path / "kept" / "mime", ()) == str(tmp_path / "kept" / "mine")


def test_of_a_folder_of_runs_the_newest_is_offered() -> None:
    os.utime("runs/search/sweep/0/genotype.json", (2e9, 2e9))
    assert nearest_genotype(Path("runs/search/sweep/genotype.json"), PUBLISHED) == (
        "runs/search/sweep/0"
    )
