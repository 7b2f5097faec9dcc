"""Short trainings of many networks, side by side and on record."""

import csv
import io
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.data import Cycle, Loader
from nas.files import replace_text
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.kernels.graphs import GraphedStep
from nas.network import build_network
from nas.optimisation.bilevel import Batch
from nas.optimisation.finite import NonFiniteLossError
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.spaces import Custom
from nas.training.run import num_cores, to_device
from nas.training.search import Search
from nas.training.tuning import mean_of_second_half

RECORD = "trainings.csv"
_COLUMNS = ["architecture", "network", "steps", "loss"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the networks are trained.

    Attributes:
        sizes: Sizes of their network by name; what is missing has the space's default.
        weights: Their optimiser; the learning rate stays as it is.
        seed: Of the initial weights, the same for all.
        channels_last: Memory layout of the weights.
        graphs: Whether steps may be CUDA graphs.
    """

    sizes: Mapping[str, Any]
    weights: OptimizerSettings
    seed: int
    channels_last: bool
    graphs: bool = True


class Trainings:
    """Networks that are trained side by side; one that is asked for again goes on where it was.

    It keeps the weights and momentum of all of them, which is little beside what a step needs.
    Losses are on record in the folder of the search: one that was stopped meanwhile, or derives
    once more, does not train again for them.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        run: Search,
        on_step: Callable[[int], None] = lambda num_networks: None,
    ) -> None:
        """Args:
        settings: How they are trained.
        run: The search, whose training images and first batches all of them see.
        on_step: Called with the number of networks that have made a step; with as many as they
            have ever made of those that are on record.
        """
        self._settings, self._run, self._on_step = settings, run, on_step
        self._record = _Record(run.folder.path / RECORD, settings.sizes)
        self._entrants: dict[str, _Entrant] = {}
        self._counted: defaultdict[str, int] = defaultdict(int)

    def losses(self, genotypes: Sequence[Genotype], steps: int) -> list[float]:
        """The loss per image of each genotype's network in the second half of its first `steps`.

        Summed over a training it ranks architectures better than the accuracy after it does (Ru et
        al., 2021, "Speedy Performance Estimation for Neural Architecture Search",
        arXiv:2006.04492). Within one epoch each loss is that of images not seen before. A network
        that diverges has an infinite one.
        """
        by_name = {genotype_text(genotype): genotype for genotype in genotypes}
        known = [name for name in by_name if (name, steps) in self._record.losses]
        self._count(known, steps)
        new = {name: self._entrant(name, by_name[name]) for name in by_name if name not in known}
        if new:
            self._train(new, steps)
            self._record.add({(name, steps): entrant.loss(steps) for name, entrant in new.items()})
        return [self._record.losses[genotype_text(genotype), steps] for genotype in genotypes]

    def _entrant(self, name: str, genotype: Genotype) -> "_Entrant":
        if name not in self._entrants:
            self._entrants[name] = _Entrant(self._settings, self._run, genotype)
        return self._entrants[name]

    def _train(self, entrants: Mapping[str, "_Entrant"], steps: int) -> None:
        start = min(entrant.num_steps for entrant in entrants.values())
        numbers, batches = range(start, steps), _Batches(self._run.data.train, start)
        before = torch.get_rng_state()
        self._one_by_one(entrants, batches, numbers[:1])
        # Draws (dropout) come from one generator: in which order must not depend on threads.
        draws = not torch.equal(before, torch.get_rng_state())
        if draws or self._run.supernet.device.type != "cpu":
            self._one_by_one(entrants, batches, numbers[1:])
        else:
            self._side_by_side(entrants, batches, steps)
        for entrant in entrants.values():
            entrant.rest()

    def _one_by_one(
        self, entrants: Mapping[str, "_Entrant"], batches: "_Batches", numbers: range
    ) -> None:
        for number in numbers:
            due = [name for name, entrant in entrants.items() if entrant.num_steps == number]
            for name in due:
                entrants[name].step(batches[number])
            self._count(due, number + 1)
            batches.drop_below(number + 1)

    def _side_by_side(
        self, entrants: Mapping[str, "_Entrant"], batches: "_Batches", steps: int
    ) -> None:
        """Trains on all cores, each step of a network on one of them.

        Two small networks on a core each take little more than half the time that they take one
        after the other on two: their operations are too small to be shared. Whose turn is longest
        ago comes next, so no core waits for the end of a round.
        """
        num_threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(num_cores(), initializer=torch.set_num_threads, initargs=(1,))

        def submitted(name: str) -> Future[None]:
            return pool.submit(entrants[name].step, batches[entrants[name].num_steps])

        try:
            running = {submitted(name): name for name, e in entrants.items() if e.num_steps < steps}
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    done = entrants[name].num_steps
                    if done < steps:
                        running[submitted(name)] = name
                    self._count([name], done)
                batches.drop_below(min(entrant.num_steps for entrant in entrants.values()))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(num_threads)

    def _count(self, names: Iterable[str], steps: int) -> None:
        """Tells of the steps of these networks up to `steps` that were not told of before."""
        further = 0
        for name in names:
            further += max(steps - self._counted[name], 0)
            self._counted[name] = max(steps, self._counted[name])
        if further:
            self._on_step(further)


