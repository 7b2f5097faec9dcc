"""Ranks on gloo: what they exchange, and that a search does not depend on how many there are."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks_worker
import torch
from conftest import ROOT, slow

from nas.data.memory import Augmentation, MemoryLoader
from nas.distributed import ALONE, Ranks

Found = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[2, slow(4)])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank has found."""
    folder = tmp_path_factory.mktemp("ranks")
    worker = [str(Path(ranks_worker.__file__)), str(folder)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", str(request.param), *worker],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]
    assert [result["size"] for result in results] == [request.param] * request.param
    return results


def equal(one: Any, other: Any) -> bool:
    """To the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return torch.equal(one, other)


@pytest.mark.parametrize("case", ranks_worker.CASES)
def test_all_ranks_hold_the_same_bits(found: Found, case: str) -> None:
    first = found[0][case]
    for other in found[1:]:
        for what in ("model", "logits", "samples", "draw"):
            assert equal(first[what], other[case][what]), what


@pytest.mark.parametrize("case", ranks_worker.CASES)
def test_ranks_do_what_one_does_on_the_whole_batch(found: Found, case: str) -> None:
    settings = ranks_worker.CASES[case]
    alone = ranks_worker.trained(ALONE, **settings)
    start = ranks_worker.Toy(norm="norm" in settings).state_dict()
    for name, value in alone["model"].items():
        torch.testing.assert_close(found[0][case]["model"][name], value, rtol=1e-4, atol=2e-6)
        if name.startswith("stem.weight"):
            assert (value - start[name]).abs().max() > 1e-3, "the weights have learned"
    # A finite difference divides float noise by its radius.
    tolerance = 5e-3 if case == "second order" else 1e-5
    together = found[0][case]["logits"]
    torch.testing.assert_close(together, alone["logits"], rtol=tolerance, atol=tolerance)
    assert torch.equal(found[0][case]["samples"].argmax(-1), alone["samples"].argmax(-1))
    assert torch.equal(found[0][case]["draw"], alone["draw"])
    means = torch.tensor([result[case]["losses"] for result in found]).mean(0)
    torch.testing.assert_close(means, torch.tensor(alone["losses"]), rtol=1e-4, atol=1e-5)


def test_a_gradient_that_some_ranks_lack_counts_as_zero_there(found: Found) -> None:
    size = len(found)
    mean = sum(range(size)) / size
    of_even = sum(10 + rank for rank in range(0, size, 2)) / size
    for result in found:
        everywhere, even, one, nowhere, frozen = result["averaged"]
        assert torch.equal(everywhere, torch.full((2, 3), mean))
        assert torch.equal(even, torch.full((2, 3), of_even))
        assert torch.equal(one, torch.full((2, 3), 21 / size))
        assert nowhere is None and frozen is None


def test_what_is_exchanged(found: Found) -> None:
    size = len(found)
    mean = (size + 1) / 2
    for rank, result in enumerate(found):
        got = result["exchanged"]
        assert [t.tolist() for t in got["shared"]] == [[mean, 2 * mean], [-mean, -2 * mean]]
        each = [[float(r), 2.0 * r] for r in range(1, size + 1)]
        both = [row for pair in each for row in (pair, [-pair[0], -pair[1]])]
        assert [t.tolist() for t in got["own"]] == both
        assert got["sums"] == pytest.approx([sum(range(size)) + 0.1 * size, size])
        assert got["mean"] == pytest.approx((size - 1) / 2)
        assert got["largest"] == 10 and got["gathered"] == [f"rank {r}" for r in range(size)]
        count = 8 // size
        assert got["groups"] == list(range(rank * count, (rank + 1) * count))
        assert got["one group"] == ["all"]
        assert not got["copied"].any()
        assert got["buffers"]["running_mean"].tolist() == [(size - 1) / 2] * 3
        assert int(got["buffers"]["num_batches_tracked"]) == 0


def test_batch_norm_over_all_ranks_is_that_of_the_whole_batch(found: Found) -> None:
    whole = ranks_worker.normalised(ALONE)
    for name in ("outputs", "first", "second", "evaluated"):
        together = torch.cat([result["normalised"][name] for result in found])
        torch.testing.assert_close(together, whole[name], rtol=1e-9, atol=1e-9)
    for name in (n for n in whole if n.startswith("buffer")):
        for result in found:
            torch.testing.assert_close(result["normalised"][name], whole[name], rtol=1e-12, atol=0)


def test_after_they_have_left_each_is_alone_and_the_first_goes_on(found: Found) -> None:
    assert [result["left"] for result in found] == [
        [rank == 0, 0, 1, 5.0] for rank in range(len(found))
    ]


def loader(ranks: Ranks, augmentation: Augmentation | None) -> MemoryLoader:
    pixels = torch.randint(
        256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return MemoryLoader(
        pixels,
        torch.arange(50),
        (0.5, 0.5, 0.5),
        (0.2, 0.2, 0.2),
        batch_size=12,
        augmentation=augmentation,
        ranks=ranks,
    )


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_parts_of_a_training_batch_make_it_up(size: int) -> None:
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=3)
    whole = list(loader(ALONE, augmentation).epoch(3, 1))
    parts = [list(loader(Ranks(r, size), augmentation).epoch(3, 1)) for r in range(size)]
    assert len(whole) == 3
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_batch_of_an_evaluation_is_one_ranks(size: int) -> None:
    whole = list(loader(ALONE, None).epoch(0))
    parts = [list(loader(Ranks(r, size), None).epoch(0)) for r in range(size)]
    dealt = [parts[step % size][step // size] for step in range(len(whole))]
    assert sum(map(len, parts)) == len(whole) == 5
    for (images, labels), (dealt_images, dealt_labels) in zip(whole, dealt, strict=True):
        assert torch.equal(images, dealt_images) and torch.equal(labels, dealt_labels)
