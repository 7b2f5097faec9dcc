"""The pictures of docs/gumbel.md: `python -m benchmarks.gumbel_pictures`.

Every point and curve comes from the functions that a search uses (`nas.sampling.gumbel`,
`nas.sampling.estimators`). The same seed draws the same files. Colours are
variables of the SVG, light or dark as the page is.
"""

import argparse
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import small_problem as problem
from nas.files import replace_text
from nas.sampling.gumbel import gumbel_max, gumbel_noise, gumbel_softmax, straight_through

FOLDER = Path("docs/pictures")
OPTIONS = ("none", "skip_connect", "nor_conv_3x3")
PROBABILITIES = torch.tensor([0.2, 0.3, 0.5])
LOGITS = PROBABILITIES.log()
TEMPERATURES = (10.0, 3.0, 1.0, 0.3, 0.1)

# Stand-ins that matplotlib draws with; in the file they are variables: light, dark.
INK, FAINT, GROUND = "#010101", "#020202", "#030303"
COLORS = ("#040404", "#050505", "#060606", "#070707")
_THEME = {
    INK: ("#24292f", "#d5d9e2"),
    FAINT: ("#c3c8d0", "#4a5160"),
    GROUND: ("#ffffff", "#1e2129"),
    COLORS[0]: ("#c2410c", "#fb923c"),
    COLORS[1]: ("#0f766e", "#2dd4bf"),
    COLORS[2]: ("#3f51b5", "#8fa2ff"),
    COLORS[3]: ("#7e22ce", "#d8a2ff"),
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "gumbel",
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": GROUND,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the pictures")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        replace_text(folder / f"{name}.svg", picture(draw))
        print(folder / f"{name}.svg")