class _Entrant:
    """A network in training.

    Attributes:
        num_steps: How many it has made.
    """

    def __init__(self, settings: TrainingSettings, run: Search, genotype: Genotype) -> None:
        info = run.data.info
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = build_network(
                genotype, settings.sizes, in_channels=info.in_channels, num_classes=info.num_classes
            )
        self._network = to_device(network, run.supernet.device, settings.channels_last).train()
        self._learner, self._device = run.learner, run.supernet.device
        # Models of users may decide by what they compute, what then has gradients too.
        is_constant, on_gpu = not isinstance(run.space, Custom), self._device.type == "cuda"
        # One kernel on a CPU: many, each called from Python, hold up the networks beside this one.
        self._updater = Updater(
            self._network.parameters(), settings.weights, fused=is_constant and not on_gpu
        )
        # Of optimisers SGD alone keeps all that changes on the device.
        is_sgd = settings.weights.name == "sgd"
        self._has_graph = settings.graphs and on_gpu and is_constant and is_sgd
        self._graphed: GraphedStep | None = None
        self._losses: list[Tensor] = []
        self._has_diverged = False
        self.num_steps = 0

    def step(self, batch: Batch) -> None:
        self.num_steps += 1
        if self._has_diverged:
            return
        if self._has_graph and self._graphed is None:
            self._graphed = GraphedStep(self._train, self._device)
        step = self._train if self._graphed is None else self._graphed
        try:
            self._losses.append(step(*batch))
        except NonFiniteLossError:  # a norm to be clipped; the others go on
            self._has_diverged = True

    def _train(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._learner.autocast():
            loss = self._learner.loss(self._network(images), labels)
        loss.backward()
        self._updater.step()
        return loss.detach()

    def rest(self) -> None:
        """Lets go of what only steps need: a graph has much memory, and the two hold each other."""
        if self._graphed is not None:
            self._graphed.join()
        self._graphed = None

    def loss(self, steps: int) -> float:
        return math.inf if self._has_diverged else mean_of_second_half(self._losses[:steps])


class _Batches:
    """The batches of a loader by number, as long as somebody may ask for them."""

    def __init__(self, loader: Loader, start: int) -> None:
        self._left = Cycle(loader, start)
        self._kept: dict[int, Batch] = {}

    def __getitem__(self, number: int) -> Batch:
        while self._left.step <= number:
            following = self._left.step
            self._kept[following] = next(self._left)
        return self._kept[number]

    def drop_below(self, number: int) -> None:
        for old in [kept for kept in self._kept if kept < number]:
            del self._kept[old]


class _Record:
    """The losses of finished trainings, as a file: genotype, sizes of the network, steps, loss.

    All else that a loss depends on is fixed by the folder of the run. Losses of networks of other
    sizes, by which the search was derived from before, stay in the file.

    Attributes:
        losses: By genotype and number of steps, of networks of the present sizes.
    """

    def __init__(self, path: Path, sizes: Mapping[str, Any]) -> None:
        self._path = path
        self._sizes = " ".join(f"{name}={value}" for name, value in sorted(sizes.items()))
        self._others: list[tuple[str, str, str, str]] = []
        self.losses: dict[tuple[str, int], float] = {}
        if not path.exists():
            return
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
                if rows[:1] != [_COLUMNS]:
                    raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
                for name, sizes_of_row, steps, loss in rows[1:]:
                    if sizes_of_row == self._sizes:
                        self.losses[name, int(steps)] = float(loss)
                    else:
                        self._others.append((name, sizes_of_row, steps, loss))
        except (OSError, ValueError, csv.Error) as error:
            _log.warning("%s cannot be read (%s): networks are trained anew", path, error)
            self._others, self.losses = [], {}

    def add(self, losses: Mapping[tuple[str, int], float]) -> None:
        """Writes the file with `losses` in it."""
        self.losses.update(losses)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self._others)
        for (name, steps), loss in self.losses.items():
            writer.writerow([name, self._sizes, steps, repr(loss)])
        replace_text(self._path, text.getvalue())
