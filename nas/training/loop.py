"""What the loops of a search and of a retraining share: epochs, progress, checkpoints, stopping."""

import logging
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from nas.data import Loader
from nas.data.order import derived_seed
from nas.distributed import Ranks
from nas.errors import UserError
from nas.monitor.console import Progress
from nas.monitor.custom_charts import Charts
from nas.monitor.run_log import RunLog
from nas.optimisation.bilevel import Batch
from nas.optimisation.finite import NonFiniteLossError, NonFiniteSettings, all_finite, check_finite
from nas.optimisation.optimizers import Updater
from nas.sweep import SUMMARY
from nas.training import checkpoint
from nas.training.run import EpochTime, Interrupted, Meter, StopRequest
from nas.training.tracking import compared_settings, run_text

_log = logging.getLogger(__name__)
_NO_LOG: nullcontext[None] = nullcontext(None)

FILE_LOGGER = "nas.epochs"
"""Goes to the file of the log alone: the same lines reach the console by another way."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes and what it was set to.

    Attributes:
        path: Folder of the run.
        settings: All settings of the run, nested, for the checkpoint and TensorBoard.
        free_settings: Dotted keys of those that a resumed run may change.
        overrides: Those of the command line, kept in the checkpoint so that a resume needs none.
    """

    path: Path
    settings: Mapping[str, object]
    free_settings: frozenset[str] = frozenset()
    overrides: Sequence[str] = ()


