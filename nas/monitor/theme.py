"""Colours of all drawings, light and dark."""

from dataclasses import dataclass

from matplotlib.colors import LinearSegmentedColormap, to_rgb

Color = str | tuple[float, float, float]

FAMILY_COLORS = {
    "conv": "#2468b4",
    "separable": "#1f8a55",
    "dilated": "#8446b0",
    "pool": "#b86400",
    "skip": "#56616c",
    "none": "#717b84",
    "other": "#b23a48",
}


@dataclass(frozen=True)
class Theme:
    """Colours of a drawing.

    Attributes:
        background: Of the whole.
        text: Of letters.
        node: Ground of nodes and blocks.
        bus: Lines that say less than the others.
        tint: How much of its family's colour a label's ground has.
        vivid: How much of it a line has; the rest is white, to stand out on a dark ground.
        series: Colours of lines that stand for options, in turn.
        ramp: From a probability of 0 to one of 1.
        scale: From improbable over as probable as the others to probable.
    """

    background: str
    text: str
    node: str
    bus: str
    tint: float
    vivid: float
    series: tuple[str, ...]
    ramp: tuple[str, ...]
    scale: tuple[str, ...]

    def line(self, family: str, strength: float = 1.0) -> tuple[float, float, float]:
        """Of an edge whose operation is of `family`; `strength` 0 to 1 makes it stand out."""
        color = mix(FAMILY_COLORS[family], "#ffffff", self.vivid)
        return mix(color, self.background, 0.82 + 0.18 * strength)

    def ground(self, family: str) -> tuple[float, float, float]:
        """Of the label of such an edge."""
        share = self.tint if family != "none" else 0.4 * self.tint
        return mix(self.line(family), self.background, share)

    def letters(self, family: str) -> Color:
        """On that ground."""
        return self.dim if family == "none" else self.text

    @property
    def dim(self) -> tuple[float, float, float]:
        """Of letters that matter less."""
        return mix(self.text, self.background, 0.72)

    @property
    def color_map(self) -> LinearSegmentedColormap:
        """Of probabilities."""
        return LinearSegmentedColormap.from_list("share", list(self.ramp))

    @property
    def diverging_map(self) -> LinearSegmentedColormap:
        """Of probabilities in relation to that of one among equals."""
        return LinearSegmentedColormap.from_list("relation", list(self.scale))


LIGHT = Theme(
    background="#ffffff",
    text="#1c2329",
    node="#eef1f4",
    bus="#a9b2ba",
    tint=0.13,
    vivid=1.0,
    series=("#2468b4", "#c25e00", "#1a7d4d", "#8446b0", "#b23a48", "#0b7680", "#80562f", "#56616c"),
    # White to deep blue: values near zero fade, the favourite stands out.
    ramp=("#ffffff", "#9cc3e6", "#14508f"),
    scale=("#8f4a00", "#e8b27a", "#ffffff", "#85b6e0", "#14508f"),
)
DARK = Theme(
    background="#1b1f24",
    text="#eceff2",
    node="#343b44",
    bus="#6d7781",
    tint=0.38,
    vivid=0.75,
    series=("#6cb0f5", "#f0a04b", "#5fce96", "#c490ec", "#f27d8c", "#4fc6d2", "#cfa981", "#aab4be"),
    ramp=("#1b1f24", "#2f6ca8", "#a9d4ff"),
    scale=("#ffc98a", "#96601f", "#262b31", "#2f6ca8", "#a9d4ff"),
)


def theme_of(dark: bool) -> Theme:
    """`DARK` or `LIGHT`."""
    return DARK if dark else LIGHT


def mix(color: Color, ground: Color, share: float) -> tuple[float, float, float]:
    """`share` of `color`, the rest of `ground`."""
    mixed = (
        share * c + (1 - share) * g for c, g in zip(to_rgb(color), to_rgb(ground), strict=True)
    )
    red, green, blue = mixed
    return red, green, blue


def contrast(color: Color, ground: Color) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2, relative luminance; letters need 4.5)."""
    lighter, darker = sorted((_luminance(color), _luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def readable_on(ground: Color) -> str:
    """White or black, whichever stands out more on `ground`: one always does, by 4.58."""
    return max("#ffffff", "#000000", key=lambda text: contrast(text, ground))


def _luminance(color: Color) -> float:
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
