"""What a folder of a run weighs."""

from pathlib import Path

from benchmarks.footprint import sizes


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
