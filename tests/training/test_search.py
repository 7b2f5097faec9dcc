"""The search loop on a tiny supernet and digits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from search_helpers import make_search

from nas.optimisation.bilevel import StepResult
from nas.training.search import Search


@pytest.mark.parametrize("update_unsampled", [False, True])
def test_unsampled_operations_are_left_alone_unless_it_is_asked_for(
    tmp_path: Path, update_unsampled: bool
) -> None:
    search = make_search(tmp_path, f"update_unsampled={update_unsampled}", "sampler=gdas")
    parameters = list(search.supernet.model.parameters())
    before = [p.detach().clone() for p in parameters]
    search.learner.update_weights(next(iter(search.data.train.epoch(0))))
    moved = [not torch.equal(p, was) for p, was in zip(parameters, before, strict=True)]
    assert any(moved) and all(moved) == update_unsampled


@pytest.mark.parametrize("order", ["weights_first", "logits_first"])
def test_a_round_that_is_longer_than_an_epoch_ends_in_the_next(tmp_path: Path, order: str) -> None:
    search = make_search(tmp_path, "epochs=4", "bilevel.weight_steps=7", f"bilevel.order={order}")
    assert search.data.train.num_batches == 4  # fewer than the 7 steps of a round
    updates: list[int] = []
    bilevel_step = search.bilevel.step

    def step(*args: Any, **named: Any) -> StepResult:
        result = bilevel_step(*args, **named)
        updates.extend(search.step for _ in result.logits)
        return result

    search.bilevel.step = step  # type: ignore[method-assign]
    search.run()
    assert updates == ([6, 13] if order == "weights_first" else [0, 7, 14])


# Collapse


def rising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the eigenvalue double from epoch to epoch."""
    values = (2.0**n for n in range(100))
    monkeypatch.setattr("nas.training.search.dominant_eigenvalue", lambda *_: next(values))


def push_skips(search: Search, from_epoch: int) -> None:
    """Lets the logits of an epoch go to skip connections all at once."""
    start_epoch = search._start_epoch

    def start() -> None:
        start_epoch()
        if search.epoch >= from_epoch:
            with torch.no_grad():
                search.supernet.logits[:, 1] = 5.0

    search._start_epoch = start  # type: ignore[method-assign]


def lines(run_dir: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("speed/", "memory/"))} for line in found
    ]


SKIPS = ("epochs=5", "collapse.max_skips=5", "kernels=plain")


def test_a_warning_is_given_once_and_the_search_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = make_search(tmp_path, *SKIPS)
    push_skips(search, 1)
    search.run()
    shown = capsys.readouterr().err
    assert shown.count("warning: 6 skip connections in a cell, collapse.max_skips is 5") == 1
    assert search.epoch == 5 and search.stopped is None
    assert [line["architecture/num_skip_in_cell"] for line in lines(tmp_path)[1:]] == [6.0] * 4


def test_a_stop_ends_the_search_after_the_epoch_with_all_that_a_last_epoch_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = make_search(tmp_path, *SKIPS, "collapse.action=stop", "evaluate_every_epochs=9")
    push_skips(search, 2)
    search.run()
    assert search.epoch == 3 and len(lines(tmp_path)) == 3
    reason = "after epoch 3 of 5: 6 skip connections in a cell, collapse.max_skips is 5"
    assert search.stopped == reason and f"stopped {reason}" in capsys.readouterr().err
    assert "accuracy/genotype_validation" in lines(tmp_path)[-1]
    genotype = search.space.derive(search.supernet.probabilities())
    assert set(genotype.choices.values()) == {"skip_connect"}
    assert search.validation_accuracy == search.evaluate(genotype)
    search.run()
    assert search.epoch == 3, "a run that has stopped does not go on"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_roll_back_derives_from_the_logits_of_the_last_good_epoch(
    tmp_path: Path, interrupted: bool
) -> None:
    settings = (*SKIPS, "collapse.action=roll_back")
    search = make_search(tmp_path / "run", *settings)
    push_skips(search, 2)
    kept: list[torch.Tensor] = []
    log_epoch = search._log_epoch

    def note(*arguments: Any) -> str:
        kept.append(search.supernet.logits.detach().clone())
        return log_epoch(*arguments)

    search._log_epoch = note  # type: ignore[method-assign]
    if interrupted:  # the good logits come from the checkpoint
        search.epochs = 2
        search.run()
        search = make_search(tmp_path / "run", *settings)
        search.load()
        push_skips(search, 2)
    search.run()
    assert torch.equal(search.supernet.logits, kept[1]) and search.epoch == 3
    assert search.stopped is not None
    assert search.stopped.endswith("; back to the logits of epoch 2")
    last = lines(tmp_path / "run")[-1]
    genotype = search.space.derive(search.supernet.probabilities())
    assert last["accuracy/genotype_validation"] == search.evaluate(genotype)
    assert last["architecture/num_skip"] < 6
    # What was saved is what a resumed run derives from.
    again = make_search(tmp_path / "run", *settings)
    again.load()
    again.run()
    assert (again.epoch, again.stopped) == (3, search.stopped)
    assert torch.equal(again.supernet.logits, kept[1])


def test_a_growing_eigenvalue_goes_back_by_a_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising(monkeypatch)
    growth = ("collapse.eigenvalue_growth=1.3", "collapse.eigenvalue_every_epochs=1")
    overrides = ("epochs=9", "collapse.window=2", "collapse.action=roll_back", "warmup_epochs=1")
    search = make_search(tmp_path, *growth, *overrides)
    search.run()
    assert search.stopped == (
        "after epoch 5 of 9: the dominant eigenvalue grew 4.00-fold, collapse.eigenvalue_growth "
        "is 1.3; back to the logits of epoch 3"
    )
    assert [line.get("architecture/eigenvalue") for line in lines(tmp_path)] == [None, 1, 2, 4, 8]
    assert lines(tmp_path)[-1]["architecture/eigenvalue_growth"] == 4.0


@pytest.mark.parametrize("sampler", ["gdas", "softmax"])
def test_watching_changes_nothing_to_the_bit(tmp_path: Path, sampler: str) -> None:
    states, metrics = [], []
    for name, every in (("watched", 1), ("alone", 0)):
        settings = (f"sampler={sampler}", "space.track_running_stats=true")
        watch = f"collapse.eigenvalue_every_epochs={every}"
        search = make_search(tmp_path / name, *settings, watch)
        search.run()
        states.append(search._state())
        metrics.append(lines(tmp_path / name))
    assert all(line.pop("architecture/eigenvalue") is not None for line in metrics[0])
    assert metrics[0] == metrics[1]
    first, second = states
    assert all(torch.equal(value, second["model"][k]) for k, value in first["model"].items())
    assert torch.equal(first["logits"], second["logits"])
    assert all(torch.equal(first["rng"][k], second["rng"][k]) for k in first["rng"])
