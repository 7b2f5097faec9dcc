"""One-path steps as CUDA graphs: the host launches a part of the network, not each kernel of it.

The kernels of a one-path step are so small that a GPU waits for the host most of the time. A CUDA
graph launches any number of kernels at once, but always the same ones, and every step runs another
architecture. So here each candidate operation on each edge has graphs of its own, one for the
forward pass and one for each of the two backward passes. A step replays those of its sample, with
no module call and no autograd in between; what is computed is what the modules compute.

The feature maps of the nodes have fixed places in memory, and so has what each candidate keeps for
its backward pass: this costs memory for all candidates, not for the sampled ones alone.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.choice import Choice, Decision
from nas.deriving.recalibration import buffers_restored
from nas.edge_normalization import EdgeNormalization
from nas.errors import UserError
from nas.kernels.parts import HasParts
from nas.kernels.recording import Action, Candidate, Recorder, Recording


class GraphedPaths:
    """The paths of a one-path supernet, recorded candidate by candidate.

    Attributes:
        refusal: Why this network cannot be run so; None if it can.
    """

    def __init__(self, model: nn.Module) -> None:
        self._choices = [module for module in model.modules() if isinstance(module, Decision)]
        self.refusal, self._model = _refusal(model, self._choices), model
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._recording: Recording | None = None

    def fits(self, images: Tensor, *, trains_logits: bool, minus_sum: bool = False) -> bool:
        """Whether `run` can do a step on these images; records everything when asked first.

        With `minus_sum` (see `nas.supernet.Sample`) the handle will get that form of gradient; a
        step of the weights says it for the recording alone.

        A forward pass without a backward pass, one under autocast, one whose images differ in size
        from the first ones and one that trains weights and logits at once do not fit.
        """
        trains_weights = self._parameters[0].requires_grad
        if (
            self.refusal is not None
            or not (torch.is_grad_enabled() and self._model.training)
            or torch.is_autocast_enabled(images.device.type)
            or trains_logits is trains_weights
        ):
            return False
        recording = self._recording
        if recording is None or (trains_logits and recording.minus_sum is not minus_sum):
            recording = self._recording = None
            gc.collect()  # what a recording consists of holds each other, and much memory
            with self._weights_trained(), buffers_restored(self._model):
                recording = self._new_recording(images, minus_sum)
            if self.refusal is not None:
                warnings.warn(f"kernels=graphs is left: {self.refusal}", stacklevel=2)
                return False
            self._recording = recording
        return recording.takes(images)

    def run(
        self,
        images: Tensor,
        chosen: tuple[int, ...],
        handle: Tensor | None = None,
    ) -> Tensor:
        """The output for images that fit; its backward pass must come before the next `run`.

        Args:
            images: `[B, C, H, W]`.
            chosen: The option of every choice, in the order of `model.modules()`.
            handle: One number a choice; its gradient will be the inner products, see
                `nas.supernet.Supernet.forward_for_logits`. None trains the weights: the backward
                pass adds to their gradients.
        """
        recording = self._recording
        assert recording is not None
        trains_logits = handle is not None
        live = recording.live(chosen, recording.minus_sum and trains_logits)
        hook = recording.anchor if handle is None else handle
        output: Tensor = _Run.apply(hook, recording, images, live, trains_logits)
        return output

    def _new_recording(self, images: Tensor, minus_sum: bool) -> Recording:
        assert isinstance(self._model, HasParts)
        recording = Recording(self._model.parts(), self._choices, images, minus_sum)
        with _recordable():
            self.refusal = recording.record()
        return recording

    @contextmanager
    def _weights_trained(self) -> Iterator[None]:
        """A step of the logits, which may be the first one, asks for no gradient of the weights."""
        asked = [parameter.requires_grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter, was in zip(self._parameters, asked, strict=True):
                parameter.requires_grad_(was)


def graphs_for(model: nn.Module, kernels: str, device: torch.device) -> GraphedPaths | None:
    """What runs `model` with the kernels called `kernels`, where these are graphs.

    `auto` is graphs on a GPU, for networks that can be run so.

    Raises:
        UserError: `graphs`, and they cannot be had here.
    """
    if kernels not in ("auto", "graphs") or (kernels == "auto" and device.type != "cuda"):
        return None
    graphs = GraphedPaths(model)
    refusal = graphs.refusal if device.type == "cuda" else f"the device is {device.type}, no GPU"
    if refusal is None:
        return graphs
    if kernels == "graphs":
        raise UserError(f"kernels=graphs cannot be had here: {refusal}; set kernels to auto")
    return None


def _refusal(model: nn.Module, choices: Sequence[Decision]) -> str | None:
    if not isinstance(model, HasParts):
        return "its network does not say of which parts it is made"
    if any(type(choice) is not Choice for choice in choices):
        return "of partial channels not all go through an operation"
    if any(isinstance(module, EdgeNormalization) for module in model.modules()):
        return "the inputs of its nodes have weights of their own"
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        return "batch norms that processes share wait for each other"
    return None


@contextmanager
def _recordable() -> Iterator[None]:
    """Names the remedy where something cannot be recorded.

    To go on without graphs is not safe: PyTorch's allocator may not leave a recording that failed.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            "the operations cannot be recorded as CUDA graphs (they may wait for the GPU, or need "
            f"more memory than it has): set kernels to plain. PyTorch says: {reason}"
        ) from error


