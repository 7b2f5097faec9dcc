"""The second-order gradient against autograd through a differentiable SGD step."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.choice import Choice
from nas.errors import UserError
from nas.ops import Norm
from nas.optimisation.bilevel import Alternating, Batch, Learner
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import NASBench201
from nas.supernet import Sample, Supernet

CLIPPING = {"no clipping": 0.0, "inactive": 1e3, "active": 0.2}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Smooth(nn.Module):
    """A small smooth network whose first and last choice share their decision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(4, 5)
        self.choices = nn.ModuleList(
            Choice({str(k): self.operation(k) for k in range(size)}, name)
            for name, size in (("a", 3), ("b", 2), ("a", 3))
        )
        self.head = nn.Linear(5, 3)

    @staticmethod
    def operation(index: int) -> nn.Module:
        activation = (nn.Tanh, nn.Softplus, nn.Sigmoid)[index]
        return nn.Sequential(nn.Linear(5, 5), activation(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        for choice in self.choices:
            x = x + choice(x)
        out: Tensor = self.head(x)
        return out


def batch(seed: int) -> Batch:
    source = generator(seed)
    return torch.randn(8, 4, generator=source), torch.randint(3, (8,), generator=source)


def make_learner(sampler: str, temperature: float = 1.0, **options: object) -> Learner:
    supernet = Supernet(Smooth(), generator(0), init_scale=0.5)
    chosen = OptimizerSettings(**{"learning_rate": 0.5, "momentum": 0.9, **options})
    logits = OptimizerSettings(learning_rate=1.0, momentum=0.0)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), generator(1), temperature),
        Updater(supernet.model.parameters(), chosen),
        Updater([supernet.logits], logits),
    )


# The reference


class Reference:
    """The same network as a function of its weights and of the weights of a sample."""

    def __init__(self, learner: Learner, sample: Sample) -> None:
        self.learner, self.sample = learner, sample
        self.model = learner.supernet.model
        self.rows = {name: row for row, name in enumerate(learner.supernet.names)}

    def part(self, path: str, params: dict[str, Tensor], x: Tensor) -> Tensor:
        mine = {n[len(path) + 1 :]: p for n, p in params.items() if n.startswith(path + ".")}
        return functional_call(self.model.get_submodule(path), mine, (x,))

    def loss(self, params: dict[str, Tensor], weights: Tensor, data: Batch) -> Tensor:
        x = self.part("stem", params, data[0]).tanh()
        for place, choice in enumerate(self.model.choices):
            row = self.rows[choice.name]
            if self.sample.indices is None:
                used = list(range(len(choice.options)))
            else:
                used = [self.sample.indices[row]]
            paths = {k: f"choices.{place}.candidates.{k}" for k in used}
            x = x + sum(weights[row, k] * self.part(p, params, x) for k, p in paths.items())
        return nn.functional.cross_entropy(self.part("head", params, x), data[1])

    def step(self, params: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """SGD as torch documents it, differentiable."""
        updater = self.learner.weights
        chosen, owners = updater.settings, dict(self.model.named_parameters())
        if chosen.clip_norm > 0:
            norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
            factor = (chosen.clip_norm / (norm + 1e-6)).clamp(max=1.0)
            gradients = {name: factor * g for name, g in gradients.items()}
        moved = dict(params)
        for name, gradient in gradients.items():
            decayed = gradient + chosen.weight_decay * params[name]
            buffer = updater.optimizer.state[owners[name]].get("momentum_buffer")
            velocity = decayed if buffer is None else chosen.momentum * buffer + decayed
            step = decayed + chosen.momentum * velocity if chosen.nesterov else velocity
            moved[name] = params[name] - chosen.learning_rate * step
        return moved

    def gradient(self, validation: Batch, train: Batch) -> Tensor:
        """The exact derivative of the validation loss after the step, `[N, K]`."""
        params = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        params = {n: p.requires_grad_() for n, p in params.items()}
        weights = self.sample.weights.detach().clone().requires_grad_()
        found = torch.autograd.grad(
            self.loss(params, weights, train),
            list(params.values()),
            create_graph=True,
            allow_unused=True,
        )
        gradients = {n: g for n, g in zip(params, found, strict=True) if g is not None}
        after = self.loss(self.step(params, gradients), weights, validation)
        return torch.autograd.grad(after, weights)[0]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("clip_norm", CLIPPING.values(), ids=CLIPPING.keys())
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
@pytest.mark.parametrize("real_steps", [0, 3], ids=["no buffers", "buffers"])
@pytest.mark.parametrize("sampler", ["softmax", "gumbel_softmax", "gdas"])
def test_the_second_order_gradient_is_the_exact_derivative(
    sampler: str, real_steps: int, nesterov: bool, weight_decay: float, clip_norm: float
) -> None:
    learner = make_learner(
        sampler, nesterov=nesterov, weight_decay=weight_decay, clip_norm=clip_norm
    )
    for seed in range(real_steps):
        learner.update_weights(batch(10 + seed))
    sample, validation, train = learner.draw(), batch(1), batch(2)
    expected = Reference(learner, sample).gradient(validation, train)
    found, _ = SecondOrder(radius=1e-3).gradient(learner, sample, validation, train)
    first, _ = learner.decision_gradient(validation, sample)
    # torch's clipping adds 1e-6 to the norm; its effect on the Jacobian is left out.
    assert relative_error(found, expected) < (1e-4 if clip_norm == 0.2 else 1e-5)
    assert relative_error(first, expected) > 1e-2


def test_the_clipping_is_active_only_where_the_test_says_so() -> None:
    learner = make_learner("softmax")
    loss, _ = learner.weights_loss(batch(2), learner.draw())
    loss.backward()
    norm = nn.utils.get_total_norm([p.grad for p in learner.weights.parameters])
    assert CLIPPING["active"] < norm / 2 and norm * 2 < CLIPPING["inactive"]


def test_the_unrolled_step_is_that_of_the_real_optimiser() -> None:
    for nesterov in (False, True):
        learner = make_learner("softmax", nesterov=nesterov, weight_decay=0.05, clip_norm=0.2)
        learner.update_weights(batch(3))
        reference = Reference(learner, learner.draw())
        params = {n: p.detach().clone() for n, p in reference.model.named_parameters()}
        loss, _ = learner.weights_loss(batch(4), reference.sample)
        loss.backward()
        named = reference.model.named_parameters()
        expected = reference.step(
            params, {n: p.grad.clone() for n, p in named if p.grad is not None}
        )
        learner.weights.step()
        for name, parameter in reference.model.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name])


