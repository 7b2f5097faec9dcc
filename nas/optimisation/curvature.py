"""How sharply the validation loss is curved over the logits.

The dominant eigenvalue of its Hessian goes along with architectures that generalise badly (Zela et
al., 2020, "Understanding and Robustifying Differentiable Architecture Search", arXiv:1909.09656).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nas.deriving.recalibration import generators_restored
from nas.optimisation.bilevel import Batch
from nas.optimisation.finite import check_finite
from nas.spaces import SearchSpace
from nas.supernet import Supernet

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs `[B, classes]` and labels `[B]` to a scalar."""

MAX_PRODUCTS = 20
"""Products with the Hessian that an eigenvalue may take; each is a pass back."""

ACCURACY = 0.05
"""Relative distance to an eigenvalue of the Hessian at which no more products are made."""


def dominant_eigenvalue(space: SearchSpace, supernet: Supernet, loss: Loss, batch: Batch) -> float:
    """The largest eigenvalue of the Hessian of the loss with respect to the logits.

    The loss is that of the mixture of all operations, each with its probability softmax(logits), at
    the present weights and with the statistics of the batch: what `sampler=softmax` trains. For
    other samplers, those of one path among them, it is the same mixture, which they do not train
    as such.

    Exact, by double backward passes in float32 through module-by-module copies of the supernet's
    own modules: the fused ones can be differentiated once, and finite differences of their
    gradients also see the kinks of ReLU and max-pooling, which the Hessian has not.

    Args:
        space: Builds a supernet without fused modules.
        supernet: Its weights and logits; nothing of it is changed, and no generator moves.
        loss: Maps outputs `[B, classes]` and labels `[B]` to a scalar.
        batch: Images `[B, C, H, W]` and labels `[B]`.
    """
    images, labels = batch
    logits = supernet.logits.detach().clone().requires_grad_()
    weights = logits.masked_fill(supernet.masked, float("-inf")).softmax(-1)
    twin = _plain_twin(space, supernet)
    # Fused attention has no second derivative.
    with generators_restored(supernet.device), sdpa_kernel(SDPBackend.MATH):
        value = loss(twin.mixture(images, weights), labels)
    check_finite(float(value.detach()), "loss of the mixture of all operations")
    if not value.requires_grad:  # no choice reaches it
        return 0.0
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    present = ~supernet.masked

    def product(direction: Tensor) -> Tensor:
        vector = torch.zeros_like(gradient)
        vector[present] = direction.to(vector)
        (found,) = torch.autograd.grad(gradient, logits, vector, retain_graph=True)
        return found[present].double()

    # From a generator of its own: a search draws the same whether or not it is watched.
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(int(present.sum()), generator=generator, dtype=torch.float64)
    return largest_eigenvalue(product, start, MAX_PRODUCTS, ACCURACY)


def _plain_twin(space: SearchSpace, supernet: Supernet) -> Supernet:
    """A supernet with the same weights, frozen, and PyTorch's own modules."""
    with torch.random.fork_rng(devices=[]):
        model = space.build_supernet()
    model.load_state_dict(supernet.model.state_dict())
    model.to(supernet.device).requires_grad_(False)
    return Supernet(model.train(), torch.Generator())


def largest_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, max_products: int, accuracy: float
) -> float:
    """The largest eigenvalue of a symmetric matrix that is known by its products alone.

    Lanczos's method with full reorthogonalisation: the Ritz values of the Krylov space, whose
    largest converges faster than power iteration, and to the largest rather than to that of the
    largest magnitude.

    Args:
        product: Multiplies the matrix with `[D]`, float64; it may be a little off.
        start: A vector `[D]` that is not orthogonal to the eigenvector, float64.
        max_products: When to stop at the latest.
        accuracy: When to stop: some eigenvalue is as near as this, relative to the result.
    """
    basis, products = [start / start.norm()], []
    while True:
        products.append(product(basis[-1]))
        q = torch.stack(basis)
        projected = q @ torch.stack(products).T
        values, vectors = torch.linalg.eigh((projected + projected.T) / 2)
        rest = products[-1]
        for _ in range(2):  # once leaves rounding errors along the basis
            rest = rest - q.T @ (q @ rest)
        norm, largest = float(rest.norm()), float(values[-1])
        residual = norm * abs(float(vectors[-1, -1]))
        if residual <= accuracy * abs(largest) or len(products) == min(max_products, len(start)):
            return largest
        basis.append(rest / norm)
