"""What TensorBoard heads pictures and texts with, and what it says of them."""

from collections.abc import Mapping

TAGS: Mapping[str, tuple[str, str]] = {
    "architecture/history": (
        "probabilities over time",
        "All probabilities of the search so far: a panel for each choice, a row for each option, "
        "epochs from left to right. Dark is probable; the option of the present genotype is bold.",
    ),
    "architecture/probabilities": (
        "probabilities now, %",
        "The probabilities of this moment, a row for each choice; the largest is framed.",
    ),
    "genotype/<cell>": (
        "<cell>: what the logits give now",
        "Nodes, operations and their probabilities, which also make a line bold or faint; `none` "
        "is dashed. Move the slider to see the search go by.",
    ),
    "result/<cell>": (
        "<cell>: the result",
        "What a search has derived, by the rule of `derive` (it may differ from what the logits "
        "gave last), or what a retraining has trained.",
    ),
    "run": ("this run", "How it was started, and what it was set to."),
    "genotype": ("the genotype, where it changed", "What the logits gave, newest first."),
    "result": ("the result", "What the run came to, and what to do with it."),
}
"""Title and description of each picture and text."""
