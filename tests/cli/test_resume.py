"""Runs that are killed, stopped or moved, and go on as if nothing had happened."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from conftest import TINY_RETRAIN, TINY_SEARCH, slow, start_program

from nas.files import only_run_in
from nas.optimisation.bilevel import Batch
from nas.training.checkpoint import last_checkpoint
from nas.training.search import Search
from nas.training.trainings import RECORD, Trainings

pytestmark = pytest.mark.faults

Run = Callable[..., tuple[int, str]]
Finished = Callable[..., Path]
InTwo = Callable[[Sequence[str], int], dict[str, object]]

_PROGRAMS = {
    "search": (*TINY_SEARCH, "epochs=3"),
    "retrain": (
        "genotype=nasbench201_resnet",
        *TINY_RETRAIN,
        "epochs=3",
        "drop_path=0.2",
        "ema_decay=0.9",
    ),
}


def _same(a: object, b: object, where: str = "") -> None:
    """Asserts that two checkpoints agree to the bit."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor) and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), where
        for key in a:
            _same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            _same(x, y, f"{where}[{index}]")
    else:
        assert a == b or (a != a and b != b), f"{where}: {a} and {b}"


def _state(run: Path) -> dict[str, object]:
    state: dict[str, object] = torch.load(last_checkpoint(run), weights_only=True)
    del state["settings"], state["overrides"], state["seconds"]
    return state


def _metrics(run: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl without those that depend on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "memory/"))} for line in lines
    ]


@pytest.mark.parametrize(
    ("program", "number", "after_s"),
    [
        ("search", signal.SIGKILL, 0.4),
        ("retrain", signal.SIGKILL, 0.05),
        slow("search", signal.SIGKILL, 0.05),
        slow("retrain", signal.SIGKILL, 0.4),
    ],
)
def test_a_run_killed_at_any_step_goes_on_to_the_bit(
    run_program: Run,
    finished_run: Finished,
    tmp_path: Path,
    program: str,
    number: signal.Signals,
    after_s: float,
) -> None:
    settings = _PROGRAMS[program]
    whole, cut = finished_run(program, *settings), tmp_path / "cut"
    often = (*settings, "checkpoint_every_steps=1")
    process = start_program(program, *often, f"run_dir={cut}")
    _wait_for(last_checkpoint(cut), process)
    time.sleep(after_s)
    process.send_signal(number)
    process.communicate()
    done = torch.load(last_checkpoint(cut), weights_only=True)["step"]

    code, output = run_program(program, *often, f"run_dir={cut}", "resume=true")
    assert code == 0, output
    final = _state(whole)
    assert isinstance(done, int) and done <= int(str(final["step"]))
    _same(final, _state(cut))
    assert _metrics(whole) == _metrics(cut)
    assert (whole / "genotype.json").read_text() == (cut / "genotype.json").read_text()