@pytest.mark.parametrize("sampler", ["softmax", "gdas"])
def test_the_error_falls_with_the_square_of_the_radius(sampler: str) -> None:
    learner = make_learner(sampler, nesterov=True)
    sample, validation, train = learner.draw(), batch(1), batch(2)
    expected = Reference(learner, sample).gradient(validation, train)
    errors = [
        relative_error(
            SecondOrder(radius).gradient(learner, sample, validation, train)[0], expected
        )
        for radius in (1e-1, 1e-2, 1e-3)
    ]
    assert errors[0] > 50 * errors[1] > 50 * 50 * errors[2]


def test_only_the_sampled_decisions_have_a_gradient() -> None:
    learner = make_learner("gdas")
    sample = learner.draw()
    gradient, _ = SecondOrder().gradient(learner, sample, batch(1), batch(2))
    assert torch.equal(gradient != 0, sample.weights.detach() != 0)


def test_the_result_is_that_of_the_validation_batch_after_the_step() -> None:
    learner = make_learner("softmax", momentum=0.0)
    sample, validation, train = learner.draw(), batch(1), batch(2)
    _, result = SecondOrder().gradient(learner, sample, validation, train)
    loss, _ = learner.weights_loss(train, sample)
    loss.backward()
    learner.weights.step()
    after, expected = learner.weights_loss(validation, sample)
    torch.testing.assert_close(result.loss, after.detach())
    assert result.num_images == 8 and torch.equal(result.num_correct, expected.num_correct)


def test_a_logits_update_uses_the_exact_gradient_through_the_softmax() -> None:
    learner = make_learner("softmax", weight_decay=0.05)
    validation, train, supernet = batch(1), batch(2), learner.supernet
    before = supernet.logits.detach().clone()
    decisions = Reference(learner, learner.draw()).gradient(validation, train)
    alternating = Alternating(learner, SecondOrder(1e-3), order="logits_first")
    alternating.step(0, train, iter([validation]))
    p = before.masked_fill(supernet.masked_logits().isneginf(), -torch.inf).softmax(-1)
    expected = p * (decisions - (p * decisions).sum(-1, keepdim=True))
    torch.testing.assert_close(before - supernet.logits.detach(), expected, atol=1e-7, rtol=1e-4)


