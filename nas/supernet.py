"""The supernet: finds the choices in a module, owns their logits, applies samples.

The logits and everything that is drawn from them live on the host: they are tiny, and the choice
of operations must be known before the first kernel is launched. A step that trains the logits
costs one copy from the device, that of the inner products.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Decision, decisions
from nas.edge_normalization import EdgeNormalization
from nas.kernels.graphs import GraphedPaths


@dataclass(frozen=True)
class Sample:
    """One decision for every choice.

    Attributes:
        weights: `[N, K]`, on the host: the weight of each of the K options of each of the N
            choices. Carries the graph back to the logits, where the sampler has one. What has a
            weight of exactly 0 is not run. With edge normalisation the weights of the inputs of
            the nodes are further rows, see `Supernet.completed`.
        indices: The option of each choice where one path runs (its weights are then one-hot), or
            `NOT_CONNECTED`; None where all candidates run.
        minus_sum: On one path: `dL/dweights` of the sampled option is `<dL/dout, o_k(x)> -
            sum(dL/dout)`, see `nas.sampling.samplers`, instead of the first term alone.
    """

    weights: Tensor
    indices: tuple[int, ...] | None
    minus_sum: bool = False


class Supernet:
    """A module with choices in it, and one row of logits for each name of a choice.

    Attributes:
        model: The module; its parameters are the network weights.
        options: Option names by choice name, in the order of the rows of the logits. With edge
            normalisation the inputs of each node are such a row, too, below the choices.
        num_choices: Rows that are choices.
        logits: Architecture parameters `[N, K]`, float32, on the host. Where a choice has fewer
            than K options its row is filled up; `masked_logits` hides the filling.
        masked: `[N, K]`, bool, on the host: the filling, and the options that `prune` and `keep`
            dropped.
    """

    def __init__(
        self,
        model: nn.Module,
        generator: torch.Generator,
        init_scale: float = 1e-3,
        graphs: GraphedPaths | None = None,
    ) -> None:
        """Collects the choices of `model` and draws logits `init_scale * N(0, 1)`.

        Args:
            model: With choices in it.
            generator: Source of the noise.
            init_scale: Of the logits.
            graphs: Runs one-path steps in place of `model`, where it can.

        Raises:
            UserError: `model` has no choice, or choices of one name differ in their options.
        """
        self.model, self._graphs = model, graphs
        found = decisions(model)
        self.num_choices = len(found)
        self.options = {name: modules[0].options for name, modules in found.items()}
        self._modules = [m for m in model.modules() if isinstance(m, Decision)]
        self._nodes = [m for m in model.modules() if isinstance(m, EdgeNormalization)]
        self.options |= {node.name: node.options for node in self._nodes}
        row_of = {name: row for row, name in enumerate(self.options)}
        self._rows = [row_of[choice.name] for choice in self._modules]
        self._node_rows = [row_of[node.name] for node in self._nodes]
        lengths = torch.tensor([len(options) for options in self.options.values()])
        shape = (len(lengths), int(lengths.max()))
        self.masked = torch.arange(shape[1]) >= lengths[:, None]
        self.logits = (init_scale * torch.randn(shape, generator=generator)).requires_grad_()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the choices, in the order of the rows of the logits."""
        return tuple(self.options)[: self.num_choices]

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """The options of the choices by name, in the order of the rows of the logits."""
        return {name: self.options[name] for name in self.names}

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def masked_logits(self) -> Tensor:
        """The logits `[N, K]` with -inf where a choice has no such option (any more)."""
        return self.logits.masked_fill(self.masked, float("-inf"))

    def probabilities(self) -> dict[str, Tensor]:
        """softmax(logits) of each choice, `[K of that choice]`, detached; 0 for what was pruned."""
        return self.split(self.masked_logits().detach().softmax(-1))

    def prune(self, keep: int, never_derived: Collection[str] = ()) -> None:
        """Drops all but the `keep` most probable options of each choice, for good.

        Progressive pruning as in DrNAS (arXiv:2006.10355) and P-DARTS (arXiv:1904.12760): what is
        dropped has probability 0, is never drawn and never run. Ties go to the earlier option.

        Args:
            keep: Options that each choice has from now on, at least 1; what has fewer keeps them.
            never_derived: Options that no genotype can have. Of those that are kept, one is not
                among these: the best other one takes the place of the weakest, if need be.
        """
        ranking = self.masked_logits().detach().argsort(descending=True, stable=True).tolist()
        for row, name in enumerate(self.names):
            options = self.options[name]
            left = [k for k in ranking[row] if not self.masked[row, k]]
            kept, derivable = left[:keep], [k for k in left if options[k] not in never_derived]
            if derivable and derivable[0] not in kept:
                kept[-1] = derivable[0]
            dropped = [k for k in left if k not in kept]
            self.masked[row, dropped] = True

    def keep(self, name: str, option: str) -> None:
        """Drops all options of choice `name` but `option`, for good."""
        row = self.names.index(name)
        self.masked[row] = True
        self.masked[row, self.options[name].index(option)] = False

    def allows(self, choices: Mapping[str, str]) -> bool:
        """Whether none of the options in `choices`, by the name of the choice, was pruned."""
        left = self.split(~self.masked)
        return all(left[name][self.options[name].index(o)] for name, o in choices.items())

    def split(self, table: Tensor) -> dict[str, Tensor]:
        """The rows of an `[N, K]` table by the name of their choice, without the filling."""
        rows = zip(self.options.items(), table, strict=True)
        return {name: row[: len(options)] for (name, options), row in rows}

    def fixed(self, choices: Mapping[str, str]) -> Sample:
        """The sample that takes the named options, without gradient.

        A choice that is not named is not connected, like a DARTS edge that a genotype drops.

        Raises:
            ValueError: there is no such choice or no such option.
        """
        foreign = choices.keys() - set(self.names)
        if foreign:
            raise ValueError(f"no choice is named {sorted(foreign)}: allowed are {self.names}")
        weights = torch.zeros_like(self.logits[: self.num_choices], requires_grad=False)
        indices = []
        for row, name in enumerate(self.names):
            option, options = choices.get(name), self.options[name]
            if option is not None and option not in options:
                raise ValueError(f"choice '{name}' has no option '{option}': allowed are {options}")
            index = NOT_CONNECTED if option is None else options.index(option)
            indices.append(index)
            if option is not None:
                weights[row, index] = 1.0
        return self.completed(Sample(weights, tuple(indices)))

    def completed(self, sample: Sample) -> Sample:
        """A sample of the choices with the weights of the inputs of the nodes, if these have any.

        They are softmax(logits) whatever the sample is, also on the edges that it has not. Only
        where all candidates run do they carry the graph back to the logits.
        """
        if not self._nodes:
            return sample
        inputs = self.masked_logits()[self.num_choices :].softmax(-1)
        inputs = inputs if sample.indices is None else inputs.detach()
        return replace(sample, weights=torch.cat([sample.weights, inputs]))

    def forward(self, images: Tensor, sample: Sample) -> Tensor:
        """Runs the model under `sample`, without an architecture gradient.

        From the output `backward` leads to the weights; `torch.autograd.grad` does not where graphs
        run in place of the model.
        """
        output = self._replayed(images, sample)
        if output is not None:
            return output
        if sample.indices is None:
            self._mix(sample, self._on_device(sample.weights))
        else:
            self._select(sample.indices, None)
            if self._nodes:
                self._weigh(self._on_device(sample.weights))
        return self._run(images)

    def forward_for_logits(self, images: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
        """Runs the model under `sample` with a handle for the gradient of the decisions.

        Returns:
            The output and the handle, a leaf on the device: pass `dL/dhandle` to
            `weights_gradient`.

        Raises:
            ValueError: one path, and inputs of nodes with weights, which only mixtures train.
        """
        if sample.indices is None:
            handle = self._on_device(sample.weights).requires_grad_()
            self._mix(sample, handle)
        elif self._nodes:
            raise ValueError("edge normalisation is trained by mixtures of all options alone")
        else:
            # One gate for each module rather than each name, so that its gradient needs no
            # additions on the device; `weights_gradient` adds on the host.
            handle = torch.ones(len(self._modules), device=self.device, requires_grad=True)
            output = self._replayed(images, sample, handle)
            if output is not None:
                return output, handle
            self._select(sample.indices, handle.unbind(), sample.minus_sum)
        return self._run(images), handle

    def mixture(self, images: Tensor, weights: Tensor) -> Tensor:
        """Runs the weighted sum of all options, `weights` `[N, K]` with their graph.

        For derivatives of any order, where the modules have them.
        """
        self._mix(Sample(weights, None), weights.to(self.device))
        return self._run(images)

    def weights_gradient(self, sample: Sample, handle_gradient: Tensor | None) -> Tensor:
        """Brings `dL/dhandle` to the host as `dL/dweights`, `[N, K]`.

        On one path the entry of the sampled option is `<dL/dout, o_k(x)>`, summed over the
        modules that share the choice (less `sum(dL/dout)` where the sample says so); the other
        options were not run, theirs is 0.
        None (no choice reached the loss) gives zeros.
        """
        gradient = torch.zeros_like(self.logits)
        if handle_gradient is None:
            return gradient
        if sample.indices is None:
            return gradient.copy_(handle_gradient.to(gradient))
        rows = torch.tensor(self._rows)
        columns = torch.tensor(sample.indices)[rows]
        inner_products = handle_gradient.to(gradient)
        return gradient.index_put_((rows, columns), inner_products, accumulate=True)

    def decided_at(self, module: str, sample: Sample) -> str | None:
        """The choice that the module of this name belongs to: `cell/0->1: nor_conv_3x3`.

        None for a module that belongs to none. Mixtures have the choice alone.
        """
        owners: dict[nn.Module, int] = dict(zip(self._modules, self._rows, strict=True))
        found = None
        for name, owner in self.model.named_modules():
            if owner in owners and f"{module}.".startswith(f"{name}."):
                found = owners[owner]  # the innermost comes last
        if found is None:
            return None
        name = self.names[found]
        if sample.indices is None:
            return name
        return f"{name}: {self.options[name][sample.indices[found]]}"

    def _replayed(
        self, images: Tensor, sample: Sample, handle: Tensor | None = None
    ) -> Tensor | None:
        """The output by graphs; None where there are none for this step."""
        graphs, indices, minus_sum = self._graphs, sample.indices, sample.minus_sum
        trains_logits = handle is not None
        if graphs is None or indices is None:
            return None
        if not graphs.fits(images, trains_logits=trains_logits, minus_sum=minus_sum):
            return None
        return graphs.run(images, tuple(indices[row] for row in self._rows), handle)

    def _on_device(self, weights: Tensor) -> Tensor:
        """A copy of what is on the host, which no kernel that is under way is waited for."""
        return weights.detach().to(self.device, non_blocking=True)

    def _run(self, images: Tensor) -> Tensor:
        try:
            output: Tensor = self.model(images)
        finally:
            for choice in self._modules:
                choice.release()
            for node in self._nodes:
                node.release()
        return output

    def _select(
        self, indices: Sequence[int], gates: Sequence[Tensor] | None, minus_sum: bool = False
    ) -> None:
        for position, (choice, row) in enumerate(zip(self._modules, self._rows, strict=True)):
            gate = None if gates is None else gates[position]
            choice.select(indices[row], gate, minus_sum=minus_sum)

    def _mix(self, sample: Sample, weights: Tensor) -> None:
        """Mixes with `weights`, those of `sample` on the device."""
        table: list[tuple[Tensor | None, ...]] = []
        for row, runs in zip(weights.unbind(), sample.weights.detach().ne(0).tolist(), strict=True):
            pairs = zip(row.unbind(), runs, strict=True)
            table.append(tuple(weight if run else None for weight, run in pairs))
        for choice, index in zip(self._modules, self._rows, strict=True):
            choice.mix(table[index][: len(choice.options)])
        self._weigh(weights)

    def _weigh(self, weights: Tensor) -> None:
        """Sets the weights of the inputs of the nodes, rows of `weights` on the device."""
        for node, row in zip(self._nodes, self._node_rows, strict=True):
            node.weigh(weights[row].unbind())