def picture(draw: Callable[[], Figure]) -> str:
    """The SVG of a figure, the same bytes each time, with colours for light and dark pages."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    names = {color: f"--c{index}" for index, color in enumerate(_THEME)}
    for color, name in names.items():
        text = text.replace(color, f"var({name})")
    light, dark = (
        "".join(f"{name}:{_THEME[color][mode]};" for color, name in names.items())
        for mode in (0, 1)
    )
    style = f"<style>:root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    end = text.index(">", text.index("<svg")) + 1
    return text[:end] + style + text[end:]


def noise_figure() -> Figure:
    """Histogram of the noise against its density."""
    draws = gumbel_noise((100_000,), torch.Generator().manual_seed(0))
    figure, axes = _figure(1, (8.2, 2.4))
    axes[0].hist(draws.numpy(), bins=90, range=(-3, 8), density=True, color=FAINT)
    g = torch.linspace(-3, 8, 400)
    axes[0].plot(g, (-(g + (-g).exp())).exp(), color=COLORS[2], label="exp(-(g + exp(-g)))")
    mean, deviation = float(draws.mean()), float(draws.std())
    axes[0].set(xlabel="g", yticks=[], xlim=(-3, 8))
    axes[0].set_title(f"100,000 draws: mean {mean:.3f}, deviation {deviation:.3f}", loc="left")
    axes[0].legend(loc="upper right")
    return figure


def gumbel_max_figure() -> Figure:
    """Three draws in detail, and the shares of many."""
    figure, axes = _figure(4, (8.2, 2.7), widths=(1, 1, 1, 1.9))
    generator = torch.Generator().manual_seed(26)
    for number, ax in enumerate(axes[:3]):
        noise = gumbel_noise((3,), generator)
        _one_draw(ax, noise, int(gumbel_max(LOGITS, noise)))
        ax.set_title(f"draw {number + 1}", loc="left")
    axes[0].set_ylabel("log p, and log p + g")
    num_draws = 100_000
    noise = gumbel_noise((num_draws, 3), generator)
    shares = torch.bincount(gumbel_max(LOGITS.expand(num_draws, 3), noise), minlength=3) / num_draws
    for k, share in enumerate(shares.tolist()):
        axes[3].barh(2 - k, share, 0.55, color=COLORS[k])
        axes[3].plot([PROBABILITIES[k]] * 2, [1.6 - k, 2.4 - k], color=INK, lw=1.6)
        axes[3].text(share + 0.012, 2 - k, f"{100 * share:.2f} %", va="center")
    axes[3].set(xlim=(0, 0.63), xlabel="share of 100,000 draws (line: softmax)")
    axes[3].set_yticks([2, 1, 0], OPTIONS)
    return figure


def _one_draw(ax: Axes, noise: Tensor, winner: int) -> None:
    """What each option has before and after the noise."""
    for k in range(3):
        start, end = float(LOGITS[k]), float(LOGITS[k] + noise[k])
        ax.annotate(
            "",
            (k, end),
            (k, start),
            arrowprops={"arrowstyle": "-|>", "color": COLORS[k], "lw": 1.4, "shrinkA": 0},
        )
        ax.plot([k - 0.22, k + 0.22], [start, start], color=COLORS[k], lw=2.2)
        if k == winner:
            ax.plot([k], [end + 0.25], marker="v", color=COLORS[k], ms=8)
    ax.set(xlim=(-0.5, 2.5), ylim=(-3.1, 1.6), xticks=range(3))
    ax.set_xticklabels(["none", "skip", "conv"])


def temperature_figure() -> Figure:
    """Relaxed samples of the same noise at several temperatures, on the simplex."""
    figure, axes = _figure(len(TEMPERATURES), (8.6, 1.95))
    noise = gumbel_noise((300, 3), torch.Generator().manual_seed(1))
    drawn = gumbel_max(LOGITS.expand_as(noise), noise)
    for ax, temperature in zip(axes, TEMPERATURES, strict=True):
        _simplex(ax, labels=temperature == TEMPERATURES[0])
        points = _on_plane(gumbel_softmax(LOGITS.expand_as(noise), noise, temperature))
        for k in range(3):
            x, y = points[drawn == k].T
            ax.plot(x, y, ".", ms=3.2, color=COLORS[k], alpha=0.75, mew=0)
        ax.set_title(f"t = {temperature:g}", y=1.0)
    return figure


def weights_figure() -> Figure:
    """One draw's weights at several temperatures, and their mean over many draws."""
    figure, axes = _figure(2, (8.2, 2.6))
    generator = torch.Generator().manual_seed(26)
    one, many = gumbel_noise((3,), generator), gumbel_noise((50_000, 3), generator)
    for ax, noise, title in (
        (axes[0], one[None], "the weights of draw 1 above"),
        (axes[1], many, "mean of 50,000 draws (lines: softmax)"),
    ):
        for place, temperature in enumerate(TEMPERATURES):
            means = gumbel_softmax(LOGITS.expand_as(noise), noise, temperature).mean(0)
            for k, height in enumerate(means.tolist()):
                ax.bar(place + 0.25 * (k - 1), height, 0.22, color=COLORS[k])
        ax.set_xticks(range(len(TEMPERATURES)), [f"t = {t:g}" for t in TEMPERATURES])
        ax.set(ylim=(0, 1.02), yticks=(0, 0.5, 1))
        ax.set_title(title, loc="left")
    for k in range(3):
        axes[1].axhline(float(PROBABILITIES[k]), color=COLORS[k], lw=0.9, ls=":")
        axes[1].bar(0, 0, color=COLORS[k], label=OPTIONS[k])
    axes[1].legend(loc="upper left", ncols=3, handlelength=1, columnspacing=1.2)
    return figure


