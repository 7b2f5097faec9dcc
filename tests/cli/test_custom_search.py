"""Searches over a model of the user's own, and within budgets, as a user runs them."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_SEARCH, slow
from safetensors.torch import load_file
from toy_models import SmallNet

import nas
from nas.choice import decisions
from nas.cost.latency import LatencyTable
from nas.cost.memory_cost import activation_memory
from nas.genotype import Genotype

Run = Callable[..., tuple[int, str]]

CUSTOM = ("space=custom", "space.model=toy_models.SmallNet", "epochs=2", "data.limit=256")
SMALL = (*CUSTOM, "batch_size=32")
FINALS = ("derive=finals", "derive.finalists=3", "derive.final_trainings=4")


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


@pytest.mark.pictures
def test_from_a_model_to_a_trained_network(run_program: Run, tmp_path: Path) -> None:
    run, final = tmp_path / "run", tmp_path / "final"
    code, output = run_program("search", *SMALL, "space.arguments.depth=3", f"run_dir={run}")
    assert code == 0, output
    genotype = Genotype.load(run / "genotype.json")
    model = SmallNet(10, depth=3)
    assert genotype.space == "custom" and genotype.choices.keys() == decisions(model).keys()
    assert all(0 < c.probability < 1 for c in genotype.confidence.values())
    assert "network.model=toy_models.SmallNet network.arguments.depth=3" in output
    assert (run / "cell.png").stat().st_size > 1000

    given = ("network.model=toy_models.SmallNet", "network.arguments.depth=3", "epochs=1")
    code, output = run_program("retrain", f"genotype={run}", *given, f"run_dir={final}")
    assert code == 0, output
    plain = nas.derive(model, genotype)
    plain.load_state_dict(load_file(final / "model.safetensors"))
    assert plain.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    "overrides",
    [
        ("sampler=softmax", "bilevel=second_order"),
        slow(("sampler=dirichlet", "pruning.epochs=[1]", "pruning.keep=[1]")),
        slow(("sampler=score_function", "derive=sampled", "derive.num_samples=4")),
        ("derive=local_search", "derive.max_evaluations=9", "derive.judges=[validation,naswot]"),
        (*FINALS, "derive.final_steps=2", "derive.playoff=0"),
        slow(("derive=perturbation", "derive.num_paths=1", "derive.tuning_steps=1")),
        slow(("warm_start.score=synflow", "warm_start.num_samples=8", "precision=bf16")),
        slow(("bilevel.weight_samples=fair", "bilevel.groups=2", "update_unsampled=true")),
        ("collapse.eigenvalue_every_epochs=1", "kernels=plain", "channels_last=false"),
    ],
    ids=",".join,
)
def test_it_goes_with_every_part_of_a_search(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    code, output = run_program("search", *SMALL, *overrides, f"run_dir={tmp_path}/run")
    assert code == 0, output


def test_a_search_within_a_budget(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    budget = ("budget=multiply_adds", "budget.fraction=0.4", "budget.front_limits=4")
    code, output = run_program("search", *SMALL, *budget, f"run_dir={run}")
    assert code == 0, output
    assert "budget: multiply adds of " in output and "the linear model explains" in output
    with (run / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    costs = [float(row["multiply_adds"]) for row in rows]
    assert costs == sorted(costs) and {row["on_front"] for row in rows} == {"0", "1"}
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"budget/cost", "budget/expected_cost", "budget/multiplier"} < line.keys()
    summary = json.loads((run / "summary.json").read_text())
    (limit,) = [line for line in output.splitlines() if line.startswith("multiply adds")]
    found, most = (float(limit.split()[i].replace(",", "")) for i in (2, 4))
    assert found == summary["metrics"]["budget/cost"] <= most
    assert (run / "front.png").stat().st_size > 1000
    # From where it stopped it goes on with the same multiplier.
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert state["multiplier"] == pytest.approx(line["budget/multiplier"])


def test_a_search_within_a_latency(run_program: Run, tmp_path: Path) -> None:
    run, table = tmp_path / "run", tmp_path / "latency.json"
    model = ("space=custom", "space.model=toy_models.SmallNet")
    few = ("repetitions=3", "num_calibration=2", "num_checked=3", f"run_dir={tmp_path}/profile")
    code, output = run_program("profile_space", *model, *few, f"output={table}")
    assert code == 0, output
    budget = ("budget=latency", f"budget.table={table}", "budget.front_limits=3")
    code, output = run_program("search", *SMALL, *budget, "budget.fraction=0.5", f"run_dir={run}")
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("latency")]
    found, limit = (float(line.split()[i]) for i in (1, 4))
    assert 0 < found <= limit and " ms of " in line
    genotype = Genotype.load(run / "genotype.json")
    predicted = LatencyTable.load(table).predict(nas.derive(SmallNet(10), genotype))
    assert predicted == pytest.approx(found, rel=1e-3)
    for wrong, message in {
        "budget.target_ms=1e-9": "no architecture has latency of 1e-09 ms or less",
        "data.image_size=16": "is of images of 1 channels and 8 pixels a side, the search has 1",
        "budget.table=nowhere.json": "cannot read the latency table nowhere.json",
    }.items():
        chosen = [] if "target" in wrong else ["budget.fraction=0.5"]
        where = f"run_dir={tmp_path}/other"
        code, output = run_program("search", *SMALL, *budget, *chosen, wrong, where)
        assert code == 1 and message in output, output
        assert not (tmp_path / "other").exists()


def test_a_search_within_a_memory(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    budget = ("budget=activation_memory", "budget.fraction=0.5", "budget.front_limits=0")
    code, output = run_program("search", *SMALL, *budget, f"run_dir={run}")
    assert code == 0, output
    network = nas.derive(SmallNet(10), Genotype.load(run / "genotype.json"))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["budget/cost"] == activation_memory(network, 1, 8) / 1024


@pytest.mark.parametrize(
    "derive",
    [
        ("derive=sampled", "derive.num_samples=5"),
        slow(("derive=local_search", "derive.num_samples=3", "derive.max_evaluations=15")),
        (
            "derive=local_search",
            "derive.max_evaluations=9",
            "derive.finalists=2",
            "derive.final_trainings=3",
            "derive.final_steps=2",
            "derive.network.channels=4",
        ),
    ],
    ids=",".join,
)
def test_cells_keep_to_a_budget_however_they_are_derived(
    run_program: Run, tmp_path: Path, derive: tuple[str, ...]
) -> None:
    run = tmp_path / "run"
    budget = ("budget=parameters", "budget.fraction=0.3", "budget.front_limits=0")
    final = ("budget.network.channels=8", "budget.network.cells_per_stage=2")
    code, output = run_program("search", *TINY_SEARCH, *derive, *budget, *final, f"run_dir={run}")
    assert code == 0, output
    summary = json.loads((run / "summary.json").read_text())
    (line,) = [line for line in output.splitlines() if line.startswith("budget: ")]
    assert summary["metrics"]["budget/cost"] <= float(line.split()[3].replace(",", ""))
    assert not (run / "front.csv").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("space.model=toy_models.WrongShape",), r"'smaller' is \[2, 4, 6, 6\]"),
        (("space.model=toy_models.WrongWidth",), "option '8' of choice 'width' cannot run"),
        (("space.model=toy_models.NoChoice",), "has no choice in it"),
        (("space.model=toy_models.TwoMeanings",), "'act' differ in their options"),
        (("space.model=nowhere.Net",), "no module 'nowhere'"),
        (("space.model=toy_models.SmallNt",), r"did you mean 'SmallNet'\?"),
        (("kernels=fused",), "kernels=fused are those of cell spaces"),
        (("budget=parameters",), "needs budget.target or budget.fraction"),
        (("budget=parameters", "budget.target=9"), "no architecture has parameters of 9 or less"),
        (("budget=parameters", "budget.fraction=2"), r"budget.fraction is 2.0: must lie in"),
        (("budget=parameters", "budget.target=-1"), "budget.target is -1.0: must be positive"),
        (
            ("budget=parameters", "budget.fraction=0.5", "derive=perturbation"),
            "knows no budget=parameters",
        ),
        (("budget=flops", "budget.target=1"), "flops"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_answered_in_a_line_and_leave_nothing(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run = tmp_path / "run"
    code, output = run_program("search", *SMALL, *overrides, f"run_dir={run}")
    assert code == 1 and not run.exists(), output
    assert "Traceback" not in output
    assert re.search(message, output), output
