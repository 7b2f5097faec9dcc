"""The one table of all metrics that runs log; `nas.monitor.metrics_page` makes a page of it.

A name is `group/metric`; TensorBoard shows one section a group. `<choice>` and `<option>` stand for
the name of a choice (which may contain slashes: `normal/0->2`) and of one of its options,
`<epochs>` for a number.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True)
class Metric:
    """What one metric is.

    Attributes:
        name: Tag in TensorBoard and key in `metrics.jsonl`, with placeholders.
        title: What a card of TensorBoard is headed with, with the same placeholders.
        unit: Unit of the value; "1" for a pure number.
        run: Which runs log it: "search", "retrain" or "both".
        definition: What is measured, on which data, over which period.
    """

    name: str
    title: str
    unit: str
    run: str
    definition: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "loss/train",
        "training loss",
        "nats",
        "both",
        "Cross-entropy per image, mean over the training images of the epoch, of the network as it "
        "was at each step (label smoothing and auxiliary loss included). Search: training half, "
        "sampled architectures.",
    ),
    Metric(
        "loss/validation",
        "validation loss",
        "nats",
        "search",
        "Cross-entropy per image on the validation half, mean over the steps of the epoch that "
        "train the logits, of the architectures sampled there.",
    ),
    Metric(
        "loss/test",
        "test loss",
        "nats",
        "retrain",
        "Cross-entropy per image, mean over the test set.",
    ),
    Metric(
        "accuracy/train",
        "training accuracy of what was sampled",
        "%",
        "search",
        "Top-1 of the sampled architectures on the training half, mean over the epoch.",
    ),
    Metric(
        "accuracy/validation",
        "validation accuracy of what was sampled",
        "%",
        "search",
        "Top-1 of the sampled architectures on the validation half, mean over the steps of the "
        "epoch that train the logits.",
    ),
    Metric(
        "accuracy/genotype_validation",
        "validation accuracy of the present genotype",
        "%",
        "search",
        "Top-1 of the architecture that the logits give now (the derived genotype), under the "
        "weights of the supernet, on the validation half, at the end of the epoch.",
    ),
    Metric(
        "accuracy/train_top1",
        "training accuracy, top-1",
        "%",
        "retrain",
        "Top-1 on the training images as augmented, mean over the epoch.",
    ),
    Metric(
        "accuracy/test_top1",
        "test accuracy, top-1",
        "%",
        "retrain",
        "Top-1 on the test set at the end of the epoch.",
    ),
    Metric(
        "accuracy/test_top5",
        "test accuracy, top-5",
        "%",
        "retrain",
        "Top-5 on the test set at the end of the epoch.",
    ),
    Metric(
        "accuracy/test_top1_ema",
        "test accuracy, top-1, of the moving average",
        "%",
        "retrain",
        "Top-1 on the test set of the exponential moving average of the weights.",
    ),
    Metric(
        "benchmark/accuracy_<epochs>_epochs",
        "what the table says of the genotype, <epochs> epochs",
        "%",
        "search",
        "Test accuracy that `benchmark.nasbench201` has for the architecture that the logits give "
        "now, after so many epochs of training there. For looking only: no decision of the search "
        "depends on the table.",
    ),
    Metric(
        "benchmark/rank_<epochs>_epochs",
        "rank in the table, <epochs> epochs",
        "1",
        "search",
        "Its rank in the table: 1 is the best of all architectures there.",
    ),
    Metric(
        "benchmark/regret_<epochs>_epochs",
        "regret: what the best cell of the table has more, <epochs> epochs",
        "%",
        "search",
        "Accuracy of the best architecture of the table minus that of this one.",
    ),
    Metric(
        "budget/cost",
        "cost of the present genotype",
        "that of the budget",
        "search",
        "Cost of the genotype that the logits and the budget give now, counted exactly.",
    ),
    Metric(
        "budget/expected_cost",
        "expected cost of a sample",
        "that of the budget",
        "search",
        "Mean cost of the architectures that the logits draw, by the linear model of the choices.",
    ),
    Metric(
        "budget/target",
        "target of the budget",
        "that of the budget",
        "search",
        "What the cost of the genotype may be at most; the line that the other two are to keep to.",
    ),
    Metric(
        "budget/multiplier",
        "pressure of the budget on the logits",
        "nats",
        "search",
        "What an expected cost of twice the target adds to the loss: grows while it is above the "
        "target, falls to 0 while it is below.",
    ),
    Metric(
        "architecture/temperature",
        "temperature of the sampler",
        "1",
        "search",
        "Temperature of the Gumbel-softmax in the epoch.",
    ),
    Metric(
        "architecture/entropy",
        "entropy, mean over the choices",
        "1",
        "search",
        "Mean of `entropy/<choice>` over all choices: 1 is uniform, 0 is decided.",
    ),
    Metric(
        "architecture/margin",
        "margin, mean over the choices",
        "1",
        "search",
        "Mean of `margin/<choice>` over all choices.",
    ),
    Metric(
        "architecture/num_skip",
        "skip connections in the genotype",
        "choices",
        "search",
        "Choices of the derived genotype that are a skip connection. A number that keeps growing "
        "is the well-known collapse of differentiable search.",
    ),
    Metric(
        "architecture/num_skip_in_cell",
        "skip connections in the cell with most",
        "choices",
        "search",
        "The same in the cell with most of them, which `collapse.max_skips` limits.",
    ),
    Metric(
        "architecture/num_parameter_free",
        "operations without weights in the genotype",
        "choices",
        "search",
        "Choices of the derived genotype that are a skip connection, a pooling or `none`.",
    ),
    Metric(
        "architecture/eigenvalue",
        "curvature of the loss over the logits",
        "nats",
        "search",
        "Largest eigenvalue of the Hessian of the loss with respect to the logits, on the first "
        "images of the validation half (as many as a batch), for the mixture of all operations at "
        "their probabilities, whatever the sampler; every `collapse.eigenvalue_every_epochs`.",
    ),
    Metric(
        "architecture/eigenvalue_growth",
        "growth of the curvature",
        "1",
        "search",
        "Mean of the last `collapse.window` of these eigenvalues over the mean of as many before.",
    ),
    Metric(
        "architecture/logits_gradient_norm",
        "gradient norm of the logits",
        "1",
        "search",
        "Euclidean norm of the gradient of all logits, mean over the steps of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate_weights",
        "learning rate of the weights",
        "1",
        "search",
        "Learning rate of the weights at the end of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate_logits",
        "learning rate of the logits",
        "1",
        "search",
        "Learning rate of the logits at the end of the epoch.",
    ),
    Metric(
        "optimizer/learning_rate",
        "learning rate",
        "1",
        "retrain",
        "Learning rate at the end of the epoch.",
    ),
    Metric(
        "regularisation/drop_path",
        "probability of dropping a path",
        "1",
        "retrain",
        "Probability with which a path is dropped in the epoch.",
    ),
    Metric(
        "speed/images_per_s",
        "images a second",
        "images/s",
        "both",
        "Images that were trained on per second of training (search: of both halves), evaluation "
        "and checkpoints left out.",
    ),
    Metric(
        "speed/step_ms",
        "time of a step",
        "ms",
        "both",
        "Wall-clock time of one step, loading of data included, mean over the epoch.",
    ),
    Metric(
        "memory/resident_mib",
        "memory of the process",
        "MiB",
        "both",
        "Memory of the process that is resident (host) at the end of the epoch.",
    ),
    Metric(
        "memory/device_mib",
        "peak memory of the accelerator",
        "MiB",
        "both",
        "Peak of the memory that PyTorch allocated on the accelerator since the start; on CUDA "
        "only.",
    ),
    Metric(
        "probability/<choice>/<option>",
        "probability of <option> on <choice>",
        "1",
        "search",
        "Probability of the option, softmax of the logits of the choice, at the end of the epoch. "
        "With `space.edge_normalization` the inputs of a node are a choice, too "
        "(`normal/inputs->4`): its options are the nodes that they come from, its probabilities "
        "their weights.",
    ),
    Metric(
        "entropy/<choice>",
        "entropy of <choice>",
        "1",
        "search",
        "Entropy of the probabilities of the choice, divided by the logarithm of the number of "
        "options: 1 is uniform, 0 is decided.",
    ),
    Metric(
        "margin/<choice>",
        "margin of <choice>",
        "1",
        "search",
        "Largest minus second largest probability of the choice; 1 if it has one option.",
    ),
    Metric(
        "result/validation_accuracy",
        "validation accuracy of what was derived",
        "%",
        "search",
        "Top-1 of the genotype that the search ends with, under the weights of the supernet, on "
        "the validation half. One value at the end, for the table of HPARAMS.",
    ),
    Metric(
        "result/benchmark_accuracy",
        "what the table says of the result",
        "%",
        "search",
        "Test accuracy that `benchmark.nasbench201` has for it.",
    ),
    Metric(
        "result/benchmark_regret",
        "regret of the result",
        "%",
        "search",
        "What the best architecture of the table has more.",
    ),
    Metric(
        "result/cost",
        "cost of the result",
        "that of the budget",
        "search",
        "Cost of the genotype that the search ends with.",
    ),
    Metric(
        "result/test_accuracy",
        "test accuracy of the trained network, top-1",
        "%",
        "retrain",
        "Top-1 on the test set after the last epoch: of the moving average of the weights, where "
        "there is one.",
    ),
    Metric(
        "sampled/<option>",
        "share of <option> among the draws",
        "1",
        "search",
        "Share of the option among all draws of the epoch, over all choices.",
    ),
)

_PLACEHOLDERS = {"<choice>": r".+", "<option>": r"[^/]+", "<epochs>": r"\d+"}


def _pattern(name: str) -> re.Pattern[str]:
    """Matches the names that `name` stands for; its placeholders are groups."""
    parts = re.split(r"<(\w+)>", name)
    texts = [re.escape(part) for part in parts]
    texts[1::2] = [f"(?P<{part}>{_PLACEHOLDERS[f'<{part}>']})" for part in parts[1::2]]
    return re.compile("".join(texts))


_PATTERNS = tuple((_pattern(metric.name), metric) for metric in METRICS)


@lru_cache(maxsize=4096)
def find_metric(name: str) -> Metric:
    """The metric that `name` is, with the placeholders of its title filled in.

    Raises:
        ValueError: the name is not in the table; it is the program's mistake, not the user's.
    """
    for pattern, metric in _PATTERNS:
        if match := pattern.fullmatch(name):
            title = metric.title
            for placeholder, text in match.groupdict().items():
                title = title.replace(f"<{placeholder}>", text)
            return replace(metric, name=name, title=title)
    raise ValueError(f"metric '{name}' is not defined: add it to nas/monitor/metrics.py")


def card_title(metric: Metric) -> str:
    """The title with its unit, where it has one."""
    return metric.title if metric.unit in _TOLD else f"{metric.title}, {metric.unit}"


_TOLD = ("1", "choices", "images/s", "that of the budget")
"""Units that a title needs not repeat."""
