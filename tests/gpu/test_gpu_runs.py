"""Whole runs on the GPU: repeated, resumed, long ones; retrained, exported, used on a CPU."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RETRAIN
from gpu_helpers import (
    batches_on,
    bilevel_of,
    counted_waits,
    in_use,
    learner_on,
    learns,
    make_retrain_on,
    make_search_on,
)
from safetensors.torch import load_file
from supernet_helpers import SPACES

import nas
from nas.sampling.samplers import SAMPLERS
from nas.training.run import StopRequest

pytestmark = pytest.mark.gpu

LONG = int(os.environ.get("NAS_TEST_STEPS", "2000"))
REPEATED = [(space, "plain") for space in SPACES] + [
    ("nasbench201", "fused"),
    ("nasbench201", "compiled"),
]


@pytest.fixture(autouse=True)
def _algorithms_of_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


class Silent:
    """A progress display that never asks for figures."""

    def is_due(self, step: int) -> bool:
        return False


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_epoch_waits_once_a_step(device: torch.device, tmp_path: Path, precision: str) -> None:
    search = make_search_on(device, tmp_path, "data.limit=1024", f"precision={precision}")
    search._train_epoch(Silent(), StopRequest())  # type: ignore[arg-type]
    search.epoch, search.step_in_epoch = 1, 0
    with counted_waits(device) as waits:
        search._train_epoch(Silent(), StopRequest())  # type: ignore[arg-type]
    steps = search._loader.num_batches
    # Beside the inner products of a step: the order of the images, twice, and the loss at the end.
    assert steps == 16 and len(waits) <= steps + 4, waits


def same_state(a: Any, b: Any) -> bool:
    """Whether two searches have the same bits in weights, buffers, logits and momentum."""
    states = [
        [
            *run.supernet.model.state_dict().values(),
            run.supernet.logits.detach(),
            *(s["momentum_buffer"] for s in run.learner.weights.optimizer.state.values()),
        ]
        for run in (a, b)
    ]
    return all(torch.equal(x, y) for x, y in zip(*states, strict=True))


@pytest.mark.parametrize(("space", "kernels"), REPEATED)
def test_a_deterministic_search_repeats_to_the_bit(
    device: torch.device, tmp_path: Path, space: str, kernels: str
) -> None:
    given = ("deterministic=true", f"space={space}", f"kernels={kernels}", *small(space))
    runs = [make_search_on(device, tmp_path / str(n), *given) for n in range(2)]
    for run in runs:
        run.run()
    assert same_state(*runs)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("sampler", ["gdas", "gdas_authors", "softmax", "score_function"])
def test_a_resumed_search_equals_one_that_was_not_stopped(
    device: torch.device, tmp_path: Path, sampler: str
) -> None:
    given = ("deterministic=true", f"sampler={sampler}")
    whole = make_search_on(device, tmp_path / "whole", *given)
    whole.run()
    first = make_search_on(device, tmp_path / "stopped", *given)
    first.epochs = 1
    first.run()
    second = make_search_on(device, tmp_path / "stopped", *given)
    second.load()
    assert second.epoch == 1
    second.run()
    assert same_state(whole, second)


def test_a_resumed_retraining_equals_one_that_was_not_stopped(
    device: torch.device, tmp_path: Path
) -> None:
    given = ("deterministic=true", "drop_path=0.2", "ema_decay=0.9")
    whole = make_retrain_on(device, tmp_path / "whole", *given)
    whole.run()
    first = make_retrain_on(device, tmp_path / "stopped", *given)
    first.epochs = 1
    first.run()
    second = make_retrain_on(device, tmp_path / "stopped", *given)
    second.load()
    second.run()
    for module, other in zip(whole._modules(), second._modules(), strict=True):
        pairs = zip(module.state_dict().values(), other.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_memory_is_flat_over_many_steps(device: torch.device, sampler: str) -> None:
    learner = learner_on(device, "nasbench201", sampler)
    bilevel, (train, validation) = bilevel_of(learner), batches_on(device, 2, 4)
    looks = []
    for step in range(LONG):
        if step % max(1, LONG // 10) == 0 and 2 * step >= LONG:
            looks.append(in_use(device))
        bilevel.step(0, train, iter([validation] * 4), learn_logits=learns(learner))
    assert len(looks) >= 3 and len(set(looks)) == 1, looks


@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_trains_with_all_that_is_fast(
    device: torch.device, tmp_path: Path, compiled: bool
) -> None:
    fast = ("precision=bf16", "channels_last=true", f"compile={compiled}", "ema_decay=0.9")
    run = make_retrain_on(device, tmp_path, "epochs=4", "data.limit=1024", *fast)
    images, _ = next(iter(run.data.train.epoch(0)))
    assert images.device.type == device.type
    assert images.is_contiguous(memory_format=torch.channels_last)
    before = [p.detach().clone() for p in run.network.parameters()]
    run.run()
    assert run.result is not None and run.result.top1 > 30, "of ten classes"
    pairs = zip(run.network.parameters(), before, strict=True)
    assert all(not torch.equal(p, was) for p, was in pairs)


def test_what_the_gpu_has_trained_is_used_on_a_cpu(
    device: torch.device, tmp_path: Path, run_program: Callable[..., tuple[int, str]]
) -> None:
    run_dir, exported = tmp_path / "run", tmp_path / "exported"
    given = ("genotype=nasbench201_resnet", f"device={device}", f"run_dir={run_dir}")
    code, output = run_program("retrain", *TINY_RETRAIN, "precision=bf16", *given)
    assert code == 0, output
    weights = load_file(run_dir / "model.safetensors")
    assert {tensor.device.type for tensor in weights.values()} == {"cpu"}
    code, output = run_program(
        "export", f"run={run_dir}", f"output={exported}", "formats=[safetensors]"
    )
    assert code == 0, output
    network = nas.load(exported).eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = network(images), network.to(device)(images.to(device)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def small(space: str) -> tuple[str, ...]:
    return () if space == "nasbench201" else ("space.cells=3", "space.nodes=2", "space.channels=8")
