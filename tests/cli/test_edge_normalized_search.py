"""Searches with weights of the inputs of nodes, as a user runs them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import slow
from supernet_helpers import build
from test_edge_normalization import DENSE, PLAIN

from nas.deriving.deriver import derive_argmax
from nas.genotype import Genotype
from nas.sampling.samplers import SAMPLERS

TINY = (
    "batch_size=32",
    "data.limit=128",
    "space=darts",
    "space.channels=4",
    "space.cells=3",
    "space.nodes=2",
    "space.partial_channels=2",
    "space.edge_normalization=true",
    "sampler=softmax",
    "epochs=1",
)
SAMPLED = ("derive=sampled", "derive.num_samples=3")
LOCAL_SEARCH = ("derive=local_search", "derive.num_samples=3", "derive.max_evaluations=6")
WARM_START = ("warm_start.score=parameters", "warm_start.num_samples=8")

Run = Callable[..., tuple[int, str]]


@pytest.mark.pictures
def test_a_search_shows_and_saves_the_weights(run_program: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    rate = "logits.learning_rate=0.1"
    code, output = run_program("search", *TINY, rate, "epochs=2", f"run_dir={run}")
    assert code == 0, output
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shown = [[line[f"probability/reduce/inputs->3/{n}"] for n in range(3)] for line in lines]
    assert all(sum(weights) == pytest.approx(1) for weights in shown) and shown[0] != shown[1]
    assert "entropy/normal/inputs->2" in lines[-1]
    drawn = {name.removeprefix("sampled/") for name in lines[-1] if name.startswith("sampled/")}
    assert drawn == set(PLAIN.operations), "no inputs are drawn"
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert state["logits"].shape == (10 + 4, 8)
    # What was saved is what was shown, and what was derived from.
    supernet = build(replace(PLAIN, partial_channels=2))
    with torch.no_grad():
        supernet.logits.copy_(state["logits"])
    probabilities = supernet.probabilities()
    assert probabilities["reduce/inputs->3"].tolist() == pytest.approx(shown[-1])
    derived = derive_argmax(PLAIN, probabilities)
    assert Genotype.load(run / "genotype.json").choices == derived.choices


@pytest.mark.parametrize(
    "overrides",
    [
        ("sampler=dirichlet", "bilevel=second_order"),
        slow(("sampler=gumbel_softmax", "bilevel=single_level", *SAMPLED)),
        ("bilevel.weight_samples=fair", *LOCAL_SEARCH),
        slow(("space=gdas_frc", "space.channels=8", "precision=bf16", "kernels=plain")),
        ("epochs=2", "pruning.epochs=[1]", "pruning.keep=[2]", *WARM_START),
        slow(("collapse.eigenvalue_every_epochs=1", "space.partial_channels=1")),
        slow(("space.track_running_stats=true", "space.affine=true", "space.pool_norm=true")),
        ("derive=perturbation", "derive.num_paths=1", "derive.tuning_steps=1"),
    ],
    ids=",".join,
)
def test_it_goes_with_every_part_of_a_search(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    few = "space.operations=[none,skip_connect,sep_conv_3x3,max_pool_3x3]"
    code, output = run_program("search", *TINY, few, *overrides, f"run_dir={tmp_path}/run")
    assert code == 0, output


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in DENSE])
def test_samplers_of_one_path_are_refused_in_one_line(
    run_program: Run, tmp_path: Path, sampler: str
) -> None:
    run = tmp_path / "run"
    code, output = run_program("search", *TINY, f"sampler={sampler}", f"run_dir={run}")
    assert code == 1 and len(output.strip().splitlines()) == 1 and not run.exists()
    assert "space.edge_normalization is learnt from mixtures of all operations" in output
    assert f"sampler={sampler} does not run" in output and ", ".join(sorted(DENSE)) in output
