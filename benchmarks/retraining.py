"""Images a second of a retraining, made faster step by step: `python -m benchmarks.retraining`.

The network and recipe of `experiment=retrain_darts_cifar10` (C=36, 20 cells, batches of 96, with
auxiliary head, drop path and cutout), trained by the loop of `retrain.py`. Each row adds one means
to those before it. Times are medians over steps after a warm-up, which holds what is set up and
compiled and is shown as a figure of its own; losses are read before and after, not in between.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import retrain
from benchmarks.measure import MIB, print_table, save, wait_for
from conf.outline import CONF_DIR
from conf.schema import RetrainConfig, register_schemas
from conf.settings import Launch
from nas.genotype.resolve import resolve_genotype
from nas.optimisation.bilevel import Batch
from nas.training.retrain import Retrain
from nas.training.run import choose_device

BLOCK = 10
"""Steps that are timed together: in a run the host is ahead of the device."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "eager, float32, NCHW, streamed": (
        "channels_last=false",
        "data.storage=stream",
        "data.num_workers=8",
    ),
    "data on the device": ("channels_last=false",),
    "channels last": (),
    "tf32": ("precision=tf32",),
    "bf16": ("precision=bf16",),
    "compile": ("precision=bf16", "compile=true"),
}
"""Settings of each row."""

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = _options(arguments)
    device = choose_device(options.device)
    rows: list[Row] = []
    for name in options.variant:
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"variant": name, **measure(build(name, options, Path(folder)), options)})
        rows[-1]["to first"] = rows[-1]["images/s"] / rows[0]["images/s"]
        print_table(rows)
        if options.output:  # after each: what was measured stays if the next one fails
            kept = {k: str(v) for k, v in vars(options).items() if k != "output"}
            save(options.output, device, kept, rows)


def build(name: str, options: argparse.Namespace, folder: Path) -> Retrain:
    """The retraining of one row, as the program builds it."""
    register_schemas()
    GlobalHydra.instance().clear()
    chosen = [
        *("experiment=retrain_darts_cifar10", f"genotype={options.genotype}"),
        *(f"device={options.device}", f"run_dir={folder}"),
        *VARIANTS[name],
        *options.override,
    ]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = OmegaConf.to_object(hydra.compose("retrain", chosen))
    assert isinstance(config, RetrainConfig)
    launched = Launch(folder, "retrain", (), {}, must_resume=False)
    return retrain.build(config, launched, resolve_genotype(config.genotype))[0]


def measure(run: Retrain, options: argparse.Namespace) -> Row:
    """Images a second, and what the warm-up took."""
    run.epoch = run.epochs // 2  # drop path at half its strength
    run._start_epoch()
    batches, start = batches_of(run), time.perf_counter()
    for _ in range(options.warm_up):
        num_images = run._train_step(next(batches))
    wait_for(run.device)
    warm_up_s = time.perf_counter() - start
    first_loss = run.train.loss
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    times = []
    for _ in range(options.blocks):
        start = time.perf_counter()
        for _ in range(options.block):
            run._train_step(next(batches))
        wait_for(run.device)
        times.append((time.perf_counter() - start) / options.block)
    on_gpu = run.device.type == "cuda"
    return {
        "images/s": num_images / statistics.median(times),
        "step ms": 1000 * statistics.median(times),
        "slowest ms": 1000 * max(times),
        "warm-up s": warm_up_s,
        "peak MiB": torch.cuda.max_memory_allocated(run.device) / MIB if on_gpu else None,
        "loss": first_loss,
    }


def batches_of(run: Retrain) -> Iterator[Batch]:
    """Training batches without end."""
    return chain.from_iterable(run.data.train.epoch(epoch) for epoch in count())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retraining", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--genotype", default="darts_v2", help="default: darts_v2")
    add("--warm-up", type=int, default=20, help="steps that are not timed (default 20)")
    add("--blocks", type=int, default=10, help="whose median counts (default 10)")
    add("--block", type=int, default=BLOCK, help=f"steps in each (default {BLOCK})")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    add("--override", nargs="*", default=[], help="settings of all, such as the data's")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
