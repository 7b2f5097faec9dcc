"""What a search step costs: `python -m benchmarks.step`.

Weight step and logits step of the one-path supernet, the same sampled architectures as plain child
networks, and the dense softmax supernet for contrast: interleaved in one process, the fastest of
a few repetitions of each architecture, means over the architectures, and the peak memory.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean

import torch

from benchmarks.authors import AuthorsChild, AuthorsSteps, fits
from benchmarks.measure import Step, Stopwatch, peak_mib, print_table, save, tensors_mib
from benchmarks.roofline import CostCounter, Machine, cost_of
from benchmarks.subjects import ChildSteps, Setting, Space, SupernetSteps, random_batch
from nas.data import Cycle
from nas.data.memory import Augmentation, MemoryLoader
from nas.kernels.graphs import GraphedStep
from nas.optimisation.bilevel import Batch
from nas.spaces import DARTS, NASBench201
from nas.training.allocator import keep_freed_memory
from nas.training.run import PRECISIONS, autocast_for, choose_device, use_precision

SPACES: dict[str, Space] = {
    "nasbench201": NASBench201(in_channels=3, num_classes=10),
    "darts_8_cells": DARTS(in_channels=3, num_classes=10, cells=8),
    "darts_6_cells": DARTS(in_channels=3, num_classes=10, cells=6),  # as the GDAS authors use it
}
KERNELS = ("plain", "fused", "compiled")
CHILD, CHILD_NCHW, CHILD_GRAPH = "child", "child NCHW", "child, one graph"
LOADING = "a batch of images"
AUTHORS_CHILD = "child, authors"
DENSE_ROUNDS = 1
COUNTED = (CHILD, "weight step, plain", "logits step, plain")
"""Whose operations are counted: what has to be done, not what fusing saves of it."""

Row = dict[str, object]


def main() -> None:
    """Entry point."""
    options = _options()
    device = choose_device(options.device)
    keep_freed_memory()
    use_precision(options.precision)
    machine = Machine.measured(device, options.precision) if options.roofline else None
    rows: list[Row] = []
    for name in options.space:
        for batch_size in options.batch_size:
            setting = Setting(
                SPACES[name],
                random_batch(batch_size, device),
                autocast_for(options.precision, device),
            )
            print(f"\n{name}, batch {batch_size}, {options.precision}", flush=True)
            found = compare(setting, options, machine)
            print_table(found)
            rows += [{"space": name, "batch": batch_size, **row} for row in found]
    if options.output:
        settings = {k: v for k, v in vars(options).items() if k not in ("output", "authors")}
        save(options.output, device, settings | (vars(machine) if machine else {}), rows)


def compare(
    setting: Setting, options: argparse.Namespace, machine: Machine | None = None
) -> list[Row]:
    """Times all subjects on the same architectures; one row a step.

    With a `machine` also the least time that it needs, and how many operations it is asked for.
    """
    authors: Path | None = options.authors
    names = (*KERNELS, "graphs") if setting.device.type == "cuda" else KERNELS
    one_path = {kernels: SupernetSteps(setting, "gdas", kernels) for kernels in names}
    dense = SupernetSteps(setting, "softmax", "plain")
    theirs = AuthorsSteps(setting, authors) if authors and fits(setting.space) else None
    watch, batches = Stopwatch(setting.device), _batches(setting)
    counts: dict[str, list[CostCounter]] = {}
    for number in range(-options.warm_up, options.rounds):
        architecture = number + options.warm_up
        genotype = one_path["plain"].genotype(architecture)
        steps: dict[str, Step] = {LOADING: partial(next, batches)}
        for kernels, subject in one_path.items():
            found = subject.steps(architecture)
            steps |= {f"{step}, {kernels}": run for step, run in found.items()}
        for name, channels_last in ((CHILD, True), (CHILD_NCHW, False)):
            child = ChildSteps(setting, genotype, channels_last=channels_last)
            steps[name] = child.step
            if channels_last and setting.device.type == "cuda":
                steps[CHILD_GRAPH] = partial(GraphedStep(child.train, setting.device), *child.batch)
        if authors and theirs:
            steps |= {f"{step}, authors": run for step, run in theirs.steps(genotype).items()}
            if not isinstance(setting.space, DARTS):
                steps[AUTHORS_CHILD] = AuthorsChild(setting, genotype, authors).step
        _repeat(watch, number, steps, options.repeats if number >= 0 else 0)
        if machine and number >= 0:
            for name in COUNTED:
                counts.setdefault(name, []).append(cost_of(steps[name], machine))
    # Dense steps need gigabytes: not between the others.
    for number in range(DENSE_ROUNDS):
        steps = {f"{step}, dense": run for step, run in dense.steps(number).items()}
        _repeat(watch, number, steps, repeats=1)
    return _rows(watch, _memory(setting, one_path, dense, options.rounds), counts)


def _repeat(watch: Stopwatch, number: int, steps: dict[str, Step], repeats: int) -> None:
    """Times `steps` in turn, `repeats` times, after one round that is not timed."""
    for repetition in range(1 + repeats):
        for name, step in steps.items():
            if repetition == 0:
                step()  # fills caches for this architecture, compiles
            else:
                watch.time(name, number, step)


def _batches(setting: Setting) -> Iterator[Batch]:
    """Batches of CIFAR-10's size and augmentation, as a search draws them from memory."""
    images = torch.randint(256, (4096, 3, 32, 32), dtype=torch.uint8).to(setting.device)
    loader = MemoryLoader(
        images,
        torch.zeros(len(images), dtype=torch.long, device=setting.device),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        batch_size=len(setting.batch[1]),
        augmentation=Augmentation(crop_padding=4, flip=True),
        channels_last=True,
    )
    return Cycle(loader)


