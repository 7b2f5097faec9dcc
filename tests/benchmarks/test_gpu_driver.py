"""The driver of what is measured on a GPU: order, time, failures, and what it collects."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu, profile_step, retraining
from benchmarks.gpu import ITEMS, Item
from nas.spaces import NASBench201

MARK = "pytest.mark" + ".gpu"
CODE = {
    "good": "print('all is well')",
    "bad": "import sys; sys.exit('error: no such thing')",
    "slow": "import time; print('begun', flush=True); time.sleep(60)",
}


@pytest.fixture
def items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gpu,
        "ITEMS",
        {
            "good": Item(("-c", CODE["good"]), 1),
            "bad": Item(("-c", CODE["bad"]), 1),
            "slow": Item(("-c", CODE["slow"]), 0.02),
            "needs": Item(("-c", CODE["good"], "{images}", "{table}"), 1, ("images", "table")),
        },
    )


@pytest.mark.usefixtures("items")
def test_an_item_that_fails_or_hangs_leaves_the_others_alone(tmp_path: Path) -> None:
    packed = tmp_path / "all.zip"
    output = ("--output", str(tmp_path / "out"), "--archive", str(packed))
    names = ("bad", "slow", "needs", "good")
    assert gpu.main(["--item", *names, "--least-s", "0", *output]) == 1
    found = json.loads((tmp_path / "out" / "items.json").read_text())
    assert {name: item["outcome"] for name, item in found.items()} == {
        "bad": "failed with 1",
        "slow": "stopped after 1 s",
        "needs": "left out, needs --images and --table",
        "good": "done",
    }
    with zipfile.ZipFile(packed) as archive:
        assert set(archive.namelist()) == {"bad.log", "good.log", "items.json", "slow.log"}
        assert b"no such thing" in archive.read("bad.log")
        assert b"begun" in archive.read("slow.log")


@pytest.mark.usefixtures("items")
def test_nothing_starts_when_the_time_is_up(tmp_path: Path) -> None:
    given = ("--item", "good", "--minutes", "0.1", "--output", str(tmp_path))
    assert gpu.main(given) == 1
    found = json.loads((tmp_path / "items.json").read_text())
    assert found["good"]["outcome"] == "left out, no time"
    assert gpu.main([*given, "--least-s", "1"]) == 0
    assert json.loads((tmp_path / "items.json").read_text())["good"]["outcome"] == "done"


@pytest.mark.usefixtures("items")
def test_paths_are_filled_in(tmp_path: Path) -> None:
    given = ("--images", str(tmp_path / "cifar"), "--table", str(tmp_path / "t.csv"))
    options = gpu._options(["--item", "good", "--output", str(tmp_path / "o"), *given])
    command = gpu.filled(("a", "{images}", "--table", "{table}", "{output}/b.json"), options)
    images = ["data=image_folder", f"data.path={tmp_path / 'cifar'}"]
    table = ["--table", str(tmp_path / "t.csv")]
    assert command == ["a", *images, *table, f"{tmp_path / 'o'}/b.json"]


@pytest.mark.parametrize("name", [n for n, i in ITEMS.items() if "pytest" not in i.command])
def test_every_item_is_a_command_that_its_module_takes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--images", str(tmp_path), "--table", str(tmp_path), "--output", str(tmp_path))
    command = gpu.filled(ITEMS[name].command, gpu._options(["--item", name, *given]))
    module = __import__(command[1], fromlist=["main"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [command[1], *command[2:], "--no-such-option"])
        with pytest.raises(SystemExit):
            module.main()
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


def test_all_tests_that_need_a_gpu_are_run() -> None:
    marked = [path for path in (gpu.ROOT / "tests").rglob("test_*.py") if MARK in path.read_text()]
    found = {path.parent if path.parent.name == "gpu" else path for path in marked}
    assert {str(path.relative_to(gpu.ROOT)) for path in found} == set(gpu.TESTS)


@pytest.mark.parametrize("variant", ["channels last", "bf16"])
def test_a_retraining_is_measured(variant: str, tmp_path: Path) -> None:
    small = ("network.channels=4", "network.cells=3", "auxiliary_weight=0", "batch_size=16")
    data = ("data=digits", "data.limit=64", "data.cutout=0", "threads=1")
    output = tmp_path / "r.json"
    sizes = ("--warm-up", "1", "--blocks", "2", "--block", "1", "--device", "cpu")
    given = ("--variant", variant, "--override", *small, *data)
    retraining.main([*sizes, *given, "--output", str(output)])
    (row,) = json.loads(output.read_text())["rows"]
    assert row["images/s"] == pytest.approx(1000 * 16 / row["step ms"])
    assert row["to first"] == 1 and row["loss"] > 0 and row["warm-up s"] > 0


def test_every_row_of_retraining_adds_to_the_one_before() -> None:
    rows = [set(settings) for settings in retraining.VARIANTS.values()]
    assert rows[1] < rows[0] and rows[2] < rows[1] and rows[4] < rows[5]


def test_a_step_is_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = NASBench201(in_channels=3, num_classes=10, channels=4, cells_per_stage=1)
    monkeypatch.setattr(profile_step, "SPACES", {"nasbench201": small})
    output = tmp_path / "p.json"
    given = ("--device", "cpu", "--batch-size", "2", "--rounds", "2", "--top", "3")
    profile_step.main([*given, "--trace", str(tmp_path), "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    assert [row["step"] for row in rows] == ["weight step", "logits step"]
    for row in rows:
        assert len(row["kernels"]) == 3 and row["launches"] > 20
        times = [kernel["ms"] for kernel in row["kernels"]]
        assert times == sorted(times, reverse=True) and row["device ms"] >= sum(times)
    assert len(list(tmp_path.glob("*.json.gz"))) == 2


def test_names_of_kernels_are_shortened() -> None:
    name = "void at::native::vectorized_elementwise_kernel<4, at::Add<float>, Arr<char*, 3>>(int)"
    assert profile_step.shortened(name) == "at::native::vectorized_elementwise_kernel"
    assert profile_step.shortened("aten::add") == "aten::add"
    assert profile_step.shortened("(anonymous)") == "(anonymous)"


def test_the_items_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} (at most" in listed for name in ITEMS)
