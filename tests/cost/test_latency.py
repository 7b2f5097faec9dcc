"""Latency tables: the prediction, the calibration, and what a damaged file is answered with."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.cost.coverage import Draw
from nas.cost.latency import Calibration, Conditions, Errors, LatencyTable, operation_keys
from nas.cost.tracing import trace
from nas.errors import UserError
from nas.spaces import DARTS, MobileNet, NASBench201, SearchSpace, ViT

Content = dict[str, Any]

CONDITIONS = Conditions(
    space="custom",
    device="a clock",
    torch="2",
    precision="float32",
    threads=1,
    channels_last=True,
    batch_size=2,
    in_channels=3,
    image_size=4,
)
CONV = "Conv2d(3, 3, kernel_size=(1, 1), stride=(1, 1)) on 2x3x4x4"
ADD = "add on 2x3x4x4, 2x3x4x4"
RELU = "ReLU() on 2x3x4x4"
TABLE = LatencyTable(
    CONDITIONS,
    {CONV: 0.5, ADD: 0.25, RELU: 0.125},
    Calibration(slope=2.0, per_operation_ms=0.01),
    Errors(num_networks=3, median_percent=1.5, mean_percent=2.0, max_percent=4.0, spearman=0.5),
)


class Net(nn.Module):
    """`x + conv(relu(conv(x)))`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.b(self.relu(self.a(x)))
        return out


def test_a_prediction_is_the_calibrated_sum_of_what_is_run() -> None:
    network = Net()
    assert operation_keys(network, CONDITIONS) == [CONV, RELU, CONV, ADD]
    assert TABLE.predict(network) == pytest.approx(2.0 * (2 * 0.5 + 0.125 + 0.25) + 4 * 0.01)
    plain = replace(TABLE, calibration=Calibration())
    assert plain.predict(network) == pytest.approx(2 * 0.5 + 0.125 + 0.25)


@pytest.mark.parametrize("kind", [NASBench201, DARTS, MobileNet, ViT])
def test_the_keys_are_those_of_what_is_really_run(kind: type[SearchSpace]) -> None:
    space = kind(in_channels=3, num_classes=5)  # type: ignore[call-arg]
    conditions = replace(CONDITIONS, image_size=32)
    network = space.build_network(Draw(space, 0)()).eval()
    run = [operation.key for operation in trace(network, torch.rand(2, 3, 32, 32))]
    assert operation_keys(network, conditions) == run


def test_predicting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(Net(), nn.BatchNorm2d(3)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    operation_keys(network, CONDITIONS)
    assert network.training and all(m.training for m in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_an_operation_that_was_not_measured_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    TABLE.save(path)
    table = LatencyTable.load(path)
    with pytest.raises(UserError) as caught:
        table.predict(nn.Sequential(Net(), nn.Conv2d(3, 5, 1)))
    assert str(caught.value) == (
        "operation 'Conv2d(3, 5, kernel_size=(1, 1), stride=(1, 1)) on 2x3x4x4' is not in "
        f"{path}: run nas-profile with the same space, image size and batch size"
    )


def test_a_network_of_other_images() -> None:
    with pytest.raises(UserError, match=r"^the network cannot run on images of 3 channels and 4x4"):
        TABLE.predict(nn.Conv2d(1, 3, 1))


@pytest.mark.parametrize(("slope", "per_operation"), [(1.3, 0.002), (0.8, 0.0), (0.0, 0.5)])
def test_a_calibration_finds_what_networks_were_made_with(
    slope: float, per_operation: float
) -> None:
    sums, counts = [1.0, 2.5, 0.7, 4.0], [10, 12, 30, 15]
    made = [slope * s + per_operation * c for s, c in zip(sums, counts, strict=True)]
    found = Calibration.fit(sums, counts, made)
    assert found.slope == pytest.approx(slope, abs=1e-9)
    assert found.per_operation_ms == pytest.approx(per_operation, abs=1e-9)


def test_a_calibration_minimises_relative_errors() -> None:
    """One large network counts as much as a small one: the best factor of 1 and 1.5 is 1.2."""
    # sum((f / r - 1)^2) has its minimum at f = sum(1 / r) / sum(1 / r^2).
    found = Calibration.fit([1.0, 1000.0], [0, 0], [1.0, 1500.0])
    assert found.slope == pytest.approx((1 + 1 / 1.5) / (1 + 1 / 1.5**2))


def test_a_calibration_is_never_negative() -> None:
    found = Calibration.fit([1.0, 2.0, 3.0], [3, 2, 1], [1.0, 3.0, 5.0])
    assert found.slope >= 0 and found.per_operation_ms == 0


@pytest.mark.parametrize("errors", [TABLE.errors, None])
def test_a_file_round_trips(tmp_path: Path, errors: Errors | None) -> None:
    path = tmp_path / "folder" / "latency.json"
    table = replace(TABLE, errors=errors)
    table.save(path)
    assert LatencyTable.load(path) == replace(table, source=str(path))


def test_a_rank_correlation_may_be_missing(tmp_path: Path) -> None:
    assert TABLE.errors is not None
    table = replace(TABLE, errors=replace(TABLE.errors, spearman=None))
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json").errors == table.errors


def changed(change: Callable[[Content], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        content: Content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "[" * 100_000, "not valid JSON"),
        (lambda text: "[1, 2]", "not a latency table"),
        (lambda text: '{"format_version": 1, "space": "darts"}', "not a latency table"),
        (changed(lambda c: c.update(format_version=2)), "format version 2 is not supported"),
        (changed(lambda c: c.update(format_version="1")), "format version '1' is not supported"),
        (changed(lambda c: c.pop("conditions")), "lacks the field 'conditions'"),
        (changed(lambda c: c["conditions"].pop("batch_size")), "lacks the field 'batch_size'"),
        (changed(lambda c: c["conditions"].update(batch_size="2")), "batch_size is '2'"),
        (changed(lambda c: c["conditions"].update(threads=True)), "threads is True"),
        (changed(lambda c: c.update(operations_ms=[1.0])), "a field has the wrong type"),
        (changed(lambda c: c["operations_ms"].update({ADD: "fast"})), "got 'fast'"),
        (changed(lambda c: c["operations_ms"].update({ADD: -1.0})), "got -1.0"),
        (changed(lambda c: c["operations_ms"].update({ADD: float("nan")})), "got nan"),
        (changed(lambda c: c["operations_ms"].update({ADD: float("inf")})), "got inf"),
        (changed(lambda c: c["calibration"].update(slope=None)), "got None"),
        (changed(lambda c: c.update(errors=3)), "a field has the wrong type"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, edit: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "latency.json"
    TABLE.save(path)
    path.write_text(edit(path.read_text()))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        LatencyTable.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the latency table .*No such file"):
        LatencyTable.load(tmp_path / "none.json")


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this code ran",))


@pytest.mark.parametrize("write", [pickle.dumps, None], ids=["pickle", "torch"])
def test_nothing_in_a_file_is_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Callable[[object], bytes] | None
) -> None:
    path = tmp_path / "latency.json"
    if write is None:
        torch.save({"operations_ms": Bomb()}, path)
    else:
        path.write_bytes(write(Bomb()))
    with pytest.raises(UserError):
        LatencyTable.load(path)
    assert "ran" not in capsys.readouterr().out
