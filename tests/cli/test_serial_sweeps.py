"""Sweeps in one process: how they end, what fails, what goes on."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_SEARCH
from template_process import Python

from nas.optimisation.bilevel import Batch
from nas.training.search import Search

Run = Callable[..., tuple[int, str]]


def test_a_sweep_over_seeds_gives_a_table(run_program: Run, tmp_path: Path) -> None:
    from nas.sweep import load_results, table

    sweep = tmp_path / "sweep"
    code, output = run_program(
        "search", "-m", *TINY_SEARCH, "epochs=1", "seed=0,1,2", f"hydra.sweep.dir={sweep}"
    )
    assert code == 0, output
    results = load_results([sweep])
    assert len(results) == 3
    rows = table(results).splitlines()[2:]
    assert len(rows) == 1
    values = [result.metrics["accuracy/genotype_validation"] for result in results]
    assert f"| 3 | {sum(values) / 3:.2f} |" in rows[0]
    end = output[output.index("sweep done") :]
    assert re.search(r"^runs +3 done$", end, re.MULTILINE)
    (command,) = re.findall(r"^next +python -m nas\.sweep (.+)$", end, re.MULTILINE)
    assert command == str(sweep)


def test_a_sweep_that_leaves_nothing_to_compare_names_no_command(
    run_program: Run, tmp_path: Path
) -> None:
    code, output = run_program(
        "search", "-m", *TINY_SEARCH, "batch_size=9999", f"hydra.sweep.dir={tmp_path}/sweep"
    )
    assert code == 1 and "nas.sweep" not in output, output


def test_a_sweep_that_was_cut_off_goes_on_with_what_is_missing(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep"
    command = (*TINY_SEARCH, "seed=0,1,2", f"hydra.sweep.dir={sweep}")
    started: list[int] = []
    train_step = Search._train_step

    def cut(search: Search, batch: Batch) -> int:
        if search.step in (0, 6):
            started.append(search.step)
            if len(started) == 4:  # in the middle of the second run
                signal.raise_signal(signal.SIGTERM)
        return train_step(search, batch)

    monkeypatch.setattr(Search, "_train_step", cut)
    code, output = run_program("search", "-m", *command)
    assert code == 128 + signal.SIGTERM, output
    assert (sweep / "0" / "summary.json").exists() and not (sweep / "1" / "summary.json").exists()
    first = (sweep / "0" / "metrics.jsonl").stat().st_mtime_ns
    code, output = run_program("search", "-m", *command)
    assert code == 0, output
    assert output.count("finished before: ") == 1
    assert started == [0, 6, 0, 6, 0, 6], "the second went on where it was stopped"
    assert (sweep / "0" / "metrics.jsonl").stat().st_mtime_ns == first
    assert len(list(sweep.glob("*/summary.json"))) == 3


def test_a_run_that_fails_leaves_the_others_of_its_sweep_alone(
    run_program: Run, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    runs = "batch_size=32,9999,16,8888"
    batches = "hydra.sweeper.max_batch_size=3"  # in one of them, and in the next
    code, output = run_program(
        "search", "-m", *TINY_SEARCH, "epochs=1", runs, batches, f"hydra.sweep.dir={sweep}"
    )
    assert code == 1 and "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "error" in line.lower()]
    assert line == output.strip().splitlines()[-1]
    assert line.startswith(f"error: {sweep}/1 (batch_size=9999): batch_size is 9999")
    assert line.endswith(f"; 1 more failed: {sweep}/failures.txt")
    assert re.search(r"^runs +2 done, 2 failed$", output, re.MULTILINE)
    assert f"python -m nas.sweep {sweep}" in output
    assert sorted(path.parent.name for path in sweep.glob("*/summary.json")) == ["0", "2"]
    assert not (sweep / "1").exists() and not (sweep / "3").exists()


def test_an_unexpected_error_is_one_line_in_a_sweep_and_out_of_one(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(search: Search, batch: Batch) -> int:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Search, "_train_step", fail)
    for alone in (True, False):
        folder = f"run_dir={tmp_path}/run" if alone else f"hydra.sweep.dir={tmp_path}/sweep"
        more = (folder,) if alone else ("-m", "seed=4,5", folder)
        code, output = run_program("search", *TINY_SEARCH, *more)
        (line,) = [line for line in output.splitlines() if "error" in line.lower()]
        assert code == 1 and line == output.strip().splitlines()[-1], output
        assert line.startswith("error: ") and "planted" in line and "seed=5" not in line
        assert alone or f"{tmp_path}/sweep/0 (seed=4): unexpected ZeroDivisionError" in line


def test_a_traceback_that_is_asked_for_names_the_run_of_the_sweep(tmp_path: Path) -> None:
    settings = (*TINY_SEARCH, "batch_size=9999,8888", f"hydra.sweep.dir={tmp_path}/sweep")
    env = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    process = Python("search.py", "-m", *settings, env=env)
    output, _ = process.communicate()
    assert process.returncode == 1 and "Traceback" in output, output
    last = output.strip().splitlines()[-1]
    assert last.startswith("overrides: ") and "batch_size=9999" in last
