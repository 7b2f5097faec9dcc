"""What tests of drawings ask: is every label there, inside the picture, and clear of all others?"""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def extents(figure: Figure, with_frame: bool = True) -> dict[str, Bbox]:
    """Returns the box of every text in pixels, its frame included, by its id or its text."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = {}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if not text.get_text() or not text.get_visible():
            continue
        if text.axes is not None and not text.axes.axison and text not in text.axes.texts:
            continue  # ticks of axes that are off
        frame = text.get_bbox_patch()
        box = (
            frame.get_window_extent(renderer)
            if frame is not None and with_frame
            else text.get_window_extent(renderer)
        )
        boxes[text.get_gid() or f"{text.get_text()} at {box.x0:.0f}, {box.y0:.0f}"] = box
    return boxes


def assert_legible(figure: Figure) -> dict[str, Bbox]:
    """Returns the boxes of all texts, of which none is cut and none overlaps another."""
    boxes = extents(figure)
    whole = figure.bbox
    for name, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0, f"{name} is cut"
        assert box.x1 <= whole.x1 and box.y1 <= whole.y1, f"{name} is cut"
    for (name, box), (other, other_box) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(other_box), f"{name} overlaps {other}"
    return boxes