class _Run(torch.autograd.Function):
    """Replays a path. Behind it is nothing that autograd knows of."""

    @staticmethod
    def forward(
        ctx: Any,
        hook: Tensor,
        recording: Recording,
        images: Tensor,
        live: Sequence[Candidate],
        trains_logits: bool,
    ) -> Tensor:
        output = recording.forward(images, live)
        ctx.recording, ctx.live, ctx.number = recording, live, recording.num_runs
        ctx.trains_logits = trains_logits
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        recording: Recording = ctx.recording
        if ctx.number != recording.num_runs:
            raise RuntimeError("another forward pass has overwritten what this one has kept")
        gradient = None
        if ctx.trains_logits:
            gradient = recording.through_logits(grad, ctx.live)
        else:
            recording.through_weights(grad, ctx.live)
        return gradient, None, None, None, None


class GraphedStep:
    """A training step of a network that stays the same, as one CUDA graph on a stream of its own.

    Steps of several networks run side by side: one alone leaves most of a GPU idle. The first one
    is done as it is, and makes what an optimiser keeps; the second is recorded, with its constants
    (learning rates). Not for steps whose operations depend on what they compute.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> None:
        """Args:
        step: Trains on images `[B, C, H, W]` and labels `[B]`, of one size; returns the loss.
        device: Off a GPU the step is done as it is each time.
        """
        self._step, self._recorder = step, Recorder(device)
        self._batch: tuple[Tensor, Tensor] | None = None
        self._replay: Action | None = None
        self._num_bytes, self._has_room = 0, True

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Does the step; the loss is there after `join`."""
        with self._recorder.beside(images, labels):
            if self._batch is None:
                self._batch = images.clone(), labels.clone()
                loss, self._num_bytes = self._recorder.measured(lambda: self._step(images, labels))
                return loss
            if self._replay is None and self._has_room:
                self._has_room = self._recorder.has_room(self._num_bytes)
            if not self._has_room:
                return self._step(images, labels)
            for place, given in zip(self._batch, (images, labels), strict=True):
                place.copy_(given)
            if self._replay is None:
                with _recordable():
                    self._replay = self._recorder(self._act, "step")
            self._replay()
            return self._loss.clone()

    def join(self) -> None:
        """What follows waits until the steps are done."""
        self._recorder.join()

    def _act(self) -> None:
        assert self._batch is not None
        self._loss = self._step(*self._batch)
