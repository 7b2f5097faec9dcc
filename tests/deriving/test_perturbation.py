"""Selection by perturbation, where the answer is known in closed form."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations, product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from supernet_helpers import SETTINGS, SPACES, batch, build, generator
from torch import Tensor, nn

from nas.choice import Choice
from nas.deriving.perturbation import Decision, Perturbation, least_missed, most_missed
from nas.genotype import Genotype
from nas.sampling.samplers import SAMPLERS
from nas.spaces import DARTS, SearchSpace
from nas.supernet import Sample, Supernet

EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
BOTH = pytest.mark.parametrize("sampler", ["softmax", "gdas"])


class ToySpace:
    """One choice a name; every choice is derived."""

    name = "toy"

    def __init__(self, operations: tuple[str, ...], never_derived: tuple[str, ...] = ()) -> None:
        self.operations, self.never_derived = operations, frozenset(never_derived)

    def options_of(self, name: str) -> tuple[str, ...]:
        return self.operations

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        allowed = [k for k, o in enumerate(self.operations) if o not in self.never_derived]
        best = {n: max(allowed, key=lambda k: float(row[k])) for n, row in scores.items()}
        choices = {name: self.operations[k] for name, k in best.items()}
        return Genotype(self.name, self.operations, choices)


def toy_supernet(num_choices: int, options: tuple[str, ...]) -> Supernet:
    choices = [
        Choice({o: nn.Linear(1, 1) for o in options}, f"cell/0->{i}")
        for i in range(1, num_choices + 1)
    ]
    return Supernet(nn.Sequential(*choices), generator(), init_scale=1.0)


def perturbation(space: Any, supernet: Supernet, sampler: str, **changes: Any) -> Perturbation:
    settings = {
        "space": space,
        "supernet": supernet,
        "sampler": SAMPLERS.get(sampler),
        "num_paths": 2,
        "generator": generator(),
        "evaluate": lambda sample: 0.0,
        "tune": lambda sample: None,
    }
    return Perturbation(**(settings | changes))


def additive(table: Tensor) -> Callable[[Sample], float]:
    """An accuracy to which each option of each choice adds its share, `[N, K]`."""
    return lambda sample: float((sample.weights.detach().double() * table).sum())


def tables(num_choices: int, num_options: int) -> st.SearchStrategy[Tensor]:
    row = st.lists(st.integers(0, 20), min_size=num_options, max_size=num_options)
    rows = st.lists(row, min_size=num_choices, max_size=num_choices)
    return rows.map(lambda values: torch.tensor(values, dtype=torch.float64))


# Against the definition


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Signs(nn.Module):
    """Two pixels, four classes: the signs of both. Each edge sees one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            Choice({"loud": Times(-0.1), "useful": Times(1.0), "idle": Times(0.0)}, name)
            for name in ("cell/0->1", "cell/0->2")
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = (edge(pixel) for edge, pixel in zip(self.edges, x.unbind(1), strict=True))
        return torch.stack([-first - second, -first + second, first - second, first + second], 1)


@pytest.mark.parametrize("seed", range(3))
@BOTH
def test_what_the_accuracy_needs_is_kept_and_not_what_the_logits_prefer(
    sampler: str, seed: int
) -> None:
    supernet, space = Supernet(Signs(), generator()), ToySpace(("loud", "useful", "idle"))
    with torch.no_grad():
        supernet.logits.copy_(torch.tensor([[1.0, 0.0, 0.5], [0.8, 0.0, 0.4]]))
    before = supernet.probabilities()
    assert set(space.derive(before).choices.values()) == {"loud"}
    pixels = torch.linspace(-1, 1, 10)
    images = torch.cartesian_prod(pixels, pixels)
    labels = 2 * (images[:, 0] > 0) + (images[:, 1] > 0)

    def evaluate(sample: Sample) -> float:
        with torch.no_grad():
            found = supernet.forward(images, sample).argmax(1)
        return 100 * float((found == labels).float().mean())

    decisions: list[Decision] = []
    changes = {"num_paths": 40, "generator": generator(seed), "on_decision": decisions.append}
    genotype = perturbation(space, supernet, sampler, evaluate=evaluate, **changes).derive()
    assert set(genotype.choices.values()) == {"useful"}
    for name, p in before.items():
        assert genotype.confidence[name].probability == pytest.approx(float(p[1]))
    if sampler == "softmax":
        # p_useful - p_loud / 10 > 0, and - p_loud / 10 < 0: right with it and wrong without.
        assert all(d.accuracies == {"loud": 100.0, "useful": 0.0, "idle": 100.0} for d in decisions)
    else:
        # The second decision meets one path alone: 100 % if useful, 0 if loud, 50 if idle.
        values, p = torch.tensor([0.0, 100.0, 50.0]), before[decisions[1].name]
        for k, option in enumerate(space.operations):
            left = [j for j in range(3) if j != k]
            expected = float((p[left] * values[left]).sum() / p[left].sum())
            assert decisions[1].accuracies[option] == pytest.approx(expected, abs=1e-3)