def test_a_loss_that_ignores_the_weights_has_no_second_order_term() -> None:
    learner = make_learner("softmax")
    learner.loss = lambda outputs, labels: 0.0 * outputs.sum()
    gradient, _ = SecondOrder().gradient(learner, learner.draw(), batch(1), batch(2))
    assert gradient.eq(0).all()


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_optimisers_other_than_sgd_are_refused(name: str) -> None:
    learner = make_learner("softmax", name=name)
    with pytest.raises(UserError, match=r"set weights\.name to sgd"):
        SecondOrder().gradient(learner, learner.draw(), batch(1), batch(2))


# What must be as it was


def image_learner(sampler: str) -> Learner:
    """A real space whose batch norms keep running statistics."""
    torch.manual_seed(0)
    norm = Norm(affine=True, track_running_stats=True)
    space = NASBench201(in_channels=3, num_classes=3, channels=4, cells_per_stage=1, norm=norm)
    supernet = Supernet(space.build_supernet(), generator(0))
    chosen = OptimizerSettings(nesterov=True, weight_decay=1e-3, clip_norm=0.5)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), generator(1)),
        Updater(supernet.model.parameters(), chosen),
        Updater([supernet.logits], OptimizerSettings(name="adam")),
    )


def images(seed: int) -> Batch:
    source = generator(seed)
    return torch.randn(4, 3, 8, 8, generator=source), torch.randint(3, (4,), generator=source)


def state(learner: Learner) -> list[Tensor]:
    """All weights, buffers, logits and optimiser state."""
    optimizers = [u.optimizer.state_dict()["state"] for u in (learner.weights, learner.logits)]
    kept = [v for o in optimizers for s in o.values() for v in s.values() if v is not None]
    model = learner.supernet.model.state_dict()
    return copy.deepcopy([*model.values(), learner.supernet.logits.detach(), *kept])


def assert_same(before: list[Tensor], after: list[Tensor]) -> None:
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("sampler", ["gdas", "softmax"])
def test_weights_buffers_and_optimisers_end_bit_identical(sampler: str) -> None:
    learner = image_learner(sampler)
    for seed in range(2):
        learner.update_weights(images(seed))
    before, sample = state(learner), learner.draw()
    gradient, _ = SecondOrder().gradient(learner, sample, images(3), images(4))
    assert gradient.isfinite().all() and gradient.any()
    assert_same(before, state(learner))
    assert all(p.grad is None for p in learner.weights.parameters)
    assert learner.supernet.logits.grad is None


def test_both_sides_of_the_difference_drop_the_same_units() -> None:
    """Else they would differ by as much at any distance, and the quotient grow without bound."""
    learner = make_learner("softmax")
    model = learner.supernet.model
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)  # type: ignore[arg-type]
    found = []
    for radius in (1e-3, 1e-5):
        torch.manual_seed(0)
        found.append(SecondOrder(radius).gradient(learner, learner.draw(), batch(3), batch(4))[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("failing_pass", [1, 2, 3, 4])
def test_a_failure_in_any_pass_leaves_everything_as_it_was(failing_pass: int) -> None:
    learner = image_learner("softmax")
    learner.update_weights(images(0))
    before, passes = state(learner), 0

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        if passes == failing_pass:
            raise RuntimeError("out of memory")
        return nn.functional.cross_entropy(outputs, labels)

    learner.loss = loss
    with pytest.raises(RuntimeError, match="out of memory"):
        SecondOrder().gradient(learner, learner.draw(), images(3), images(4))
    assert_same(before, state(learner))


def test_a_disconnected_sample_has_zero_gradient() -> None:
    learner = image_learner("gdas")
    supernet = learner.supernet
    sample = supernet.fixed(dict.fromkeys(supernet.names, "none"))
    before = state(learner)
    gradient, result = SecondOrder().gradient(learner, sample, images(3), images(4))
    assert gradient.eq(0).all() and result.loss.isfinite()
    assert_same(before, state(learner))
