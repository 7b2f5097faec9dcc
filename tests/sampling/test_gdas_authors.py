"""The gradient of the GDAS authors' code for NAS-Bench-201, against autograd with their additions.

`test_supernet` has the same comparison for likely samples of every space; here `none` prevails.
"""

import copy
from collections.abc import Iterator

import pytest
import torch
from supernet_helpers import SPACES, build, decision_gradient, generator, logits_gradient
from test_supernet import reference_gradient
from torch import nn

from nas.choice import Choice
from nas.kernels.arithmetic import ATenKernels, CompiledKernels
from nas.kernels.fused import fuse
from nas.ops import Zero
from nas.partial import PartialChoice
from nas.sampling.samplers import SAMPLERS
from nas.supernet import Sample, Supernet

AUTHORS = SAMPLERS.get("gdas_authors")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def with_much_none(space: str, kernels: str = "plain") -> Supernet:
    supernet = build(SPACES[space], scale=0.5)
    if kernels == "fused":
        model = copy.deepcopy(supernet.model)
        fuse(model, ATenKernels())
        supernet = Supernet(model, generator(), init_scale=0.5)
    with torch.no_grad():
        supernet.logits[:, 0] += 2.0  # about three edges in five
    return supernet


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("space", SPACES)
def test_it_is_autograd_with_the_weights_of_the_others_added(space: str, kernels: str) -> None:
    supernet, plain = with_much_none(space, kernels), with_much_none(space)
    seen: set[tuple[int, ...]] = set()
    for seed in range(25):
        sample = AUTHORS.draw(supernet.masked_logits(), 0.8, generator(seed))
        assert sample.indices is not None
        seen.add(sample.indices)
        _, expected = reference_gradient(plain, "gdas_authors", 0.8, seed)
        found = logits_gradient(supernet, sample, seed)
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-7)
    assert len(seen) > 5


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_all_none_into_a_node_get_the_same(kernels: str) -> None:
    supernet = with_much_none("nasbench201", kernels)
    plain = supernet.fixed(dict.fromkeys(supernet.names, "none") | {"cell/0->3": "skip_connect"})
    gradients = [
        supernet.split(decision_gradient(supernet, Sample(plain.weights, plain.indices, minus_sum)))
        for minus_sum in (True, False)
    ]
    with_sum, without = ({n: float(row.sum()) for n, row in rows.items()} for rows in gradients)
    assert with_sum["cell/1->3"] == with_sum["cell/2->3"] != 0, "they share dL/dsum"
    assert with_sum["cell/0->3"] == pytest.approx(without["cell/0->3"] + with_sum["cell/1->3"])
    assert all(with_sum[n] == 0 for n in supernet.names if not n.endswith("->3"))
    assert {n for n, value in without.items() if value} == {"cell/0->3"}


def test_the_difference_to_gdas_is_the_sum_of_the_gradient() -> None:
    """One choice at the end: `dL/dout` is known, none or not."""
    torch.manual_seed(0)
    x, towards = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    candidates = {"none": Zero(1), "skip": nn.Identity(), "conv": nn.Conv2d(2, 2, 1)}
    supernet = Supernet(nn.Sequential(Choice(candidates, "edge")), generator())
    for index, (name, candidate) in enumerate(candidates.items()):
        fixed = supernet.fixed({"edge": name})
        sample = Sample(fixed.weights, fixed.indices, minus_sum=True)
        out, handle = supernet.forward_for_logits(x, sample)
        (gate,) = torch.autograd.grad((out * towards).sum(), handle)
        expected = torch.zeros(1, 3)
        expected[0, index] = (towards * candidate(x)).sum() - towards.sum()
        torch.testing.assert_close(supernet.weights_gradient(sample, gate), expected)


@pytest.mark.parametrize("name", ["none", "skip"])
def test_with_partial_channels_the_output_is_that_of_the_candidates(name: str) -> None:
    x, towards = torch.randn(2, 2, 3, 4, 4, generator=generator())[:, :, :2].unbind()
    choice = PartialChoice({"none": Zero(1), "skip": nn.Identity()}, "e", parts=2, stride=1)
    gate = torch.ones((), requires_grad=True)
    choice.select(choice.options.index(name), gate, minus_sum=True)
    assert choice.connects and choice.silent_gate is None
    (found,) = torch.autograd.grad((choice(x) * towards).sum(), gate)
    own = towards[:, :1]  # of two channels the first goes through the candidates
    expected = (own * x[:, :1]).sum() if name == "skip" else torch.zeros(())
    torch.testing.assert_close(found, expected - own.sum())


@pytest.mark.slow
def test_compiled_kernels_have_it_too() -> None:
    """In float32, as compiled kernels are."""
    kernels = CompiledKernels.checked(torch.device("cpu"))
    torch.set_default_dtype(torch.float32)
    plain = with_much_none("nasbench201")
    model = copy.deepcopy(plain.model)
    fuse(model, kernels)
    compiled = Supernet(model, generator(), init_scale=0.5)
    for seed in range(3):
        sample = AUTHORS.draw(plain.masked_logits(), 1.0, generator(seed))
        found, expected = decision_gradient(compiled, sample), decision_gradient(plain, sample)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_none_runs_nothing_and_nodes_that_lead_nowhere_neither() -> None:
    supernet = build(SPACES["nasbench201"])
    options = dict.fromkeys(supernet.names, "nor_conv_1x1")
    options |= {"cell/1->2": "none", "cell/1->3": "none", "cell/0->2": "none"}
    ran: set[tuple[str, str]] = set()
    for choice in supernet.model.modules():
        if isinstance(choice, Choice):
            for option, candidate in zip(choice.options, choice.candidates, strict=True):
                key = choice.name, option
                candidate.register_forward_hook(lambda *_, key=key: ran.add(key))
    fixed = supernet.fixed(options)
    gradient = decision_gradient(supernet, Sample(fixed.weights, fixed.indices, minus_sum=True))
    # Node 1 leads nowhere; nothing enters node 2, whose edge runs on zeros.
    assert ran == {("cell/0->3", "nor_conv_1x1"), ("cell/2->3", "nor_conv_1x1")}
    rows = supernet.split(gradient)
    assert not rows["cell/0->1"].any() and rows["cell/1->3"].any()
