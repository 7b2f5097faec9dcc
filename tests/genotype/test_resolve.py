"""What can be written for `genotype=`."""

from pathlib import Path

import pytest

from nas.errors import UserError
from nas.genotype.published import PUBLISHED
from nas.genotype.resolve import resolve_genotype
from nas.genotype.text import genotype_text

CELL = PUBLISHED["nasbench201_best"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "genotype.json").write_text(CELL.to_json(), encoding="utf-8")
    return tmp_path


def test_file_and_run_folder(run_dir: Path) -> None:
    assert resolve_genotype(str(run_dir / "genotype.json")) == CELL
    assert resolve_genotype(str(run_dir)) == CELL
    assert resolve_genotype(f"{run_dir}/") == CELL


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_text_forms(name: str) -> None:
    assert resolve_genotype(name) == PUBLISHED[name]
    assert resolve_genotype(f" {genotype_text(PUBLISHED[name])}\n") == PUBLISHED[name]


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("darts_v3", "darts_v2"),
        ("DARTS_V2", "darts_v2"),
        ("gdas", "gdas_v1"),
        ("nasbench_best", "nasbench201_best"),
        ("pcdarts", "pc_darts"),
    ],
)
def test_typo_is_answered_with_the_nearest_name(typo: str, nearest: str) -> None:
    message = refusal(typo)
    assert f"did you mean '{nearest}'?" in message
    assert "genotype.json" in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path / "runs" / "7", Path("absent.json")):
        assert f"no such file: {path}" in refusal(str(path))


def test_run_folder_without_a_genotype_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "genotype.json") in refusal(str(tmp_path))


def test_run_that_has_not_ended_is_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert f"has not ended, go on with run_dir={tmp_path} resume=true" in refusal(str(tmp_path))


def test_damaged_file_is_named(run_dir: Path) -> None:
    (run_dir / "genotype.json").write_text("{", encoding="utf-8")
    assert str(run_dir / "genotype.json") in refusal(str(run_dir))


@pytest.mark.parametrize(
    "text", ["", "x" * 300, "normal=[" + "('sep_conv_3x3', 0), " * 40, "a\0b", "|", "Genotype", "é"]
)
def test_anything_else_is_refused(text: str) -> None:
    refusal(text)


def refusal(text: str) -> str:
    """The message that `text` is refused with: one line about the genotype."""
    with pytest.raises(UserError, match="genotype") as caught:
        resolve_genotype(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)