@given(table=tables(3, 4))
@SETTINGS
def test_of_all_options_the_mixture_of_the_others_is_asked(table: Tensor) -> None:
    """One open choice of three: its weights are p_j / (1 - p_k), those of the others p."""
    supernet = toy_supernet(3, ("a", "b", "c", "d"))
    p = supernet.logits.detach().double().softmax(-1)
    others = float((p[1:] * table[1:]).sum())
    space = ToySpace(("a", "b", "c", "d"))
    made = perturbation(space, supernet, "softmax", evaluate=additive(table))
    found = made._without_each_option("cell/0->1", space.operations)
    for k, option in enumerate(space.operations):
        left = [j for j in range(4) if j != k]
        expected = sum(float(p[0, j] * table[0, j]) for j in left) / float(1 - p[0, k])
        assert found[option] == pytest.approx(others + expected, abs=1e-4)


def test_of_one_path_the_mean_over_paths_without_the_option_is_asked() -> None:
    """Against rejection: paths of the sampler that do not take the option. Choices interact."""
    supernet = toy_supernet(3, ("a", "b", "c"))
    values = torch.rand(3, 3, 3, generator=generator(5)) * 100
    made = perturbation(
        ToySpace(("a", "b", "c")),
        supernet,
        "gdas",
        evaluate=lambda sample: float(values[sample.indices]),
        num_paths=3000,
    )
    found = made._without_each_option("cell/0->2", ["a", "b", "c"])
    p = supernet.logits.detach().softmax(-1)
    for k, option in enumerate("abc"):
        paths = [path for path in product(range(3), repeat=3) if path[1] != k]
        weights = [float(p[range(3), path].prod()) for path in paths]
        mean = sum(w * float(values[q]) for w, q in zip(weights, paths, strict=True))
        assert found[option] == pytest.approx(mean / sum(weights), abs=1.5)


def test_a_sampler_without_logits_draws_all_options_alike() -> None:
    supernet = toy_supernet(1, ("a", "b", "c"))
    table = torch.tensor([[10.0, 20.0, 60.0]], dtype=torch.float64)
    made = perturbation(ToySpace(("a", "b", "c")), supernet, "uniform", evaluate=additive(table))
    found = made._without_each_option("cell/0->1", ["a", "b", "c"])
    assert found == pytest.approx({"a": 40.0, "b": 35.0, "c": 15.0})


# Common random numbers, order


