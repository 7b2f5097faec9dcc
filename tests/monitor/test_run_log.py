"""The log of a run: what is written can be read back, and a resume shows every step once."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from event_helpers import Events
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from nas.errors import UserError
from nas.monitor.event_file import event_files, read_events
from nas.monitor.run_log import RunLog


def read_lines(run_dir: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (run_dir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def log_steps(log: RunLog, steps: range, value: float) -> None:
    for step in steps:
        log.scalars(step, {"loss/train": value}, epoch=step // 2)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the second writer start in a later second: TensorBoard orders files by their name."""
    real = time.time
    offsets = iter(range(0, 10_000_000, 10))
    monkeypatch.setattr(
        "tensorboard.summary.writer.event_file_writer.time.time", lambda: real() + next(offsets)
    )


def test_scalars_are_in_both_files(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.scalars(10, {"loss/train": 1.5, "accuracy/train": 25.0}, epoch=0)
        log.scalars(20, {"loss/train": 0.5})
    assert read_lines(tmp_path) == [
        {"step": 10, "epoch": 0, "loss/train": 1.5, "accuracy/train": 25.0},
        {"step": 20, "loss/train": 0.5},
    ]
    events = Events(tmp_path)
    assert [(e.step, e.value) for e in events.scalars("loss/train")] == [(10, 1.5), (20, 0.5)]


def test_metrics_file_is_strict_json_when_the_loss_diverges(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.scalars(1, {"loss/train": math.nan, "loss/validation": math.inf})
    assert read_lines(tmp_path) == [{"step": 1, "loss/train": None, "loss/validation": None}]
    assert math.isnan(Events(tmp_path).scalars("loss/train")[0].value)


def test_unknown_metric_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        with pytest.raises(ValueError, match="loss/trian"):
            log.scalars(1, {"loss/train": 1.0, "loss/trian": 1.0})
    assert read_lines(tmp_path) == []


def test_metrics_are_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(3), 1.0)
        log.flush()
        assert len(read_lines(tmp_path)) == 3
        assert len(Events(tmp_path).scalars("loss/train")) == 3


@pytest.mark.usefixtures("later")
def test_resume_shows_every_step_once(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.hparams({"seed": 1}, [], [])
        log_steps(log, range(1, 8), 1.0)
    with RunLog(tmp_path, resume_step=4) as log:
        log_steps(log, range(5, 10), 2.0)
    expected = [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 10)]
    assert [(line["step"], line["loss/train"]) for line in read_lines(tmp_path)] == expected
    events = Events(tmp_path)
    assert [(e.step, e.value) for e in events.scalars("loss/train")] == expected
    assert "_hparams_/session_start_info" not in events.all_tags


@pytest.mark.usefixtures("later")
def test_new_run_in_the_same_folder_hides_the_old_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with RunLog(tmp_path) as log:
            log_steps(log, range(2), value)
    assert [line["loss/train"] for line in read_lines(tmp_path)] == [2.0, 2.0]
    assert [e.value for e in Events(tmp_path).scalars("loss/train")] == [2.0, 2.0]


def test_resume_drops_a_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(1, 3), 1.0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "loss/tr')
    with RunLog(tmp_path, resume_step=2) as log:
        log_steps(log, range(3, 4), 1.0)
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]


def test_resume_refuses_a_damaged_metrics_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        RunLog(tmp_path, resume_step=3)


def test_resume_without_a_metrics_file_starts_one(tmp_path: Path) -> None:
    with RunLog(tmp_path, resume_step=3) as log:
        log_steps(log, range(4, 5), 1.0)
    assert len(read_lines(tmp_path)) == 1


def test_full_disk_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left"):
        with RunLog(tmp_path) as log:
            log_steps(log, range(1), 1.0)


def test_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        RunLog(tmp_path / "run")


