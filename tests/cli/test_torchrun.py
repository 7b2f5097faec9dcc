"""Runs on several processes, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY_RETRAIN, TINY_SEARCH, slow
from data.data_folders import make_folder
from template_process import run_python

from nas.training.checkpoint import last_checkpoint

pytestmark = pytest.mark.faults

SEARCH = (*TINY_SEARCH, "device=cpu", "space.track_running_stats=true")
# Adam would make a step of any size out of gradients that are 0 but for rounding.
COMPARED = (*SEARCH, "kernels=plain", "logits.name=sgd", "logits.learning_rate=0.1")
LONG = (*SEARCH, "epochs=12", "checkpoint_every_steps=2", "evaluate_every_epochs=4")


def start(size: int, program: str, *overrides: str, restarts: int = 0) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(size), "--max-restarts", str(restarts)]
    return subprocess.Popen(
        [*torchrun, f"{program}.py", *overrides],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
        | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(size: int, program: str, *overrides: str) -> tuple[int, str]:
    process = start(size, program, *overrides)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def errors(output: str) -> list[str]:
    """The lines that are the program's own."""
    return [line for line in output.splitlines() if line.startswith("error: ")]


def state(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(last_checkpoint(folder), weights_only=True)
    return content


def assert_close(one: Path, other: Path) -> None:
    """The same but for rounding."""
    first, second = state(one), state(other)
    assert first["step"] == second["step"]
    for name, value in first["model"].items():
        torch.testing.assert_close(second["model"][name], value, rtol=1e-3, atol=1e-5, msg=name)
    if "logits" in first:
        torch.testing.assert_close(second["logits"], first["logits"], rtol=1e-3, atol=1e-5)
    found = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    again = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert len(found) == len(again) == first["epoch"]
    for before, after in zip(found, again, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            if not name.startswith(("speed/", "memory/")):
                assert after[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def assert_same(one: Path, other: Path) -> None:
    """The same bits."""
    first, second = state(one), state(other)
    for name in first["model"]:
        assert torch.equal(first["model"][name], second["model"][name]), name
    assert torch.equal(first["logits"], second["logits"])
    assert torch.equal(first["rng"]["sampler"], second["rng"]["sampler"])
    assert (one / "genotype.json").read_text() == (other / "genotype.json").read_text()


def test_two_processes_search_what_one_searches(tmp_path: Path) -> None:
    run_python("search.py", *COMPARED, f"run_dir={tmp_path}/one")
    code, output = run(2, "search", *COMPARED, "sync_batch_norm=true", f"run_dir={tmp_path}/two")
    assert code == 0, output
    assert_close(tmp_path / "one", tmp_path / "two")
    assert output.count("search done") == 1 and output.count("epoch 1/2") == 1
    log = (tmp_path / "two" / "search.log").read_text()
    assert log.count("epoch 1/2") == 1
    written = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "two").iterdir()} == written


@pytest.mark.slow
def test_two_processes_with_an_architecture_each_are_two_groups(tmp_path: Path) -> None:
    settings = (*SEARCH, "bilevel.groups=2", "space.track_running_stats=false")
    run_python("search.py", *settings, f"run_dir={tmp_path}/one")
    code, output = run(2, "search", *settings, f"run_dir={tmp_path}/two")
    assert code == 0, output
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_four_processes_retrain_what_one_retrains(tmp_path: Path) -> None:
    settings = (*TINY_RETRAIN, "genotype=nasbench201_resnet", "ema_decay=0.9", "device=cpu")
    # In channels-last PyTorch's batch norm on a CPU sums less exactly than ours for many processes:
    # 1e-6 a step, which ReLUs make 5e-4 of in eight.
    settings = (*settings, "channels_last=false")
    run_python("retrain.py", *settings, f"run_dir={tmp_path}/one")
    code, output = run(4, "retrain", *settings, "sync_batch_norm=true", f"run_dir={tmp_path}/four")
    assert code == 0, output
    assert_close(tmp_path / "one", tmp_path / "four")
    written = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "four").iterdir()} == written


