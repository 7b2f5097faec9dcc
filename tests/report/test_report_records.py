"""Reading the folders of runs: what counts as one, and one line on what is damaged."""

import json
import math
from pathlib import Path

import pytest
from report_helpers import write_search

from nas.errors import UserError
from nas.report.records import RunRecord, find_runs, read_metrics


def test_a_search_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = RunRecord.load(write_search(tmp_path / "run"))
    assert (run.kind, run.is_finished, run.epochs_done, run.seconds) == ("search", True, 3, 75.0)
    assert run.curve("loss/train") == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert run.choices() == {"cell/0->1": ["none", "nor_conv_3x3"]}
    assert run.results == {"accuracy/genotype_validation": 91.25}


def test_what_was_not_finite_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 0, "loss/train": null}\n{"step": 2, "epoch": 1}\n{"st')
    metrics = read_metrics(path)
    assert [line["epoch"] for line in metrics] == [0, 1]
    assert math.isnan(metrics[0]["loss/train"])


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "epoch": 0}\n[]\n{"step": 2, "epoch": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a line of metrics"):
        read_metrics(path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", "", "no metrics yet"),
        ("summary.json", "{", r"summary\.json: not the summary of a run"),
        ("summary.json", "[]", r"summary\.json: not the summary of a run"),
        ("genotype.json", "{}", r"genotype\.json: not a genotype file"),
        ("model.json", "[1]", r"model\.json: must be an object"),
        (".hydra/config.yaml", "a: [", r"config\.yaml: not valid YAML"),
        (".hydra/config.yaml", "a: !!python/name:os.system", r"config\.yaml: not valid YAML"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, file: str, content: str, message: str) -> None:
    run = write_search(tmp_path / "run")
    (run / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        RunRecord.load(run)
    assert "\n" not in str(caught.value)


def test_a_summary_of_another_program_is_refused(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text()) | {"kind": "profile"}
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="neither a search nor a retraining"):
        RunRecord.load(run)


def test_a_summary_whose_counts_are_no_numbers_is_refused(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text()) | {"num_parameters": None}
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"summary\.json: 'num_parameters' is no number"):
        RunRecord.load(run)


def test_runs_are_found_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        write_search(tmp_path / "sweep" / name)
    assert [p.name for p in find_runs([tmp_path / "sweep"])] == ["1", "2", "10"]
    assert find_runs([tmp_path / "sweep" / "2", tmp_path / "sweep" / "2"]) == [
        tmp_path / "sweep" / "2"
    ]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, message in {
        "none": "no such folder",
        "file": "is a file",
        "empty": "not a run folder",
    }.items():
        with pytest.raises(UserError, match=message):
            find_runs([tmp_path / name])