def _memory(
    setting: Setting, one_path: dict[str, SupernetSteps], dense: SupernetSteps, rounds: int
) -> dict[str, tuple[float, float]]:
    """Peak of a step above what stays, and what stays, in MiB: mean over a few architectures."""
    found: dict[str, tuple[float, float]] = {}
    numbers = range(min(4, rounds))
    children = [
        ChildSteps(setting, one_path["plain"].genotype(number), channels_last=True)
        for number in numbers
    ]
    for child in children:
        child.step()
    peaks = [peak_mib(child.step, setting.device) for child in children]
    stays = [tensors_mib(child.static_tensors()) for child in children]
    found[CHILD] = (sum(peaks) / len(peaks), sum(stays) / len(stays))
    for name, subject in [*one_path.items(), ("dense", dense)]:
        for step in subject.steps(0):
            chosen = numbers if name != "dense" else range(1)
            peaks = [peak_mib(subject.steps(n)[step], setting.device) for n in chosen]
            stays_mib = tensors_mib(subject.static_tensors())
            found[f"{step}, {name}"] = (sum(peaks) / len(peaks), stays_mib)
    return found


def _rows(
    watch: Stopwatch,
    memory: dict[str, tuple[float, float]],
    counts: dict[str, list[CostCounter]],
) -> list[Row]:
    fastest = min((CHILD, CHILD_NCHW), key=watch.mean_ms)
    rows: list[Row] = []
    for name in watch.names:
        row: Row = {"step": name, "ms": watch.mean_ms(name)}
        row["to child"] = watch.ratio(name, fastest)
        if AUTHORS_CHILD in watch.names:
            row["to authors' child"] = watch.ratio(name, AUTHORS_CHILD)
        if name in counts:
            row["roofline ms"] = 1000 * mean(count.roofline_s for count in counts[name])
            row["operations"] = round(mean(count.num_operations for count in counts[name]))
        if name in memory:
            row["peak MiB"], row["stays MiB"] = memory[name]
            row["peak to child"] = memory[name][0] / memory[CHILD][0]
        rows.append(row)
    return sorted(rows, key=lambda row: row["ms"])  # type: ignore[arg-type, return-value]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    add("--batch-size", nargs="+", type=int, default=[64, 256], help="default: 64 256")
    add("--rounds", type=int, default=16, help="architectures that are timed (default 16)")
    add("--repeats", type=int, default=5, help="how often each (default 5)")
    add("--warm-up", type=int, default=10, help="architectures before them (default 10)")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--roofline", action="store_true", help="count operations and bytes, too")
    add("--authors", type=Path, help="checkout of D-X-Y/AutoDL-Projects, to run it too")
    add("--output", type=Path, help="results file, JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
