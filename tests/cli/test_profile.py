"""`profile_space.py` as a user runs it: the table, a model of one's own, bad input."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, start_program
from torch import Tensor, nn

from nas.choice import Repeat
from nas.cost.latency import LatencyTable
from nas.elastic import ConvNorm2d, Linear
from nas.genotype.published import PUBLISHED
from nas.network import build_network
from nas.values import ValueChoice

Run = Callable[..., tuple[int, str]]

TINY = (
    "space.channels=4",
    "space.cells_per_stage=1",
    "repetitions=2",
    "num_calibration=3",
    "num_checked=3",
)


class OpenSizes(nn.Module):
    """A model of a user's, found as `test_profile.OpenSizes`."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        width = ValueChoice([2, 4], "width")
        self.stem = ConvNorm2d(in_channels, width, ValueChoice([1, 3], "kernel"))
        self.body = Repeat([ConvNorm2d(width, width, 3) for _ in range(2)], [0, 1, 2], "depth")
        self.head = Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.stem(x).relu()).mean((2, 3)))
        return out


def test_a_profile_leaves_a_table_that_predicts(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, output = run_program("profile_space", *TINY, f"run_dir={run}")
    assert code == 0, output
    assert "network/s" in output or "s/network" in output
    assert " in 0:0" in output and "measurement" in output and "median" in output
    table = LatencyTable.load(run / "latency.json")
    assert str(run / "latency.json") in output and f"{len(table.operations_ms)}" in output
    # The digits have 8x8 pixels of one channel.
    assert (table.conditions.in_channels, table.conditions.image_size) == (1, 8)
    assert table.conditions.batch_size == 1 and table.conditions.space == "nasbench201"
    sizes = {"channels": 4, "cells_per_stage": 1}
    network = build_network(PUBLISHED["nasbench201_best"], sizes, in_channels=1, num_classes=10)
    assert 0 < table.predict(network) < 1000
    deeper = build_network(
        PUBLISHED["nasbench201_best"],
        {"channels": 4, "cells_per_stage": 3},
        in_channels=1,
        num_classes=10,
    )
    assert table.predict(deeper) > table.predict(network), "no new measurement is needed"


@pytest.fixture
def _less_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer random networks are looked through for further operations."""
    monkeypatch.setattr("nas.cost.coverage.PATIENCE", 5)


@pytest.mark.usefixtures("_less_patient")
def test_data_is_not_opened_where_images_are_described(run_program: Run, tmp_path: Path) -> None:
    table = tmp_path / "tables" / "mine.json"
    images = ("in_channels=3", "image_size=12", "num_classes=7", "data=cifar10")
    nowhere = ("data.path=/no/such", "data.download=false", "batch_size=2", "channels_last=false")
    where = (f"run_dir={tmp_path}/run", f"output={table}", "precision=bf16")
    code, output = run_program("profile_space", *TINY, *images, *nowhere, *where)
    assert code == 0, output
    found = LatencyTable.load(table)
    assert (found.conditions.image_size, found.conditions.batch_size) == (12, 2)
    assert (found.conditions.precision, found.conditions.channels_last) == ("bf16", False)
    assert any("out_features=7" in key for key in found.operations_ms)
    assert all("2x3x12x12" in key for key in found.operations_ms if "Conv2d(3," in key)


@pytest.mark.usefixtures("_less_patient")
def test_darts(run_program: Run, tmp_path: Path) -> None:
    sizes = ("space=darts", "space.channels=4", "space.cells=3", "space.nodes=2")
    short = ("repetitions=1", "num_calibration=2", "num_checked=2", f"run_dir={tmp_path}/run")
    code, output = run_program("profile_space", *sizes, *short)
    assert code == 0, output


@pytest.mark.usefixtures("_less_patient")
def test_a_model_of_ones_own(run_program: Run, tmp_path: Path) -> None:
    space = ("space=custom", "space.model=test_profile.OpenSizes", "repetitions=2")
    code, output = run_program("profile_space", *space, f"run_dir={tmp_path}/run")
    assert code == 0, output
    keys = LatencyTable.load(tmp_path / "run" / "latency.json").operations_ms
    for width in (2, 4):
        for kernel in (1, 3):
            assert any(f"Conv2d(1, {width}, kernel_size=({kernel}, {kernel})" in k for k in keys)
        assert any(f"Linear(in_features={width}, out_features=10" in key for key in keys)


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_measured(
    run_program: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "latency.json", tmp_path):
        code, printed = run_program(
            "profile_space",
            *TINY,
            "repetitions=100000",
            f"output={output}",
            f"run_dir={tmp_path}/r",
        )
        assert code == 1
        assert printed.startswith(f"error: cannot write {output}: ")
        assert len(printed.strip().splitlines()) == 1
        assert not (tmp_path / "r").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("batch_size=0",), r"batch_size is 0: must be at least 1"),
        (("repetitions=0",), r"repetitions is 0: must be at least 1"),
        (("num_calibration=1",), r"num_calibration is 1: must be at least 2"),
        (("num_checked=0",), r"num_checked is 0: must be at least 1"),
        (("image_size=0",), r"image_size is 0: must be at least 1"),
        (("threads=0",), r"threads is 0: must be at least 1"),
        (("precision=fp8",), r"unknown precision 'fp8' \(precision\)"),
        (("device=cuda:7",), r"device is 'cuda:7', but"),
        (("repetitons=3",), r"did you mean 'repetitions'\?"),
        (("space=nasbench",), r"did you mean 'nasbench201'\?"),
        (("space.operations=[none,nor_conv_3x4]",), r"did you mean 'nor_conv_3x3'\?"),
        (("data=cifar10", "data.path=/no/such", "data.download=false"), r"data.path: cifar10"),
        (("+foo=1",), r"settings cannot be added: \+foo=1"),
        (("resume=true",), r"unknown setting 'resume'"),
        (("space.operations=[none]",), r"space=nasbench201 has one network"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_answered_in_one_line(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run = tmp_path / "run"
    code, output = run_program("profile_space", *overrides, f"run_dir={run}")
    assert code == 1
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ") and re.search(message, lines[0]), lines[0]


def test_a_profile_that_is_stopped_writes_no_table(tmp_path: Path) -> None:
    table = tmp_path / "latency.json"
    table.write_text("as it was")
    where = (f"output={table}", f"run_dir={tmp_path}/run", "repetitions=1000000")
    process = start_program("profile_space", *TINY[:2], *where)
    deadline = time.monotonic() + 240
    # The first phase ends with a line of its own.
    while "100%" not in process.output():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130 and "stopped by SIGINT" in output
    assert "Traceback" not in output
    assert table.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latency.json", "run"]


def test_the_entry_point_is_installed_with_the_others() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'nas-profile = "profile_space:main"' in text and '"profile_space"]' in text
