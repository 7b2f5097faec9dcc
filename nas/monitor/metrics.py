"""The one table of all metrics that runs log; `docs/metrics.md` is made from it.

A name is `group/metric`; TensorBoard shows one section a group. `<choice>` and `<option>` stand for
the name of a choice (which may contain slashes: `normal/0->2`) and of one of its options,
`<epochs>` for a number.
"""

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Metric:
    """What one metric is.

    Attributes:
        name: Tag in TensorBoard and key in `metrics.jsonl`, with placeholders.
        unit: Unit of the value; "1" for a pure number.
        run: Which runs log it: "search", "retrain" or "both".
        definition: What is measured, on which data, over which period.
    """

    name: str
    unit: str
    run: str
    definition: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "loss/train",
        "nats",
        "both",
        "Cross-entropy per image, mean over the training images of the epoch, of the network as it "
        "was at each step (label smoothing and auxiliary loss included). Search: training half, "
        "sampled architectures.",
    ),
    Metric(
        "loss/validation",
        "nats",
        "search",
        "Cross-entropy per image on the validation half, mean over the steps of the epoch that "
        "train the logits, of the architectures sampled there.",
    ),
    Metric(
        "loss/test",
        "nats",
        "retrain",
        "Cross-entropy per image, mean over the test set.",
    ),
    Metric(
        "accuracy/train",
        "%",
        "search",
        "Top-1 of the sampled architectures on the training half, mean over the epoch.",
    ),
    Metric(
        "accuracy/validation",
        "%",
        "search",
        "Top-1 of the sampled architectures on the validation half, mean over the steps of the "
        "epoch that train the logits.",
    ),
    Metric(
        "accuracy/genotype_validation",
        "%",
        "search",
        "Top-1 of the architecture that the logits give now (the derived genotype), under the "
        "weights of the supernet, on the validation half, at the end of the epoch.",
    ),
    Metric(
        "accuracy/train_top1",
        "%",
        "retrain",
        "Top-1 on the training images as augmented, mean over the epoch.",
    ),
    Metric(
        "accuracy/test_top1",
        "%",
        "retrain",
        "Top-1 on the test set at the end of the epoch.",
    ),
    Metric(
        "accuracy/test_top5",
        "%",
        "retrain",
        "Top-5 on the test set at the end of the epoch.",
    ),
    Metric(
        "accuracy/test_top1_ema",
        "%",
        "retrain",
        "Top-1 on the test set of the exponential moving average of the weights.",
    ),
    Metric(
        "benchmark/accuracy_<epochs>_epochs",
        "%",
        "search",
        "Test accuracy that `benchmark.nasbench201` has for the architecture that the logits give "
        "now, after so many epochs of training there. For looking only: no decision of the search "
        "depends on the table.",
    ),
    Metric(
        "benchmark/rank_<epochs>_epochs",
        "1",
        "search",
        "Its rank in the table: 1 is the best of all architectures there.",
    ),
    Metric(
        "benchmark/regret_<epochs>_epochs",
        "%",
        "search",
        "Accuracy of the best architecture of the table minus that of this one.",
    ),
    Metric(
        "budget/cost",
        "that of the budget",
        "search",
        "Cost of the genotype that the logits and the budget give now, counted exactly.",
    ),
    Metric(
        "budget/expected_cost",
        "that of the budget",
        "search",
        "Mean cost of the architectures that the logits draw, by the linear model of the choices.",
    ),
    Metric(
        "budget/multiplier",
        "nats",
        "search",
        "What an expected cost of twice the target adds to the loss: grows while it is above the "
        "target, falls to 0 while it is below.",
    ),
    Metric(
        "architecture/temperature",
        "1",
        "search",
        "Temperature of the Gumbel-softmax in the epoch.",
    ),
    Metric(
        "architecture/entropy",
        "1",
        "search",
        "Mean of `entropy/<choice>` over all choices: 1 is uniform, 0 is decided.",
    ),
    Metric(
        "architecture/margin",
        "1",
        "search",
        "Mean of `margin/<choice>` over all choices.",
    ),
    Metric(
        "architecture/num_skip",
        "choices",
        "search",
        "Choices of the derived genotype that are a skip connection. A number that keeps growing "
        "is the well-known collapse of differentiable search.",
    ),
    Metric(
        "architecture/num_skip_in_cell",
        "choices",
        "search",
        "The same in the cell with most of them, which `collapse.max_skips` limits.",
    ),
    Metric(
        "architecture/num_parameter_free",
        "choices",
        "search",
        "Choices of the derived genotype that are a skip connection, a pooling or `none`.",
    ),
    Metric(
        "architecture/eigenvalue",
        "nats",
        "search",
        "Largest eigenvalue of the Hessian of the loss with respect to the logits, on the first "
        "images of the validation half (as many as a batch), for the mixture of all operations at "
        "their probabilities, whatever the sampler; every `collapse.eigenvalue_every_epochs`.",
    ),
    Metric(
        "architecture/eigenvalue_growth",
        "1",
        "search",
        "Mean of the last `collapse.window` of these eigenvalues over the mean of as many before.",
    ),
    Metric(
        "architecture/logits_gradient_norm",
        "1",
        "search",
        "Euclidean norm of the gradient of all logits, mean over the steps of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate_weights",
        "1",
        "search",
        "Learning rate of the weights at the end of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate_logits",
        "1",
        "search",
        "Learning rate of the logits at the end of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate",
        "1",
        "retrain",
        "Learning rate at the end of the epoch.",
    ),
    Metric(
        "regularisation/drop_path",
        "1",
        "retrain",
        "Probability with which a path is dropped in the epoch.",
    ),
    Metric(
        "speed/images_per_s",
        "images/s",
        "both",
        "Images that were trained on per second of training (search: of both halves), evaluation "
        "and checkpoints left out.",
    ),
    Metric(
        "speed/step_ms",
        "ms",
        "both",
        "Wall-clock time of one step, loading of data included, mean over the epoch.",
    ),
    Metric(
        "memory/resident_mib",
        "MiB",
        "both",
        "Memory of the process that is resident (host) at the end of the epoch.",
    ),
    Metric(
        "memory/device_mib",
        "MiB",
        "both",
        "Peak of the memory that PyTorch allocated on the accelerator since the start; on CUDA "
        "only.",
    ),
    Metric(
        "probability/<choice>/<option>",
        "1",
        "search",
        "Probability of the option, softmax of the logits of the choice, at the end of the epoch. "
        "With `space.edge_normalization` the inputs of a node are a choice, too "
        "(`normal/inputs->4`): its options are the nodes that they come from, its probabilities "
        "their weights.",
    ),
    Metric(
        "entropy/<choice>",
        "1",
        "search",
        "Entropy of the probabilities of the choice, divided by the logarithm of the number of "
        "options: 1 is uniform, 0 is decided.",
    ),
    Metric(
        "margin/<choice>",
        "1",
        "search",
        "Largest minus second largest probability of the choice; 1 if it has one option.",
    ),
    Metric(
        "sampled/<option>",
        "1",
        "search",
        "Share of the option among all draws of the epoch, over all choices.",
    ),
)

