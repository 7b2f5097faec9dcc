"""What TensorBoard is told: values, pictures and texts with a title and a description each.

A card of TensorBoard is headed with the title, and shows the description behind its info button.
They are written as tensors: what PyTorch's own writer makes has no room for either.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util
from torch.utils.tensorboard import summary as torch_summaries

from nas.monitor.metrics import card_title, find_metric
from nas.monitor.tags import TAGS

Setting = str | float | int | bool
# Torch gives it no types.
_custom_scalars: Callable[..., Any] = torch_summaries.custom_scalars


def scalar(name: str, value: float, *, described: bool) -> Any:
    """One value of a metric.

    Args:
        name: That of the metric.
        value: To be shown.
        described: Whether title and description are already in the file: TensorBoard reads them
            where it meets the metric first.
    """
    tensor = TensorProto(dtype=DT_FLOAT, float_val=[value])
    if described:
        return Summary(value=[Summary.Value(tag=name, tensor=tensor)])
    metric = find_metric(name)
    metadata = scalar_metadata.create_summary_metadata(card_title(metric), metric.definition)
    return Summary(value=[Summary.Value(tag=name, tensor=tensor, metadata=metadata)])


def picture(tag: str, pixels: np.ndarray) -> Any:
    """A picture, `[H, W, 3]` bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    height, width, _ = pixels.shape
    texts = [str(width).encode(), str(height).encode(), file.getvalue()]
    tensor = tensor_util.make_tensor_proto(texts, shape=(3,))
    metadata = image_metadata.create_summary_metadata(*_told_of(tag))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def text(tag: str, content: str) -> Any:
    """A text, which TensorBoard reads as Markdown."""
    title, description = _told_of(tag)
    metadata = text_metadata.create_summary_metadata(title, description)
    tensor = tensor_util.make_tensor_proto([content.encode()], shape=(1,))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _told_of(tag: str) -> tuple[str, str]:
    """Title and description of a picture or a text."""
    group, _, name = tag.partition("/")
    known = tag if tag in TAGS else f"{group}/<cell>"
    title, description = TAGS[known]
    return title.replace("<cell>", name), description


def charts(layout: Mapping[str, Mapping[str, Sequence[str]]]) -> Any:
    """The layout of the CUSTOM SCALARS tab; see `RunLog.layout`."""
    return _custom_scalars(
        {
            category: {title: ["Multiline", list(names)] for title, names in titles.items()}
            for category, titles in layout.items()
        }
    )


def session(
    settings: Mapping[str, Setting], first: Sequence[str], metrics: Sequence[str]
) -> list[Any]:
    """What puts a run into the HPARAMS tab.

    Args:
        settings: Columns of the table, each with the value of this run.
        first: Those that TensorBoard shows before all others.
        metrics: Further columns, with the last value that was logged under each name.
    """
    start = plugin_data_pb2.SessionStartInfo()
    infos = []
    for name, value in settings.items():
        # A Python bool would be shown as the number 1.0, and a seed as 3.0000.
        if isinstance(value, bool) or name == "seed":
            value = str(value).lower()
        is_text = isinstance(value, str)
        start.hparams[name].CopyFrom(
            type(start.hparams[name])(string_value=value)
            if is_text
            else type(start.hparams[name])(number_value=float(value))
        )
        kind = api_pb2.DATA_TYPE_STRING if is_text else api_pb2.DATA_TYPE_FLOAT64
        infos.append(api_pb2.HParamInfo(name=name, type=kind, differs=name in first))
    columns = []
    for name in metrics:
        metric = find_metric(name)
        columns.append(
            api_pb2.MetricInfo(
                name=api_pb2.MetricName(tag=name),
                display_name=card_title(metric),
                description=metric.definition,
            )
        )
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=columns)
    return [
        _hparams(hparams.EXPERIMENT_TAG, experiment=experiment),
        _hparams(hparams.SESSION_START_INFO_TAG, session_start_info=start),
    ]


def session_end() -> Any:
    """Says that the run has ended well."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    return _hparams(hparams.SESSION_END_INFO_TAG, session_end_info=end)


def is_of_session(value: Any) -> bool:
    """Whether a value of an event is what `session` or `session_end` has made."""
    return bool(value.metadata.plugin_data.plugin_name == hparams.PLUGIN_NAME)


def _hparams(tag: str, **content: Any) -> Any:
    data = plugin_data_pb2.HParamsPluginData(version=hparams.PLUGIN_DATA_VERSION, **content)
    plugin = SummaryMetadata.PluginData(
        plugin_name=hparams.PLUGIN_NAME, content=data.SerializeToString()
    )
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))])
