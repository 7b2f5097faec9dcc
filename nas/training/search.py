"""The search loop: epochs of bilevel steps, evaluation, monitoring, checkpoints, resume."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.bilevel import Alternating, SingleLevel, StepResult
from nas.data import Cycle, SearchData
from nas.derive import derive_argmax
from nas.finite import check_finite
from nas.genotype import Genotype
from nas.genotype_text import genotype_text
from nas.monitor.console import Progress
from nas.monitor.memory import memory_metrics
from nas.monitor.run_log import RunLog
from nas.monitor.search import SearchMonitor
from nas.samplers import SampleSource, linear_temperature
from nas.spaces import SearchSpace
from nas.supernet import Supernet
from nas.training import checkpoint
from nas.training.run import EpochTime, Interrupted, Meter, StopRequest, flat_settings

MAX_PICTURES = 50
_epochs_log = logging.getLogger("nas.epochs")


@dataclass(frozen=True, kw_only=True)
class SearchSchedule:
    """How long a search runs and what happens when.

    Attributes:
        epochs: Passes over the training half.
        warmup_epochs: Epochs at the start in which only the weights are trained.
        temperature_start: Temperature of the first epoch.
        temperature_end: Temperature of the last; in between on a straight line.
        evaluate_every_epochs: How often the present genotype is evaluated on the validation half.
        checkpoint_every_steps: Checkpoints within an epoch; 0 for only at the end of each.
    """

    epochs: int
    warmup_epochs: int = 0
    temperature_start: float = 1.0
    temperature_end: float = 1.0
    evaluate_every_epochs: int = 1
    checkpoint_every_steps: int = 0


class Search:
    """Runs a search to its end, from the start or from the last checkpoint in `run_dir`."""

    def __init__(
        self,
        *,
        run_dir: Path,
        space: SearchSpace,
        bilevel: Alternating | SingleLevel,
        source: SampleSource,
        data: SearchData,
        schedule: SearchSchedule,
        settings: Mapping[str, object],
        free_settings: frozenset[str] = frozenset(),
    ) -> None:
        """Args:
        run_dir: Folder of the run.
        space: Gives the rule that derives a genotype.
        bilevel: Updates weights and logits.
        source: Draws the samples that `bilevel` uses; its temperature is set here.
        data: The two halves of the training data.
        schedule: How long and how often.
        settings: All settings of the run, nested, for the checkpoint and TensorBoard.
        free_settings: Dotted keys of those that a resumed run may change.
        """
        self.run_dir, self.space, self.data, self.schedule = (
            run_dir,
            space,
            data,
            schedule,
        )
        self.bilevel, self.source = bilevel, source
        self.learner = bilevel.learner
        self.supernet: Supernet = source.supernet
        self.settings = dict(settings)
        self.free_settings = free_settings
        self.epoch = self.step_in_epoch = self.step = 0
        self.train, self.validation = Meter(), Meter()
        self.counts = torch.zeros_like(self.supernet.logits, requires_grad=False)
        self.gradient_norm_sum, self.num_logits_steps = 0.0, 0
        self.validation_accuracy = math.nan
        self._validation = Cycle(data.validation)

    def run(self) -> None:
        """Searches until the last epoch is done.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        total = self.schedule.epochs * self.data.train.num_batches
        resumed = self.step if self.step > 0 else None
        with (
            RunLog(self.run_dir, resume_step=resumed) as log,
            Progress(total, start_step=self.step) as progress,
            StopRequest() as stop,
        ):
            every = max(1, self.schedule.epochs // MAX_PICTURES)
            monitor = SearchMonitor(log, self.supernet.options, image_every=every)
            while self.epoch < self.schedule.epochs:
                time = self._train_epoch(progress, stop)
                self._finish_epoch(log, monitor, progress, time)

    def _train_epoch(self, progress: Progress, stop: StopRequest) -> EpochTime:
        """The rest of the present epoch."""
        schedule = self.schedule
        self.source.temperature = linear_temperature(
            schedule.temperature_start,
            schedule.temperature_end,
            self.epoch,
            schedule.epochs,
        )
        for updater in (self.learner.weights, self.learner.logits):
            updater.set_epoch(self.epoch, schedule.epochs)
        learns = self.source.sampler.learns and self.epoch >= schedule.warmup_epochs
        self.supernet.model.train()
        time = EpochTime()
        for batch in self.data.train.epoch(self.epoch, self.step_in_epoch):
            result = self.bilevel.step(
                self.step_in_epoch, batch, self._validation, learn_logits=learns
            )
            self._note(result, time)
            self._show(progress)
            self._save_in_epoch(stop)
        time.stop()
        return time

    def _note(self, result: StepResult, time: EpochTime) -> None:
        """Adds a step to the counts and means of the epoch."""
        self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
        self.train.add(result.weights)
        time.add_step(result.weights.num_images)
        for batch_result in result.logits:
            self.validation.add(batch_result)
            time.num_images += batch_result.num_images
        for sample in result.samples:
            self.counts += sample.weights.detach()
        self.gradient_norm_sum += result.logits_gradient_norm
        self.num_logits_steps += len(result.logits)

    def _show(self, progress: Progress) -> None:
        """Shows the means of the epoch; reads them from the device only when they are shown."""
        if not progress.is_due(self.step):
            return
        check_finite(self.train.loss, "training loss")
        progress.update(
            self.step,
            epoch=f"{self.epoch + 1}/{self.schedule.epochs}",
            loss=self.train.loss,
            accuracy=self.train.accuracy,
            validation=self.validation.accuracy,
            temperature=self.source.temperature,
        )

    def _save_in_epoch(self, stop: StopRequest) -> None:
        """Saves where a signal or `checkpoint_every_steps` asks for it, and stops for a signal."""
        if stop.signal_name is not None:
            self.save()
            raise Interrupted(stop.signal_name, self.step)
        every = self.schedule.checkpoint_every_steps
        # At the last step the epoch's own checkpoint follows, after its metrics are written.
        is_last = self.step_in_epoch == self.data.train.num_batches
        if every and self.step % every == 0 and not is_last:
            self.save()

    def _finish_epoch(
        self, log: RunLog, monitor: SearchMonitor, progress: Progress, time: EpochTime
    ) -> None:
        """Evaluates the present genotype, writes metrics and pictures, and the checkpoint."""
        check_finite(self.train.loss, "training loss")
        genotype = derive_argmax(self.space, self.supernet.probabilities())
        metrics = self._metrics(time)
        is_last = self.epoch + 1 == self.schedule.epochs
        if is_last or (self.epoch + 1) % self.schedule.evaluate_every_epochs == 0:
            self.validation_accuracy = self.evaluate(genotype)
            metrics["accuracy/genotype_validation"] = self.validation_accuracy
        monitor.epoch(
            self.step,
            self.epoch,
            probabilities=self.supernet.probabilities(),
            counts=dict(self.supernet.by_name(self.counts)),
            genotype=genotype,
            genotype_text=genotype_text(genotype),
            scalars=metrics,
            is_last=is_last,
        )
        if is_last:
            log.hparams(flat_settings(self.settings), ["accuracy/genotype_validation"])
        progress.line(self._epoch_line(genotype))
        _epochs_log.info(self._epoch_line(genotype))
        log.flush()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self._reset_epoch()
        self.save()

    def evaluate(self, genotype: Genotype) -> float:
        """Top-1 in percent of `genotype` under the supernet's weights, on the validation half."""
        sample = self.supernet.fixed(genotype.choices)
        meter = Meter()
        self.supernet.model.eval()
        with torch.no_grad():
            for batch in self.data.validation_eval.epoch(0):
                meter.add(self.learner.weights_loss(batch, sample)[1])
        self.supernet.model.train()
        return meter.accuracy

    def _metrics(self, time: EpochTime) -> dict[str, float]:
        """The figures of the epoch by name; see `nas.monitor.metrics` for what each means."""
        rates = [
            u.optimizer.param_groups[0]["lr"] for u in (self.learner.weights, self.learner.logits)
        ]
        metrics = {
            "loss/train": self.train.loss,
            "accuracy/train": self.train.accuracy,
            "architecture/temperature": self.source.temperature,
            "optimizer/learning_rate_weights": rates[0],
            "optimizer/learning_rate_logits": rates[1],
            **time.metrics(),
            **memory_metrics(self.supernet.device),
        }
        if self.num_logits_steps:
            metrics["loss/validation"] = self.validation.loss
            metrics["accuracy/validation"] = self.validation.accuracy
            norm = self.gradient_norm_sum / self.num_logits_steps
            metrics["architecture/logits_gradient_norm"] = norm
        if not self.source.sampler.uses_temperature:
            del metrics["architecture/temperature"]
        return metrics

    def _epoch_line(self, genotype: Genotype) -> str:
        return (
            f"epoch {self.epoch + 1}/{self.schedule.epochs}  loss {self.train.loss:.3f}  "
            f"accuracy {self.train.accuracy:.1f} %  validation {self.validation.accuracy:.1f} %  "
            f"genotype {self.validation_accuracy:.1f} %  {genotype_text(genotype)}"
        )

    def _reset_epoch(self) -> None:
        self.train.reset()
        self.validation.reset()
        self.counts.zero_()
        self.gradient_norm_sum, self.num_logits_steps = 0.0, 0

    def save(self) -> None:
        """Writes the checkpoint: all that a resumed run needs to go on to the bit."""
        learner = self.learner
        state = {
            "settings": self.settings,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "step": self.step,
            "model": self.supernet.model.state_dict(),
            "logits": self.supernet.logits.detach(),
            "weights_optimizer": learner.weights.optimizer.state_dict(),
            "logits_optimizer": learner.logits.optimizer.state_dict(),
            "rng": checkpoint.rng_state(self.source.generator),
            "validation_batches": self._validation.step,
            "validation_accuracy": self.validation_accuracy,
            "meters": {
                "train": self.train.state_dict(),
                "validation": self.validation.state_dict(),
            },
            "counts": self.counts,
            "gradient_norm_sum": self.gradient_norm_sum,
            "num_logits_steps": self.num_logits_steps,
        }
        checkpoint.save_checkpoint(checkpoint.last_checkpoint(self.run_dir), "search", state)

    def load(self) -> None:
        """Continues where the last checkpoint of the run stands.

        Raises:
            UserError: there is none, it is damaged, or the settings differ.
        """
        path = checkpoint.last_checkpoint(self.run_dir)
        state = checkpoint.load_checkpoint(path, "search")
        checkpoint.check_same_settings(path, state["settings"], self.settings, self.free_settings)
        checkpoint.restore("contents", path, lambda: self._load(state))

    def _load(self, state: checkpoint.State) -> None:
        self.supernet.model.load_state_dict(state["model"])
        with torch.no_grad():
            self.supernet.logits.copy_(state["logits"])
        self.learner.weights.optimizer.load_state_dict(state["weights_optimizer"])
        self.learner.logits.optimizer.load_state_dict(state["logits_optimizer"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.step = state["step"]
        self._validation = Cycle(self.data.validation, state["validation_batches"])
        self.validation_accuracy = state["validation_accuracy"]
        self.train.load_state_dict(state["meters"]["train"], self.supernet.device)
        self.validation.load_state_dict(state["meters"]["validation"], self.supernet.device)
        self.counts.copy_(state["counts"])
        self.gradient_norm_sum = state["gradient_norm_sum"]
        self.num_logits_steps = state["num_logits_steps"]
        checkpoint.set_rng_state(state["rng"], self.source.generator)
