"""Sweeps in other processes: what fails, what is stopped, what goes on. Each launcher alike."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_SEARCH, start_program

from conf import sweeps
from nas.training.checkpoint import last_checkpoint

pytestmark = pytest.mark.faults

Run = Callable[..., tuple[int, str]]

LAUNCHERS = {
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.launcher.timeout_min=5",),
    "ray": ("+hydra.launcher.ray.init.num_cpus=2",),
}
LONG = (*TINY_SEARCH, "epochs=40", "evaluate_every_epochs=40")


@pytest.fixture(params=sorted(LAUNCHERS))
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = str(request.param)
    pytest.importorskip(f"hydra_plugins.hydra_{name.removesuffix('_local')}_launcher")
    # Processes of a launcher import from where this one does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield name
    if name == "ray":
        import ray

        ray.shutdown()
    if name == "joblib":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)


def stop_when(ready: Callable[[], bool], number: int, limit_s: float = 240.0) -> threading.Thread:
    """Sends a signal to this process alone, as a scheduler would, as soon as it is `ready`."""

    def wait() -> None:
        end = time.monotonic() + limit_s
        while not ready() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the launchers
def test_a_sweep_is_stopped_and_goes_on_whatever_launches_it(
    run_program: Run, tmp_path: Path, launcher: str
) -> None:
    sweep = tmp_path / "sweep"
    good = "02" if launcher == "joblib" else "0"  # the others start a process for each run
    sizes = "32,9999,64" if launcher == "joblib" else "32,9999"
    command = (
        *("-m", f"hydra/launcher={launcher}", *LAUNCHERS[launcher], *LONG),
        *(f"batch_size={sizes}", f"hydra.sweep.dir={sweep}"),
    )
    begun = [last_checkpoint(sweep / number) for number in good]
    number = signal.SIGINT if launcher == "ray" else signal.SIGTERM  # Ray takes SIGTERM itself
    stopper = stop_when(lambda: all(path.exists() for path in begun), number)
    code, output = run_program("search", *command)
    stopper.join()
    assert code == 128 + number, output
    assert f"hydra.sweep.dir={sweep}" in output and "Traceback" not in output
    assert not list(sweep.glob("*/summary.json")) and not (sweep / sweeps.STOP).exists()
    assert all("state saved" in (sweep / n / "search.log").read_text() for n in good)
    steps = [torch.load(path, weights_only=True)["step"] for path in begun]
    assert all(0 < step < 40 * 4 for step in steps)

    code, output = run_program("search", *command)
    assert code == 1 and "Traceback" not in output, output
    last = output.strip().splitlines()[-1]
    failure = f"{sweep}/1 (batch_size=9999): batch_size is 9999"
    assert last.startswith(f"error: {failure}") and "Error executing" not in output
    assert (sweep / "failures.txt").read_text().startswith(failure)
    assert f"python -m nas.sweep {sweep}" in output
    assert sorted(path.parent.name for path in sweep.glob("*/summary.json")) == list(good)
    assert not (sweep / "1").exists()
    if launcher != "joblib":
        return
    times = [(sweep / number / "metrics.jsonl").stat().st_mtime_ns for number in good]
    assert run_program("search", *command)[0] == 1
    assert times == [(sweep / n / "metrics.jsonl").stat().st_mtime_ns for n in good]


def test_optuna_goes_on_with_the_trials_that_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    fixed = [setting for setting in TINY_SEARCH if not setting.startswith("batch_size")]
    swept = ("weights.learning_rate=tag(log,interval(0.01,0.1))", "batch_size=choice(32,9999)")
    command: Sequence[str] = ("-m", "hydra/sweeper=optuna", *fixed, "epochs=1", *swept)
    outputs = []
    for num_trials in (3, 4):
        process = start_program(
            *("search", *command, f"hydra.sweeper.n_trials={num_trials}"),
            f"hydra.sweep.dir={tmp_path}",
        )
        outputs.append(process.communicate()[0])
        assert process.returncode == 1 and "Traceback" not in outputs[-1], outputs[-1]
        assert outputs[-1].strip().splitlines()[-1].startswith(f"error: {tmp_path}/")
    num_finished = outputs[0].count("search done")
    assert 0 < num_finished < 3
    assert outputs[1].count("finished before") == num_finished
    composed = next(iter(tmp_path.glob("*/.hydra/hydra.yaml"))).read_text()
    assert "direction: maximize" in composed
    best = (tmp_path / "optimization_results.yaml").read_text()
    values = [float(line.split()[1]) for line in best.splitlines() if "best_value" in line]
    assert values and 0 <= values[0] <= 100


def test_optuna_without_a_trial_that_ended_well_says_why(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    fixed = [setting for setting in TINY_SEARCH if not setting.startswith("batch_size")]
    swept = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "batch_size=choice(9999)")
    folder = f"hydra.sweep.dir={tmp_path}"
    process = start_program("search", "-m", *fixed, *swept, folder)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/0 (batch_size=9999): batch_size is 9999"), output


@pytest.mark.parametrize("override", sweeps.EXTRAS)
def test_what_is_not_installed_is_one_line(
    run_program: Run, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setattr(sweeps, "_found", lambda module: False)
    code, output = run_program("search", "-m", override, "seed=0,1")
    extra = sweeps.EXTRAS[override]
    assert code == 1
    line = f"error: {override}: not installed: pip install 'one-path-nas[{extra}]'"
    assert output.splitlines() == [line]


def test_defaults_give_way_to_what_the_command_line_says() -> None:
    arguments = ["hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"]
    assert sweeps.with_defaults(["seed=0"]) == ["seed=0"]
    for given in (arguments[1], f"++{arguments[1]}"):
        found = sweeps.with_defaults([arguments[0], given])
        assert [a for a in found if "direction" in a] == [given]
    assert not any(
        "seed" in a for a in sweeps.with_defaults([*arguments, "hydra/sweeper/sampler=grid"])
    )


def test_lines_of_a_run_have_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    out = sweeps._Prefixed(sys.stdout, "[3] ")
    print("one\ntwo", file=out)
    print("half", end="", file=out)
    assert capsys.readouterr().out == "[3] one\n[3] two\n"
    assert not out.isatty()
