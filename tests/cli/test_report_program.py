"""`python -m nas.report` on what the programs leave behind."""

import csv
from collections.abc import Callable
from pathlib import Path

from conftest import TINY_RETRAIN, TINY_SEARCH

from nas.report.__main__ import main

Run = Callable[..., tuple[int, str]]


def test_a_search_and_its_retraining_are_reported(run_program: Run, tmp_path: Path) -> None:
    search, retrain = tmp_path / "search", tmp_path / "retrain"
    budget = ("budget=parameters", "budget.fraction=0.9", "budget.front_limits=2")
    code, output = run_program("search", *TINY_SEARCH, *budget, f"run_dir={search}")
    assert code == 0, output
    genotype = f"genotype={search}/genotype.json"
    code, output = run_program("retrain", *TINY_RETRAIN, genotype, f"run_dir={retrain}")
    assert code == 0, output

    assert main([str(search)]) == main([str(retrain)]) == main([str(tmp_path)]) == 0
    page = (search / "report.html").read_text()
    for text in ("expected", "Accuracy and cost", "front", "default 50", "torch", "threads"):
        assert text in page
    with (search / "front.csv").open() as file:
        num_points = len(list(csv.DictReader(file)))
    assert f"of {num_points} that were judged" in page
    assert "Marked: differs from the default" in page
    page = (retrain / "report.html").read_text()
    assert "test accuracy, top-1" in page and "multiply-adds" in page
    page = (tmp_path / "report.html").read_text()
    assert "Searches" in page and "Retrainings" in page