@pytest.fixture
def search_in_two(
    run_program: Run, finished_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InTwo:
    """A search that is stopped in a step and gone on with ends as one that was not: its state."""
    train_step = Search._train_step

    def run(settings: Sequence[str], stop_at: int) -> dict[str, object]:
        def stopping(search: Search, batch: Batch) -> int:
            if search.step + 1 == stop_at:
                signal.raise_signal(signal.SIGTERM)
            return train_step(search, batch)

        whole, cut = finished_run("search", *settings), tmp_path / "cut"
        with monkeypatch.context() as patched:
            patched.setattr(Search, "_train_step", stopping)
            code, output = run_program("search", *settings, f"run_dir={cut}")
        assert code == 128 + signal.SIGTERM and f"after step {stop_at}," in output
        code, output = run_program("search", f"run_dir={cut}", "resume=true")
        assert code == 0, output
        final = _state(whole)
        _same(final, _state(cut))
        assert _metrics(whole) == _metrics(cut)
        assert (whole / "genotype.json").read_text() == (cut / "genotype.json").read_text()
        return final

    return run


@pytest.mark.parametrize(
    ("sampler", "stop_at"),  # 4 steps an epoch, pruned after each
    [
        *(("gdas", 4), ("dirichlet", 6)),
        *(slow("gdas", 3), slow("gdas", 6), slow("dirichlet", 3), slow("dirichlet", 4)),
    ],
)
def test_a_pruned_search_goes_on_to_the_bit(
    search_in_two: InTwo, sampler: str, stop_at: int
) -> None:
    pruning = ("epochs=3", "pruning.epochs=[1,2]", "pruning.keep=[3,1]")
    final = search_in_two((*TINY_SEARCH, f"sampler={sampler}", *pruning), stop_at)
    assert isinstance(final["masked"], torch.Tensor) and final["masked"].sum() == 6 * 4


@pytest.mark.parametrize("groups", [slow(1), 4])
def test_the_running_mean_goes_on_to_the_bit(search_in_two: InTwo, groups: int) -> None:
    baseline = ("bilevel.baseline=running_mean", f"bilevel.groups={groups}")
    final = search_in_two((*TINY_SEARCH, *baseline), 3)
    assert isinstance(final["baseline"], dict) and final["baseline"]["sums"].any()


@pytest.mark.parametrize("stop_at", [2, slow(4)])  # 4 steps an epoch
def test_the_weights_of_inputs_go_on_to_the_bit(search_in_two: InTwo, stop_at: int) -> None:
    settings = ("epochs=2", "batch_size=32", "data.limit=256", "sampler=gumbel_softmax")
    space = ("space=darts", "space.channels=4", "space.cells=3", "space.nodes=2")
    weighed = ("space.partial_channels=2", "space.edge_normalization=true")
    final = search_in_two((*settings, *space, *weighed), stop_at)
    assert isinstance(final["logits"], torch.Tensor) and len(final["logits"]) == 10 + 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_search_says_so_and_how_to_go_on(
    run_program: Run, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    settings = (*TINY_SEARCH, "epochs=300", f"run_dir={run}")
    process = start_program("search", *settings)
    _wait_for(last_checkpoint(run), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    last = output.strip().splitlines()[-1]
    assert f"stopped by {number.name} after step" in last
    assert last.endswith(f"go on with: python search.py run_dir={run} resume=true")
    assert "Traceback" not in output
    step = torch.load(last_checkpoint(run), weights_only=True)["step"]
    assert f"after step {step}," in last

    # The other settings are those that it was started with; it may be stopped once more.
    process = start_program("search", f"run_dir={run}", "resume=true")
    _wait_for_step(run, step + 1, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + number, output


def test_a_perturbation_that_is_stopped_starts_again(
    run_program: Run, finished_run: Finished, tmp_path: Path
) -> None:
    few = ("derive.num_paths=1", "derive.tuning_steps=1")
    settings = (*TINY_SEARCH, "derive=perturbation", *few)
    whole, cut = finished_run("search", *settings), tmp_path / "cut"
    long = (*settings, "derive.num_paths=100000", f"run_dir={cut}")
    process = start_program("search", *long)
    _wait_for(last_checkpoint(cut), process)
    _wait_for_step(cut, int(str(_state(whole)["step"])), process)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGINT, output
    told = "stopped by SIGINT while deriving, the search is saved; go on with: python search.py "
    assert output.strip().splitlines()[-1].startswith(told) and "Traceback" not in output
    _same(_state(whole), _state(cut))
    assert not (cut / "genotype.json").exists()
    code, output = run_program("search", *settings, f"run_dir={cut}")
    assert code == 0, output
    assert (whole / "genotype.json").read_text() == (cut / "genotype.json").read_text()


@pytest.mark.parametrize("stop_at", [2, slow(1), slow(4)])  # rounds: 2 finalists, 4, 4, a play-off
def test_finals_go_on_after_the_last_round(
    run_program: Run,
    finished_run: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    rounds = ("derive.finalists=2", "derive.final_trainings=10", "derive.final_steps=2")
    rounds += ("derive.playoff=2", "derive.playoff_steps=4", "derive.network.channels=4")
    judged = ("derive=local_search", "derive.judges=[parameters]", "derive.max_evaluations=5")
    settings = (*TINY_SEARCH, *judged, *rounds)
    whole, cut = finished_run("search", *settings), tmp_path / "cut"
    train, calls = Trainings._train, list[int]()

    def stopping(trainings: Trainings, entrants: Mapping[str, object], steps: int) -> None:
        calls.append(len(entrants))
        if len(calls) == stop_at:
            signal.raise_signal(signal.SIGTERM)
        train(trainings, entrants, steps)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Trainings, "_train", stopping)
        code, output = run_program("search", *settings, f"run_dir={cut}")
        assert code == 128 + signal.SIGTERM and "while deriving" in output
        assert not (cut / "genotype.json").exists()
        done, stop_at = sum(calls[:-1]), 0
        calls.clear()
        code, output = run_program("search", f"run_dir={cut}", "resume=true")
    assert code == 0, output
    num_trainings = len((whole / RECORD).read_text().splitlines()) - 1
    assert sum(calls) == num_trainings - done, "what was done is not done again"
    for name in ("genotype.json", "candidates.csv", RECORD):
        assert (whole / name).read_text() == (cut / name).read_text()


def _wait_for_step(run: Path, step: int, process: object, timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while int(str(_state(run)["step"])) < step:
        assert process.poll() is None, process.communicate()[0]  # type: ignore[attr-defined]
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.05)


def _wait_for(path: Path, process: object, timeout_s: float = 90.0) -> None:
    end = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]  # type: ignore[attr-defined]
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.01)


def test_resume_takes_the_newest_run_and_the_same_folder_goes_on(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        run_dir = f"run_dir={tmp_path}/runs/search/{name}"
        assert run_program("search", *TINY_SEARCH, "epochs=1", f"seed={seed}", run_dir)[0] == 0
    monkeypatch.chdir(tmp_path)
    code, output = run_program("search", *TINY_SEARCH, "epochs=1", "seed=2", "resume=true")
    assert code == 0, output
    assert "runs/search/new" in output
    # Without resume=true a folder that holds a checkpoint is continued too, never overwritten.
    code, output = run_program(
        "search", *TINY_SEARCH, "epochs=1", "seed=3", "run_dir=runs/search/old"
    )
    assert code == 1
    assert "seed was 1, is 3" in output


@pytest.mark.parametrize("program", sorted(_PROGRAMS))
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    run_program: Run, finished_run: Finished, tmp_path: Path, program: str
) -> None:
    run = shutil.copytree(finished_run(program, *_PROGRAMS[program]), tmp_path / "run")
    final, metrics, path = _state(run), _metrics(run), last_checkpoint(run)
    genotype = (run / "genotype.json").read_text()
    path.write_bytes(path.read_bytes()[:-100])
    code, output = run_program(program, f"run_dir={run}", "resume=true")
    assert code == 0, output
    (line,) = {line for line in output.splitlines() if "is damaged" in line}
    assert str(path) in line and line.endswith("previous.pt")
    _same(final, _state(run))
    assert _metrics(run) == metrics
    assert (run / "genotype.json").read_text() == genotype


@pytest.mark.parametrize("max_file_size", [2_000, 12_000, 100_000])  # Hydra, events, checkpoint
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    run_program: Run, tmp_path: Path, max_file_size: int
) -> None:
    run = tmp_path / "run"
    settings = (*TINY_SEARCH, "epochs=1", f"run_dir={run}")
    process = start_program("search", *settings, max_file_size=max_file_size)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1 and "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ") and line.endswith("File too large")
    assert not list(run.rglob(".*.tmp*"))
    code, output = run_program("search", *settings)
    assert code == 0, output


