"""The samplers: marginals, weights, replay."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from nas.choice import Choice
from nas.errors import UserError
from nas.sampling import samplers
from nas.sampling.gumbel import gumbel_noise
from nas.sampling.samplers import SAMPLERS, SampleSource, linear_temperature
from nas.supernet import Supernet

SETTINGS = settings(deadline=None, derandomize=True, max_examples=50)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def logits(rows: int = 4, options: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, options, generator=generator(seed)).requires_grad_()


def supernet() -> Supernet:
    candidates = [{f"o{k}": nn.Identity() for k in range(size)} for size in (3, 4)]
    model = nn.Sequential(*(Choice(c, f"c{i}") for i, c in enumerate(candidates)))
    return Supernet(model, generator(), init_scale=1.0)


def p_value(drawn: Tensor, probabilities: Tensor) -> float:
    observed = torch.bincount(drawn, minlength=len(probabilities)).double()
    expected = probabilities.double() / probabilities.double().sum() * len(drawn)
    return float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


def draw_many(name: str, table: Tensor, num: int, temperature: float = 1.0) -> Tensor:
    """Indices `[num, N]` of one-path samples of the rows of `table`."""
    # The rows are independent: many copies of the table in one call are as many samples.
    copies = table.detach().repeat(num, 1)
    sample = SAMPLERS.get(name).draw(copies, temperature, generator(7))
    return torch.tensor(sample.indices).view(num, len(table))


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        ("gdas", 0.1),
        ("gdas", 10.0),
        ("gdas", 1e9),
        ("gumbel_rao", 0.5),
        ("reinmax", 1.0),
        ("score_function", 1.0),
    ],
)
def test_each_option_is_drawn_with_its_softmax_probability(
    name: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "GUMBEL_RAO_SAMPLES", 2)  # come after the option is drawn
    table = logits(12)
    drawn = draw_many(name, table, 5_000, temperature)
    for row, indices in zip(table.detach(), drawn.T, strict=True):
        assert p_value(indices, row.softmax(-1)) > 0.01 / 36


def test_gdas_draws_the_rows_independently() -> None:
    drawn = draw_many("gdas", torch.zeros(2, 3), 9_000)
    joint = drawn[:, 0] * 3 + drawn[:, 1]
    assert p_value(joint, torch.ones(9)) > 0.01


def test_uniform_draws_each_option_as_often_whatever_the_logits() -> None:
    table = logits(4) * 10
    for indices in draw_many("uniform", table, 5_000).T:
        assert p_value(indices, torch.ones(5)) > 0.01 / 4


def test_uniform_skips_what_is_masked() -> None:
    table = torch.zeros(1, 4)
    table[0, 1] = -torch.inf
    drawn = draw_many("uniform", table, 6_000)[:, 0]
    assert not drawn.eq(1).any()
    kept = torch.bincount(drawn, minlength=4)[[0, 2, 3]]
    assert stats.chisquare(kept.numpy()).pvalue > 0.01


@pytest.mark.parametrize("name", ["gdas", "gumbel_rao", "reinmax", "score_function", "uniform"])
def test_one_path_samples_are_exactly_one_hot_at_their_indices(name: str) -> None:
    for seed, temperature in enumerate((1e-6, 0.1, 1.0, 10.0, 1e6)):
        sample = SAMPLERS.get(name).draw(logits(), temperature, generator(seed))
        assert sample.indices is not None
        expected = nn.functional.one_hot(torch.tensor(sample.indices), 5).float()
        assert torch.equal(sample.weights.detach(), expected)


def test_gdas_has_the_gradient_of_the_relaxed_sample() -> None:
    table, towards = logits(), torch.randn(4, 5, generator=generator(3))
    sample = SAMPLERS.get("gdas").draw(table, 0.7, generator(1))
    (found,) = torch.autograd.grad((sample.weights * towards).sum(), table)
    noise = gumbel_noise((4, 5), generator(1))
    relaxed = ((table.log_softmax(-1) + noise) / 0.7).softmax(-1)
    (expected,) = torch.autograd.grad((relaxed * towards).sum(), table)
    torch.testing.assert_close(found, expected)
    assert torch.equal(relaxed.argmax(-1), torch.tensor(sample.indices))


def test_gumbel_softmax_weights_are_the_relaxed_sample() -> None:
    table = logits()
    sample = SAMPLERS.get("gumbel_softmax").draw(table, 0.7, generator(1))
    noise = gumbel_noise((4, 5), generator(1))
    assert sample.indices is None and sample.weights.requires_grad
    torch.testing.assert_close(sample.weights, ((table.log_softmax(-1) + noise) / 0.7).softmax(-1))


def test_dirichlet_weights_have_the_mean_of_the_concentrations() -> None:
    table = logits(1) * 2
    sample = SAMPLERS.get("dirichlet").draw(table.expand(40_000, 5), 1.0, generator(1))
    assert sample.indices is None
    beta = nn.functional.elu(table.detach()[0]) + 1
    torch.testing.assert_close(sample.weights.mean(0), beta / beta.sum(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 100.0])
def test_softmax_samples_nothing(temperature: float) -> None:
    table, source = logits(), generator()
    before = source.get_state()
    samples = [SAMPLERS.get("softmax").draw(table, temperature, source) for _ in range(3)]
    assert torch.equal(source.get_state(), before)
    for sample in samples:
        assert sample.indices is None
        torch.testing.assert_close(sample.weights, table.exp() / table.exp().sum(-1, True))
        assert torch.equal(sample.weights, samples[0].weights)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_declare_what_they_do(name: str) -> None:
    sampler, table = SAMPLERS.get(name), logits()
    warm, cold = (sampler.draw(table, t, generator(1)) for t in (5.0, 0.2))
    assert warm.weights.requires_grad == sampler.learns
    towards = torch.arange(5.0)
    same = torch.equal(warm.weights.detach(), cold.weights.detach())
    if sampler.learns:
        gradients = [torch.autograd.grad((s.weights @ towards).sum(), table) for s in (warm, cold)]
        assert all(g.isfinite().all() and g.any() for (g,) in gradients)
        same = same and torch.equal(gradients[0][0], gradients[1][0])
    assert same != sampler.uses_temperature


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_sample_source_replays_from_the_state_of_its_generator(name: str) -> None:
    source = SampleSource(supernet(), SAMPLERS.get(name), generator(2), temperature=0.5)
    source()
    state = source.generator.get_state()
    first = [source() for _ in range(8)]
    source.generator.set_state(state)
    second = [source() for _ in range(8)]
    assert [s.indices for s in first] == [s.indices for s in second]
    assert all(torch.equal(a.weights, b.weights) for a, b in zip(first, second, strict=True))
    if name != "softmax":
        assert any(not torch.equal(s.weights, first[0].weights) for s in first)


def test_a_sample_source_uses_its_present_temperature() -> None:
    source = SampleSource(supernet(), SAMPLERS.get("gumbel_softmax"), generator())
    source.temperature = 1e6
    uniform = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(source().weights.detach(), uniform, atol=1e-4, rtol=0)
    source.temperature = 1e-4
    assert source().weights.amax(-1).min() > 0.999


def test_fair_samples_have_every_option_once() -> None:
    found = supernet()
    source = SampleSource(found, SAMPLERS.get("gdas"), generator(3))
    pairs = set()
    for _ in range(40):
        samples = source.fair()
        first, second = (list(column) for column in zip(*(s.indices for s in samples), strict=True))
        assert sorted(second) == [0, 1, 2, 3]
        assert sorted(set(first)) == [0, 1, 2], "the shorter choice starts over for the last"
        for sample in samples:
            assert torch.equal(sample.weights.argmax(1), torch.tensor(sample.indices))
            assert sample.weights.sum() == 2 and not sample.weights.requires_grad
        pairs |= set(zip(first, second, strict=True))
    assert len(pairs) == 12, "the choices are permuted independently"


def test_uniform_samples_for_the_weights_ignore_the_logits() -> None:
    found = supernet()
    with torch.no_grad():
        found.logits[1, 0] = 50.0
    source = SampleSource(found, SAMPLERS.get("gdas"), generator(3))
    assert {source.uniform()[0].indices[1] for _ in range(60)} == {0, 1, 2, 3}


def test_unknown_samplers_are_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'gdas'"):
        SAMPLERS.get("gdass")


@SETTINGS
@given(st.floats(0.1, 20), st.floats(0.1, 20), st.integers(2, 300))
def test_the_temperature_moves_in_equal_steps_from_start_to_end(
    start: float, end: float, epochs: int
) -> None:
    line = [linear_temperature(start, end, epoch, epochs) for epoch in range(epochs)]
    assert line[0] == start and line[-1] == pytest.approx(end)
    steps = [b - a for a, b in pairwise(line)]
    assert steps == pytest.approx([(end - start) / (epochs - 1)] * (epochs - 1), abs=1e-9)
    assert all(t > 0 for t in line)


def test_a_search_of_one_epoch_has_the_first_temperature() -> None:
    assert linear_temperature(10.0, 0.1, 0, 1) == 10.0
