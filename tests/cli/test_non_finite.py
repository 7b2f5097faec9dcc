"""Runs whose numbers leave the finite: what they say, what they keep, how they go on."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY_RETRAIN, TINY_SEARCH

from nas.data import Loader
from nas.optimisation.bilevel import Batch
from nas.training.checkpoint import last_checkpoint, load_checkpoint
from nas.training.loop import Loop
from nas.training.retrain import Retrain
from nas.training.search import Search

pytestmark = pytest.mark.faults

Run = Callable[..., tuple[int, str]]

_PROGRAMS: dict[str, tuple[type[Loop], tuple[str, ...]]] = {
    "search": (Search, TINY_SEARCH),  # 4 steps an epoch
    "retrain": (Retrain, ("genotype=nasbench201_resnet", *TINY_RETRAIN)),  # 8
}


def break_images(
    monkeypatch: pytest.MonkeyPatch, loop: type[Loop], step: int, times: int
) -> list[float]:
    """The images of `step` are NaN so many times; returns the learning rates of all its tries."""
    rates: list[float] = []
    init = loop.__init__

    class Broken:
        def __init__(self, loader: Loader, run: Loop) -> None:
            self._loader, self._run = loader, run
            self.num_batches, self.batch_size = loader.num_batches, loader.batch_size

        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for number, (images, labels) in enumerate(self._loader.epoch(epoch, start), start):
                if epoch * self.num_batches + number == step:
                    rates.append(self._run._updaters[0].learning_rate)
                    if len(rates) <= times:
                        images = images * math.nan
                yield images, labels

    def broken(self: Loop, *arguments: object, **named: object) -> None:
        init(self, *arguments, **named)
        self._loader = Broken(self._loader, self)

    monkeypatch.setattr(loop, "__init__", broken)
    return rates


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("program", sorted(_PROGRAMS))
def test_a_loss_that_is_not_finite_ends_the_run_before_it_does_harm(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    loop, settings = _PROGRAMS[program]
    with monkeypatch.context() as patched:
        break_images(patched, loop, step=9, times=1)
        code, output = run_program(program, *settings, "epochs=3", f"run_dir={tmp_path}")
    assert code == 1
    last = output.strip().splitlines()[-1]
    epoch = 3 if program == "search" else 2
    assert last.startswith(
        f"error: step 10 (epoch {epoch}): the training loss is nan, first the images:"
    )
    assert "the last checkpoint is from before it" in last and "Traceback" not in output
    state = load_checkpoint(last_checkpoint(tmp_path), program)
    assert state["step"] == 8
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    # The cause is gone (it was in this test), so the run goes on and ends.
    code, output = run_program(program, f"run_dir={tmp_path}", "resume=true")
    assert code == 0, output


def test_the_option_that_made_it_is_named(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = Search._train_step

    def broken(search: Search, batch: Batch) -> int:
        if search.step == 2:
            with torch.no_grad():  # whatever is drawn for this edge
                choice = next(m for m in search.supernet._modules if m.name == "cell/0->1")
                for parameter in choice.candidates.parameters():
                    parameter.mul_(math.inf)
                for candidate in choice.candidates:
                    candidate.register_forward_hook(lambda m, x, out: out * math.nan)
        return train_step(search, batch)

    monkeypatch.setattr(Search, "_train_step", broken)
    operations = "space.operations=[nor_conv_1x1,nor_conv_3x3]"
    code, output = run_program(
        "search", *TINY_SEARCH, operations, "kernels=plain", f"run_dir={tmp_path}"
    )
    assert code == 1
    last = output.strip().splitlines()[-1]
    assert "step 3 (epoch 1): the training loss is nan, first the weights of " in last
    assert ", that is cell/0->1: nor_conv_" in last


@pytest.mark.parametrize("program", sorted(_PROGRAMS))
def test_a_run_goes_back_and_on_with_lower_rates(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    loop, settings = _PROGRAMS[program]
    rates = break_images(monkeypatch, loop, step=9, times=2)
    going_back = ("non_finite.action=roll_back", "non_finite.factor=0.1")
    code, output = run_program(program, *settings, "epochs=3", *going_back, f"run_dir={tmp_path}")
    assert code == 0, output
    lines = {line for line in output.splitlines() if "going on from step 8" in line}
    assert len(lines) == 2 and all(
        "the training loss is nan, first the images;" in line for line in lines
    )
    assert rates == pytest.approx([rates[0], rates[0] / 10, rates[0] / 100])
    steps = steps_of(tmp_path)
    assert steps == sorted(set(steps)) and len(steps) == 3
    state = load_checkpoint(last_checkpoint(tmp_path), program)
    assert (state["roll_backs"], state["epoch"]) == (2, 3)
    # What was lowered stays so in a run that is resumed.
    assert (
        state["weights_optimizer" if program == "search" else "optimizer"]["param_groups"][0]["lr"]
        < rates[0] / 50
    )


def test_a_run_does_not_go_back_for_ever(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = break_images(monkeypatch, Search, step=1, times=99)
    code, output = run_program(
        "search",
        *TINY_SEARCH,
        "non_finite.action=roll_back",
        "non_finite.max_times=2",
        f"run_dir={tmp_path}",
    )
    assert code == 1 and len(rates) == 3
    assert output.strip().splitlines()[-1].startswith("error: step 2 (epoch 1): the training loss")


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_step = Retrain._train_step

    def broken(run: Retrain, batch: Batch) -> int:
        images = train_step(run, batch)
        if run.step == 15:  # the last of the second epoch
            with torch.no_grad():
                next(run.network.parameters()).fill_(math.inf)
        return images

    monkeypatch.setattr(Retrain, "_train_step", broken)
    code, output = run_program(
        "retrain", *_PROGRAMS["retrain"][1], "evaluate_every_epochs=9", f"run_dir={tmp_path}"
    )
    assert code == 1 and "error: after step 16 the weights are not finite" in output
    assert load_checkpoint(last_checkpoint(tmp_path), "retrain")["step"] == 8