def test_figure_is_a_picture_of_its_size(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.text(0.5, 0.5, "text")
    with RunLog(tmp_path) as log:
        log.figure("genotype/cell", figure, 3)
    (image,) = Events(tmp_path).pictures("genotype/cell")
    assert (image.step, image.width, image.height) == (3, 100, 50)
    assert image.size == (100, 50)


def test_text_can_be_read_back(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log.text("genotype", "|none~0|", 3)
    events = Events(tmp_path)
    assert events.strings("genotype") == [(3, b"|none~0|")]
    metadata = events.metadata("genotype")
    assert metadata.plugin_data.plugin_name == "text"
    assert metadata.display_name == "the genotype, where it changed"


def test_cards_have_a_title_and_a_description(tmp_path: Path) -> None:
    figure = Figure(figsize=(1, 1))
    with RunLog(tmp_path) as log:
        log_steps(log, range(3), 1.0)
        log.scalars(3, {"probability/normal/0->2/none": 0.5})
        log.figure("genotype/normal", figure, 3)
    events = Events(tmp_path)
    told = {tag: events.metadata(tag) for tag in ("loss/train", "genotype/normal")}
    assert told["loss/train"].display_name == "training loss, nats"
    assert "Cross-entropy per image" in told["loss/train"].summary_description
    assert told["genotype/normal"].display_name == "normal: what the logits give now"
    assert told["genotype/normal"].summary_description
    title = events.metadata("probability/normal/0->2/none").display_name
    assert title == "probability of none on normal/0->2"


def test_description_is_written_once_a_metric(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(9), 1.0)
    (path,) = event_files(tmp_path / "tensorboard")
    assert path.read_bytes().count(b"Cross-entropy per image") == 1


def test_picture_without_a_title_is_refused(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log, pytest.raises(KeyError):
        log.figure("something/else", Figure(figsize=(1, 1)), 0)


def hparams_of(run_dir: Path, tag: str) -> list[HParamsPluginData]:
    """All messages of the HPARAMS tab with a tag, in the order of the files."""
    return [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for path in event_files(run_dir / "tensorboard")
        for event in read_events(path)
        for value in event.summary.value
        if value.tag == f"_hparams_/{tag}"
    ]


def test_hparams_stay_in_the_one_run(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(1), 1.0)
        settings = {"space.name": "darts", "seed": 3, "rate": 0.1, "fast": True}
        log.hparams(settings, ["rate"], ["loss/train"])
    assert [path.is_file() for path in (tmp_path / "tensorboard").iterdir()] == [True]
    (data,) = hparams_of(tmp_path, "experiment")
    infos = {info.name: info.differs for info in data.experiment.hparam_infos}
    assert infos == {"space.name": False, "seed": False, "rate": True, "fast": False}
    (column,) = data.experiment.metric_infos
    assert (column.name.tag, column.display_name) == ("loss/train", "training loss, nats")
    (data,) = hparams_of(tmp_path, "session_start_info")
    values = data.session_start_info.hparams
    assert values["rate"].number_value == 0.1
    # A number would be shown as 3.0000, a Python bool as 1.0000.
    assert [values[name].string_value for name in ("seed", "fast")] == ["3", "true"]
    assert len(hparams_of(tmp_path, "session_end_info")) == 1


@pytest.mark.usefixtures("later")
def test_resumed_run_is_one_session(tmp_path: Path) -> None:
    for resume_step in (None, 1, 2):
        with RunLog(tmp_path, resume_step=resume_step) as log:
            step = (resume_step or 0) + 1
            log_steps(log, range(step, step + 1), 1.0)
            log.hparams({"seed": step}, [], ["loss/train"])
    for tag in ("experiment", "session_start_info", "session_end_info"):
        assert len(hparams_of(tmp_path, tag)) == 1
    assert (
        hparams_of(tmp_path, "session_start_info")[0]
        .session_start_info.hparams["seed"]
        .string_value
        == "3"
    )
    assert [e.step for e in Events(tmp_path).scalars("loss/train")] == [1, 2, 3]


def test_hparams_of_a_failed_run_have_no_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        with RunLog(tmp_path) as log:
            log.hparams({"seed": 3}, [], [])
            raise RuntimeError
    assert "_hparams_/session_end_info" not in Events(tmp_path).all_tags


@pytest.mark.usefixtures("later")
def test_results_are_events_alone_and_a_resume_writes_them_anew(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(1, 3), 1.0)
    for value in (90.0, 91.0):
        with RunLog(tmp_path, resume_step=2) as log:
            log.results(3, {"result/validation_accuracy": value})
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2]
    events = Events(tmp_path)
    (event,) = events.scalars("result/validation_accuracy")
    assert (event.step, event.value) == (3, 91.0)
    assert len(events.scalars("loss/train")) == 2


def test_resumed_run_knows_what_was_logged_before(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log_steps(log, range(1, 4), 1.0)
    before = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    with RunLog(tmp_path, resume_step=2) as log:
        assert [line["step"] for line in log.past] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(before[:2])


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log_steps(log, range(1), 1.0)
    log.close()
    before = (tmp_path / "metrics.jsonl").read_text()
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == before != ""
