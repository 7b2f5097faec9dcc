"""Reads what a run has written for TensorBoard, as TensorBoard reads it."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray


@dataclass(frozen=True)
class Scalar:
    """One value of a metric."""

    step: int
    value: float


@dataclass(frozen=True)
class Picture:
    """One picture, as its event tells of it."""

    step: int
    width: int
    height: int
    encoded: bytes

    @property
    def size(self) -> tuple[int, int]:
        """What the file itself says."""
        return Image.open(io.BytesIO(self.encoded)).size


class Events:
    """The events of a run by plugin."""

    def __init__(self, run_dir: Path) -> None:
        self._all = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"tensors": 0})
        self._all.Reload()

    def tags(self, plugin: str) -> set[str]:
        """All tags of `scalars`, `images` or `text`."""
        return set(self._all.PluginTagToContent(plugin))

    def scalars(self, tag: str) -> list[Scalar]:
        """The values of a metric."""
        return [Scalar(step, float(array)) for step, array in self._arrays(tag)]

    def pictures(self, tag: str) -> list[Picture]:
        """The pictures of a tag."""
        return [
            Picture(step, int(array[0]), int(array[1]), array[2])
            for step, array in self._arrays(tag)
        ]

    def strings(self, tag: str) -> list[tuple[int, bytes]]:
        """Steps and texts of a tag, or what another plugin has put there as a string."""
        return [(event.step, event.tensor_proto.string_val[0]) for event in self._all.Tensors(tag)]

    def metadata(self, tag: str) -> Any:
        """What is told of a tag."""
        return self._all.SummaryMetadata(tag)

    @property
    def all_tags(self) -> set[str]:
        """Those of all plugins."""
        return set(self._all.summary_metadata)

    def _arrays(self, tag: str) -> Iterator[tuple[int, Any]]:
        for event in self._all.Tensors(tag):
            yield event.step, make_ndarray(event.tensor_proto)