def test_a_second_run_in_a_folder_is_refused_and_harms_nothing(
    run_program: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with only_run_in(run):
        code, output = run_program("search", *TINY_SEARCH, f"run_dir={run}")
        assert code == 1
        assert output.strip().startswith(f"error: run_dir: another run is at work in {run}")
        assert len(output.strip().splitlines()) == 1
        assert run.is_dir()
    code, output = run_program("search", *TINY_SEARCH, f"run_dir={run}")
    assert code == 0, output


@pytest.mark.parametrize(("program", "noun"), [("search", "search"), ("retrain", "retraining")])
@pytest.mark.parametrize("by_name", [True, False], ids=["resume", "same run_dir"])
def test_a_finished_run_that_is_started_again_says_so_and_ends_as_before(
    run_program: Run, finished_run: Finished, tmp_path: Path, program: str, noun: str, by_name: bool
) -> None:
    settings = _PROGRAMS[program]
    run = tmp_path / "run"
    shutil.copytree(finished_run(program, *settings), run)
    state, metrics = _state(run), _metrics(run)
    again = ("resume=true",) if by_name else settings
    code, output = run_program(program, *again, f"run_dir={run}")
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if "before" in line]
    assert line == (
        f"the {noun} in {run} was done before (3 epochs); what follows is made from its checkpoint"
    )
    assert "ETA" not in output and "step/s" not in output, "nothing goes on"
    assert f"{noun} done" in output and "\nnext " in output
    _same(state, _state(run))
    assert metrics == _metrics(run)


def test_a_run_that_was_cut_off_before_its_results_was_not_done_before(
    run_program: Run, finished_run: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run("search", *_PROGRAMS["search"]), run)
    (run / "summary.json").unlink()
    code, output = run_program("search", f"run_dir={run}", "resume=true")
    assert code == 0 and "search done" in output, output
    assert "done before" not in output
    assert (run / "summary.json").exists()


def test_a_run_of_a_release_with_fewer_settings_goes_on(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = (*TINY_SEARCH, "epochs=1", "bilevel=first_order", f"run_dir={run}")
    assert run_program("search", *settings)[0] == 0
    path = last_checkpoint(run)
    state = torch.load(path, weights_only=True)
    del state["settings"]["bilevel"]["groups"], state["settings"]["budget"]
    torch.save(state, path)
    code, output = run_program("search", *settings, "bilevel.groups=2")
    assert code == 1 and "bilevel.groups was None, is 2" in output
    code, output = run_program("search", *settings, "budget=parameters", "budget.fraction=0.5")
    assert code == 1 and "budget" in output
    code, output = run_program("search", f"run_dir={run}", "resume=true")
    assert code == 0, output


def test_other_settings_and_damaged_checkpoints_are_refused_in_one_line(
    run_program: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = (*TINY_SEARCH, "epochs=1", f"run_dir={run}")
    assert run_program("search", *settings)[0] == 0
    written = {path: path.read_text() for path in (run / ".hydra").iterdir()}
    code, output = run_program("search", *settings, "batch_size=16", "resume=true")
    assert code == 1
    assert "cannot resume" in output and "batch_size was 32, is 16" in output

    # What was refused leaves no trace: the run still goes on with its own settings.
    assert {path: path.read_text() for path in (run / ".hydra").iterdir()} == written
    code, output = run_program("search", f"run_dir={run}", "resume=true")
    assert code == 0, output

    path = last_checkpoint(run)
    path.write_bytes(path.read_bytes()[:1000])
    code, output = run_program("search", *settings, "resume=true")
    assert code == 1
    assert len(output.strip().splitlines()) == 1
    assert str(path) in output and "damaged" in output