class Loop(ABC):
    """Runs epochs of steps from the start, or from the last checkpoint in the folder of the run.

    Attributes:
        folder: Where the run writes.
        epoch: Number of the present epoch, from 0.
        step_in_epoch: Steps of it that are done.
        step: Steps that are done in all.
        train: Loss and accuracy on the training images of the epoch.
        stopped: Why the run ends before its last epoch, which makes the present one the last; None
            while there is no reason to.
        started: When this process began with the run, by `time.perf_counter`.
        ranks: The processes that do the same run, of which one writes.
        roll_backs: How often the run has gone back from numbers that were not finite.
    """

    kind: ClassVar[str]
    noun: ClassVar[str]
    """What the user calls it."""
    charts: ClassVar[Charts] = {}
    """What the CUSTOM SCALARS tab shows, where it does not depend on the run."""

    def __init__(
        self,
        folder: RunFolder,
        loader: Loader,
        epochs: int,
        checkpoint_every_steps: int,
        updaters: Sequence[Updater],
        non_finite: NonFiniteSettings,
        ranks: Ranks,
    ) -> None:
        self.folder, self.epochs, self.ranks = folder, epochs, ranks
        self.roll_backs = 0
        self.epoch = self.step_in_epoch = self.step = 0
        self.train = Meter()
        self.stopped: str | None = None
        self.started, self._seconds_before = time.perf_counter(), 0.0
        self._loader, self._checkpoint_every_steps = loader, checkpoint_every_steps
        self._updaters, self._non_finite = updaters, non_finite

    @abstractmethod
    def _start_epoch(self) -> None:
        """Sets what depends on the epoch (learning rates), and the mode of the modules."""

    @abstractmethod
    def _train_step(self, batch: Batch) -> int:
        """Trains on `batch`, adds to the meters; returns the number of images."""

    @abstractmethod
    def _origin(self, batch: Batch, error: NonFiniteLossError) -> str | None:
        """What was not finite first in the step on `batch`, if it can be told."""

    @abstractmethod
    def _figures(self) -> dict[str, float | str]:
        """What the progress display shows, besides the epoch."""

    @abstractmethod
    def _end_epoch(self, epoch_time: EpochTime) -> dict[str, float]:
        """Evaluates; returns the metrics of the epoch, on all ranks the same."""

    @abstractmethod
    def _log_epoch(self, log: RunLog, metrics: dict[str, float]) -> str:
        """Writes the metrics of the epoch; returns a line that sums it up."""

    @abstractmethod
    def _compared_by(self) -> list[str]:
        """The metrics by which TensorBoard compares runs."""

    @abstractmethod
    def _modules(self) -> list[nn.Module]:
        """What is trained, and averages of it."""

    @abstractmethod
    def _reset_epoch(self) -> None:
        """Forgets the counts and means of the epoch."""

    @abstractmethod
    def _state(self) -> checkpoint.State:
        """All that a resumed run needs besides the counts that are kept here."""

    @abstractmethod
    def _load_state(self, state: checkpoint.State) -> None:
        """Puts back what `_state` gave."""

    @property
    def seconds(self) -> float:
        """How long the run has taken, with what went before its last checkpoint."""
        return self._seconds_before + time.perf_counter() - self.started

    @property
    def is_last_epoch(self) -> bool:
        """Whether the present epoch is the last one."""
        return self.epoch + 1 == self.epochs or self.stopped is not None

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.epoch >= self.epochs or self.stopped is not None

    def run(self) -> None:
        """Goes on until the last epoch is done, or one after which `_log_epoch` sets `stopped`.

        Does nothing but to say so where an earlier start has done all of them.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            UserError: the ranks do not read the same checkpoint.
            NonFiniteLossError: the loss became NaN or infinite, and the settings do not say to go
                back, or not once more. The last checkpoint is from before it.
        """
        self._start_together()
        if self.is_trained:
            return self._say_done_before()
        if self._rolls_back and not checkpoint.last_checkpoint(self.folder.path).exists():
            self.save()  # what there is to go back to in the first epoch
        while True:
            try:
                return self._run()
            except NonFiniteLossError as error:
                if not self._rolls_back:
                    raise
                self._roll_back(error)

    def _say_done_before(self) -> None:
        """One line, unless the run was cut off before its results were written."""
        folder = self.folder.path
        if not self.ranks.is_first or not (folder / SUMMARY).exists():
            return
        line = (
            f"the {self.noun} in {folder} was done before ({self.epoch} epochs); what follows is "
            "made from its checkpoint"
        )
        print(line, file=sys.stderr)
        logging.getLogger(FILE_LOGGER).info(line)

    def _start_together(self) -> None:
        """Brings all ranks to the same state, but for their generators."""
        steps = self.ranks.gathered(self.step)
        if len(set(steps)) > 1:
            raise UserError(
                f"run_dir: the processes go on from different steps ({steps}): give a folder that "
                "all machines share"
            )
        if self.step == 0 and not self.ranks.is_first:
            self._set_own_state([])  # the networks have been drawn from the same generators
        # What goes on has been read from one file, and each rank has statistics of its own.
        for module in self._modules() if self.step == 0 else []:
            self.ranks.copy_first(module.state_dict().values())
        for updater in self._updaters:
            self.ranks.copy_first(updater.parameters)

    @property
    def _rolls_back(self) -> bool:
        settings = self._non_finite
        return settings.action == "roll_back" and self.roll_backs < settings.max_times

    def _roll_back(self, error: NonFiniteLossError) -> None:
        """Goes back to the last checkpoint, and on from there with lower learning rates."""
        times, seconds = self.roll_backs + 1, self.seconds
        for updater in self._updaters:
            updater.zero_grad()
        self._reset_epoch()
        self.load()
        self._seconds_before += seconds - self.seconds
        self._set_roll_backs(times)
        self.save()  # a run that is killed from here on goes on with the lower rates
        _log.warning(
            "%s; going on from step %d with learning rates times %.3g",
            error.found,
            self.step,
            self._non_finite.factor**times,
        )

    def _set_roll_backs(self, times: int) -> None:
        self.roll_backs = times
        for updater in self._updaters:
            updater.factor = self._non_finite.factor**times

    def _run(self) -> None:
        total = self.epochs * self._loader.num_batches
        resumed = self.step if self.step > 0 else None
        with (
            self.open_log(resumed) as log,
            Progress(total, start_step=self.step) as progress,
            StopRequest() as stop,
        ):
            while not self.is_trained:
                epoch_time = self._train_epoch(progress, stop)
                self.ranks.average_buffers(self._modules())
                metrics = self._end_epoch(epoch_time)
                if log is not None:
                    progress.line(self._log(log, metrics))
                self.epoch, self.step_in_epoch = self.epoch + 1, 0
                self._reset_epoch()
                self.save()

    def open_log(self, resume_step: int | None) -> AbstractContextManager[RunLog | None]:
        """The log of the run, which says what the run is; None on all ranks but the first.

        Args:
            resume_step: Of the checkpoint that it goes on from; None begins a new one.
        """
        if not self.ranks.is_first:
            return _NO_LOG
        log = RunLog(self.folder.path, resume_step=resume_step)
        settings, overrides = self.folder.settings, self.folder.overrides
        log.hparams(*compared_settings(settings, overrides), self._compared_by())
        if resume_step is None:
            log.text("run", run_text(self.kind, settings, overrides), 0)
            if self.charts:
                log.layout(self.charts)
        return log

    def _log(self, log: RunLog, metrics: dict[str, float]) -> str:
        """Writes what the epoch has shown; returns the line of it."""
        line = f"epoch {self.epoch + 1}/{self.epochs}  {self._log_epoch(log, metrics)}"
        logging.getLogger(FILE_LOGGER).info(line)
        log.flush()  # what the checkpoint has behind it must be on disk
        return line

    def _train_epoch(self, progress: Progress, stop: StopRequest) -> EpochTime:
        """The rest of the present epoch."""
        self._start_epoch()
        epoch_time = EpochTime()
        for batch in self._loader.epoch(self.epoch, self.step_in_epoch):
            is_due = progress.is_due(self.step + 1)
            try:
                epoch_time.add_step(self._train_step(batch) * self.ranks.size)
                # Reads from the device only what is shown; of several ranks each has a clock.
                is_last = self.step_in_epoch + 1 == self._loader.num_batches
                if is_last or (is_due and self.ranks.size == 1):
                    check_finite(self.ranks.mean(self.train.loss), "training loss")
            except NonFiniteLossError as error:
                when = f"step {self.step + 1} (epoch {self.epoch + 1})"
                origins = self.ranks.gathered(self._origin(batch, error))
                origin = next((origin for origin in origins if origin is not None), None)
                raise error.located(when, origin) from None
            self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
            if is_due:
                progress.update(
                    self.step, epoch=f"{self.epoch + 1}/{self.epochs}", **self._figures()
                )
            self._save_in_epoch(stop, epoch_time)
        epoch_time.stop()
        return epoch_time

    def _save_in_epoch(self, stop: StopRequest, epoch_time: EpochTime) -> None:
        """Saves where a signal or `checkpoint_every_steps` asks for it, and stops for a signal."""
        number = self.ranks.largest(stop.number)  # a signal may reach one rank a step earlier
        if number:
            self.save()
            when = f"after step {self.step}, state saved"
            raise Interrupted(signal.Signals(number).name, when)
        every = self._checkpoint_every_steps
        # At the last step the epoch's own checkpoint follows, after its metrics are written.
        is_last = self.step_in_epoch == self._loader.num_batches
        if every and self.step % every == 0 and not is_last:
            with epoch_time.left_out():
                self.save()

    def save(self) -> None:
        """Writes the checkpoint.

        Raises:
            NonFiniteLossError: weights or logits are not finite; the last checkpoint stays.
        """
        if not all(all_finite(updater.parameters) for updater in self._updaters):
            raise NonFiniteLossError(f"after step {self.step} the weights are not finite")
        ranks = self.ranks.gathered(self._own_state())
        state = {
            "settings": dict(self.folder.settings),
            "overrides": list(self.folder.overrides),
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "step": self.step,
            "train": self.train.of_all(self.ranks).state_dict(),
            "stopped": self.stopped,
            "seconds": self.seconds,
            "roll_backs": self.roll_backs,
            "other_ranks": ranks[1:],
            **self._state(),
        }
        if self.ranks.is_first:
            path = checkpoint.last_checkpoint(self.folder.path)
            checkpoint.save_checkpoint(path, self.kind, state)
        self.ranks.wait()  # a process that ended before the file was whole would end the others

    def load(self) -> None:
        """Continues where the last checkpoint of the run stands; if it is damaged, the one before.

        Raises:
            UserError: there is none, both are damaged, or the settings differ.
        """
        last = checkpoint.last_checkpoint(self.folder.path)
        if self.load_from(self.folder.path) != last and self.ranks.is_first:
            checkpoint.put_back(last)
        self.ranks.wait()

    def load_from(self, folder: Path) -> Path:
        """Takes the state of the run in `folder`; returns the checkpoint that had it.

        Raises:
            UserError: as for `load`.
        """
        path, state = checkpoint.load_newest(folder, self.kind)
        checkpoint.check_same_settings(
            path,
            state["settings"],
            dict(self.folder.settings),
            self.folder.free_settings,
            set(self.folder.overrides) - set(state["overrides"]),
        )
        checkpoint.restore("contents", path, lambda: self._load(state))
        return path

    def _load(self, state: checkpoint.State) -> None:
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.step, self.stopped = state["step"], state.get("stopped")
        self._seconds_before = state.get("seconds", 0.0)
        self._set_roll_backs(state.get("roll_backs", 0))
        self._load_state(state)
        if not self.ranks.is_first:
            self._set_own_state(state.get("other_ranks", []))

    def _own_state(self) -> checkpoint.State:
        """What a rank has for itself: its generators, statistics of its share of the images."""
        # Averaging the statistics here would round, and so a stop would change the run's bits.
        buffers = [buffer.cpu() for module in self._modules() for buffer in module.buffers()]
        return {"rng": checkpoint.rng_state(), "buffers": buffers}

    def _set_own_state(self, states: list[checkpoint.State]) -> None:
        """Those of this rank; where there was none when they were saved, new generators."""
        rank = self.ranks.rank
        if rank <= len(states):
            checkpoint.set_rng_state(states[rank - 1]["rng"])
            buffers = [buffer for module in self._modules() for buffer in module.buffers()]
            for buffer, saved in zip(buffers, states[rank - 1]["buffers"], strict=True):
                buffer.copy_(saved)
        else:
            torch.manual_seed(derived_seed("rank", rank, self.step, torch.initial_seed()))