def softmax_alone_figure() -> Figure:
    """What softmax gives without noise, and what a search over mixtures optimises."""
    figure, axes = _figure(3, (8.6, 2.75), widths=(1, 1, 1.5))
    _simplex(axes[0], labels=True)
    path = torch.stack([(LOGITS / t).softmax(-1) for t in torch.logspace(-1.3, 2, 200).tolist()])
    axes[0].plot(*_on_plane(path).T, color=INK, lw=1.2)
    for t in (10.0, 1.0, 0.1):
        x, y = _on_plane((LOGITS / t).softmax(-1)).tolist()
        axes[0].plot([x], [y], "o", ms=5, color=INK)
        axes[0].text(x + 0.06, y - (0.1 if t == 10 else 0.02), f"t = {t:g}", fontsize=8)
    axes[0].set_title("softmax(log p / t)", y=1.0)
    _simplex(axes[1], labels=True)
    noise = gumbel_noise((300, 3), torch.Generator().manual_seed(1))
    points = _on_plane(gumbel_softmax(LOGITS.expand_as(noise), noise, 0.5))
    drawn = gumbel_max(LOGITS.expand_as(noise), noise)
    for k in range(3):
        axes[1].plot(*points[drawn == k].T, ".", ms=3.2, color=COLORS[k], alpha=0.75, mew=0)
    axes[1].set_title("softmax((log p + g) / 0.5)", y=1.0)
    q = torch.linspace(0, 1, 200)
    axes[2].plot(q, mixture_loss(q), color=COLORS[0], label="of the mixture: L(E[z])")
    axes[2].plot(q, sampled_loss(q), color=COLORS[2], label="of samples: E[L(z)]")
    axes[2].set(xlabel="probability q of the better option", ylim=(0, 1.25), yticks=(0, 0.5, 1))
    axes[2].set_title("loss", loc="left")
    axes[2].legend(loc="upper right")
    return figure


TWO_OUTPUTS = (-1.0, 0.6)
"""Of two options; the loss is the square, so the second one is better."""


def mixture_loss(q: Tensor) -> Tensor:
    """Loss of both outputs, weighted with 1 - q and q."""
    worse, better = TWO_OUTPUTS
    return ((1 - q) * worse + q * better).square()


def sampled_loss(q: Tensor) -> Tensor:
    """Mean loss of one output, which is the second one with probability q."""
    worse, better = TWO_OUTPUTS
    return (1 - q) * worse**2 + q * better**2


def straight_through_figure() -> Figure:
    """Value and slope of the weight of one of two options over its logit, for given noise."""
    figure, axes = _figure(2, (8.2, 2.6))
    noise = torch.tensor([0.9, 0.1])  # the second option wins from a logit of 0.8 on
    difference = torch.linspace(-4, 6, 801)
    for color, temperature in zip(COLORS, (3.0, 1.0, 0.3), strict=False):
        logit = difference.clone().requires_grad_()
        logits = torch.stack([torch.zeros_like(logit), logit], -1)
        relaxed = gumbel_softmax(logits, noise.expand_as(logits), temperature)
        hard = torch.nn.functional.one_hot(gumbel_max(logits, noise.expand_as(logits)), 2).float()
        weight = straight_through(hard, relaxed)[:, 1]
        (slope,) = torch.autograd.grad(weight.sum(), logit)
        axes[0].plot(difference, relaxed[:, 1].detach(), color=color, lw=1.2)
        axes[1].plot(difference, slope, color=color, label=f"t = {temperature:g}")
    axes[0].plot(difference, weight.detach(), color=INK, lw=1.8)
    axes[0].set_title("forward: the step h, and y in colour", loc="left")
    axes[0].set(yticks=(0, 0.5, 1), xlabel="logit of the option")
    axes[1].set_title("backward: dy/da, which is used for dh/da", loc="left")
    axes[1].set(xlabel="logit of the option", ylim=(0, None))
    axes[1].legend(loc="upper right")
    return figure