def wait_for_steps(folder: Path, count: int) -> None:
    """Until a checkpoint of so many steps is there."""
    deadline = time.monotonic() + 240
    path = last_checkpoint(folder)
    while time.monotonic() < deadline:
        try:
            if torch.load(path, weights_only=True)["step"] >= count:
                return
        except (OSError, RuntimeError):
            pass
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


def workers(torchrun: int) -> list[int]:
    """Process numbers of what torchrun has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == torchrun:
                found.append(int(entry.name))
    return sorted(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing happens to, with no checkpoint within an epoch."""
    folder = tmp_path_factory.mktemp("torchrun") / "whole"
    code, output = run(2, "search", *LONG, "checkpoint_every_steps=0", f"run_dir={folder}")
    assert code == 0, output
    return folder


@pytest.mark.slow
def test_a_signal_stops_all_and_they_go_on_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(2, "search", *LONG, f"run_dir={folder}")
    wait_for_steps(folder, 6)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert output.count("stopped by SIGTERM after step") == 1
    assert f"torchrun --nproc-per-node 2 search.py run_dir={folder} resume=true" in output
    assert not errors(output)
    assert 6 <= state(folder)["step"] < 48 and len(state(folder)["other_ranks"]) == 1
    code, output = run(2, "search", f"run_dir={folder}", "resume=true")
    assert code == 0, output
    assert_same(whole, folder)


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_with_the_others(
    whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(2, "search", *LONG, f"run_dir={folder}", restarts=1)
    wait_for_steps(folder, 6)
    os.kill(workers(process.pid)[-1], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "exitcode: -9" in output
    assert_same(whole, folder)


@pytest.mark.slow
def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(2, "search", *LONG, f"run_dir={folder}")
    wait_for_steps(folder, 6)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    lost = "error: another process of the run has ended; the last checkpoint is whole"
    assert len(errors(output)) <= 1 and all(line.startswith(lost) for line in errors(output))
    code, output = run(4, "search", f"run_dir={folder}", "resume=true", "run_dir=" + str(folder))
    assert code == 0, output
    run_python("search.py", f"run_dir={folder}", "resume=true")  # finished: derives again
    assert state(folder)["epoch"] == 12


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        slow(
            ("batch_size=33",), "batch_size is 33, that of the whole run: must be a multiple of 2"
        ),
        slow(("bilevel.groups=3", "batch_size=36"), "bilevel.groups is 3: of 2 processes must be"),
        slow(("sampler=gdsa",), "unknown sampler 'gdsa'"),
        slow(("-m",), "torchrun starts one run: leave out -m"),
    ],
)
def test_a_mistake_is_one_line_in_all(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "run"
    code, output = run(2, "search", *TINY_SEARCH, *overrides, f"run_dir={folder}")
    assert code == 1
    (line,) = errors(output)
    assert message in line
    assert not folder.exists()


@pytest.mark.slow
def test_a_restart_needs_to_know_the_folder() -> None:
    process = start(2, "search", *TINY_SEARCH, restarts=1)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert all("run_dir has no value" in line for line in errors(output)) and errors(output)


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_is_named_once(tmp_path: Path) -> None:
    root = make_folder(tmp_path, num=16)
    broken = root / "train" / "ant" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    folders = ("data=image_folder", f"data.path={root}", "data.storage=stream")
    statistics = ("data.mean=[0.5,0.5,0.5]", "data.std=[0.3,0.3,0.3]", "data.image_size=8")
    sizes = ("epochs=2", "batch_size=8", "network.channels=4", "network.cells_per_stage=1")
    settings = (*sizes, *folders, *statistics, f"run_dir={tmp_path}/run")
    code, output = run(2, "retrain", "genotype=nasbench201_resnet", *settings)
    assert code == 1
    (line,) = errors(output)
    assert str(broken) in line
