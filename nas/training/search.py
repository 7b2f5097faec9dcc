"""The search loop: epochs of bilevel steps, evaluation of the present genotype, monitoring."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch
from torch import nn

from nas.cost.budget import Budget, WithinBudget, expected_cost
from nas.data import Cycle, SearchData
from nas.deriving.deriver import derive_argmax
from nas.deriving.recalibration import buffers_restored, generators_restored, recalibrate
from nas.distributed import ALONE, Ranks
from nas.genotype import Genotype
from nas.genotype.text import genotype_text, short_text
from nas.monitor.memory import memory_metrics
from nas.monitor.run_log import RunLog
from nas.monitor.search import SearchMonitor
from nas.optimisation.bilevel import Alternating, Batch, SingleLevel
from nas.optimisation.collapse import CollapseSettings, CollapseWatch
from nas.optimisation.curvature import dominant_eigenvalue
from nas.optimisation.finite import (
    NonFiniteLossError,
    NonFiniteSettings,
    all_finite,
    first_non_finite,
)
from nas.sampling.samplers import SampleSource, linear_temperature
from nas.spaces import SearchSpace
from nas.supernet import Sample
from nas.tables.benchmark_table import BenchmarkTable
from nas.training import checkpoint
from nas.training.loop import Loop, RunFolder
from nas.training.run import EpochTime, Meter

MAX_PICTURES = 50


@dataclass(frozen=True, kw_only=True)
class SearchSchedule:
    """How long a search runs and what happens when.

    Attributes:
        epochs: Passes over the training half.
        warmup_epochs: Epochs at the start in which only the weights are trained.
        temperature_start: Temperature of the first epoch.
        temperature_end: Temperature of the last; in between on a straight line.
        evaluate_every_epochs: How often the present genotype is evaluated on the validation half;
            always after the last epoch.
        checkpoint_every_steps: Checkpoints within an epoch; 0 for only at the end of each.
        pruning: How many options each choice keeps, by the number of epochs done before it.
        recalibration_batches: Training batches from which the running statistics of an architecture
            are estimated before it is scored; 0 takes those that the training has left.
        collapse: What ends a search early.
    """

    epochs: int
    warmup_epochs: int = 0
    temperature_start: float = 1.0
    temperature_end: float = 1.0
    evaluate_every_epochs: int = 1
    checkpoint_every_steps: int = 0
    pruning: Mapping[int, int] = field(default_factory=dict)
    recalibration_batches: int = 0
    collapse: CollapseSettings = field(default_factory=CollapseSettings)

    def temperature(self, epoch: int) -> float:
        """That of `epoch`, from 0."""
        start, end = self.temperature_start, self.temperature_end
        return linear_temperature(start, end, epoch, self.epochs)


class Search(Loop):
    """Searches: trains a supernet and its logits.

    Attributes:
        validation: Loss and accuracy of the epoch on the images that train the logits.
        validation_accuracy: Of the last genotype that was evaluated, in percent; NaN before that,
            and where a run that goes on was told to recalibrate otherwise.
        collapse: Looks for signs of one after each epoch that trains the logits.
        table: Of trained architectures, where one is given; nothing is decided by it.
        within: The space, as far as the budget allows it.
    """

    kind = "search"
    noun = "search"

    def __init__(
        self,
        folder: RunFolder,
        *,
        space: SearchSpace,
        bilevel: Alternating | SingleLevel,
        source: SampleSource,
        data: SearchData,
        schedule: SearchSchedule,
        table: BenchmarkTable | None = None,
        budget: Budget | None = None,
        non_finite: NonFiniteSettings | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Args:
        folder: Where the run writes.
        space: Gives the rule that derives a genotype.
        bilevel: Updates weights and logits.
        source: Draws the samples that `bilevel` uses; its temperature is set here.
        data: The two halves of the training data.
        schedule: How long and how often.
        table: Of trained architectures, for the monitor alone.
        budget: What is derived must keep to it; `bilevel` has it, too.
        non_finite: What happens when numbers leave the finite; None: the run ends.
        ranks: The processes that do the search together.
        """
        learner = bilevel.learner
        super().__init__(
            folder,
            data.train,
            schedule.epochs,
            schedule.checkpoint_every_steps,
            (learner.weights, learner.logits),
            non_finite or NonFiniteSettings(),
            ranks,
        )
        self.space, self.data, self.schedule = space, data, schedule
        self.bilevel, self.source = bilevel, source
        self.learner, self.supernet = learner, source.supernet
        self.validation = Meter()
        self.validation_accuracy = math.nan
        self.collapse = CollapseWatch(schedule.collapse)
        self._batches = Cycle(data.validation)
        self._counts = torch.zeros_like(self.supernet.logits, requires_grad=False)
        self._gradient_norm_sum, self._num_logits_steps = 0.0, 0
        self._monitor: SearchMonitor | None = None
        self._warning: str | None = None
        self.table, self.budget = table, budget
        self.within: SearchSpace = space
        if budget is not None:
            self.within = WithinBudget(space, self.supernet.choices, budget)

    def _start_epoch(self) -> None:
        schedule = self.schedule
        self.source.temperature = schedule.temperature(self.epoch)
        for updater in (self.learner.weights, self.learner.logits):
            updater.set_epoch(self.epoch, schedule.epochs)
        # Within an epoch (a run that is resumed) the mask is that of the checkpoint.
        if self.epoch in schedule.pruning and self.step_in_epoch == 0:
            self.supernet.prune(schedule.pruning[self.epoch], self.space.never_derived)
        self.supernet.model.train()

    @property
    def _trains_logits(self) -> bool:
        return self.source.sampler.learns and self.epoch >= self.schedule.warmup_epochs

    def _train_step(self, batch: Batch) -> int:
        learns = self._trains_logits
        # By the steps of the run: an epoch may have fewer than a round.
        result = self.bilevel.step(self.step, batch, self._batches, learn_logits=learns)
        for weights_result in result.weights:
            self.train.add(weights_result)
        for logits_result in result.logits:
            self.validation.add(logits_result)
        for sample in result.samples:
            self._counts += sample.weights.detach()
        self._gradient_norm_sum += sum(result.logits_gradient_norms)
        self._num_logits_steps += len(result.logits_gradient_norms)
        return sum(part.num_images for part in (*result.weights, *result.logits))

    def _origin(self, batch: Batch, error: NonFiniteLossError) -> str | None:
        model, sample = self.supernet.model, error.sample
        if self.ranks.largest(not all_finite([batch[0]])):
            return "the images"
        if sample is None:
            return None
        with buffers_restored(model):
            place = first_non_finite(model, lambda: self.supernet.forward(batch[0], sample))
        if place is None:
            return None
        decided = self.supernet.decided_at(place.rpartition(" ")[2], sample)
        return place if decided is None else f"{place}, that is {decided}"

    def _figures(self) -> dict[str, float | str]:
        figures: dict[str, float | str] = {
            "loss": self.train.loss,
            "accuracy": self.train.accuracy,
        }
        if self._num_logits_steps:
            figures["validation"] = self.validation.accuracy
        if self.source.sampler.uses_temperature:
            figures["temperature"] = self.source.temperature
        return figures

    def _end_epoch(self, epoch_time: EpochTime) -> dict[str, float]:
        self.train, self.validation = (m.of_all(self.ranks) for m in (self.train, self.validation))
        metrics = self._metrics(epoch_time)
        # First of all: it may end the search, and go back to the logits of another epoch.
        self._warning = self._look_for_collapse(metrics) if self._trains_logits else None
        genotype = derive_argmax(self.within, self.supernet.probabilities())
        if self.budget is not None:
            metrics["budget/cost"] = self.budget.cost(genotype)
            metrics["budget/expected_cost"] = expected_cost(self.budget, self.supernet)
            metrics["budget/target"] = self.budget.target
            metrics["budget/multiplier"] = self.budget.multiplier
        if self.is_last_epoch or (self.epoch + 1) % self.schedule.evaluate_every_epochs == 0:
            self.validation_accuracy = self.evaluate(genotype)
            metrics["accuracy/genotype_validation"] = self.validation_accuracy
        return metrics

    def _compared_by(self) -> list[str]:
        names = ["result/validation_accuracy"]
        if self.table is not None:
            names += ["result/benchmark_accuracy", "result/benchmark_regret"]
        if self.budget is not None:
            names.append("result/cost")
        # TensorBoard takes the columns from one run of all that it shows.
        return [*names, "result/test_accuracy"]

    def _modules(self) -> list[nn.Module]:
        return [self.supernet.model]

    def _log_epoch(self, log: RunLog, metrics: dict[str, float]) -> str:
        probabilities = self.supernet.probabilities()
        genotype = derive_argmax(self.within, probabilities)
        if self._monitor is None:
            every = max(1, self.epochs // MAX_PICTURES)
            self._monitor = SearchMonitor(
                log, self.supernet.options, image_every=every, table=self.table
            )
        text = genotype_text(genotype)
        counts = self.supernet.split(self._counts)
        self._monitor.epoch(
            self.step,
            self.epoch,
            probabilities=probabilities,
            counts={name: counts[name] for name in self.supernet.names},
            genotype=genotype,
            genotype_text=text,
            scalars=metrics,
            is_last=self.is_last_epoch,
        )
        accuracies = {
            "accuracy": self.train.accuracy,
            "validation": self.validation.accuracy,
            "genotype": self.validation_accuracy,
        }
        shown = (f"{k} {v:.1f} %" for k, v in accuracies.items() if not math.isnan(v))
        line = "  ".join([f"loss {self.train.loss:.3f}", *shown, short_text(genotype)])
        return line if self._warning is None else f"{line}\n{self._warning}"

    def _look_for_collapse(self, metrics: dict[str, float]) -> str | None:
        """Does what is set where there is one; adds to `metrics`, returns what is to be said."""
        supernet, watch, action = self.supernet, self.collapse, self.schedule.collapse.action
        eigenvalue = None
        if watch.is_due(self.epoch):
            # Of several ranks each has a part of a training batch, but not of an evaluation's.
            alone = self.ranks.size == 1
            loader = self.data.validation_eval if alone else self.data.validation
            images, labels = next(iter(loader.epoch(0)))
            size = self.data.validation.batch_size
            batch = images[:size], labels[:size]
            eigenvalue = self.ranks.mean(
                dominant_eigenvalue(self.space, supernet, self.learner.loss, batch)
            )
            metrics["architecture/eigenvalue"] = eigenvalue
        genotype = self.space.derive(supernet.probabilities())
        found = watch.judge(self.epoch, genotype, supernet.logits, eigenvalue)
        if eigenvalue is not None and watch.growth is not None:
            metrics["architecture/eigenvalue_growth"] = watch.growth
        if found is None or watch.has_warned:
            return None
        watch.has_warned = True
        if action == "warn":
            return f"warning: {found.reason} (said once)"
        self.stopped = f"after epoch {self.epoch + 1} of {self.epochs}: {found.reason}"
        if action == "roll_back" and found.good_logits is not None and found.good_epoch is not None:
            with torch.no_grad():
                supernet.logits.copy_(found.good_logits)
            self.stopped += f"; back to the logits of epoch {found.good_epoch + 1}"
        return f"stopped {self.stopped}"

    def _metrics(self, epoch_time: EpochTime) -> dict[str, float]:
        """The figures of the epoch by name; see `nas.monitor.metrics` for what each means."""
        metrics = {
            "loss/train": self.train.loss,
            "accuracy/train": self.train.accuracy,
            "optimizer/learning_rate_weights": self.learner.weights.learning_rate,
            "optimizer/learning_rate_logits": self.learner.logits.learning_rate,
            **epoch_time.metrics(),
            **memory_metrics(self.supernet.device),
        }
        if self.source.sampler.uses_temperature:
            metrics["architecture/temperature"] = self.source.temperature
        if self._num_logits_steps:
            metrics["loss/validation"] = self.validation.loss
            metrics["accuracy/validation"] = self.validation.accuracy
            norm = self._gradient_norm_sum / self._num_logits_steps
            metrics["architecture/logits_gradient_norm"] = norm
        return metrics

    def evaluate(self, genotype: Genotype, max_images: int | None = None) -> float:
        """Top-1 in percent of `genotype` under the supernet's weights, on the validation half.

        `max_images` cuts it short: so many images, rounded up to whole batches.
        """
        return self.evaluate_sample(self.supernet.fixed(genotype.choices), max_images)

    def evaluate_sample(self, sample: Sample, max_images: int | None = None) -> float:
        """The same of what `sample` decides. Training goes on as if it had not been asked."""
        meter, model = Meter(), self.supernet.model
        num_batches = self.schedule.recalibration_batches
        with torch.no_grad(), buffers_restored(model) if num_batches else nullcontext():
            if num_batches:
                batches = islice(self.data.train.epoch(0), num_batches)
                run = partial(self.learner.weights_loss, sample=sample)
                with generators_restored(self.supernet.device):
                    recalibrate(model, run, batches)
                self.ranks.average_buffers([model])
            model.eval()
            for batch in self.data.validation_eval.epoch(0):
                meter.add(self.learner.weights_loss(batch, sample)[1])
                if max_images is not None and meter.num_images * self.ranks.size >= max_images:
                    break
        model.train()
        return meter.of_all(self.ranks).accuracy

    def _reset_epoch(self) -> None:
        self.train.reset()
        self.validation.reset()
        self._counts.zero_()
        self._gradient_norm_sum, self._num_logits_steps = 0.0, 0

    def _state(self) -> checkpoint.State:
        return {
            "model": self.supernet.model.state_dict(),
            "logits": self.supernet.logits.detach(),
            "masked": self.supernet.masked,
            "weights_optimizer": self.learner.weights.optimizer.state_dict(),
            "logits_optimizer": self.learner.logits.optimizer.state_dict(),
            "rng": checkpoint.rng_state(self.source.generator),
            "validation_batches": self._batches.step,
            "validation": self.validation.of_all(self.ranks).state_dict(),
            "validation_accuracy": self.validation_accuracy,
            "recalibration_batches": self.schedule.recalibration_batches,
            "counts": self._counts,
            "baseline": None
            if self.learner.baseline is None
            else self.learner.baseline.state_dict(),
            "gradient_norm_sum": self._gradient_norm_sum,
            "num_logits_steps": self._num_logits_steps,
            "collapse": self.collapse.state_dict(),
            "multiplier": None if self.budget is None else self.budget.multiplier,
        }

    def _load_state(self, state: checkpoint.State) -> None:
        device = self.supernet.device
        self.supernet.model.load_state_dict(state["model"])
        with torch.no_grad():
            self.supernet.logits.copy_(state["logits"])
        self.supernet.masked.copy_(state["masked"])
        self.learner.weights.optimizer.load_state_dict(state["weights_optimizer"])
        self.learner.logits.optimizer.load_state_dict(state["logits_optimizer"])
        self._batches = Cycle(self.data.validation, state["validation_batches"])
        self.train.load_state_dict(state["train"], device, self.ranks)
        self.validation.load_state_dict(state["validation"], device, self.ranks)
        now = self.schedule.recalibration_batches
        is_alike = state.get("recalibration_batches", now) == now  # older ones do not have it
        self.validation_accuracy = state["validation_accuracy"] if is_alike else math.nan
        self._counts.copy_(state["counts"])
        if self.learner.baseline is not None:
            self.learner.baseline.load_state_dict(state["baseline"])
        self._gradient_norm_sum = state["gradient_norm_sum"]
        self._num_logits_steps = state["num_logits_steps"]
        self.collapse.load_state_dict(state["collapse"])
        if self.budget is not None:
            self.budget.multiplier = state["multiplier"]
        checkpoint.set_rng_state(state["rng"], self.source.generator)
        self._monitor = None  # it writes to the log of before
