"""`search.py` as a user runs it: results, and every part of the configuration."""

import csv
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import TINY_SEARCH, slow

from nas.genotype import Genotype
from nas.sampling.samplers import SAMPLERS
from nas.spaces import SPACES
from nas.spaces.nasbench201 import OPERATIONS

Run = Callable[..., tuple[int, str]]


@pytest.mark.pictures
def test_a_search_leaves_all_its_results(run_program: Run, tmp_path: Path) -> None:
    data = ("data=digits", "data.test_fraction=0.3", "data.validation_fraction=0.4")
    code, output = run_program("search", *TINY_SEARCH, *data, f"run_dir={tmp_path}/run")
    assert code == 0, output
    run = tmp_path / "run"
    genotype = Genotype.load(run / "genotype.json")
    assert genotype.space == "nasbench201"
    assert genotype.confidence.keys() == genotype.choices.keys()
    assert (run / "cell.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["metrics"]["accuracy/genotype_validation"] <= 100
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert (run / ".hydra" / "config.yaml").exists()
    assert "epoch 2/2" in (run / "search.log").read_text()
    assert summary["genotype"] in output
    same_images = f"retrain.py genotype={run}/genotype.json data=digits data.test_fraction=0.3\n"
    assert same_images in output, "what decides the test images goes along, nothing else"
    assert "margin" in output and "entropy" in output


_SMALL = {
    "nasbench201": ("space.channels=4", "space.cells_per_stage=1"),
    "darts": ("space.channels=4", "space.cells=3", "space.nodes=2"),
    "gdas_frc": ("space.channels=8", "space.cells=3", "space.nodes=2"),
    "custom": ("space.model=toy_models.SmallNet",),
    "mobilenet": (
        *("space.stem_channels=8", "space.channels=[8,16]", "space.layers=[2,2]"),
        *("space.strides=[1,2]", "space.stem_stride=1", "space.head_channels=16"),
    ),
    "vit": (
        *("space.embeddings=[8,16]", "space.depths=[1,2]", "space.heads=[1,2]"),
        *("space.mlp_ratios=[0.5,2]", "space.head_dim=4", "space.patch_size=2"),
    ),
}


_PAIRS = list(product(sorted(SPACES), sorted(SAMPLERS)))
# `make test` has every sampler on one space, and every space with one path and with all of them.
_QUICK = [pair for pair in _PAIRS if "nasbench201" in pair or {"gdas", "softmax"} & set(pair)]
# Every space is drawn once; the pictures do not depend on the sampler.
_DRAWN = [
    pytest.param(*pair, marks=pytest.mark.pictures) if "gdas" in pair else pair for pair in _QUICK
]


@pytest.mark.parametrize(
    ("space", "sampler"), [*_DRAWN, *(slow(*pair) for pair in _PAIRS if pair not in _QUICK)]
)
def test_every_space_runs_with_every_sampler(
    run_program: Run, tmp_path: Path, space: str, sampler: str
) -> None:
    derive = ("derive=argmax",) if SAMPLERS.get(sampler).learns else ("derive=sampled",)
    more = ("derive.num_samples=3",) if derive == ("derive=sampled",) else ()
    arguments = (f"space={space}", f"sampler={sampler}", *_SMALL[space], *derive, *more)
    size = ("epochs=1", "batch_size=32", "data.limit=128", f"run_dir={tmp_path}/run")
    code, output = run_program("search", *arguments, *size)
    assert code == 0, output
    assert Genotype.load(tmp_path / "run" / "genotype.json").space == space


PERTURBATION = ("derive=perturbation", "derive.max_images=50", "derive.tuning_steps=2")
FINALS = ("derive.finalists=2", "derive.final_steps=3", "derive.network.channels=4")


@pytest.mark.parametrize(
    "overrides",
    [
        ("bilevel=second_order",),
        ("bilevel.weight_samples=fair", "bilevel.logits_samples=2"),
        ("bilevel.groups=4",),
        slow(("bilevel.groups=2", "sampler=score_function", "bilevel.weight_samples=fair")),
        ("bilevel=second_order", "bilevel.groups=2", "bilevel.baseline=running_mean"),
        ("bilevel=single_level",),
        ("bilevel.baseline=running_mean", "sampler=gdas_authors"),
        slow(("bilevel=second_order", "bilevel.baseline=running_mean")),
        ("bilevel.order=logits_first", "bilevel.weight_steps=2", "bilevel.logits_steps=2"),
        ("derive=sampled", "derive.num_samples=4", "derive.max_images=50"),
        ("warm_start.score=synflow", "warm_start.num_samples=10", "sampler=score_function"),
        ("derive=local_search", "derive.judges=[validation,naswot]", "derive.max_evaluations=20"),
        slow(("derive=local_search", "derive.max_evaluations=9", *FINALS)),
        slow((*PERTURBATION, "derive.num_paths=1")),
        slow((*PERTURBATION, "sampler=softmax", "space.partial_channels=2", "precision=bf16")),
        (*PERTURBATION, "space.track_running_stats=true", "derive.num_paths=1"),
        slow((*PERTURBATION, "bilevel.weight_samples=fair", "derive.num_paths=1")),
        ("precision=bf16",),
        ("channels_last=false", "deterministic=true"),
        ("warmup_epochs=1", "evaluate_every_epochs=2"),
        ("space.affine=true", "space.track_running_stats=true"),
        ("space.track_running_stats=true", "recalibration_batches=2", "derive=sampled"),
        ("collapse.eigenvalue_every_epochs=2", "collapse.max_skips=1"),
        ("update_unsampled=true", "bilevel=second_order"),
        ("weights.name=adamw", "weights.learning_rate=0.001", "logits.name=sgd"),
        ("space.operations=[skip_connect,nor_conv_3x3]", "space.reduction=pooling"),
        slow(("space.partial_channels=2", "kernels=plain")),
        ("sampler=softmax", "space.partial_channels=4", "precision=bf16"),
        ("pruning.epochs=[1]", "pruning.keep=[1]"),
        slow(("bilevel=second_order", "sampler=softmax", "pruning.epochs=[1]", "pruning.keep=[2]")),
    ],
    ids=lambda overrides: ",".join(overrides),
)
def test_every_setting_can_be_used(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    code, output = run_program("search", *TINY_SEARCH, *overrides, f"run_dir={tmp_path}/run")
    assert code == 0, output


def test_a_local_search_leaves_its_candidates(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    judged = ("derive=local_search", "derive.judges=[parameters,naswot]", *FINALS)
    judged = (*judged, "derive.final_trainings=3", "derive.playoff=2", "derive.playoff_steps=4")
    code, output = run_program("search", *TINY_SEARCH, *judged, f"run_dir={run}")
    assert code == 0, output
    assert (
        "judges               parameters, naswot, training (what each said: candidates.csv)"
        in output
    )
    assert [line.split("%")[0] for line in output.splitlines() if "genotype/s" in line][-1] == "100"
    with (run / "candidates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["architecture", "standing", "parameters", "naswot", "training", "playoff"]
    assert list(rows[0]) == columns and len(rows) == 3
    assert float(rows[0]["playoff"]) >= float(rows[1]["playoff"]) and rows[2]["playoff"] == ""
    assert all(float(row["standing"]) >= float(rows[2]["standing"]) for row in rows[:2])
    assert rows[0]["architecture"] == json.loads((run / "summary.json").read_text())["genotype"]
    assert float(rows[0]["training"]) < 0


_PERTURBED = [("nasbench201", "softmax"), ("darts", "uniform"), ("custom", "softmax")]


@pytest.mark.parametrize(
    ("space", "sampler"),
    [
        pair if pair in _PERTURBED else slow(*pair)
        for pair in product(sorted(SPACES), ("softmax", "uniform"))
    ],
)
def test_a_perturbation_leaves_its_results_and_derives_again_from_the_same_state(
    run_program: Run, tmp_path: Path, space: str, sampler: str
) -> None:
    run = tmp_path / "run"
    size = ("epochs=1", "batch_size=32", "data.limit=128", f"run_dir={run}")
    derive = (*PERTURBATION, "derive.num_paths=1")
    where = (f"space={space}", f"sampler={sampler}", *_SMALL[space])
    code, output = run_program("search", *where, *size, *derive)
    assert code == 0, output
    text = (run / "genotype.json").read_text()
    genotype = Genotype.load(run / "genotype.json")
    assert genotype.space == space and genotype.confidence.keys() == genotype.choices.keys()
    for name, option in genotype.choices.items():
        line = f"{name}: {option}  (% without: "
        assert line in output and line in (run / "search.log").read_text()
    summary = json.loads((run / "summary.json").read_text())
    accuracy = summary["metrics"]["accuracy/genotype_validation"]
    assert 0 <= accuracy <= 100 and f"{accuracy:.2f} %" in output
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    left = (~state["masked"]).sum(1)  # what is masked fills up rows of fewer options
    assert left.min() > 1, "the search can be derived from in another way"
    (run / "genotype.json").unlink()
    code_of_the_user = [setting for setting in where if setting.startswith("space.model")]
    code, output = run_program("search", f"run_dir={run}", "resume=true", *code_of_the_user)
    assert code == 0, output
    assert (run / "genotype.json").read_text() == text
    settings = ("derive=sampled", "derive.num_samples=2")
    code, output = run_program("search", *where, *size, *settings)
    assert code == 0, output


def test_the_same_seed_finds_the_same_and_another_does_not(
    run_program: Run, tmp_path: Path
) -> None:
    def logits(name: str, seed: int) -> torch.Tensor:
        run = tmp_path / name
        assert (
            run_program("search", *TINY_SEARCH, "epochs=1", f"seed={seed}", f"run_dir={run}")[0]
            == 0
        )
        state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
        assert isinstance(state["logits"], torch.Tensor)
        return state["logits"]

    first = logits("a", 3)
    assert torch.equal(first, logits("b", 3))
    assert not torch.equal(first, logits("c", 4))


@pytest.mark.parametrize(
    ("sampler", "derive"), [slow("gdas", "local_search"), ("dirichlet", "argmax")]
)
def test_pruned_options_are_out_of_the_search(
    run_program: Run, tmp_path: Path, sampler: str, derive: str
) -> None:
    pruning = ("epochs=4", "pruning.epochs=[1,2]", "pruning.keep=[3,2]")
    settings = (*TINY_SEARCH, f"sampler={sampler}", f"derive={derive}", *pruning)
    code, output = run_program("search", *settings, f"run_dir={tmp_path}/run")
    assert code == 0, output
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    edges = [f"cell/{source}->{target}" for target in range(1, 4) for source in range(target)]
    dropped: set[str] = set()
    for line, num_left in zip(map(json.loads, lines), (5, 3, 2, 2), strict=True):
        names = {f"probability/{edge}/{option}" for edge in edges for option in OPERATIONS}
        zeros = {name for name in names if line[name] == 0}
        assert len(zeros) == 6 * (5 - num_left) and dropped <= zeros
        assert all(0 <= line[f"entropy/{edge}"] <= 1 for edge in edges)
        for option in OPERATIONS:
            gone = all(f"probability/{edge}/{option}" in zeros for edge in edges)
            assert not gone or line[f"sampled/{option}"] == 0
        dropped = zeros
    genotype = Genotype.load(tmp_path / "run" / "genotype.json")
    assert not {f"probability/{e}/{o}" for e, o in genotype.choices.items()} & dropped


def test_a_budget_that_only_pruned_options_keep_to_is_said(
    run_program: Run, tmp_path: Path
) -> None:
    operations = "space.operations=[skip_connect,nor_conv_1x1,nor_conv_3x3]"
    limited = (operations, "budget=parameters", "budget.fraction=0", "budget.front_limits=0")
    pruning = ("pruning.epochs=[1]", "pruning.keep=[1]")
    run = tmp_path / "run"
    code, output = run_program("search", *TINY_SEARCH, *limited, *pruning, f"run_dir={run}")
    assert code == 0, output
    genotype = Genotype.load(run / "genotype.json")
    assert set(genotype.choices.values()) == {"skip_connect"}, "the limit holds all the same"
    assert "some of its options were pruned" in output


def test_a_search_that_collapses_ends_early_with_all_its_results(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter((1.0, 2.0))
    monkeypatch.setattr("nas.training.search.dominant_eigenvalue", lambda *_: next(values))
    collapse = ("eigenvalue_every_epochs=1", "eigenvalue_growth=1.3", "window=1", "action=stop")
    settings = (*TINY_SEARCH, "epochs=4", *(f"collapse.{setting}" for setting in collapse))
    run = tmp_path / "run"
    code, output = run_program("search", *settings, f"run_dir={run}")
    assert code == 0, output
    reason = "after epoch 2 of 4: the dominant eigenvalue grew 2.00-fold"
    assert f"stopped {reason}" in output and f"stopped {reason}" in (run / "search.log").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["stopped"].startswith(reason)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    accuracy = summary["metrics"]["accuracy/genotype_validation"]
    assert accuracy == lines[-1]["accuracy/genotype_validation"]
    genotype = (run / "genotype.json").read_text()
    assert (run / "cell.png").exists()
    # A resumed run does not go on, but derives again.
    (run / "genotype.json").unlink()
    code, output = run_program("search", f"run_dir={run}", "resume=true")
    assert code == 0, output
    assert (run / "genotype.json").read_text() == genotype
    assert json.loads((run / "summary.json").read_text())["stopped"] == summary["stopped"]


@pytest.mark.parametrize("kernels", ["plain", "fused", slow("compiled")])
def test_kernels(run_program: Run, tmp_path: Path, kernels: str) -> None:
    code, output = run_program("search", *TINY_SEARCH, f"kernels={kernels}", f"run_dir={tmp_path}")
    assert code == 0, output


def write_table(path: Path, lowest: float, step: float) -> Path:
    """A table of all cells whose accuracies, in %, rise or fall by `step` from cell to cell."""
    cells = [
        f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        for a, b, c, d, e, f in product(OPERATIONS, repeat=6)
    ]
    lines = [f"{cell},{lowest + step * number:.3f}" for number, cell in enumerate(cells)]
    path.write_text("\n".join(["architecture,cifar10_test", *lines]) + "\n")
    return path


def test_a_benchmark_is_shown_and_decides_nothing(run_program: Run, tmp_path: Path) -> None:
    """Without a table, with one, and with an opposite one a search does the same to the bit."""
    states, metrics = [], []
    for name, scale in (("no", None), ("rising", (1.0, 0.006)), ("falling", (99.0, -0.006))):
        run, overrides = tmp_path / name, [*TINY_SEARCH, "derive=sampled", "derive.num_samples=4"]
        if scale is not None:
            table = write_table(tmp_path / f"{name}.csv", *scale)
            overrides.append(f"benchmark.nasbench201={table}")
        code, output = run_program("search", *overrides, f"run_dir={run}")
        assert code == 0, output
        assert ("cifar10_test after 200 epochs, rank" in output) == (scale is not None)
        state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
        states.append((state["model"], state["logits"], (run / "genotype.json").read_text()))
        metrics.append(json.loads((run / "summary.json").read_text())["metrics"])
        line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert ("benchmark/regret_200_epochs" in line) == (scale is not None)
    for state in states[1:]:
        assert state[2] == states[0][2]
        assert torch.equal(state[1], states[0][1])
        assert all(torch.equal(state[0][key], value) for key, value in states[0][0].items())
    shown = {"benchmark/accuracy_200_epochs", "benchmark/rank_200_epochs"}
    assert not shown & metrics[0].keys()
    accuracies = [found["benchmark/accuracy_200_epochs"] for found in metrics[1:]]
    assert sum(accuracies) == pytest.approx(100.0), "each table was read"


def test_a_benchmark_of_another_space(run_program: Run, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", 1.0, 0.006)
    run = tmp_path / "run"
    code, output = run_program(
        "search", "space=darts", f"benchmark.nasbench201={table}", f"run_dir={run}"
    )
    assert code == 1 and len(output.strip().splitlines()) == 1
    assert "knows cells of space=nasbench201" in output and not run.exists()