@given(table=tables(4, 3), seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
@SETTINGS
def test_where_choices_do_not_interact_the_order_and_the_paths_do_not_matter(
    table: Tensor, seeds: tuple[int, int]
) -> None:
    """With one path, too: whatever it is, all options of a choice meet the same."""
    space, options = ToySpace(("a", "b", "c")), ("a", "b", "c")
    for sampler, expected in (("softmax", None), ("gdas", None), ("uniform", table.argmax(1))):
        found = []
        for seed in seeds:
            supernet, decisions = toy_supernet(4, options), []
            made = perturbation(
                space,
                supernet,
                sampler,
                evaluate=additive(table),
                num_paths=1,
                generator=generator(seed),
                on_decision=decisions.append,
            )
            found.append(made.derive().choices)
        assert found[0] == found[1]
        if expected is not None and all(row.eq(row.max()).sum() == 1 for row in table):
            assert list(found[0].values()) == [options[k] for k in expected]


@BOTH
def test_a_seed_replays_and_another_has_another_order(sampler: str) -> None:
    def run(seed: int) -> list[Decision]:
        supernet, decisions = toy_supernet(6, ("a", "b", "c")), []
        values = torch.rand(6, 3, generator=generator(1))

        def evaluate(sample: Sample) -> float:
            return float((sample.weights.detach() * values).sum(1).prod())

        changes = {"generator": generator(seed), "on_decision": decisions.append}
        perturbation(
            ToySpace(("a", "b", "c")), supernet, sampler, evaluate=evaluate, **changes
        ).derive()
        return decisions

    assert run(3) == run(3)
    orders = {tuple(d.name for d in run(seed)) for seed in range(20)}
    assert len(orders) > 15 and len({order[0] for order in orders}) > 3


def test_ties_go_to_the_more_probable_then_to_the_earlier() -> None:
    prior = {"a": 0.2, "b": 0.4, "c": 0.4}
    assert most_missed({"a": 1.0, "b": 1.0, "c": 1.0}, prior) == "b"
    assert most_missed({"a": 0.5, "b": 1.0, "c": 1.0}, prior) == "a"
    assert least_missed({"a": 1.0, "b": 1.0, "c": 1.0}, prior) == "a"
    assert least_missed({"a": 0.5, "b": 1.0, "c": 1.0}, prior) == "c"


@pytest.mark.parametrize("sampler", ["softmax", "gdas", "uniform"])
def test_rounding_decides_nothing(sampler: str) -> None:
    """Equal accuracies: the most probable option stays, or the first where all are alike."""
    options = ("a", "b", "c", "d", "e")
    supernet = toy_supernet(5, options)
    best = supernet.logits.argmax(1).tolist() if sampler != "uniform" else [0] * 5
    made = perturbation(ToySpace(options), supernet, sampler, evaluate=lambda sample: 100 / 3)
    assert list(made.derive().choices.values()) == [options[k] for k in best]


# Options that no genotype has, and masks


@BOTH
def test_what_is_never_derived_stays_in_the_mixture_and_is_not_kept(sampler: str) -> None:
    options = ("none", "a", "b")
    supernet, seen = toy_supernet(3, options), []
    # The best by far is `none`; without it `b`.
    table = torch.tensor([[90.0, 1.0, 5.0]] * 3, dtype=torch.float64)

    def evaluate(sample: Sample) -> float:
        seen.append((supernet.masked.clone(), sample))
        return additive(table)(sample)

    decisions: list[Decision] = []
    changes = {"evaluate": evaluate, "on_decision": decisions.append}
    made = perturbation(ToySpace(options, ("none",)), supernet, sampler, **changes)
    assert set(made.derive().choices.values()) == {"b"}
    assert all(list(d.accuracies) == ["a", "b"] for d in decisions)
    is_open = [(masked[:, 0], sample.weights[:, 0]) for masked, sample in seen]
    if sampler == "softmax":
        assert all((weight > 0).equal(~gone) for gone, weight in is_open)
    else:
        assert any(weight.any() for _, weight in is_open)
        assert all(not weight[gone].any() for gone, weight in is_open)


@BOTH
@EVERY_SPACE
def test_the_masks_leave_what_was_derived_and_nothing_masked_is_ever_asked(
    space: SearchSpace, sampler: str
) -> None:
    supernet = build(space)
    supernet.prune(3, space.never_derived)
    pruned, asked, tuned = supernet.masked.clone(), [], []

    def evaluate(sample: Sample) -> float:
        assert not sample.weights[supernet.masked].any()
        supernet.forward(batch()[0], sample)
        asked.append(sample)
        return float(torch.rand(1, generator=source)) * 100

    def tune(sample: Sample | None) -> None:
        tuned.append((sample, int((supernet.masked.sum(1) == supernet.masked.shape[1] - 1).sum())))

    source, calls, decisions = generator(7), [], []
    made = perturbation(
        space,
        supernet,
        sampler,
        evaluate=evaluate,
        tune=tune,
        on_evaluation=lambda: calls.append(None),
        on_decision=decisions.append,
    )
    num_evaluations = made.num_evaluations
    with torch.no_grad():
        genotype = made.derive()
    assert len(calls) == num_evaluations >= len(asked) > 0
    left = supernet.split(~supernet.masked)
    assert all(row.sum() == 1 for row in left.values())
    assert supernet.masked[pruned].all() and supernet.allows(genotype.choices)
    assert not set(genotype.choices.values()) & space.never_derived
    space.build_network(genotype)  # refuses what does not fit
    # Trained on between two decisions: first as ever, then under what was decided.
    names = [d.name for d in decisions]
    options = [name for name in names if name in supernet.names]
    assert names == options + names[len(options) :] and sorted(options) == sorted(supernet.names)
    assert [sample is None for sample, _ in tuned] == [True] * (len(options) - 1) + [False] * (
        len(names) - len(options)
    )
    assert [n for sample, n in tuned if sample is None] == list(range(1, len(options)))
    kept = {d.name: d.kept for d in decisions}
    assert all(kept[name] == (option,) for name, option in genotype.choices.items())
    assert set(genotype.confidence) == set(genotype.choices)


@EVERY_SPACE
def test_what_was_pruned_to_one_option_is_not_asked(space: SearchSpace) -> None:
    supernet, decisions = build(space), []
    supernet.prune(1, space.never_derived)
    expected = {name: int(row.argmax()) for name, row in supernet.probabilities().items()}
    made = perturbation(space, supernet, "softmax", on_decision=decisions.append)
    genotype = made.derive()
    for name, option in genotype.choices.items():
        assert option == supernet.options[name][expected[name]]
    assert not any(decision.name in supernet.names for decision in decisions)


# Inputs of nodes


def darts_with(
    value: Callable[[set[str]], float], **changes: Any
) -> tuple[dict[str, str], list[Decision]]:
    """What a DARTS supernet with decided options keeps, if its accuracy depends on the edges."""
    space = SPACES["darts"]
    supernet, decisions = build(space), []
    supernet.prune(1, space.never_derived)

    def evaluate(sample: Sample) -> float:
        assert sample.indices is not None
        pairs = zip(supernet.names, sample.indices, strict=True)
        return value({name for name, index in pairs if index >= 0})

    made = perturbation(
        space, supernet, "softmax", evaluate=evaluate, on_decision=decisions.append, **changes
    )
    return dict(made.derive().choices), decisions


@pytest.mark.parametrize("pair", list(combinations(range(3), 2)))
def test_the_inputs_that_are_missed_most_are_kept(pair: tuple[int, int]) -> None:
    needed = {f"{cell}/{s}->3" for cell in ("normal", "reduce") for s in pair}
    choices, decisions = darts_with(lambda edges: 10.0 * len(edges & needed) + len(edges))
    assert needed <= choices.keys()
    assert {d.name for d in decisions} == {"normal/3", "reduce/3"}
    assert Counter(name.rpartition("->")[0][:-2] for name in choices) == {"normal": 4, "reduce": 4}


def test_of_two_inputs_that_stand_in_for_each_other_one_is_kept() -> None:
    """Neither is missed while the other is there: dropped one by one, the last of them stays."""
    space = DARTS(in_channels=3, num_classes=4, channels=4, cells=3, nodes=4)
    supernet = build(space)
    supernet.prune(1, space.never_derived)

    def evaluate(sample: Sample) -> float:
        assert sample.indices is not None
        pairs = zip(supernet.names, sample.indices, strict=True)
        edges = {name for name, index in pairs if index >= 0}
        twins = {"normal/0->5", "normal/1->5"} & edges
        return 20.0 * bool(twins) + 5.0 * ("normal/3->5" in edges) + 4.0 * ("normal/2->5" in edges)

    choices = perturbation(space, supernet, "softmax", evaluate=evaluate).derive().choices
    kept = {name for name in choices if name.startswith("normal") and name.endswith("->5")}
    assert len(kept) == 2 and "normal/3->5" in kept
    assert len(kept & {"normal/0->5", "normal/1->5"}) == 1


def test_inputs_are_dropped_one_node_after_the_other_with_training_between() -> None:
    tuned: list[Sample | None] = []
    darts_with(len, tune=tuned.append)  # type: ignore[arg-type]
    assert len(tuned) == 1 and tuned[0] is not None and tuned[0].indices is not None
    assert sum(index < 0 for index in tuned[0].indices) == 1
