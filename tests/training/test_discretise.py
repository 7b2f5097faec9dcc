"""Perturbation on a tiny search over digits: its weights, its data, its masks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import slow
from search_helpers import make_search
from torch import Tensor

from nas.optimisation.finite import NonFiniteLossError
from nas.supernet import Sample
from nas.training.discretise import by_perturbation
from nas.training.search import Search

NASBENCH201 = ("space=nasbench201", "space.cells_per_stage=1")
DARTS = (
    *("space=darts", "space.cells=3", "space.nodes=2"),
    "space.operations=[none,skip_connect,sep_conv_3x3,max_pool_3x3]",
)
SETTINGS: dict[str, Any] = {"num_paths": 1, "max_images": 50, "tuning_steps": 2, "seed": 0}


def weights_of(search: Search) -> list[Tensor]:
    return [p.detach().clone() for p in search.supernet.model.parameters()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    run = tmp_path_factory.mktemp("discretise") / "run"
    make_search(run).run()
    return run


def loaded(folder: Path) -> Search:
    search = make_search(folder)
    search.load()
    return search


@pytest.mark.parametrize("steps", [0, 2])
def test_the_weights_are_trained_on_and_the_logits_are_not(folder: Path, steps: int) -> None:
    search = loaded(folder)
    before, logits = weights_of(search), search.supernet.logits.detach().clone()
    by_perturbation(search, **{**SETTINGS, "tuning_steps": steps})
    moved = [not torch.equal(a, b) for a, b in zip(before, weights_of(search), strict=True)]
    assert any(moved) == (steps > 0)
    assert torch.equal(logits, search.supernet.logits)


def test_the_batches_follow_those_of_the_search_at_a_tenth_of_the_learning_rate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = loaded(folder)
    seen: list[Tensor] = []
    rates: list[float] = []
    masks: list[int] = []
    update = type(search.learner).update_weights

    def note(learner: Any, batch: Any) -> Any:
        seen.append(batch[0])
        rates.append(learner.weights.learning_rate)
        masks.append(int((~search.supernet.masked).sum()))
        return update(learner, batch)

    monkeypatch.setattr(type(search.learner), "update_weights", note)
    by_perturbation(search, **SETTINGS)
    assert len(seen) == 2 * 5, "between the decisions for six edges"
    assert search.step == 8 and search.data.train.num_batches == 4
    expected = [images for epoch in (2, 3, 4) for images, _ in search.data.train.epoch(epoch)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=False))
    tenth = search.learner.weights.settings.learning_rate / 10
    assert rates == pytest.approx([tenth] * 10)
    # One option of the decided edges, five of the others.
    assert masks == [1 * n + 5 * (6 - n) for n in (1, 2, 3, 4, 5) for _ in range(2)]


@pytest.mark.parametrize(
    ("space", "sampler"),
    [
        *((NASBENCH201, "softmax"), (NASBENCH201, "gdas"), (DARTS, "uniform")),
        *(slow(NASBENCH201, "gumbel_softmax"), slow(NASBENCH201, "uniform")),
        *(slow(DARTS, "softmax"), slow(DARTS, "gumbel_softmax"), slow(DARTS, "gdas")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].removeprefix("space="),
)
def test_a_loaded_search_derives_what_the_finished_one_does(
    tmp_path: Path, space: tuple[str, ...], sampler: str
) -> None:
    overrides = (*space, f"sampler={sampler}", "epochs=1", "derive=perturbation")
    search = make_search(tmp_path, *overrides)
    search.run()
    again = make_search(tmp_path, *overrides)
    again.load()
    first, second = by_perturbation(search, **SETTINGS), by_perturbation(again, **SETTINGS)
    assert first == second
    assert all(
        torch.equal(a, b) for a, b in zip(weights_of(search), weights_of(again), strict=True)
    )
    genotype, accuracy = first
    assert accuracy == search.evaluate(genotype) and 0 <= accuracy <= 100
    assert search.supernet.allows(genotype.choices)
    assert (~search.supernet.masked).sum() == len(search.supernet.names)
    assert len(genotype.choices) == (6 if space == NASBENCH201 else 8)


def test_what_is_evaluated_is_the_supernet_as_it_was_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = loaded(folder)
    samples: list[Sample] = []
    evaluate = Search.evaluate_sample

    def note(run: Search, sample: Sample, max_images: int | None = None) -> float:
        samples.append(sample)
        assert max_images in (50, None)
        return evaluate(run, sample, max_images)

    monkeypatch.setattr(Search, "evaluate_sample", note)
    by_perturbation(search, **{**SETTINGS, "num_paths": 2})
    assert all(sample.indices is not None for sample in samples)
    # Two paths for each of five options of six edges, repeated ones once; and the genotype.
    assert 6 * 5 < len(samples) <= 2 * 6 * 5 + 1


def test_a_tuning_that_diverges_is_one_error(folder: Path) -> None:
    search = loaded(folder)
    settings = replace(search.learner.weights.settings, learning_rate=1e30, clip_norm=0.0)
    search.learner.weights.settings = settings
    with pytest.raises(NonFiniteLossError, match="training loss is"):
        by_perturbation(search, **{**SETTINGS, "tuning_steps": 8})


def test_the_decisions_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = loaded(folder)
    genotype, _ = by_perturbation(search, **SETTINGS)
    shown = capsys.readouterr().err
    for name, option in genotype.choices.items():
        assert f"{name}: {option}  (% without: none " in shown
    assert "100%  30/30" in shown
