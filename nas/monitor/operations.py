"""What drawings and counts need to know of an operation, from its name: family, short label."""

FAMILIES = ("conv", "separable", "dilated", "pool", "skip", "none", "other")

# In this order: `dil_sep_conv` is dilated, `sep_conv` is separable, what is left with `conv` plain.
_MARKS = (
    ("none", ("none", "zero")),
    ("skip", ("skip", "identity")),
    ("pool", ("pool",)),
    ("dilated", ("dil",)),
    ("separable", ("sep", "dw", "mbconv", "depthwise")),
    ("conv", ("conv",)),
)


def operation_family(name: str) -> str:
    """Returns the family of an operation, one of `FAMILIES`, judged by its name."""
    words = name.lower().split("_")
    for family, marks in _MARKS:
        if any(word.startswith(mark) for word in words for mark in marks):
            return family
    return "conv" if "conv" in name.lower() else "other"


def short_label(name: str, max_chars: int = 9) -> str:
    """Returns the name of an operation for a drawing: short, on two lines if it is long.

    `nor_conv_3x3` becomes "conv 3x3", `skip_connect` "skip", `max_pool_3x3` "max pool / 3x3".
    """
    if name == "skip_connect":
        return "skip"
    text = name.removeprefix("nor_").replace("_", " ")
    if len(text) <= max_chars:
        return text
    words = text.split(" ")
    breaks = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    # Ties go to the later break: "sep conv / 3x3" rather than "sep / conv 3x3".
    return "\n".join(min(reversed(breaks), key=lambda b: max(map(len, b)), default=(text,)))