def scale_figure() -> Figure:
    """Loss of each option of the small problem as its output is scaled from 0 to 1."""
    figure, axes = _figure(2, (8.2, 2.7))
    scale = torch.linspace(0, 1.15, 100, dtype=torch.float64)
    for ax, k in zip(axes, (1, 2), strict=True):
        output, product = problem.OUTPUTS[k], problem.inner_products()[k]
        at_one = problem.loss(output)
        ax.plot(scale, problem.loss(scale * output), color=COLORS[2])
        near = torch.tensor([0.55, 1.15])
        ax.plot(near, at_one + (near - 1) * product, color=COLORS[0], lw=1.3)
        ax.plot([0, 1], [problem.loss(torch.tensor(0.0)), at_one], color=COLORS[1], lw=1.3, ls="--")
        ax.plot([0, 1], [problem.loss(torch.tensor(0.0)), at_one], "o", color=INK, ms=5)
        ax.set(xlabel="scale s of the output", xlim=(-0.03, 1.17), ylim=(-0.04, 0.62))
        ax.set_title(f"output {output:g}: slope at 1 is {product:g}, difference -0.375", loc="left")
    axes[0].text(0.03, 0.53, "none")
    axes[0].set_ylabel("loss of s * output")
    return figure


def bias_figure() -> Figure:
    """Bias and noise of the estimators on the small problem, over the temperature."""
    figure, axes = _figure(2, (8.6, 4.3))
    noise = problem.noise_grid(300)
    temperatures = [10 ** (-1 + i / 8) for i in range(17)]
    lines = zip(problem.TEMPERED.items(), (COLORS[2], COLORS[1], COLORS[3], COLORS[0]), strict=True)
    for (name, estimate), color in lines:
        found = [estimate(t, noise) for t in temperatures]
        style = (0, (4, 2)) if name == "gumbel_rao" else "-"
        axes[0].plot(temperatures, [m.bias() for m in found], color=color, ls=style)
        axes[1].plot(
            temperatures, [m.deviation() for m in found], color=color, ls=style, label=name
        )
    for (name, estimate_at_1), marker in zip(problem.FIXED.items(), "sD^o", strict=True):
        found_at_1 = estimate_at_1()
        style_of: dict[str, Any] = {
            "marker": marker,
            "ls": "",
            "color": INK,
            "ms": 6,
            "mfc": GROUND,
            "mew": 1.4,
        }
        axes[0].plot([1.0], [found_at_1.bias()], **style_of)
        axes[1].plot([1.0], [found_at_1.deviation()], **style_of, label=name)
    for ax, title in zip(axes, ("bias", "standard deviation of 4 draws"), strict=True):
        ax.set_title(f"{title}, to the exact gradient", loc="left")
        ax.set(xscale="log", xlabel="temperature", ylim=(-0.05, None))
        ax.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"], minor=False)
        ax.minorticks_off()
    figure.legend(loc="outside lower center", ncols=4, handlelength=1.8)
    return figure


def _figure(
    num: int, size: tuple[float, float], **widths: tuple[float, ...]
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    ratios = widths.get("widths")
    axes = figure.subplots(1, num, squeeze=False, width_ratios=ratios)
    return figure, list(axes[0])


def _on_plane(weights: Tensor) -> Tensor:
    """Points of the simplex `[..., 3]` in the plane, `[..., 2]`."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    return weights.float() @ corners


def _simplex(ax: Axes, *, labels: bool) -> None:
    """The triangle of all weights, with a cross at the probabilities."""
    outline = _on_plane(torch.eye(3)[[0, 1, 2, 0]])
    ax.plot(*outline.T, color=FAINT, lw=1)
    ax.plot(*_on_plane(PROBABILITIES)[:, None], "+", color=INK, ms=9, mew=1.6, zorder=3)
    ax.set(xlim=(-0.08, 1.08), ylim=(-0.16, 0.95), aspect="equal")
    ax.axis("off")
    if labels:
        for (x, y), name in zip(
            ((0, -0.12), (1, -0.12), (0.5, 0.9)), ("none", "skip", "conv"), strict=True
        ):
            ax.text(x, y, name, ha="center", fontsize=8)


PICTURES = {
    "gumbel_noise": noise_figure,
    "gumbel_max": gumbel_max_figure,
    "temperature": temperature_figure,
    "weights": weights_figure,
    "softmax_alone": softmax_alone_figure,
    "straight_through": straight_through_figure,
    "scale": scale_figure,
    "bias_variance": bias_figure,
}

if __name__ == "__main__":
    main()
