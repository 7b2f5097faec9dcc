"""Makes `docs/metrics.md`: `python -m nas.monitor.metrics_page > docs/metrics.md`."""

from nas.monitor.metrics import METRICS
from nas.monitor.tags import TAGS


def describe_metrics() -> str:
    """Returns `docs/metrics.md`: what every metric means, as a Markdown table."""
    rows = [
        f"| `{metric.name}` | {metric.title} | {metric.unit} | {metric.run} | {metric.definition} |"
        for metric in METRICS
    ]
    return "\n".join([*_INTRODUCTION, *rows, *_PICTURES, ""])


_INTRODUCTION = (
    "# Metrics",
    "",
    "What the runs write to TensorBoard (`tensorboard/`) and, `result/` apart, to `metrics.jsonl`,",
    "under the same names. A line of `metrics.jsonl` is one JSON object: `step`, `epoch` where it",
    "applies, and the values of that moment; a value that is not finite is `null`. Step n means",
    "after n updates of the weights; epochs count from 0.",
    "",
    "This page is made of the table in `nas/monitor/metrics.py`; change it there and run",
    "",
    "```bash",
    "python -m nas.monitor.metrics_page > docs/metrics.md",
    "```",
    "",
    "| metric | title in TensorBoard | unit | run | definition |",
    "| --- | --- | --- | --- | --- |",
)
_PICTURES = (
    "",
    "## Pictures and texts",
    "",
    "| tag | title | what it shows |",
    "| --- | --- | --- |",
    *(f"| `{tag}` | {title} | {text} |" for tag, (title, text) in TAGS.items()),
    "",
    "[What each panel of TensorBoard shows](tensorboard.md) has pictures, and how to read them.",
)

if __name__ == "__main__":
    print(describe_metrics(), end="")
