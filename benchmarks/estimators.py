"""Bias and variance of the logits' gradients on a real supernet: `python -m benchmarks.estimators`.

On a NAS-Bench-201 supernet, each choice in turn: the others are fixed to a drawn architecture, the
losses of all its options give the exact gradient of the expected loss, and each estimator is drawn
thousands of times against it. At initialisation and after some steps of one-path training.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from torch import Tensor

from benchmarks.measure import print_table, save
from benchmarks.one_choice import (
    Case,
    Draws,
    Moments,
    averaged,
    enumerate_choice,
    running_means,
    summary,
)
from benchmarks.subjects import LOGITS, WEIGHTS
from benchmarks.whole_update import Updates, figures
from nas.data import Cycle, DataSettings, SearchData
from nas.data.load import load_search_data
from nas.kernels.fused import accelerate
from nas.optimisation.bilevel import Batch, Learner
from nas.optimisation.optimizers import Updater
from nas.sampling.gumbel import gumbel_noise, gumbel_softmax
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import NASBench201
from nas.spaces.nasbench201 import OPERATIONS
from nas.supernet import Supernet
from nas.training.run import choose_device, to_device

TEMPERATURES = (10.0, 1.0, 0.1)
NONE = OPERATIONS.index("none")
MIXTURES = 16
"""Relaxed samples of `gumbel_softmax` a case: each is a pass through all operations."""
MIXTURE_TEMPERATURE = 1.0
EXACT = "exact gradient"
# Okabe and Ito's colours, with a mark each for those who see none.
MARKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"))

Row = dict[str, object]


@dataclass(frozen=True)
class OneChoice:
    """One choice of the supernet: its logits `[K]`, its cases, the mixtures `[S, K]` that were run.

    The first mixture is softmax(logits), the others are relaxed samples.
    """

    logits: Tensor
    cases: list[Case]
    mixtures: Tensor


Estimates = Callable[[OneChoice, int, torch.Generator], Iterator[Tensor]]
"""(choice, draws, generator) -> the estimates `[D, K]` of each case."""


def inner_products(
    sampler: str, temperature: float, *, minus_sum: bool = False, baseline: bool = False
) -> Estimates:
    """One path, with or without the authors' baseline or the running mean."""

    def estimates(choice: OneChoice, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        draws = Draws.of(SAMPLERS.get(sampler), choice.logits, temperature, count, generator)
        means = running_means(choice.cases, choice.logits)
        for case, mean in zip(choice.cases, means, strict=True):
            products = case.products - case.sums if minus_sum else case.products
            yield draws.gradients(products, mean if baseline else 0.0)

    return estimates


def losses(passes: int) -> Estimates:
    """The score function of so many samples, one estimate from all of them."""

    def estimates(choice: OneChoice, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        sampler = SAMPLERS.get("score_function")
        draws = Draws.of(sampler, choice.logits, 1.0, count // passes * passes, generator)
        for case in choice.cases:
            yield draws.score_function(case.losses, passes)

    return estimates


def mixed(first: int, last: int) -> Estimates:
    """All operations, at the mixtures from `first` to before `last`."""

    def estimates(choice: OneChoice, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        weights = choice.mixtures[first:last].double()
        temperature = 1.0 if first == 0 else MIXTURE_TEMPERATURE
        for case in choice.cases:
            upstream = case.mixed[first:last]
            # Through the softmax that made the weights.
            along = (weights * upstream).sum(1, keepdim=True)
            yield weights * (upstream - along) / temperature

    return estimates


def estimators(passes: int) -> dict[str, tuple[Estimates, int]]:
    """Every estimator by its label, and how many passes one estimate takes."""
    found: dict[str, tuple[Estimates, int]] = {}
    for t in TEMPERATURES:
        found[f"gdas, t={t:g}"] = inner_products("gdas", t), 1
    for t in TEMPERATURES:
        found[f"gdas_authors, t={t:g}"] = inner_products("gdas", t, minus_sum=True), 1
    for t in TEMPERATURES:
        found[f"gdas + running mean, t={t:g}"] = inner_products("gdas", t, baseline=True), 1
    for t in TEMPERATURES:
        found[f"gumbel_rao, t={t:g}"] = inner_products("gumbel_rao", t), 1
    found["reinmax, t=1"] = inner_products("reinmax", 1.0), 1
    found[f"score_function, {passes} samples"] = losses(passes), passes
    found["softmax (all run)"] = mixed(0, 1), 1
    found[f"gumbel_softmax, t={MIXTURE_TEMPERATURE:g} (all run)"] = mixed(1, 1 + MIXTURES), 1
    return found


def main() -> None:
    """Entry point."""
    options = _options()
    device = choose_device(options.device)
    data = load(options, device)
    learner = make_learner(data, device, options)
    batches, contexts = Cycle(data.train), Cycle(data.validation)
    rows: list[Row] = []
    operations: list[Row] = []
    whole: list[Row] = []
    done = 0
    for steps in sorted(options.steps):
        for _ in range(steps - done):
            learner.update_weights(next(batches))
        done = steps
        choices = enumerate_all(learner, contexts, options.contexts)
        found = compare(choices, options.passes, options.draws)
        about = by_option(choices)
        updates = Updates.of(learner, contexts, options.updates, options.passes)
        complete = compare_updates(learner, updates, options.draws)
        print(f"\nafter {steps} steps, updates of {options.passes} samples\n", flush=True)
        print_table(found)
        print()
        print_table([{k: _short(v) for k, v in row.items()} for row in about])
        print("\nwhole updates: all choices drawn, another batch each\n")
        print_table(complete)
        rows += [{"steps": steps, **row} for row in found]
        whole += [{"steps": steps, **row} for row in complete]
        operations += [{"steps": steps, **row} for row in about]
    if options.output:
        kept = {k: v for k, v in vars(options).items() if k not in ("output", "plot", "data")}
        settings = {"images": data.info.name, **kept}
        tables = {"one_choice": rows, "by_option": operations, "whole_updates": whole}
        save(options.output, device, settings, tables)
    if options.plot:
        plot(rows, whole, options.plot)


def make_learner(data: SearchData, device: torch.device, options: argparse.Namespace) -> Learner:
    """A small supernet whose logits stay at their first values: all options about as likely."""
    space = NASBench201(
        in_channels=data.info.in_channels,
        num_classes=data.info.num_classes,
        channels=options.channels,
        cells_per_stage=options.cells,
    )
    torch.manual_seed(options.seed)
    model = to_device(space.build_supernet(), device, channels_last=True)
    generator = torch.Generator().manual_seed(options.seed)
    supernet = Supernet(accelerate(model, "auto", device), generator)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get("gdas"), generator),
        Updater(model.parameters(), WEIGHTS),
        Updater([supernet.logits], LOGITS),
    )


def enumerate_all(learner: Learner, batches: Iterator[Batch], contexts: int) -> list[OneChoice]:
    """Every choice under the same drawn architectures, each with a batch of its own."""
    generator = torch.Generator().manual_seed(0)
    choices = []
    for row in learner.supernet.logits.detach():
        many = row.expand(MIXTURES, -1)
        noise = gumbel_noise(tuple(many.shape), generator)
        relaxed = gumbel_softmax(many, noise, MIXTURE_TEMPERATURE)
        choices.append(OneChoice(row.clone(), [], torch.cat([row.softmax(-1)[None], relaxed])))
    for _ in range(contexts):
        indices, batch = learner.draw().indices, next(batches)
        assert indices is not None
        for row, choice in enumerate(choices):
            choice.cases.append(enumerate_choice(learner, batch, indices, row, choice.mixtures))
    return choices


def compare(choices: Sequence[OneChoice], passes: int, draws: int) -> list[Row]:
    """The figures of every estimator, and those of the exact gradient for comparison."""
    truths = [[case.exact(choice.logits) for case in choice.cases] for choice in choices]
    exact = [[Moments.of(truth[None], truth) for truth in found] for found in truths]
    rows = [{"estimator": EXACT, **summary(exact, NONE)}]
    for name, (estimate, taken) in estimators(passes).items():
        generator = torch.Generator().manual_seed(1)
        single: list[list[Moments]] = []
        updates: list[list[Moments]] = []
        for choice, found in zip(choices, truths, strict=True):
            pairs = list(zip(estimate(choice, draws, generator), found, strict=True))
            single.append([Moments.of(drawn, truth) for drawn, truth in pairs])
            share = passes // taken
            updates.append([Moments.of(averaged(drawn, share), truth) for drawn, truth in pairs])
        row: Row = {"estimator": name, **summary(updates, NONE)}
        # Of a single sample, where an estimate takes no more.
        row["positive_single"] = summary(single, NONE)["positive"] if taken == 1 else None
        rows.append(row)
    return rows


def compare_updates(learner: Learner, updates: Updates, draws: int) -> list[Row]:
    """The figures of whole updates, against the mean of the score function."""
    logits = learner.supernet.logits

    def drawn(sampler: str, temperature: float) -> tuple[list[Draws], Tensor]:
        generator = torch.Generator().manual_seed(1)
        kind = SAMPLERS.get(sampler)
        found = [Draws.of(kind, row, temperature, draws, generator) for row in logits]
        return found, updates.jacobians(found, generator)

    unbiased = updates.score_function(drawn("score_function", 1.0)[1])
    rows: list[Row] = []
    for t in TEMPERATURES:
        gdas, jacobians = drawn("gdas", t)
        found = {
            "gdas": updates.inner_products(updates.products, jacobians),
            "gdas_authors": updates.inner_products(updates.centred, jacobians),
            "gdas + running mean": updates.running_mean(gdas, jacobians),
        }
        others = {"gumbel_rao"} | ({"reinmax"} if t == 1.0 else set())
        for sampler in sorted(others):
            found[sampler] = updates.inner_products(updates.products, drawn(sampler, t)[1])
        for name, estimates in found.items():
            row = figures(estimates, unbiased, NONE)
            rows.append({"estimator": f"{name}, t={t:g}", **row})
    rows.sort(key=lambda row: str(row["estimator"]).partition(",")[0])
    about = figures(unbiased, unbiased, NONE)
    return [*rows, {"estimator": "score_function", **about}]


def by_option(choices: Sequence[OneChoice]) -> list[Row]:
    """What each option does to the loss on average, and what its inner product says of it."""
    cases = [case for choice in choices for case in choice.cases]
    tables = [torch.stack([getattr(c, n) for c in cases]) for n in ("losses", "products", "sums")]
    found, products, sums = tables
    better = found - found[:, NONE : NONE + 1]  # than none, where negative
    rows: list[Row] = []
    for index, name in enumerate(OPERATIONS):
        row: Row = {"option": name, "loss - loss(none)": float(better[:, index].mean())}
        row["inner product"] = float(products[:, index].mean())
        row["its deviation"] = float(products[:, index].std())
        row["sum(dL/dout)"] = float(sums[:, index].mean())
        if index != NONE:
            pair = torch.stack([better[:, index], products[:, index]])
            row["correlation"] = float(torch.corrcoef(pair)[0, 1])
        rows.append(row)
    return rows


def _short(value: object) -> object:
    return f"{value:.4f}" if isinstance(value, float) else value


def plot(rows: list[Row], whole: list[Row], path: Path) -> None:
    """A line for each estimator and a mark for each number of steps; one choice above."""
    matplotlib.use("Agg")
    from matplotlib import pyplot  # after the choice of a backend without a display

    tables = (("one choice", rows), ("whole updates", whole))
    heights = [len({row["estimator"] for row in table}) for _, table in tables]
    figure, grid = pyplot.subplots(
        2, 3, figsize=(12, 0.28 * sum(heights) + 2), height_ratios=heights, sharey="row"
    )
    labels = {
        "cosine": "cosine of E[g] with the exact gradient",
        "noise": "noise / signal of an update",
        "none_push": "none in E[g], to its norm (> 0: none falls)",
    }
    for (title, table), axes in zip(tables, grid, strict=True):
        for (key, label), axis in zip(labels.items(), axes, strict=True):
            _panel(axis, table, key)
            axis.set(xlabel=label)
            if key == "noise":
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_formatter("{x:g}")
        axes[0].invert_yaxis()
        axes[0].set_title(title, loc="left")
    grid[0, 1].legend(title="training before", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"drawn to {path}")


def _panel(axis: Any, table: list[Row], key: str) -> None:
    names = list(dict.fromkeys(str(row["estimator"]) for row in table))
    stages = list(dict.fromkeys(row["steps"] for row in table))
    for number, (steps, (color, mark)) in enumerate(zip(stages, MARKS, strict=False)):
        points = [
            (row[key], names.index(str(row["estimator"])) + 0.2 * (number - 1))
            for row in table
            if row["steps"] == steps
            and row[key] is not None
            and (row[key] != 0 or key != "noise")  # which has a logarithmic axis
        ]
        values, heights = zip(*points, strict=True) if points else ((), ())
        axis.plot(values, heights, mark, color=color, label=f"{steps} steps", markersize=5)
    axis.set(yticks=range(len(names)), yticklabels=names)
    axis.grid(alpha=0.3)
    if key != "noise":
        axis.axvline(0, color="black", linewidth=0.8)


def load(options: argparse.Namespace, device: torch.device) -> SearchData:
    """The images that the options name."""
    settings = DataSettings()
    if options.data:
        settings = DataSettings(
            name="image_folder",
            path=options.data,
            image_size=options.image_size,
            storage="memory",
            limit=options.limit,
        )
    return load_search_data(
        settings,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
        channels_last=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--steps", nargs="+", type=int, default=[0, 500], help="training before (default 0 500)")
    add("--contexts", type=int, default=32, help="architectures and batches (default 32)")
    add("--draws", type=int, default=20_000, help="of an estimator in a case (default 20000)")
    add("--passes", type=int, default=4, help="forward passes of an update (default 4)")
    add("--updates", type=int, default=600, help="whole updates (default 600)")
    add("--plot", type=Path, help="picture, PNG or SVG")
    add_supernet_options(parser)
    return parser.parse_args()


def add_supernet_options(parser: argparse.ArgumentParser) -> None:
    """Adds which images and which supernet, and where results go."""
    add = partial(parser.add_argument, metavar="")
    add("--data", help="folder of class folders (default: scikit-learn's digits)")
    add("--image-size", type=int, default=16, help="pixels a side, of --data (default 16)")
    add("--limit", type=int, default=5000, help="training images, of --data (default 5000)")
    add("--batch-size", type=int, default=64, help="default 64")
    add("--channels", type=int, default=8, help="C of the supernet (default 8)")
    add("--cells", type=int, default=1, help="N of the supernet (default 1)")
    add("--seed", type=int, default=0, help="default 0")
    add("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    add("--output", type=Path, help="results file, JSON")


if __name__ == "__main__":
    main()