_PLACEHOLDERS = {"<choice>": r".+", "<option>": r"[^/]+", "<epochs>": r"\d+"}


def _pattern(name: str) -> str:
    parts = re.split(r"(<\w+>)", name)
    return "".join(_PLACEHOLDERS.get(part, re.escape(part)) for part in parts)


_ANY_NAME = re.compile("|".join(f"(?:{_pattern(metric.name)})" for metric in METRICS))


@lru_cache(maxsize=4096)
def check_metric(name: str) -> None:
    """Refuses a name that the table does not define.

    Raises:
        ValueError: the name is not in the table; it is the program's mistake, not the user's.
    """
    if _ANY_NAME.fullmatch(name) is None:
        raise ValueError(f"metric '{name}' is not defined: add it to nas/monitor/metrics.py")


def describe_metrics() -> str:
    """Returns `docs/metrics.md`: what every metric means, as a Markdown table."""
    rows = [
        f"| `{metric.name}` | {metric.unit} | {metric.run} | {metric.definition} |"
        for metric in METRICS
    ]
    return "\n".join([*_INTRODUCTION, *rows, *_PICTURES, ""])


_INTRODUCTION = (
    "# Metrics",
    "",
    "What the runs write to TensorBoard (`tensorboard/`) and to `metrics.jsonl`, under the same",
    "names. A line of `metrics.jsonl` is one JSON object: `step`, `epoch` where it applies, and",
    "the values of that moment; a value that is not finite is `null`. Step n means after n updates",
    "of the weights; epochs count from 0.",
    "",
    "This page is made by `nas.monitor.metrics.describe_metrics`; change the table there and run",
    "",
    "    python -m nas.monitor.metrics > docs/metrics.md",
    "",
    "| metric | unit | run | definition |",
    "| --- | --- | --- | --- |",
)
_PICTURES = (
    "",
    "## Pictures and texts",
    "",
    "| tag | what it shows |",
    "| --- | --- |",
    "| `genotype/<cell>` | The cell that the logits give now: nodes, operations, probabilities. |",
    "| `architecture/probabilities` | All probabilities as a heat map, one row a choice. |",
    "| `genotype` | The genotype as text (TEXT tab), at the steps where it changed. |",
    "",
    "The CUSTOM SCALARS tab has one chart a choice with the probabilities of all its options, the",
    "entropies of all choices, and what was sampled. TensorBoard keeps 10 pictures a tag unless it",
    "is started with `--samples_per_plugin images=100`.",
)

if __name__ == "__main__":
    print(describe_metrics(), end="")
