"""What a folder of a run weighs, and what it takes to begin."""

from pathlib import Path

from conftest import TINY_SEARCH
from template_process import run_python

from benchmarks.footprint import FIRST_STEP, sizes
from nas.training.checkpoint import last_checkpoint


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    for name, num_bytes in {
        "checkpoints/last.pt": 70,
        "checkpoints/previous.pt": 60,
        "tensorboard/events.1": 50,
        "metrics.jsonl": 40,
        "search.log": 3,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(num_bytes))
    found = {"files": 5, "all": 223, "checkpoint": 70, "events": 50, "log": 3, "metrics": 40}
    assert sizes(tmp_path) == found


def test_a_search_that_is_measured_ends_as_its_first_step_begins(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_python("-c", FIRST_STEP, *TINY_SEARCH, "checkpoint_every_steps=1", f"run_dir={run}")
    assert (run / ".hydra" / "config.yaml").exists(), "it has begun"
    assert not last_checkpoint(run).exists(), "no step is done"
