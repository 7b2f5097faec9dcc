"""The retraining loop: a plain network from scratch, with the recipe of DARTS and its options."""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas.bilevel import Batch, BatchResult
from nas.data import Loader, RetrainData
from nas.files import replacing
from nas.finite import check_finite
from nas.monitor.console import Progress
from nas.monitor.memory import memory_metrics
from nas.monitor.run_log import RunLog
from nas.network import DropPath
from nas.optimizers import Updater
from nas.training import checkpoint
from nas.training.run import EpochTime, Interrupted, Meter, StopRequest, flat_settings

_epochs_log = logging.getLogger("nas.epochs")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained (DARTS, arXiv:1806.09055, section 3.2, has all but the last two).

    Attributes:
        epochs: Passes over the training set.
        auxiliary_weight: Weight of the auxiliary head's loss; 0 without such a head.
        drop_path: Probability of dropping a path in the last epoch; grows linearly from 0.
        label_smoothing: Share of the label spread over all classes.
        ema_decay: Decay per step of an exponential moving average of the weights; 0 is off.
        evaluate_every_epochs: How often the test set is evaluated; always after the last epoch.
        checkpoint_every_steps: Checkpoints within an epoch; 0 for only at the end of each.
    """

    epochs: int
    auxiliary_weight: float = 0.0
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    evaluate_every_epochs: int = 1
    checkpoint_every_steps: int = 0


@dataclass(frozen=True)
class TestResult:
    """Loss and accuracies in percent on the test set."""

    loss: float
    top1: float
    top5: float

    __test__ = False  # not a test class, whatever its name


class Retrain:
    """Trains `network` to its last epoch, from the start or from the last checkpoint."""

    def __init__(
        self,
        *,
        run_dir: Path,
        network: nn.Module,
        updater: Updater,
        data: RetrainData,
        recipe: Recipe,
        autocast: Callable[[], AbstractContextManager[object]],
        settings: Mapping[str, object],
        free_settings: frozenset[str] = frozenset(),
        compile_network: bool = False,
    ) -> None:
        """Args:
        run_dir: Folder of the run.
        network: The network, on its device.
        updater: Updates its parameters.
        data: Training and test data.
        recipe: How it is trained.
        autocast: Makes the context of forward passes.
        settings: All settings of the run, nested, for the checkpoint and TensorBoard.
        free_settings: Dotted keys of those that a resumed run may change.
        compile_network: Run through `torch.compile`.
        """
        self.run_dir, self.network, self.updater, self.data = run_dir, network, updater, data
        self.recipe, self.autocast = recipe, autocast
        self.settings, self.free_settings = dict(settings), free_settings
        self.drop_path = DropPath(network)
        self.ema = None
        if recipe.ema_decay > 0:
            average = get_ema_multi_avg_fn(recipe.ema_decay)
            self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self._forward: nn.Module = torch.compile(network) if compile_network else network  # type: ignore[assignment]
        self.epoch = self.step_in_epoch = self.step = 0
        self.train = Meter()
        self.result: TestResult | None = None
        self.result_ema: TestResult | None = None
        self.best_top1 = -math.inf

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def run(self) -> TestResult:
        """Trains until the last epoch is done and returns its result on the test set.

        Raises:
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        total = self.recipe.epochs * self.data.train.num_batches
        resumed = self.step if self.step > 0 else None
        with (
            RunLog(self.run_dir, resume_step=resumed) as log,
            Progress(total, start_step=self.step) as progress,
            StopRequest() as stop,
        ):
            while self.epoch < self.recipe.epochs:
                time = self._train_epoch(progress, stop)
                self._finish_epoch(log, progress, time)
        assert self.result is not None
        return self.result

    def _train_epoch(self, progress: Progress, stop: StopRequest) -> EpochTime:
        """The rest of the present epoch."""
        self.updater.set_epoch(self.epoch, self.recipe.epochs)
        self.drop_path.set_probability(self._drop_probability())
        self.network.train()
        time = EpochTime()
        for batch in self.data.train.epoch(self.epoch, self.step_in_epoch):
            result = self._update(batch)
            self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
            self.train.add(result)
            time.add_step(result.num_images)
            self._show(progress)
            self._save_in_epoch(stop)
        time.stop()
        return time

    def _drop_probability(self) -> float:
        return self.recipe.drop_path * self.epoch / self.recipe.epochs

    def _update(self, batch: Batch) -> BatchResult:
        """One update of the weights."""
        with self.autocast():
            outputs = self._forward(batch[0])
            logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
            loss = self._loss(logits, batch[1])
            if auxiliary is not None:
                loss = loss + self.recipe.auxiliary_weight * self._loss(auxiliary, batch[1])
        if loss.device.type == "cpu":  # elsewhere reading it would wait; checked when it is shown
            check_finite(loss.item(), "training loss")
        loss.backward()
        self.updater.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        correct = (logits.detach().argmax(1) == batch[1]).sum()
        return BatchResult(loss.detach(), correct, len(batch[1]))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _show(self, progress: Progress) -> None:
        """Shows the means of the epoch; reads them from the device only when they are shown."""
        if not progress.is_due(self.step):
            return
        check_finite(self.train.loss, "training loss")
        progress.update(
            self.step,
            epoch=f"{self.epoch + 1}/{self.recipe.epochs}",
            loss=self.train.loss,
            accuracy=self.train.accuracy,
        )

    def _save_in_epoch(self, stop: StopRequest) -> None:
        """Saves where a signal or `checkpoint_every_steps` asks for it, and stops for a signal."""
        if stop.signal_name is not None:
            self.save()
            raise Interrupted(stop.signal_name, self.step)
        every = self.recipe.checkpoint_every_steps
        # At the last step the epoch's own checkpoint follows, after its metrics are written.
        is_last = self.step_in_epoch == self.data.train.num_batches
        if every and self.step % every == 0 and not is_last:
            self.save()

    def _finish_epoch(self, log: RunLog, progress: Progress, time: EpochTime) -> None:
        """Evaluates, writes the metrics, and the checkpoint."""
        check_finite(self.train.loss, "training loss")
        metrics = {
            "loss/train": self.train.loss,
            "accuracy/train_top1": self.train.accuracy,
            "optimizer/learning_rate": self.updater.optimizer.param_groups[0]["lr"],
            "regularisation/drop_path": self._drop_probability(),
            **time.metrics(),
            **memory_metrics(self.device),
        }
        is_last = self.epoch + 1 == self.recipe.epochs
        evaluates = is_last or (self.epoch + 1) % self.recipe.evaluate_every_epochs == 0
        if evaluates:
            metrics |= self._test_metrics()
        log.scalars(self.step, metrics, epoch=self.epoch)
        if is_last:
            log.hparams(flat_settings(self.settings), ["accuracy/test_top1"])
        log.flush()
        progress.line(self._epoch_line(evaluates))
        _epochs_log.info(self._epoch_line(evaluates))
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.train.reset()
        self.save()

    def _test_metrics(self) -> dict[str, float]:
        self.result = self.evaluate(self.network)
        metrics = {
            "loss/test": self.result.loss,
            "accuracy/test_top1": self.result.top1,
            "accuracy/test_top5": self.result.top5,
        }
        if self.ema is not None:
            self.result_ema = self.evaluate(self.ema)
            metrics["accuracy/test_top1_ema"] = self.result_ema.top1
        self.best_top1 = max(self.best_top1, self.result.top1)
        return metrics

    def evaluate(self, network: nn.Module) -> TestResult:
        """Loss, top-1 and top-5 of `network` on the test set."""
        return evaluate(network, self.data.test, self.autocast)

    def _epoch_line(self, evaluated: bool) -> str:
        line = (
            f"epoch {self.epoch + 1}/{self.recipe.epochs}  loss {self.train.loss:.3f}  "
            f"accuracy {self.train.accuracy:.1f} %"
        )
        if evaluated and self.result is not None:
            line += f"  test top-1 {self.result.top1:.2f} %  top-5 {self.result.top5:.2f} %"
            line += f"  EMA {self.result_ema.top1:.2f} %" if self.result_ema else ""
        return line

    def save_weights(self, path: Path) -> None:
        """Writes the weights as safetensors: those of the moving average where there is one."""
        network = self.network if self.ema is None else self.ema.module
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        with replacing(path) as temporary:
            save_file(weights, temporary)

    def save(self) -> None:
        """Writes the checkpoint: all that a resumed run needs to go on to the bit."""
        state = {
            "settings": self.settings,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "step": self.step,
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.updater.optimizer.state_dict(),
            "rng": checkpoint.rng_state(),
            "train": self.train.state_dict(),
            "best_top1": self.best_top1,
            "result": _numbers(self.result),
            "result_ema": _numbers(self.result_ema),
        }
        checkpoint.save_checkpoint(checkpoint.last_checkpoint(self.run_dir), "retrain", state)

    def load(self) -> None:
        """Continues where the last checkpoint of the run stands.

        Raises:
            UserError: there is none, it is damaged, or the settings differ.
        """
        path = checkpoint.last_checkpoint(self.run_dir)
        state = checkpoint.load_checkpoint(path, "retrain")
        checkpoint.check_same_settings(path, state["settings"], self.settings, self.free_settings)
        checkpoint.restore("contents", path, lambda: self._load(state))

    def _load(self, state: checkpoint.State) -> None:
        self.network.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.step, self.best_top1 = state["step"], state["best_top1"]
        self.train.load_state_dict(state["train"], self.device)
        self.result = TestResult(*state["result"]) if state["result"] else None
        self.result_ema = TestResult(*state["result_ema"]) if state["result_ema"] else None
        checkpoint.set_rng_state(state["rng"])


def evaluate(
    network: nn.Module, loader: Loader, autocast: Callable[[], AbstractContextManager[object]]
) -> TestResult:
    """Loss, top-1 and top-5 (in percent) of `network` on all images of `loader`."""
    sums = torch.zeros(4, dtype=torch.float64)
    network.eval()
    with torch.no_grad():
        for images, labels in loader.epoch(0):
            with autocast():
                logits = network(images)
            sums += _test_sums(logits.float(), labels).cpu()
    network.train()
    loss, top1, top5, count = sums.tolist()
    return TestResult(loss / count, 100 * top1 / count, 100 * top5 / count)


def _test_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over a batch of loss, top-1 hits, top-5 hits and images, float64 `[4]`."""
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    count = torch.tensor(float(len(labels)), device=logits.device)
    return torch.stack([loss, hits[:, 0].sum(), hits.sum(), count]).double()


def _numbers(result: TestResult | None) -> list[float] | None:
    return None if result is None else [result.loss, result.top1, result.top5]
