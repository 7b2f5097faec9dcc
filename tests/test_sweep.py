"""The table of a sweep: groups, means and deviations, and what is no sweep."""

import csv
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.sweep import Result, genotypes, load_results, main, table

METRIC = "accuracy/test_top1"


def write(folder: Path, overrides: list[str], value: float) -> None:
    folder.mkdir(parents=True)
    content = {
        "kind": "retrain",
        "overrides": overrides,
        "metrics": {METRIC: value},
        "genotype": "|skip_connect~0|",
        "seconds": 2.0,
    }
    (folder / "summary.json").write_text(json.dumps(content))


def result(group: str, value: float) -> Result:
    return Result(Path("run"), (group,), {METRIC: value}, "|skip_connect~0|", 2.0)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_mean_and_deviation_are_those_of_a_sample(values: list[float]) -> None:
    row = table([result("a", value) for value in values]).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == str(len(values))
    assert cells[3] == f"{sum(values) / len(values):.2f}"
    assert cells[4] == f"{statistics.stdev(values):.2f}"
    assert cells[5:7] == [f"{min(values):.2f}", f"{max(values):.2f}"]


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / f"a{seed}", ["space=darts", f"seed={seed}", "run_dir=x"], 90.0 + seed)
    write(tmp_path / "a3", ["++space=darts", "++seed=3"], 93.0)
    write(tmp_path / "b", ["seed=0"], 50.0)
    rows = table(load_results([tmp_path])).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| space=darts", "| (defaults)"]
    assert " 4 | 91.50 | 1.29 | 90.00 | 93.00 " in rows[0]
    assert " 1 | 50.00 | - | 50.00 | 50.00 " in rows[1]


def test_the_order_of_the_overrides_tells_no_runs_apart(tmp_path: Path) -> None:
    write(tmp_path / "a", ["space=darts", "epochs=3", "seed=0"], 90.0)
    write(tmp_path / "b", ["seed=1", "epochs=3", "space=darts"], 92.0)
    write(tmp_path / "c", ["epochs=4", "epochs=3"], 50.0)  # the last of a name counts
    write(tmp_path / "d", ["epochs=3", "epochs=4"], 60.0)
    rows = table(load_results([tmp_path])).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| epochs=3 space=darts",
        "| epochs=4 epochs=3",
        "| epochs=3 epochs=4",
    ]
    assert " 2 | 91.00 |" in rows[0]


def test_the_time_of_a_run_is_that_of_the_runs_with_the_metric() -> None:
    """A search and a retraining of the same overrides are two things that take different times."""
    search = Result(Path("a"), ("",), {"accuracy/genotype_validation": 80.0}, "", 1000.0)
    times = [row.split(" | ")[-1] for row in table([search, result("", 90.0)]).splitlines()[2:]]
    assert times == ["1000 |", "2 |"]


def test_a_line_has_what_other_runs_were_not_given(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / f"{seed}", ["space=darts", f"seed={seed}", f"run_dir={seed}"], 90.0)
    lines = genotypes(load_results([tmp_path])).splitlines()
    assert lines[1] == f"{tmp_path / '1'} (seed=1): {METRIC} 90.00: |skip_connect~0|"
    assert genotypes(load_results([tmp_path / "1"])).startswith(f"{tmp_path / '1'}: ")


def test_a_bar_in_an_override_does_not_end_a_cell() -> None:
    """Markdown takes an escaped one for a letter."""
    head, _, row = table([result("genotype=|none~0|", 90.0)]).splitlines()
    assert row.startswith(r"| genotype=\|none~0\| | ")
    assert row.replace(r"\|", "").count("|") == head.count("|")


def test_the_command_prints_the_table_and_each_genotype(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run", ["seed=4"], 77.25)
    assert main([str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "| 77.25 |" in output
    assert f"{tmp_path}/run: {METRIC} 77.25: |skip_connect~0|" in output


def test_the_table_as_csv_and_what_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in enumerate((70.0, 80.0)):
        write(tmp_path / "sweep" / str(seed), ["derive.judges=[a,b]", f"seed={seed}"], value)
    (tmp_path / "sweep" / "failures.txt").write_text("sweep/2: batch_size is 9999\n")
    assert main([str(tmp_path), "--csv", str(tmp_path / "table.csv")]) == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["settings"], row["runs"], row["mean"]) == ("derive.judges=[a,b]", "2", "75.00")
    assert row["deviation"] == f"{statistics.stdev((70, 80)):.2f}"
    assert "failed: sweep/2: batch_size is 9999" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"overrides": 3}', '{"metrics": {}}'])
def test_a_damaged_summary_is_one_line_with_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary\.json: not the summary of a run"):
        load_results([tmp_path])


def test_folders_without_runs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "none")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: no finished run")
    assert lines[1].startswith("error: no such folder")
