"""What `nas.kernels.graphs` replays: the passes of every candidate, recorded once.

On a GPU a recorded pass is a CUDA graph; elsewhere it is the pass itself, done again.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from nas.choice import Choice, Decision
from nas.kernels.arithmetic import element_sum, inner_product
from nas.kernels.parts import Part, Parts
from nas.ops import Zero

Action = Callable[[], None]

MEMORY_SHARE = 0.6
"""Of the free memory of a GPU: what graphs may take at a time."""


class Node:
    """A feature map and its gradient, each with one place in memory for good."""

    def __init__(self, value: Tensor, *, has_grad: bool = True) -> None:
        self.value = torch.zeros_like(value)
        self.grad = torch.zeros_like(value) if has_grad else None


class Candidate:
    """A module in one place of a network, with its passes.

    Attributes:
        forward: Adds the output to the target.
        through_weights: Adds to the gradients of the sources; writes those of the weights.
        through_logits: Adds to the gradients of the sources; writes the inner product.
        gradients: The weights that have a gradient, with it.
    """

    def __init__(
        self,
        module: nn.Module,
        sources: Sequence[Node],
        target: Node,
        inner: Tensor | None,
        minus_sum: bool,
    ) -> None:
        """Args:
        module: What is run; a `Zero` adds nothing, and may have an inner product all the same.
        sources: What it reads.
        target: What its output is added to.
        inner: Where its inner product goes; None for a module that nobody chooses.
        minus_sum: See `nas.supernet.Sample`.
        """
        self.forward, self.through_weights = self._forward, self._through_weights
        self.through_logits = self._through_logits
        self.gradients: list[tuple[nn.Parameter, Tensor]] = []
        self._module, self._target, self._inner = module, target, inner
        self._is_zero, self._minus_sum = isinstance(module, Zero), minus_sum
        self._sources = [node for node in sources if node.grad is not None]
        # `data`, since autograd would refuse to go back through what is overwritten between two
        # steps, though the next one goes through the new values.
        self._inputs = [node.value.data.requires_grad_(node.grad is not None) for node in sources]
        self._differentiated = [tensor for tensor in self._inputs if tensor.requires_grad]
        self._weights = [weight for weight in module.parameters() if weight.requires_grad]
        self._out: Tensor | None = None

    def record(self, recorder: "Recorder") -> None:
        """Records `forward`."""
        if not self._is_zero:
            self.forward = recorder(self._forward, "forward")

    def record_backward(self, recorder: "Recorder") -> None:
        """Records the two ways back, for the weights as they are: before any is updated."""
        is_silent = self._is_zero and not self._minus_sum
        if not self._is_zero and (self._differentiated or self._weights):
            self.through_weights = recorder(self._through_weights, "backward")
        if not is_silent and (self._differentiated or self._inner is not None):
            self.through_logits = recorder(self._through_logits, "backward")

    def warm_up(self) -> int:
        """Does all passes once, unrecorded; returns the bytes of a GPU that the first one keeps."""
        before = torch.cuda.memory_allocated()
        self._forward()
        kept = torch.cuda.memory_allocated() - before
        self._through_weights()
        self._through_logits()
        self._out, self.gradients = None, []
        return kept

    def _forward(self) -> None:
        if self._is_zero:
            return
        with torch.enable_grad():
            self._out = self._module(*self._inputs)
        self._target.value.add_(self._out.detach())

    def _through_weights(self) -> None:
        gradients = self._backward([*self._differentiated, *self._weights])
        pairs = zip(self._weights, gradients[len(self._sources) :], strict=True)
        self.gradients = [(w, laid_out_like(w, g)) for w, g in pairs if g is not None]

    def _through_logits(self) -> None:
        self._backward(self._differentiated)
        grad, inner = self._target.grad, self._inner
        if inner is None or grad is None:
            return
        if self._out is not None:
            inner.copy_(inner_product(grad, self._out.detach()))
        if self._minus_sum:  # of what was zeroed, where nothing was run
            inner.sub_(element_sum(grad))

    def _backward(self, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The gradients of `inputs`, which begin with those of the sources: these are added."""
        if not inputs or self._out is None or not self._out.requires_grad:
            return [None] * len(inputs)
        gradients = torch.autograd.grad(
            self._out, inputs, self._target.grad, retain_graph=True, allow_unused=True
        )
        for node, gradient in zip(self._sources, gradients, strict=False):
            if gradient is not None and node.grad is not None:
                node.grad.add_(gradient)
        return gradients


def laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    """Optimisers take many weights at once where their gradients lie in memory as they do."""
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight).copy_(gradient)


class Recorder:
    """Makes CUDA graphs of actions; on other devices it hands actions back as they are."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._pools: dict[str, Any] = {}

    def __call__(self, action: Action, pool: str) -> Action:
        """Records `action`, which is not done; what it allocates is in the memory called `pool`."""
        if self._stream is None:
            return action
        if pool not in self._pools:
            self._pools[pool] = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            # Other threads (loaders, autograd's own) may do meanwhile what this one must not.
            graph.capture_begin(pool=self._pools[pool], capture_error_mode="thread_local")
            try:
                action()
            finally:
                graph.capture_end()
        return graph.replay

    @contextmanager
    def beside(self, *tensors: Tensor) -> Iterator[None]:
        """What is done inside is done beside all else, from now on, and may read `tensors`."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        for tensor in tensors:
            tensor.record_stream(self._stream)

    def join(self) -> None:
        """What follows waits for what was done beside it."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def measured(self, action: Callable[[], Tensor]) -> tuple[Tensor, int]:
        """Does `action`; returns its result and the most bytes of a GPU that it needed at once."""
        if self._stream is None:
            return action(), 0
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        result = action()
        return result, torch.cuda.max_memory_allocated(self._device) - before

    def has_room(self, num_bytes: int) -> bool:
        """Whether a GPU has so much memory to spare; makes what room it can."""
        if self._stream is None:
            return True
        if num_bytes <= MEMORY_SHARE * self._num_free():
            return True
        # Graphs that are gone, and what was freed on other streams, PyTorch keeps until asked.
        gc.collect()
        torch.cuda.empty_cache()
        return num_bytes <= MEMORY_SHARE * self._num_free()

    def _num_free(self) -> int:
        """Bytes of the GPU."""
        return torch.cuda.mem_get_info(self._device)[0]

    def warm_up(self, candidates: Sequence[Candidate]) -> str | None:
        """Does all passes once: libraries choose their algorithms, which no recording could.

        Returns:
            A reason not to record, where the memory of a GPU is too small for that.
        """
        if self._stream is None:
            return None
        with self.beside():
            num_bytes = sum(candidate.warm_up() for candidate in candidates)
        self.join()
        torch.cuda.synchronize(self._device)
        gc.collect()  # nothing should be freed while graphs are recorded
        torch.cuda.empty_cache()
        if self.has_room(num_bytes):
            return None
        gib = 2**30
        free = self._num_free() / gib
        return f"{num_bytes / gib:.1f} GiB are too much where {free:.1f} GiB are free"


class Recording:
    """All candidates of a network, on images of one size.

    Attributes:
        anchor: What an output hangs on where no handle asks for its backward pass.
        inner_products: One a choice, of the last backward pass to the logits.
        minus_sum: What these are, see `nas.supernet.Sample`.
        num_runs: Forward passes so far.
    """

    def __init__(
        self, parts: Parts, choices: Sequence[Decision], images: Tensor, minus_sum: bool
    ) -> None:
        """Args:
        parts: Of the network.
        choices: All that it has; `parts` may have them in another order.
        images: `[B, C, H, W]`, of the size that all will have.
        minus_sum: See `nas.supernet.Sample`.
        """
        numbers = {id(choice): number for number, choice in enumerate(choices)}
        self._parts, self._first_images = parts, images
        self._lent: list[tuple[nn.Parameter, Tensor]] = []
        self._numbers = [numbers.get(id(part.module)) for part in parts]
        self.inner_products = torch.zeros(len(choices), device=images.device)
        self.anchor = torch.zeros((), device=images.device, requires_grad=True)
        self.num_runs = 0
        self._nodes = _nodes_of(parts, images)
        self._output = self._nodes[parts[-1].target]
        self._candidates = {
            (place, option): Candidate(
                module,
                [self._nodes[source] for source in part.sources],
                self._nodes[part.target],
                None if number is None else self.inner_products[number],
                minus_sum,
            )
            for place, (part, number) in enumerate(zip(parts, self._numbers, strict=True))
            for option, module in _modules_of(part)
        }
        self.minus_sum = minus_sum
        self.live = lru_cache(maxsize=1 << 14)(self._live)

    def takes(self, images: Tensor) -> bool:
        """Whether these are like the first ones in size, type and layout."""
        first = self._first_images
        described = (images.shape, images.dtype, images.stride())
        return described == (first.shape, first.dtype, first.stride())

    def record(self) -> str | None:
        """Records all passes; returns a reason not to where there is too little memory."""
        candidates = list(self._candidates.values())
        recorder = Recorder(self._first_images.device)
        refusal = recorder.warm_up(candidates)
        if refusal is None:
            # A graph may take memory that earlier ones have used and left nothing in. So graphs
            # that leave something behind are recorded in the order in which they are replayed: none
            # writes where a later one has left what is still to be read.
            for candidate in candidates:
                candidate.record(recorder)
            for candidate in reversed(candidates):
                candidate.record_backward(recorder)
        return refusal

    def forward(self, images: Tensor, live: Sequence[Candidate]) -> Tensor:
        """The output under the candidates `live`."""
        self.num_runs += 1
        torch._foreach_zero_([node.value for node in self._nodes[1:]])
        self._nodes[0].value.copy_(images)
        for candidate in live:
            candidate.forward()
        return self._output.value.clone()

    def through_weights(self, grad: Tensor, live: Sequence[Candidate]) -> None:
        """Goes back from the gradient of the output to the weights; adds to their `grad`."""
        self._start_backward(grad)
        for candidate in reversed(live):
            candidate.through_weights()
            for weight, gradient in candidate.gradients:
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
            self._lent += candidate.gradients

    def through_logits(self, grad: Tensor, live: Sequence[Candidate]) -> Tensor:
        """Goes back from the gradient of the output to the choices: their inner products."""
        self._start_backward(grad)
        self.inner_products.zero_()
        for candidate in reversed(live):
            candidate.through_logits()
        return self.inner_products.clone()

    def _start_backward(self, grad: Tensor) -> None:
        # Of images before these: any graph, also of another candidate, may write where they lie,
        # for the order in which nothing does (see `record`) is that of one pass.
        for weight, gradient in self._lent:
            if weight.grad is gradient:
                weight.grad = gradient.clone()
        self._lent.clear()
        torch._foreach_zero_([node.grad for node in self._nodes if node.grad is not None])
        assert self._output.grad is not None
        self._output.grad.copy_(grad)

    def _live(self, chosen: tuple[int, ...], silent: bool) -> tuple[Candidate, ...]:
        """The candidates that the output depends on, in order; see `Parts.live`."""
        options = [None if number is None else chosen[number] for number in self._numbers]
        places = self._parts.live(options, silent=silent)
        return tuple(self._candidates[place, options[place]] for place in places)


def _modules_of(part: Part) -> list[tuple[int | None, nn.Module]]:
    if isinstance(part.module, Choice):
        return list(enumerate(part.module.candidates))
    return [(None, part.module)]


def _nodes_of(parts: Parts, images: Tensor) -> list[Node]:
    """The nodes; what size each has a module that leads there tells."""
    nodes: dict[int, Node] = {0: Node(images, has_grad=False)}
    with torch.no_grad():
        for part in parts:
            for _, module in _modules_of(part):
                if part.target not in nodes and not isinstance(module, Zero):
                    inputs = [nodes[source].value for source in part.sources]
                    nodes[part.target] = Node(module(*inputs))
    return [nodes[number] for number in range(parts.num_nodes)]
