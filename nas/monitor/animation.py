"""The probabilities of a search as a film: a bar for each option, a frame for each epoch."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from nas.files import replacing
from nas.monitor.history import History
from nas.monitor.panels import draw_empty_bars, highest, series_of
from nas.monitor.theme import Color, Theme, theme_of

MAX_FRAMES = 60
_FRAME_MS, _LAST_FRAME_MS = 100, 2500
_NUM_COLORS = 64
_BAR = 0.66  # height of a bar, in rows

Box = tuple[int, int, int, int]


def write_animation(
    history: History,
    path: Path,
    chosen: Mapping[str, str] | None = None,
    *,
    dark: bool = False,
    max_frames: int = MAX_FRAMES,
) -> None:
    """Writes a GIF of the probabilities, the same bytes every time.

    Args:
        history: Of a search.
        path: Of the file, which is replaced in one step.
        chosen: Option by choice; its name is bold.
        dark: Light letters on a dark ground.
        max_frames: So many at most; a longer search is thinned.

    Raises:
        UserError: the file cannot be written.
        ValueError: the history is empty.
    """
    theme = theme_of(dark)
    shown = history.thinned(max_frames)
    frames = _frames(shown, chosen, theme)
    # Colours of the last frame, where the bars are longest; all frames share them.
    palette = frames[-1].quantize(_NUM_COLORS, dither=Image.Dither.NONE)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    with replacing(path) as temporary:
        indexed[0].save(
            temporary,
            format="gif",
            save_all=True,
            append_images=indexed[1:],
            duration=durations,
            loop=0,
        )


def _frames(history: History, chosen: Mapping[str, str] | None, theme: Theme) -> list[Image.Image]:
    """A frame for each moment: what does not move is drawn once, by matplotlib."""
    figure = draw_empty_bars(history, chosen, theme)
    ground = _pixels(figure)
    boxes = _boxes(figure, ground.shape[0])
    top = highest(history)
    colors = {option: _bytes(color) for option, color in series_of(history, theme).items()}
    frames = []
    for moment, epochs in enumerate(history.epochs):
        pixels = ground.copy()
        for choice, options in history.choices.items():
            left, upper, right, lower = boxes[choice]
            height = (lower - upper) / max(map(len, history.choices.values()))
            for row, (option, values) in enumerate(options.items()):
                share = 0.0 if np.isnan(values[moment]) else values[moment] / top
                middle = upper + (row + 0.5) * height
                start, end = (round(middle + side * _BAR * height / 2) for side in (-1, 1))
                pixels[start:end, left : left + round(share * (right - left))] = colors[option]
        frames.append(_labelled(pixels, f"epoch {epochs} of {history.epochs[-1]}", theme))
    return frames


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _boxes(figure: Figure, height: int) -> dict[str, Box]:
    """Where each panel is, in pixels from the upper left corner."""
    boxes = {}
    for axes in figure.axes:
        if choice := axes.get_label():
            place = axes.get_window_extent()
            edges = (place.x0, height - place.y1, place.x1, height - place.y0)
            left, upper, right, lower = map(round, edges)
            boxes[str(choice)] = (left, upper, right, lower)
    return boxes


def _labelled(pixels: np.ndarray, text: str, theme: Theme) -> Image.Image:
    """With the epoch in the upper right corner."""
    image = Image.fromarray(pixels)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / "DejaVuSans-Bold.ttf"), 14)
    place = (image.width - 12, 8)
    ImageDraw.Draw(image).text(place, text, fill=_bytes(theme.text), font=font, anchor="ra")
    return image


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * value) for value in to_rgb(color))
    return red, green, blue
