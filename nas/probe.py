"""Tries every option of a model once, before a search spends time on it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from nas.choice import Choice, Decision, InputChoice, Repeat, decisions
from nas.deriving.recalibration import buffers_restored
from nas.errors import UserError
from nas.plain import decide


def probe(model: nn.Module, images: Tensor, num_classes: int) -> None:
    """Runs `model` with every option of every choice, the others at their first.

    Args:
        model: With choices in it; weights, buffers and mode stay as they are.
        images: `[B, C, H, W]`, a few of those that will be searched on.
        num_classes: The output must be `[B, num_classes]`.

    Raises:
        UserError: an option fails, or has an output of another shape than the first one.
    """
    found = decisions(model)
    first = {name: modules[0].options[0] for name, modules in found.items()}
    expected = (len(images), num_classes)
    with torch.no_grad(), buffers_restored(model), _evaluating(model):
        decide(model, first)
        with _comparing(model):
            _check(_run(model, images, "the model"), expected, "the model")
        for name, modules in found.items():
            for option in modules[0].options[1:]:
                decide(model, {**first, name: option})
                who = f"option '{option}' of choice '{name}'"
                _check(_run(model, images, who), expected, who)
        decide(model, first)


def _check(output: object, expected: tuple[int, ...], who: str) -> None:
    if not isinstance(output, Tensor) or tuple(output.shape) != expected:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"{who}: the output is {shape}, it must be {list(expected)}")


def _run(module: Callable[..., object], inputs: object, who: str) -> object:
    try:
        return module(*inputs) if isinstance(inputs, tuple) else module(inputs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{who} cannot run: {reason}") from error


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _comparing(model: nn.Module) -> Iterator[None]:
    """Compares the outputs of all options wherever the forward pass comes to a choice."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, Choice | InputChoice | Repeat):
                stack.enter_context(module.register_forward_pre_hook(_compare))
        yield


def _compare(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(module, Decision)
    shapes: list[list[int]] = []
    for option, output in zip(module.options, _outputs(module, inputs), strict=True):
        shapes.append(list(output.shape))
        if shapes[-1] != shapes[0]:
            raise UserError(
                f"choice '{module.name}': the output of option '{option}' is {shapes[-1]}, that of "
                f"option '{module.options[0]}' is {shapes[0]}; all must have one shape"
            )


def _outputs(module: Decision, inputs: Sequence[Tensor]) -> Iterator[Tensor]:
    if isinstance(module, InputChoice):
        yield from inputs
    elif isinstance(module, Choice):
        for option, candidate in zip(module.options, module.candidates, strict=True):
            who = f"option '{option}' of choice '{module.name}'"
            yield _run(candidate, tuple(inputs), who)  # type: ignore[misc]
    elif isinstance(module, Repeat):
        (x,) = inputs
        states = [x]
        for block in module.blocks:
            states.append(_run(block, states[-1], f"a block of choice '{module.name}'"))  # type: ignore[arg-type]
        yield from (states[depth] for depth in module.depths)
