"""The retraining loop: a plain network from scratch, with the recipe of DARTS and its options."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nas.data import Loader, RetrainData
from nas.deploy.weights import write_weights
from nas.deriving.recalibration import buffers_restored
from nas.distributed import ALONE, Ranks
from nas.errors import UserError
from nas.genotype import Genotype
from nas.monitor.custom_charts import RETRAINING
from nas.monitor.memory import memory_metrics
from nas.monitor.run_log import RunLog
from nas.network import DropPath
from nas.optimisation.bilevel import Batch, BatchResult
from nas.optimisation.finite import (
    NonFiniteLossError,
    NonFiniteSettings,
    all_finite,
    check_finite,
    first_non_finite,
)
from nas.optimisation.optimizers import Updater
from nas.training import checkpoint
from nas.training.loop import Loop, RunFolder
from nas.training.run import EpochTime


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained (DARTS, arXiv:1806.09055, section 3.2, has all but the last two).

    Attributes:
        epochs: Passes over the training set.
        auxiliary_weight: Weight of the auxiliary head's loss; 0 without such a head.
        drop_path: Probability of dropping a path, reached one epoch after the last; grows linearly
            from 0 in the first, as in the code of DARTS.
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


class Retrain(Loop):
    """Trains a network.

    Attributes:
        result: Of the last evaluation on the test set.
        result_ema: The same for the moving average of the weights, where there is one.
        best_top1: Highest top-1 on the test set so far; picked on it, so not to be reported.
    """

    kind = "retrain"
    noun = "retraining"
    charts = RETRAINING

    def __init__(
        self,
        folder: RunFolder,
        *,
        network: nn.Module,
        updater: Updater,
        data: RetrainData,
        recipe: Recipe,
        autocast: Callable[[], AbstractContextManager[object]],
        genotype: Genotype | None = None,
        compile_network: bool = False,
        non_finite: NonFiniteSettings | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Args:
        folder: Where the run writes.
        network: The network, on its device.
        updater: Updates its parameters.
        data: Training and test data.
        recipe: How it is trained.
        autocast: Makes the context of forward passes.
        genotype: Of the network: a run goes on with no other. None is not looked at.
        compile_network: Run through `torch.compile`.
        non_finite: What happens when numbers leave the finite; None: the run ends.
        ranks: The processes that do the training together.

        Raises:
            UserError: paths are to be dropped, and the network has none.
        """
        super().__init__(
            folder,
            data.train,
            recipe.epochs,
            recipe.checkpoint_every_steps,
            (updater,),
            non_finite or NonFiniteSettings(),
            ranks,
        )
        self.network, self.updater, self.data = network, updater, data
        self.recipe, self.autocast = recipe, autocast
        self._choices = None if genotype is None else dict(genotype.choices)
        self.drop_path = DropPath(network)
        if recipe.drop_path > 0 and self.drop_path.num_paths == 0:
            raise UserError(
                "drop_path: the network has no path that may be dropped (a model of your own names "
                "them by a method droppable_paths); set it to 0"
            )
        self.ema = None
        if recipe.ema_decay > 0:
            average = get_ema_multi_avg_fn(recipe.ema_decay)
            self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self._forward: nn.Module = torch.compile(network) if compile_network else network  # type: ignore[assignment]
        self.result: TestResult | None = None
        self.result_ema: TestResult | None = None
        self.best_top1 = -math.inf

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _start_epoch(self) -> None:
        self.updater.set_epoch(self.epoch, self.epochs)
        self.drop_path.set_probability(self._drop_probability())
        self.network.train()

    def _drop_probability(self) -> float:
        return self.recipe.drop_path * self.epoch / self.epochs

    def _train_step(self, batch: Batch) -> int:
        result = self._update(batch)
        self.train.add(result)
        return result.num_images

    def _update(self, batch: Batch) -> BatchResult:
        """One update of the weights."""
        with self.autocast():
            outputs = self._forward(batch[0])
            logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
            loss = self._loss(logits, batch[1])
            if auxiliary is not None:
                loss = loss + self.recipe.auxiliary_weight * self._loss(auxiliary, batch[1])
        if loss.device.type == "cpu":  # elsewhere reading it would wait; checked when it is shown
            check_finite(self.ranks.mean(loss.item()), "training loss")
        loss.backward()
        self.ranks.average_gradients(self.updater.parameters)
        self.updater.step()
        if self.ema is not None:
            self.ema.update_parameters(self.network)
        correct = (logits.detach().argmax(1) == batch[1]).sum()
        return BatchResult(loss.detach(), correct, len(batch[1]))

    def _origin(self, batch: Batch, error: NonFiniteLossError) -> str | None:
        if self.ranks.largest(not all_finite([batch[0]])):
            return "the images"
        with buffers_restored(self.network):
            return first_non_finite(self.network, lambda: self.network(batch[0]))

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _figures(self) -> dict[str, float | str]:
        return {"loss": self.train.loss, "accuracy": self.train.accuracy}

    def _end_epoch(self, epoch_time: EpochTime) -> dict[str, float]:
        self.train = self.train.of_all(self.ranks)
        metrics = {
            "loss/train": self.train.loss,
            "accuracy/train_top1": self.train.accuracy,
            "optimizer/learning_rate": self.updater.learning_rate,
            "regularisation/drop_path": self._drop_probability(),
            **epoch_time.metrics(),
            **memory_metrics(self.device),
        }
        if self.is_last_epoch or (self.epoch + 1) % self.recipe.evaluate_every_epochs == 0:
            metrics |= self._test_metrics()
        return metrics

    def _log_epoch(self, log: RunLog, metrics: dict[str, float]) -> str:
        line = f"loss {self.train.loss:.3f}  accuracy {self.train.accuracy:.1f} %"
        if "accuracy/test_top1" in metrics:
            line += f"  test top-1 {metrics['accuracy/test_top1']:.2f} %"
            line += f"  top-5 {metrics['accuracy/test_top5']:.2f} %"
            if self.result_ema is not None:
                line += f"  moving average {self.result_ema.top1:.2f} %"
        log.scalars(self.step, metrics, epoch=self.epoch)
        return line

    def _compared_by(self) -> list[str]:
        return ["result/test_accuracy", "result/validation_accuracy"]

    def _modules(self) -> list[nn.Module]:
        return [self.network] if self.ema is None else [self.network, self.ema]

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
        return evaluate(network, self.data.test, self.autocast, self.ranks)

    def _reset_epoch(self) -> None:
        self.train.reset()

    def save_weights(self, path: Path) -> None:
        """Writes the weights as safetensors: those of the moving average where there is one."""
        network = self.network if self.ema is None else self.ema.module
        write_weights(network, path)

    def _state(self) -> checkpoint.State:
        return {
            "choices": self._choices,
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.updater.optimizer.state_dict(),
            "rng": checkpoint.rng_state(),
            "best_top1": self.best_top1,
            "result": _numbers(self.result),
            "result_ema": _numbers(self.result_ema),
        }

    def _load_state(self, state: checkpoint.State) -> None:
        before = state.get("choices")  # an older release did not keep them
        if None not in (before, self._choices) and before != self._choices:
            # The setting may be the same: a file that now has another one in it.
            raise UserError(
                f"genotype: {self.folder.path} goes on with the genotype that it was started with, "
                "this is another: give another run_dir"
            )
        self.network.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.updater.optimizer.load_state_dict(state["optimizer"])
        self.best_top1 = state["best_top1"]
        self.train.load_state_dict(state["train"], self.device, self.ranks)
        self.result = TestResult(*state["result"]) if state["result"] else None
        self.result_ema = TestResult(*state["result_ema"]) if state["result_ema"] else None
        checkpoint.set_rng_state(state["rng"])


def evaluate(
    network: nn.Module,
    loader: Loader,
    autocast: Callable[[], AbstractContextManager[object]],
    ranks: Ranks = ALONE,
) -> TestResult:
    """Loss, top-1 and top-5 (in percent) of `network` on all images of `loader`, of all ranks."""
    sums = torch.zeros(4, dtype=torch.float64)
    network.eval()
    with torch.no_grad():
        for images, labels in loader.epoch(0):
            with autocast():
                logits = network(images)
            sums += _test_sums(logits.float(), labels).cpu()
    network.train()
    loss, top1, top5, count = ranks.sums(*sums.tolist())
    return TestResult(loss / count, 100 * top1 / count, 100 * top5 / count)


def _test_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums over a batch of loss, top-1 hits, top-5 hits and images, float64 `[4]`."""
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    count = torch.tensor(float(len(labels)), device=logits.device)
    return torch.stack([loss, hits[:, 0].sum(), hits.sum(), count]).double()


def _numbers(result: TestResult | None) -> list[float] | None:
    return None if result is None else [result.loss, result.top1, result.top5]
